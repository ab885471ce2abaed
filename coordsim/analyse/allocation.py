"""What a job costs its owner: node-hours, energy by phase, and staging before the first step."""

from __future__ import annotations

from typing import Any

from coordsim.cost.power import Energy, energy, node_hours, power_kw
from coordsim.cost.storage import staging
from coordsim.scenario.model import Scenario
from coordsim.simulate.engine import Simulation

STEPS = 1000
"""Steps that node-hours and energy are told for."""
_S_PER_HOUR = 3600


def energy_of(simulation: Simulation) -> Energy | None:
    """Energy of 1,000 mean steps; None when the machine's power is not known."""
    scenario = simulation.scenario
    return energy(simulation.breakdown(), scenario.ranks, STEPS, scenario.cluster.machine)


def allocation(simulation: Simulation) -> dict[str, Any]:
    """Node-hours, energy and staging of this job, by name with units.

    Energy is None when the machine's power is not known, staging when no data set is named or it cannot be timed
    (:mod:`coordsim.cost.storage`). Staging is in no step: ``node_hours_of_1000_steps_and_staging`` is the only sum.
    """
    scenario, machine = simulation.scenario, simulation.scenario.cluster.machine
    step_s, used = simulation.step_time_s, energy_of(simulation)
    per_step = node_hours(step_s * 1e9, scenario.ranks, machine.ranks_per_node, 1)
    return {
        "node_hours_per_1000_steps": per_step * STEPS,
        "node_hours_per_million_samples": per_step * 1e6 / (scenario.ranks * scenario.workload.batch),
        "kwh_per_1000_steps": None if used is None else used.kwh,
        "kwh_by_phase_per_1000_steps": None if used is None else used.by_phase,
        "kwh_by_component_per_1000_steps": None if used is None else used.by_component,
        "mean_power_kw": None if used is None else used.kwh * _S_PER_HOUR / (STEPS * step_s),
        **_staging(scenario, per_step * STEPS),
    }


def _staging(scenario: Scenario, steps_node_hours: float) -> dict[str, Any]:
    """GPUs idle while the data set is staged."""
    found, machine = staging(scenario), scenario.cluster.machine
    facts: dict[str, Any] = {
        "staging_s": None,
        "staged_bytes_per_node": None if found is None else found.bytes_per_node,
        "staging_fits": None if found is None else found.fits,
        "staging_node_hours": None,
        "staging_kwh": None,
        "node_hours_of_1000_steps_and_staging": None,
    }
    if found is None or found.time_ns is None:
        return facts
    waited = node_hours(found.time_ns, scenario.ranks, machine.ranks_per_node, 1)
    idle = power_kw("idle", scenario.ranks, machine)
    return facts | {
        "staging_s": found.time_ns / 1e9,
        "staging_node_hours": waited,
        "staging_kwh": None if idle is None else sum(idle.values()) * found.time_ns / 1e9 / _S_PER_HOUR,
        "node_hours_of_1000_steps_and_staging": steps_node_hours + waited,
    }
