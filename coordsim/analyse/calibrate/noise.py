"""Noise of compute, as a scenario can say it: what stays with a rank or a node, what changes by step, rare stalls.

Times of one rank are taken over its own median; what is far above all others is a stall; the rest is the body, and
the distribution whose Kolmogorov-Smirnov distance to it is least is the step's. What of it goes on into the next step,
and what all ranks have alike, is told by covariances of normal scores (:mod:`coordsim.analyse.jitter`). Persistent
parts are what the means of ranks (and of nodes) differ by beyond what the steps' own noise explains (analysis of
variance, random effects).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coordsim.analyse.calibrate.distributions import HALVES, Body, candidates
from coordsim.analyse.calibrate.regression import Float, interval, resampled
from coordsim.analyse.calibrate.result import Candidate, Estimate, TooLittle
from coordsim.analyse.calibrate.words import ranks_of
from coordsim.analyse.jitter import Interval, Jitter, jitter
from coordsim.record.measurement import Measurement, Series

LEAST_STEPS = 20
"""What ``coordsim profile`` records by default; fewer make intervals that say nothing."""
LEAST_RANKS = 3
"""Fewer ranks' means tell no spread between ranks."""
RARE = 0.05
"""Stalls that are more frequent than that are no stalls but the distribution itself."""
FAR = 10.0
"""Robust standard deviations above the median, beyond which a time is a stall."""
DOUBTFUL = 0.05
RESAMPLES = 200


@dataclass
class NoiseFound:
    """What was fitted on compute."""

    estimates: list[Estimate]
    candidates: list[Candidate]
    distribution: str
    """Of the step's noise."""
    critical_ks: float
    notes: list[str]
    not_fitted: list[tuple[str, str]]


def compute_noise(measurement: Measurement) -> NoiseFound:
    """Noise from the series ``compute`` or ``step``. Raises TooLittle."""
    series = _one_job([*measurement.of("compute"), *measurement.of("step", crowded=True)])
    if not series:
        why = measurement.missing.get("step", "no times of ranks that had a core each")
        raise TooLittle(f"noise of compute: {why}")
    shortest = min(len(each.samples_ns) for each in series)
    if shortest < LEAST_STEPS:
        raise TooLittle(f"noise of compute: {shortest} steps; at least {LEAST_STEPS} are needed")
    times = np.array([each.samples_ns[-shortest:] for each in series])
    medians = np.median(times, axis=1)
    if medians.min() <= 0:
        raise TooLittle("noise of compute: a rank whose median time is 0")
    relative = times / medians[:, None]
    stalled = _stalls(relative)
    body = relative.copy()
    body[stalled] = np.nan
    base_ns = float(np.median(medians))
    what = "computations" if series[0].what == "compute" else "steps up to the last submission"
    holds = f"{what} of {base_ns / 1e6:.1f} ms, {ranks_of(series)}, {shortest} each"
    goes_on = jitter(_scores(body).T, share=0.95)
    tried, critical, best = candidates(body[~stalled], relative, _alike(goes_on))
    found = NoiseFound([], tried, best.distribution, critical, [], [])
    _passing(found, body, best, goes_on, holds)
    found.estimates += _stall_estimates(times, stalled, medians, holds)
    _persistent(found, series, times, stalled, holds)
    found.notes.append(
        f"step noise is that of {base_ns / 1e6:.1f} ms; over k times as long it is between 1/sqrt(k) of it (if "
        "independent) and all of it (if it stays)"
    )  # fmt: skip
    found.notes += _doubts(tried, times.size)
    if best.distribution != "normal":
        found.notes.append(
            f"{best.distribution} noise only slows down: a workload's times are then the least, "
            f"{best.base:.3f} of the medians here"
        )  # fmt: skip
    return found


def _doubts(tried: Sequence[Candidate], size: int) -> list[str]:
    """What the distances say against the fit."""
    found = []
    halves = next(each for each in tried if each.distribution == HALVES)
    if halves.ks > 1.358 * 2 / np.sqrt(size):
        found.append(
            f"the first and the second half of the steps differ (KS {halves.ks:.2f}): something else ran, or "
            "noise goes on; it is of that moment"
        )  # fmt: skip
    if tried[0].p_value is not None and tried[0].p_value < DOUBTFUL:
        found.append(f"no distribution of a scenario fits (p {tried[0].p_value:.2f}); the nearest is taken")
    return found


