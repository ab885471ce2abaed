"""Ranks, steps and all alike told apart; what goes on; intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from coordsim.analyse.jitter import _variance_of_mean, jitter

PARTS = ("rank", "step", "step_correlation", "common", "common_correlation")


def times(seed: int, steps: int, ranks: int, *, rank=0.0, step=0.0, step_rho=0.0, common=0.0, common_rho=0.0):
    """Shape [step, rank], around 1."""
    random = np.random.default_rng(seed)

    def series(sigma: float, rho: float, of: int) -> np.ndarray:
        fresh = random.standard_normal((steps, of)) * (1 - rho**2) ** 0.5
        fresh[0] /= (1 - rho**2) ** 0.5
        return sigma * lfilter([1.0], [1.0, -rho], fresh, axis=0)

    own, alike = series(step, step_rho, ranks), series(common, common_rho, 1)
    return 1 + rank * random.standard_normal((1, ranks)) + own + alike


TRUTHS = [
    (60, 4, {"rank": 0.02, "step": 0.01, "common": 0.0}),
    (100, 4, {"rank": 0.02, "step": 0.01, "step_rho": 0.7, "common": 0.02, "common_rho": 0.6}),
    (300, 2, {"rank": 0.01, "step": 0.03, "step_rho": 0.3, "common": 0.03, "common_rho": 0.9}),
]


@pytest.mark.parametrize(("steps", "ranks", "truth"), TRUTHS)
def test_intervals_hold_the_truth(steps, ranks, truth):
    """90 % intervals, in 40 records; fewer than 29 would have a chance of 1 in 1,000 (28: 0.03 %)."""
    expected = [truth.get(name.replace("correlation", "rho"), 0.0) for name in PARTS]
    hits = dict.fromkeys(("level", *PARTS), 0)
    for seed in range(40):
        found = jitter(times(seed, steps, ranks, **truth))
        hits["level"] += found.level.low <= 1 <= found.level.high
        for name, value in zip(PARTS, expected, strict=True):
            part = getattr(found, name)
            assert part.low <= part.value <= part.high
            hits[name] += part.low <= value <= part.high
    assert min(hits.values()) >= 29, hits


def test_much_tells_values():
    truth = {"rank": 0.02, "step": 0.01, "step_rho": 0.5, "common": 0.03, "common_rho": 0.8}
    found = jitter(times(1, 4000, 40, **truth))
    for name in PARTS:
        assert getattr(found, name).value == pytest.approx(truth[name.replace("correlation", "rho")], rel=0.3)
    assert found.step.value == pytest.approx(0.01, rel=0.02)
    assert found.step_correlation.value == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("rho", [0.0, 0.4, 0.9])
@pytest.mark.parametrize("count", [1, 2, 7, 50])
def test_variance_of_a_mean(rho, count):
    lags = np.arange(1, count)
    assert _variance_of_mean(rho, count) == pytest.approx((1 + 2 * np.sum((1 - lags / count) * rho**lags)) / count)


def test_one_rank_tells_neither_other_ranks_nor_what_they_have_alike():
    found = jitter(times(0, 100, 1, step=0.02, step_rho=0.8))
    assert (found.rank.high, found.common.high, found.common_correlation.high) == (0.0, 0.0, 0.0)
    assert found.step_correlation.low < 0.8 < found.step_correlation.high


def test_steps_that_are_not_neighbours_are_no_pairs():
    """Every second step of a series that goes on: told so, correlations are not taken from them."""
    whole = times(2, 400, 4, step=0.02, step_rho=0.9)
    assert jitter(whole).step_correlation.value > 0.8
    assert jitter(whole[::2], range(0, 400, 2)).step_correlation.value == 0.0
    gaps = np.r_[0:100, 300:400]
    assert jitter(whole[gaps], gaps).step_correlation.value > 0.75


def test_no_jitter_is_none():
    found = jitter(np.ones((20, 3)))
    assert all(getattr(found, name).high == 0.0 for name in PARTS)
    assert (found.level.low, found.level.high) == (1.0, 1.0)
