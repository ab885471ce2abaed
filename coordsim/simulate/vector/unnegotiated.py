"""Runs without a background loop: ``ideal``, ``ddp``, and a single rank."""

from __future__ import annotations

from coordsim.protocol.fusion import fuse
from coordsim.protocol.messages import Response, respond_to
from coordsim.record.trace import CycleRow, Kind, Trace, schedule_hash
from coordsim.simulate.buckets import ddp_buckets
from coordsim.simulate.problem import Problem, Progress
from coordsim.simulate.vector.steps import Steps


class UnnegotiatedRun:
    """``ideal`` and ``ddp``: from the maxima over ranks alone, O(units) per step."""

    def __init__(self, problem: Problem, progress: Progress | None = None) -> None:
        self.problem = problem
        self.steps = Steps(problem, progress)
        self._buckets = ddp_buckets(problem) if problem.plane.name == "ddp" else []
        self._finish_ns = 0
        self._finish_shadow_ns = 0

    def run(self) -> Trace:
        """The whole trace."""
        step = self._ddp_step if self._buckets else self._ideal_step
        while not self.steps.over:
            step([self.steps.start_ns + int(latest) for latest in self.steps.ready.latest])
            self.steps.finish(self.steps.stream_free_ns)
        return self.steps.writer.finish(not self._buckets)

    def _ideal_step(self, latest: list[int]) -> None:
        """Whenever the stream is free, all units that are ready everywhere go at once."""
        problem = self.problem
        units, first = sorted(range(len(latest)), key=latest.__getitem__), 0
        while first < len(units):
            now = max(latest[units[first]], self._finish_ns)
            last = first
            while last < len(units) and latest[units[last]] <= now:
                last += 1
            names = (name for unit in sorted(units[first:last]) for name in problem.units[unit])
            singles = [respond_to(problem.requests[name]) for name in names]
            schedule = tuple(fuse(singles, problem.settings.fusion_threshold_bytes, problem.groups))
            self._go(schedule, now, blocking=True)
            self._finish_ns = self._finish_shadow_ns = self.steps.stream_free_ns
            first = last

    def _ddp_step(self, latest: list[int]) -> None:
        for bucket in self._buckets:
            now = max(*(latest[unit] for unit in bucket.units), self._finish_ns)
            self._go((bucket.response,), now, blocking=False)
            cost = self.problem.data.cost(bucket.response.nbytes, len(bucket.response.names))
            self._finish_ns, self._finish_shadow_ns = now + cost.launch_ns, now

    def _go(self, schedule: tuple[Response, ...], now: int, blocking: bool) -> None:
        cycle = self.steps.writer.next_cycle
        self.steps.writer.cycle(CycleRow(
            self.steps.step, Kind.FAST, now, now, 0, now, now, self._finish_ns, self._finish_shadow_ns, 0,
            responses=len(schedule), schedule_hash=schedule_hash([each.names for each in schedule]),
        ))  # fmt: skip
        self.steps.run(schedule, cycle, now, now, now, blocking)


class LonelyRun:
    """One rank: a step ends with its last gradient (docs/semantics.md 2.4)."""

    def __init__(self, problem: Problem, progress: Progress | None = None) -> None:
        self.steps = Steps(problem, progress)

    def run(self) -> Trace:
        """The whole trace."""
        while not self.steps.over:
            self.steps.finish(self.steps.start_ns + self.steps.ready.ready_last)
        return self.steps.writer.finish()
