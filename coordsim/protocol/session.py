"""One rank's share of a job, from init to shutdown: what its background thread does, turn by turn.

Pure like the rest: the driver performs the exchanges, moves the data and passes the time in. Like this::

    session = Session("cached", rank, settings)
    drive(session.start())
    while True:
        schedule = drive(session.turn(now_ns))
        if session.report is not None:
            print(session.report.text())
        for response in schedule.responses:
            ...                                   # the collective (coordsim.protocol.execution), then
            session.finish(response)              # whose submissions have ended
        if schedule.shutdown:
            session.end()                         # whose submissions have failed with SHUT_DOWN
            break

The caller serializes calls from framework threads (:meth:`Session.submit`) and from the loop.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import replace
from typing import Any

from coordsim.protocol.groups import GroupTable
from coordsim.protocol.messages import Request, Response, join_request
from coordsim.protocol.negotiator import Cycle, Negotiator, Settings
from coordsim.protocol.planes import make_negotiator
from coordsim.protocol.queue import SHUT_DOWN, NotRunning, TensorQueue
from coordsim.protocol.stall import StallClock, StallLimits, StallReport, stall_report
from coordsim.protocol.startup import StartExchange, agree_on_settings, claims


class Session:
    """Between one init and one shutdown; to start again, make another. Raises KeyError for an unknown plane."""

    def __init__(
        self, kind: str, rank: int, settings: Settings, limits: StallLimits | None = None,
        more: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """``kind``: control plane. ``more``: the driver's own settings that all ranks must share."""
        self.rank = rank
        self.settings = settings
        self.negotiator: Negotiator = make_negotiator(kind, rank, settings)
        self.queue = TensorQueue()
        self.report: StallReport | None = None
        """Of the last turn, on the deciding rank: a stall to be told."""
        self.popped: tuple[Request, ...] = ()
        """Of the last turn: what this rank brought into it."""
        self._claims = claims(rank, kind, settings, more)
        self._once: set[tuple[str, ...]] = set()
        """Registered groups whose names will not come again."""
        self._running = False
        self._leaving = False
        limits = limits or StallLimits()
        self._hits_clock, self._table_clock = StallClock(limits), StallClock(limits)

    def start(self) -> Generator[StartExchange, Any, None]:
        """Agree with all ranks on the settings. Raises SettingsDiffer on every rank."""
        yield from agree_on_settings(self._claims)
        self._running = True

    @property
    def groups(self) -> GroupTable:
        """All groups registered so far."""
        return self.negotiator.settings.groups

    def register_groups(self, groups: Iterable[Iterable[str]], once: bool = False) -> None:
        """More groups, from now on; before any member is submitted here. Raises ValueError when one is taken.

        ``once``: their names will not come again, and they are forgotten when they have been reduced.

        Ranks need not do so in the same cycle: no member is ready, anywhere, before every rank has registered it.
        Whether they registered alike each request tells (``Request.group``).
        """
        table = self.groups
        more = tuple(tuple(members) for members in groups)
        together = GroupTable((*table.groups, *(each for each in more if each not in table.groups)), table.strict)
        self.negotiator.settings = replace(self.negotiator.settings, groups=together)
        if once:
            self._once.update(more)

    @property
    def waiting(self) -> bool:
        """Whether something that was popped here has not ended, so that a stall may be on its way."""
        return bool(self.queue.outstanding)

    @property
    def leaving(self) -> bool:
        """Whether the next turn asks all ranks to stop."""
        return self._leaving

    def submit(self, unit: Iterable[Request]) -> None:
        """Queue a tensor or a whole group. Raises NotRunning, and what :meth:`TensorQueue.submit` raises."""
        if not self._running:
            raise NotRunning("initialize first")
        self.queue.submit(unit)

    def join(self) -> None:
        """No more data from here; ends with a JOIN response that names the last rank. Raises as :meth:`submit`."""
        self.submit([join_request()])

    def shut_down(self) -> None:
        """This rank wants to stop: the next turn ends all ranks' loops."""
        self._leaving = True

    def turn(self, now_ns: int) -> Cycle:
        """One cycle; returns the schedule. ``now_ns``: any clock of this rank that never goes back.

        Afterwards :attr:`report` holds what is to be told of a stall. A stall that ends the job is told first;
        the next turn then ends all loops.
        """
        leaving = self._leaving
        stalled = self._hits_clock.due(self.negotiator.waiting, now_ns)
        explain = self._table_clock.due(self.negotiator.pending, now_ns)
        fatal = frozenset() if leaving else self._table_clock.fatal(now_ns)
        self.popped = self.queue.pop()
        schedule = yield from self.negotiator.cycle(
            self.popped, shutdown=leaving, stalled=stalled, explain=explain | fatal
        )
        explained = {} if leaving else self.negotiator.explained
        deadly = not fatal.isdisjoint(explained)
        if deadly:
            self._leaving = True
        self.report = stall_report(explained, self._table_clock.waited_ns(explained, now_ns), deadly)
        return schedule

    def finish(self, response: Response) -> list[Request]:
        """``response`` was executed, or is an error: this rank's submissions that it ends.

        Without those that a joined rank never made.
        """
        ended = [self.queue.finish(name) for name in response.names if name in self.queue]
        if self._once:
            self._forget(self.groups.members(response.names[0]))
        return ended

    def _forget(self, members: tuple[str, ...]) -> None:
        if members in self._once and not any(name in self.queue for name in members):
            self._once.remove(members)
            table = self.groups
            left = GroupTable(tuple(each for each in table.groups if each != members), table.strict)
            self.negotiator.settings = replace(self.negotiator.settings, groups=left)

    def end(self) -> tuple[str, ...]:
        """After a schedule with ``shutdown``: names that fail, with :data:`SHUT_DOWN`; nothing is taken any more."""
        return self.queue.drain()


__all__ = ["SHUT_DOWN", "Session"]
