"""What real Horovod decided, held against what the protocol's own code decides when it is fed the same pops.

Every rank's negotiator runs in lock-step (:mod:`coordsim.protocol.lockstep`), cycle by recorded cycle. A timeline
is rank 0's alone; what it does not say is resolved so:

- A request that rank 0 counted (a tick) was popped by that rank in that cycle, in that order. These pops are exact.
- A cache hit shows the first cycle in which *any* rank offered it and the cycle in which it was common. Rank 0 is
  taken to have popped it in the first, all others in the second: who was early changes no decision. So on the fast
  path *when* a tensor becomes common is taken from the recording, and what is compared is slow or fast, which
  tensors share a message, and the order.
- A hit that is asked for later lost its cache entry while it waited; it is fed as asked for, since a hit that never
  became common decides nothing. If the entry is still there and a second or more went by, the ranks that ask are
  taken to have reported it as stalled.
- A tensor whose first appearance is a hit was cached before recording began; bits are then given in that order.
- An operation that ended in ERROR is fed as one that the last rank asked for with another scale.
- Scale, reduction and device are taken to be equal throughout, an allgather's rows to be spread evenly, and all ranks
  to sit on one node: a timeline does not say. Nor does it tell of a joined rank: negotiations that ended without a
  tick from every rank are counted, and their cycles left out.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from coordsim.analyse.validate.timeline import CycleReader, Message, Negotiation, RecordedCycle
from coordsim.analyse.validate.timeline_settings import RunSettings, settings_of
from coordsim.errors import InputError
from coordsim.formats.horovod import TimelineReader
from coordsim.protocol.cache import Lookup
from coordsim.protocol.fusion import rounded_threshold
from coordsim.protocol.groups import GroupTable
from coordsim.protocol.lockstep import LockStep
from coordsim.protocol.messages import DType, Op, Request
from coordsim.protocol.negotiator import COORDINATOR, CachedNegotiator, Schedule, Settings

SAME_COUNT = 0.9
"""Share of steps that must have as many messages as recorded."""
SAME_KIND = 0.9
"""Share of cycles, among those in which something happens, that must be slow or fast as recorded."""
KEPT_MISMATCHES = 20
KEPT_STEPS = 1000
"""Steps whose messages are kept by name; of later ones only the counts."""
STALL_US = 1_000_000
"""HOROVOD_STALL_CHECK_TIME_SECONDS counts whole seconds."""
_OPS = {op.name: op for op in Op if op not in (Op.ERROR, Op.JOIN)}
_DTYPES = {dtype.name.lower(): dtype for dtype in DType}


@dataclass(slots=True)
class StepDecisions:
    """One step, recorded against predicted."""

    step: int
    tensors: tuple[str, ...] = ()
    recorded: int = 0
    """Messages."""
    predicted: int = 0
    slow_recorded: int = 0
    """Cycles."""
    slow_predicted: int = 0
    fast_recorded: int = 0
    fast_predicted: int = 0
    composition: bool = True
    """Whether its messages have the recorded members, wherever the same tensors became common."""
    order: bool = True
    """And in the recorded order."""
    cut: bool = False
    """Something in it was not executed within the file; it is not compared."""
    messages: list[tuple[str, ...]] | None = field(default_factory=list)
    """As recorded; None beyond ``KEPT_STEPS``."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A cycle that went otherwise than predicted."""

    cycle: int
    at_us: int
    what: str
    """``tensors``: others became common; ``count``, ``composition``, ``order`` of messages; ``kind``: slow or fast."""
    recorded: tuple[tuple[str, ...], ...]
    predicted: tuple[tuple[str, ...], ...]
    recorded_kind: str
    predicted_kind: str


