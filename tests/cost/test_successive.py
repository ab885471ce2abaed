"""Noise that goes on from step to step, and noise of all ranks alike: distribution, correlation, and from where it is
asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from coordsim.cost.draws import Quantiles, draw, keys
from coordsim.cost.noise import LARGEST_Q16, ONE_Q16, STREAM_COMMON, STREAM_STEP, NoiseModel
from coordsim.cost.successive import Successive
from coordsim.scenario.model import Distribution, Noise, Scenario, Spread
from coordsim.simulate import event, vector
from coordsim.simulate.problem import Problem
from tests.scenarios import scenario

DISTRIBUTIONS: tuple[Distribution, ...] = ("normal", "half-normal", "exponential", "uniform")
RANKS, STEPS = 4000, 60


def factors(spread: Spread, correlation_ppm: int, seed: int = 1, steps: int = STEPS, ranks: int = RANKS) -> np.ndarray:
    """Shape [step, rank]."""
    model = NoiseModel(Noise(step=spread, step_correlation_ppm=correlation_ppm), seed, ranks, 6)
    return np.array([model.step_q16(step) for step in range(steps)]) / ONE_Q16


def scores(samples: np.ndarray) -> np.ndarray:
    """Normal scores of all samples together."""
    return stats.norm.ppf((stats.rankdata(samples) - 0.5) / samples.size).reshape(samples.shape)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("correlation", [0.3, 0.9, 0.999])
def test_a_steps_distribution_is_the_one_asked_for(distribution: Distribution, correlation: float) -> None:
    """Against the law itself, in the first step, in the next one and far on; the tail by the largest of all ranks."""
    law = {"normal": stats.norm, "half-normal": stats.halfnorm, "exponential": stats.expon, "uniform": stats.uniform}
    found = (factors(Spread(distribution, 50_000), round(correlation * 1e6), ranks=20_000) - 1) / 0.05
    for step in (0, 1, STEPS - 1):
        assert stats.kstest(found[step], law[distribution].cdf).pvalue > 1e-3
        largest = law[distribution].sf(found[step].max()) * 20_000  # exponential with mean 1
        assert 1e-3 < largest < 8


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("correlation", [0.0, 0.05, 0.5, 0.9, 0.99])
def test_the_correlation_is_the_one_asked_for(distribution: Distribution, correlation: float) -> None:
    """In normal scores: of one step with the next, and its square over two; pairs of ranks have nothing in common."""
    found = scores(factors(Spread(distribution, 100_000), round(correlation * 1e6)))
    for distance in (1, 2):
        pairs = np.corrcoef(found[:-distance].ravel(), found[distance:].ravel())[0, 1]
        error = (1 - correlation ** (2 * distance)) / np.sqrt(RANKS) + 1e-3
        assert abs(pairs - correlation**distance) < 4 * error
    apart = np.corrcoef(found[:, 0::2].ravel(), found[:, 1::2].ravel())[0, 1]
    assert abs(apart) < 4 / np.sqrt(RANKS)


@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.95])
def test_the_mean_of_some_steps_varies_as_the_formula_says(correlation: float) -> None:
    """Var(mean of n) = sigma^2/n (1 + 2 sum_k (1 - k/n) rho^k), over many ranks."""
    sigma = 0.02
    for steps in (2, 10, 60):
        means = factors(Spread("normal", 20_000), round(correlation * 1e6), steps=steps, ranks=20_000).mean(axis=0)
        lags = np.arange(1, steps)
        expected = sigma**2 / steps * (1 + 2 * np.sum((1 - lags / steps) * correlation**lags))
        assert means.var() == pytest.approx(expected, rel=4 * np.sqrt(2 / 20_000))


def test_without_correlation_every_draw_is_the_counters() -> None:
    spread, indices = Spread("exponential", 70_000), np.arange(300)
    expected = Quantiles.of(spread).factor(draw(keys(5, STREAM_STEP, 3, indices)))
    np.testing.assert_array_equal(Successive(5, STREAM_STEP, indices, spread, 0).factor_q16(3), expected)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_first_step_is_as_without_correlation(distribution: Distribution) -> None:
    """z(0) = e(0), so what comes back is the draw, up to the tables' rounding; one-sided spreads by rank."""
    one, other = (factors(Spread(distribution, 10_000), ppm, steps=1)[0] for ppm in (0, 500_000))
    if distribution == "normal":
        np.testing.assert_allclose(one, other, atol=3 / ONE_Q16)
    assert stats.ks_2samp(one, other).pvalue > 1e-3


