"""A rank's cycle, for every control plane that negotiates.

A negotiator is driven: ``schedule = yield from negotiator.cycle(requests)`` yields the *exchanges* it needs
and is sent their results. It knows no clock and no network, so simulator and real backend run this very code.

Invariants (docs/horovod.md 12), checked by :mod:`coordsim.protocol.invariants` in debug mode:
I1 caches are equal on all ranks at every cycle boundary; I2 schedules are equal; I3 at most one outstanding
submission per name; I4 nobody executes a name before everybody submitted it; I5 every submission ends.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from coordsim.protocol.cache import STATUS_BITS, Lookup, ResponseCache
from coordsim.protocol.fusion import fuse
from coordsim.protocol.groups import GroupTable
from coordsim.protocol.messages import Request, RequestList, Response, ResponseList
from coordsim.protocol.readiness import ReadinessTable

COORDINATOR = 0
"""The deciding rank."""


@dataclass(frozen=True, slots=True)
class AndReduce:
    """All ranks intersect a bit vector; every rank is sent the result (int)."""

    value: int
    words: int


@dataclass(frozen=True, slots=True)
class OrReduce:
    """All ranks unite a bit vector; every rank is sent the result (int)."""

    value: int
    words: int


@dataclass(frozen=True, slots=True)
class GatherLists:
    """Every rank's list to the coordinator, which is sent all of them in rank order; others are sent None."""

    message: RequestList


@dataclass(frozen=True, slots=True)
class BroadcastList:
    """The coordinator's list (None elsewhere) to every rank, which is sent it."""

    message: ResponseList | None


@dataclass(frozen=True, slots=True)
class CollectFromChildren:
    """In a tree: this node is sent its children's lists, children ascending."""


@dataclass(frozen=True, slots=True)
class SendToParent:
    """In a tree: this node's merged list goes one level up."""

    message: RequestList


@dataclass(frozen=True, slots=True)
class BroadcastDownTree:
    """In a tree: the root's list (None elsewhere) to every node, which is sent it."""

    message: ResponseList | None


