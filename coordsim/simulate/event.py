"""The event engine: SimPy, every rank a process, every message of every exchange an event.

The oracle. It runs each rank's own negotiator (``coordsim.protocol``), interprets the exchange programs
(``coordsim.cost.programs``) message by message, and never calls the closed forms of the vector engine.
Meant for up to some 4,000 ranks; 27,600 patiently.
"""

from __future__ import annotations

import operator
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import simpy

from coordsim.cost import programs
from coordsim.cost.data_plane import ResponseCost
from coordsim.cost.programs import Program, Recv, RecvAll, Send, Work
from coordsim.cost.wire_sizes import LENGTH_BYTES
from coordsim.protocol import negotiator as say
from coordsim.protocol.fusion import fuse
from coordsim.protocol.invariants import InvariantWatch
from coordsim.protocol.messages import RequestList, Response, respond_to
from coordsim.protocol.queue import TensorQueue
from coordsim.record.trace import CycleRow, Kind, Trace, TraceWriter, schedule_hash, wake_hash
from coordsim.simulate.buckets import ddp_buckets
from coordsim.simulate.problem import Problem

Wait: TypeAlias = Generator[simpy.Event, Any, Any]
Int64 = npt.NDArray[np.int64]

_LATE = 2
"""SimPy priority of a wake: after everything else in its tick, so "ready at W" counts as in (SEMANTICS 3.2)."""


@dataclass(slots=True)
class _Message:
    source: int
    payload: Any
    nbytes: int
    shadow_ns: int
    """Arrival in the run without serial work, from the same wakes (SEMANTICS 7b)."""


@dataclass(slots=True)
class _Rank:
    rank: int
    negotiator: say.Negotiator
    queue: TensorQueue = field(default_factory=TensorQueue)
    inbox: dict[Any, deque[_Message]] = field(default_factory=lambda: defaultdict(deque))
    waiting: tuple[Any, Collection[int], simpy.Event] | None = None
    shadow_ns: int = 0
    requests: int = 0
    """Counted by this rank as a coordinator in the current cycle."""
    request_bytes: int = 0
    popped: int = 0
    executed: int = 0


@dataclass(slots=True)
class _Cycle:
    """One cycle while ranks pass through it; arrays of shape [rank]."""

    wake: Int64
    leave: Int64
    leave_shadow: Int64
    finish: Int64
    finish_shadow: Int64
    left: int = 0
    popped: int = 0
    requests: int = 0
    """Counted by rank 0, its own included."""
    request_bytes: int = 0
    schedules: list[say.Schedule] = field(default_factory=list)
    done: simpy.Event | None = None
    """Blocking data plane: fires when the cycle's collectives are over."""


class _Steps:
    """Compute and step ends, the same for every control plane."""

    def __init__(self, problem: Problem, env: simpy.Environment, submit: Callable[[int, int], None]) -> None:
        self.problem = problem
        self.env = env
        self.writer = TraceWriter()
        self.step = 0
        self._submit = submit
        self._total = problem.scenario.steps + 1
        self._start_ns = 0
        self._starts = [env.event() for _ in range(self._total)]
        self._offsets: Int64 = np.empty((0, 0), dtype=np.int64)
        self._reduced = 0
        self.over = env.event()
        for rank in range(problem.ranks):
            env.process(self._compute(rank))
        self._begin(0)

    def _begin(self, start_ns: int) -> None:
        """A step's start: one number for all ranks."""
        self._start_ns = start_ns
        workload = self.problem.scenario.workload
        noise = self.problem.noise
        ready = noise.ready_ns(self.step, workload.forward_ns, self.problem.backward_ns, 0, self.problem.ranks)
        self._offsets = np.ascontiguousarray(ready[:, self.problem.last_member])
        self._starts[self.step].succeed()

    def _compute(self, rank: int) -> Wait:
        for step in range(self._total):
            yield self._starts[step]
            start = self._start_ns
            for unit, offset in enumerate(self._offsets[rank].tolist()):
                delay = start + offset - self.env.now
                if delay:
                    yield self.env.timeout(delay)
                self._submit(rank, unit)

    def reduced(self, tensors: int, end_ns: int) -> None:
        """``tensors`` more have been reduced; called at their end. Ends the step with the last of them."""
        self._reduced += tensors
        if self._reduced < len(self.problem.tensors):
            return
        self._reduced = 0
        self.env.process(self._finish_step(end_ns))

    def _finish_step(self, collectives_end_ns: int) -> Wait:
        problem, workload = self.problem, self.problem.scenario.workload
        start, last = self._start_ns, self._offsets[:, -1]
        median = (problem.ranks - 1) // 2
        forward = np.sort(problem.noise.forward_ns(self.step, workload.forward_ns))[median]
        end = collectives_end_ns + workload.optimizer_ns
        self.writer.step(
            self.step, start, int(forward), int(np.sort(last)[median]), start + int(last.max()),
            int(last.argmax()), collectives_end_ns, end,
        )  # fmt: skip
        self.step += 1
        if self.step == self._total:
            self.over.succeed()
            return
        following = problem.next_start_ns(start, end)
        if following > self.env.now:
            yield self.env.timeout(following - self.env.now)
        self._begin(following)