@dataclass(slots=True)
class Decisions:
    """A whole timeline, recorded against predicted."""

    settings: RunSettings
    steps: list[StepDecisions] = field(default_factory=list)
    kinds: dict[str, dict[str, int]] = field(
        default_factory=lambda: {side: {"slow": 0, "fast": 0, "idle": 0} for side in ("recorded", "predicted")}
    )
    """Cycles by kind."""
    active_cycles: int = 0
    """Cycles in which something was asked for or became common, recorded or predicted; cut ones left out."""
    same_kind: int = 0
    comparable_cycles: int = 0
    """Cycles in which messages ran and the same tensors became common: the same pops."""
    same_composition: int = 0
    same_order: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)
    """The first ``KEPT_MISMATCHES``."""
    mismatched_cycles: int = 0
    periods_us: array[int] = field(default_factory=lambda: array("q"))
    """From mark to mark; shape [cycle - 1]."""
    rule_periods_us: array[int] = field(default_factory=lambda: array("q"))
    """What docs/semantics.md 3.1 makes of the same cycles: the cycle time, or what rank 0 was seen to do if longer."""
    idle_periods_us: array[int] = field(default_factory=lambda: array("q"))
    assumed_cached: int = 0
    """Tensors taken to be cached before recording began."""
    without_ticks: int = 0
    """Slow negotiations that ended without a tick from every rank: somebody had joined."""
    stalled: int = 0
    stray_ends: int = 0
    lost: str | None = None
    start_epoch_us: int | None = None
    events: int = 0

    @property
    def compared(self) -> list[StepDecisions]:
        return [step for step in self.steps if not step.cut]

    @property
    def same_count(self) -> int:
        """Steps with as many messages as recorded."""
        return sum(step.recorded == step.predicted for step in self.compared)

    @property
    def missed(self) -> list[str]:
        """The tolerances that are not kept, in words; empty when all are."""
        steps, cycles = len(self.compared), self.comparable_cycles
        counts, members = steps - self.same_count, cycles - self.same_composition
        order, kinds = self.same_composition - self.same_order, self.active_cycles - self.same_kind
        missed = []
        if self.same_count < SAME_COUNT * steps:
            missed.append(f"{counts} of {steps} steps have another number of messages")
        if not cycles:
            missed.append("no cycle can be compared")
        if members:
            missed.append(f"messages of {members} of {cycles} cycles have other members")
        if order:
            missed.append(f"messages of {order} of {cycles} cycles are in another order")
        if self.same_kind < SAME_KIND * self.active_cycles:
            missed.append(f"{kinds} of {self.active_cycles} cycles are not slow or fast as recorded")
        return missed


def compare_decisions(
    path: Path,
    *,
    ranks: int | None = None,
    cache_capacity: int | None = None,
    fusion_threshold_bytes: int | None = None,
    disable_group_fusion: bool | None = None,
) -> Decisions:
    """Replay the timeline ``path``. What is None is read from the recording's own description, else Horovod's default.

    ``x.timeline.json`` and ``x.timeline.json.gz`` are described by ``x.json`` beside them, if there is one. Ranks are
    counted in the file otherwise. Raises InputError for a file that is no timeline, has no cycle marks, or nothing
    to compare.
    """
    given = {
        "ranks": ranks,
        "cache_capacity": cache_capacity,
        "fusion_threshold_bytes": fusion_threshold_bytes,
        "disable_group_fusion": None if disable_group_fusion is None else int(disable_group_fusion),
    }
    settings, groups = settings_of(path, {key: value for key, value in given.items() if value is not None})
    reader = TimelineReader(path)
    cycles = CycleReader(reader, str(path))
    replay = _Replay(settings, groups, str(path))
    for cycle in cycles:
        replay.turn(cycle)
    decisions = replay.decisions
    decisions.steps.sort(key=lambda step: step.step)
    for step in decisions.steps:
        step.tensors = cycles.steps[step.step]
    decisions.stray_ends, decisions.lost = cycles.stray_ends, reader.lost
    decisions.start_epoch_us, decisions.events = reader.start_epoch_us, reader.events
    if not decisions.compared:
        raise InputError.one(str(path), "", None, "holds no step that was executed to its end; nothing to compare")
    return decisions


# The replay.


