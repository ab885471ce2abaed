"""The record of one rank: what was submitted, negotiated, copied and reduced, and when (docs/semantics.md 8).

It is kept small: every step leaves a summary, and some ranks also write the cycles and responses of the first and of
the slowest steps. The background thread writes complete blocks, one step at a time, so that a killed process loses at
most the step that was running. The cost is stated in docs/benchmarks.md.
"""

from __future__ import annotations

import heapq
import struct
import sys
import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field
from functools import partial
from operator import add
from pathlib import Path
from typing import Any

from coordsim.protocol.messages import Request, Response
from coordsim.protocol.negotiator import CachedNegotiator
from coordsim.protocol.wire import list_bytes
from coordsim.record.ranks.format import CYCLE, IDLE, NULL, RESPONSE, SENT, STEP, Block, block
from coordsim.record.trace import Kind, schedule_hash
from real_backend.control.transport import NOTHING_SENT, Sent
from real_backend.engine.observer import CycleDetails, Observer, Performed
from real_backend.life.clocks import Offset
from real_backend.stream import Parameter, RankStream, StepDetails, Writer

WORST_TRIES = 10
"""Largest number of slow steps written, as a multiple of those wanted. Without it a run that becomes slower all the
time would write every step."""
CLOCK_PERIOD_NS = 1_000_000_000
LONGEST_STEP_BYTES = 4 << 20
"""Largest size of one step's details that are held until it ends. Larger details are written if the step is one of the
first, else dropped."""


