"""Reading a step's samples and staging a data set: closed forms, integer ns; and both engines keep the floor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from coordsim.cost.storage import Staging, staging, step_input_ns
from coordsim.errors import Refused
from coordsim.record.breakdown import breakdown, step_times
from coordsim.record.trace import difference
from coordsim.scenario.model import Noise, Scenario
from coordsim.simulate import event, vector
from coordsim.simulate.problem import Problem
from tests.scenarios import CLUSTER, MACHINE, PLANE, scenario, workload

GB = 10**9


def made(ranks: int, job: dict[str, Any], **machine: Any) -> Scenario:
    """Six ranks a node."""
    described = replace(CLUSTER, machine=replace(MACHINE, **machine))
    return scenario(ranks, workload=workload(**job), cluster=described, noise=Noise())


JOB = {"sample_bytes": 11_000, "batch": 2}
"""22,000 B a rank and step."""
DATASET = {"dataset_bytes": 1_200 * GB}
RATES = {"parallel_read_Bps": 100 * GB, "node_write_Bps": 2 * GB, "node_injection_Bps": 20 * GB}


class TestInput:
    @pytest.mark.parametrize(("ranks", "local"), [(1, 1), (6, 6), (7, 6), (600, 6)])
    def test_local_storage_does_not_know_of_other_nodes(self, ranks: int, local: int) -> None:
        found = made(ranks, JOB, node_read_Bps=GB, parallel_read_Bps=1, node_injection_Bps=1)
        assert step_input_ns(found) == 22_000 * local

    @pytest.mark.parametrize("ranks", [1, 6, 7, 600])
    def test_a_shared_file_system_slows_with_ranks(self, ranks: int) -> None:
        found = made(ranks, JOB, storage="parallel", parallel_read_Bps=GB, node_read_Bps=1)
        assert step_input_ns(found) == 22_000 * ranks

    @pytest.mark.parametrize(
        ("ranks", "expected"),
        [(1, 2_200), (6, 13_200), (60, 13_200), (61, 13_420), (600, 132_000)],  # 22,000 B / (10 or 100 GB/s)
    )
    def test_one_node_cannot_take_more_than_its_injection(self, ranks: int, expected: int) -> None:
        """10 GB/s a node and 100 GB/s together: above 10 nodes the file system decides."""
        found = made(ranks, JOB, storage="parallel", parallel_read_Bps=100 * GB, node_injection_Bps=10 * GB)
        assert step_input_ns(found) == expected

    def test_rounded_up_once(self) -> None:
        job = {"sample_bytes": 1, "batch": 1}
        assert step_input_ns(made(1, job, node_read_Bps=3 * GB)) == 1
        assert step_input_ns(made(4, job, node_read_Bps=3 * GB)) == 2
        assert step_input_ns(made(4, job, storage="parallel", parallel_read_Bps=3 * GB)) == 2

    @pytest.mark.parametrize(
        ("job", "machine"),
        [
            ({}, {}),
            (JOB, {"node_read_Bps": 0}),
            (JOB, {"storage": "parallel"}),
            (JOB, {"storage": "parallel", "node_injection_Bps": 1}),
        ],
    )
    def test_switched_off(self, job: dict[str, Any], machine: dict[str, Any]) -> None:
        assert step_input_ns(made(6, job, **machine)) == 0

    def test_what_leaves_the_clock_is_refused(self) -> None:
        found = made(6, {"sample_bytes": 10**15}, storage="parallel", parallel_read_Bps=1)
        with pytest.raises(Refused, match="reading one step's samples passes"):
            step_input_ns(found)


class TestStaging:
    @pytest.mark.parametrize(
        ("ranks", "replicas", "share_gb", "seconds"),
        [
            (6, 1, 1_200, 600),  # one node writes all of it at 2 GB/s
            (12, 1, 600, 300),
            (13, 1, 400, 200),
            (6 * 600, 1, 2, 12),  # the file system: 1,200 GB at 100 GB/s
            (6 * 600, 10, 20, 120),
            (6 * 600, 0, 1_200, 7_200),  # all of it on all 600
            (6 * 600, 10**6, 1_200, 7_200),
            (12, 2, 1_200, 600),
        ],
    )
    def test_the_slowest_of_three(self, ranks: int, replicas: int, share_gb: int, seconds: int) -> None:
        found = staging(made(ranks, {**DATASET, "replicas": replicas}, **RATES))
        assert found == Staging(share_gb * GB, None, seconds * 10**9)

    def test_injection_can_be_the_slowest(self) -> None:
        found = staging(made(6, DATASET, **{**RATES, "node_injection_Bps": GB}))
        assert found == Staging(1_200 * GB, None, 1_200 * 10**9)

    def test_shares_round_up(self) -> None:
        rates = {"parallel_read_Bps": GB, "node_write_Bps": GB}
        assert staging(made(18, {"dataset_bytes": 100}, **rates)) == Staging(34, None, 100)

    def test_capacity(self) -> None:
        fits = staging(made(12, DATASET, **RATES, node_storage_bytes=600 * GB))
        assert fits == Staging(600 * GB, True, 300 * 10**9)
        too_much = staging(made(12, DATASET, **RATES, node_storage_bytes=600 * GB - 1))
        assert too_much == Staging(600 * GB, False, None)

    @pytest.mark.parametrize("missing", ["parallel_read_Bps", "node_write_Bps"])
    def test_a_rate_that_is_not_known(self, missing: str) -> None:
        found = staging(made(12, DATASET, **{**RATES, missing: 0}))
        assert found == Staging(600 * GB, None, None)

    def test_nothing_to_stage(self) -> None:
        assert staging(made(12, {}, **RATES)) is None
        assert staging(made(12, DATASET, **RATES, storage="parallel")) == Staging(0, True, 0)


@pytest.mark.parametrize("plane", ["cached", "coordinator", "ddp"])
@pytest.mark.parametrize("ranks", [1, 3, 8])
def test_both_engines_keep_the_floor(plane: str, ranks: int) -> None:
    """10 ms a rank from the parallel file system: it decides from 3 ranks on (6.3 ms of compute)."""
    described = made(ranks, {"sample_bytes": 10_000_000}, storage="parallel", parallel_read_Bps=GB)
    described = replace(described, control_plane=replace(PLANE, name=plane))
    expected, found = event.run(Problem(described)), vector.run(Problem(described))
    assert difference(expected, found) is None
    starts = found.steps["start_ns"]
    assert (starts[1:] - starts[:-1]).tolist() == [10_000_000 * ranks] * described.steps
    parts = breakdown(found)
    assert (parts["input_stall"][1:] > 0).all()
    assert (sum(parts.values()) == step_times(found)).all()
    local = replace(CLUSTER, machine=replace(described.cluster.machine, storage="node-local"))
    assert step_times(vector.run(Problem(replace(described, cluster=local))))[-1] < 10_000_000 * max(ranks, 2)
