"""Tests of the tests: faults planted in the protocol must be found, by the same checks that pass without them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from coordsim.protocol import fusion, negotiator
from coordsim.protocol.cache import Lookup, ResponseCache
from coordsim.protocol.groups import GroupTable
from coordsim.protocol.invariants import InvariantBroken
from coordsim.protocol.messages import Request, Response
from coordsim.protocol.negotiator import CachedNegotiator, HierarchicalNegotiator, Settings
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
    right = negotiator._set_bits
    monkeypatch.setattr(negotiator, "_set_bits", lambda value: [max(bit - 1, 0) for bit in right(value)])


def drop_waiting_hits(monkeypatch: pytest.MonkeyPatch) -> None:
    right = CachedNegotiator._partition

    def partition(self: CachedNegotiator, *args: Any) -> tuple[Request, ...]:
        ask = right(self, *args)
        self._waiting = {}
        return ask

    monkeypatch.setattr(CachedNegotiator, "_partition", partition)


def fuse_across_strict_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negotiator, "fuse", lambda singles, limit, _: fusion.fuse(singles, limit, GroupTable()))


def fuse_beyond_the_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negotiator, "fuse", lambda singles, limit, groups: fusion.fuse(singles, 2 * limit + 99, groups))


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
    right = negotiator._count
    monkeypatch.setattr(negotiator, "_count", lambda table, lists: right(table, list(lists)[::-1]))


def cache_in_order_of_submission(monkeypatch: pytest.MonkeyPatch) -> None:
    right = negotiator.remember

    def remember(cache: ResponseCache, schedule: Iterable[Response], own: dict[str, Request]) -> list[str]:
        singles = {name: each.single(i) for each in schedule for i, name in enumerate(each.names)}
        return right(cache, [singles[name] for name in own if name in singles], own)

    monkeypatch.setattr(negotiator, "remember", remember)


def ranks_with_other_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    right = CachedNegotiator.__init__

    def init(self: CachedNegotiator, rank: int, settings: Settings) -> None:
        right(self, rank, replace(settings, fusion_threshold_bytes=(rank % 2) << 20))

    monkeypatch.setattr(CachedNegotiator, "__init__", init)


ANY_CHECK = (
    "I[1-5] broken|instead of|is a hole|order of completion|taken before every voter|asked twice|was not erased"
    "|changes the schedule|was fused|sizes differ|fused across|fused beyond"
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
        job.watch.cycle_done([negotiator.Schedule((negotiator.Response(tensor("x").op, ("x", "x"), (4, 4)),), True)])


def test_i5_a_submission_that_never_ends() -> None:
    job = Job("cached", settings(2))
    job.submit(1, tensor("x"))
    job.cycle()
    with pytest.raises(InvariantBroken, match=r"I5 broken in cycle 1 at rank 1: \('x',\) never ended"):
        job.watch.job_done()


def test_without_a_fault_the_same_machines_pass() -> None:
    for machine in (CacheMachine, JobMachine):
        run_state_machine_as_test(machine, settings=profile(40, shrink=False, steps=30))
