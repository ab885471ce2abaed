"""Closed forms of the exchange programs (``coordsim.cost.programs``), over arrays of shape [rank].

Every function takes the time at which each rank's CPU is free and updates it in place to the time at which it is
free after the exchange. Integer (max, +) only, so the results equal the event engine's to the nanosecond.
``net``: the links, as :class:`Network`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from coordsim.cost.network import RENDEZVOUS_BYTES, LogGP
from coordsim.simulate.vector.kernels import compiled

Int64 = npt.NDArray[np.int64]

_NS = 1_000_000_000


class Network(NamedTuple):
    """Links as the kernels take them; :class:`coordsim.cost.network.LogGP` says what each number is."""

    latency_ns: int
    overhead_ns: int
    bandwidth_Bps: int
    local_latency_ns: int
    local_bandwidth_Bps: int
    root_nic_Bps: int
    ranks_per_node: int

    @classmethod
    def of(cls, network: LogGP) -> Network:
        """The numbers of ``network``."""
        return cls(
            network.latency_ns, network.overhead_ns, network.bandwidth_Bps, network.local_latency_ns,
            network.local_bandwidth_Bps, network.root_nic_Bps, network.ranks_per_node,
        )  # fmt: skip


@compiled
def _xfer(nbytes: int, bandwidth: int) -> int:
    return int((nbytes * _NS + bandwidth - 1) // bandwidth)


@compiled
def _link(net: Network, source: int, target: int, nbytes: int) -> tuple[int, int]:
    """(CPU busy at the sender, flight from the start of the send to arrival)."""
    if source // net.ranks_per_node == target // net.ranks_per_node:
        wire, latency = _xfer(nbytes, net.local_bandwidth_Bps), net.local_latency_ns
    else:
        wire, latency = _xfer(nbytes, net.bandwidth_Bps), net.latency_ns
    return max(net.overhead_ns, wire), net.overhead_ns + latency + wire


@compiled
def served(free: int, arrivals: Int64, service: Int64) -> int:
    """When a server, free at ``free``, has served all messages in arrival order.

    max(free + sum c, max_j(A_j + sum of c_i over A_i >= A_j)): the order among ties is irrelevant. Buckets
    narrower than the shortest service keep it O(N): inside one, the earliest arrival decides.
    """
    count = arrivals.size
    if count == 0:
        return int(free)
    first, last, shortest, total = arrivals[0], arrivals[0], service[0], 0
    for i in range(count):
        first, last = min(first, arrivals[i]), max(last, arrivals[i])
        shortest = min(shortest, service[i])
        total += service[i]
    done = max(free, first) + total
    if last - first <= shortest:  # never idle once it has begun
        return int(done)
    shift = 0
    while (np.int64(2) << shift) <= shortest:
        shift += 1
    buckets = ((last - first) >> shift) + 1
    if shortest < 1 or buckets > 4 * count + 1024:
        order = np.argsort(arrivals)
        clock = free
        for i in order:
            clock = max(clock, arrivals[i]) + service[i]
        return int(clock)
    earliest = np.full(buckets, last, np.int64)
    load = np.zeros(buckets, np.int64)
    for i in range(count):
        bucket = (arrivals[i] - first) >> shift
        load[bucket] += service[i]
        earliest[bucket] = min(earliest[bucket], arrivals[i])
    behind = 0
    for bucket in range(buckets - 1, -1, -1):
        behind += load[bucket]
        if load[bucket] > 0:
            done = max(done, earliest[bucket] + behind)
    return int(max(done, free + total))


@compiled
def gather_linear(free: Int64, nbytes: Int64, eager_limit: int, net: Network) -> None:
    """Everybody to rank 0; above the eager limit by rendezvous, one after the other."""
    ranks = free.size
    arrivals = np.empty(ranks - 1, np.int64)
    service = np.empty(ranks - 1, np.int64)
    asking = 0
    busy, flight, nic, last_bytes, last_local = 0, 0, 0, -1, False
    for r in range(1, ranks):
        size = nbytes[r]
        if 0 < eager_limit < size:
            size = RENDEZVOUS_BYTES
            asking += 1
        local = r < net.ranks_per_node
        if size != last_bytes or local != last_local:
            busy, flight = _link(net, r, 0, size)
            nic = max(net.overhead_ns, _xfer(size, net.root_nic_Bps))
            last_bytes, last_local = size, local
        arrivals[r - 1] = free[r] + flight
        service[r - 1] = nic
        free[r] += busy
    free[0] = served(free[0], arrivals, service)
    if asking == 0:
        return
    # By rendezvous: rank 0 answers in rank order, then takes in lists as they come.
    arrivals = np.empty(asking, np.int64)
    service = np.empty(asking, np.int64)
    root, at = free[0], 0
    for r in range(1, ranks):
        if nbytes[r] > eager_limit:
            busy, flight = _link(net, 0, r, RENDEZVOUS_BYTES)
            free[r] = max(free[r], root + flight) + net.overhead_ns
            root += busy
            busy, flight = _link(net, r, 0, nbytes[r])
            arrivals[at] = free[r] + flight
            service[at] = max(net.overhead_ns, _xfer(nbytes[r], net.root_nic_Bps))
            free[r] += busy
            at += 1
    free[0] = served(root, arrivals, service)


@compiled
def gather_binomial(free: Int64, nbytes: Int64, net: Network) -> None:
    """Up a binomial tree, sizes adding up on the way."""
    ranks = free.size
    held = nbytes.copy()
    mask = 1
    while mask < ranks:
        for r in range(mask, ranks, 2 * mask):
            busy, flight = _link(net, r, r - mask, held[r])
            arrival = free[r] + flight
            free[r] += busy
            held[r - mask] += held[r]
            free[r - mask] = max(free[r - mask], arrival) + net.overhead_ns
        mask *= 2


@compiled
def gather_node_leaders(free: Int64, nbytes: Int64, net: Network) -> None:
    """Each node's first rank collects its node, then sends one message to rank 0."""
    ranks, per_node = free.size, net.ranks_per_node
    nodes = (ranks + per_node - 1) // per_node
    arrivals = np.empty(max(nodes - 1, 1), np.int64)
    service = np.empty(max(nodes - 1, 1), np.int64)
    for node in range(nodes):
        leader = node * per_node
        last = min(leader + per_node, ranks)
        mates = np.empty(last - leader - 1, np.int64)
        held = nbytes[leader]
        for r in range(leader + 1, last):
            busy, flight = _link(net, r, leader, nbytes[r])
            mates[r - leader - 1] = free[r] + flight
            free[r] += busy
            held += nbytes[r]
        free[leader] = served(free[leader], mates, np.full(mates.size, net.overhead_ns, np.int64))
        if node:
            busy, flight = _link(net, leader, 0, held)
            arrivals[node - 1] = free[leader] + flight
            service[node - 1] = max(net.overhead_ns, _xfer(held, net.root_nic_Bps))
            free[leader] += busy
    free[0] = served(free[0], arrivals[: nodes - 1], service[: nodes - 1])


