"""Tests of the tests: faults planted in the protocol must be found, by the same checks that pass without them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from coordsim.protocol import fusion, readiness
from coordsim.protocol.cache import Lookup, ResponseCache
from coordsim.protocol.groups import GroupTable
from coordsim.protocol.invariants import InvariantBroken
from coordsim.protocol.messages import Op, Request, RequestList, Response, ResponseList
from coordsim.protocol.negotiator import (
    CachedNegotiator,
    HierarchicalNegotiator,
    Settings,
    cached,
    coordinator,
    decisions,
    hierarchical,
)
from coordsim.protocol.queue import AfterJoin, TensorQueue
from coordsim.protocol.readiness import ProtocolError, ReadinessTable
from tests.property.cache_machine import CacheMachine
from tests.property.job_machine import JobMachine
from tests.protocol.drive import Job, settings, tensor
from tests.protocol.profile import profile

Patch = Callable[[pytest.MonkeyPatch], None]


def found_by(machine: type[RuleBasedStateMachine], match: str = "") -> None:
    with pytest.raises((AssertionError, ProtocolError), match=match or None):
        run_state_machine_as_test(machine, settings=profile(500, shrink=False, steps=30))


def odd_cache(monkeypatch: pytest.MonkeyPatch, kind: type[ResponseCache]) -> None:
    """Rank 1 alone gets a cache of ``kind``."""
    start = CachedNegotiator.__init__

    def init(self: CachedNegotiator, rank: int, settings: Settings) -> None:
        start(self, rank, settings)
        if rank == 1:
            self.cache = kind(settings.cache_capacity)

    monkeypatch.setattr(CachedNegotiator, "__init__", init)


class NeverTouched(ResponseCache):
    """Uses do not make an entry recent."""

    def touch(self, name: str) -> Response:
        return self.peek(name)


class NeverRenumbered(ResponseCache):
    """Holes stay open."""

    def end_cycle(self) -> None:
        self._renumber = False


class OneBitHigher(ResponseCache):
    """Offers the neighbour's bit."""

    def bit(self, name: str) -> int:
        return (super().bit(name) + 1) % len(self._bits)


class NewBitForEach(ResponseCache):
    """An eviction frees its bit, but the new entry takes one more."""

    def put(self, request: Request, response: Response | None = None) -> str | None:
        gone = super().put(request, response)
        if gone is not None:
            self._bits[self.bit(request.name)] = None
            self._entries[request.name].bit = len(self._bits)
            self._bits.append(request.name)
        return gone


class PeekTouches(ResponseCache):
    """Looking makes an entry recent."""

    def peek(self, name: str) -> Response:
        return self.touch(name)


class BlindToShapes(ResponseCache):
    """Any shape of a known name hits."""

    def lookup(self, request: Request) -> Lookup:
        return Lookup.HIT if request.name in self else Lookup.MISS


FAULTY_CACHES = [NeverTouched, NeverRenumbered, OneBitHigher, NewBitForEach, PeekTouches, BlindToShapes]


@pytest.mark.parametrize("kind", FAULTY_CACHES)
def test_a_faulty_cache_fails_against_the_model(monkeypatch: pytest.MonkeyPatch, kind: type[ResponseCache]) -> None:
    monkeypatch.setattr("tests.property.cache_machine.ResponseCache", kind)
    found_by(CacheMachine)


@pytest.mark.parametrize("kind", [NeverTouched, NeverRenumbered, NewBitForEach])
def test_one_rank_with_a_faulty_cache_breaks_i1(monkeypatch: pytest.MonkeyPatch, kind: type[ResponseCache]) -> None:
    odd_cache(monkeypatch, kind)
    found_by(JobMachine, "I1 broken .* at rank 1: cache")