class _Replay:
    """Feeds recorded pops to every rank's negotiator and compares, one cycle at a time."""

    def __init__(self, settings: RunSettings, groups: tuple[tuple[str, ...], ...], where: str) -> None:
        self.decisions = Decisions(settings)
        self._where = where
        self._ranks = range(settings.ranks.value)
        self._cached = settings.cache_capacity.value > 0
        threshold = rounded_threshold(settings.fusion_threshold_bytes.value, settings.ranks.value)
        self._groups = GroupTable(groups, strict=bool(settings.disable_group_fusion.value))
        self._job = LockStep(
            "cached" if self._cached else "coordinator",
            Settings(settings.ranks.value, threshold, self._groups, max(settings.cache_capacity.value, 1)),
        )
        self._steps: dict[int, StepDecisions] = {}
        self._fed: dict[Negotiation, set[int]] = {}
        self._outstanding: dict[str, Negotiation] = {}
        self._requests: dict[str, Request] = {}
        self._seen: set[str] = set()
        self._before: RecordedCycle | None = None

    def turn(self, cycle: RecordedCycle) -> None:
        """Feed and compare one cycle. Raises InputError for a tick of a rank that is not there."""
        self._period(cycle)
        for each in cycle.begun:
            if not each.done:
                self._step(each.step).cut = True
        pops = self._pops(cycle)
        schedule = Schedule((), slow=False)
        if pops:
            self._assume_cached(cycle)
            stalled = self._stalls(cycle)
            for rank, popped in pops.items():
                for each in popped:
                    self._job.submit(rank, self._request(each, rank))
            schedule = self._job.cycle(stalled=stalled)
        self._compare(cycle, schedule, bool(pops))
        for each in cycle.agreed:
            self._fed.pop(each, None)

    def _period(self, cycle: RecordedCycle) -> None:
        decisions, before, self._before = self.decisions, self._before, cycle if cycle.marked else None
        if before is None:
            return
        period = cycle.start_us - before.start_us
        decisions.periods_us.append(period)
        busy = before.last_us - before.start_us
        decisions.rule_periods_us.append(max(decisions.settings.cycle_time_us.value, busy))
        if before.kind == "idle" and not before.begun:
            decisions.idle_periods_us.append(period)

    def _pops(self, cycle: RecordedCycle) -> dict[int, list[Negotiation]]:
        """By rank: what it pops in this cycle, in order."""
        pops: dict[int, list[Negotiation]] = {}

        def feed(each: Negotiation, rank: int) -> None:
            fed = self._fed.setdefault(each, set())
            if rank not in fed:
                fed.add(rank)
                self._outstanding[each.tensor] = each
                pops.setdefault(rank, []).append(each)

        for each in cycle.begun:
            if not each.ticks:
                feed(each, COORDINATOR)
        for each, rank in cycle.ticks:
            feed(each, self._known(rank))
        for each in cycle.agreed:
            if each.asked_first >= 0 and not each.asked_by_all(len(self._ranks)):
                self.decisions.without_ticks += 1
            for rank in self._ranks:
                feed(each, rank)
        return pops

    def _known(self, rank: int) -> int:
        if rank not in self._ranks:
            ranks = self.decisions.settings.ranks
            message = f"counts a request of rank {rank}, but there are {ranks.value} ranks ({ranks.source})"
            raise InputError.one(self._where, "", rank, message)
        return rank

    def _request(self, each: Negotiation, rank: int) -> Request:
        """``rank``'s request, as far as a timeline tells."""
        known = self._requests.get(each.tensor)
        if each.done and each.shape is not None:
            dtype, shape = self._dtype(each), each.shape
            if known is None or (known.dtype, known.shape) != (dtype, shape) or known.op.name != each.operation:
                known = Request(
                    each.tensor, self._op(each), dtype, shape, root_rank=0 if each.operation == "BROADCAST" else -1,
                    group=self._groups.digest(each.tensor),
                )  # fmt: skip
                self._requests[each.tensor] = known
        elif known is None:
            known = Request(each.tensor, self._op(each), group=self._groups.digest(each.tensor))
        if each.executed == Op.ERROR.name and rank == self._ranks[-1]:
            return replace(known, prescale=2.0)
        if known.op is Op.ALLGATHER and known.shape:
            return _part(known, rank, len(self._ranks))
        return known

    def _op(self, each: Negotiation) -> Op:
        op = _OPS.get(each.operation)
        if op is None:
            message = f"{each.tensor!r}: operation {each.operation} is not modelled"
            raise InputError.one(self._where, "", each.operation, message)
        return op

    def _dtype(self, each: Negotiation) -> DType:
        if not each.dtype:  # a barrier
            return DType.FLOAT32
        dtype = _DTYPES.get(each.dtype)
        if dtype is None:
            raise InputError.one(
                self._where, "", each.dtype, f"{each.tensor!r} has type {each.dtype!r}", tuple(_DTYPES)
            )
        return dtype

    def _assume_cached(self, cycle: RecordedCycle) -> None:
        """What the recording hits without ever having asked for it was agreed on before recording began."""
        for each in cycle.begun:
            if self._cached and each.done and each.asked_first < 0 and each.tensor not in self._seen:
                self._seen.add(each.tensor)
                self.decisions.assumed_cached += 1
                for rank, negotiator in enumerate(self._job.negotiators):
                    assert isinstance(negotiator, CachedNegotiator)
                    negotiator.cache.put(self._request(each, rank))

    def _stalls(self, cycle: RecordedCycle) -> dict[int, set[str]]:
        """By rank: hits that it asks for in this cycle though their entries are still there."""
        stalled: dict[int, set[str]] = {}
        if not self._cached:
            return stalled
        for each, rank in cycle.ticks:
            if each.begun < cycle.index and cycle.start_us - each.begun_us >= STALL_US:
                cache = self._job.negotiators[rank].cache
                if cache.lookup(self._request(each, rank)) is Lookup.HIT:
                    stalled.setdefault(rank, set()).add(each.tensor)
                    self.decisions.stalled += 1
        return stalled

    def _step(self, index: int) -> StepDecisions:
        step = self._steps.get(index)
        if step is None:
            step = self._steps[index] = StepDecisions(index)
            if index >= KEPT_STEPS:
                step.messages = None
            self.decisions.steps.append(step)
        return step

    def _compare(self, cycle: RecordedCycle, schedule: Schedule, popped: bool) -> None:
        decisions = self.decisions
        recorded = [message for message in cycle.messages if all(member.begun >= 0 for member in message.members)]
        predicted = [response.names for response in schedule.responses]
        kind = "slow" if schedule.slow and popped else "fast" if predicted else "idle"
        decided = []
        for names in predicted:
            decided.append(self._outstanding[names[0]])
            self._seen.update(names)
            for name in names:
                del self._outstanding[name]
        same = {each.tensor for each in cycle.agreed} == {name for names in predicted for name in names}
        cut = cycle.cut or len(recorded) < len(cycle.messages) or (cycle.final and not same)
        decisions.kinds["recorded"][cycle.kind] += 1
        decisions.kinds["predicted"][cycle.kind if cut else kind] += 1
        if cut:
            for each in (*cycle.agreed, *decided):
                self._step(each.step).cut = True
        elif popped or recorded:
            self._count(cycle, recorded, decided, kind)
            self._judge(cycle, recorded, predicted, kind, same)

    def _count(
        self, cycle: RecordedCycle, recorded: Sequence[Message], decided: Sequence[Negotiation], kind: str
    ) -> None:
        """Add a cycle to the figures of its step."""
        for message in recorded:
            step = self._step(message.members[0].step)
            step.recorded += 1
            if step.messages is not None:
                step.messages.append(message.names)
        for first in decided:
            self._step(first.step).predicted += 1
        whose = next(iter((*cycle.agreed, *(each for each, _ in cycle.ticks), *cycle.begun)), None)
        if whose is not None:
            step = self._step(whose.step)
            step.slow_recorded += cycle.kind == "slow"
            step.fast_recorded += cycle.kind == "fast"
            step.slow_predicted += kind == "slow"
            step.fast_predicted += kind == "fast"

    def _judge(
        self, cycle: RecordedCycle, recorded: Sequence[Message], predicted: list[tuple[str, ...]], kind: str, same: bool
    ) -> None:
        """Add a cycle to the figures of agreement."""
        decisions = self.decisions
        names = [message.names for message in recorded]
        decisions.active_cycles += 1
        decisions.same_kind += kind == cycle.kind
        what = "" if kind == cycle.kind else "kind"
        if not same:
            what = "tensors"
        elif names and all(each.asked_first < 0 or each.asked_by_all(len(self._ranks)) for each in cycle.agreed):
            composition = sorted(map(sorted, names)) == sorted(map(sorted, predicted))
            decisions.comparable_cycles += 1
            decisions.same_composition += composition
            decisions.same_order += names == predicted
            if names != predicted:
                step = self._step(recorded[0].members[0].step)
                step.composition &= composition
                step.order = False
                what = "order" if composition else "composition" if len(names) == len(predicted) else "count"
        if what:
            decisions.mismatched_cycles += 1
            if len(decisions.mismatches) < KEPT_MISMATCHES:
                decisions.mismatches.append(Mismatch(
                    cycle.index, cycle.start_us, what, tuple(names), tuple(predicted), cycle.kind, kind,
                ))  # fmt: skip


def _part(whole: Request, rank: int, ranks: int) -> Request:
    """One rank's rows of an allgather, of which a timeline shows the gathered ones."""
    rows, more = divmod(whole.shape[0], ranks)
    return replace(whole, shape=(rows + (rank < more), *whole.shape[1:]))


def quantile(values: Iterable[int], share: float) -> Any:
    """Lower nearest rank (docs/semantics.md 11); None of nothing."""
    ordered = sorted(values)
    return ordered[int((len(ordered) - 1) * share)] if ordered else None
