"""Calls at the end of a process, however its interpreter ends."""

from __future__ import annotations

import atexit
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.util import Finalize

_PRIORITY = 100
"""Runs before multiprocessing's own finalizers, which have none or less; of equal ones the last runs first, as in
atexit."""


def at_exit(call: Callable[[], object]) -> None:
    """Call ``call()`` once at the end of this process, but not in a process forked from it.

    A child of :mod:`multiprocessing` (``torch.multiprocessing.spawn``) leaves by ``os._exit``, which skips atexit.
    """
    process = os.getpid()

    def here() -> None:
        if os.getpid() == process:
            call()

    if multiprocessing.parent_process() is None:
        atexit.register(here)
    else:
        Finalize(None, here, exitpriority=_PRIORITY)
