"""A bit vector that all ranks intersect; the coordinator only for what is new."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Mapping
from typing import Any

from coordsim.protocol.cache import STATUS_BITS, Lookup, ResponseCache
from coordsim.protocol.groups import GroupTable
from coordsim.protocol.messages import ZERO_FILLED, Request, RequestList, Response, ResponseList
from coordsim.protocol.negotiator.coordinator import CoordinatorNegotiator, all_joined, without_join
from coordsim.protocol.negotiator.decisions import Schedule, Settings, agree, remember
from coordsim.protocol.negotiator.exchanges import AndReduce, Cycle, Exchange, OrReduce

_NOTHING = (1 << STATUS_BITS) - 1
"""Status bits of a rank that reports nothing."""
SCHEDULES_REMEMBERED = 64
"""Fused schedules of the fast path that a rank keeps: what fuses changes with timing, but not without end."""


class CachedNegotiator(CoordinatorNegotiator):
    """Horovod >= 0.16.2: a bit vector that all ranks intersect; the coordinator only for what is new.

    A rank that has joined offers every bit: a common one is then a tensor that all ranks with data have.
    Source: horovod/common/response_cache.cc and controller.cc, horovod PR #902 (docs/horovod.md 2).
    """

    def __init__(self, rank: int, settings: Settings) -> None:
        super().__init__(rank, settings)
        self.cache = ResponseCache(settings.cache_capacity)
        self._waiting: dict[str, Request] = {}  # hits offered and not yet common, in submission order
        self._asked: dict[str, Request] = {}  # sent to the coordinator and not yet answered
        self._joined = False
        self._fused: dict[tuple[int, int, GroupTable], tuple[Response, ...]] = {}

    @property
    def waiting(self) -> tuple[str, ...]:
        """Hits offered and not yet common, in submission order; what a rank's stall clock watches."""
        return tuple(self._waiting)

    def cycle(
        self, requests: Iterable[Request], *, shutdown: bool = False, stalled: Collection[str] = (),
        explain: Collection[str] = (),
    ) -> Cycle:  # fmt: skip
        """One cycle with what was popped.

        ``stalled`` names hits that have waited too long by the driver's clock: they are reported invalid,
        so that the coordinator learns who is missing (docs/horovod.md 2.8).
        """
        data, joining = without_join(requests)
        offered = {**self._waiting, **{request.name: request for request in data}}
        hits, invalid, uncached = self._classify(offered, stalled)
        if joining:
            hits, invalid, uncached = [], self._not_with_zeros(offered), True
        self._joined |= joining
        if self._joined:
            hits = [bit for bit, _ in self.cache.names_by_bit() if bit not in invalid]
        status = (not shutdown) | (not uncached) << 1 | (not invalid) << 2
        vector = status | sum(1 << (STATUS_BITS + bit) for bit in hits)
        expected = self._remembered(vector >> STATUS_BITS) if vector & _NOTHING == _NOTHING else ()
        common_vector: int = yield AndReduce(vector, self.cache.words, expected)
        wants_shutdown, slow, must_invalidate = (not common_vector >> flag & 1 for flag in range(STATUS_BITS))
        if must_invalidate:
            erased: int = yield OrReduce(sum(1 << bit for bit in invalid), self.cache.words)
            self.cache.erase(bit for bit in range(self.cache.active_bits) if erased >> bit & 1)
        common = common_vector >> STATUS_BITS
        agreed = [self.cache.name(bit) for bit in _set_bits(common)]
        ask = self._partition(offered, agreed)
        if slow:
            message = RequestList(self.rank, ask, shutdown, self.rank if joining else -1)
            answer = yield from self._slow(message, agreed, offered)
            responses, wants_shutdown = answer.responses, answer.shutdown
            if all_joined(responses):
                self._joined, agreed = False, []
        else:
            responses = self._from_cache(common, agreed)
        self.cache.end_cycle()
        self._explain(explain)
        return Schedule(responses, slow, len(agreed), must_invalidate, wants_shutdown)

    def _classify(
        self, offered: Mapping[str, Request], stalled: Collection[str]
    ) -> tuple[list[int], set[int], bool]:
        """Bits hit, bits found invalid, and whether anything must go to the coordinator."""
        hits, invalid = self.cache.classify(offered.values())
        late = {self.cache.bit(name) for name in stalled if name in offered and name in self.cache}
        if late:
            hits = [bit for bit in hits if bit not in late]
        return hits, late.union(invalid), len(hits) < len(offered)

    def _from_cache(self, common: int, agreed: list[str]) -> tuple[Response, ...]:
        """The fast path's schedule. Equal bits of an unchanged cache make equal schedules, so they are remembered."""
        self.cache.touch_all(agreed)
        if not agreed:
            return ()
        found = self._remembered(common)
        if not found:
            found = agree([self.cache.peek(name) for name in agreed], (), self.settings)
            if len(self._fused) >= SCHEDULES_REMEMBERED:
                self._fused.clear()
            self._fused[self.cache.generation, common, self.settings.groups] = found
        return found

    def _remembered(self, bits: int) -> tuple[Response, ...]:
        """The schedule that these common bits made before, while the cache was what it is now; else none."""
        return self._fused.get((self.cache.generation, bits, self.settings.groups), ())

    def _not_with_zeros(self, offered: Mapping[str, Request]) -> set[int]:
        """Bits that a rank that joins must take out of the cache, because it will offer all others.

        Tensors that it still has outstanding: the coordinator must know of them, or nobody would once all
        have joined. And what zeros cannot stand in for: it must be asked for, to end in an error.
        """
        return {
            bit for bit, name in self.cache.names_by_bit()
            if name in offered or self.cache.peek(name).op not in ZERO_FILLED
        }  # fmt: skip

    def _partition(self, offered: Mapping[str, Request], agreed: list[str]) -> tuple[Request, ...]:
        """Split what was offered: agreed leaves, a live hit waits on, the rest is to be asked for."""
        ask = []
        self._waiting = {}
        if len(agreed) == len(offered) and offered.keys() == set(agreed):
            return ()
        agreed_names = set(agreed)
        for name, request in offered.items():
            if name in agreed_names:
                continue
            if self.cache.lookup(request) is Lookup.HIT:
                self._waiting[name] = request
            else:
                ask.append(request)
        return tuple(ask)

    def _slow(
        self, message: RequestList, agreed: list[str], offered: Mapping[str, Request]
    ) -> Generator[Exchange, Any, ResponseList]:
        self._asked.update((request.name, request) for request in message.requests)
        answer = yield from self._ask(message, [self.cache.peek(name) for name in agreed])
        own = {**self._asked, **{name: offered[name] for name in agreed if name in offered}}
        remember(self.cache, answer.responses, own, answer.joined)
        for response in answer.responses:
            for name in response.names:
                self._asked.pop(name, None)
        return answer


def _set_bits(value: int) -> list[int]:
    """Positions of the ones, ascending."""
    bits = []
    while value:
        low = value & -value
        bits.append(low.bit_length() - 1)
        value ^= low
    return bits
