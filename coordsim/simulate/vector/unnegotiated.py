"""Runs without a background loop: ``ideal``, ``ddp``, and a single rank."""

from __future__ import annotations

from typing import ClassVar

from coordsim.protocol.fusion import fuse
from coordsim.protocol.messages import Response, respond_to
from coordsim.record.trace import CycleRow, Kind, Trace, schedule_hash
from coordsim.simulate.problem import Problem, Progress
from coordsim.simulate.vector.steps import Steps


class UnnegotiatedRun:
    """From the maxima over ranks alone, O(units) per step; a subclass says what goes when."""

    blocking: ClassVar[bool]
    """Whether the next decision waits for the collectives of the one before; else for its launch alone."""

    def __init__(self, problem: Problem, progress: Progress | None = None) -> None:
        self.problem = problem
        self.steps = Steps(problem, progress)
        self._finish_ns = 0
        self._finish_shadow_ns = 0

    def run(self) -> Trace:
        """The whole trace."""
        while not self.steps.over:
            self._step([self.steps.start_ns + int(latest) for latest in self.steps.ready.latest])
            self.steps.finish(self.steps.stream_free_ns)
        return self.steps.writer.finish(self.blocking)

    def _step(self, latest: list[int]) -> None:
        """One step. ``latest``: when each unit is ready on the last rank, ns since the start of the run."""
        raise NotImplementedError

    def _go(self, schedule: tuple[Response, ...], now: int) -> None:
        cycle = self.steps.writer.next_cycle
        self.steps.writer.cycle(CycleRow(
            self.steps.step, Kind.FAST, now, now, 0, now, now, self._finish_ns, self._finish_shadow_ns, 0,
            responses=len(schedule), schedule_hash=schedule_hash([each.names for each in schedule]),
        ))  # fmt: skip
        self.steps.run(schedule, cycle, now, now, now, self.blocking)


class IdealRun(UnnegotiatedRun):
    """``ideal``: whenever the stream is free, all units that are ready everywhere go at once."""

    blocking = True

    def _step(self, latest: list[int]) -> None:
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
            self._go(schedule, now)
            self._finish_ns = self._finish_shadow_ns = self.steps.stream_free_ns
            first = last


class BucketRun(UnnegotiatedRun):
    """``ddp``: one bucket after the other, each when its last tensor is ready everywhere."""

    blocking = False

    def _step(self, latest: list[int]) -> None:
        for bucket in self.problem.buckets:
            now = max(*(latest[unit] for unit in bucket.units), self._finish_ns)
            self._go((bucket.response,), now)
            cost = self.problem.data.cost(bucket.response.nbytes, len(bucket.response.names))
            self._finish_ns, self._finish_shadow_ns = now + cost.launch_ns, now


class LonelyRun:
    """One rank: a step ends with its last gradient (docs/semantics.md 2.4)."""

    def __init__(self, problem: Problem, progress: Progress | None = None) -> None:
        self.steps = Steps(problem, progress)

    def run(self) -> Trace:
        """The whole trace."""
        while not self.steps.over:
            self.steps.finish(self.steps.start_ns + self.steps.ready.ready_last)
        return self.steps.writer.finish()
