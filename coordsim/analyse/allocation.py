"""What a job costs its owner: node-hours, energy by phase, and staging before the first step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coordsim.cost.power import Energy, energy, node_hours, power_kw
from coordsim.cost.storage import staging
from coordsim.simulate.engine import Simulation

STEPS = 1000
"""Number of steps for which node-hours and energy are stated."""
_S_PER_HOUR = 3600


def energy_of(simulation: Simulation) -> Energy | None:
    """Return the energy of 1,000 mean steps; None when the machine's power is not known."""
    scenario = simulation.scenario
    return energy(simulation.breakdown(), scenario.ranks, STEPS, scenario.cluster.machine)


@dataclass(frozen=True)
class Allocation:
    """Node-hours, energy and staging of a job; each name states its unit.

    Energy is None when the machine's power is not known. Staging is None when no data set is named or it cannot be
    timed (:mod:`coordsim.cost.storage`). Staging is part of no step, so :attr:`node_hours_of_1000_steps_and_staging` is
    the only value that includes it.
    """

    node_hours_per_1000_steps: float
    node_hours_per_million_samples: float
    kwh_per_1000_steps: float | None
    kwh_by_phase_per_1000_steps: Mapping[str, float] | None
    kwh_by_component_per_1000_steps: Mapping[str, float] | None
    mean_power_kw: float | None
    staging_s: float | None
    staged_bytes_per_node: int | None
    staging_fits: bool | None
    staging_node_hours: float | None
    staging_kwh: float | None
    node_hours_of_1000_steps_and_staging: float | None


def allocation(simulation: Simulation) -> Allocation:
    """Return the allocation of a simulated job. GPUs are idle while the data set is staged."""
    scenario, machine = simulation.scenario, simulation.scenario.cluster.machine
    step_s, used, staged = simulation.step_time_s, energy_of(simulation), staging(scenario)
    per_step = node_hours(step_s * 1e9, scenario.ranks, machine.ranks_per_node, 1)
    staging_ns = None if staged is None else staged.time_ns
    waited = None if staging_ns is None else node_hours(staging_ns, scenario.ranks, machine.ranks_per_node, 1)
    idle = power_kw("idle", scenario.ranks, machine)
    return Allocation(
        node_hours_per_1000_steps=per_step * STEPS,
        node_hours_per_million_samples=per_step * 1e6 / (scenario.ranks * scenario.workload.batch),
        kwh_per_1000_steps=None if used is None else used.kwh,
        kwh_by_phase_per_1000_steps=None if used is None else used.by_phase,
        kwh_by_component_per_1000_steps=None if used is None else used.by_component,
        mean_power_kw=None if used is None else used.kwh * _S_PER_HOUR / (STEPS * step_s),
        staging_s=None if staging_ns is None else staging_ns / 1e9,
        staged_bytes_per_node=None if staged is None else staged.bytes_per_node,
        staging_fits=None if staged is None else staged.fits, staging_node_hours=waited,
        staging_kwh=None if staging_ns is None or idle is None else sum(idle.values()) * staging_ns / 1e9 / _S_PER_HOUR,
        node_hours_of_1000_steps_and_staging=None if waited is None else per_step * STEPS + waited,
    )  # fmt: skip