def test_i1_on_purpose(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shortest story of a wrong recency: it shows at once, before it can do harm."""
    odd_cache(monkeypatch, NeverTouched)
    job = Job("cached", settings(2, capacity=2))
    job.step(tensor("a"), tensor("b"))
    with pytest.raises(InvariantBroken, match="I1 broken in cycle 1 at rank 1"):
        job.step(tensor("a"))


def off_by_one_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """All ranks read the vector one place too far."""
    right = cached._set_bits
    monkeypatch.setattr(cached, "_set_bits", lambda value: [max(bit - 1, 0) for bit in right(value)])


def drop_waiting_hits(monkeypatch: pytest.MonkeyPatch) -> None:
    right = CachedNegotiator._partition

    def partition(self: CachedNegotiator, *args: Any) -> tuple[Request, ...]:
        ask = right(self, *args)
        self._waiting = {}
        return ask

    monkeypatch.setattr(CachedNegotiator, "_partition", partition)


def fuse_across_strict_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "fuse", lambda singles, limit, _: fusion.fuse(singles, limit, GroupTable()))


def fuse_beyond_the_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "fuse", lambda singles, limit, groups: fusion.fuse(singles, 2 * limit + 99, groups))


def answer_one_rank_early(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ReadinessTable.add

    def add(self: ReadinessTable, voter: int, request: Request) -> bool:
        right(self, voter, request)
        row = self._rows[request.name]
        early = row.count == max(1, len(self.voters) - 1)
        row.count += early
        return early

    monkeypatch.setattr(ReadinessTable, "add", add)


def forward_before_the_subtree_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    right = HierarchicalNegotiator.__init__

    def init(self: HierarchicalNegotiator, rank: int, settings: Settings) -> None:
        right(self, rank, settings)
        if rank:
            self.table = ReadinessTable((rank,))
            self.table._index.update(dict.fromkeys(self.children, 0))

    monkeypatch.setattr(HierarchicalNegotiator, "__init__", init)


def compare_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReadinessTable, "_compare", lambda *_: None)


def never_invalidate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ResponseCache, "lookup", BlindToShapes.lookup)


def scan_lists_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    right = coordinator.count
    for module in (coordinator, hierarchical):
        monkeypatch.setattr(module, "count", lambda table, lists: right(table, list(lists)[::-1]))


def cache_in_order_of_submission(monkeypatch: pytest.MonkeyPatch) -> None:
    right = cached.remember

    def remember(
        cache: ResponseCache, schedule: Iterable[Response], own: dict[str, Request], joined: bool
    ) -> list[str]:
        singles = {name: each.single(i) for each in schedule for i, name in enumerate(each.names)}
        return right(cache, [singles[name] for name in own if name in singles], own, joined)

    monkeypatch.setattr(cached, "remember", remember)


def ranks_with_other_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    right = CachedNegotiator.__init__

    def init(self: CachedNegotiator, rank: int, settings: Settings) -> None:
        right(self, rank, replace(settings, fusion_threshold_bytes=(rank % 2) << 20))

    monkeypatch.setattr(CachedNegotiator, "__init__", init)


ANY_CHECK = (
    "I[1-5] broken|instead of|is a hole|order of completion|taken before every voter|asked twice|was not erased"
    "|changes the schedule|was fused|sizes differ|fused across|fused beyond|after it had joined|joined twice"
)
"""What the machine and the protocol's own checks say; which of them speaks first depends on the example."""

FAULTS: list[tuple[Patch, str]] = [
    (off_by_one_bit, ANY_CHECK),
    (drop_waiting_hits, "instead of|I5"),
    (fuse_across_strict_groups, "fused across strict groups"),
    (fuse_beyond_the_threshold, "fused beyond the threshold"),
    (answer_one_rank_early, ANY_CHECK),
    (forward_before_the_subtree_is_complete, ANY_CHECK),
    (compare_nothing, "instead of"),
    (never_invalidate, ANY_CHECK),
    (scan_lists_backwards, ANY_CHECK),
    (cache_in_order_of_submission, "I1 broken"),
    (ranks_with_other_thresholds, "I2 broken"),
]


def offers_nothing_when_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """A joined rank that stays silent in the vector holds up every hit."""
    monkeypatch.setattr(ResponseCache, "names_by_bit", lambda self: iter(()))


def keeps_what_zeros_cannot_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Horovod: a cached allgather goes on as if the joined rank had rows for it (docs/horovod.md 2.7, b)."""

    def kept(self: CachedNegotiator, offered: Mapping[str, Request]) -> set[int]:
        return {bit for bit, name in self.cache.names_by_bit() if name in offered}

    monkeypatch.setattr(CachedNegotiator, "_not_with_zeros", kept)


def keeps_its_own_hits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank joins while tensors of its own wait; nobody knows of them once all have joined."""

    def kept(self: CachedNegotiator, offered: Mapping[str, Request]) -> set[int]:
        return {bit for bit, name in self.cache.names_by_bit() if self.cache.peek(name).op is not Op.ALLREDUCE}

    monkeypatch.setattr(CachedNegotiator, "_not_with_zeros", kept)


def never_forgets_a_join(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReadinessTable, "forget_joins", lambda self: setattr(self, "_joins", 0))


def does_not_scan_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that wait only for a rank that joins stay in the table."""
    monkeypatch.setattr(ReadinessTable, "completed_by_joins", lambda self: [])


def counts_as_horovod_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ready at P - joined requests, even if a joined rank's own is among them (docs/horovod.md 2.7, e)."""
    monkeypatch.setattr(ReadinessTable, "_covered", lambda self, row: True)


def learns_while_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks with data cache what was agreed with zeros; the others cannot."""
    right = cached.remember

    def remember(
        cache: ResponseCache, schedule: Sequence[Response], own: dict[str, Request], joined: bool
    ) -> list[str]:
        names = {name for each in schedule for name in each.names}
        return right(cache, schedule, own, joined and not names <= own.keys())

    monkeypatch.setattr(cached, "remember", remember)


def executes_hits_when_all_have_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every bit is common then, but nobody has data."""
    right = coordinator.decide

    def decide(table: ReadinessTable, lists: Any, hits: Iterable[Response], settings: Settings) -> ResponseList:
        answer = right(table, lists, hits, settings)
        if not table.everybody_joined:
            return answer
        return replace(answer, responses=(*hits, *answer.responses))

    monkeypatch.setattr(coordinator, "decide", decide)


def gathers_from_ranks_without_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "ZERO_FILLED", frozenset(Op))


