"""The response cache against a model that is nothing but two lists."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from coordsim.protocol.cache import Lookup, ResponseCache
from tests.protocol.drive import tensor

NAMES = st.sampled_from("abcdefgh")
SIZES = st.integers(1, 3)


class CacheMachine(RuleBasedStateMachine):
    """``recent``: (name, size), least recently used first. ``bits``: name of each bit, None for a hole."""

    def __init__(self) -> None:
        super().__init__()
        self.recent: list[tuple[str, int]] = []
        self.bits: list[str | None] = []
        self.bits_of_generation: dict[int, list[tuple[int, str]]] = {}

    @initialize(capacity=st.integers(1, 6))
    def start(self, capacity: int) -> None:
        self.capacity = capacity
        self.cache = ResponseCache(capacity)

    def known(self, name: str) -> int | None:
        return next((size for other, size in self.recent if other == name), None)

    def forget(self, name: str) -> None:
        self.recent = [each for each in self.recent if each[0] != name]

    def close_holes(self) -> None:
        if None in self.bits:
            self.bits = [name for name, _ in self.recent]

    @rule(name=NAMES, size=SIZES)
    def look_up(self, name: str, size: int) -> None:
        known = self.known(name)
        expected = Lookup.MISS if known is None else Lookup.HIT if known == size else Lookup.INVALID
        assert self.cache.lookup(tensor(name, size)) is expected
        assert (name in self.cache) == (known is not None)
        if known is not None:
            assert self.cache.peek(name).sizes == (4 * known,)

    @rule(name=NAMES, size=SIZES)
    def put(self, name: str, size: int) -> None:
        known, gone = self.known(name), None
        if known not in (None, size):
            return  # the protocol erases such an entry first
        self.forget(name)
        if known is None and len(self.recent) == self.capacity:
            gone = self.recent.pop(0)[0]
            self.bits[self.bits.index(gone)] = name
        elif known is None:
            self.bits.append(name)
        self.recent.append((name, size))
        assert self.cache.put(tensor(name, size)) == gone

    @rule(data=st.data())
    def touch(self, data: Any) -> None:
        if self.recent:
            name, size = data.draw(st.sampled_from(self.recent))
            self.forget(name)
            self.recent.append((name, size))
            assert self.cache.touch(name).names == (name,)

    @rule(data=st.data(), at_once=st.booleans())
    def erase(self, data: Any, at_once: bool) -> None:
        bits = data.draw(st.sets(st.sampled_from(range(len(self.bits))))) if self.bits else set()
        self.cache.erase(bits)
        for bit in bits:
            name, self.bits[bit] = self.bits[bit], None
            if name is not None:
                self.forget(name)
        if at_once:
            self.end_cycle()

    @rule()
    def end_cycle(self) -> None:
        self.cache.end_cycle()
        self.close_holes()
        assert self.cache.active_bits == len(self.recent) <= self.capacity

    @invariant()
    def same_state(self) -> None:
        cache, pairs = self.cache, [(bit, name) for bit, name in enumerate(self.bits) if name is not None]
        assert cache.least_recent_first() == [name for name, _ in self.recent]
        assert list(cache.names_by_bit()) == pairs
        assert [(cache.bit(name), cache.name(bit)) for bit, name in pairs] == pairs
        assert (len(cache), cache.active_bits) == (len(self.recent), len(self.bits))
        assert cache.words == (3 + len(self.bits) + 63) // 64
        assert self.bits_of_generation.setdefault(cache.generation, pairs) == pairs
