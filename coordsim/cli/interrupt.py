"""Ctrl-C: exit at once while nothing is half written, unwind where files are being written.

A KeyboardInterrupt that unwinds through numba's compiler can crash the process (llvmlite calls back into Python from
C++), and one that passes through ``exec`` of a string makes CPython die of SIGINT although it was caught. So the
handler itself ends the process during computation.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from coordsim.record.files import discard_unfinished

INTERRUPTED = 130
"""128 + SIGINT, as in shells."""
_CLEAR_LINE_SHOW_CURSOR = "\r\x1b[K\x1b[?25h"


def leave(signum: int, frame: Any) -> None:
    """Handle SIGINT: print a line, delete files that are being written, and exit."""
    restore = _CLEAR_LINE_SHOW_CURSOR if sys.stderr.isatty() else ""
    os.write(2, f"{restore}interrupted\n".encode())
    discard_unfinished()
    os._exit(INTERRUPTED)


def install() -> None:
    """Exit at once on SIGINT from now on, unless the parent process has SIGINT ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)


@contextmanager
def unwinding() -> Iterator[None]:
    """Make Ctrl-C raise KeyboardInterrupt inside the context, so that half-written files are removed."""
    before = signal.getsignal(signal.SIGINT)
    if before is not leave:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