@pytest.mark.parametrize("correlation_ppm", [1, 700_000, 999_999])
def test_a_steps_noise_does_not_depend_on_who_asked_before(correlation_ppm: int) -> None:
    """Backwards, with gaps, again, in another number of ranks, in more than one chunk: always the same."""
    noise = Noise(
        rank=Spread("normal", 10_000), step=Spread("normal", 30_000), step_correlation_ppm=correlation_ppm,
        common=Spread("exponential", 20_000), common_correlation_ppm=correlation_ppm,
    )  # fmt: skip
    ranks = (1 << 15) + 7
    inorder = NoiseModel(noise, 9, ranks, 6)
    expected = [inorder.step_q16(step).copy() for step in range(8)]
    other = NoiseModel(noise, 9, ranks, 6)
    for step in (7, 2, 2, 0, 5, 1):
        np.testing.assert_array_equal(other.step_q16(step), expected[step])
    few = NoiseModel(noise, 9, 12, 6)
    np.testing.assert_array_equal(few.step_q16(6), expected[6][:12])


def test_golden_scores() -> None:
    """Pinned: another machine, another NumPy, the same numbers."""
    found = Successive(3, STREAM_STEP, np.arange(4), Spread("normal", 100_000), 700_000)
    assert [found.factor_q16(step).tolist() for step in (0, 1, 9)] == GOLDEN


GOLDEN = [[63830, 75092, 67197, 72925], [62456, 74967, 73194, 66086], [73770, 65349, 67342, 57221]]


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_scores_beyond_the_table_stay_inside(distribution: Distribution) -> None:
    """The largest and the least factor there are, and order in between."""
    found = Successive(0, 1, np.arange(5), Spread(distribution, 100_000), 500_000)
    u32 = found._bits(np.array([-(1 << 31), -(1 << 20), 0, 1 << 20, 1 << 31]))
    factor = found._quantiles.factor(u32)
    assert (np.diff(factor) > 0).all()
    assert factor[-1] < 4 * ONE_Q16
    assert (np.diff(found._bits(np.arange(0, 7 << 24, 1 << 14)).astype(np.int64)) >= 0).all()


def test_common_noise_is_alike_on_all_ranks() -> None:
    quiet = Noise(common=Spread("normal", 30_000), common_correlation_ppm=800_000)
    model = NoiseModel(quiet, 4, 50, 6)
    found = np.array([model.step_q16(step) for step in range(4000)]) / ONE_Q16
    assert (found == found[:, :1]).all()
    assert found.std() == pytest.approx(0.03, rel=0.1)
    assert np.corrcoef(found[:-1, 0], found[1:, 0])[0, 1] == pytest.approx(0.8, abs=0.04)
    beside = NoiseModel(replace(quiet, step=Spread("normal", 10_000)), 4, 50, 6)
    plain = NoiseModel(Noise(step=Spread("normal", 10_000)), 4, 50, 6)
    alike = Successive(4, STREAM_COMMON, np.zeros(1, np.int64), quiet.common, 800_000)
    expected = plain.step_q16(7) * alike.factor_q16(7)
    np.testing.assert_array_equal(beside.step_q16(7), expected >> 16)


def test_nobody_waits_for_common_noise() -> None:
    """Steps differ by it, and all ranks are ready together; it costs no straggler wait."""
    described = scenario(6, steps=40, noise=Noise(common=Spread("normal", 50_000)))
    trace = vector.run(Problem(described))
    ready = trace.steps["ready_last_ns"] - trace.steps["start_ns"]
    np.testing.assert_array_equal(ready, trace.steps["ready_median_ns"])
    assert np.std(ready[1:]) / np.mean(ready[1:]) == pytest.approx(0.05, rel=0.4)
    assert not described.noise.silent


def test_factors_together_are_bounded() -> None:
    """Spreads of 100 % on everything stay inside 32 bits, in both engines."""
    spread = Spread("exponential", 1_000_000)
    noise = Noise(rank=spread, node=spread, step=spread, common=spread, tensor=spread)
    model = NoiseModel(noise, 0, 100, 6)
    model.persistent_q16 = np.full(100, 500 << 16, dtype=np.int64)  # type: ignore[misc]
    assert max(int(model.step_q16(step).max()) for step in range(200)) == LARGEST_Q16


@pytest.mark.parametrize("steps", [3, 9])
def test_the_first_steps_are_the_same_however_many_follow(steps: int) -> None:
    noise = Noise(
        step=Spread("normal", 100_000), step_correlation_ppm=900_000, common=Spread("normal", 50_000),
        common_correlation_ppm=990_000,
    )  # fmt: skip

    def ends(described: Scenario) -> list[int]:
        return vector.run(Problem(described)).steps["end_ns"].tolist()

    described = scenario(5, steps=steps, noise=noise)
    longer = replace(described, steps=12)
    assert ends(described) == ends(longer)[: steps + 1]
    assert event.run(Problem(described)).steps["end_ns"].tolist() == ends(described)
