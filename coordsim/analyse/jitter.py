"""Variance components of ranks' times (rank, step, common) and lag-1 autocorrelation, with intervals.

The model is ``x[step, rank] = level + rank + step + common`` (docs/semantics.md 1.5). ``rank`` is persistent. ``step``
is independent between ranks, ``common`` is the same on all ranks, and both are first-order autoregressive. Covariances
separate them: two ranks share nothing but ``common``, so the mean product of their deviations is its variance, and the
mean product one step apart gives its autocorrelation. What a rank's own products have beyond that is ``step``. The mean
of the sample is itself estimated, which makes both variances too small by the variance of that mean; this is corrected.

Intervals of variances follow the chi-square law with as many degrees of freedom as an autoregressive process leaves.
Intervals of autocorrelations come from a parametric bootstrap: jobs simulated with the estimates are fitted again. The
intervals do not cover errors of the model itself, above all ranks that behave differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

RESAMPLES = 300
LARGEST_JOB = 1 << 16
"""Largest number of times in one simulated job; a job with more ranks is simulated with fewer."""
HIGHEST_CORRELATION = 0.99
"""Largest autocorrelation that is estimated: beyond it a few hundred steps cannot tell ``step`` from ``rank``."""
FEWEST_PAIRS = 5
"""Fewest pairs of successive steps from which an autocorrelation is estimated; with fewer it is 0."""


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its interval, in the value's unit."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Jitter:
    """Estimates: a mean and standard deviations in the unit of the times, and lag-1 autocorrelations."""

    level: Interval
    """Mean over all ranks and steps."""
    rank: Interval
    step: Interval
    step_correlation: Interval
    common: Interval
    """0 with one rank, where it cannot be told from ``step`` and is part of it."""
    common_correlation: Interval


def jitter(times: Numbers, steps: Sequence[int] | None = None, share: float = 0.9) -> Jitter:
    """Estimate the variance components of ``times``, shape [step, rank], from at least two steps.

    ``steps`` holds the steps' numbers, needed where some are missing: a pair counts for the autocorrelation only if its
    steps follow each other. ``share`` is the level of all intervals.
    """
    from scipy.stats import t as student

    follows = np.flatnonzero(np.diff(np.arange(len(times)) if steps is None else np.asarray(steps)) == 1)
    fit = _fit(times[None], follows)
    count, ranks = times.shape
    own, alike = float(fit.step[0]), float(fit.common[0])
    between = float(times.mean(axis=0).var(ddof=1)) if ranks > 1 else 0.0
    tail = (1 - share) / 2
    drawn = _bootstrap(fit, times.shape, follows)
    rho = _correlation_interval(float(fit.step_rho[0]), drawn.step_rho, tail)
    rho_alike = _correlation_interval(float(fit.common_rho[0]), drawn.common_rho, tail)
    of_mean = own * float(_variance_of_mean(rho.value, count))
    of_mean_alike = alike * float(_variance_of_mean(rho_alike.value, count)) if ranks > 1 else of_mean
    normal, few = float(student.ppf(1 - tail, 1e9)), float(student.ppf(1 - tail, max(ranks - 1, 1)))
    half = (normal**2 * of_mean_alike + few**2 * between / ranks) ** 0.5
    level = float(times.mean())
    means = alike + own / ranks
    rho_means = (alike * rho_alike.high + own / ranks * rho.high) / means if means > 0 else 0.0
    freedom, freedom_means = ((count - 1) * _effective_share(value) for value in (rho.high, rho_means))
    nothing = Interval(0.0, 0.0, 0.0)
    return Jitter(
        level=Interval(level, level - half, level + half),
        rank=_excess_deviation(between, of_mean, ranks - 1, tail),
        step=_excess_deviation(own, 0.0, freedom * max(ranks - 1, 1), tail),
        step_correlation=rho if own > 0 else nothing,
        common=_excess_deviation(means, own / ranks, freedom_means, tail) if ranks > 1 else nothing,
        common_correlation=rho_alike if alike > 0 else nothing,
    )


@dataclass(frozen=True)
class _Fit:
    """Variances and autocorrelations, each of shape [job]."""

    step: Numbers
    step_rho: Numbers
    common: Numbers
    common_rho: Numbers


def _fit(times: Numbers, follows: npt.NDArray[np.intp]) -> _Fit:
    """Fit many jobs at once; ``times`` has shape [job, step, rank], ``follows`` the places whose next step follows."""
    count, ranks = times.shape[1:]
    enough_pairs = follows.size >= FEWEST_PAIRS
    centred = times - times.mean(axis=1, keepdims=True)
    sum_over_ranks = centred.sum(axis=2, keepdims=True)
    own, sums = _moments(centred, follows), _moments(sum_over_ranks, follows)
    if ranks == 1:
        step, step_rho = _component(own, count, enough_pairs)
        return _Fit(step, step_rho, np.zeros_like(step), np.zeros_like(step))
    shared = (sums - ranks * own) / (ranks * (ranks - 1))
    step, step_rho = _component(own - shared, count, enough_pairs)
    common, common_rho = _component(shared, count, enough_pairs)
    return _Fit(step, step_rho, common, common_rho)


def _moments(centred: Numbers, follows: npt.NDArray[np.intp]) -> Numbers:
    """Return the mean square, and the mean product of successive steps; shape [2, job]."""
    square = (centred**2).mean(axis=(1, 2))
    if not follows.size:
        return np.stack([square, np.zeros_like(square)])
    return np.stack([square, (centred[:, follows] * centred[:, follows + 1]).mean(axis=(1, 2))])


def _component(moments: Numbers, count: int, enough_pairs: bool) -> tuple[Numbers, Numbers]:
    """Return variance and autocorrelation from a sample's moments, shape [2, job], over ``count`` steps.

    Deviations from the sample's own mean lack the variance of that mean, which depends on the autocorrelation; the two
    are solved for together. Without ``enough_pairs`` of successive steps the autocorrelation is 0.
    """
    seen = np.maximum(moments[0], 0.0)
    whole, rho = seen, np.zeros_like(seen)
    for _ in range(12):
        lacking = np.minimum(_variance_of_mean(rho, count), 0.5)
        whole = seen / (1 - lacking)
        with np.errstate(invalid="ignore", divide="ignore"):
            rho = np.where((whole > 0) & enough_pairs, (moments[1] + whole * lacking) / whole, 0.0)
        rho = np.clip(rho, -HIGHEST_CORRELATION, HIGHEST_CORRELATION)
    return whole, rho


def _variance_of_mean(rho: Numbers | float, count: int) -> Numbers:
    """Return the variance of the mean of ``count`` steps, as a share of the variance of one step.

    For a lag-1 autocorrelation ``rho`` it is ``(1 + 2 sum_k (1 - k/n) rho^k) / n``.
    """
    rho = np.asarray(rho, dtype=np.float64)
    rest = rho * (1 - rho**count) / (count * (1 - rho))
    return np.asarray(((1 + rho) / (1 - rho) - 2 * rest / (1 - rho)) / count)


def _effective_share(rho: float) -> float:
    """Return the effective sample size of a variance, as a share of the number of steps."""
    return (1 - rho**2) / (1 + rho**2)


def _excess_deviation(total: float, error: float, freedom: float, tail: float) -> Interval:
    """Return the standard deviation that a variance ``total`` has beyond ``error``, with its interval.

    ``freedom`` is the number of degrees of freedom of ``total``, ``tail`` the probability beyond each end.
    """
    from scipy.stats import chi2

    if freedom <= 0 or total <= 0:
        return Interval(0.0, 0.0, 0.0)
    freedom = max(freedom, 1.0)
    factors = (1.0, freedom / float(chi2.ppf(1 - tail, freedom)), freedom / float(chi2.ppf(tail, freedom)))
    value, low, high = (max(total * factor - error, 0.0) ** 0.5 for factor in factors)
    return Interval(value, min(low, value), max(high, value))


def _bootstrap(fit: _Fit, shape: tuple[int, ...], follows: npt.NDArray[np.intp]) -> _Fit:
    """Simulate :data:`RESAMPLES` jobs of ``shape`` [step, rank] with the estimates ``fit``, and fit each again.

    The jobs have no ``rank`` component, since the fit removes each rank's level.
    """
    from scipy.signal import lfilter

    random = np.random.default_rng(0)
    count, ranks = shape[0], min(shape[1], max(LARGEST_JOB // shape[0], 2))

    def simulate(variance: float, rho: float, width: int) -> Numbers:
        fresh = random.standard_normal((batch, count, width)) * (1 - rho**2) ** 0.5
        fresh[:, 0] /= (1 - rho**2) ** 0.5
        return np.asarray(lfilter([1.0], [1.0, -rho], fresh, axis=1) * variance**0.5)

    fits = []
    batch = max(1, min(RESAMPLES, (1 << 22) // (count * ranks)))
    for _ in range(-(-RESAMPLES // batch)):
        own = simulate(float(fit.step[0]), float(fit.step_rho[0]), ranks)
        alike = simulate(float(fit.common[0]), float(fit.common_rho[0]), 1)
        fits.append(_fit(own + alike, follows))
    names = ("step", "step_rho", "common", "common_rho")
    return _Fit(*(np.concatenate([getattr(each, name) for each in fits]) for name in names))


def _correlation_interval(value: float, drawn: Numbers, tail: float) -> Interval:
    """Return the bootstrap interval of an autocorrelation.

    The quantiles of ``drawn`` are reflected about the value in Fisher's z, which corrects a bias instead of doubling
    it. Values below 0 become 0, since a scenario has no negative autocorrelation.
    """
    low, high = np.tanh(2 * np.arctanh(value) - np.arctanh(np.quantile(drawn, (1 - tail, tail))))
    value = max(value, 0.0)
    return Interval(value, min(max(float(low), 0.0), value), max(min(float(high), HIGHEST_CORRELATION), value))
