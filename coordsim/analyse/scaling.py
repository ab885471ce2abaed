"""Scaling efficiency and throughput of one simulation."""

from __future__ import annotations

from dataclasses import dataclass, replace

from coordsim.scenario.model import Noise, Scenario
from coordsim.simulate.engine import Simulation, simulate

BASELINE_RANKS = 1


@dataclass(frozen=True)
class Scaling:
    """Weak scaling of one simulation against one rank, and its throughput."""

    efficiency: float
    """Throughput per rank over that of one noise-free median GPU without negotiation."""
    samples_per_s: float
    sustained_flops: float
    """FLOP/s over all ranks, as the workload's source counts FLOPs."""
    baseline_step_s: float


def baseline_step_s(scenario: Scenario) -> float:
    """Step time of one noise-free median GPU alone, seconds."""
    alone = replace(scenario, ranks=BASELINE_RANKS, noise=Noise(), steps=1)
    return simulate(alone).step_time_s


def scaling(simulation: Simulation) -> Scaling:
    """Weak scaling against one rank; every rank keeps its batch."""
    scenario = simulation.scenario
    step_s, alone_s = simulation.step_time_s, baseline_step_s(scenario)
    samples = scenario.ranks * scenario.workload.batch / step_s
    return Scaling(alone_s / step_s, samples, samples * scenario.workload.flops_per_sample, alone_s)
