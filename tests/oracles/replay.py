"""A replay of GOAL schedules under LogGP with a heap: no SimPy, no program, none of the engines' code."""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from coordsim.cost.goal import Goal, GoalOp
from coordsim.cost.network import LogGP


def transfer_ns(nbytes: int, rate: int) -> int:
    """Whole ns, rounded up."""
    return (nbytes * 10**9 + rate - 1) // rate


@dataclass(slots=True)
class _Rank:
    ops: tuple[GoalOp, ...]
    missing: list[int]
    then: list[list[int]]
    ready: list[int] = field(default_factory=list)
    """Sends and calcs that may run; a heap by place."""
    expected: dict[tuple[int, int], deque[int]] = field(default_factory=lambda: defaultdict(deque))
    """(source, tag) -> receives that may run, in the schedule's order."""
    come: list[tuple[int, int, int]] = field(default_factory=list)
    """(arrival, source, tag) of messages that nobody has received yet; a heap."""
    free: int = 0
    done: int = 0


def replay(goal: Goal, net: LogGP) -> npt.NDArray[np.int64]:
    """When each rank has finished, ns, shape [rank]. Raises AssertionError when a rank cannot go on."""
    ranks = [_start(ops) for ops in goal.ranks]
    events = [(0, rank) for rank in range(len(ranks))]  # look at this rank at this time
    while events:
        now, at = heapq.heappop(events)
        me = ranks[at]
        if me.free > now:
            continue
        place = _next(me, now)
        if place is None:
            continue
        op = me.ops[place]
        if op.kind == "calc":
            me.free = now + op.size
        elif op.kind == "recv":
            me.free = now + net.overhead_ns
        else:
            near = at // net.ranks_per_node == op.peer // net.ranks_per_node
            latency = net.local_latency_ns if near else net.latency_ns
            wire = transfer_ns(op.size, net.local_bandwidth_Bps if near else net.bandwidth_Bps)
            arrival = now + net.overhead_ns + latency + wire
            heapq.heappush(ranks[op.peer].come, (arrival, at, op.tag))
            heapq.heappush(events, (arrival, op.peer))
            me.free = now + max(net.overhead_ns, wire)
        me.done += 1
        for later in me.then[place]:
            me.missing[later] -= 1
            if not me.missing[later]:
                _release(me, later)
        heapq.heappush(events, (me.free, at))
    for rank, me in enumerate(ranks):
        assert me.done == len(me.ops), f"rank {rank} stops after {me.done} of {len(me.ops)} operations"
        assert not me.come, f"rank {rank} leaves messages behind"
    return np.array([me.free for me in ranks], dtype=np.int64)


def _start(ops: tuple[GoalOp, ...]) -> _Rank:
    me = _Rank(ops, [len(op.requires) for op in ops], [[] for _ in ops])
    for place, op in enumerate(ops):
        for before in op.requires:
            me.then[before].append(place)
        if not op.requires:
            _release(me, place)
    return me


def _release(me: _Rank, place: int) -> None:
    op = me.ops[place]
    if op.kind == "recv":
        me.expected[op.peer, op.tag].append(place)
    else:
        heapq.heappush(me.ready, place)


def _next(me: _Rank, now: int) -> int | None:
    """What a free CPU does now: what needs no message first, then what came first."""
    if me.ready:
        return heapq.heappop(me.ready)
    for arrival, source, tag in sorted(each for each in me.come if each[0] <= now):
        if me.expected.get((source, tag)):
            me.come.remove((arrival, source, tag))
            heapq.heapify(me.come)
            return me.expected[source, tag].popleft()
    return None