class _Stream:
    """The data plane's one stream: responses first in, first out (SEMANTICS 6.1)."""

    def __init__(self, problem: Problem, env: simpy.Environment, steps: _Steps) -> None:
        self.problem = problem
        self.env = env
        self.steps = steps
        self._jobs: simpy.Store = simpy.Store(env)
        env.process(self._serve())

    def launch(
        self, cycle: int, schedule: tuple[Response, ...], shadow_ns: int, blocking: bool, done: simpy.Event
    ) -> Wait:
        """Launch a schedule from now on; ``done`` fires when it has been executed."""
        for index, response in enumerate(schedule):
            cost = self.problem.data.cost(response.nbytes, len(response.names))
            if cost.local_ns + cost.launch_ns:
                yield self.env.timeout(cost.local_ns + cost.launch_ns)
            ended = self.env.event()
            self._jobs.put((cycle, index, response, cost, self.env.now, shadow_ns, ended))
            if blocking:
                yield ended
                shadow_ns = self.env.now
        if schedule and not blocking:
            yield ended
        done.succeed()

    def _serve(self) -> Wait:
        while True:
            cycle, index, response, cost, launch_ns, shadow_ns, ended = yield self._jobs.get()
            begin_ns = self.env.now
            for part in (cost.copy_in_ns, cost.collective_ns, cost.copy_out_ns):
                if part:
                    yield self.env.timeout(part)
            self.steps.writer.response(
                cycle, index, len(response.names), response.nbytes, launch_ns, shadow_ns, begin_ns,
                cost.copy_in_ns, cost.collective_ns, cost.copy_out_ns, self.env.now,
            )  # fmt: skip
            ended.succeed()
            self.steps.reduced(len(response.names), self.env.now)


