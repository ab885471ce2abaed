"""Every entry of the catalog simulates: one rank, one node, 1,000 ranks. Noise is off, so that steps can be told."""

from __future__ import annotations

import pytest

from coordsim.analyse.scaling import scaling
from coordsim.scenario import catalog, load_scenario
from coordsim.simulate.engine import simulate

QUIET = ["noise.rank.sigma=0", "control_plane.cycle_time=10ms"]
SIZES = ("one rank", "one node", "1,000 ranks")
WORKLOADS = {
    "bert_large": "dgx-v100-100g",
    "gpt2": "dgx-h100",
    "inception_v3": "pascal-25g",
    "llama3_8b": "dgx-h100",
    "resnet101": "pascal-25g",
    "resnet50": "summit",
    "stemdl": "summit",
    "vgg16": "pascal-25g",
}
"""Each on a cluster of the GPUs that its times are stated for."""


def runs(cluster: str, workload: str, size: str) -> None:
    """One counted step: no shorter than its compute, alone exactly that, and its parts sum to it."""
    ranks = 1 if size == "one rank" else 1000
    scenario = load_scenario(cluster=cluster, workload=workload, ranks=ranks, steps=1, overrides=QUIET)
    if size == "one node":
        ranks = min(scenario.cluster.machine.ranks_per_node, 1000)
        scenario = load_scenario(cluster=cluster, workload=workload, ranks=ranks, steps=1, overrides=QUIET)
    found = simulate(scenario, "vector")
    job = scenario.workload
    alone_ns = job.forward_ns + job.backward_ns + job.optimizer_ns
    (step_ns,) = found.step_ns.tolist()
    assert step_ns == alone_ns if ranks == 1 else step_ns > alone_ns
    assert sum(found.breakdown().values()) == pytest.approx(step_ns / 1e9, abs=1e-12)
    assert scaling(found).efficiency == pytest.approx(alone_ns / step_ns)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("cluster", catalog.names("cluster"))
def test_every_cluster(cluster: str, size: str) -> None:
    runs(cluster, "resnet50", size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("workload", WORKLOADS)
def test_every_workload(workload: str, size: str) -> None:
    runs(WORKLOADS[workload], workload, size)


def test_no_entry_is_forgotten() -> None:
    assert sorted(WORKLOADS) == list(catalog.names("workload"))