def names_the_first_rank_that_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    right = coordinator.everybody_joined
    monkeypatch.setattr(coordinator, "everybody_joined", lambda last: right(0))


def joins_for_its_whole_subtree(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node of a tree that joins takes its children along."""
    right = HierarchicalNegotiator._merged

    def merged(self: HierarchicalNegotiator, lists: list[RequestList]) -> RequestList:
        return replace(right(self, lists), joined=lists[0].joined)

    monkeypatch.setattr(HierarchicalNegotiator, "_merged", merged)


def tells_of_ranks_that_have_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stall report that blames a rank for having no data."""
    right = ReadinessTable.missing_for

    def missing_for(self: ReadinessTable, name: str) -> tuple[int, ...]:
        joined, self._joined = self._joined, bytearray(len(self.voters))
        try:
            return right(self, name)
        finally:
            self._joined = joined

    monkeypatch.setattr(ReadinessTable, "missing_for", missing_for)


def tells_of_whole_subtrees(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stall report that blames every rank below a node, whoever has asked."""
    right = HierarchicalNegotiator._missing_below

    def below(self: HierarchicalNegotiator, lists: Any, names: Any) -> Any:
        found = right(self, lists, names)
        return tuple((name, ((self.rank, self.rank + len(self.children)),)) for name, _ in found)

    monkeypatch.setattr(HierarchicalNegotiator, "_missing_below", below)


def keeps_a_shutdown_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node of a tree, merging or not, that does not pass on what its children want."""
    right = hierarchical.by_rank, HierarchicalNegotiator._merged

    def by_rank(own: RequestList, below: Any) -> list[RequestList]:
        return [each if each is own else replace(each, shutdown=False) for each in right[0](own, below)]

    def merged(self: HierarchicalNegotiator, lists: list[RequestList]) -> RequestList:
        return replace(right[1](self, lists), shutdown=lists[0].shutdown)

    monkeypatch.setattr(hierarchical, "by_rank", by_rank)
    monkeypatch.setattr(HierarchicalNegotiator, "_merged", merged)


def takes_more_after_a_join(monkeypatch: pytest.MonkeyPatch) -> None:
    right = TensorQueue.submit

    def submit(self: TensorQueue, unit: Iterable[Request]) -> None:
        with suppress(AfterJoin):
            right(self, unit)

    monkeypatch.setattr(TensorQueue, "submit", submit)


JOIN_FAULTS: list[tuple[Patch, str]] = [
    (offers_nothing_when_joined, "instead of"),
    (keeps_what_zeros_cannot_serve, "I4 broken|instead of"),
    (keeps_its_own_hits, "instead of|is a hole|I[1-5] broken"),
    (never_forgets_a_join, "joined twice|after it had joined|instead of|I4 broken"),
    (does_not_scan_again, "instead of"),
    pytest.param(counts_as_horovod_does, "I4 broken|instead of|taken before every voter", marks=pytest.mark.long),
    (learns_while_joined, "I1 broken"),
    (executes_hits_when_all_have_joined, "instead of"),
    (gathers_from_ranks_without_rows, "instead of|I4 broken"),
    (names_the_first_rank_that_joined, "not the rank that joined last"),
    (joins_for_its_whole_subtree, "instead of|after it had joined|I4 broken|joined twice|not the rank that joined"),
    (tells_of_ranks_that_have_joined, "lacks"),
    (tells_of_whole_subtrees, "tree: .* lacks"),
    (keeps_a_shutdown_to_itself, "a shutdown was not passed on"),
    (takes_more_after_a_join, "after a join, was taken"),
]


@pytest.mark.parametrize(("plant", "match"), JOIN_FAULTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_fault_in_join_stall_or_shutdown_is_found(
    monkeypatch: pytest.MonkeyPatch, plant: Patch, match: str
) -> None:
    plant(monkeypatch)
    found_by(JobMachine, match)


@pytest.mark.parametrize(("plant", "match"), FAULTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_fault_in_the_negotiation_is_found(monkeypatch: pytest.MonkeyPatch, plant: Patch, match: str) -> None:
    plant(monkeypatch)
    found_by(JobMachine, match)


def test_i3_a_name_twice_in_one_cycle() -> None:
    job = Job("coordinator", settings(1))
    job.submit(0, tensor("x"))
    twice = job.negotiators[0].cycle([])
    next(twice)
    with pytest.raises(InvariantBroken, match="I3 broken in cycle 0"):
        job.watch.cycle_done([decisions.Schedule((Response(tensor("x").op, ("x", "x"), (4, 4)),), True)])


def test_i5_a_submission_that_never_ends() -> None:
    job = Job("cached", settings(2))
    job.submit(1, tensor("x"))
    job.cycle()
    with pytest.raises(InvariantBroken, match=r"I5 broken in cycle 1 at rank 1: \('x',\) never ended"):
        job.watch.job_done()


def test_without_a_fault_the_same_machines_pass() -> None:
    for machine in (CacheMachine, JobMachine):
        run_state_machine_as_test(machine, settings=profile(40, shrink=False, steps=30))
