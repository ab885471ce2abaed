"""Every control exchange as one straight-line program per rank (docs/semantics.md 4).

A program is a generator over :class:`Send`, :class:`Recv`, :class:`RecvAll`, :class:`Work` and :class:`Combine`;
receives are sent the payloads. The program *is* the definition of the exchange: the event engine interprets it
message by message, and the vector engine's closed forms are tested against that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from coordsim.cost.network import RENDEZVOUS_BYTES


@dataclass(frozen=True, slots=True)
class Send:
    """An eager send: the CPU is busy max(o, xfer), and the message arrives start + o + L + xfer later."""

    target: int
    nbytes: int
    payload: Any = None


@dataclass(frozen=True, slots=True)
class Recv:
    """Waits for the next message from ``source``, with the CPU busy o. The generator receives the payload."""

    source: int


@dataclass(frozen=True, slots=True)
class RecvAll:
    """Receives one message from each of ``sources``, served in arrival order. The generator receives {source: payload}.

    Each message takes the CPU o; at a gather's root max(o, its time on the root's NIC); plus ``work`` of its payload.
    """

    sources: Collection[int]
    root: bool = False
    work: Callable[[Any], int] | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """Serial CPU work, ns: the part of an exchange that a faster coordinator would not need."""

    ns: int


@dataclass(frozen=True, slots=True)
class Combine:
    """Hands ``value`` to the switches. The generator receives all ranks' values combined, ``ns`` after the last one.

    The CPU waits and is not charged, since SHARP's host adapter works by itself.
    """

    ranks: int
    value: Any
    combine: Callable[[Any, Any], Any]
    ns: int


Op: TypeAlias = Send | Recv | RecvAll | Work | Combine
Program: TypeAlias = Generator[Op, Any, Any]


def gather_linear(
    rank: int, ranks: int, nbytes: int, payload: Any, eager_limit: int = 0, lengths: Mapping[int, int] | None = None
) -> Program:
    """Every rank sends to rank 0, as MPI_Gatherv probably does (docs/published.md 4).

    Above ``eager_limit`` (> 0) a sender first asks and is granted permission, one sender after the other; the root
    knows from ``lengths`` who will ask. Returns {rank: payload} at rank 0, None elsewhere.
    """
    if rank:
        if 0 < eager_limit < nbytes:
            yield Send(0, RENDEZVOUS_BYTES, None)
            yield Recv(0)
        yield Send(0, nbytes, payload)
        return None
    big = [source for source, size in (lengths or {}).items() if source and 0 < eager_limit < size]
    received = yield RecvAll(range(1, ranks), root=True)
    for source in sorted(big):
        yield Send(source, RENDEZVOUS_BYTES)
    if big:
        received |= yield RecvAll(frozenset(big), root=True)
    return {0: payload, **received}


def gather_binomial(rank: int, ranks: int, nbytes: int, payload: Any) -> Program:
    """Gather up a binomial tree; inner ranks pass on what they have as one message.

    Payloads and sizes travel as {rank: (nbytes, payload)}. Returns {rank: payload} at rank 0, None elsewhere.
    """
    held = {rank: (nbytes, payload)}
    mask = 1
    while mask < ranks:
        if rank & mask:
            yield Send(rank - mask, sum(size for size, _ in held.values()), held)
            return None
        if rank + mask < ranks:
            held |= yield Recv(rank + mask)
        mask <<= 1
    return {source: load for source, (_, load) in held.items()}


def gather_node_leaders(rank: int, ranks: int, nbytes: int, payload: Any, ranks_per_node: int) -> Program:
    """Gather at each node's first rank, which sends one message to rank 0, as a good MPI might do.

    Returns {rank: payload} at rank 0, None elsewhere.
    """
    leader = rank - rank % ranks_per_node
    held = {rank: (nbytes, payload)}
    if rank != leader:
        yield Send(leader, nbytes, held)
        return None
    mates = range(leader + 1, min(leader + ranks_per_node, ranks))
    if mates:
        for part in (yield RecvAll(mates)).values():
            held |= part
    if rank:
        yield Send(0, sum(size for size, _ in held.values()), held)
        return None
    leaders = range(ranks_per_node, ranks, ranks_per_node)
    if leaders:
        for part in (yield RecvAll(leaders, root=True)).values():
            held |= part
    return {source: load for source, (_, load) in held.items()}


def broadcast_binomial(rank: int, ranks: int, nbytes: int, payload: Any) -> Program:
    """Broadcast down a binomial tree, the largest subtree first. Returns the root's payload on all ranks.

    ``nbytes`` is the root's; below it the size travels with the payload.
    """
    mask = 1
    while mask < ranks and not rank & mask:
        mask <<= 1
    if rank:
        nbytes, payload = yield Recv(rank - mask)
    mask >>= 1
    while mask:
        if rank + mask < ranks:
            yield Send(rank + mask, nbytes, (nbytes, payload))
        mask >>= 1
    return payload


def reduce_recursive_doubling(
    rank: int, ranks: int, nbytes: int, value: int, combine: Callable[[int, int], int]
) -> Program:
    """All-reduce by recursive doubling; ranks beyond the largest power of two fold in and out."""
    core = 1 << (ranks.bit_length() - 1)
    extra = ranks - core
    if rank >= core:
        yield Send(rank - core, nbytes, value)
        return (yield Recv(rank - core))
    if rank < extra:
        value = combine(value, (yield Recv(rank + core)))
    mask = 1
    while mask < core:
        yield Send(rank ^ mask, nbytes, value)
        value = combine(value, (yield Recv(rank ^ mask)))
        mask <<= 1
    if rank < extra:
        yield Send(rank + core, nbytes, value)
    return value


def reduce_ring(rank: int, ranks: int, nbytes: int, value: int, combine: Callable[[int, int], int]) -> Program:
    """All-reduce round a ring with 2 (ranks - 1) messages, each of which waits for the one before.

    The vector goes down from the last rank to rank 0, which then has all of it, and from there round once more. This is
    what gloo's ring does with one or two words, whose other chunks are empty and not sent (docs/horovod.md 3.6).
    """
    above, below = (rank + 1) % ranks, (rank - 1) % ranks
    if rank < ranks - 1:
        value = combine(value, (yield Recv(above)))
    if rank:
        yield Send(below, nbytes, value)
        value = yield Recv(above)
    if rank != 1:
        yield Send(below, nbytes, value)
    return value


def reduce_in_network(ranks: int, value: int, combine: Callable[[int, int], int], cost_ns: int) -> Program:
    """All-reduce by the switches: all ranks have the result ``cost_ns`` after the last rank handed in its part."""
    return (yield Combine(ranks, value, combine, cost_ns))


def star_gather(
    rank: int, ranks: int, nbytes: int, payload: Any, work: Callable[[Any], int], own_work_ns: int
) -> Program:
    """``point-to-point``: rank 0 counts its own requests, then serves each message as it arrives."""
    if rank:
        yield Send(0, nbytes, payload)
        return None
    yield Work(own_work_ns)
    received = yield RecvAll(range(1, ranks), work=work)
    return {0: payload, **received}


def star_broadcast(rank: int, ranks: int, nbytes: int, payload: Any) -> Program:
    """``point-to-point``: rank 0 answers every worker, one after the other."""
    if rank:
        return (yield Recv(0))
    for target in range(1, ranks):
        yield Send(target, nbytes, payload)
    return payload


def tree_collect(children: tuple[int, ...]) -> Program:
    """``hierarchical``: an inner node receives its children's lists. Returns {child: payload}."""
    return (yield RecvAll(children))


def tree_send(parent: int, nbytes: int, payload: Any) -> Program:
    """``hierarchical``: a node sends one merged list to its parent."""
    yield Send(parent, nbytes, payload)


def tree_broadcast(
    parent: int | None, children: tuple[int, ...], nbytes: int, payload: Any
) -> Program:
    """``hierarchical``: broadcast down the same tree, children ascending. Returns the root's payload."""
    if parent is not None:
        nbytes, payload = yield Recv(parent)
    for child in children:
        yield Send(child, nbytes, (nbytes, payload))
    return payload