def _one_job(series: Sequence[Series]) -> list[Series]:
    """The series of the job with the most ranks, and of these of the longest: two jobs may do different work."""
    jobs: dict[tuple[int, str], list[Series]] = {}
    for each in series:
        jobs.setdefault((each.ranks, each.path), []).append(each)
    best = max(jobs, key=lambda job: (job[0], len(jobs[job][0].samples_ns)), default=None)
    return sorted(jobs[best], key=lambda each: each.rank) if best is not None else []


def _stalls(relative: Float) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Which times are stalls; none if they are not rare."""
    spread = 1.4826 * np.median(np.abs(relative - 1), axis=1, keepdims=True)
    found = relative > 1 + np.maximum(FAR * spread, 0.02)
    return found if found.mean() <= RARE else np.zeros_like(found)


def _scores(body: Float) -> Float:
    """Normal scores of all times together, shape [rank, step]; stalls (NaN) are in the middle. A scenario's
    correlations are of these, and no outlier moves them."""
    from scipy.stats import norm, rankdata

    known = ~np.isnan(body)
    found = np.zeros_like(body)
    found[known] = norm.ppf((rankdata(body[known]) - 0.5) / known.sum())
    return found


def _alike(goes_on: Jitter) -> float:
    """How many steps in a row tell as much of the distribution as one that stands alone."""
    own, common = goes_on.step.value**2, goes_on.common.value**2
    rho = (own * goes_on.step_correlation.value + common * goes_on.common_correlation.value) / max(own + common, 1e-12)
    return (1 + rho) / (1 - rho)


def _passing(found: NoiseFound, body: Float, best: Body, goes_on: Jitter, holds: str) -> None:
    """Noise per rank and step, and of all ranks alike, as far as there is any: of the distribution's variance each has
    its share."""
    varies = jitter(np.where(np.isnan(body), 1.0, body).T, share=0.95)  # of times themselves: variances add up
    own, common = varies.step, varies.common
    shared = common.value**2 / (own.value**2 + common.value**2) if common.low > 0 else 0.0
    random = np.random.default_rng(0)
    draws = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([resampled(row[~np.isnan(row)], random) for row in body])
        draws.append(Body.of(best.distribution, rows).sigma)
    left = (1 - shared) ** 0.5
    found.estimates.append(Estimate(
        "noise.step", f"step by step, {best.distribution}", best.sigma * left, *interval(np.array(draws) * left),
        "share", holds, note=f"KS distance {best.ks:.3f}",
    ))  # fmt: skip
    found.estimates.append(_goes_on("step", "step noise", goes_on.step_correlation, holds))
    if len(body) < 2:
        found.not_fitted.append(("noise.common", "one rank does not tell what all have alike"))
    elif not shared:
        found.not_fitted.append(("noise.common", "the ranks have no noise in common that could be seen"))
    else:
        found.estimates.append(Estimate(
            "noise.common", "all ranks alike, step by step", common.value, common.low, common.high, "share", holds,
            note=f"{shared:.0%} of the variance; ranks' times taken by number",
        ))  # fmt: skip
        found.estimates.append(_goes_on("common", "noise of all ranks", goes_on.common_correlation, holds))


def _goes_on(axis: str, what: str, correlation: Interval, holds: str) -> Estimate:
    return Estimate(
        f"noise.{axis}.correlation", f"{what}, one step apart", correlation.value, correlation.low, correlation.high,
        "number", holds, note="correlation of normal scores",
    )  # fmt: skip


def _stall_estimates(
    times: Float, stalled: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], medians: Float, holds: str
) -> list[Estimate]:
    hits, tries = int(stalled.sum()), int(stalled.size)
    share = Estimate(
        "noise.stall_probability", "rare stalls, each step", hits / tries, *share_interval(hits, tries), "share", holds,
        note=f"{hits} of {tries} times",
    )  # fmt: skip
    if not hits:
        return [share]
    excess = (times - medians[:, None])[stalled]
    return [share, Estimate(
        "noise.stall_length", "length of a stall", float(excess.mean()), *mean_interval(excess), "ns", holds,
        note=f"of {hits}, the longest {excess.max() / 1e6:.1f} ms",
    )]  # fmt: skip


def _persistent(
    found: NoiseFound, series: Sequence[Series], times: Float,
    stalled: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], holds: str,
) -> None:  # fmt: skip
    """Spread between ranks of a node, and between nodes."""
    whole = float(np.median(times))
    rows = [row[~gone] / whole for row, gone in zip(times, stalled, strict=True)]
    nodes = sorted({each.node for each in series})
    place = [nodes.index(each.node) for each in series]
    if len(rows) < LEAST_RANKS:
        found.not_fitted.append(("noise.rank", f"{len(rows)} ranks tell no spread between ranks"))
    else:
        spread = persistent(rows, place)
        low, high = _persistent_interval(rows, place)
        found.estimates.append(Estimate("noise.rank", "persistent, rank by rank", spread, low, high, "share", holds))
    if len(nodes) < LEAST_RANKS or "" in nodes:
        told = f"{len(nodes)} node{'s' if len(nodes) != 1 else ''}" if "" not in nodes else "nodes without names"
        found.not_fitted.append(("noise.node", f"{told}: no spread between nodes to be seen"))
        return
    of_node = np.array([
        np.mean([row.mean() for row, at in zip(rows, place, strict=True) if at == node]) for node in range(len(nodes))
    ])  # fmt: skip
    of_rank = persistent(rows, place) ** 2 + float(np.mean([_error_of_mean(row) for row in rows]))
    within = of_rank * len(nodes) / len(rows)
    total = float(of_node.var(ddof=1))
    spread, low, high = (
        float(np.sqrt(max(total * factor - within, 0.0))) for factor in (1.0, *_chi_square(len(nodes) - 1))
    )
    found.estimates.append(Estimate("noise.node", "persistent, node by node", spread, low, high, "share", holds))


def persistent(rows: Sequence[Float], place: Sequence[int]) -> float:
    """Standard deviation between ranks of one node beyond the error of their means; a share of the time.

    ``rows``: by rank, times over the whole job's median; ``place``: by rank, its node.
    """
    means = np.array([row.mean() for row in rows])
    nodes = sorted(set(place))
    centred = means.copy()
    for node in nodes:
        here = np.array([at == node for at in place])
        centred[here] -= means[here].mean()
    freedom = len(rows) - len(nodes)
    if freedom < 1:
        return 0.0
    between = float((centred**2).sum()) / freedom
    return float(np.sqrt(max(between - float(np.mean([_error_of_mean(row) for row in rows])), 0.0)))


def _persistent_interval(rows: Sequence[Float], place: Sequence[int]) -> tuple[float, float]:
    """From the chi-square law of the means' variance: few ranks say little."""
    freedom = len(rows) - len(set(place))
    if freedom < 1:
        return 0.0, 0.0
    error = float(np.mean([_error_of_mean(row) for row in rows]))
    total = persistent(rows, place) ** 2 + error
    low, high = (float(np.sqrt(max(total * each - error, 0.0))) for each in _chi_square(freedom))
    return low, high


