"""The response cache: what was agreed before need not be asked again, one bit stands for it.

Every rank holds one, and all are equal at every cycle boundary (invariant I1): bits are handed out in the
order of the list that all ranks execute, never in the order of local submission.
Source: horovod/common/response_cache.cc as described in docs/horovod.md 2.2 to 2.5.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b

from coordsim.protocol.messages import Request, Response, respond_to

STATUS_BITS = 3
WORD_BITS = 64


class Lookup(Enum):
    HIT = "hit"
    MISS = "miss"
    INVALID = "invalid"
    """The name is known, but with another shape, type, scale, operation or device."""


@dataclass(slots=True)
class _Entry:
    request: Request
    """This rank's own parameters; a later request must equal them to hit."""
    response: Response
    bit: int


class ResponseCache:
    """Capacity-bounded, least recently used first out, every entry known by a bit.

    Raises ValueError for a capacity below 1 (no cache at all is another control plane: ``coordinator``).
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"cache capacity {capacity}: at least 1; without a cache use 'coordinator'")
        self.capacity = capacity
        self.generation = 0
        """Grows whenever a bit is given, taken or moved; equal generations mean equal bits."""
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # least recently used first
        self._bits: list[str | None] = []
        self._renumber = False

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    @property
    def active_bits(self) -> int:
        """Length of the bit table, holes included; it sizes the bit vector."""
        return len(self._bits)

    @property
    def words(self) -> int:
        """64-bit words of one AND pass: three status bits, then the cache bits."""
        return -(-(STATUS_BITS + self.active_bits) // WORD_BITS)

    def names_by_bit(self) -> Iterator[tuple[int, str]]:
        """Live (bit, name) pairs, ascending."""
        return ((bit, name) for bit, name in enumerate(self._bits) if name is not None)

    def least_recent_first(self) -> list[str]:
        return list(self._entries)

    def lookup(self, request: Request) -> Lookup:
        """Whether ``request`` is known, without touching the recency order."""
        entry = self._entries.get(request.name)
        if entry is None:
            return Lookup.MISS
        known = entry.request
        return Lookup.HIT if known is request or known == request else Lookup.INVALID

    def classify(self, requests: Iterable[Request]) -> tuple[list[int], list[int]]:
        """Bits of the requests that hit, and of those that are invalid; the rest misses. As :meth:`lookup` of each."""
        hits: list[int] = []
        invalid: list[int] = []
        entries = self._entries
        for request in requests:
            entry = entries.get(request.name)
            if entry is not None:
                same = entry.request is request or self.lookup(request) is Lookup.HIT
                (hits if same else invalid).append(entry.bit)
        return hits, invalid

    def bit(self, name: str) -> int:
        """The bit that stands for ``name``. Raises KeyError when it is not cached."""
        return self._entries[name].bit

    def name(self, bit: int) -> str:
        """The name that a live ``bit`` stands for."""
        name = self._bits[bit]
        assert name is not None, f"bit {bit} is a hole"
        return name

    def peek(self, name: str) -> Response:
        """The response for ``name``; recency stays as it is (the slow path's look)."""
        return self._entries[name].response

    def touch(self, name: str) -> Response:
        """The response for ``name``, now most recently used (the fast path's look)."""
        self._entries.move_to_end(name)
        return self._entries[name].response

    def touch_all(self, names: list[str]) -> None:
        """:meth:`touch` each, in order. A static model touches its names in the order that they have already."""
        entries = self._entries
        if len(names) == len(entries) and names == list(entries):
            return
        for name in names:
            self.touch(name)

    def put(self, request: Request, response: Response | None = None) -> str | None:
        """Remember an agreed single-tensor response; returns the name that had to leave, if any.

        A new name takes a new bit, or the bit of the least recently used entry when the cache is full.
        """
        name = request.name
        entry = self._entries.get(name)
        if entry is not None:
            assert entry.request == request, f"{name!r} is cached with other parameters and was not erased"
            self._entries.move_to_end(name)
            return None
        self.generation += 1
        evicted = None
        if len(self._entries) >= self.capacity:
            evicted, oldest = self._entries.popitem(last=False)
            bit = oldest.bit
            self._bits[bit] = name
        else:
            bit = len(self._bits)
            self._bits.append(name)
        self._entries[name] = _Entry(request, response or respond_to(request), bit)
        return evicted

    def erase(self, bits: Iterable[int]) -> None:
        """Forget these bits' entries; the holes close at :meth:`end_cycle`."""
        for bit in bits:
            name = self._bits[bit]
            if name is not None:
                self._bits[bit] = None
                del self._entries[name]
                self._renumber = True
                self.generation += 1

    def end_cycle(self) -> None:
        """After an erasure, renumber: the least recently used entry gets bit 0 (horovod PR #1988)."""
        if self._renumber:
            self._renumber = False
            self.generation += 1
            self._bits = list(self._entries)
            for bit, entry in enumerate(self._entries.values()):
                entry.bit = bit

    def digest(self) -> int:
        """64-bit digest of names, bits and recency; equal on all ranks at every cycle boundary."""
        state = "\0".join(f"{name}={entry.bit}" for name, entry in self._entries.items())
        return int.from_bytes(blake2b(state.encode(), digest_size=8).digest(), "little")