class NegotiatedRun:
    """``point-to-point``, ``coordinator``, ``hierarchical`` and ``cached``: every rank runs its background loop."""

    def __init__(self, problem: Problem, debug: bool = False) -> None:
        self.problem = problem
        self.env = simpy.Environment(initial_time=0)
        kind = say.NEGOTIATORS[problem.plane.name]
        self.ranks = [_Rank(rank, kind(rank, problem.settings)) for rank in range(problem.ranks)]
        self.steps = _Steps(problem, self.env, self._submit)
        self.stream = _Stream(problem, self.env, self.steps)
        self._units = [tuple(problem.requests[name] for name in unit) for unit in problem.units]
        self._cycles: dict[int, _Cycle] = {}
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

    # -- the background loop (SEMANTICS 3) ---------------------------------------------------------

    def _loop(self, me: _Rank) -> Wait:
        wake_ns, index = 0, 0
        while me.executed < self._tensors_left:
            yield self._wake(wake_ns)
            popped = me.queue.pop()
            me.shadow_ns, me.requests, me.request_bytes, me.popped = self.env.now, 0, 0, len(popped)
            cycle = self._cycle(index)
            cycle.wake[me.rank] = wake_ns
            schedule = yield from self._negotiate(me, popped, index)
            me.executed += sum(len(response.names) for response in schedule.responses)
            leave_ns, leave_shadow_ns = self.env.now, me.shadow_ns
            self._leave(cycle, index, me, schedule)
            finish_ns = leave_ns
            if schedule.responses:
                if self.problem.data.blocking:
                    yield cycle.done
                    finish_ns = leave_shadow_ns = self.env.now
                else:
                    busy = sum(self._cost(each).local_ns + self._cost(each).launch_ns for each in schedule.responses)
                    finish_ns += busy
            cycle.finish[me.rank], cycle.finish_shadow[me.rank] = finish_ns, leave_shadow_ns
            wake_ns = max(wake_ns + self.problem.cycle_ns, finish_ns)
            index += 1

    def _cost(self, response: Response) -> ResponseCost:
        return self.problem.data.cost(response.nbytes, len(response.names))

    def _wake(self, at_ns: int) -> simpy.Event:
        event = simpy.Event(self.env)
        event._ok, event._value = True, None  # a succeeded event, scheduled behind its whole tick
        self.env.schedule(event, priority=_LATE, delay=at_ns - self.env.now)
        return event

    def _cycle(self, index: int) -> _Cycle:
        cycle = self._cycles.get(index)
        if cycle is None:
            columns = [np.zeros(self.problem.ranks, dtype=np.int64) for _ in range(5)]
            cycle = self._cycles[index] = _Cycle(*columns, done=self.env.event())
        return cycle

    def _leave(self, cycle: _Cycle, index: int, me: _Rank, schedule: say.Schedule) -> None:
        """A rank's exchange is over; the last one to leave settles the cycle."""
        cycle.leave[me.rank], cycle.leave_shadow[me.rank] = self.env.now, me.shadow_ns
        cycle.left += 1
        cycle.popped += me.popped
        if me.rank == say.COORDINATOR:
            cycle.requests, cycle.request_bytes = me.requests, me.request_bytes
        cycle.schedules.append(schedule)
        if cycle.left < self.problem.ranks:
            return
        if self._watch is not None:
            self._watch.cycle_done(cycle.schedules)
        for response in schedule.responses:
            for name in response.names:
                for rank in self.ranks:
                    rank.queue.finish(name)
        self._write(cycle, index, schedule)
        assert cycle.done is not None
        launch = self.stream.launch(
            index, schedule.responses, int(cycle.leave_shadow.max()), self.problem.data.blocking, cycle.done
        )
        self.env.process(launch)
        self._cycles.pop(index - 1, None)

    def _write(self, cycle: _Cycle, index: int, schedule: say.Schedule) -> None:
        last = int(cycle.wake.argmax())
        enter_last = int(cycle.wake[last])
        before = self._cycles.get(index - 1)
        self.steps.writer.cycle(CycleRow(
            self._step, _kind(self.problem.plane.name, schedule, cycle.popped), int(cycle.wake.min()), enter_last,
            last, int(cycle.leave.max()), int(cycle.leave_shadow.max()),
            int(before.finish[last]) if before else 0, int(before.finish_shadow[last]) if before else 0,
            wake_hash(cycle.wake - enter_last), cycle.requests, cycle.request_bytes, schedule.hits_common,
            len(schedule.responses), schedule_hash([response.names for response in schedule.responses]),
        ))  # fmt: skip
        self._scheduled += sum(len(response.names) for response in schedule.responses)
        if self._scheduled == len(self.problem.tensors):
            self._scheduled = 0
            self._step += 1

    # -- exchanges (SEMANTICS 4) -------------------------------------------------------------------

    def _negotiate(self, me: _Rank, popped: tuple[Any, ...], cycle: int) -> Wait:
        conversation = me.negotiator.cycle(popped)
        result: Any = None
        while True:
            try:
                exchange = conversation.send(result)
            except StopIteration as stop:
                return stop.value
            result = yield from self._exchange(me, exchange, cycle)

    def _exchange(self, me: _Rank, exchange: say.Exchange, cycle: int) -> Wait:
        ranks, rank = self.problem.ranks, me.rank
        match exchange:
            case say.AndReduce(value, words):
                program = programs.reduce_recursive_doubling(rank, ranks, 8 * words, value, operator.and_)
                return (yield from self._interpret(me, program, (cycle, "and")))
            case say.OrReduce(value, words):
                program = programs.reduce_recursive_doubling(rank, ranks, 8 * words, value, operator.or_)
                return (yield from self._interpret(me, program, (cycle, "or")))
            case say.GatherLists(message):
                return (yield from self._gather(me, message, cycle))
            case say.BroadcastList(message):
                return (yield from self._broadcast(me, message, cycle))
            case say.CollectFromChildren():
                children = say.tree_children(rank, ranks, self.problem.settings.radix)
                lists = yield from self._interpret(me, programs.tree_collect(children), (cycle, "up"))
                yield from self._count(me, [lists[child] for child in children], cycle)
                return [lists[child] for child in children]
            case say.SendToParent(message):
                parent = say.tree_parent(rank, self.problem.settings.radix)
                size = self.problem.request_list_bytes(message)
                return (yield from self._interpret(me, programs.tree_send(parent, size, message), (cycle, "up")))
            case say.BroadcastDownTree(message):
                yield from self._build(me, message, cycle)
                children = say.tree_children(rank, ranks, self.problem.settings.radix)
                up = say.tree_parent(rank, self.problem.settings.radix) if rank else None
                size = self.problem.response_list_bytes(message) if message else 0
                program = programs.tree_broadcast(up, children, size, message)
                return (yield from self._interpret(me, program, (cycle, "down")))

    def _gather(self, me: _Rank, message: RequestList, cycle: int) -> Wait:
        size = self.problem.request_list_bytes(message)
        if self.problem.plane.name == "point-to-point":
            host = self.problem.host
            own_work = host.per_request_ns * len(message.requests)

            def work(received: RequestList) -> int:
                return host.per_message_ns + host.per_request_ns * len(received.requests)

            program = programs.star_gather(me.rank, self.problem.ranks, size, message, work, own_work)
            lists = yield from self._interpret(me, program, (cycle, "gather"))
            if lists is not None:
                self._note(me, list(lists.values()))
        else:
            length = self._gather_program(me.rank, LENGTH_BYTES, size, None)
            lengths = yield from self._interpret(me, length, (cycle, "lengths"))
            program = self._gather_program(me.rank, size, message, lengths)
            lists = yield from self._interpret(me, program, (cycle, "lists"))
            if lists is not None:
                yield from self._count(me, list(lists.values()), cycle)
        return [lists[rank] for rank in range(self.problem.ranks)] if lists is not None else None

    def _gather_program(self, rank: int, size: int, payload: Any, lengths: dict[int, int] | None) -> Program:
        control, ranks = self.problem.control, self.problem.ranks
        if control.gather == "binomial":
            return programs.gather_binomial(rank, ranks, size, payload)
        if control.gather == "node-leaders":
            per_node = self.problem.network.ranks_per_node
            return programs.gather_node_leaders(rank, ranks, size, payload, per_node)
        return programs.gather_linear(rank, ranks, size, payload, control.eager_limit_bytes, lengths)

    def _broadcast(self, me: _Rank, message: Any, cycle: int) -> Wait:
        size = self.problem.response_list_bytes(message) if message is not None else 0
        yield from self._build(me, message, cycle)
        ranks = self.problem.ranks
        if self.problem.plane.name == "point-to-point":
            program = programs.star_broadcast(me.rank, ranks, size, message)
            return (yield from self._interpret(me, program, (cycle, "broadcast")))
        length = programs.broadcast_binomial(me.rank, ranks, LENGTH_BYTES, size)
        yield from self._interpret(me, length, (cycle, "broadcast length"))
        program = programs.broadcast_binomial(me.rank, ranks, size, message)
        return (yield from self._interpret(me, program, (cycle, "broadcast")))

    def _count(self, me: _Rank, lists: list[RequestList], cycle: int) -> Wait:
        """The serial work of parsing and counting what came in, once all of it is there."""
        host = self.problem.host
        others = [received for received in lists if received.rank != me.rank]
        counted = sum(len(received.requests) for received in lists)
        if len(others) == len(lists):  # a tree's node: its own requests are counted too
            counted += me.popped
        work_ns = host.per_message_ns * len(others) + host.per_request_ns * counted
        self._note(me, others, counted)
        yield from self._interpret(me, _just(Work(work_ns)), (cycle, "count"))

    def _note(self, me: _Rank, lists: list[RequestList], counted: int | None = None) -> None:
        me.requests = sum(len(each.requests) for each in lists) if counted is None else counted
        me.request_bytes = sum(self.problem.request_list_bytes(each) for each in lists if each.rank != me.rank)

    def _build(self, me: _Rank, message: Any, cycle: int) -> Wait:
        """The serial work of building responses, at the coordinator."""
        if message is not None:
            built = sum(len(response.names) for response in message.responses)
            work = Work(self.problem.host.per_response_ns * built)
            yield from self._interpret(me, _just(work), (cycle, "build"))

    # -- programs, message by message (SEMANTICS 4.1) ----------------------------------------------

    def _interpret(self, me: _Rank, program: Program, tag: Any) -> Wait:
        network, result = self.problem.network, None
        while True:
            try:
                op = program.send(result)
            except StopIteration as stop:
                return stop.value
            result = None
            match op:
                case Send(target, nbytes, payload):
                    flight = network.flight_ns(me.rank, target, nbytes)
                    message = _Message(me.rank, payload, nbytes, me.shadow_ns + flight)
                    arrival = self.env.timeout(flight, (target, tag, message))
                    assert arrival.callbacks is not None
                    arrival.callbacks.append(self._arrive)
                    busy = network.send_busy_ns(me.rank, target, nbytes)
                    me.shadow_ns += busy
                    if busy:
                        yield self.env.timeout(busy)
                case Recv(source):
                    message = yield from self._take(me, tag, (source,))
                    me.shadow_ns = max(me.shadow_ns, message.shadow_ns) + network.overhead_ns
                    if network.overhead_ns:
                        yield self.env.timeout(network.overhead_ns)
                    result = message.payload
                case RecvAll(sources, root, work):
                    result = yield from self._take_all(me, tag, sources, root, work)
                case Work(ns) if ns:
                    yield self.env.timeout(ns)

    def _take_all(
        self, me: _Rank, tag: Any, sources: Collection[int], root: bool, work: Callable[[Any], int] | None
    ) -> Wait:
        network = self.problem.network
        received, shadows = {}, []
        for _ in range(len(sources)):
            message = yield from self._take(me, tag, sources)
            service = network.root_service_ns(message.nbytes) if root else network.overhead_ns
            shadows.append((message.shadow_ns, service))
            busy = service + (work(message.payload) if work is not None else 0)
            if busy:
                yield self.env.timeout(busy)
            received[message.source] = message.payload
        for arrival, service in sorted(shadows):
            me.shadow_ns = max(me.shadow_ns, arrival) + service
        return received

    def _arrive(self, event: simpy.Event) -> None:
        target, tag, message = event.value
        receiver = self.ranks[target]
        receiver.inbox[tag].append(message)
        if receiver.waiting is not None:
            wanted, sources, wake = receiver.waiting
            if wanted == tag and message.source in sources:
                receiver.waiting = None
                wake.succeed()

    def _take(self, me: _Rank, tag: Any, sources: Collection[int]) -> Wait:
        """The next message of this exchange from one of ``sources``, waiting for it if need be."""
        box = me.inbox[tag]
        while True:
            found = next((i for i, message in enumerate(box) if message.source in sources), None)
            if found is not None:
                break
            me.waiting = (tag, sources, self.env.event())
            yield me.waiting[2]
        message = box[found]
        del box[found]
        if not box:
            del me.inbox[tag]
        return message


