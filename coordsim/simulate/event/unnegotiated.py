"""Runs without a background loop: ``ideal``, ``ddp``, and a single rank."""

from __future__ import annotations

from typing import ClassVar

import simpy

from coordsim.protocol.fusion import fuse
from coordsim.protocol.messages import Response, respond_to
from coordsim.record.trace import CycleRow, Kind, Trace, schedule_hash
from coordsim.simulate.event.clock import Clock, Wait
from coordsim.simulate.event.steps import Steps, Stream
from coordsim.simulate.problem import Problem, Progress


class UnnegotiatedRun:
    """A unit is known to be ready the moment the last rank has it; a subclass says what follows from that."""

    blocking: ClassVar[bool]
    """Whether the next decision waits for the collectives of the one before; else for its launch alone."""

    def __init__(self, problem: Problem, progress: Progress | None = None) -> None:
        self.problem = problem
        self.env = Clock()
        self._counts = [0] * len(problem.units)
        self._ready: list[int] = []
        self._busy = False
        self._deciding = False
        self._finish_ns = 0
        self._finish_shadow_ns = 0
        self._cycle = 0
        self._step = 0
        self._scheduled = 0
        self.steps = Steps(problem, self.env, self._submit, progress)
        self.stream = Stream(problem, self.env, self.steps)

    def run(self) -> Trace:
        """The whole trace."""
        self.env.run(until=self.steps.over)
        return self.steps.writer.finish(self.blocking)

    def _submit(self, rank: int, unit: int) -> None:
        self._counts[unit] += 1
        if self._counts[unit] == self.problem.ranks:
            self._counts[unit] = 0
            self._ready.append(unit)
            self._consider()

    def _consider(self) -> None:
        """Decide at the end of this tick, when everything that is ready in it has been counted."""
        if not self._deciding:
            self._deciding = True
            event = self.env.late()
            assert event.callbacks is not None
            event.callbacks.append(self._decide)

    def _decide(self, _: simpy.Event) -> None:
        self._deciding = False
        schedule = () if self._busy else self._next_schedule()
        if not schedule:
            return
        self._busy = True
        now, zero = self.env.ns, self._cycle
        self.steps.writer.cycle(CycleRow(
            self._step, Kind.FAST, now, now, 0, now, now, self._finish_ns, self._finish_shadow_ns, 0,
            responses=len(schedule), schedule_hash=schedule_hash([each.names for each in schedule]),
        ))  # fmt: skip
        self._cycle += 1
        self._scheduled += sum(len(response.names) for response in schedule)
        if self._scheduled == len(self.problem.tensors):
            self._scheduled = 0
            self._step += 1
        done = self.env.event()
        self.env.process(self.stream.launch(zero, schedule, now, self.blocking, done))
        self.env.process(self._until_free(schedule, done if self.blocking else None))

    def _next_schedule(self) -> tuple[Response, ...]:
        """What goes now, of the units that are ready everywhere; nothing yet where it is empty."""
        raise NotImplementedError

    def _until_free(self, schedule: tuple[Response, ...], done: simpy.Event | None) -> Wait:
        """Decide again when the collectives are over (``done`` fires), or without ``done`` after the launch."""
        self._finish_shadow_ns = self.env.ns
        if done is not None:
            yield done
            self._finish_shadow_ns = self.env.ns
        else:
            cost = self.problem.data.cost(schedule[0].nbytes, len(schedule[0].names))
            if cost.launch_ns:
                yield self.env.timeout(cost.launch_ns)
        self._finish_ns = self.env.ns
        self._busy = False
        self._consider()


class IdealRun(UnnegotiatedRun):
    """``ideal``: whenever the stream is free, everything that is ready everywhere goes at once."""

    blocking = True

    def _next_schedule(self) -> tuple[Response, ...]:
        units, self._ready = self._ready, []
        names = (name for unit in sorted(units) for name in self.problem.units[unit])
        singles = [respond_to(self.problem.requests[name]) for name in names]
        return tuple(fuse(singles, self.problem.settings.fusion_threshold_bytes, self.problem.groups))


class BucketRun(UnnegotiatedRun):
    """``ddp``: one bucket after the other, each when its last tensor is ready everywhere."""

    blocking = False

    def __init__(self, problem: Problem, progress: Progress | None = None) -> None:
        super().__init__(problem, progress)
        self._bucket = 0

    def _next_schedule(self) -> tuple[Response, ...]:
        bucket = self.problem.buckets[self._bucket]
        if not set(bucket.units) <= set(self._ready):
            return ()
        self._ready = [unit for unit in self._ready if unit not in bucket.units]
        self._bucket = (self._bucket + 1) % len(self.problem.buckets)
        return (bucket.response,)


class LonelyRun:
    """One rank: no background loop, no collectives, a step ends with its last gradient (docs/semantics.md 2.4)."""

    def __init__(self, problem: Problem, progress: Progress | None = None) -> None:
        self.env = Clock()
        self.steps = Steps(problem, self.env, self._submit, progress)

    def run(self) -> Trace:
        """The whole trace."""
        self.env.run(until=self.steps.over)
        return self.steps.writer.finish()

    def _submit(self, rank: int, unit: int) -> None:
        self.steps.reduced(len(self.steps.problem.units[unit]), self.env.ns)
