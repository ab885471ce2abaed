"""A simulated job's timeline in Horovod's format: what rank 0 of the same job would have written.

The event engine says who popped what in which cycle, and when; the protocol is then run once more in lock-step on
those pops, watched from rank 0. All that is negotiated in a cycle carries the time at which rank 0 leaves the
exchange (real ticks spread over it); an operation is queued from its launch on rank 0 until its collective begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from coordsim.errors import InputError, Refused
from coordsim.formats.horovod import TimelineWriter
from coordsim.protocol.lockstep import LockStep, Watcher
from coordsim.protocol.messages import Op, Request, RequestList, Response
from coordsim.protocol.negotiator import COORDINATOR, Schedule
from coordsim.protocol.planes import PLANES
from coordsim.record.files import whole_file
from coordsim.record.trace import Trace
from coordsim.scenario.model import Scenario
from coordsim.simulate.event.clock import Wait
from coordsim.simulate.event.loop import CycleInFlight, NegotiatedRun, Rank
from coordsim.simulate.problem import Problem, Progress

HEARD_BY_RANK_0 = tuple(kind.name for kind in PLANES.values() if kind.rank_0_hears_all)
"""Control planes in which rank 0 hears every rank; a timeline counts each rank's request."""
_WITHOUT_PARTS = (Op.ERROR, Op.BARRIER, Op.JOIN)
RANKS_LIMIT = 4096
"""Beyond it a timeline, with a tick a rank, tensor and cold step, is nothing that anybody could look at."""


class Execution(NamedTuple):
    """When one response is executed, ns; without a fusion buffer ``copied_in_ns`` is ``begin_ns``, and so on."""

    launch_ns: int
    begin_ns: int
    copied_in_ns: int
    reduced_ns: int
    end_ns: int


class Clock(Protocol):
    """When things happen at rank 0, ns, not decreasing from call to call within a cycle."""

    def cycle_ns(self) -> int:
        """A cycle begins."""
        ...

    def negotiated_ns(self) -> int:
        """Something of the negotiation is known at rank 0."""
        ...

    def execution(self, response: Response) -> Execution:
        """The next response of the cycle is executed."""
        ...


class CountingClock:
    """A microsecond for everything, where there is no time at all."""

    def __init__(self) -> None:
        self._ns = 0

    def cycle_ns(self) -> int:
        """One microsecond later."""
        self._ns += 1000
        return self._ns

    negotiated_ns = cycle_ns

    def advance(self, ns: int) -> None:
        """Nothing happens for a while."""
        self._ns += ns

    def execution(self, response: Response) -> Execution:
        """One microsecond from each moment to the next; a single tensor is not copied."""
        launch_ns, begin_ns = self.cycle_ns(), self.cycle_ns()
        copied_in_ns = self.cycle_ns() if len(response.names) > 1 else begin_ns
        reduced_ns = self.cycle_ns()
        end_ns = self.cycle_ns() if len(response.names) > 1 else reduced_ns
        return Execution(launch_ns, begin_ns, copied_in_ns, reduced_ns, end_ns)


