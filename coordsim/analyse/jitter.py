"""What ranks' times differ by: persistently between ranks, by rank and step, by step on all ranks alike; and what of
it goes on into the next step.

``x[step, rank] = level + rank + step + common``, with autoregressive ``step`` and ``common`` (docs/semantics.md 1.5).
Covariances tell them apart: two ranks have nothing but ``common`` together, so what their products average to is its
variance, and one step apart its correlation; what a rank's own products have beyond that is ``step``. A mean that is
taken from the same samples makes both too small, by the variance of that mean; that is put back.

Intervals: of variances from the chi-square law, with as many degrees of freedom as an autoregressive process leaves;
of correlations from jobs simulated with what was found and fitted again (parametric bootstrap). They know nothing of
what the model leaves out, above all of ranks that are not alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

RESAMPLES = 300
LARGEST_JOB = 1 << 16
"""Times in one simulated job; of more ranks that many are simulated."""
HIGHEST_CORRELATION = 0.99
"""Beyond it a few hundred steps do not tell noise that goes on from noise that stays."""
FEWEST_PAIRS = 5


@dataclass(frozen=True)
class Interval:
    """A value and its ends."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Jitter:
    """Standard deviations in the unit of the times, and correlations of one step with the next."""

    level: Interval
    """What all ranks of all steps are around: the mean."""
    rank: Interval
    step: Interval
    step_correlation: Interval
    common: Interval
    """With one rank it is in ``step``: nothing tells them apart."""
    common_correlation: Interval


def jitter(times: Numbers, steps: Sequence[int] | None = None, share: float = 0.9) -> Jitter:
    """Of ``times`` [step, rank], at least two steps; ``steps``: their numbers, where some are left out; ``share``: what
    intervals hold."""
    from scipy.stats import t as student

    follows = np.flatnonzero(np.diff(np.arange(len(times)) if steps is None else np.asarray(steps)) == 1)
    found = _fit(times[None], follows)
    count, ranks = times.shape
    own, alike = float(found.step[0]), float(found.common[0])
    between = float(times.mean(axis=0).var(ddof=1)) if ranks > 1 else 0.0
    tail = (1 - share) / 2
    drawn = _again(found, times.shape, follows)
    rho = _correlation(float(found.step_rho[0]), drawn.step_rho, tail)
    rho_alike = _correlation(float(found.common_rho[0]), drawn.common_rho, tail)
    of_mean = own * float(_of_mean(rho.value, count))
    of_mean_alike = alike * float(_of_mean(rho_alike.value, count)) if ranks > 1 else of_mean
    normal, few = float(student.ppf(1 - tail, 1e9)), float(student.ppf(1 - tail, max(ranks - 1, 1)))
    half = (normal**2 * of_mean_alike + few**2 * between / ranks) ** 0.5
    level = float(times.mean())
    means = alike + own / ranks
    rho_means = (alike * rho_alike.high + own / ranks * rho.high) / means if means > 0 else 0.0
    freedom, freedom_means = ((count - 1) * _independent(each) for each in (rho.high, rho_means))
    nothing = Interval(0.0, 0.0, 0.0)
    return Jitter(
        level=Interval(level, level - half, level + half),
        rank=_beyond(between, of_mean, ranks - 1, tail),
        step=_beyond(own, 0.0, freedom * max(ranks - 1, 1), tail),
        step_correlation=rho if own > 0 else nothing,
        common=_beyond(means, own / ranks, freedom_means, tail) if ranks > 1 else nothing,
        common_correlation=rho_alike if alike > 0 else nothing,
    )


@dataclass(frozen=True)
class _Fit:
    """Variances and correlations, shape [job]."""

    step: Numbers
    step_rho: Numbers
    common: Numbers
    common_rho: Numbers


def _fit(times: Numbers, follows: npt.NDArray[np.intp]) -> _Fit:
    """Moments of many jobs, shape [job, step, rank]; ``follows``: steps whose next one is there."""
    count, ranks = times.shape[1:]
    told = follows.size >= FEWEST_PAIRS
    centred = times - times.mean(axis=1, keepdims=True)
    together = centred.sum(axis=2, keepdims=True)
    own, sums = _moments(centred, follows), _moments(together, follows)
    if ranks == 1:
        step, step_rho = _component(own, count, told)
        return _Fit(step, step_rho, np.zeros_like(step), np.zeros_like(step))
    shared = (sums - ranks * own) / (ranks * (ranks - 1))
    step, step_rho = _component(own - shared, count, told)
    common, common_rho = _component(shared, count, told)
    return _Fit(step, step_rho, common, common_rho)