@dataclass(frozen=True)
class Limits:
    """How much is written; equal on all ranks, and stated in every record."""

    first_steps: int = 20
    worst_steps: int = 20
    sampled_ranks: int = 8
    """Number of ranks that write cycles and responses, evenly spread, rank 0 among them."""
    max_bytes: int = 256 << 20
    """Size at which a stream stops growing, and states this."""
    digests: bool = False
    """Whether each cycle has a digest of the response cache, which costs tens of microseconds; for tests."""
    steps: int = 0
    """Number of steps after which the record ends; 0: it does not end."""

    def samples(self, rank: int, ranks: int) -> bool:
        """Return whether ``rank`` is one of the sampled ranks."""
        wanted = min(self.sampled_ranks, ranks)
        return any(rank == number * ranks // wanted for number in range(wanted))


@dataclass
class _Step:
    """The step that runs."""

    number: int = 0
    start_ns: int = NULL
    forward_end_ns: int = NULL
    first_submit_ns: int = NULL
    last_submit_ns: int = NULL
    end_collective_ns: int = NULL
    cycles: int = 0
    tensors: int = 0
    slow_cycles: int = 0
    names: list[AbstractSet[str]] = field(default_factory=list)
    """Names submitted so far, in parts; most often there is one part, and no name has to be looked up."""
    blocks: list[Callable[[], bytes]] = field(default_factory=list)
    """Functions that make its cycles and responses. They are held until it is known whether the step is wanted, which
    most are not."""
    held_bytes: int = 0
    dropped: bool = False
    """Whether it was too long to be held."""

    def has(self, name: str) -> bool:
        """Return whether a tensor of that name was submitted in this step."""
        return any(name in part for part in self.names)


class _Popped:
    """The requests popped last, which a static model pops again."""

    def __init__(self, requests: Sequence[Request], packed: bytes) -> None:
        """``packed`` holds their numbers, as in a cycle's block."""
        self.requests = requests
        self.packed = packed
        self.names = frozenset(request.name for request in requests)


class Recorder(Observer):
    """Records what an engine does as one rank's stream."""

    wants_stamps = True

    def __init__(
        self, folder: Path, rank: int, ranks: int, *, job: str = "job", settings: dict[str, Any] | None = None,
        limits: Limits | None = None, clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:  # fmt: skip
        """Create ``folder``/rank-NNNNN.rank, in place of an earlier run's. Raises OSError."""
        self.limits = limits or Limits()
        self.offset: Callable[[], Offset | None] = lambda: None
        """Returns how far rank 0's clock is ahead; set once the life line runs."""
        self._clock_ns = clock_ns
        self._detailed = self.limits.samples(rank, ranks)
        self._ids: dict[str, tuple[Request, int]] = {}
        self._packed: dict[int, tuple[Any, bytes]] = {}
        self._popped = _Popped((), b"")
        self._step = _Step()
        self._marked = False
        self._marks: list[tuple[str, int, StepDetails | None]] = []
        self._names: list[tuple[str, str]] = []
        """Names from steps in which nothing was submitted, which belong to the next step."""
        self._hooked = False
        """Whether hooks in the script mark the ends of steps."""
        self._loop_cpu_ns: int | None = None
        """CPU time of the background thread at the end of the preceding step."""
        self._idle: list[int] = []
        self._idle_sent: Sent | None = None
        self._idle_from = 0
        self._idle_left = 0
        self._worst: list[int] = []
        self._worst_written = 0
        self._responses: list[tuple[int, Response, Performed]] = []
        self._details: CycleDetails | None = None
        self._next_clock_ns = 0
        self._left_out = 0
        self._ready: deque[tuple[Parameter, int]] = deque()
        self._over = False
        writer = Writer(rank, ranks, job, settings or {}, asdict(self.limits), self._detailed)
        self._stream = RankStream(folder, writer, max_bytes=self.limits.max_bytes, clock_ns=clock_ns)
        self.path = self._stream.path

    # What the engine tells.

    def mark(self, what: str, now_ns: int, details: StepDetails | None = None) -> None:
        """Note a mark of the framework's thread; the background thread sorts it in later.

        ``details``, with "step", is what the hooks in the script know of the step.
        """
        if self._over:
            return
        if what == "step":
            if details is None and self._hooked:  # The hooks mark this step as well, with details.
                return
            self._hooked |= details is not None
        self._marks.append((what, now_ns, details))

    def ready(self, parameter: Parameter, now_ns: int) -> None:
        """Note that a parameter's gradient is ready; from any thread. It is written with its step."""
        if not self._over:
            self._ready.append((parameter, now_ns))

    def cycle(self, details: CycleDetails) -> None:
        self._details = details
        self._responses = []

    def response(self, response: Response, performed: Performed, tasks: Sequence[Request | None]) -> None:
        self._responses.append((len(self._responses), response, performed))

    def cycle_ends(self, cycle: int, finished_ns: int) -> None:
        details = self._details
        if details is None or self._over:
            return
        kind = _kind(details)
        if kind is Kind.IDLE and not details.popped:
            self._count_idle(cycle, details)
            return
        self._end_idle()
        self._place(details)
        step = self._step
        step.cycles += 1
        step.slow_cycles += details.schedule.slow
        if self._detailed:
            nbytes = CYCLE.size + 12 * len(details.popped) + SENT.size
            digest, popped = self._digest(details), self._popped
            self._hold(partial(self._cycle_block, details, popped, kind, finished_ns, step.number, digest), nbytes)
        for index, response, performed in self._responses:
            if performed.end_ns is not None:
                step.end_collective_ns = max(step.end_collective_ns, performed.end_ns)
            if self._detailed:
                nbytes = RESPONSE.size + 4 * len(response.names)
                self._hold(partial(self._response_block, cycle, index, response, performed, step.number), nbytes)

    def ended(self, error: BaseException | None) -> None:
        if self._over:
            return
        self._end_idle()
        self._take_marks(self._clock_ns())
        if self._step.tensors:
            self._end_step(NULL)
        self._close("" if error is None else f"{type(error).__name__}: {error}")

    def _close(self, error: str = "") -> None:
        self._stream.end(error=error, left_out_steps=self._left_out + self._stream.refused)
        self._over = True

    # Steps.

    def _place(self, details: CycleDetails) -> None:
        """Assign the popped submissions to a step: a step begins after a mark, or with a name that it already had."""
        if not details.popped:
            return
        if self._marks:
            self._take_marks(details.stamps[0])
        if not self._place_at_once(details):
            self._place_one_by_one(details)

    def _place_at_once(self, details: CycleDetails) -> bool:
        """Assign all submissions to the step that runs if they belong to it, as nearly always; return whether they
        do."""
        popped, stamps = details.popped, details.stamps
        if popped != self._popped.requests:
            self._popped = _Popped(popped, self._pack_ids([self._id(request) for request in popped]))
        names = self._popped.names
        if self._marks and self._marks[0][1] < stamps[-1]:
            return False
        if not self._marked:
            if self._step.has(popped[0].name):
                self._end_step(NULL)
            if len(names) < len(popped) or not all(names.isdisjoint(part) for part in self._step.names):
                return False
        step = self._step
        step.names.append(names)
        step.tensors += len(popped)
        if step.first_submit_ns == NULL:
            step.first_submit_ns = stamps[0]
        step.last_submit_ns = stamps[-1]
        return True

    def _place_one_by_one(self, details: CycleDetails) -> None:
        for request, stamp_ns in zip(details.popped, details.stamps, strict=True):
            if self._marks and stamp_ns > self._marks[0][1]:
                self._take_marks(stamp_ns)
            step = self._step
            if not self._marked and step.has(request.name):
                self._end_step(NULL)
                step = self._step
            step.names.append({request.name})
            step.tensors += 1
            if step.first_submit_ns == NULL:
                step.first_submit_ns = stamp_ns
            step.last_submit_ns = stamp_ns

    def _take_marks(self, until_ns: int) -> None:
        while self._marks and self._marks[0][1] < until_ns:
            what, at_ns, details = self._marks.pop(0)
            if what == "forward":
                self._step.start_ns = at_ns
            elif what == "backward":
                self._step.forward_end_ns = at_ns
            else:
                self._marked = True
                if self._step.tensors:
                    self._end_step(at_ns, details)
                elif details is not None:
                    self._names += details.names

    def _end_step(self, end_ns: int, details: StepDetails | None = None) -> None:
        step = self._step
        begin_ns = step.start_ns if step.start_ns != NULL else step.first_submit_ns
        last_ns = max(end_ns, step.end_collective_ns, step.last_submit_ns)
        wanted = self._detailed and not step.dropped and self._wants(step.number, last_ns - begin_ns)
        if wanted:
            self._stream.add(*(make() for make in step.blocks))
        elif step.blocks:
            self._left_out += 1
        self._stream.ready(step.number, self._take_ready(last_ns))
        self._step_details(step.number, details)
        self._stream.add(block(Block.STEP, STEP.pack(
            step.number, step.start_ns, step.forward_end_ns, step.first_submit_ns, step.last_submit_ns,
            step.end_collective_ns, end_ns, step.cycles, step.tensors, step.slow_cycles, wanted,
        )))  # fmt: skip
        self._clock()
        self._stream.flush()
        self._step = _Step(step.number + 1)
        if self._step.number == self.limits.steps:
            self._close()

    def _step_details(self, number: int, details: StepDetails | None) -> None:
        """Write spans and CPU time of the step. This thread's CPU time is sampled here, a little after the step's
        end."""
        now_ns = time.thread_time_ns()
        before_ns, self._loop_cpu_ns = self._loop_cpu_ns, now_ns
        if details is not None:
            details.names, self._names = [*self._names, *details.names], []
            if details.cpu is not None:
                details.cpu = details.cpu._replace(loop_ns=now_ns - (before_ns or 0))
            self._stream.step_details(number, details)

    def _take_ready(self, until_ns: int) -> list[tuple[Parameter, int]]:
        """Return readiness up to ``until_ns``, the latest of each parameter; the rest belongs to the next step."""
        latest: dict[Parameter, int] = {}
        while self._ready and self._ready[0][1] <= until_ns:
            parameter, at_ns = self._ready.popleft()
            latest[parameter] = at_ns
        return list(latest.items())

    def _hold(self, make: Callable[[], bytes], nbytes: int) -> None:
        step = self._step
        step.blocks.append(make)
        step.held_bytes += nbytes
        if step.held_bytes > LONGEST_STEP_BYTES:
            if step.number < self.limits.first_steps:
                self._stream.add(*(each() for each in step.blocks))
                self._stream.flush()
            else:
                step.dropped = True
            step.blocks, step.held_bytes = [], 0

    def _wants(self, number: int, took_ns: int) -> bool:
        """Return whether this step's details are kept: it is one of the first, or of the slowest so far."""
        if number < self.limits.first_steps:
            return True
        wanted = self.limits.worst_steps
        if not wanted or self._worst_written >= WORST_TRIES * wanted:
            return False
        if len(self._worst) < wanted:
            heapq.heappush(self._worst, took_ns)
        elif took_ns <= self._worst[0]:
            return False
        else:
            heapq.heapreplace(self._worst, took_ns)
        self._worst_written += 1
        return True

    # Blocks.

    def _digest(self, details: CycleDetails) -> int:
        """Return a digest of the cache as it is now; 0 if digests are not recorded."""
        if self.limits.digests and isinstance(details.negotiator, CachedNegotiator):
            return details.negotiator.cache.digest()
        return 0

    @staticmethod
    def _cycle_block(
        details: CycleDetails, popped: _Popped, kind: Kind, finished_ns: int, step: int, digest: int
    ) -> bytes:
        schedule = details.schedule
        return block(Block.CYCLE, CYCLE.pack(
            details.cycle, step, kind, details.entered_ns, details.left_ns, details.work_ns, finished_ns,
            sum(len(each.requests) for each in details.received),
            sum(list_bytes(each) for each in details.received if each.rank), schedule.hits_common,
            len(schedule.responses), schedule_hash([response.names for response in schedule.responses]), digest,
            len(details.popped),
        ) + (popped.packed + _packed_stamps(details.stamps) if details.popped else b"")
          + _packed_sent(details.sent))  # fmt: skip

    def _response_block(
        self, cycle: int, index: int, response: Response, performed: Performed, step: int
    ) -> bytes:
        packed = self._packed.get(id(response))
        if packed is None or packed[0] is not response:
            ids = [self._ids[name][1] for name in response.names if name in self._ids]
            if len(self._packed) > 256:
                self._packed.clear()
            packed = self._packed[id(response)] = (response, self._pack_ids(ids))
        times = [performed.copied_in_ns, performed.reduced_ns, performed.end_ns]
        return block(Block.RESPONSE, RESPONSE.pack(
            cycle, step, index, response.nbytes, response.op, performed.launch_ns, performed.begin_ns,
            *(NULL if each is None else each for each in times), len(packed[1]) // 4,
        ) + packed[1])  # fmt: skip

    def _id(self, request: Request) -> int:
        known = self._ids.get(request.name)
        if known is not None and (known[0] is request or known[0] == request):
            return known[1]
        number = self._stream.tensor({
            "name": request.name, "op": request.op.name, "dtype": request.dtype.name, "shape": list(request.shape),
            "reduce_op": request.reduce_op.name, "root_rank": request.root_rank, "device": request.device,
            "prescale": request.prescale, "postscale": request.postscale, "group": request.group,
        })  # fmt: skip
        self._ids[request.name] = (request, number)
        return number

    @staticmethod
    def _pack_ids(ids: Sequence[int]) -> bytes:
        return struct.pack(f"<{len(ids)}I", *ids)

    # Idle cycles and clocks.

    def _count_idle(self, cycle: int, details: CycleDetails) -> None:
        if not self._idle:
            self._idle, self._idle_sent = [cycle, 0, details.entered_ns], None
        self._idle[1] += 1
        if details.sent is not None:
            before = self._idle_sent or NOTHING_SENT
            self._idle_sent = Sent._make(map(add, before, details.sent))
        self._idle_from, self._idle_left = details.entered_ns, details.left_ns

    def _end_idle(self) -> None:
        if self._idle:
            cycle, count, first_ns = self._idle
            self._idle = []
            if self._detailed:
                packed = IDLE.pack(cycle, count, first_ns, self._idle_from, self._idle_left)
                packed += _packed_sent(self._idle_sent)
                self._hold(partial(block, Block.IDLE, packed), len(packed))

    def _clock(self) -> None:
        now_ns = self._clock_ns()
        if now_ns >= self._next_clock_ns:
            offset = self.offset()
            if offset is not None:
                self._next_clock_ns = now_ns + CLOCK_PERIOD_NS
                self._stream.clock(now_ns, offset)


def _packed_sent(sent: Sent | None) -> bytes:
    return b"" if sent is None else SENT.pack(*sent)


def _packed_stamps(stamps: Sequence[int]) -> bytes:
    if isinstance(stamps, array) and sys.byteorder == "little":
        return stamps.tobytes()
    return struct.pack(f"<{len(stamps)}q", *stamps)


def _kind(details: CycleDetails) -> Kind:
    schedule = details.schedule
    if schedule.invalidated:
        return Kind.INVALIDATE
    if schedule.slow and (details.popped or schedule.responses or isinstance(details.negotiator, CachedNegotiator)):
        return Kind.SLOW
    return Kind.FAST if schedule.responses else Kind.IDLE
