"""When the next cycle begins: after a fixed time, as in Horovod, or when some rank has submitted something."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import Protocol

from real_backend.control.transport import ControlTransport


class Pace(Protocol):
    """The pace of an engine's loop, which calls its methods except :meth:`submitted` and :meth:`hurry`."""

    rings: bool
    """Whether entering a cycle has to wake the other ranks."""

    def wait(self, idle_s: float | None) -> None:
        """Return when this rank must enter its next cycle, at the latest after ``idle_s``."""
        ...

    def entered(self) -> None:
        """Note that everything submitted so far is being popped."""
        ...

    def submitted(self) -> None:
        """Note that something was queued; called by any thread, under the engine's lock."""
        ...

    def hurry(self) -> None:
        """Note that a thread waits for what was queued, so that gathering more is of no use; called by any thread."""
        ...

    def close(self) -> None: ...


class FixedPace:
    """A cycle begins ``cycle_time`` after the one before began, or at once if that one took longer.

    The pace is a plain sleep, as in Horovod, which nothing interrupts (docs/horovod.md 1.2).
    """

    rings = False

    def __init__(self, cycle_time_ns: int, over: threading.Event) -> None:
        """``over`` is set when the job has failed, and ends a sleep."""
        self._cycle_time_ns = cycle_time_ns
        self._over = over
        self._began_ns = time.perf_counter_ns()

    def wait(self, idle_s: float | None) -> None:
        left_ns = self._began_ns + self._cycle_time_ns - time.perf_counter_ns()
        if left_ns > 100_000_000:
            self._over.wait(left_ns / 1e9)
        elif left_ns > 0:
            time.sleep(left_ns / 1e9)

    def entered(self) -> None:
        self._began_ns = time.perf_counter_ns()

    def submitted(self) -> None:
        pass

    def hurry(self) -> None:
        pass

    def close(self) -> None:
        pass


class WakingPace:
    """A rank with work enters a gather window after its first submission, and rings the others; idle ranks sleep."""

    rings = True

    def __init__(self, control: ControlTransport, gather_window_ns: int, leaving: Callable[[], bool]) -> None:
        """``leaving`` states whether this rank wants to stop, which is a reason for a cycle as well."""
        self._control = control
        self._window_ns = gather_window_ns
        self._leaving = leaving
        self._doorbell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._first_ns = 0
        """When the oldest queued tensor was submitted; 0 if none is queued."""
        self._hurried = False

    def wait(self, idle_s: float | None) -> None:
        limit_ns = None if idle_s is None else time.perf_counter_ns() + int(idle_s * 1e9)
        while True:
            if self._leaving() or (self._hurried and self._first_ns):
                return
            until = self._first_ns + self._window_ns if self._first_ns else limit_ns
            timeout_s = None if until is None else (until - time.perf_counter_ns()) / 1e9
            if timeout_s is not None and timeout_s <= 0:
                return
            if self._control.wait(timeout_s, self._doorbell):
                return
            self._silence()

    def entered(self) -> None:
        self._first_ns = 0
        self._hurried = False

    def submitted(self) -> None:
        if not self._first_ns:
            self._first_ns = time.perf_counter_ns()
            os.eventfd_write(self._doorbell, 1)

    def hurry(self) -> None:
        if self._first_ns and not self._hurried:
            self._hurried = True
            os.eventfd_write(self._doorbell, 1)

    def ring(self) -> None:
        """End the sleep."""
        os.eventfd_write(self._doorbell, 1)

    def _silence(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._doorbell)

    def close(self) -> None:
        os.close(self._doorbell)
