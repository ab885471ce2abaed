"""What the background loop asks of whoever moves the tensors."""

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
    """One response has been carried out, or on a GPU been launched."""

    results: Sequence[Any]
    """By the response's names; None where this rank had joined."""
    performed: Performed
    settle: Callable[[], None] | None = None
    """What a thread must do before it uses the results."""


class DataTransport(Protocol):
    """One rank's end; used by the background thread alone, but for :meth:`break_off`."""

    blocking: bool
    """Whether :meth:`perform` returns when the data is there; else when the work was launched."""

    def perform(self, response: Response, tasks: Sequence[Task | None]) -> Done:
        """Carry out ``response``; ``tasks`` by its names, None where this rank has joined and gives neutral values.

        Raises RuntimeError when the collective cannot be finished: the job is then over.
        """
        ...

    def along(self, asked: AndReduce, tasks: Mapping[str, Task]) -> int | None:
        """Answer an AND with an expected schedule (``asked.expected``), and move its data in the same messages.

        None: not to be had here, let the control transport answer. ``tasks``: all outstanding ones by name.
        """
        ...

    def break_off(self) -> None:
        """From any thread: give up what is being waited for, as far as that is possible."""
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
