"""Exchanges as collectives of a library that supports equal sizes only; shared by the gloo and MPI transports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from coordsim.protocol import wire
from coordsim.protocol.messages import Bundle, RequestList
from coordsim.protocol.negotiator import (
    COORDINATOR,
    AndReduce,
    BroadcastDownTree,
    BroadcastList,
    CollectFromChildren,
    Exchange,
    GatherLists,
    OrReduce,
    SendToParent,
    tree_children,
    tree_parent,
)
from coordsim.protocol.startup import BroadcastClaims, GatherClaims, StartExchange


class CollectiveTransport:
    """One rank's end. Subclasses implement the methods that raise NotImplementedError."""

    rings = False

    def __init__(self, rank: int, ranks: int, radix: int, *, merge: bool = True) -> None:
        self.rank, self.ranks = rank, ranks
        self._children = tree_children(rank, ranks, radix)
        self._parent = tree_parent(rank, radix) if rank != COORDINATOR else -1
        self._decode_child: Callable[[bytes], RequestList | Bundle] = (
            wire.decode_requests if merge else wire.decode_bundle
        )

    def enter(self, cycle: int, wake: bool) -> None:
        """Enter a cycle. Ranks cannot be woken: all of them enter by the clock."""

    def sent(self) -> None:
        """Return None, because the library does not state how many messages a collective takes."""

    def wait(self, timeout_s: float | None, doorbell: int) -> bool:
        raise NotImplementedError("this transport cannot wake a rank")

    def answer(self, exchange: Exchange | StartExchange) -> Any:
        match exchange:
            case AndReduce(value, words):
                return self.reduce(value, words, intersect=True)
            case OrReduce(value, words):
                return self.reduce(value, words, intersect=False)
            case GatherLists(message):
                return self._decoded(self.gather(wire.encode(message)), wire.decode_requests)
            case GatherClaims(claims):
                return self._decoded(self.gather(wire.encode(claims)), wire.decode_claims)
            case BroadcastList(answer) | BroadcastDownTree(answer):
                return wire.decode_responses(self.broadcast(b"" if answer is None else wire.encode(answer)))
            case BroadcastClaims(verdict):
                return wire.decode_claims(self.broadcast(b"" if verdict is None else wire.encode(verdict)))
            case CollectFromChildren():
                return [self._decode_child(self.receive(child)) for child in self._children]
            case SendToParent(upward):
                return self.send(self._parent, wire.encode(upward))
        raise TypeError(f"no exchange: {exchange!r}")

    def _decoded(self, gathered: Sequence[bytes] | None, decode: Callable[[bytes], Any]) -> list[Any] | None:
        return None if gathered is None else [decode(each) for each in gathered]

    def reduce(self, value: int, words: int, *, intersect: bool) -> int:
        """Return the AND or OR of ``value`` (``words`` 64-bit words) of all ranks, on all of them."""
        raise NotImplementedError

    def gather(self, data: bytes) -> list[bytes] | None:
        """Return the bytes of all ranks, in rank order, at the coordinator; None elsewhere."""
        raise NotImplementedError

    def broadcast(self, data: bytes) -> bytes:
        """Return the coordinator's bytes on all ranks."""
        raise NotImplementedError

    def send(self, rank: int, data: bytes) -> None:
        """Send bytes to one rank."""
        raise NotImplementedError

    def receive(self, rank: int) -> bytes:
        """Receive bytes from one rank."""
        raise NotImplementedError
