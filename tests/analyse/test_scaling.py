"""Scaling efficiency: against one noise-free median GPU without negotiation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordsim.analyse.scaling import baseline_step_s, scaling
from coordsim.scenario.model import CONTROL_PLANES, Noise, Spread
from coordsim.simulate.engine import simulate
from tests.scenarios import PLANE, scenario, workload

ALONE_S = (2_000_000 + 8 * 500_000 + 300_000) / 1e9
"""forward, eight gradients, optimizer"""
NOISE = Noise(rank=Spread("half-normal", 200_000), tensor=Spread("normal", 50_000))


@pytest.mark.parametrize("plane", CONTROL_PLANES)
def test_the_baseline_depends_on_neither_control_plane_nor_noise_nor_ranks(plane: str) -> None:
    described = scenario(7, noise=NOISE, control_plane=replace(PLANE, name=plane))
    assert baseline_step_s(described) == pytest.approx(ALONE_S, rel=1e-12)


def test_a_rank_alone_is_the_baseline() -> None:
    scaled = scaling(simulate(scenario(1, noise=Noise())))
    assert scaled.efficiency == 1
    assert scaled.baseline_step_s == pytest.approx(ALONE_S)


def test_noise_slows_a_lone_rank() -> None:
    assert scaling(simulate(scenario(1, 4, noise=NOISE))).efficiency < 1


@pytest.mark.parametrize("plane", ["ideal", "coordinator", "cached"])
def test_efficiency_is_baseline_over_step(plane: str) -> None:
    job = workload(batch=3, flops_per_sample=7 * 10**9)
    simulation = simulate(scenario(9, workload=job, noise=NOISE, control_plane=replace(PLANE, name=plane)))
    scaled = scaling(simulation)
    assert scaled.efficiency == pytest.approx(ALONE_S / simulation.step_time_s)
    assert 0 < scaled.efficiency < 1
    assert scaled.samples_per_s == pytest.approx(9 * 3 / simulation.step_time_s)
    assert scaled.sustained_flops == pytest.approx(scaled.samples_per_s * 7e9)


def test_the_baseline_reads_its_own_samples_only() -> None:
    """8 ms for one rank's 44 MB at 5.5 GB/s: longer than its step, and six ranks a node need 48 ms."""
    job = workload(sample_bytes=44_000_000)
    assert baseline_step_s(scenario(6, workload=job)) == pytest.approx(0.008)
    assert scaling(simulate(scenario(6, workload=job))).efficiency == pytest.approx(1 / 6, rel=1e-3)
