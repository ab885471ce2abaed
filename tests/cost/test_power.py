"""Allocation and energy, by hand; Summit as a sanity check (docs/published.md V18)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordsim.cost.power import energy_kwh, node_hours, power_kw
from coordsim.scenario.model import Machine

SUMMIT = Machine(
    ranks_per_node=6,
    max_nodes=4_608,
    device_flops=60 * 10**12,
    node_read_Bps=0,
    gpu_power_mW=300_000,
    host_power_mW=500_000,
    pue_permille=1_100,
)
HOUR_NS = 3_600 * 10**9


def test_node_hours_by_hand() -> None:
    assert node_hours(HOUR_NS, ranks=12, ranks_per_node=6, steps=3) == pytest.approx(6)


@pytest.mark.parametrize(("ranks", "nodes"), [(1, 1), (6, 1), (7, 2), (27_600, 4_600)])
def test_whole_nodes_are_billed(ranks: int, nodes: int) -> None:
    assert node_hours(HOUR_NS, ranks, 6, 1) == pytest.approx(nodes)
    assert power_kw(ranks, SUMMIT) == pytest.approx(nodes * 2.3 * 1.1)


def test_energy_is_power_times_time() -> None:
    assert energy_kwh(HOUR_NS / 1_000, 6, 1_000, SUMMIT) == pytest.approx(2.3 * 1.1)
    assert energy_kwh(0, 6, 1_000, SUMMIT) == 0


def test_pue_scales_energy_only() -> None:
    ideal = replace(SUMMIT, pue_permille=1_000)
    ratio = energy_kwh(HOUR_NS, 96, 1, SUMMIT) / energy_kwh(HOUR_NS, 96, 1, ideal)
    assert ratio == pytest.approx(1.1)


def test_a_full_summit_job_stays_inside_the_machine_s_13_megawatts() -> None:
    assert 7_000 < power_kw(27_600, SUMMIT) < 13_000
