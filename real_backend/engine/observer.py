"""What an engine reports to its observers. Every method may be overridden, none may raise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from coordsim.protocol.messages import Request, RequestList, Response
from coordsim.protocol.negotiator import Negotiator, Schedule
from real_backend.control.transport import Sent


@dataclass(slots=True)
class Performed:
    """When one response was carried out, ns of the engine's clock. Without a fusion buffer copies take no time.

    On a GPU the times of copies and of the collective are not known when the loop goes on, and are None.
    """

    launch_ns: int
    begin_ns: int
    copied_in_ns: int | None
    reduced_ns: int | None
    end_ns: int | None


@dataclass(slots=True)
class CycleDetails:
    """One turn of the loop, before its schedule is executed; times in ns of the engine's clock."""

    cycle: int
    entered_ns: int
    left_ns: int
    work_ns: int
    """Share of the time from entering to leaving that was spent in the protocol's own code; the rest is exchanges."""
    popped: Sequence[Request]
    stamps: Sequence[int]
    """When each of ``popped`` was submitted, ns; only if an observer wants it."""
    schedule: Schedule
    received: Sequence[RequestList]
    """On the coordinator: the lists that it counted."""
    negotiator: Negotiator
    sent: Sent | None
    """What this rank sent for the agreement; None where another library sends."""


class Observer:
    """Receives reports from the background thread, except for :meth:`mark`."""

    wants_stamps = False
    """Whether :attr:`CycleDetails.stamps` is needed."""

    def mark(self, what: str, now_ns: int) -> None:
        """The framework has reached a point in its step (:meth:`real_backend.engine.engine.Engine.mark`).

        Called by the framework's thread.
        """

    def cycle_begins(self, cycle: int) -> None:
        """A cycle begins, and all that was submitted is about to be popped."""

    def cycle(self, details: CycleDetails) -> None:
        """A schedule was agreed."""

    def response(self, response: Response, performed: Performed, tasks: Sequence[Request | None]) -> None:
        """A response was executed, or was an error. ``tasks`` are this rank's requests, None where it had joined."""

    def cycle_ends(self, cycle: int, finished_ns: int) -> None:
        """All responses of the cycle were executed."""

    def ended(self, error: BaseException | None) -> None:
        """The engine has stopped."""


class Timeline(Protocol):
    """A timeline that can be started and stopped while the job runs, from any thread."""

    def start(self, path: Path, mark_cycles: bool = False) -> None: ...

    def stop(self) -> None: ...


class Observers(Observer):
    """Several observers as one."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)
        self.wants_stamps = any(one.wants_stamps for one in observers)

    def mark(self, what: str, now_ns: int) -> None:
        for one in self._observers:
            one.mark(what, now_ns)

    def cycle_begins(self, cycle: int) -> None:
        for one in self._observers:
            one.cycle_begins(cycle)

    def cycle(self, details: CycleDetails) -> None:
        for one in self._observers:
            one.cycle(details)

    def response(self, response: Response, performed: Performed, tasks: Sequence[Request | None]) -> None:
        for one in self._observers:
            one.response(response, performed, tasks)

    def cycle_ends(self, cycle: int, finished_ns: int) -> None:
        for one in self._observers:
            one.cycle_ends(cycle, finished_ns)

    def ended(self, error: BaseException | None) -> None:
        for one in self._observers:
            one.ended(error)