Exchange: TypeAlias = (
    AndReduce | OrReduce | GatherLists | BroadcastList | CollectFromChildren | SendToParent | BroadcastDownTree
)
Cycle: TypeAlias = Generator[Exchange, Any, "Schedule"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """What every rank executes next, in this order; equal on all ranks (I2)."""

    responses: tuple[Response, ...]
    slow: bool
    """Whether the coordinator was asked."""
    hits_common: int = 0
    """Tensors that the cache alone agreed on in this cycle."""
    invalidated: bool = False
    shutdown: bool = False
    """Some rank wants to stop: after this schedule all loops end and what is pending fails."""


@dataclass(frozen=True)
class Settings:
    """What every rank of a job must set alike."""

    ranks: int
    fusion_threshold_bytes: int
    """Already rounded (:func:`coordsim.protocol.fusion.rounded_threshold`)."""
    groups: GroupTable = field(default_factory=GroupTable)
    cache_capacity: int = 1024
    """``cached`` only."""
    radix: int = 2
    """``hierarchical`` only."""


def agree(
    hits: Iterable[Response], ready: Iterable[Response], settings: Settings
) -> tuple[Response, ...]:
    """The schedule from common hits (ascending bit) and newly ready responses (order of completion)."""
    return tuple(fuse([*hits, *ready], settings.fusion_threshold_bytes, settings.groups))


def remember(
    cache: ResponseCache, schedule: Iterable[Response], own: Mapping[str, Request]
) -> list[str]:
    """After a slow cycle: put what may be cached, in schedule order; returns the names that had to leave."""
    evicted = []
    for response in schedule:
        if response.cacheable:
            for index, name in enumerate(response.names):
                gone = cache.put(own[name], response.single(index))
                if gone is not None:
                    evicted.append(gone)
    return evicted


class CoordinatorNegotiator:
    """Horovod 0.13.3 to 0.16.1 (and ``point-to-point`` before): everything goes to rank 0, every cycle.

    Source: horovod/common/controller.cc and horovod PR #276 (docs/horovod.md 3).
    """

    def __init__(self, rank: int, settings: Settings) -> None:
        self.rank = rank
        self.settings = settings
        self.table = ReadinessTable(range(settings.ranks)) if rank == COORDINATOR else None

    def cycle(self, requests: Iterable[Request], *, shutdown: bool = False) -> Cycle:
        """One cycle with what was popped. Returns the schedule that all ranks execute."""
        answer = yield from self._ask(RequestList(self.rank, tuple(requests), shutdown), ())
        return Schedule(answer.responses, slow=True, shutdown=answer.shutdown)

    def missing(self) -> dict[str, tuple[int, ...]]:
        """On the coordinator, per name that waits: the ranks that have not asked for it."""
        return self.table.missing() if self.table is not None else {}

    def _ask(self, message: RequestList, hits: Iterable[Response]) -> Generator[Exchange, Any, ResponseList]:
        lists = yield GatherLists(message)
        answer = None
        if self.table is not None:
            ready = [self.table.take(name).response() for name in _count(self.table, lists)]
            shutdown = any(received.shutdown for received in lists)
            answer = ResponseList(agree(hits, ready, self.settings), shutdown)
        final: ResponseList = yield BroadcastList(answer)
        return final


def _count(table: ReadinessTable, lists: Iterable[RequestList]) -> list[str]:
    """Names completed by these lists, in order of completion: by list, then by position in it."""
    complete = []
    for received in lists:
        for request in received.requests:
            if table.add(received.rank, request):
                complete.append(request.name)
        for name, reason in received.errors:
            if table.add_error(received.rank, name, reason):
                complete.append(name)
    return complete


class HierarchicalNegotiator:
    """A heap-ordered tree of radix r; a node passes on only what its whole subtree asked for, once.

    Source: Kurth et al., SC'18 (their Horovod fork; body not available, see docs/published.md V8).
    """

    def __init__(self, rank: int, settings: Settings) -> None:
        self.rank = rank
        self.settings = settings
        self.children = tree_children(rank, settings.ranks, settings.radix)
        self.table = ReadinessTable((rank, *self.children))

    def cycle(self, requests: Iterable[Request], *, shutdown: bool = False) -> Cycle:
        """One cycle with what was popped. Returns the schedule that all ranks execute."""
        own = RequestList(self.rank, tuple(requests), shutdown)
        lists = [own]
        if self.children:
            lists += yield CollectFromChildren()
        complete = [self.table.take(name) for name in _count(self.table, lists)]
        shutdown = any(received.shutdown for received in lists)
        answer = None
        if self.rank == COORDINATOR:
            answer = ResponseList(
                agree((), [agreed.response() for agreed in complete], self.settings), shutdown
            )
        else:
            merged = tuple(agreed.request for agreed in complete if not agreed.error)
            errors = tuple((agreed.request.name, agreed.error) for agreed in complete if agreed.error)
            yield SendToParent(RequestList(self.rank, merged, shutdown, errors=errors))
        final: ResponseList = yield BroadcastDownTree(answer)
        return Schedule(final.responses, slow=True, shutdown=final.shutdown)

    def missing(self) -> dict[str, tuple[int, ...]]:
        """Per name that waits here: the children (roots of subtrees) or the rank itself that miss it."""
        return self.table.missing()


def tree_children(rank: int, ranks: int, radix: int) -> tuple[int, ...]:
    """Children of ``rank`` in the heap-ordered tree, ascending."""
    first = radix * rank + 1
    return tuple(range(first, min(first + radix, ranks)))


def tree_parent(rank: int, radix: int) -> int:
    """Parent of ``rank`` (> 0) in the heap-ordered tree."""
    return (rank - 1) // radix


class CachedNegotiator(CoordinatorNegotiator):
    """Horovod >= 0.16.2: a bit vector that all ranks intersect; the coordinator only for what is new.

    Source: horovod/common/response_cache.cc and controller.cc, horovod PR #902 (docs/horovod.md 2).
    """

    def __init__(self, rank: int, settings: Settings) -> None:
        super().__init__(rank, settings)
        self.cache = ResponseCache(settings.cache_capacity)
        self._waiting: dict[str, Request] = {}  # hits offered and not yet common, in submission order
        self._asked: dict[str, Request] = {}  # sent to the coordinator and not yet answered

    @property
    def waiting(self) -> tuple[str, ...]:
        """Hits offered and not yet common, in submission order; what a rank's stall clock watches."""
        return tuple(self._waiting)

    def cycle(
        self, requests: Iterable[Request], *, shutdown: bool = False, stalled: frozenset[str] = frozenset()
    ) -> Cycle:
        """One cycle with what was popped.

        ``stalled`` names hits that have waited too long by the driver's clock: they are reported invalid,
        so that the coordinator learns who is missing (docs/horovod.md 2.8).
        """
        offered = {**self._waiting, **{request.name: request for request in requests}}
        hits, invalid, uncached = self._classify(offered, stalled)
        status = (not shutdown) | (not uncached) << 1 | (not invalid) << 2
        vector = status | sum(1 << (STATUS_BITS + bit) for bit in hits)
        common_vector: int = yield AndReduce(vector, self.cache.words)
        wants_shutdown, slow, must_invalidate = (not common_vector >> flag & 1 for flag in range(STATUS_BITS))
        if must_invalidate:
            erased: int = yield OrReduce(sum(1 << bit for bit in invalid), self.cache.words)
            self.cache.erase(bit for bit in range(self.cache.active_bits) if erased >> bit & 1)
        common = _set_bits(common_vector >> STATUS_BITS)
        agreed = [self.cache.name(bit) for bit in common]
        ask = self._partition(offered, set(agreed))
        if slow:
            responses, wants_shutdown = yield from self._slow(ask, agreed, offered, shutdown)
        else:
            responses = agree([self.cache.touch(name) for name in agreed], (), self.settings)
        self.cache.end_cycle()
        return Schedule(responses, slow, len(agreed), must_invalidate, wants_shutdown)

    def _classify(
        self, offered: Mapping[str, Request], stalled: frozenset[str]
    ) -> tuple[list[int], list[int], bool]:
        """Bits hit, bits found invalid, and whether anything must go to the coordinator."""
        hits, invalid = [], []
        for name, request in offered.items():
            found = self.cache.lookup(request)
            if found is Lookup.HIT and name not in stalled:
                hits.append(self.cache.bit(name))
            elif found is not Lookup.MISS:
                invalid.append(self.cache.bit(name))
        return hits, invalid, len(hits) < len(offered)

    def _partition(self, offered: Mapping[str, Request], agreed: set[str]) -> tuple[Request, ...]:
        """Split what was offered: agreed leaves, a live hit waits on, the rest is to be asked for."""
        ask = []
        self._waiting = {}
        for name, request in offered.items():
            if name in agreed:
                continue
            if self.cache.lookup(request) is Lookup.HIT:
                self._waiting[name] = request
            else:
                ask.append(request)
        return tuple(ask)

    def _slow(
        self, ask: tuple[Request, ...], agreed: list[str], offered: Mapping[str, Request], shutdown: bool
    ) -> Generator[Exchange, Any, tuple[tuple[Response, ...], bool]]:
        self._asked.update((request.name, request) for request in ask)
        hits = [self.cache.peek(name) for name in agreed]
        answer = yield from self._ask(RequestList(self.rank, ask, shutdown), hits)
        own = {**self._asked, **{name: offered[name] for name in agreed}}
        remember(self.cache, answer.responses, own)
        for response in answer.responses:
            for name in response.names:
                self._asked.pop(name, None)
        return answer.responses, answer.shutdown


def _set_bits(value: int) -> list[int]:
    """Positions of the ones, ascending."""
    bits = []
    while value:
        low = value & -value
        bits.append(low.bit_length() - 1)
        value ^= low
    return bits


Negotiator: TypeAlias = CoordinatorNegotiator | HierarchicalNegotiator | CachedNegotiator

NEGOTIATORS: dict[str, type[CoordinatorNegotiator] | type[HierarchicalNegotiator]] = {
    "point-to-point": CoordinatorNegotiator,
    "coordinator": CoordinatorNegotiator,
    "hierarchical": HierarchicalNegotiator,
    "cached": CachedNegotiator,
}
"""Control planes that negotiate, by name."""

__all__ = [
    "COORDINATOR", "NEGOTIATORS", "AndReduce", "BroadcastDownTree", "BroadcastList", "CachedNegotiator",
    "CollectFromChildren", "CoordinatorNegotiator", "Cycle", "Exchange", "GatherLists",
    "HierarchicalNegotiator", "Negotiator", "OrReduce", "Schedule", "SendToParent", "Settings",
    "agree", "remember", "tree_children", "tree_parent",
]  # fmt: skip