def _just(op: programs.Op) -> Program:
    yield op


def _kind(plane: str, schedule: say.Schedule, popped: int) -> Kind:
    if plane != "cached":
        return Kind.SLOW if popped else Kind.IDLE
    if schedule.invalidated:
        return Kind.INVALIDATE
    if schedule.slow:
        return Kind.SLOW
    return Kind.FAST if schedule.hits_common else Kind.IDLE


class UnnegotiatedRun:
    """``ideal`` and ``ddp``: no background loop; a unit is known to be ready the moment the last rank has it."""

    def __init__(self, problem: Problem, debug: bool = False) -> None:
        self.problem = problem
        self.env = simpy.Environment(initial_time=0)
        self._counts = [0] * len(problem.units)
        self._ready: list[int] = []
        self._buckets = ddp_buckets(problem) if problem.plane.name == "ddp" else []
        self._bucket = 0
        self._busy = False
        self._deciding = False
        self._finish_ns = 0
        self._cycle = 0
        self._step = 0
        self._scheduled = 0
        self.steps = _Steps(problem, self.env, self._submit)
        self.stream = _Stream(problem, self.env, self.steps)

    def run(self) -> Trace:
        """The whole trace."""
        self.env.run(until=self.steps.over)
        return self.steps.writer.finish(not self._buckets)

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
            event = simpy.Event(self.env)
            event._ok, event._value = True, None
            assert event.callbacks is not None
            event.callbacks.append(self._decide)
            self.env.schedule(event, priority=_LATE)

    def _decide(self, _: simpy.Event) -> None:
        self._deciding = False
        schedule = () if self._busy else self._next_schedule()
        if not schedule:
            return
        self._busy = True
        now, zero = self.env.now, self._cycle
        self.steps.writer.cycle(CycleRow(
            self._step, Kind.FAST, now, now, 0, now, now, self._finish_ns, self._finish_ns, 0,
            responses=len(schedule), schedule_hash=schedule_hash([each.names for each in schedule]),
        ))  # fmt: skip
        self._cycle += 1
        self._scheduled += sum(len(response.names) for response in schedule)
        if self._scheduled == len(self.problem.tensors):
            self._scheduled = 0
            self._step += 1
        done = self.env.event()
        ideal = self.problem.plane.name == "ideal"
        self.env.process(self.stream.launch(zero, schedule, now, ideal, done))
        self.env.process(self._until_free(schedule, done if ideal else None))

    def _next_schedule(self) -> tuple[Response, ...]:
        if self.problem.plane.name == "ideal":
            units, self._ready = self._ready, []
            singles = [
                respond_to(self.problem.requests[name]) for unit in sorted(units) for name in self.problem.units[unit]
            ]
            return tuple(fuse(singles, self.problem.settings.fusion_threshold_bytes, self.problem.groups))
        if set(self._buckets[self._bucket].units) <= set(self._ready):
            bucket = self._buckets[self._bucket]
            self._ready = [unit for unit in self._ready if unit not in bucket.units]
            self._bucket = (self._bucket + 1) % len(self._buckets)
            return (bucket.response,)
        return ()

    def _until_free(self, schedule: tuple[Response, ...], done: simpy.Event | None) -> Wait:
        """``ideal`` decides again when the stream is free; ``ddp`` when the launch is done."""
        if done is not None:
            yield done
        else:
            cost = self.problem.data.cost(schedule[0].nbytes, len(schedule[0].names))
            if cost.launch_ns:
                yield self.env.timeout(cost.launch_ns)
        self._finish_ns = self.env.now
        self._busy = False
        self._consider()


class LonelyRun:
    """One rank: no background loop, no collectives, a step ends with its last gradient (SEMANTICS 2.4)."""

    def __init__(self, problem: Problem, debug: bool = False) -> None:
        self.env = simpy.Environment(initial_time=0)
        self.steps = _Steps(problem, self.env, self._submit)

    def run(self) -> Trace:
        """The whole trace."""
        self.env.run(until=self.steps.over)
        return self.steps.writer.finish()

    def _submit(self, rank: int, unit: int) -> None:
        self.steps.reduced(len(self.steps.problem.units[unit]), self.env.now)


def run(problem: Problem, debug: bool = False) -> Trace:
    """Simulate by events. ``debug`` checks the protocol's invariants after every cycle."""
    if problem.ranks == 1:
        return LonelyRun(problem).run()
    if problem.plane.name in say.NEGOTIATORS:
        return NegotiatedRun(problem, debug).run()
    return UnnegotiatedRun(problem).run()
