"""The object that scripts read: statistics, allocation, assumptions."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coordsim.analyse.allocation import allocation
from coordsim.analyse.answer.simulated import answer_simulation
from coordsim.analyse.answer.statistics import quantile
from coordsim.analyse.assumptions import assumptions
from coordsim.analyse.explain import Counterfactual
from coordsim.analyse.scaling import scaling
from coordsim.record.breakdown import PARTS
from coordsim.report.answer import answer_json
from coordsim.scenario.loading import load_scenario
from coordsim.scenario.model import Cluster, Groups, Noise, Spread
from coordsim.simulate.engine import Simulation, simulate
from tests.analyse.made import by_hand
from tests.scenarios import CLUSTER, MACHINE, PLANE, random_scenario, scenario, workload


@pytest.mark.parametrize(
    ("count", "share", "place"),
    [
        (1, 0.5, 0), (1, 0.95, 0), (2, 0.5, 0), (3, 0.5, 1), (4, 0.5, 1), (100, 0.5, 49), (101, 0.5, 50),
        (20, 0.95, 18), (21, 0.95, 19), (100, 0.95, 94), (101, 0.95, 95), (100, 0.05, 4), (21, 0.05, 1), (20, 0.05, 0),
        (5, 0.0, 0), (5, 1.0, 4),
    ],
)  # fmt: skip
def test_quantiles_are_lower_nearest_ranks(count: int, share: float, place: int) -> None:
    assert quantile([10 * each for each in range(count)], share) == 10 * place


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_quantiles_do_not_slip_on_floats(share: float) -> None:
    percent = round(share * 100)
    for count in range(1, 2000):
        assert quantile(list(range(count)), share) == (count - 1) * percent // 100


def test_step_statistics_by_hand() -> None:
    """Steps of 1,000, 3,000 and 2,000 ns; the cold one does not count."""
    found = answer_json(answer_simulation(by_hand()))["step_time_s"]
    expected = {"mean": 2e-6, "median": 2e-6, "p05": 1e-6, "p95": 2e-6, "min": 1e-6, "max": 3e-6}
    assert found == pytest.approx(expected)


def summary_of(simulation: Simulation, explained: list[Counterfactual] | None = None) -> dict[str, Any]:
    return answer_json(answer_simulation(simulation, explained))


def paid(simulation: Simulation) -> dict[str, Any]:
    return vars(allocation(simulation))


def on_machine(**changes: object) -> Cluster:
    return replace(CLUSTER, machine=replace(MACHINE, **changes))


def test_allocation_by_hand() -> None:
    """8 ranks are 2 nodes of 6 GPUs at 300 W and 600 W of host; PUE 1.1; the mean step is 2 us. Without powers for
    waiting and idling GPUs, every GPU of both nodes draws its 300 W all the time."""
    job = workload(batch=5)
    found = paid(by_hand(ranks=8, workload=job))
    hours = 2 * 2e-6 / 3600
    kwh = hours * 1000 * (6 * 0.3 + 0.6) * 1.1
    assert found["node_hours_per_1000_steps"] == pytest.approx(hours * 1000)
    assert found["node_hours_per_million_samples"] == pytest.approx(hours * 1e6 / 40)
    assert found["kwh_per_1000_steps"] == pytest.approx(kwh)
    assert found["mean_power_kw"] == pytest.approx(2 * 2.4 * 1.1)
    assert found["kwh_by_component_per_1000_steps"] == pytest.approx(
        {"gpus": hours * 1800, "hosts": hours * 600, "nics": 0, "facility": hours * 240}
    )
    assert sum(found["kwh_by_phase_per_1000_steps"].values()) == pytest.approx(kwh)


def test_energy_by_phase_by_hand() -> None:
    """The counted steps of ``by_hand`` are compute: forward 20, backward 10, optimizer 50 (100 less 50); the rest of
    1,000, 3,000 and 2,000 ns waits. 7 of 12 GPUs have a rank."""
    simulation = by_hand(
        ranks=7, cluster=on_machine(gpu_wait_power_mW=100_000, gpu_idle_power_mW=40_000, nic_power_mW=50_000)
    )
    parts = simulation.breakdown()
    computing = parts["forward"] + parts["backward"] + parts["optimizer"]
    assert parts["input_stall"] == 0
    assert 0 < computing < simulation.step_time_s
    idle_kw, rest_kw = 5 * 0.040, 2 * (0.6 + 0.05)
    compute = (7 * 0.300 + idle_kw + rest_kw) * 1.1 * computing / 3.6
    wait = (7 * 0.100 + idle_kw + rest_kw) * 1.1 * (2e-6 - computing) / 3.6
    found = paid(simulation)
    assert found["kwh_by_phase_per_1000_steps"] == pytest.approx({"compute": compute, "wait": wait, "idle": 0})
    assert found["kwh_per_1000_steps"] == pytest.approx(compute + wait)
    assert sum(found["kwh_by_component_per_1000_steps"].values()) == pytest.approx(compute + wait)
    assert found["kwh_by_component_per_1000_steps"]["nics"] == pytest.approx(2 * 0.05 * 2e-6 / 3.6)


@pytest.mark.parametrize("missing", ["gpu_power_mW", "host_power_mW"])
def test_energy_of_unknown_power_is_left_out(missing: str) -> None:
    cluster = on_machine(**{missing: None, "node_write_Bps": 10**9, "parallel_read_Bps": 10**12})
    found = paid(by_hand(cluster=cluster, workload=workload(dataset_bytes=10**12)))
    assert {name for name, value in found.items() if value is None} == {
        "kwh_per_1000_steps", "kwh_by_phase_per_1000_steps", "kwh_by_component_per_1000_steps", "mean_power_kw",
        "staging_fits", "staging_kwh",
    }  # fmt: skip
    assert found["staging_s"] == 1000
    free = paid(by_hand(cluster=on_machine(gpu_power_mW=0, host_power_mW=0)))
    assert free["kwh_per_1000_steps"] == 0


def test_staging_by_hand() -> None:
    """12 TB over 2 nodes are 6 TB each, at 2 GB/s 3,000 s; 8 GPUs and the 4 without a rank idle at 40 W."""
    cluster = on_machine(
        node_write_Bps=2 * 10**9, parallel_read_Bps=10**12, node_storage_bytes=6 * 10**12, gpu_idle_power_mW=40_000
    )
    job = workload(dataset_bytes=12 * 10**12)
    found = paid(by_hand(ranks=8, workload=job, cluster=cluster))
    assert (found["staging_s"], found["staged_bytes_per_node"], found["staging_fits"]) == (3000, 6 * 10**12, True)
    assert found["staging_node_hours"] == pytest.approx(2 * 3000 / 3600)
    assert found["staging_kwh"] == pytest.approx(2 * (6 * 0.04 + 0.6) * 1.1 * 3000 / 3600)
    total = found["node_hours_per_1000_steps"] + found["staging_node_hours"]
    assert found["node_hours_of_1000_steps_and_staging"] == pytest.approx(total)
    tight = replace(cluster, machine=replace(cluster.machine, node_storage_bytes=6 * 10**12 - 1))
    found = paid(by_hand(ranks=8, workload=job, cluster=tight))
    assert (found["staging_s"], found["staged_bytes_per_node"], found["staging_fits"]) == (None, 6 * 10**12, False)
    assert found["staging_node_hours"] is found["staging_kwh"] is found["node_hours_of_1000_steps_and_staging"] is None


def test_summits_largest_job_draws_about_what_was_published() -> None:
    """V18 (docs/published.md 1) says "7MW(h)" of this run, unit unclear, and 4.5-5.7 MW as the machine's weekly
    medians: a plausibility bound around assumed powers, no prediction."""
    found = paid(simulate(load_scenario(workload="stemdl", cluster="summit", ranks=27_600, steps=1)))
    megawatts = found["mean_power_kw"] / 1000
    print(f"STEMDL at 27,600 GPUs: {megawatts:.2f} MW at the meter; V18: 7 MW(h), unit unclear")
    assert 4.5 < megawatts < 10
    by_component = found["kwh_by_component_per_1000_steps"]
    assert by_component["gpus"] / found["kwh_per_1000_steps"] > 0.6
    assert found["staging_s"] == 200, "0.5 PB at Alpine's 2.5 TB/s"
    assert found["staging_fits"]


@pytest.mark.parametrize(("ranks", "nodes"), [(1, 1), (6, 1), (7, 2), (12, 2), (13, 3)])
def test_whole_nodes_are_billed(ranks: int, nodes: int) -> None:
    one, several = paid(by_hand(ranks=6)), paid(by_hand(ranks=ranks))
    for name in ("node_hours_per_1000_steps", "kwh_per_1000_steps"):
        assert several[name] == pytest.approx(nodes * one[name])


@pytest.mark.parametrize("seed", range(8))
def test_the_breakdown_sums_to_the_mean(seed: int) -> None:
    described = random_scenario(seed)
    found = summary_of(simulate(described))
    assert tuple(found["breakdown_s"]) == PARTS
    assert sum(found["breakdown_s"].values()) == pytest.approx(found["step_time_s"]["mean"], rel=1e-12)
    ordered = [found["step_time_s"][name] for name in ("min", "p05", "median", "p95", "max")]
    assert ordered == sorted(ordered)


def test_summary_is_complete_and_json() -> None:
    described = scenario(8, 5, 42)
    simulation = simulate(described)
    saved = Counterfactual("jitter", "no noise", 0.5, 0.25, 12.5)
    found = json.loads(json.dumps(summary_of(simulation, [saved]), allow_nan=False))
    assert found["schema"] == "coordsim.simulation/1"
    assert (found["ranks"], found["steps"], found["seed"], found["engine"]) == (8, 5, 42, "vector")
    assert found["explain"] == {
        "jitter": {"step_time_s": 0.5, "saves": 0.25, "saves_kwh_per_1000_steps": 12.5}
    }
    assert summary_of(simulation)["explain"] is None
    assert found["first_step_s"] == simulation.first_step_ns / 1e9
    assert found["step_time_s"]["mean"] == pytest.approx(float(np.mean(simulation.step_ns)) / 1e9)
    assert found["scaling_efficiency"] == scaling(simulation).efficiency
    assert found["baseline_ranks"] == 1
    assert found["engine_wall_s"] == simulation.wall_s
    assert found["assumptions"] == assumptions(described)


def says(text: str, **changes: object) -> bool:
    return any(text in sentence for sentence in assumptions(replace(scenario(8), **changes)))


def on(name: str, **changes: object) -> object:
    return replace(PLANE, name=name, **changes)


def test_assumptions_name_what_is_silent() -> None:
    assert says("no noise: every GPU", noise=Noise())
    assert says("no noise: every GPU", noise=Noise(stall_ppm=5))  # stalls of length 0
    assert not says("no noise: every GPU", noise=Noise(stall_ppm=5, stall_ns=9))
    assert not says("no noise: every GPU", noise=Noise(step=Spread("normal", 1)))


def test_assumptions_say_what_was_never_measured() -> None:
    assert assumptions(scenario(1000))[0].startswith("nothing at 1,000 ranks was measured")
    assert says("nothing at 5 ranks", ranks=5)
    assert not says("nothing at", ranks=4)


def test_assumptions_follow_the_control_plane() -> None:
    for name in ("point-to-point", "coordinator", "hierarchical"):
        assert says("request cost 560 ns is the most uncertain", control_plane=on(name))
    for name in ("cached", "ideal", "ddp"):
        assert not says("request cost", control_plane=on(name))
    assert says("one int32 a rank", control_plane=on("cached"))
    assert not says("one int32 a rank", control_plane=on("cached", wire="coordsim"))
    assert not says("one int32 a rank", control_plane=on("ideal"))
    assert says("groups are ignored", control_plane=on("ddp", groups=Groups("layer")))
    assert not says("groups are ignored", control_plane=on("ddp"))
    assert not says("groups are ignored", control_plane=on("cached", groups=Groups("layer")))
    assert says("buckets follow ready order", control_plane=on("ddp"))


def test_assumptions_that_always_hold_and_input() -> None:
    for text in ("submitted when it exists", "no operating-system noise", "do not share links"):
        assert says(text)
    assert says("input is never late")
    late = workload(sample_bytes=1)
    assert says("node-local storage", workload=late)
    assert not says("input is never late", workload=late)


def test_input_of_a_machine_without_a_read_rate() -> None:
    """``node_read_Bps`` 0 switches the floor off as ``sample_bytes`` 0 does."""
    late = workload(sample_bytes=1)
    assert says("input is never late", workload=late, cluster=on_machine(node_read_Bps=0))
    assert says("never late (the machine has no read rate", workload=late, cluster=on_machine(storage="parallel"))
    shared = on_machine(storage="parallel", parallel_read_Bps=1)
    assert says("from a parallel file system that this job has to itself", workload=late, cluster=shared)


def test_assumptions_about_staging() -> None:
    job = workload(dataset_bytes=6_000)
    known = {"parallel_read_Bps": 1, "node_write_Bps": 1}
    assert says("staging is not counted: the data set's size is not given")
    assert says("staging is not counted: a rate is not given", workload=job)
    assert says("staging is not counted: a rate is not given", workload=job, cluster=on_machine(node_write_Bps=1))
    assert says("every copy is read from there", workload=job, cluster=on_machine(**known))
    full = on_machine(**known, node_storage_bytes=2_999)
    assert says("does not fit its storage: staging is not counted", workload=job, cluster=full)
    assert not says("staging", workload=job, cluster=on_machine(storage="parallel"))


def test_assumptions_about_power() -> None:
    known = {"gpu_wait_power_mW": 80_000, "gpu_idle_power_mW": 40_000}
    assert says("energy is an upper bound")
    assert says("energy is an upper bound", cluster=on_machine(gpu_wait_power_mW=1))
    assert says("charged like the median one", cluster=on_machine(**known))
    assert says("charged like the median one", cluster=on_machine(gpu_power_mW=0)), "no GPU waits"
    for key in ("gpu_power_mW", "host_power_mW"):
        assert says("energy is not counted", cluster=on_machine(**known, **{key: None}))
