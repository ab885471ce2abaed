"""Node-hours and energy by phase, by hand (allocation of a whole job: tests/analyse/test_summary.py)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordsim.cost.power import COMPONENTS, PHASE_OF, PHASES, Phase, energy, node_hours, power_kw
from coordsim.record.breakdown import PARTS
from coordsim.scenario.model import Machine

SUMMIT = Machine(
    ranks_per_node=6,
    max_nodes=4_608,
    device_flops=60 * 10**12,
    node_read_Bps=0,
    gpu_power_mW=300_000,
    host_power_mW=400_000,
    pue_permille=1_100,
    gpu_wait_power_mW=100_000,
    gpu_idle_power_mW=50_000,
    nic_power_mW=100_000,
)
HOUR_NS = 3_600 * 10**9
UNTOLD = replace(SUMMIT, gpu_wait_power_mW=None, gpu_idle_power_mW=None)


def parts(**seconds: float) -> dict[str, float]:
    return dict.fromkeys(PARTS, 0.0) | seconds


def test_node_hours_by_hand() -> None:
    assert node_hours(HOUR_NS, ranks=12, ranks_per_node=6, steps=3) == pytest.approx(6)


@pytest.mark.parametrize(("ranks", "nodes"), [(1, 1), (6, 1), (7, 2), (27_600, 4_600)])
def test_whole_nodes_are_billed(ranks: int, nodes: int) -> None:
    assert node_hours(HOUR_NS, ranks, 6, 1) == pytest.approx(nodes)
    for phase in PHASES:  # GPUs without a rank draw as much as the others where no idle power is known
        assert sum(power_kw(phase, ranks, UNTOLD).values()) == pytest.approx(nodes * 2.3 * 1.1)


@pytest.mark.parametrize(("phase", "gpu_w"), [("compute", 300), ("wait", 100), ("idle", 50)])
def test_draw_by_component(phase: Phase, gpu_w: int) -> None:
    """7 ranks on 12 GPUs: the other 5 idle at 50 W."""
    found = power_kw(phase, 7, SUMMIT)
    gpus = (7 * gpu_w + 5 * 50) / 1000
    assert found == pytest.approx({"gpus": gpus, "hosts": 0.8, "nics": 0.2, "facility": 0.1 * (gpus + 1)})
    assert tuple(found) == COMPONENTS


def test_every_part_of_a_step_has_a_phase() -> None:
    assert set(PHASE_OF) == set(PARTS)
    assert set(PHASE_OF.values()) == set(PHASES)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_charged_at_its_phases_power(part: str) -> None:
    """An hour of any one part on one whole node."""
    gpu_w = {"forward": 300, "backward": 300, "optimizer": 300, "input_stall": 50}.get(part, 100)
    found = energy(parts(**{part: 3600 / 1000}), 6, 1000, SUMMIT)
    assert found is not None
    kwh = (6 * gpu_w + 500) / 1000 * 1.1
    assert found.kwh == pytest.approx(kwh)
    assert found.by_phase == pytest.approx({phase: kwh * (phase == PHASE_OF[part]) for phase in PHASES})
    assert sum(found.by_component.values()) == pytest.approx(kwh)


def test_energy_of_a_step_is_the_sum_of_its_parts() -> None:
    """Two nodes: 2 s of compute, 1 s of waiting, 0.5 s without input; 100 steps."""
    found = energy(parts(forward=0.5, backward=1.5, cycle_wait=0.25, exposed_collective=0.75, input_stall=0.5), 12, 100,
                   SUMMIT)  # fmt: skip
    assert found is not None
    kwh = {"compute": 2 * 4.6, "wait": 1 * 2.2, "idle": 0.5 * 1.6}  # kW x s
    assert found.by_phase == pytest.approx({phase: each * 1.1 * 100 / 3600 for phase, each in kwh.items()})


def test_nothing_takes_nothing() -> None:
    found = energy(parts(), 6, 1_000, SUMMIT)
    assert found is not None
    assert found.kwh == 0


def test_pue_scales_energy_only() -> None:
    """Facility is exactly what PUE adds."""
    step = parts(backward=1.0, straggler_wait=0.1)
    metered, ideal = energy(step, 96, 1, SUMMIT), energy(step, 96, 1, replace(SUMMIT, pue_permille=1_000))
    assert metered is not None
    assert ideal is not None
    assert metered.kwh / ideal.kwh == pytest.approx(1.1)
    assert ideal.by_component["facility"] == 0
    assert metered.by_component["facility"] == pytest.approx(0.1 * ideal.kwh)


@pytest.mark.parametrize("missing", ["gpu_power_mW", "host_power_mW"])
def test_unknown_power_is_not_zero(missing: str) -> None:
    unknown = replace(SUMMIT, **{missing: None})
    assert energy(parts(forward=1.0), 6, 1, unknown) is None
    assert power_kw("idle", 6, unknown) is None


def test_a_power_that_is_not_told_is_the_computing_one() -> None:
    step = parts(backward=1.0, straggler_wait=0.5, input_stall=0.25)
    bound, told = energy(step, 7, 1, UNTOLD), energy(step, 7, 1, SUMMIT)
    assert bound is not None
    assert told is not None
    assert bound.kwh == pytest.approx(1.75 * 2 * 2.3 * 1.1 / 3600)
    assert told.kwh < bound.kwh
