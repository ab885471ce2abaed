"""Which distribution a sample is like, by its Kolmogorov-Smirnov distance.

A scenario can say four: ``base * (1 + sigma * z)`` with z normal, half-normal, exponential or uniform on [0, 1)
(coordsim.scenario.model.Spread). Lognormal, gamma and the sample's own quantiles are yardsticks: how much better a
freer distribution would do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from coordsim.analyse.calibrate.regression import Float
from coordsim.analyse.calibrate.result import Candidate

HALVES = "own quantiles, half against half"
SAYABLE = {"normal": "norm", "half-normal": "halfnorm", "exponential": "expon", "uniform": "uniform"}
"""Names of a scenario, and SciPy's."""
LARGEST_SIGMA = 1.0
"""A scenario's bound."""
FEWEST = 50
"""Of a sample that stay, however alike neighbours are."""
SIMULATED = 99
"""Samples of the fitted distribution behind a p-value."""
LARGEST = 400
"""Of a sample a p-value is simulated for; more are thinned evenly, and so are neighbours that are alike."""


@dataclass(frozen=True)
class Body:
    """One sayable distribution, fitted."""

    distribution: str
    base: float
    """What a time without noise would be."""
    sigma: float
    """Scale over base."""
    ks: float

    @classmethod
    def of(cls, distribution: str, sample: Float) -> Body:
        """By maximum likelihood; the KS distance is to the sample itself."""
        from scipy import stats

        law = getattr(stats, SAYABLE[distribution])
        location, scale = law.fit(sample)
        base = float(location)
        scale = max(float(scale), 1e-12)
        sigma = scale / base if base > 0 else float("inf")
        return cls(distribution, base, sigma, float(stats.kstest(sample, law(base, scale).cdf).statistic))


def candidates(sample: Float, by_rank: Float, alike: float = 1.0) -> tuple[list[Candidate], float, Body]:
    """All that were tried, the best sayable one first; the critical distance at 5 %; the best.

    ``sample``: relative times without stalls; ``by_rank``: all of them, shape [rank, step], for the split in halves;
    ``alike``: how many neighbours tell as much as one independent time.
    """
    from scipy import stats

    # An exponential or uniform law whose floor is a time of 0 has no spread relative to it; the normal one always has.
    fitted = [body for name in SAYABLE if (body := Body.of(name, sample)).base > 0]
    fitted.sort(key=lambda each: (each.sigma > LARGEST_SIGMA, each.ks))
    found = [
        Candidate(each.distribution, each.sigma, each.ks, None, each.sigma <= LARGEST_SIGMA) for each in fitted
    ]
    best = fitted[0]
    found[0] = replace(found[0], p_value=_p_value(best, sample, alike))
    if np.ptp(sample) > 0:
        for name, law in (("lognormal", stats.lognorm), ("gamma", stats.gamma)):
            floor = float(sample.min()) - 0.01 * float(np.ptp(sample))
            shape, location, scale = law.fit(sample, floc=floor)
            distance = float(stats.kstest(sample, law(shape, location, scale).cdf).statistic)
            relative = float(law(shape, location, scale).std()) / float(sample.mean())
            found.append(Candidate(name, relative, distance, None, False))
    half = by_rank.shape[1] // 2
    apart = float(stats.ks_2samp(by_rank[:, :half].ravel(), by_rank[:, half:].ravel()).statistic)
    found.append(Candidate(HALVES, float(sample.std()), apart, None, False))
    return found, 1.358 / float(np.sqrt(sample.size / alike)), best


def _p_value(best: Body, sample: Float, alike: float) -> float:
    """By simulation, since the distribution was fitted to the sample itself (Lilliefors)."""
    from scipy import stats

    thinned = sample[:: max(-(-sample.size // LARGEST), min(round(alike), sample.size // FEWEST))]
    if np.ptp(thinned) == 0:
        return 0.0
    law = getattr(stats, SAYABLE[best.distribution])
    found = stats.goodness_of_fit(law, thinned, statistic="ks", n_mc_samples=SIMULATED, rng=np.random.default_rng(0))
    return float(found.pvalue)
