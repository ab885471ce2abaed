"""The report's lines on node-hours, energy and staging, from facts written by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from coordsim.analyse.answer.simulated import answer_simulation
from coordsim.analyse.explain import explain
from coordsim.report.answer import answer_json, answer_screen
from coordsim.report.answer.rows import cost_row, energy_row, staging_row
from coordsim.report.tables import Page
from coordsim.simulate.engine import Simulation, simulate
from tests.analyse.made import by_hand
from tests.scenarios import CLUSTER, MACHINE, scenario, workload

GB = 10**9


def job(**machine: Any) -> Simulation:
    """500 GB on two nodes."""
    cluster = replace(CLUSTER, machine=replace(MACHINE, **machine))
    return by_hand(ranks=8, cluster=cluster, workload=workload(dataset_bytes=500 * GB))


def test_energy_and_staging_on_one_line_each() -> None:
    found = job(
        gpu_wait_power_mW=100_000, gpu_idle_power_mW=50_000, node_write_Bps=GB, parallel_read_Bps=100 * GB
    )  # fmt: skip
    answer = answer_simulation(found)
    assert answer.costs is not None
    assert " kWh for 1,000 steps" in cost_row(answer)
    share = answer.costs.kwh_by_phase_per_1000_steps["compute"] / answer.costs.kwh_per_1000_steps
    watts = answer.costs.mean_power_kw * 1000
    expected = f"{watts / 1000:.4g} kW at the meter; {100 * share:.1f} % computing, {100 - 100 * share:.1f} % waiting"
    assert energy_row(answer) == expected
    assert staging_row(answer) == "250 GB a node in 250 s before the first step: 0.14 node-hours"


def test_energy_of_unknown_power_is_not_zero() -> None:
    answer = answer_simulation(job(gpu_power_mW=None))
    assert "node-hours and energy not known for 1,000 steps" in cost_row(answer)
    assert energy_row(answer) == ""


def test_a_share_that_does_not_fit_is_said() -> None:
    found = job(node_storage_bytes=200 * GB, node_write_Bps=GB, parallel_read_Bps=GB)
    assert staging_row(answer_simulation(found)) == "not possible: 250 GB a node, whose storage holds 200 GB"


def test_staging_that_is_not_counted_has_no_line() -> None:
    for found in (job(), job(storage="parallel", parallel_read_Bps=GB), by_hand()):
        assert staging_row(answer_simulation(found)) == ""


@pytest.mark.parametrize("power_mw", [None, 300_000])
def test_counterfactuals_save_energy_where_it_is_known(power_mw: int | None) -> None:
    described = scenario(4, cluster=replace(CLUSTER, machine=replace(MACHINE, gpu_power_mW=power_mw)))
    measured = simulate(described)
    explained = explain(measured)
    answer = answer_simulation(measured, explained)
    facts = answer_json(answer)
    saved = {name: each["saves_kwh_per_1000_steps"] for name, each in facts["explain"].items()}
    kwh = facts["allocation"]["kwh_per_1000_steps"]
    if power_mw is None:
        assert set(saved.values()) == {None}
    else:  # MACHINE charges one power in all phases, so energy falls as time does
        assert saved == pytest.approx({each.cause: each.saves * kwh for each in explained})
        assert max(saved.values()) > 0
    shown = answer_screen(answer, "run", Page())
    assert max(map(len, shown.splitlines())) <= 80
    assert ("energy not known" in shown) == (power_mw is None)
