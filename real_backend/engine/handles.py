"""Handles: what a submission returns to be polled, waited for, and asked for the result."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from coordsim.protocol.messages import Request


@dataclass(slots=True)
class Task:
    """One tensor of a submission, as the data transport sees it."""

    request: Request
    payload: Any
    """This rank's values, whose type only the data transport knows."""
    output: Any
    """Where the result goes, if the caller provides a place; it may be ``payload`` itself."""
    handle: Handle
    index: int
    """Position in its unit."""
    ready: Any = None
    """What the data transport needs to know when ``payload`` exists (an event of the caller's stream)."""


class Bell:
    """Shared by an engine's handles: wakes threads that wait for an end, and tells the loop that a thread waits."""

    def __init__(self, hurry: Callable[[], None]) -> None:
        self.condition = threading.Condition(threading.Lock())
        self.hurry = hurry


class Handle:
    """The handle of one unit: a tensor, or a group whose members end together."""

    __slots__ = ("_bell", "_error", "_grouped", "_left", "_on_done", "_results", "done", "settle")

    def __init__(self, bell: Bell, members: int, grouped: bool) -> None:
        self.done = False
        self.settle: Callable[[], None] | None = None
        """On a GPU: makes the calling thread's current stream wait for the result."""
        self._bell = bell
        self._left = members
        self._grouped = grouped
        self._results: Any = [None] * members if grouped else None
        self._error: BaseException | None = None
        self._on_done: list[Callable[[Handle], None]] | None = None

    def poll(self) -> bool:
        """Return whether the operation has ended, with or without an error."""
        return self.done

    def wait(self, timeout_s: float | None = None) -> Any:
        """Return the result; for a group, the list of its members' results.

        Raises CollectiveFailed, ShutDown or PeerLost if the operation ended so, TimeoutError if it has not ended within
        ``timeout_s``.
        """
        if not self.done:
            self._bell.hurry()
            with self._bell.condition:
                if not self._bell.condition.wait_for(lambda: self.done, timeout_s):
                    raise TimeoutError(f"not done within {timeout_s:g} s")
        if self._error is not None:
            raise self._error.with_traceback(None)
        if self.settle is not None:
            self.settle()
        return self.result

    @property
    def result(self) -> Any:
        """The result of an operation that has ended without an error."""
        return self._results

    @property
    def error(self) -> BaseException | None:
        return self._error

    def on_done(self, call: Callable[[Handle], None]) -> None:
        """Call ``call`` with this handle when it is done: at once if it is, else from the background thread."""
        with self._bell.condition:
            if not self.done:
                self._on_done = [*(self._on_done or ()), call]
                return
        call(self)

    def finish(self, index: int, result: Any) -> bool:
        """Note that one member has ended well; called by the loop.

        Returns True if it was the last member; :func:`close` must follow.
        """
        if self._grouped:
            self._results[index] = result
        else:
            self._results = result
        self._left -= 1
        return self._left == 0

    def fail(self, error: BaseException) -> bool:
        """Note that a member failed, and with it the unit; called by the loop. The first error counts."""
        if self._error is None:
            self._error = error
        self._left -= 1
        return self._left <= 0


def close(bell: Bell, handles: Sequence[Handle]) -> None:
    """Mark handles as done and wake all waiting threads at once; called by the loop."""
    calls = []
    with bell.condition:
        for handle in handles:
            if not handle.done:
                handle.done = True
                if handle._on_done is not None:
                    calls += [(handle, call) for call in handle._on_done]
        bell.condition.notify_all()
    for handle, call in calls:
        call(handle)
