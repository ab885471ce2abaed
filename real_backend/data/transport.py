"""The interface between the background loop and what moves the tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from coordsim.protocol.messages import Response
from coordsim.protocol.negotiator import AndReduce
from real_backend.engine.handles import Task
from real_backend.engine.observer import Performed


@dataclass(slots=True)
class Done:
    """One response that has been carried out or, on a GPU, launched."""

    results: Sequence[Any]
    """Results in the order of the response's names; None where this rank had joined."""
    performed: Performed
    settle: Callable[[], None] | None = None
    """What a thread must call before it uses the results."""


class DataTransport(Protocol):
    """One rank's end. Only the background thread calls its methods, except :meth:`break_off`."""

    blocking: bool
    """Whether :meth:`perform` returns when the data is there, and not already when the work was launched."""

    def perform(self, response: Response, tasks: Sequence[Task | None]) -> Done:
        """Carry out ``response``. ``tasks`` stand in the order of its names, None where this rank has joined.

        A rank that has joined gives neutral values. Raises RuntimeError if the collective cannot be finished, which
        ends the job.
        """
        ...

    def along(self, asked: AndReduce, tasks: Mapping[str, Task]) -> int | None:
        """Answer an AND with an expected schedule (``asked.expected``), and move its data in the same messages.

        The result is None if this is not possible, so that the control transport has to answer. ``tasks`` holds all
        outstanding tasks by name.
        """
        ...

    def break_off(self) -> None:
        """Give up what is being waited for, as far as possible; may be called from any thread."""
        ...

    def close(self) -> None: ...


class NoData:
    """Moves nothing: negotiation alone, for ranks without torch. Results are the payloads."""

    blocking = True

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns

    def perform(self, response: Response, tasks: Sequence[Task | None]) -> Done:
        now_ns = self._clock_ns()
        results = [None if task is None else task.payload for task in tasks]
        return Done(results, Performed(now_ns, now_ns, now_ns, now_ns, now_ns))

    def along(self, asked: AndReduce, tasks: Mapping[str, Task]) -> int | None:
        return None

    def break_off(self) -> None:
        pass

    def close(self) -> None:
        pass