class TimelineRecorder(Watcher):
    """Writes what a :class:`LockStep` decides as rank 0's timeline.

    ``library`` names the collectives in the file. With ``asynchronous`` an operation may outlast its cycle: its parts
    are written in order of time, when later cycles come to them. Call :meth:`finish` at the end.
    """

    def __init__(
        self, writer: TimelineWriter, ranks: int, clock: Clock | None = None, *, library: str = "MPI",
        asynchronous: bool = False,
    ) -> None:  # fmt: skip
        self._writer = writer
        self._ranks = ranks
        self._clock = clock or CountingClock()
        self._library = library
        self._asynchronous = asynchronous
        self._requests: dict[str, Request] = {}
        self._counted: dict[str, int] = {}
        self._ahead: list[tuple[int, int, _Part]] = []
        self._parts = 0

    def cycle_begins(self) -> None:
        now_ns = self._clock.cycle_ns()
        self._catch_up(now_ns)
        self._writer.cycle_start(_us(now_ns))

    def hits_seen(self, anywhere: Sequence[str], common: Sequence[str]) -> None:
        if not anywhere:
            return
        now_ns = self._clock.negotiated_ns()
        self._catch_up(now_ns)
        for name in anywhere:
            self._writer.negotiate_start(name, self._requests[name].op.name, _us(now_ns))
        for name in common:
            self._writer.negotiate_end(name, _us(now_ns))

    def lists_counted(self, lists: Sequence[RequestList]) -> None:
        for received in lists:
            for request in received.requests:
                if request.op is Op.JOIN:
                    continue  # never negotiated in a timeline
                now_ns = self._clock.negotiated_ns()
                self._catch_up(now_ns)
                name, now_us = request.name, _us(now_ns)
                if received.rank == COORDINATOR or name not in self._requests:
                    self._requests[name] = request
                self._writer.negotiate_start(name, request.op.name, now_us)
                self._writer.tick(name, received.rank, now_us)
                self._counted[name] = self._counted.get(name, 0) + 1
                if self._counted[name] == self._ranks:
                    self._writer.negotiate_end(name, now_us)

    def agreed(self, schedule: Schedule) -> None:
        for response in schedule.responses:
            times = self._clock.execution(response)
            self._catch_up(times.launch_ns)
            for name in response.names:
                self._counted.pop(name, None)
                self._writer.negotiate_end(name, _us(times.launch_ns))  # when somebody had joined
            self._execute(response, times)

    def finish(self) -> None:
        """Write what still lies ahead."""
        self._catch_up(None)

    def _execute(self, response: Response, times: Execution) -> None:
        names, operation = response.names, response.op.name
        for name in names:
            self._writer.start_operation(name, operation, _us(times.launch_ns))
        if response.op in _WITHOUT_PARTS:
            self._at(times.end_ns, _Part(names, ends=response))
        else:
            if self._asynchronous:  # tells apart what is launched together, as Horovod's own wait does
                self._at(times.launch_ns, _Part(names, begins="WAIT_FOR_DATA"), _Part(names))
                self._at(times.launch_ns, _Part(names, begins="QUEUE"))
                self._at(times.begin_ns, _Part(names))
            if times.copied_in_ns > times.begin_ns or len(names) > 1:
                self._at(times.begin_ns, _Part(names, begins="MEMCPY_IN_FUSION_BUFFER"))
                self._at(times.copied_in_ns, _Part(names))
            self._at(times.copied_in_ns, _Part(names, begins=f"{self._library}_{operation}"))
            self._at(times.reduced_ns, _Part(names))
            if times.end_ns > times.reduced_ns or len(names) > 1:
                self._at(times.reduced_ns, _Part(names, begins="MEMCPY_OUT_FUSION_BUFFER"))
                self._at(times.end_ns, _Part(names))
            self._at(times.end_ns, _Part(names, ends=response))
        self._catch_up(times.launch_ns if self._asynchronous else None)

    def _at(self, ns: int, *parts: _Part) -> None:
        for part in parts:
            self._ahead.append((ns, self._parts, part))
            self._parts += 1

    def _catch_up(self, now_ns: int | None) -> None:
        """Write the parts of operations up to now; all of them when None."""
        if not self._ahead:
            return
        self._ahead.sort(key=lambda each: each[:2])
        due = sum(now_ns is None or ns <= now_ns for ns, _, _ in self._ahead)
        for ns, _, part in self._ahead[:due]:
            self._write(part, _us(ns))
        del self._ahead[:due]

    def _write(self, part: _Part, ts_us: int) -> None:
        if part.begins:
            self._writer.start_activity(part.names, part.begins, ts_us)
        elif part.ends is None:
            self._writer.end_activity(part.names, ts_us)
        else:
            failed = part.ends.op is Op.ERROR
            for name in part.names:
                request = self._requests.get(name)
                if failed or request is None:
                    self._writer.end_operation(name, ts_us)
                else:
                    self._writer.end_operation(name, ts_us, request.dtype.name.lower(), self._output(request))

    def _output(self, request: Request) -> tuple[int, ...]:
        """Shape of the result, as far as rank 0's request tells: of an allgather, equal rows everywhere."""
        if request.op is Op.ALLGATHER and request.shape:
            return (request.shape[0] * self._ranks, *request.shape[1:])
        return request.shape


@dataclass(frozen=True, slots=True)
class _Part:
    """Something of an operation: an activity begins, the innermost ends, or all of it ends."""

    names: tuple[str, ...]
    begins: str = ""
    ends: Response | None = None


