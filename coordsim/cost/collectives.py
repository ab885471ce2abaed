"""Duration of an allreduce of gradients: ring, tree, NCCL's choice of the two, and hierarchical.

All values are integers in ns, rounded up once per message (docs/semantics.md 1.1). The models are alpha-beta models
with NCCL's own tables (:mod:`coordsim.cost.nccl`). For each algorithm the fastest of the protocols LL, LL128 and Simple
counts. ``ranks`` fill nodes one after the other; where the last node is not full, the fullest one counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from coordsim.cost.nccl import Algorithm, Protocol, floor_log2, protocols, selection_248
from coordsim.scenario.model import DataNetwork

_NS = 1_000_000_000


def allreduce_ns(nbytes: int, ranks: int, data: DataNetwork, ranks_per_node: int) -> int:
    """Duration in ns of one allreduce of ``nbytes`` (a rank's buffer) over ``ranks`` ranks; >= 1.

    - ``ring``: base + 2(n-1) hops + 2(n-1)/n x bytes / bus bandwidth. 2.5.6 counts every hop as the slowest;
      2.7.8 counts 2(nodes-1) of them on the network, the others inside nodes.
    - ``nccl-tree``: base + 2((ranks a node - 1) NVLink hops + floor(log2(nodes)) network hops)
      + 2 x bytes / (``tree_bandwidth_percent`` of the bus bandwidth).
    - ``nccl``: the one that :func:`nccl_choice` names.
    - ``hop_latency_percent`` scales every hop of a job over several nodes, but not those inside the node of
      ``hierarchical``.
    - ``hierarchical``: reduce-scatter and allgather inside the node (a ring over NVLink), between them an
      allreduce across nodes: the volume of a ring at the node's bandwidth with a tree's latency (Horovod's
      NCCLHierarchicalAllreduce; its copies to and from the host are not modelled). On one node there is no
      middle part.

    Source: NCCL ``src/graph/tuning.cc``. The bus bandwidth is one number, inside a node and across nodes.

    Raises:
        ValueError: fewer than 2 ranks (one rank has no collectives), or a negative size.
    """
    return _allreduce_ns(nbytes, ranks, data, ranks_per_node)


def nccl_choice(nbytes: int, ranks: int, data: DataNetwork, ranks_per_node: int) -> Algorithm:
    """Return the algorithm that NCCL takes for ``nbytes``, whatever ``data.allreduce`` says.

    2.5.6 and 2.7.8 take the faster by their own tables (the ring on a tie). 2.4.8 uses its threshold, which assumes
    other latencies than the 2.5.6 table that times it, so that with 2.4.8 a message just above the threshold can be
    faster than one below. 2.2.12 has only the ring.
    """
    if data.nccl == "2.2.12":
        return "ring"
    job = _Job.of(ranks, ranks_per_node)
    if data.nccl == "2.4.8":
        return selection_248(nbytes, ranks, job.nodes, data.bus_bandwidth_Bps, _tree_Bps(data))
    return "tree" if _tree_ns(nbytes, job, data) < _ring_ns(nbytes, job, data) else "ring"


@dataclass(frozen=True, slots=True)
class _Job:
    ranks: int
    nodes: int
    local: int
    """Ranks on the fullest node."""

    @staticmethod
    def of(ranks: int, ranks_per_node: int) -> _Job:
        if ranks < 2:
            raise ValueError(f"a collective needs at least 2 ranks, got {ranks}")
        if ranks_per_node < 1:
            raise ValueError(f"a node needs at least 1 rank, got {ranks_per_node}")
        return _Job(ranks, -(-ranks // ranks_per_node), min(ranks, ranks_per_node))


@lru_cache(maxsize=1 << 16)
def _allreduce_ns(nbytes: int, ranks: int, data: DataNetwork, ranks_per_node: int) -> int:
    if nbytes < 0:
        raise ValueError(f"a message has at least 0 bytes, got {nbytes}")
    job = _Job.of(ranks, ranks_per_node)
    if data.allreduce == "hierarchical":
        return max(1, _hierarchical_ns(nbytes, job, data))
    tree = data.allreduce == "nccl-tree"
    if data.allreduce == "nccl":
        tree = nccl_choice(nbytes, ranks, data, ranks_per_node) == "tree"
    return max(1, _tree_ns(nbytes, job, data) if tree else _ring_ns(nbytes, job, data))


def _rows(data: DataNetwork, algorithm: Algorithm) -> tuple[Protocol, ...]:
    return protocols(data.nccl, algorithm, data.hop_latency_percent)


def _xfer_ns(numerator: int, denominator: int) -> int:
    """Return ceil(numerator / denominator s) in ns, which is the only rounding of a message."""
    return -(-numerator * _NS // denominator)


def _tree_Bps(data: DataNetwork) -> int:  # noqa: N802
    return data.bus_bandwidth_Bps * data.tree_bandwidth_percent // 100


def _ring_ns(nbytes: int, job: _Job, data: DataNetwork) -> int:
    hops, across = 2 * (job.ranks - 1), 2 * (job.nodes - 1)
    volume, bandwidth = hops * nbytes, job.ranks * data.bus_bandwidth_Bps
    return min(
        p.base_ns
        + (hops - across) * p.local_hop_ns(job.nodes)
        + across * p.network_ns
        + _xfer_ns(volume * p.share[1], bandwidth * p.share[0])
        for p in _rows(data, "ring")
    )


def _tree_ns(nbytes: int, job: _Job, data: DataNetwork) -> int:
    bandwidth = data.bus_bandwidth_Bps * data.tree_bandwidth_percent
    return min(
        p.base_ns
        + 2 * ((job.local - 1) * p.local_hop_ns(job.nodes) + floor_log2(job.nodes) * p.network_ns)
        + _xfer_ns(2 * nbytes * 100 * p.share[1], bandwidth * p.share[0])
        for p in _rows(data, "tree")
    )


def _hierarchical_ns(nbytes: int, job: _Job, data: DataNetwork) -> int:
    return 2 * _half_ring_ns(nbytes, job.local, data) + _across_nodes_ns(nbytes, job.nodes, data)


def _half_ring_ns(nbytes: int, local: int, data: DataNetwork) -> int:
    """Return the time of a reduce-scatter, or allgather, over the ``local`` ranks of a node.

    It has n - 1 hops and moves (n-1)/n of the bytes.
    """
    if local == 1:
        return 0
    return min(
        p.base_ns
        + (local - 1) * p.nvlink_ns
        + _xfer_ns((local - 1) * nbytes * p.share[1], local * data.nvlink_bandwidth_Bps * p.share[0])
        for p in _rows(data, "ring")
    )


def _across_nodes_ns(nbytes: int, nodes: int, data: DataNetwork) -> int:
    """Return the time of the allreduce of every local rank's share; together a node's ranks move ``nbytes``."""
    if nodes == 1:
        return 0
    volume, bandwidth = 2 * (nodes - 1) * nbytes, nodes * data.network_bandwidth_Bps
    rings = _rows(data, "ring")
    return min(
        tree.base_ns
        + 2 * floor_log2(nodes) * tree.network_ns
        + _xfer_ns(volume * ring.share[1], bandwidth * ring.share[0])
        for tree, ring in zip(_rows(data, "tree"), rings, strict=True)
    )
