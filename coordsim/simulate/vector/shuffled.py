"""Control planes whose ranks each have a ready order of their own (docs/semantics.md 2.6).

A rank's pointer counts places in its own order, and a unit is complete when as many ranks have popped it as there
are. Once ``cached`` knows every name, orders matter no more: a unit is common when its last rank has it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from coordsim.protocol.messages import Response, respond_to
from coordsim.protocol.negotiator import agree, remember
from coordsim.record.trace import Kind
from coordsim.simulate.problem import Problem
from coordsim.simulate.vector.cached import Cached
from coordsim.simulate.vector.coordinator import Coordinator, PointToPoint
from coordsim.simulate.vector.kernels.readiness import count_ready, next_ready
from coordsim.simulate.vector.pattern import Outcome, Pattern, Patterns
from coordsim.simulate.vector.plane import Asked, Decision
from coordsim.simulate.vector.steps import Steps

Int64 = npt.NDArray[np.int64]


class ShuffledCoordinator(Coordinator):
    """Everything new goes to the coordinator, from each rank in its own order."""

    def __init__(self, problem: Problem, steps: Steps, patterns: Patterns) -> None:
        super().__init__(problem, steps, patterns)
        self._members = np.diff(self.member_prefix)
        self._bytes = np.diff(self.byte_prefix)
        self._popped_by: Int64 = np.zeros(len(problem.units), dtype=np.int64)
        """Shape [unit]: how many ranks have popped it in the current step."""

    def new_step(self) -> None:
        super().new_step()
        self._popped_by[:] = 0

    def next_event_ns(self, pattern: Pattern) -> int:
        times, _ = self.steps.ready.in_order()
        return next_ready(times, self.counts, pattern.offset) + self.steps.start_ns

    def decide(self, pattern: Pattern, wake_ns: int) -> Decision:
        asked, schedule = self._count(pattern, wake_ns)
        return Decision(schedule, Kind.SLOW, self._exchange(pattern, asked, schedule), asked.total, asked.sent_bytes)

    def _exchange(self, pattern: Pattern, asked: Asked, schedule: tuple[Response, ...]) -> Outcome:
        return self._round(pattern, asked, schedule)

    def _count(self, pattern: Pattern, wake_ns: int) -> tuple[Asked, tuple[Response, ...]]:
        """What each rank asks for in a cycle, and the schedule of the units that are complete with it.

        Units complete in the order of the lists: by the last rank that had to ask, then by place in its list.
        """
        ranks, before = self.problem.ranks, self.counts
        times, units = self.steps.ready.in_order()
        self.counts = np.empty_like(before)
        count_ready(times, pattern.offset + (wake_ns - self.steps.start_ns), int(before.min()), self.counts)
        requests = np.zeros(ranks, dtype=np.int64)
        nbytes = np.full(ranks, self.problem.wire.request_header, dtype=np.int64)
        completed_at = np.full(self._popped_by.size, -1, dtype=np.int64)
        for place in range(int(before.min()), int(self.counts.max())):
            asking = np.flatnonzero((before <= place) & (place < self.counts))
            unit = units[place, asking]
            requests[asking] += self._members[unit]
            nbytes[asking] += self._bytes[unit]
            self._popped_by += np.bincount(unit, minlength=self._popped_by.size)
            np.maximum.at(completed_at, unit, asking * units.shape[0] + place)
        complete = np.flatnonzero((completed_at >= 0) & (self._popped_by == ranks))
        complete = complete[np.argsort(completed_at[complete])]
        self.done += complete.size
        names = [name for unit in complete.tolist() for name in self.problem.units[unit]]
        ready = [respond_to(self.problem.requests[name]) for name in names]
        return Asked(requests, nbytes), agree((), ready, self.problem.settings)


class ShuffledPointToPoint(ShuffledCoordinator, PointToPoint):
    """Every worker messages rank 0."""


class ShuffledCached(ShuffledCoordinator, Cached):
    """A cache that holds every name: unknown in the cold step, common by maxima over ranks afterwards."""

    def __init__(self, problem: Problem, steps: Steps, patterns: Patterns) -> None:
        super().__init__(problem, steps, patterns)
        assert self._fits, "a smaller cache is refused by name (coordsim.simulate.vector.refusals)"
        self._pending = list(range(len(problem.units)))
        """Units of the current step that are not scheduled yet."""

    def new_step(self) -> None:
        super().new_step()
        self._pending = list(range(len(self.problem.units)))

    def next_event_ns(self, pattern: Pattern) -> int:
        if not self._all_known:
            return super().next_event_ns(pattern)
        return min(self._lag(unit, pattern) for unit in self._pending) + self.steps.start_ns

    def decide(self, pattern: Pattern, wake_ns: int) -> Decision:
        if self._all_known:
            return self._by_bits(pattern, wake_ns)
        decision = super().decide(pattern, wake_ns)
        remember(self.cache, decision.schedule, self.problem.requests)
        return decision

    def _exchange(self, pattern: Pattern, asked: Asked, schedule: tuple[Response, ...]) -> Outcome:
        return self._slow_round(pattern, asked, schedule)

    def _by_bits(self, pattern: Pattern, wake_ns: int) -> Decision:
        """Everything is cached, and stays so: the schedule depends on the common units alone."""
        limit = wake_ns - self.steps.start_ns
        common = [unit for unit in self._pending if self._lag(unit, pattern) <= limit]
        self._pending = [unit for unit in self._pending if self._lag(unit, pattern) > limit]
        self.done += len(common)
        names = [name for unit in common for name in self.problem.units[unit]]
        names.sort(key=self.cache.bit)
        schedule = agree([self.cache.peek(name) for name in names], (), self.problem.settings)
        return Decision(schedule, Kind.FAST, self.idle(pattern), hits_common=len(names))
