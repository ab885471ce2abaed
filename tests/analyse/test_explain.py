"""Counterfactuals: each takes out one cause, and only that."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from coordsim.analyse.explain import counterfactuals, explain
from coordsim.record.breakdown import CONTROL_PARTS
from coordsim.scenario.model import Noise, Scenario, Spread
from coordsim.simulate.engine import Simulation, simulate
from tests.scenarios import MACHINE, PLANE, scenario, tensors, workload

RANKS = 12
NOISE = Noise(rank=Spread("normal", 50_000), step=Spread("half-normal", 60_000), tensor=Spread("exponential", 80_000))
JOB = workload(tensors=tensors([500_000] * 8, [300_000] * 8), sample_bytes=20_000_000)
"""9.6 MB of gradients; six ranks of a node need 21.8 ms to read their samples, longer than a step."""
DESCRIBED = scenario(RANKS, 4, 3, workload=JOB, noise=NOISE, control_plane=replace(PLANE, name="coordinator"))


@pytest.fixture(scope="module")
def measured() -> Simulation:
    return simulate(DESCRIBED)


def without(cause: str, described: Scenario = DESCRIBED) -> Simulation:
    return simulate({name: changed for name, _, changed in counterfactuals(described)}[cause])


def test_the_scenario_has_every_cause(measured: Simulation) -> None:
    """Else nothing below means anything."""
    parts = measured.breakdown()
    assert all(parts[name] > 0 for name in ("input_stall", "straggler_wait", "exposed_collective", "fusion_copy"))
    assert all(parts[name] > 0 for name in CONTROL_PARTS)
    causes = [cause for cause, _, _ in counterfactuals(DESCRIBED)]
    assert causes == ["control_plane", "jitter", "collectives", "fusion_copies", "input"]


def test_without_jitter_nobody_is_late() -> None:
    assert without("jitter").breakdown()["straggler_wait"] == 0


def test_without_jitter_detours_stay() -> None:
    """They are the control plane's, which ``ideal`` takes out."""
    noisy = replace(DESCRIBED, noise=replace(NOISE, detour_ppm=1000, detour_ns=5000))
    found = {name: changed for name, _, changed in counterfactuals(noisy)}
    assert found["jitter"].noise == Noise(detour_ppm=1000, detour_ns=5000)


def test_free_collectives_are_not_exposed() -> None:
    simulation = without("collectives")
    assert set(simulation.trace.responses["collective_ns"].tolist()) == {1}
    assert simulation.breakdown()["exposed_collective"] <= 8e-9


def test_free_copies() -> None:
    simulation = without("fusion_copies")
    assert simulation.breakdown()["fusion_copy"] == 0
    assert (simulation.trace.responses["units"] > 1).any(), "a fused response would have been copied"


def test_without_a_control_plane_control_costs_nothing() -> None:
    parts = without("control_plane").breakdown()
    assert [parts[name] for name in CONTROL_PARTS] == [0, 0, 0]


def test_input_that_is_always_there() -> None:
    assert without("input").breakdown()["input_stall"] == 0


def test_each_changes_one_field(measured: Simulation) -> None:
    changed = {}
    for cause, what, described in counterfactuals(DESCRIBED):
        names = [f.name for f in fields(Scenario) if getattr(described, f.name) != getattr(DESCRIBED, f.name)]
        changed[cause] = names
        assert what
    assert changed == {
        "control_plane": ["control_plane"], "jitter": ["noise"], "collectives": ["cluster"],
        "fusion_copies": ["cluster"], "input": ["workload"],
    }  # fmt: skip


def test_causes_that_a_scenario_lacks_are_not_removed() -> None:
    def causes(described: Scenario) -> list[str]:
        return [cause for cause, _, _ in counterfactuals(described)]

    assert causes(scenario(1, noise=Noise())) == []
    assert causes(scenario(1, noise=NOISE)) == ["jitter"]
    assert causes(scenario(4, noise=Noise())) == ["control_plane", "collectives", "fusion_copies"]
    ideal = replace(PLANE, name="ideal")
    assert causes(scenario(4, noise=Noise(), control_plane=ideal)) == ["collectives", "fusion_copies"]
    diskless = replace(DESCRIBED.cluster, machine=replace(MACHINE, node_read_Bps=0))
    assert "input" not in causes(replace(DESCRIBED, cluster=diskless))


def test_explain_runs_them_all_and_says_what_each_saves(measured: Simulation) -> None:
    calls: list[tuple[int, int]] = []
    found = explain(measured, lambda done, total: calls.append((done, total)))
    assert calls == [(index, 5) for index in range(1, 6)]
    for each in found:
        assert each.step_time_s == without(each.cause).step_time_s
        assert each.saves == pytest.approx(1 - each.step_time_s / measured.step_time_s)
    saves = {each.cause: each.saves for each in found}
    assert saves["input"] == max(saves.values()) > 0, "the floor decides here"
    fed = simulate(replace(DESCRIBED, workload=replace(JOB, sample_bytes=0)))
    assert all(each.saves > 0 for each in explain(fed) if each.cause != "fusion_copies")
