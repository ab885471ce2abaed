"""The background loop of all ranks, one cycle or one run of idle cycles at a time."""

from __future__ import annotations

from collections.abc import Callable
from weakref import ref

import numpy as np

from coordsim.protocol.messages import Response
from coordsim.record.trace import CycleRow, Kind, Trace, schedule_hash
from coordsim.simulate.problem import Problem, Progress
from coordsim.simulate.vector.pattern import Outcome, Pattern, Patterns
from coordsim.simulate.vector.plane import Decision
from coordsim.simulate.vector.planes import plane_of
from coordsim.simulate.vector.steps import Steps


class NegotiatedRun:
    """The background loop of all ranks, one cycle or one run of idle cycles at a time."""

    def __init__(self, problem: Problem, progress: Progress | None = None) -> None:
        self.problem = problem
        self.steps = Steps(problem, progress)
        self.patterns = Patterns(problem.ranks)
        self.plane = plane_of(problem)(problem, self.steps, self.patterns)
        self.pattern = self.patterns.uniform
        self._detours = problem.scenario.noise.detours  # then no cycle is like another
        self.wake_ns = 0
        """Rank 0's wake; the others' are relative to it."""
        self._finish: Callable[[int], tuple[int, int]] = lambda rank: (0, 0)
        self._schedule_hashes: dict[tuple[Response, ...], int] = {(): 0}

    def run(self) -> Trace:
        """The whole trace."""
        while not self.steps.over:
            self.plane.detour_ns = self.problem.noise.detour_ns(self.steps.writer.next_cycle)
            event_ns = self.plane.next_event_ns(self.pattern)
            if event_ns > self.wake_ns:
                self._rest_until(event_ns)
            else:
                self._act()
        return self.steps.writer.finish(self.problem.data.blocking)

    def _rest_until(self, event_ns: int) -> None:
        """One idle cycle; and if it leads to itself, all that come before the event."""
        outcome = self.plane.idle(self.pattern)
        idle = Decision((), Kind.IDLE, outcome, request_bytes=self.plane.idle_bytes())
        self._write(idle)
        pattern, wake_ns = self._next_wakes(outcome, 0)
        period_ns = wake_ns - self.wake_ns
        steady = pattern is self.pattern and event_ns > wake_ns and not self._detours
        more = -(-(event_ns - wake_ns) // period_ns) if steady else 0
        self._depart(outcome, pattern, wake_ns)
        if more:
            self._write(idle, more, period_ns)
            self.wake_ns += (more - 1) * period_ns
            self._depart(outcome, pattern, self.wake_ns + period_ns)

    def _act(self) -> None:
        decision = self.plane.decide(self.pattern, self.wake_ns)
        cycle = self.steps.writer.next_cycle
        self._write(decision)
        schedule, outcome = decision.schedule, decision.outcome
        if not schedule:
            self._depart(outcome, *self._next_wakes(outcome, 0))
            return
        blocking = self.problem.data.blocking
        now = self.wake_ns
        self.steps.run(
            schedule, cycle, now + self.pattern.last, now + outcome.last, now + outcome.shadow_last, blocking
        )
        if blocking:
            self._resume_together(self.steps.stream_free_ns)
        elif self.problem.wait == "host":
            self._depart_when_launched(outcome, schedule)
        else:
            busy_ns = self._busy_ns(schedule)
            self._depart(outcome, *self._next_wakes(outcome, busy_ns), busy_ns)
        if self.plane.done == len(self.problem.units):
            self.steps.finish(self.steps.stream_free_ns)
            self.plane.new_step()

    def _busy_ns(self, schedule: tuple[Response, ...]) -> int:
        """Local work and launches of a whole schedule, the same on every rank."""
        costs = (self.problem.data.cost(each.nbytes, len(each.names)) for each in schedule)
        return sum(cost.local_ns + cost.launch_ns for cost in costs)

    def _depart_when_launched(self, outcome: Outcome, schedule: tuple[Response, ...]) -> None:
        """Go on when each rank has waited for its data. A finish that the wait has made later has A as its shadow."""
        leave, shadow = self.wake_ns + outcome.leave, self.wake_ns + outcome.leave_shadow
        finish = self.steps.launched(schedule, leave)
        shadow = np.where(finish > leave + self._busy_ns(schedule), self.wake_ns + self.pattern.last, shadow)
        wakes = np.maximum(self.pattern.offset + (self.wake_ns + self.problem.cycle_ns), finish)
        self.pattern, self.wake_ns = self.patterns.of(wakes), int(wakes[0])
        self._finish = lambda rank: (int(finish[rank]), int(shadow[rank]))

    def _next_wakes(self, outcome: Outcome, busy_ns: int) -> tuple[Pattern, int]:
        """Pattern and rank 0's wake after a cycle that keeps every rank busy ``busy_ns`` more."""
        cycle_ns = self.problem.cycle_ns
        if outcome.slack + busy_ns <= cycle_ns:
            return self.pattern, self.wake_ns + cycle_ns
        if outcome.following is not None and not busy_ns:
            reference, later_ns = outcome.following
            known = reference()
            if known is not None:
                return known, self.wake_ns + later_ns
        wakes = np.maximum(self.pattern.offset + cycle_ns, outcome.leave + busy_ns)
        pattern, later_ns = self.patterns.of(wakes), int(wakes[0])
        if not busy_ns:
            outcome.following = ref(pattern), later_ns
        return pattern, self.wake_ns + later_ns

    def _depart(self, outcome: Outcome, pattern: Pattern, wake_ns: int, busy_ns: int = 0) -> None:
        """Go on to the next cycle; remember when each rank finished this one."""
        base_ns, leave, shadow = self.wake_ns, outcome.leave, outcome.leave_shadow
        self._finish = lambda rank: (base_ns + int(leave[rank]) + busy_ns, base_ns + int(shadow[rank]))
        self.pattern, self.wake_ns = pattern, wake_ns

    def _resume_together(self, end_ns: int) -> None:
        wakes = np.maximum(self.pattern.offset + (self.wake_ns + self.problem.cycle_ns), end_ns)
        self.pattern, self.wake_ns = self.patterns.of(wakes), int(wakes[0])
        self._finish = lambda rank: (end_ns, end_ns)

    def _write(self, decision: Decision, repeat: int = 1, period_ns: int = 0) -> None:
        pattern, outcome, now = self.pattern, decision.outcome, self.wake_ns
        finish, finish_shadow = self._finish(pattern.last_rank)
        schedule = decision.schedule
        hashed = self._schedule_hashes.get(schedule)
        if hashed is None:
            hashed = self._schedule_hashes[schedule] = schedule_hash([each.names for each in schedule])
        self.steps.writer.cycle(CycleRow(
            self.steps.step, decision.kind, now + pattern.first, now + pattern.last, pattern.last_rank,
            now + outcome.last, now + outcome.shadow_last, finish, finish_shadow, pattern.wake_hash,
            decision.requests, decision.request_bytes, decision.hits_common, len(schedule), hashed,
        ), repeat, period_ns)  # fmt: skip
