"""Noise: its distribution, what stays with ranks and nodes, stalls, detours."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordsim.analyse.calibrate.detours import detours
from coordsim.analyse.calibrate.noise import compute_noise, lag_one, persistent
from coordsim.analyse.calibrate.result import Estimate, TooLittle
from coordsim.cost.noise import NoiseModel
from coordsim.record.measurement import Series
from coordsim.scenario.model import Distribution, Noise, Spread
from tests.analyse.measured import computing, measurement


def by_key(found: list[Estimate]) -> dict[str, Estimate]:
    return {each.key: each for each in found if each.key}


def drawn(distribution: str, sigma: float, seed: int, ranks: int = 2, steps: int = 400) -> list[Series]:
    random = np.random.default_rng(seed)
    z = {
        "normal": random.standard_normal, "half-normal": lambda size: np.abs(random.standard_normal(size)),
        "exponential": lambda size: random.exponential(size=size), "uniform": lambda size: random.uniform(size=size),
    }[distribution]  # fmt: skip
    samples = 5e6 * (1 + sigma * z((ranks, steps)))
    return [Series("compute", ranks, tuple(row.tolist()), rank=rank, node="n0") for rank, row in enumerate(samples)]


@settings(max_examples=6, deadline=None)
@given(
    st.sampled_from(["normal", "half-normal", "exponential", "uniform"]), st.floats(0.01, 0.2), st.integers(0, 10_000)
)
def test_the_distribution_and_its_scale_are_recovered(distribution: str, sigma: float, seed: int) -> None:
    found = compute_noise(measurement(drawn(distribution, sigma, seed, ranks=1, steps=800)))
    by_name = {each.distribution: each for each in found.candidates}
    true = by_name[distribution]
    assert true.parameter == pytest.approx(sigma, rel=0.2)
    assert true.ks < 2 * found.critical_ks
    assert found.candidates[0].ks <= true.ks


@pytest.mark.parametrize("distribution", ["normal", "half-normal", "exponential", "uniform"])
def test_the_nearest_distribution_is_taken(distribution: str) -> None:
    found = compute_noise(measurement(drawn(distribution, 0.1, 7, ranks=1, steps=2000)))
    assert found.distribution == distribution
    assert [each.sayable for each in found.candidates] == [True] * 4 + [False] * 3


@pytest.mark.long
def test_intervals_of_sigma_hold_the_truth() -> None:
    hits = 0
    for seed in range(12):
        step = by_key(compute_noise(measurement(drawn("normal", 0.03, seed, steps=150))).estimates)["noise.step"]
        hits += step.low <= 0.03 <= step.high
    assert hits >= 9


@pytest.mark.long
def test_what_stays_with_ranks_and_nodes_is_told_from_the_steps() -> None:
    hits = {"noise.rank": 0, "noise.node": 0}
    for seed in range(12):
        series = computing(48, 60, 0.05, seed, persistent=0.03, node=0.04)
        found = by_key(compute_noise(measurement(series)).estimates)
        for key, truth in (("noise.rank", 0.03), ("noise.node", 0.04)):
            hits[key] += found[key].low <= truth <= found[key].high
        assert found["noise.rank"].value == pytest.approx(0.03, rel=0.5)
    assert min(hits.values()) >= 9, hits


def test_noise_that_does_not_stay_is_not_taken_for_a_slow_rank() -> None:
    found = by_key(compute_noise(measurement(computing(16, 200, 0.05, 2))).estimates)
    assert found["noise.rank"].value < 0.004


def test_two_ranks_and_one_node_tell_no_spread() -> None:
    found = compute_noise(measurement(drawn("normal", 0.03, 1)))
    assert dict(found.not_fitted).keys() == {"noise.rank", "noise.node", "noise.common"}


def simulated(noise: Noise, ranks: int, steps: int, seed: int) -> list[Series]:
    """Ranks' times with a scenario's noise."""
    model = NoiseModel(noise, seed, ranks, 4)
    times = np.array([model.forward_ns(step, 5_000_000) for step in range(steps)], dtype=np.float64).T
    return [Series("step", ranks, tuple(row.tolist()), rank=rank, node="n0") for rank, row in enumerate(times)]


@pytest.mark.long
@pytest.mark.parametrize("distribution", ["normal", "exponential"])
def test_what_goes_on_and_what_all_have_alike_come_back(distribution: Distribution) -> None:
    """The simulator's own noise, fitted over seeds: values near, intervals that hold them."""
    noise = Noise(
        step=Spread(distribution, 40_000), step_correlation_ppm=600_000,
        common=Spread("normal", 20_000), common_correlation_ppm=900_000,
    )  # fmt: skip
    truth = {"noise.step.correlation": 0.6, "noise.common": 0.02, "noise.common.correlation": 0.9}
    found = [by_key(compute_noise(measurement(simulated(noise, 8, 500, seed))).estimates) for seed in range(10)]
    for key, value in truth.items():
        assert sum(each[key].low <= value <= each[key].high for each in found) >= 7, key
        assert np.mean([each[key].value for each in found]) == pytest.approx(value, rel=0.2)
    assert np.mean([each["noise.step"].value for each in found]) == pytest.approx(0.04, rel=0.2)


