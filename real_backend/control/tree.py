"""Exchanges over TCP connections in a heap-ordered tree of any radix; with radix N - 1 it is a star.

Vectors are combined on the way up and sent down again. Lists are passed on as bytes and decoded only where they are
needed. A gather takes one message a link, not a length and then a list, because frames state their length.
"""

from __future__ import annotations

import operator
import select
from collections.abc import Callable, Iterator
from typing import Any

from coordsim.protocol import wire
from coordsim.protocol.links import PART
from coordsim.protocol.messages import Bundle, RequestList
from coordsim.protocol.negotiator import (
    AndReduce,
    BroadcastDownTree,
    BroadcastList,
    CollectFromChildren,
    Exchange,
    GatherLists,
    OrReduce,
    SendToParent,
)
from coordsim.protocol.readiness import ProtocolError
from coordsim.protocol.startup import BroadcastClaims, GatherClaims, StartExchange
from real_backend.control.links import Kind, Link
from real_backend.control.rendezvous import Neighbours
from real_backend.control.transport import Sent


class TreeTransport:
    """One rank's end of the tree."""

    rings = True

    def __init__(self, neighbours: Neighbours, *, merge: bool = True) -> None:
        """``merge`` says that inner nodes of control plane ``hierarchical`` send lists up, not bundles."""
        self.rank, self.ranks = neighbours.rank, neighbours.ranks
        self.neighbours = neighbours
        self.cycle = 0
        self._parent, self._children = neighbours.parent, neighbours.children
        self._merge = merge
        self._called_from: Link | None = None
        self._messages = self._bytes = self._rings = 0
        """Number of messages sent in this cycle."""
        self._poll = select.poll()
        for link in neighbours.links:
            self._poll.register(link.socket, select.POLLIN)
        self._below = select.poll()
        for link in self._children:
            self._below.register(link.socket, select.POLLIN)
        self._doorbell = -1
        self._by_type: dict[type, Callable[[Any], Any]] = {
            AndReduce: lambda asked: self._reduce(asked, Kind.AND, operator.and_)[0],
            OrReduce: lambda asked: self._reduce(asked, Kind.OR, operator.or_)[0],
            GatherLists: lambda asked: self._gather(asked.message, Kind.GATHER, wire.decode_requests),
            BroadcastList: lambda asked: self._broadcast(asked.message, Kind.BROADCAST, wire.decode_responses),
            GatherClaims: lambda asked: self._gather(asked.message, Kind.CLAIMS, wire.decode_claims),
            BroadcastClaims: lambda asked: self._broadcast(asked.message, Kind.VERDICT, wire.decode_claims),
            CollectFromChildren: lambda _: self._collect(),
            SendToParent: lambda asked: self._send_to_parent(asked.message),
            BroadcastDownTree: lambda asked: self._broadcast(asked.message, Kind.DOWN_TREE, wire.decode_responses),
        }

    def answer(self, exchange: Exchange | StartExchange) -> Any:
        return self._by_type[type(exchange)](exchange)

    # Waking.

    def enter(self, cycle: int, wake: bool) -> None:
        """Enter a cycle. A ring that arrives too late is dropped by its receiver."""
        self.cycle = cycle
        self._messages = self._bytes = self._rings = 0
        caller, self._called_from = self._called_from, None
        if wake and self._children:
            awake = {fd for fd, _ in self._below.poll(0)}
            for link in self._children:
                if link is not caller and not link.heard and link.socket.fileno() not in awake:
                    link.send(Kind.RING, cycle)
                    self._rings += 1
            if self._parent is not None and self._parent is not caller:
                self._parent.send(Kind.RING, cycle)
                self._rings += 1

    def sent(self) -> Sent:
        return Sent(self._messages, self._bytes, self._rings)

    def wait(self, timeout_s: float | None, doorbell: int) -> bool:
        if self._doorbell != doorbell:
            self._doorbell = doorbell
            self._poll.register(doorbell, select.POLLIN)
        if self._called(self.neighbours.links):
            return True
        timeout_ms = None if timeout_s is None else max(timeout_s, 0.0) * 1000
        ready = {fd for fd, _ in self._poll.poll(timeout_ms)}
        talking = [link for link in self.neighbours.links if link.socket.fileno() in ready]
        for link in talking:
            link.read_more()
        return self._called(talking)

    def _called(self, links: tuple[Link, ...] | list[Link]) -> bool:
        """Return whether one of ``links`` has entered the next cycle; old rings are dropped."""
        for link in links:
            while link.whole() or link.heard:
                kind, cycle = link.peek()
                if kind is not Kind.RING or _is_after(cycle, self.cycle):
                    self._called_from = link
                    return True
                link.receive()
        return False

    def _receive(self, link: Link, kind: Kind) -> bytes:
        """Return the payload of the next frame, which must be of ``kind``; rings before it are dropped."""
        while True:
            received, _, payload = link.receive()
            if received is kind:
                return payload
            if received is not Kind.RING:
                raise ProtocolError(f"rank {link.peer} sent {received.name} while {kind.name} was expected")

    # Exchanges.

    def intersect_with_data(
        self, asked: AndReduce, data: memoryview, add: Callable[[memoryview], None]
    ) -> tuple[int, bool]:
        """Perform an AND whose vector carries ``data`` along; ``add`` adds another rank's data to it.

        Returns the result, and whether ``data`` now holds the sum over all ranks. This is so if all ranks offered the
        same bits and sent data along; otherwise a part of it may have been added in vain. The frames of ranks that send
        no data are shorter, which is the only difference.
        """
        return self._reduce(asked, Kind.AND, operator.and_, data, add)

    def _reduce(
        self, asked: AndReduce | OrReduce, kind: Kind, combine: Callable[[int, int], int],
        data: memoryview | None = None, add: Callable[[memoryview], None] | None = None,
    ) -> tuple[int, bool]:  # fmt: skip
        size = 8 * asked.words
        value = asked.value
        along = data is not None
        for link in self._children:
            payload = memoryview(self._receive(link, kind))
            theirs = int.from_bytes(payload[:size], "little")
            along = along and theirs == asked.value
            if data is not None and add is not None and along and len(payload) == size + data.nbytes:
                add(payload[size:])
            elif len(payload) < size or (data is not None and along and len(payload) > size):
                raise ProtocolError(f"rank {link.peer} sent {len(payload)} bytes of vector, not {size}")
            else:
                along = False
            value = combine(value, theirs)
        result = value.to_bytes(size, "little") + (bytes(data) if data is not None and along else b"")
        if self._parent is not None:
            self._to_parent(kind, result)
            result = self._receive(self._parent, kind)
            if data is not None and len(result) == size + data.nbytes:
                data[:] = result[size:]
            else:
                along = False
                result = result[:size]
        self._to_children(kind, result)
        return int.from_bytes(result[:size], "little"), along

    def _gather(self, message: wire.Message, kind: Kind, decode: Callable[[bytes], Any]) -> list[Any] | None:
        """Return all ranks' messages in rank order at the root, None elsewhere."""
        if self._parent is None:
            lists = [message]
            for link in self._children:
                lists += [decode(each) for each in _parts(self._receive(link, kind))]
            gathered = sorted(lists, key=lambda one: int(one.rank))  # type: ignore[union-attr]
            if [one.rank for one in gathered] != list(range(self.ranks)):  # type: ignore[union-attr]
                raise ProtocolError("a gather did not bring one list from every rank")
            return gathered
        own = wire.encode(message)
        below = b"".join(self._receive(link, kind) for link in self._children)
        self._to_parent(kind, PART.pack(len(own)) + own + below)
        return None

    def _broadcast(self, message: wire.Message | None, kind: Kind, decode: Callable[[bytes], Any]) -> Any:
        if self._parent is None:
            assert message is not None, "the coordinator has nothing to say"
            data = wire.encode(message)
        else:
            data = self._receive(self._parent, kind)
        self._to_children(kind, data)
        return message if self._parent is None else decode(data)

    def _collect(self) -> list[RequestList | Bundle]:
        decode = wire.decode_requests if self._merge else wire.decode_bundle
        return [decode(self._receive(link, Kind.TO_PARENT)) for link in self._children]

    def _send_to_parent(self, message: RequestList | Bundle) -> None:
        self._to_parent(Kind.TO_PARENT, wire.encode(message))

    def _to_parent(self, kind: Kind, payload: bytes) -> None:
        assert self._parent is not None, "the root has no parent"
        self._parent.send(kind, self.cycle, payload)
        self._messages += 1
        self._bytes += len(payload)

    def _to_children(self, kind: Kind, payload: bytes) -> None:
        for link in self._children:
            link.send(kind, self.cycle, payload)
        self._messages += len(self._children)
        self._bytes += len(self._children) * len(payload)

    def break_off(self) -> None:
        self.neighbours.break_off()

    def close(self) -> None:
        self.neighbours.close()


def _parts(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        (length,) = PART.unpack_from(data, at)
        at += PART.size
        yield data[at : at + length]
        at += length


def _is_after(cycle: int, current: int) -> bool:
    """Return whether ``cycle`` (modulo 2^32) comes after ``current``."""
    return 0 < (cycle - current) & 0xFFFFFFFF < 1 << 31
