"""What the control plane did, per step: cycles, requests, bytes, exchanges."""

from __future__ import annotations

import numpy as np

from coordsim.record.breakdown import CONTROL_PARTS
from coordsim.record.trace import Kind
from coordsim.simulate.engine import Simulation


def counters(simulation: Simulation) -> dict[str, float]:
    """Means over the steps that count."""
    cycles, steps = simulation.trace.cycles, simulation.scenario.steps
    counted = cycles["step"] > 0
    repeat, kind = cycles["repeat"][counted], cycles["kind"][counted]
    exchanges = sum(
        int(repeat[kind == Kind[what.upper()]].sum()) * number
        for what, number in simulation.scenario.control_plane.kind.exchanges.items()
    )

    def mean(column: str) -> float:
        return float((cycles[column][counted] * repeat).sum()) / steps

    return {
        "cycles_per_step": float(repeat.sum()) / steps,
        "slow_cycles_per_step": float(repeat[np.isin(kind, (Kind.SLOW, Kind.INVALIDATE))].sum()) / steps,
        "requests_per_step": mean("requests"),
        "coordinator_bytes_per_step": mean("request_bytes"),
        "exchanges_per_step": exchanges / steps,
        "responses_per_step": mean("responses"),
    }


def control_share(simulation: Simulation) -> float:
    """Share of the step that the control plane costs: (cycle wait + exchange + work) / step, 0..1."""
    parts = simulation.breakdown()
    return sum(parts[name] for name in CONTROL_PARTS) / simulation.step_time_s
