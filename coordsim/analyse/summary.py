"""The one JSON object of ``coordsim simulate --json`` (schema ``coordsim.simulation/1``)."""

from __future__ import annotations

from typing import Any

import numpy as np

from coordsim.analyse.allocation import allocation
from coordsim.analyse.assumptions import assumptions
from coordsim.analyse.control import counters
from coordsim.analyse.explain import Counterfactual
from coordsim.analyse.scaling import BASELINE_RANKS, scaling
from coordsim.scenario.resolved import resolved
from coordsim.simulate.engine import Simulation

SCHEMA = "coordsim.simulation/1"


def quantile(sorted_ns: list[int], share: float) -> int:
    """Lower nearest rank: the order statistic at floor((n - 1) * share)."""
    return sorted_ns[int((len(sorted_ns) - 1) * share)]


def step_statistics(simulation: Simulation) -> dict[str, float]:
    """Mean and quantiles of the step time, seconds."""
    ordered = np.sort(simulation.step_ns).tolist()
    named = {"median": 0.5, "p05": 0.05, "p95": 0.95, "min": 0.0, "max": 1.0}
    return {
        "mean": simulation.step_time_s,
        **{name: quantile(ordered, share) / 1e9 for name, share in named.items()},
    }


def summary(simulation: Simulation, explained: list[Counterfactual] | None = None) -> dict[str, Any]:
    """Everything a script needs to know of one simulation."""
    scenario, scaled = simulation.scenario, scaling(simulation)
    return {
        "schema": SCHEMA,
        "scenario": resolved(scenario),
        "ranks": scenario.ranks,
        "steps": scenario.steps,
        "seed": scenario.seed,
        "engine": simulation.engine,
        "first_step_s": simulation.first_step_ns / 1e9,
        "step_time_s": step_statistics(simulation),
        "scaling_efficiency": scaled.efficiency,
        "baseline_ranks": BASELINE_RANKS,
        "samples_per_s": scaled.samples_per_s,
        "sustained_flops": scaled.sustained_flops,
        "breakdown_s": simulation.breakdown(),
        "explain": None if explained is None else {each.cause: _saved(each) for each in explained},
        "assumptions": assumptions(scenario),
        "control": counters(simulation),
        "allocation": allocation(simulation),
        "engine_wall_s": simulation.wall_s,
    }


def _saved(without: Counterfactual) -> dict[str, float | None]:
    return {
        "step_time_s": without.step_time_s,
        "saves": without.saves,
        "saves_kwh_per_1000_steps": without.saves_kwh_per_1000_steps,
    }
