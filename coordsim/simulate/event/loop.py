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
from coordsim.protocol.planes import PlaneKind, make_negotiator
from coordsim.protocol.queue import TensorQueue
from coordsim.record.trace import CycleRow, Kind, Trace, schedule_hash, wake_hash
from coordsim.simulate.event.clock import Clock, Wait
from coordsim.simulate.event.exchanges import Caller
from coordsim.simulate.event.interpreter import Interpreter
from coordsim.simulate.event.planes import EXCHANGES
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
class Launch:
    """One response that every rank launches for itself."""

    ended: simpy.Event
    ranks: int = 0
    """How many have launched it."""


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
    detour_ns: Int64 | None
    """What the operating system takes from each control CPU; None: nothing."""
    left: int = 0
    popped: int = 0
    requests: int = 0
    """Counted by rank 0, its own included."""
    request_bytes: int = 0
    schedules: dict[int, say.Schedule] = field(default_factory=dict)
    launches: list[Launch] = field(default_factory=list)
    """``wait_for_data = host`` only."""


class NegotiatedRun:
    """Control planes that negotiate: every rank runs its background loop (docs/semantics.md 3)."""

    def __init__(self, problem: Problem, debug: bool = False, progress: Progress | None = None) -> None:
        self.problem = problem
        self.env = Clock()
        name = problem.plane.name
        self.ranks = [
            Rank(rank=rank, negotiator=make_negotiator(name, rank, problem.settings)) for rank in range(problem.ranks)
        ]
        self._exchanges = EXCHANGES[name](problem, Interpreter(self.env, problem.network, self.ranks))
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
            if cycle.detour_ns is not None and cycle.detour_ns[me.rank]:
                detour_ns = int(cycle.detour_ns[me.rank])
                me.shadow_ns += detour_ns  # no work of the control plane's
                yield self.env.timeout(detour_ns)
            schedule = yield from self._negotiate(me, popped, index)
            me.executed += sum(len(response.names) for response in schedule.responses)
            leave_ns, leave_shadow_ns = self.env.ns, me.shadow_ns
            self._leave(cycle, index, me, schedule)
            finish_ns = leave_ns
            if schedule.responses:
                if self.problem.wait == "host":
                    yield from self._launch_what_exists(cycle, index, me.rank, schedule)
                    finish_ns = self.env.ns
                elif self.problem.data.blocking:
                    yield cycle.done
                    finish_ns = self.env.ns
                else:
                    finish_ns += self._busy_ns(schedule)
                if self.problem.data.blocking:
                    leave_shadow_ns = finish_ns
                elif finish_ns > leave_ns + self._busy_ns(schedule):
                    leave_shadow_ns = int(cycle.wake.max())
            cycle.finish[me.rank], cycle.finish_shadow[me.rank] = finish_ns, leave_shadow_ns
            wake_ns = max(wake_ns + self.problem.cycle_ns, finish_ns)
            index += 1

    def _launch_what_exists(self, cycle: CycleInFlight, index: int, rank: int, schedule: say.Schedule) -> Wait:
        """``wait_for_data = host``: this rank launches each response when its data exists here.

        A response is on the stream when the last rank has launched it. One that is later for the wait has A as its
        shadow (docs/semantics.md 7b).
        """
        existing = self.steps.compute.existing
        assert existing is not None
        busy_ns = 0
        resumed_ns: int | None = None
        for place, response in enumerate(schedule.responses):
            cost = self._cost(response)
            busy_ns += cost.local_ns + cost.launch_ns
            if cost.local_ns:
                yield self.env.timeout(cost.local_ns)
            yield from existing.on_rank(rank, {self.problem.unit_of[name] for name in response.names})
            if cost.launch_ns:
                yield self.env.timeout(cost.launch_ns)
            if place == len(cycle.launches):
                cycle.launches.append(Launch(self.env.event()))
            launch = cycle.launches[place]
            launch.ranks += 1
            if launch.ranks == self.problem.ranks:
                began_ns = int(cycle.leave.max()) if resumed_ns is None else resumed_ns
                shadow_ns = int(cycle.leave_shadow.max()) if resumed_ns is None else resumed_ns
                if self.env.ns > began_ns + busy_ns:
                    shadow_ns = int(cycle.wake.max())
                self.stream.put(index, place, response, shadow_ns, launch.ended)
            if self.problem.data.blocking:
                yield launch.ended
                resumed_ns, busy_ns = self.env.ns, 0

    def _busy_ns(self, schedule: say.Schedule) -> int:
        """Local work and launches of a whole schedule, the same on every rank."""
        costs = [self._cost(each) for each in schedule.responses]
        return sum(cost.local_ns + cost.launch_ns for cost in costs)

    def _cost(self, response: Response) -> ResponseCost:
        return self.problem.data.cost(response.nbytes, len(response.names))

    def _cycle(self, index: int) -> CycleInFlight:
        cycle = self._cycles.get(index)
        if cycle is None:
            wake, leave, leave_shadow, finish, finish_shadow = np.zeros((5, self.problem.ranks), dtype=np.int64)
            detour_ns = self.problem.noise.detour_ns(index)
            cycle = CycleInFlight(wake, leave, leave_shadow, finish, finish_shadow, self.env.event(), detour_ns)
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
        if self.problem.wait != "host":
            launch = self.stream.launch(
                index, schedule.responses, int(cycle.leave_shadow.max()), self.problem.data.blocking, cycle.done
            )
            self.env.process(launch)
        self._cycles.pop(index - 1, None)

    def _write(self, cycle: CycleInFlight, index: int, schedule: say.Schedule) -> None:
        last = int(cycle.wake.argmax())
        enter_last = int(cycle.wake[last])
        before = self._cycles.get(index - 1)
        kind = _kind(self.problem.kind, schedule, cycle.popped)
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
        return (yield from self._exchanges.converse(me, me.negotiator.cycle(popped), cycle))


def _kind(plane: PlaneKind, schedule: say.Schedule, popped: int) -> Kind:
    if plane.asks_every_cycle:
        return Kind.SLOW if popped else Kind.IDLE
    if schedule.invalidated:
        return Kind.INVALIDATE
    if schedule.slow:
        return Kind.SLOW
    return Kind.FAST if schedule.hits_common else Kind.IDLE