def _moments(centred: Numbers, follows: npt.NDArray[np.intp]) -> Numbers:
    """Mean square, and mean product of one step with the next; shape [which, job]."""
    square = (centred**2).mean(axis=(1, 2))
    if not follows.size:
        return np.stack([square, np.zeros_like(square)])
    return np.stack([square, (centred[:, follows] * centred[:, follows + 1]).mean(axis=(1, 2))])


def _component(moments: Numbers, count: int, told: bool) -> tuple[Numbers, Numbers]:
    """Variance and correlation from a sample's moments, which lack the variance of the sample's own mean; without
    correlation unless ``told``, by enough pairs of steps."""
    seen = np.maximum(moments[0], 0.0)
    whole, rho = seen, np.zeros_like(seen)
    for _ in range(12):
        lacking = np.minimum(_of_mean(rho, count), 0.5)
        whole = seen / (1 - lacking)
        with np.errstate(invalid="ignore", divide="ignore"):
            rho = np.where((whole > 0) & told, (moments[1] + whole * lacking) / whole, 0.0)
        rho = np.clip(rho, -HIGHEST_CORRELATION, HIGHEST_CORRELATION)
    return whole, rho


def _of_mean(rho: Numbers | float, count: int) -> Numbers:
    """Variance of the mean of ``count`` steps, as a share of one step's: ``(1 + 2 sum_k (1 - k/n) rho^k) / n``."""
    rho = np.asarray(rho, dtype=np.float64)
    rest = rho * (1 - rho**count) / (count * (1 - rho))
    return np.asarray(((1 + rho) / (1 - rho) - 2 * rest / (1 - rho)) / count)


def _independent(rho: float) -> float:
    """As a share of the steps: how many independent ones would tell the variance as well."""
    return (1 - rho**2) / (1 + rho**2)


def _beyond(total: float, error: float, freedom: float, tail: float) -> Interval:
    """Standard deviation of what a variance ``total`` has beyond ``error``."""
    from scipy.stats import chi2

    if freedom <= 0 or total <= 0:
        return Interval(0.0, 0.0, 0.0)
    freedom = max(freedom, 1.0)
    factors = (1.0, freedom / float(chi2.ppf(1 - tail, freedom)), freedom / float(chi2.ppf(tail, freedom)))
    value, low, high = (max(total * factor - error, 0.0) ** 0.5 for factor in factors)
    return Interval(value, min(low, value), max(high, value))


def _again(found: _Fit, shape: tuple[int, ...], follows: npt.NDArray[np.intp]) -> _Fit:
    """Jobs simulated with what was found, fitted like it; ranks' own levels are taken out of all jobs."""
    from scipy.signal import lfilter

    random = np.random.default_rng(0)
    count, ranks = shape[0], min(shape[1], max(LARGEST_JOB // shape[0], 2))

    def series(variance: float, rho: float, of: int) -> Numbers:
        fresh = random.standard_normal((batch, count, of)) * (1 - rho**2) ** 0.5
        fresh[:, 0] /= (1 - rho**2) ** 0.5
        return np.asarray(lfilter([1.0], [1.0, -rho], fresh, axis=1) * variance**0.5)

    fits = []
    batch = max(1, min(RESAMPLES, (1 << 22) // (count * ranks)))
    for _ in range(-(-RESAMPLES // batch)):
        own = series(float(found.step[0]), float(found.step_rho[0]), ranks)
        alike = series(float(found.common[0]), float(found.common_rho[0]), 1)
        fits.append(_fit(own + alike, follows))
    names = ("step", "step_rho", "common", "common_rho")
    return _Fit(*(np.concatenate([getattr(each, name) for each in fits]) for name in names))


def _correlation(value: float, drawn: Numbers, tail: float) -> Interval:
    """Reflected about the value, in Fisher's z, so that a bias is mended rather than doubled; a scenario knows none
    below 0."""
    low, high = np.tanh(2 * np.arctanh(value) - np.arctanh(np.quantile(drawn, (1 - tail, tail))))
    value = max(value, 0.0)
    return Interval(value, min(max(float(low), 0.0), value), max(min(float(high), HIGHEST_CORRELATION), value))
