"""The object that scripts read: statistics, allocation, assumptions."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from coordsim.analyse.assumptions import assumptions
from coordsim.analyse.explain import Counterfactual
from coordsim.analyse.scaling import scaling
from coordsim.analyse.summary import SCHEMA, allocation, quantile, step_statistics, summary
from coordsim.record.breakdown import PARTS
from coordsim.scenario.model import Groups, Noise, Spread
from coordsim.simulate.engine import simulate
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
    found = step_statistics(by_hand())
    expected = {"mean": 2e-6, "median": 2e-6, "p05": 1e-6, "p95": 2e-6, "min": 1e-6, "max": 3e-6}
    assert found == pytest.approx(expected)


def test_allocation_by_hand() -> None:
    """8 ranks are 2 nodes of 6 GPUs at 300 W and 600 W of host; PUE 1.1; the mean step is 2 us."""
    job = workload(batch=5)
    found = allocation(by_hand(ranks=8, workload=job))
    hours = 2 * 2e-6 / 3600
    assert found == pytest.approx({
        "node_hours_per_1000_steps": hours * 1000,
        "node_hours_per_million_samples": hours * 1e6 / 40,
        "kwh_per_1000_steps": hours * 1000 * (6 * 0.3 + 0.6) * 1.1,
    })  # fmt: skip


@pytest.mark.parametrize(("ranks", "nodes"), [(1, 1), (6, 1), (7, 2), (12, 2), (13, 3)])
def test_whole_nodes_are_billed(ranks: int, nodes: int) -> None:
    one, several = allocation(by_hand(ranks=6)), allocation(by_hand(ranks=ranks))
    for name in ("node_hours_per_1000_steps", "kwh_per_1000_steps"):
        assert several[name] == pytest.approx(nodes * one[name])


@pytest.mark.parametrize("seed", range(8))
def test_the_breakdown_sums_to_the_mean(seed: int) -> None:
    described = random_scenario(seed)
    found = summary(simulate(described))
    assert tuple(found["breakdown_s"]) == PARTS
    assert sum(found["breakdown_s"].values()) == pytest.approx(found["step_time_s"]["mean"], rel=1e-12)
    ordered = [found["step_time_s"][name] for name in ("min", "p05", "median", "p95", "max")]
    assert ordered == sorted(ordered)


def test_summary_is_complete_and_json() -> None:
    described = scenario(8, 5, 42)
    simulation = simulate(described)
    saved = Counterfactual("jitter", "no noise", 0.5, 0.25)
    found = json.loads(json.dumps(summary(simulation, [saved]), allow_nan=False))
    assert found["schema"] == SCHEMA
    assert (found["ranks"], found["steps"], found["seed"], found["engine"]) == (8, 5, 42, "vector")
    assert found["explain"] == {"jitter": {"step_time_s": 0.5, "saves": 0.25}}
    assert summary(simulation)["explain"] is None
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
    for text in ("submitted when it exists", "no noise on control messages", "do not share links"):
        assert says(text)
    assert says("input is never late")
    late = workload(sample_bytes=1)
    assert says("node-local storage", workload=late)
    assert not says("input is never late", workload=late)


def test_input_of_a_machine_without_a_read_rate() -> None:
    """``node_read_Bps`` 0 switches the floor off as ``sample_bytes`` 0 does."""
    diskless = replace(CLUSTER, machine=replace(MACHINE, node_read_Bps=0))
    assert says("input is never late", workload=workload(sample_bytes=1), cluster=diskless)
