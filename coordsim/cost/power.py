"""What a run costs its owner: node-hours and energy. For reports only, hence floats; no engine reads them."""

from __future__ import annotations

from coordsim.scenario.model import Machine

_NS_PER_HOUR = 3.6e12
_MW_PER_KW = 1e6  # milliwatts


def node_hours(step_time_ns: float, ranks: int, ranks_per_node: int, steps: int) -> float:
    """Node-hours of ``steps`` steps of ``step_time_ns`` each; whole nodes are billed."""
    return _nodes(ranks, ranks_per_node) * step_time_ns * steps / _NS_PER_HOUR


def power_kw(ranks: int, machine: Machine) -> float:
    """Draw in kW at the meter: whole nodes, every GPU and host at the machine's stated power, times PUE.

    An upper bound: a GPU that waits for a collective draws less, which nothing published quantifies.
    """
    node_mw = machine.ranks_per_node * machine.gpu_power_mW + machine.host_power_mW
    return _nodes(ranks, machine.ranks_per_node) * node_mw / _MW_PER_KW * machine.pue_permille / 1000


def energy_kwh(step_time_ns: float, ranks: int, steps: int, machine: Machine) -> float:
    """Energy in kWh of ``steps`` steps of ``step_time_ns`` each, at :func:`power_kw`."""
    return power_kw(ranks, machine) * step_time_ns * steps / _NS_PER_HOUR


def _nodes(ranks: int, ranks_per_node: int) -> int:
    return -(-ranks // ranks_per_node)