def _chi_square(freedom: int) -> tuple[float, float]:
    """What a variance with that many degrees of freedom is to be multiplied by for its 95 % interval."""
    from scipy.stats import chi2

    return freedom / float(chi2.ppf(0.975, freedom)), freedom / float(chi2.ppf(0.025, freedom))


def _error_of_mean(row: Float) -> float:
    """Variance of a mean of samples whose neighbours are alike."""
    rho = min(max(lag_one(row), 0.0), 0.99)
    return float(row.var(ddof=1)) / row.size * (1 + rho) / (1 - rho)


def lag_one(row: Float) -> float:
    """Autocorrelation at a distance of one; 0 for a constant, NaN steps are left out with their neighbours' pairs."""
    centred = row - np.nanmean(row)
    pairs = centred[:-1] * centred[1:]
    variance = float(np.nanmean(centred**2))
    return float(np.nanmean(pairs)) / variance if variance > 0 else 0.0


def share_interval(hits: int, tries: int) -> tuple[float, float]:
    """Clopper and Pearson's 95 % interval of a share."""
    from scipy.stats import binomtest

    found = binomtest(hits, tries).proportion_ci(0.95)
    return float(found.low), float(found.high)


def mean_interval(lengths: Float) -> tuple[float, float]:
    """Of the mean of an exponential law, from as many lengths."""
    from scipy.stats import chi2

    twice, total = 2 * lengths.size, 2 * float(lengths.sum())
    return total / float(chi2.ppf(0.975, twice)), total / float(chi2.ppf(0.025, twice))
