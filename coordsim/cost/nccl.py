"""NCCL's own numbers: the latency and bandwidth tables that its tuner compares algorithms with.

Sources (READ): ``src/graph/tuning.cc`` of 2.5.6, tables and rules (a fork of 2.7 for the 2.7.8 rows: its
network rows are those of docs/published.md 5, its NVLink rows and the base of Ring/LL128 are newer than the 2.5.6 ones
listed there), and ``ncclTreeThreshold`` in ``src/init.cu`` of 2.4. Left out, because they would
make a larger message or job *faster*: 2.7's ``treeCorrectionFactor``, the ring's 1.9x plateau, LL128's
other factors for one node (tree) and for one rank a node (ring). Left out, because a
:class:`~coordsim.scenario.model.DataNetwork` states its bandwidths itself: all caps in GB/s.

LL128 is for Volta on NVLink alone ("Other cases are not tested", 2.5.6's tuner). 2.2.12 stands for 2.0 to 2.3, whose
source is not public: rings alone, LL and Simple, and for times 2.5.6's rows of GPUs on PCI.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

Algorithm = Literal["ring", "tree"]
Version = Literal["2.2.12", "2.4.8", "2.5.6", "2.7.8"]

TREE_HOP_NS = 15_000
"""2.4's ``treelatinter``: one level of the tree between nodes."""
TREE_LOCAL_NS = 4_000
"""2.4's ``treelatintra``: one more GPU in the chain inside a node."""
RING_HOP_NS = 6_000
"""2.4's ``ringlatinter``: one more rank in the ring."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """One row of the tables: the cost of an allreduce with one wire protocol. Times are ns."""

    name: Literal["LL", "LL128", "Simple"]
    base_ns: int
    nvlink_ns: int
    """A hop inside the node, if the whole job is in one node."""
    nvlink_among_nodes_ns: int
    """A hop inside a node, if the job spans several nodes."""
    network_ns: int
    """A hop between nodes."""
    share: tuple[int, int]
    """Share of the algorithm's bandwidth that carries data, as a fraction (numerator, denominator)."""

    def local_hop_ns(self, nodes: int) -> int:
        """Return the time of a hop inside a node, ns, for a job on ``nodes`` nodes."""
        return self.nvlink_ns if nodes == 1 else self.nvlink_among_nodes_ns


_RING_PCI = (  # 2.5.6's, without LL128
    Protocol("LL", 3_600, 1_000, 900, 900, (1, 4)),
    Protocol("Simple", 8_400, 5_700, 6_600, 6_600, (1, 1)),
)
_TREE_PCI = (  # NCCL of that age had none: for what else crosses nodes as a tree does (hierarchical)
    Protocol("LL", 4_400, 1_000, 1_000, 5_000, (1, 3)),
    Protocol("Simple", 0, 28_000, 28_000, 50_000, (1, 1)),
)
_RING_256 = (  # every one of the 2(n-1) hops counts as the slowest (``nsteps*lat``): among nodes = network
    Protocol("LL", 3_600, 400, 900, 900, (1, 4)),
    Protocol("LL128", 3_600, 2_500, 2_500, 2_500, (120, 128)),
    Protocol("Simple", 8_400, 5_700, 6_600, 6_600, (1, 1)),
)
_TREE_256 = (
    Protocol("LL", 4_400, 500, 500, 5_000, (1, 3)),
    Protocol("LL128", 4_400, 1_900, 1_900, 7_500, (7, 9)),
    Protocol("Simple", 0, 28_000, 28_000, 50_000, (1, 1)),
)
_RING_278 = (  # hops by their link; LL's NVLink hop is 1.8x among nodes
    Protocol("LL", 3_600, 470, 846, 2_700, (1, 4)),
    Protocol("LL128", 10_000, 1_900, 1_900, 4_000, (23, 25)),
    Protocol("Simple", 8_400, 3_400, 3_400, 9_600, (1, 1)),
)
_TREE_278 = (
    Protocol("LL", 4_400, 520, 936, 5_000, (5, 19)),
    Protocol("LL128", 4_400, 1_200, 1_200, 8_500, (183, 200)),
    Protocol("Simple", 0, 28_000, 28_000, 50_000, (1, 1)),
)

PROTOCOLS: dict[tuple[Version, Algorithm], tuple[Protocol, ...]] = {
    ("2.2.12", "ring"): _RING_PCI,
    ("2.2.12", "tree"): _TREE_PCI,
    ("2.4.8", "ring"): _RING_256,  # 2.4 has no table of times: 2.5.6's, the nearest
    ("2.4.8", "tree"): _TREE_256,
    ("2.5.6", "ring"): _RING_256,
    ("2.5.6", "tree"): _TREE_256,
    ("2.7.8", "ring"): _RING_278,
    ("2.7.8", "tree"): _TREE_278,
}


@lru_cache
def protocols(version: Version, algorithm: Algorithm, hop_percent: int = 100) -> tuple[Protocol, ...]:
    """Return the rows of ``version``.

    Hops of jobs over several nodes take ``hop_percent`` % of the table's value, rounded down.
    """
    return tuple(
        replace(
            row,
            nvlink_among_nodes_ns=row.nvlink_among_nodes_ns * hop_percent // 100,
            network_ns=row.network_ns * hop_percent // 100,
        )
        for row in PROTOCOLS[version, algorithm]
    )


def floor_log2(n: int) -> int:
    """Return the base-2 logarithm, truncated, as NCCL's ``log2i`` does. ``n`` >= 1."""
    return n.bit_length() - 1


def selection_latency_ns(algorithm: Algorithm, ranks: int, nodes: int, *, truncated: bool = True) -> int:
    """Latency in ns that NCCL 2.4 *chooses* by (``ncclTreeThreshold``); not a prediction of a time.

    ring 6 us x (ranks - 1); tree 15 us x log2(nodes) + 4 us x (ranks // nodes - 1). NCCL's own ``log2``
    truncates; ``truncated=False`` takes the true logarithm, floored to ns, as docs/published.md V16 does (27,600
    ranks on 4,600 nodes: 203 us with it, 200 us in NCCL; the ring 166 ms).
    """
    if algorithm == "ring":
        return RING_HOP_NS * (ranks - 1)
    levels_ns = TREE_HOP_NS * floor_log2(nodes) if truncated else floor_log2(nodes**TREE_HOP_NS)
    return levels_ns + TREE_LOCAL_NS * (ranks // nodes - 1)


def selection_248(nbytes: int, ranks: int, nodes: int, ring_Bps: int, tree_Bps: int) -> Algorithm:
    """Return the algorithm that NCCL 2.4 runs for ``nbytes``: the tree up to ``treeThreshold``, else the ring.

    ``ring_Bps`` takes the place of its 5 GB/s a channel; ``tree_Bps`` doubles at two nodes, as there.
    """
    gain_ns = selection_latency_ns("ring", ranks, nodes) - selection_latency_ns("tree", ranks, nodes)
    if nodes < 2 or gain_ns <= 0:
        return "ring"
    tree = tree_Bps * 2 if nodes == 2 else tree_Bps
    lost = ring_Bps - tree
    if lost <= 0:
        return "tree"
    return "tree" if nbytes * lost * 1_000_000_000 <= ring_Bps * tree * gain_ns else "ring"
