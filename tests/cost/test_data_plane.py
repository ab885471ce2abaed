"""What one response costs: local work, launch, copies, collective."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordsim.cost.collectives import allreduce_ns
from coordsim.cost.copies import copy_ns
from coordsim.cost.data_plane import DataPlane, ResponseCost
from coordsim.scenario.model import DataNetwork
from tests.scenarios import CLUSTER, DATA, HOST, MACHINE, PLANE, scenario

RANKS = 100
NEGOTIATED = ("point-to-point", "coordinator", "hierarchical", "cached")


def plane(name: str = "cached", ranks: int = RANKS, data: DataNetwork = DATA, **changes: object) -> DataPlane:
    control = replace(PLANE, name=name, **changes)
    return DataPlane(scenario(ranks, cluster=replace(CLUSTER, data=data), control_plane=control))


@pytest.mark.parametrize("name", NEGOTIATED)
def test_local_work_includes_horovods_device_lists(name: str) -> None:
    """2 us a tensor, and 4,280 ps a tensor and rank."""
    assert plane(name).cost(4000, 1).local_ns == 2000 + 428
    assert plane(name).cost(4000, 7).local_ns == 7 * 2428
    assert plane(name, wire="coordsim").cost(4000, 7).local_ns == 7 * 2000
    assert plane(name, ranks=27_600).cost(4000, 1).local_ns == 2000 + 118_128


def test_device_lists_are_whole_nanoseconds_a_tensor() -> None:
    assert plane(ranks=3).cost(4000, 10).local_ns == 10 * (2000 + 12)  # 12.84 floors


def test_ddp_launches_and_does_nothing_else_on_the_host() -> None:
    cost = plane("ddp").cost(4000, 3)
    assert (cost.local_ns, cost.launch_ns) == (0, HOST.launch_ns)


def test_ideal_is_free_on_the_host() -> None:
    cost = plane("ideal").cost(4000, 3)
    assert (cost.local_ns, cost.launch_ns) == (0, 0)


def test_data_costs_do_not_depend_on_the_control_plane() -> None:
    def data(name: str) -> tuple[int, ...]:
        return plane(name).cost(123_456, 3)[2:]

    assert {data(name) for name in (*NEGOTIATED, "ddp", "ideal")} == {data("cached")}


@pytest.mark.parametrize("name", NEGOTIATED)
def test_every_response_is_launched_once(name: str) -> None:
    assert plane(name).cost(4000, 1).launch_ns == plane(name).cost(4000, 50).launch_ns == HOST.launch_ns


def test_collective_is_that_of_the_bytes() -> None:
    for nbytes in (4, 10**5, 10**8):
        assert plane().cost(nbytes, 1).collective_ns == allreduce_ns(nbytes, RANKS, DATA, MACHINE.ranks_per_node)
        assert plane().cost(nbytes, 9).collective_ns == plane().cost(nbytes, 1).collective_ns


def test_free_collectives_take_one_nanosecond() -> None:
    free = plane(data=replace(DATA, allreduce="free"))
    assert {free.cost(nbytes, 2).collective_ns for nbytes in (0, 1, 10**10)} == {1}


def test_a_single_tensor_is_not_copied() -> None:
    cost = plane().cost(10**8, 1)
    assert cost.copy_in_ns == cost.copy_out_ns == 0
    assert cost.stream_ns == cost.collective_ns


def test_fused_tensors_are_copied_in_and_out() -> None:
    """160 tensors a kernel of 5 us, and 350 GB/s."""
    assert plane().cost(350_000, 2).copy_in_ns == 5000 + 1000
    assert plane().cost(350_000, 160).copy_in_ns == 5000 + 1000
    assert plane().cost(350_001, 161).copy_in_ns == 2 * 5000 + 1001
    cost = plane().cost(350_000, 2)
    assert cost.copy_out_ns == cost.copy_in_ns == copy_ns(350_000, 2, DATA)
    assert cost.stream_ns == 2 * 6000 + cost.collective_ns


def test_copies_can_be_switched_off() -> None:
    cost = plane(data=replace(DATA, copy_bandwidth_Bps=0)).cost(350_000, 500)
    assert (cost.copy_in_ns, cost.copy_out_ns) == (0, 0)
    assert cost.collective_ns == plane().cost(350_000, 500).collective_ns


def test_stream_time_leaves_the_host_out() -> None:
    assert ResponseCost(1, 20, 300, 4000, 50_000).stream_ns == 54_300


def test_all_are_python_integers() -> None:
    """int64 of NumPy would wrap around in a sum over a long run, without a word."""
    assert {type(value) for value in plane().cost(123_457, 3)} == {int}


@pytest.mark.parametrize(("data_plane", "expected"), [("async", False), ("blocking", True)])
def test_blocking(data_plane: str, expected: bool) -> None:
    assert plane(data_plane=data_plane).blocking is expected


def test_impossible_responses() -> None:
    with pytest.raises(ValueError, match="at least 1 tensor"):
        plane().cost(4, 0)
    with pytest.raises(ValueError, match="0 bytes"):
        plane().cost(-1, 2)
