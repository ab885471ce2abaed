"""What the control plane did, per step: cycles, requests, bytes, exchanges."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from coordsim.protocol.planes import PLANES
from coordsim.record.breakdown import CONTROL_PARTS
from coordsim.record.trace import Kind, Trace

if TYPE_CHECKING:
    from coordsim.simulate.engine import Simulation


@dataclass(frozen=True)
class Control:
    """What the control plane did in a step: means over the steps that count; None where that is not known."""

    cycles_per_step: float | None
    slow_cycles_per_step: float | None
    requests_per_step: float | None
    coordinator_bytes_per_step: float | None
    """Bytes of lists that rank 0 received."""
    responses_per_step: float | None
    exchanges_per_step: float | None = None
    """Number of control collectives."""
    cache_hits_per_step: float | None = None
    """Tensors that were agreed by the cache; None if there is no cache."""


def control_of(trace: Trace, first_row: int, steps: int, plane: str | None) -> Control:
    """Return the counters of a trace's ``steps`` steps from row ``first_row`` on; all None if it has no cycles."""
    cycles = trace.cycles
    counted = cycles["step"] >= first_row
    repeat = cycles["repeat"][counted]
    slow = np.isin(cycles["kind"][counted], (Kind.SLOW, Kind.INVALIDATE))
    if not cycles["cycle"].size:
        return Control(None, None, None, None, None)

    def mean(column: str) -> float:
        return float((cycles[column][counted] * repeat).sum()) / steps

    return Control(
        float(repeat.sum()) / steps, float(repeat[slow].sum()) / steps, mean("requests"), mean("request_bytes"),
        mean("responses"), cache_hits_per_step=mean("hits_common") if plane in PLANES and PLANES[plane].cache else None,
    )  # fmt: skip


def counters(simulation: Simulation) -> Control:
    """Of a simulation, with its exchanges; 0 where nobody negotiates."""
    plane, steps = simulation.scenario.control_plane, simulation.scenario.steps
    control = control_of(simulation.trace, 1, steps, plane.name)
    cycles = simulation.trace.cycles
    counted = cycles["step"] > 0
    repeat, kind = cycles["repeat"][counted], cycles["kind"][counted]
    exchanges = sum(
        int(repeat[kind == Kind[what.upper()]].sum()) * number for what, number in plane.kind.exchanges.items()
    ) / steps
    if control.cycles_per_step is None:
        return Control(0.0, 0.0, 0.0, 0.0, 0.0, exchanges)
    return replace(control, exchanges_per_step=exchanges)


def control_share(simulation: Simulation) -> float:
    """Return the control plane's share of the step, 0..1: (cycle wait + exchange + work) / step."""
    parts = simulation.breakdown()
    return sum(parts[name] for name in CONTROL_PARTS) / simulation.step_time_s