@compiled
def broadcast_binomial(free: Int64, nbytes: int, net: Network) -> None:
    """Down a binomial tree, the largest subtree first."""
    ranks = free.size
    remote, local = _link(net, 0, net.ranks_per_node, nbytes), _link(net, 0, 0, nbytes)
    mask = 1
    while mask < ranks:
        mask *= 2
    mask //= 2
    while mask:
        for r in range(0, ranks - mask, 2 * mask):
            busy, flight = local if r // net.ranks_per_node == (r + mask) // net.ranks_per_node else remote
            free[r + mask] = max(free[r + mask], free[r] + flight) + net.overhead_ns
            free[r] += busy
        mask //= 2


@compiled
def reduce_recursive_doubling(free: Int64, nbytes: int, net: Network) -> None:
    """All-reduce; ranks beyond the largest power of two fold in and out."""
    ranks, overhead = free.size, net.overhead_ns
    remote, local = _link(net, 0, net.ranks_per_node, nbytes), _link(net, 0, 0, nbytes)
    core = 1
    while core * 2 <= ranks:
        core *= 2
    extra = ranks - core
    for r in range(extra):
        busy, flight = local if r // net.ranks_per_node == (r + core) // net.ranks_per_node else remote
        free[r] = max(free[r], free[r + core] + flight) + overhead
        free[r + core] += busy
    after = np.empty(core, np.int64)
    mask = 1
    while mask < core:
        for base in range(0, core, 2 * mask):
            for r in range(base, base + mask):
                near = r // net.ranks_per_node == (r + mask) // net.ranks_per_node
                busy = local[0] if near else remote[0]
                flight = local[1] if near else remote[1]
                one, two = free[r], free[r + mask]
                after[r] = max(one + busy, two + flight) + overhead
                after[r + mask] = max(two + busy, one + flight) + overhead
        free[:core] = after
        mask *= 2
    for r in range(extra):
        busy, flight = local if r // net.ranks_per_node == (r + core) // net.ranks_per_node else remote
        free[r + core] = max(free[r + core], free[r] + flight) + overhead
        free[r] += busy


@compiled
def reduce_ring(free: Int64, nbytes: int, net: Network) -> None:
    """All-reduce: down from the last rank to rank 0, and round once more."""
    ranks, overhead = free.size, net.overhead_ns
    remote, local = _link(net, 0, net.ranks_per_node, nbytes), _link(net, 0, 0, nbytes)
    for r in range(ranks - 2, -1, -1):
        busy, flight = local if r // net.ranks_per_node == (r + 1) // net.ranks_per_node else remote
        free[r] = max(free[r], free[r + 1] + flight) + overhead
        free[r + 1] += busy
    above = 0
    for r in range(ranks - 1, 0, -1):
        busy, flight = local if r // net.ranks_per_node == above // net.ranks_per_node else remote
        free[r] = max(free[r], free[above] + flight) + overhead
        free[above] += busy
        above = r


