"""CPU time of a thread, and the time for which it waited for a core."""

from __future__ import annotations

import os
import threading
import time
from typing import NamedTuple


class Clocks(NamedTuple):
    """Counters that only grow, ns."""

    thread_ns: int
    """CPU time of the calling thread."""
    process_ns: int
    """CPU time of the process."""
    core_wait_ns: int | None
    """Time for which the calling thread was ready to run and no core was free; None where the kernel does not say."""


class CpuClocks:
    """Reads the :class:`Clocks` of the thread that calls it.

    Linux gives the wait in ``/proc/PID/task/TID/schedstat`` (Documentation/scheduler/sched-stats.rst, second field), if
    it was built with CONFIG_SCHED_INFO. The file stays open, since it is read once a step.
    """

    def __init__(self) -> None:
        self._thread = 0
        self._file: int | None = None

    def __call__(self) -> Clocks:
        return Clocks(time.thread_time_ns(), time.process_time_ns(), self._core_wait_ns())

    def _core_wait_ns(self) -> int | None:
        thread = threading.get_native_id()
        if thread != self._thread:
            self._open(thread)
        if self._file is None:
            return None
        try:
            return int(os.pread(self._file, 128, 0).split()[1])
        except (OSError, ValueError, IndexError):
            return None

    def _open(self, thread: int) -> None:
        if self._file is not None:
            os.close(self._file)
        self._thread = thread
        try:
            self._file = os.open(f"/proc/self/task/{thread}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._file = None
