"""What is to be done when a process ends, however its interpreter ends."""

from __future__ import annotations

import atexit
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.util import Finalize

_PRIORITY = 100
"""Before multiprocessing's own, which have none or less; of equal ones the last registered goes first, as atexit's."""


def at_exit(call: Callable[[], object]) -> None:
    """``call()`` once, at the end of this process; not in one that is forked from it.

    A child of :mod:`multiprocessing` (``torch.multiprocessing.spawn``) leaves by ``os._exit``, behind atexit's back.
    """
    process = os.getpid()

    def here() -> None:
        if os.getpid() == process:
            call()

    if multiprocessing.parent_process() is None:
        atexit.register(here)
    else:
        Finalize(None, here, exitpriority=_PRIORITY)
