"""Data collectives: limits, monotony, NCCL's choice, docs/published.md V16."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordsim.cost.collectives import allreduce_ns, nccl_choice
from coordsim.cost.copies import copy_ns
from coordsim.cost.nccl import Version, selection_248, selection_latency_ns
from coordsim.scenario.model import DataNetwork

GB = 1_000_000_000
MIB = 1 << 20
VERSIONS = get_args(Version)
ALGORITHMS = ("ring", "nccl-tree", "nccl", "hierarchical")
SUMMIT = DataNetwork(
    allreduce="nccl",
    nccl="2.7.8",
    bus_bandwidth_Bps=20 * GB,
    tree_bandwidth_percent=75,
    nvlink_bandwidth_Bps=63 * GB,
    network_bandwidth_Bps=21 * GB,
    copy_bandwidth_Bps=300 * GB,
    copy_launch_ns=4_000,
    copy_batch=160,
)

versions = pytest.mark.parametrize("version", VERSIONS)
algorithms = pytest.mark.parametrize("algorithm", ALGORITHMS)
ranks_strategy = st.integers(2, 30_000)
bytes_strategy = st.integers(0, 2 * GB)


def network(algorithm: str, version: str = "2.7.8") -> DataNetwork:
    return replace(SUMMIT, allreduce=algorithm, nccl=version)  # type: ignore[arg-type]


def allreduce(algorithm: str, nbytes: int, ranks: int, version: str = "2.7.8") -> int:
    return allreduce_ns(nbytes, ranks, network(algorithm, version), 6)


@versions
@algorithms
@given(nbytes=bytes_strategy, ranks=ranks_strategy, more=st.integers(1, MIB))
def test_monotone_in_bytes(version: str, algorithm: str, nbytes: int, ranks: int, more: int) -> None:
    if (algorithm, version) == ("nccl", "2.4.8"):
        return  # chosen by one model, timed by another: see the test below
    assert allreduce(algorithm, nbytes, ranks, version) <= allreduce(algorithm, nbytes + more, ranks, version)


@versions
@pytest.mark.parametrize("algorithm", ["ring", "nccl-tree", "hierarchical"])
@given(nbytes=bytes_strategy, ranks=ranks_strategy, more=st.sampled_from([1, 2, 5, 6, 1_000]))
def test_monotone_in_ranks(version: str, algorithm: str, nbytes: int, ranks: int, more: int) -> None:
    assert allreduce(algorithm, nbytes, ranks, version) <= allreduce(algorithm, nbytes, ranks + more, version)


@versions
@pytest.mark.parametrize("algorithm", ["ring", "nccl-tree", "hierarchical"])
@pytest.mark.parametrize("per_node", [1, 2, 4, 6])
@pytest.mark.parametrize("nbytes", [0, 4_096, MIB, 1 << 30])
def test_no_step_down_where_a_node_fills_up(version: str, algorithm: str, per_node: int, nbytes: int) -> None:
    data = network(algorithm, version)
    durations = [allreduce_ns(nbytes, ranks, data, per_node) for ranks in range(2, 70)]
    assert durations == sorted(durations)


@versions
@algorithms
@given(nbytes=bytes_strategy, ranks=ranks_strategy)
def test_an_int_of_at_least_1_ns(version: str, algorithm: str, nbytes: int, ranks: int) -> None:
    duration = allreduce(algorithm, nbytes, ranks, version)
    assert type(duration) is int
    assert duration >= 1


@versions
@given(nbytes=bytes_strategy, ranks=ranks_strategy)
def test_nccl_takes_what_it_names(version: str, nbytes: int, ranks: int) -> None:
    choice = nccl_choice(nbytes, ranks, network("nccl", version), 6)
    named = "ring" if choice == "ring" else "nccl-tree"
    assert allreduce("nccl", nbytes, ranks, version) == allreduce(named, nbytes, ranks, version)
    if version == "2.2.12":
        assert choice == "ring"
    elif version != "2.4.8":
        both = [allreduce(a, nbytes, ranks, version) for a in ("ring", "nccl-tree")]
        assert allreduce("nccl", nbytes, ranks, version) == min(both)


def test_248_can_choose_the_slower_because_it_selects_by_other_numbers() -> None:
    """4 MiB on 24 ranks: its 6 us ring hops call for the tree, whose bandwidth then costs more."""
    assert nccl_choice(4 * MIB, 24, network("nccl", "2.4.8"), 6) == "tree"
    assert allreduce("nccl", 4 * MIB, 24, "2.4.8") > allreduce("ring", 4 * MIB, 24, "2.4.8")


@pytest.mark.parametrize(
    ("version", "hops_ns"),
    [  # LL of 0 bytes at 12 ranks on 2 nodes, from the tables: 22 hops, 2 of them between nodes
        ("2.2.12", 22 * 900),
        ("2.4.8", 22 * 900),
        ("2.5.6", 22 * 900),
        ("2.7.8", 20 * 846 + 2 * 2_700),
    ],
)
def test_ring_latency_by_hand(version: str, hops_ns: int) -> None:
    assert allreduce("ring", 0, 12, version) == 3_600 + hops_ns


def test_before_24_a_large_message_goes_by_simple_and_its_latency_counts() -> None:
    """64 MiB on 512 GPUs, 4 a node, 2.5 GB/s: 8.4 us + 1,022 hops of 6.6 us + the bytes; LL128 would be faster."""
    data = replace(network("nccl", "2.2.12"), bus_bandwidth_Bps=2_500_000_000)
    exact = -(-1022 * 64 * MIB * GB // (512 * 2_500_000_000))
    assert allreduce_ns(64 * MIB, 512, data, 4) == 8_400 + 1022 * 6_600 + exact
    assert allreduce_ns(64 * MIB, 512, replace(data, nccl="2.5.6", allreduce="ring"), 4) < 8_400 + 1022 * 6_600 + exact


def test_hops_between_nodes_can_take_longer_than_the_table_says() -> None:
    ring, tree = (replace(network(name, "2.7.8"), hop_latency_percent=150) for name in ("ring", "nccl-tree"))
    assert allreduce_ns(0, 12, ring, 6) == 3_600 + 20 * 1_269 + 2 * 4_050
    assert allreduce_ns(0, 6, ring, 6) == allreduce("ring", 0, 6)  # one node
    assert allreduce_ns(0, 24, tree, 6) == 4_400 + 2 * (5 * 1_404 + 2 * 7_500)


@pytest.mark.parametrize(("version", "local_ns"), [("2.5.6", 500), ("2.7.8", 936)])
def test_tree_latency_by_hand(version: str, local_ns: int) -> None:
    """27,600 ranks are 4,600 nodes: 12 levels, as NCCL truncates."""
    assert allreduce("nccl-tree", 0, 27_600, version) == 4_400 + 2 * (5 * local_ns + 12 * 5_000)


def test_one_rounding_per_message() -> None:
    exact = Fraction(2 * 11 * 100_000_007 * GB, 12 * 20 * GB)  # Simple
    latency = 8_400 + 20 * 3_400 + 2 * 9_600
    assert allreduce("ring", 100_000_007, 12) == latency + -(-exact.numerator // exact.denominator)


@versions
@pytest.mark.parametrize("ranks", [2, 6, 7, 96, 1_000])
def test_ring_approaches_its_bandwidth(version: str, ranks: int) -> None:
    nbytes = 1 << 46
    ideal_ns = Fraction(2 * (ranks - 1) * nbytes, ranks * 20)
    assert 1 <= allreduce("ring", nbytes, ranks, version) / ideal_ns < 1.001


@versions
def test_tree_approaches_its_bandwidth(version: str) -> None:
    nbytes = 1 << 46
    ideal_ns = Fraction(2 * nbytes, 15)
    assert allreduce("nccl-tree", nbytes, 96, version) / ideal_ns == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("version", ["2.5.6", "2.7.8"])
def test_small_messages_on_many_nodes_take_the_tree_and_large_ones_the_ring(version: str) -> None:
    data = network("nccl", version)
    choices = [nccl_choice(1 << k, 96, data, 6) for k in range(10, 34)]
    assert (choices[0], choices[-1]) == ("tree", "ring")
    assert choices == sorted(choices, reverse=True), "one crossover"
    assert nccl_choice(64 * MIB, 27_600, data, 6) == "tree", "ring latency never pays there"


def test_no_crossover_when_the_tree_has_the_ring_s_bandwidth() -> None:
    data = replace(SUMMIT, tree_bandwidth_percent=200)
    assert nccl_choice(1 << 33, 96, data, 6) == "tree"


class TestSelection248:
    """``ncclTreeThreshold`` of NCCL 2.4."""

    def test_v16(self) -> None:
        """docs/published.md V16: 203 us against 166 ms at 27,600: derived with a true log2; the source truncates."""
        assert selection_latency_ns("ring", 27_600, 4_600) == pytest.approx(166e6, rel=0.01)
        published = selection_latency_ns("tree", 27_600, 4_600, truncated=False)
        assert published == pytest.approx(203e3, rel=0.01)
        assert selection_latency_ns("tree", 27_600, 4_600) == 12 * 15_000 + 5 * 4_000 == 200_000

    def test_v16_notices_a_wrong_log(self) -> None:
        one_level_more = selection_latency_ns("tree", 27_600 * 2, 9_200, truncated=False)
        assert one_level_more != pytest.approx(203e3, rel=0.01)

    @pytest.mark.parametrize("nodes", [1, 2, 8, 4_096])
    def test_truncation_is_nothing_at_powers_of_two(self, nodes: int) -> None:
        latencies = {selection_latency_ns("tree", 6 * nodes, nodes, truncated=t) for t in (True, False)}
        assert len(latencies) == 1

    def test_one_node_never_takes_the_tree(self) -> None:
        assert selection_248(1, 6, 1, 20 * GB, 15 * GB) == "ring"

    def test_two_nodes_always_take_it(self) -> None:
        assert selection_248(1 << 50, 12, 2, 20 * GB, 15 * GB) == "tree"

    def test_threshold(self) -> None:
        """24 ranks, 4 nodes: ring 138 us, tree 42 us; ring*tree/(ring-tree) = 60 GB/s: 5,760,000 B."""
        gain_ns = (6 * 23 - (15 * 2 + 4 * 5)) * 1_000
        threshold = 60 * gain_ns
        assert selection_248(threshold, 24, 4, 20 * GB, 15 * GB) == "tree"
        assert selection_248(threshold + 1, 24, 4, 20 * GB, 15 * GB) == "ring"

    def test_no_gain_no_tree(self) -> None:
        assert selection_248(1, 4, 4, 20 * GB, 15 * GB) == "ring", "18 us of ring against 30 us of tree"


class TestHierarchical:
    def test_one_node_is_reduce_scatter_and_allgather(self) -> None:
        half = 8_400 + 5 * 3_400 + -(-5 * 256 * MIB * GB // (6 * 63 * GB))
        assert allreduce("hierarchical", 256 * MIB, 6) == 2 * half

    def test_one_rank_a_node_has_only_the_network_part(self) -> None:
        by_hand = 4_400 + 2 * 4 * 5_000  # LL
        assert allreduce_ns(0, 16, network("hierarchical"), 1) == by_hand

    def test_bandwidth_limit(self) -> None:
        nbytes = 1 << 46
        ideal_s = Fraction(2 * 5 * nbytes, 6 * 63 * GB) + Fraction(2 * 15 * nbytes, 16 * 21 * GB)
        assert allreduce("hierarchical", nbytes, 96) / (ideal_s * GB) == pytest.approx(1, rel=1e-3)

    def test_beats_a_flat_ring_at_scale_but_not_a_tree_on_small_messages(self) -> None:
        assert allreduce("hierarchical", MIB, 27_600) < allreduce("ring", MIB, 27_600)
        assert allreduce("hierarchical", 64, 27_600) > allreduce("nccl-tree", 64, 27_600)

    def test_a_faster_nvlink_helps_and_the_bus_bandwidth_is_not_used(self) -> None:
        data = network("hierarchical")
        before = allreduce_ns(MIB, 96, data, 6)
        assert allreduce_ns(MIB, 96, replace(data, nvlink_bandwidth_Bps=126 * GB), 6) < before
        assert allreduce_ns(MIB, 96, replace(data, bus_bandwidth_Bps=1), 6) == before


@pytest.mark.parametrize(
    ("nbytes", "ranks", "per_node", "message"),
    [(8, 1, 6, "2 ranks"), (-1, 2, 6, "bytes"), (8, 2, 0, "a node needs")],
)
def test_refuses_nonsense(nbytes: int, ranks: int, per_node: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        allreduce_ns(nbytes, ranks, SUMMIT, per_node)


class TestCopies:
    def test_a_single_tensor_is_not_copied(self) -> None:
        assert copy_ns(64 * MIB, 1, SUMMIT) == 0

    @pytest.mark.parametrize(("tensors", "kernels"), [(2, 1), (160, 1), (161, 2), (321, 3)])
    def test_a_kernel_takes_a_batch(self, tensors: int, kernels: int) -> None:
        assert copy_ns(301, tensors, SUMMIT) == kernels * 4_000 + 2

    def test_refuses_nonsense(self) -> None:
        with pytest.raises(ValueError, match="at least 1 tensor"):
            copy_ns(8, 0, SUMMIT)
