"""Every rank's background loop around its own negotiator."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import simpy

from coordsim.cost.data_plane import ResponseCost
from coordsim.protocol import negotiator as say
from coordsim.protocol.invariants import InvariantWatch
from coordsim.protocol.messages import Response
from coordsim.protocol.queue import TensorQueue
from coordsim.record.trace import CycleRow, Kind, Trace, schedule_hash, wake_hash
from coordsim.simulate.event.clock import Clock, Wait
from coordsim.simulate.event.exchanges import Caller, Exchanges
from coordsim.simulate.event.interpreter import Interpreter
from coordsim.simulate.event.steps import Steps, Stream
from coordsim.simulate.problem import Problem, Progress

Int64 = npt.NDArray[np.int64]


@dataclass(slots=True, kw_only=True)
class Rank(Caller):
    negotiator: say.Negotiator
    queue: TensorQueue = field(default_factory=TensorQueue)
    executed: int = 0
    """Tensors scheduled so far, over all steps."""


@dataclass(slots=True)
class CycleInFlight:
    """One cycle while ranks pass through it; arrays of shape [rank]."""

    wake: Int64
    leave: Int64
    leave_shadow: Int64
    finish: Int64
    finish_shadow: Int64
    done: simpy.Event
    """Blocking data plane: fires when the cycle's collectives are over."""
    left: int = 0
    popped: int = 0
    requests: int = 0
    """Counted by rank 0, its own included."""
    request_bytes: int = 0
    schedules: dict[int, say.Schedule] = field(default_factory=dict)


class NegotiatedRun:
    """Control planes that negotiate: every rank runs its background loop (docs/semantics.md 3)."""

    def __init__(self, problem: Problem, debug: bool = False, progress: Progress | None = None) -> None:
        self.problem = problem
        self.env = Clock()
        kind = say.NEGOTIATORS[problem.plane.name]
        self.ranks = [
            Rank(rank=rank, negotiator=kind(rank, problem.settings)) for rank in range(problem.ranks)
        ]
        self._exchanges = Exchanges(problem, Interpreter(self.env, problem.network, self.ranks))
        self.steps = Steps(problem, self.env, self._submit, progress)
        self.stream = Stream(problem, self.env, self.steps)
        self._units = [tuple(problem.requests[name] for name in unit) for unit in problem.units]
        self._cycles: dict[int, CycleInFlight] = {}
        self._step = 0
        self._scheduled = 0
        self._tensors_left = len(problem.tensors) * (problem.scenario.steps + 1)
        self._watch = (
            InvariantWatch([each.negotiator for each in self.ranks], [each.queue for each in self.ranks])
            if debug
            else None
        )

    def run(self) -> Trace:
        """The whole trace."""
        for rank in self.ranks:
            self.env.process(self._loop(rank))
        self.env.run(until=self.steps.over)
        if self._watch is not None:
            self._watch.job_done()
        return self.steps.writer.finish(self.problem.data.blocking)

    def _submit(self, rank: int, unit: int) -> None:
        self.ranks[rank].queue.submit(self._units[unit])

    def _loop(self, me: Rank) -> Wait:
        wake_ns, index = 0, 0
        while me.executed < self._tensors_left:
            yield self.env.late(wake_ns - self.env.ns)
            popped = me.queue.pop()
            me.shadow_ns, me.requests, me.request_bytes, me.popped = self.env.ns, 0, 0, len(popped)
            cycle = self._cycle(index)
            cycle.wake[me.rank] = wake_ns
            schedule = yield from self._negotiate(me, popped, index)
            me.executed += sum(len(response.names) for response in schedule.responses)
            leave_ns, leave_shadow_ns = self.env.ns, me.shadow_ns
            self._leave(cycle, index, me, schedule)
            finish_ns = leave_ns
            if schedule.responses:
                if self.problem.data.blocking:
                    yield cycle.done
                    finish_ns = leave_shadow_ns = self.env.ns
                else:
                    costs = [self._cost(each) for each in schedule.responses]
                    finish_ns += sum(cost.local_ns + cost.launch_ns for cost in costs)
            cycle.finish[me.rank], cycle.finish_shadow[me.rank] = finish_ns, leave_shadow_ns
            wake_ns = max(wake_ns + self.problem.cycle_ns, finish_ns)
            index += 1

    def _cost(self, response: Response) -> ResponseCost:
        return self.problem.data.cost(response.nbytes, len(response.names))

    def _cycle(self, index: int) -> CycleInFlight:
        cycle = self._cycles.get(index)
        if cycle is None:
            wake, leave, leave_shadow, finish, finish_shadow = np.zeros((5, self.problem.ranks), dtype=np.int64)
            cycle = CycleInFlight(wake, leave, leave_shadow, finish, finish_shadow, self.env.event())
            self._cycles[index] = cycle
        return cycle

    def _leave(self, cycle: CycleInFlight, index: int, me: Rank, schedule: say.Schedule) -> None:
        """A rank's exchange is over; the last one to leave settles the cycle."""
        cycle.leave[me.rank], cycle.leave_shadow[me.rank] = self.env.ns, me.shadow_ns
        cycle.left += 1
        cycle.popped += me.popped
        if me.rank == say.COORDINATOR:
            cycle.requests, cycle.request_bytes = me.requests, me.request_bytes
        cycle.schedules[me.rank] = schedule
        if self._watch is not None:
            self._watch.leaving(me.rank, schedule)
        if cycle.left < self.problem.ranks:
            return
        if self._watch is not None:
            self._watch.cycle_done(cycle.schedules[rank] for rank in range(self.problem.ranks))
        for response in schedule.responses:
            for name in response.names:
                for rank in self.ranks:
                    rank.queue.finish(name)
        self._write(cycle, index, schedule)
        launch = self.stream.launch(
            index, schedule.responses, int(cycle.leave_shadow.max()), self.problem.data.blocking, cycle.done
        )
        self.env.process(launch)
        self._cycles.pop(index - 1, None)

    def _write(self, cycle: CycleInFlight, index: int, schedule: say.Schedule) -> None:
        last = int(cycle.wake.argmax())
        enter_last = int(cycle.wake[last])
        before = self._cycles.get(index - 1)
        kind = _kind(self.problem.plane.name, schedule, cycle.popped)
        self.steps.writer.cycle(CycleRow(
            self._step, kind, int(cycle.wake.min()), enter_last, last,
            int(cycle.leave.max()), int(cycle.leave_shadow.max()),
            int(before.finish[last]) if before else 0, int(before.finish_shadow[last]) if before else 0,
            wake_hash(cycle.wake - enter_last), cycle.requests, cycle.request_bytes, schedule.hits_common,
            len(schedule.responses), schedule_hash([response.names for response in schedule.responses]),
        ))  # fmt: skip
        self._scheduled += sum(len(response.names) for response in schedule.responses)
        if self._scheduled == len(self.problem.tensors):
            self._scheduled = 0
            self._step += 1

    def _negotiate(self, me: Rank, popped: tuple[Any, ...], cycle: int) -> Wait:
        conversation = me.negotiator.cycle(popped)
        result: Any = None
        while True:
            try:
                exchange = conversation.send(result)
            except StopIteration as stop:
                return stop.value
            result = yield from self._exchanges.perform(me, exchange, cycle)


def _kind(plane: str, schedule: say.Schedule, popped: int) -> Kind:
    if plane != "cached":
        return Kind.SLOW if popped else Kind.IDLE
    if schedule.invalidated:
        return Kind.INVALIDATE
    if schedule.slow:
        return Kind.SLOW
    return Kind.FAST if schedule.hits_common else Kind.IDLE
