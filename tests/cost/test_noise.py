"""Compute noise: the same bits everywhere, and the distribution that was asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coordsim.cost.draws import draw, keys
from coordsim.cost.noise import NoiseModel
from coordsim.scenario.model import Noise, Spread
from coordsim.simulate.problem import Problem
from coordsim.simulate.vector.readiness import ReadySteps
from tests.scenarios import random_scenario, scenario, workload


def python_draw(low: int, high: int, tensor: int) -> int:
    mask = 0xFFFFFFFF
    x = low + tensor * 0x9E3779B9 & mask
    x = (x ^ x >> 16) * 0x7FEB352D & mask
    x ^= high
    x = (x ^ x >> 15) * 0x846CA68B & mask
    return x ^ x >> 16


def test_numpy_draws_equal_plain_python() -> None:
    low, high = keys(12345, 4, 7, np.arange(50))
    for tensor in (0, 1, 160):
        expected = [python_draw(int(a), int(b), tensor) for a, b in zip(low, high, strict=True)]
        assert draw((low, high), tensor).tolist() == expected


def test_golden_draws() -> None:
    """Pinned: another machine, another NumPy, the same numbers."""
    assert draw(keys(0, 4, 1, np.arange(4)), 3).tolist() == GOLDEN


GOLDEN = [4175848614, 2358197043, 1935730544, 1119973720]


@pytest.mark.parametrize("seed", range(40))
def test_kernel_equals_reference(seed: int) -> None:
    """The vector engine's readiness against NumPy's, every rank and unit."""
    described = replace(random_scenario(seed), ranks=301)
    problem = Problem(described)
    ready = ReadySteps(problem)
    for step in (0, 1):
        ready.load(step)
        reference = problem.noise.ready_ns(step, described.workload.forward_ns, problem.backward_ns, 0, 301)
        expected = reference[:, problem.last_member]
        np.testing.assert_array_equal(ready.matrix.T, expected)
        np.testing.assert_array_equal(ready.latest, expected.max(axis=0))


def test_expected_maximum_of_normal_jitter() -> None:
    """E[max] over 27,600 ranks of a normal factor is 4.09 sigma; a table without its tail falls short."""
    ranks, sigma, duration = 27_600, 0.01, 100_000_000
    model = NoiseModel(Noise(step=Spread("normal", 10_000)), 3, ranks, 6)
    steps = 60
    worst = [(int(model.forward_ns(step, duration).max()) / duration - 1) / sigma for step in range(steps)]
    from scipy import integrate, stats

    expected, _ = integrate.quad(lambda x: x * ranks * stats.norm.pdf(x) * stats.norm.cdf(x) ** (ranks - 1), -8, 9)
    deviation = np.std(worst) / np.sqrt(steps)
    assert expected == pytest.approx(4.09, abs=0.02)
    assert abs(np.mean(worst) - expected) < 4 * deviation
    clipped = stats.norm.ppf(1 - 2.0**-10)  # what 1,024 segments without a refined tail would give
    assert abs(clipped - expected) > 4 * deviation


def test_expected_maximum_of_exponential_jitter() -> None:
    """E[max] of N exponentials is the N-th harmonic number."""
    ranks, duration = 5000, 10_000_000
    model = NoiseModel(Noise(step=Spread("exponential", 50_000)), 9, ranks, 6)
    worst = [(int(model.forward_ns(step, duration).max()) / duration - 1) / 0.05 for step in range(120)]
    harmonic = float(np.sum(1 / np.arange(1, ranks + 1)))
    assert abs(np.mean(worst) - harmonic) < 4 * np.std(worst) / np.sqrt(len(worst))


def test_screening_leaves_out_the_slowest_nodes() -> None:
    noise = Noise(rank=Spread("normal", 20_000), node=Spread("exponential", 20_000))
    everyone = NoiseModel(noise, 1, 600, 6).persistent_q16
    screened = NoiseModel(replace(noise, screen_ppm=100_000), 1, 600, 6).persistent_q16
    assert screened.size == everyone.size == 600
    assert screened.max() < everyone.max()
    more = NoiseModel(noise, 1, 672, 6).persistent_q16.reshape(-1, 6)  # the 112 candidates
    kept = more[np.sort(np.argsort(more.max(axis=1), kind="stable")[:100])]
    np.testing.assert_array_equal(screened, kept.reshape(-1))


def test_rare_stalls_are_as_rare_and_long_as_asked() -> None:
    model = NoiseModel(Noise(stall_ppm=20_000, stall_ns=5_000_000), 4, 20_000, 6)
    stalls = np.concatenate([model.stall_ns(step) for step in range(5)])
    share = np.mean(stalls > 0)
    assert share == pytest.approx(0.02, rel=0.1)
    assert np.mean(stalls[stalls > 0]) == pytest.approx(5_000_000, rel=0.1)


def test_detours_are_as_rare_and_long_as_asked() -> None:
    """One chance per rank and cycle; None where a cycle has none; not the stalls' draws."""
    model = NoiseModel(Noise(detour_ppm=20_000, detour_ns=5_000_000), 4, 20_000, 6)
    detours = np.concatenate([model.detour_ns(cycle) for cycle in range(5)])
    assert np.mean(detours > 0) == pytest.approx(0.02, rel=0.1)
    assert np.mean(detours[detours > 0]) == pytest.approx(5_000_000, rel=0.1)
    stalls = NoiseModel(Noise(stall_ppm=20_000, stall_ns=5_000_000), 4, 20_000, 6).stall_ns(0)
    assert (stalls != model.detour_ns(0)).any()
    np.testing.assert_array_equal(model.detour_ns(7), model.detour_ns(7))
    few = NoiseModel(replace(model.noise, detour_ppm=1000), 4, 3, 6)
    hit = [few.detour_ns(cycle) is not None for cycle in range(2000)]
    assert 0 < sum(hit) < 30
    assert NoiseModel(Noise(detour_ppm=1000), 4, 3, 6).detour_ns(0) is None
    assert NoiseModel(Noise(detour_ns=1000), 4, 3, 6).detour_ns(0) is None


def test_jitter_never_reverses_time() -> None:
    """Spreads so wide that a normal factor would go below zero are clamped; readiness stays monotone."""
    noise = Noise(tensor=Spread("normal", 900_000), step=Spread("normal", 900_000))
    problem = Problem(scenario(500, noise=noise, workload=workload(20)))
    ready = problem.noise.ready_ns(1, 1000, problem.backward_ns, 0, 500)
    assert (np.diff(ready, axis=1) >= 0).all()
    assert (np.diff(ready, axis=1) == 0).any()
