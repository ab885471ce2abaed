"""Node-hours and energy of a run. Values are floats, for reports only; no engine reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from coordsim.scenario.model import Machine

Phase = Literal["compute", "wait", "idle"]
PHASES: tuple[Phase, ...] = ("compute", "wait", "idle")
COMPONENTS = ("gpus", "hosts", "nics", "facility")
"""The consumers of power; ``facility`` is what PUE adds to the other three."""
PHASE_OF: dict[str, Phase] = {
    "input_stall": "idle", "forward": "compute", "backward": "compute", "straggler_wait": "wait",
    "cycle_wait": "wait", "control_exchange": "wait", "control_work": "wait", "fusion_copy": "wait",
    "exposed_collective": "wait", "optimizer": "compute",
}  # fmt: skip
"""Phase of the job's GPUs in each part of the breakdown. The parts are those of the median GPU up to its last gradient,
and of the last GPU after it, so a fast GPU waits longer than it is charged for, and a slow one for a shorter time."""

_S_PER_HOUR = 3600
_NS_PER_HOUR = 3.6e12
_MW_PER_KW = 1e6  # milliwatts


@dataclass(frozen=True, slots=True)
class Energy:
    """Energy at the meter, kWh, split in two ways, of which each sums to the whole."""

    by_phase: dict[str, float]
    """Energy by :data:`PHASES`: what whole nodes draw while the job's GPUs are in that phase."""
    by_component: dict[str, float]
    """Energy by :data:`COMPONENTS`."""

    @property
    def kwh(self) -> float:
        return sum(self.by_phase.values())


def node_hours(step_time_ns: float, ranks: int, ranks_per_node: int, steps: int) -> float:
    """Return the node-hours of ``steps`` steps of ``step_time_ns`` each. Whole nodes are charged."""
    return _nodes(ranks, ranks_per_node) * step_time_ns * steps / _NS_PER_HOUR


def power_kw(phase: Phase, ranks: int, machine: Machine) -> dict[str, float] | None:
    """Return the power in kW by component while the job's GPUs are in ``phase``; None if it is not known.

    Whole nodes count: GPUs of the last node without a rank are idle. A phase whose power is not given is charged as
    computing, which is an upper bound.
    """
    computing, host = machine.gpu_power_mW, machine.host_power_mW
    if computing is None or host is None:
        return None
    waiting, idle = (
        computing if power is None else power for power in (machine.gpu_wait_power_mW, machine.gpu_idle_power_mW)
    )
    busy = {"compute": computing, "wait": waiting, "idle": idle}[phase]
    nodes = _nodes(ranks, machine.ranks_per_node)
    unused = nodes * machine.ranks_per_node - ranks
    drawn = {
        "gpus": (ranks * busy + unused * idle) / _MW_PER_KW,
        "hosts": nodes * host / _MW_PER_KW,
        "nics": nodes * machine.nic_power_mW / _MW_PER_KW,
    }
    return drawn | {"facility": sum(drawn.values()) * (machine.pue_permille - 1000) / 1000}


def energy(parts_s: Mapping[str, float], ranks: int, steps: int, machine: Machine) -> Energy | None:
    """Return the energy of ``steps`` steps whose breakdown (part name -> seconds) is ``parts_s``.

    Each part counts at its phase's power. The result is None if the machine's power is not known.
    """
    by_phase: dict[str, float] = dict.fromkeys(PHASES, 0.0)
    by_component = dict.fromkeys(COMPONENTS, 0.0)
    for phase in PHASES:
        drawn = power_kw(phase, ranks, machine)
        if drawn is None:
            return None
        hours = steps * sum(value for name, value in parts_s.items() if PHASE_OF[name] == phase) / _S_PER_HOUR
        for name, kw in drawn.items():
            by_phase[phase] += kw * hours
            by_component[name] += kw * hours
    return Energy(by_phase, by_component)


def _nodes(ranks: int, ranks_per_node: int) -> int:
    return -(-ranks // ranks_per_node)