def export_timeline(
    scenario: Scenario, path: Path, *, mark_cycles: bool = True, progress: Progress | None = None,
    writing: Progress | None = None,
) -> None:  # fmt: skip
    """Simulate ``scenario`` by events and write rank 0's timeline to ``path``: the cold step and all others.

    ``progress`` is called with (steps done, steps in all) of the simulation, ``writing`` then with cycles.
    Written under a temporary name, then renamed. Raises Refused for one rank, more than ``RANKS_LIMIT``, and a control
    plane that does not count every rank's request at rank 0.
    """
    plane = scenario.control_plane.name
    if not scenario.control_plane.kind.rank_0_hears_all:
        message = "has no timeline: rank 0 does not hear every rank"
        raise Refused.one("control_plane", "name", plane, message, HEARD_BY_RANK_0)
    if not 1 < scenario.ranks <= RANKS_LIMIT:
        raise Refused.one("scenario", "ranks", scenario.ranks, f"a timeline is for 2 to {RANKS_LIMIT:,} ranks")
    if not path.absolute().parent.is_dir():
        raise InputError.one(str(path), "", str(path), f"folder {path.absolute().parent} does not exist")
    problem = Problem(scenario)
    observed = _ObservedRun(problem, progress)
    trace = observed.run()
    with whole_file(path) as fresh, TimelineWriter(fresh, mark_cycles) as writer:
        _replay(problem, observed, trace, writer, writing)


@dataclass(slots=True)
class _Turn:
    """One cycle as rank 0 and the queues saw it."""

    wake_ns: int = 0
    leave_ns: int = 0
    popped: dict[int, tuple[Request, ...]] = field(default_factory=dict)
    """By rank; ranks that popped nothing are left out."""
    schedule: Schedule | None = None


class _ObservedRun(NegotiatedRun):
    """The event engine's run, which also keeps who popped what."""

    def __init__(self, problem: Problem, progress: Progress | None = None) -> None:
        super().__init__(problem, progress=progress)
        self.turns: list[_Turn] = []

    def _turn(self, index: int) -> _Turn:
        while len(self.turns) <= index:
            self.turns.append(_Turn())
        return self.turns[index]

    def _negotiate(self, me: Rank, popped: tuple[Any, ...], cycle: int) -> Wait:
        turn = self._turn(cycle)
        if popped:
            turn.popped[me.rank] = popped
        return (yield from super()._negotiate(me, popped, cycle))

    def _leave(self, cycle: CycleInFlight, index: int, me: Rank, schedule: Schedule) -> None:
        if me.rank == COORDINATOR:
            turn = self._turn(index)
            turn.wake_ns, turn.leave_ns = int(cycle.wake[COORDINATOR]), self.env.ns
            turn.schedule = schedule
        super()._leave(cycle, index, me, schedule)


class _SimulatedClock:
    """Times of the cycle that is being replayed."""

    def __init__(self, problem: Problem, trace: Trace) -> None:
        self._data = problem.data
        columns = trace.responses
        parts = zip(*(columns[name].tolist() for name in (
            "cycle", "launch_ns", "begin_ns", "copy_in_ns", "collective_ns", "copy_out_ns"
        )), strict=True)  # fmt: skip
        self._responses: Iterator[tuple[int, ...]] = iter(parts)
        self._turn = _Turn()
        self._launched_ns = 0

    def enter(self, turn: _Turn) -> None:
        """The next cycle is this one."""
        self._turn, self._launched_ns = turn, turn.leave_ns

    def cycle_ns(self) -> int:
        return self._turn.wake_ns

    def negotiated_ns(self) -> int:
        return self._turn.leave_ns

    def execution(self, response: Response) -> Execution:
        _, launch_ns, begin_ns, copy_in_ns, collective_ns, copy_out_ns = next(self._responses)
        if self._data.blocking:
            self._launched_ns = launch_ns
        else:  # on rank 0; the trace has the last rank's
            cost = self._data.cost(response.nbytes, len(response.names))
            self._launched_ns += cost.local_ns + cost.launch_ns
        copied_in_ns = begin_ns + copy_in_ns
        reduced_ns = copied_in_ns + collective_ns
        return Execution(self._launched_ns, begin_ns, copied_in_ns, reduced_ns, reduced_ns + copy_out_ns)


def _replay(
    problem: Problem, observed: _ObservedRun, trace: Trace, writer: TimelineWriter, progress: Progress | None = None
) -> None:
    clock = _SimulatedClock(problem, trace)
    blocking = problem.data.blocking
    recorder = TimelineRecorder(
        writer, problem.ranks, clock, library="MPI" if blocking else "NCCL", asynchronous=not blocking
    )  # fmt: skip
    job = LockStep(problem.plane.name, problem.settings, recorder)
    for index, turn in enumerate(observed.turns):
        if progress is not None:
            progress(index, len(observed.turns))
        if turn.schedule is None:
            break  # the run was over before rank 0 left this cycle
        clock.enter(turn)
        if not turn.popped:
            recorder.cycle_begins()
            continue
        for rank, popped in sorted(turn.popped.items()):
            for request in popped:
                job.submit(rank, request)
        schedule = job.cycle()
        assert schedule == turn.schedule, "the replay decides otherwise than the run"
    recorder.finish()


def _us(ns: int) -> int:
    return ns // 1000