@compiled
def reduce_in_network(free: Int64, cost: int) -> None:
    """Everybody has the result ``cost`` after the last."""
    free[:] = free.max() + cost


@compiled
def star_gather(free: Int64, nbytes: Int64, service: Int64, net: Network) -> None:
    """Everybody to rank 0, which serves each message as it arrives; ``service`` [rank] includes o."""
    ranks = free.size
    arrivals = np.empty(ranks - 1, np.int64)
    for r in range(1, ranks):
        busy, flight = _link(net, r, 0, nbytes[r])
        arrivals[r - 1] = free[r] + flight
        free[r] += busy
    free[0] = served(free[0], arrivals, service[1:])


@compiled
def star_broadcast(free: Int64, nbytes: int, net: Network) -> None:
    """Rank 0 to every worker, one after the other."""
    remote, local = _link(net, 0, net.ranks_per_node, nbytes), _link(net, 0, 0, nbytes)
    for r in range(1, free.size):
        busy, flight = local if r < net.ranks_per_node else remote
        free[r] = max(free[r], free[0] + flight) + net.overhead_ns
        free[0] += busy


@compiled
def _sort(values: Int64, count: int) -> None:
    """Sort the first ``count`` values, few of them by insertion: a call to sort costs more than a few children."""
    if count > 32:
        values[:count].sort()
        return
    for i in range(1, count):
        value, at = values[i], i
        while at > 0 and values[at - 1] > value:
            values[at] = values[at - 1]
            at -= 1
        values[at] = value


@compiled
def tree_up(free: Int64, nbytes: Int64, work: Int64, radix: int, net: Network) -> None:
    """Up a heap-ordered tree: take in the children, ``work`` [rank], send one message of ``nbytes`` [rank]."""
    ranks, overhead, per_node = free.size, net.overhead_ns, net.ranks_per_node
    batch = np.empty(radix, np.int64)
    known = np.full(256, -1, np.int64)  # link costs of the few sizes in use
    costs = np.empty((256, 4), np.int64)
    for node in range((ranks - 2) // radix, -1, -1):
        first = radix * node + 1
        count = min(first + radix, ranks) - first
        near_from = node // per_node * per_node
        earliest, latest = np.iinfo(np.int64).max, np.iinfo(np.int64).min
        for i in range(count):
            child = first + i
            slot = nbytes[child] & 255
            if known[slot] != nbytes[child]:
                known[slot] = nbytes[child]
                costs[slot, 0], costs[slot, 1] = _link(net, 0, per_node, nbytes[child])
                costs[slot, 2], costs[slot, 3] = _link(net, 0, 0, nbytes[child])
            column = 2 if near_from <= child < near_from + per_node else 0
            batch[i] = free[child] + costs[slot, column + 1]
            free[child] += costs[slot, column]
            earliest, latest = min(earliest, batch[i]), max(latest, batch[i])
        clock = max(free[node], earliest) + count * overhead
        if latest - earliest > overhead:  # else the server is never idle once it has begun
            clock = free[node]
            _sort(batch, count)
            for i in range(count):
                clock = max(clock, batch[i]) + overhead
        free[node] = clock + work[node]


@compiled
def tree_down(free: Int64, nbytes: int, radix: int, net: Network) -> None:
    """Down the same tree, children ascending."""
    ranks, overhead, per_node = free.size, net.overhead_ns, net.ranks_per_node
    remote, local = _link(net, 0, per_node, nbytes), _link(net, 0, 0, nbytes)
    for node in range((ranks - 2) // radix + 1):
        near_from = node // per_node * per_node
        clock = free[node]
        for child in range(radix * node + 1, min(radix * node + 1 + radix, ranks)):
            busy, flight = local if near_from <= child < near_from + per_node else remote
            free[child] = max(free[child], clock + flight) + overhead
            clock += busy
        free[node] = clock


@compiled
def subtree_sum(values: Int64, radix: int) -> None:
    """``values`` [rank], in place: the sum over each node's subtree, its own included."""
    ranks = values.size
    for node in range((ranks - 2) // radix, -1, -1):
        for child in range(radix * node + 1, min(radix * node + 1 + radix, ranks)):
            values[node] += values[child]


@compiled
def subtree_minimum(counts: npt.NDArray[np.int32], radix: int, least: npt.NDArray[np.int32]) -> None:
    """``least`` [rank]: the smallest count in each node's subtree."""
    ranks = counts.size
    least[:] = counts
    for node in range((ranks - 2) // radix, -1, -1):
        smallest = least[node]
        for child in range(radix * node + 1, min(radix * node + 1 + radix, ranks)):
            smallest = min(smallest, least[child])
        least[node] = smallest