def test_independent_ranks_have_nothing_alike() -> None:
    found = compute_noise(measurement(simulated(Noise(step=Spread("normal", 40_000)), 4, 200, 1)))
    assert "could be seen" in dict(found.not_fitted)["noise.common"]
    assert by_key(found.estimates)["noise.step.correlation"].low == 0.0


def test_correlated_samples_are_not_held_to_independent_ones_distance() -> None:
    """A normal law that goes on is a normal law."""
    noise = Noise(step=Spread("normal", 40_000), step_correlation_ppm=900_000)
    found = compute_noise(measurement(simulated(noise, 2, 400, 3)))
    assert found.critical_ks > 2 * 1.358 / 800**0.5
    assert not any("no distribution" in each for each in found.notes)


def test_neighbours_that_are_alike_widen_the_error_of_a_mean() -> None:
    random = np.random.default_rng(0)
    walk = np.zeros(500)
    for index in range(1, 500):
        walk[index] = 0.9 * walk[index - 1] + random.standard_normal()
    assert lag_one(walk) == pytest.approx(0.9, abs=0.08)
    rows = [1 + 0.02 * np.roll(walk, shift) for shift in (0, 170, 340)]
    assert persistent(rows, [0, 0, 0]) == 0.0
    assert lag_one(np.ones(9)) == 0.0


def test_rare_stalls_are_told_from_the_body() -> None:
    random = np.random.default_rng(5)
    samples = 5e6 * (1 + 0.01 * random.standard_normal((2, 500)))
    hit = random.uniform(size=samples.shape) < 0.01
    samples[hit] += random.exponential(4e6, size=int(hit.sum())) + 1e6
    series = [Series("compute", 2, tuple(row.tolist()), rank=rank, node="n0") for rank, row in enumerate(samples)]
    found = by_key(compute_noise(measurement(series)).estimates)
    assert found["noise.stall_probability"].value == pytest.approx(hit.mean(), rel=0.01)
    assert found["noise.step"].value == pytest.approx(0.01, rel=0.15)
    assert found["noise.stall_length"].low < 5e6 < found["noise.stall_length"].high


def test_a_machine_that_changed_meanwhile_is_told() -> None:
    samples = np.concatenate([np.full(200, 5e6), np.full(200, 6e6)]) + np.arange(400)
    found = compute_noise(measurement([Series("compute", 2, tuple(samples.tolist()), rank=0, node="n0")]))
    assert any("second half" in each for each in found.notes)
    assert any("no distribution" in each for each in found.notes)


def test_detours_are_of_one_rank() -> None:
    random = np.random.default_rng(1)
    samples = 20_000 * (1 + 0.02 * random.standard_normal(2000))
    hit = random.uniform(size=2000) < 0.02
    samples[hit] += 60_000 + random.exponential(100_000, size=int(hit.sum()))
    found = by_key(detours(measurement([Series("and", 4, tuple(samples.tolist()), 8)])))
    chance = found["noise.detour_probability"]
    assert chance.low < 1 - 0.98**0.25 < chance.high
    assert found["noise.detour_length"].value == pytest.approx(160_000, rel=0.4)


def test_what_is_not_rare_is_no_detour() -> None:
    samples = [20_000.0] * 90 + [90_000.0] * 10
    with pytest.raises(TooLittle, match="not rare"):
        detours(measurement([Series("and", 2, tuple(samples), 8)]))


@pytest.mark.parametrize(
    ("series", "message"),
    [
        ([], "had a core each"),
        ([Series("compute", 2, (5e6,) * 19, rank=0)], "19 steps; at least 20"),
        ([Series("compute", 2, (0.0,) * 40, rank=0)], "median time is 0"),
        ([Series("compute", 4, (5e6,) * 40, rank=0)], "had a core each"),
    ],
)
def test_too_little_is_refused(series: list[Series], message: str) -> None:
    with pytest.raises(TooLittle, match=message):
        compute_noise(measurement(series, cores=2))
