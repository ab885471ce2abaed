"""Noise of the control CPU: detours that the operating system takes, and sleeps that end late."""

from __future__ import annotations

import numpy as np

from coordsim.analyse.calibrate.noise import FAR, RARE, RESAMPLES, mean_interval, share_interval
from coordsim.analyse.calibrate.regression import Float, interval, resampled
from coordsim.analyse.calibrate.result import Estimate, TooLittle
from coordsim.analyse.calibrate.words import ranks_of, sizes_of
from coordsim.record.measurement import Measurement

LEAST_EXCHANGES = 30


def detours(measurement: Measurement) -> list[Estimate]:
    """How often, and for how long, a rank's control CPU is away: the tail of the same exchange. Raises TooLittle.

    Any of the ranks delays all, so the chance of each is 1 - (1 - share)^(1/N).
    """
    series = [*measurement.of("and"), *measurement.of("exchange")]
    if not series:
        raise TooLittle("detours: no exchanges of ranks that had a core each")
    ranks = min(each.ranks for each in series)
    chosen = [each for each in series if each.ranks == ranks]
    longer = np.concatenate([np.array(each.samples_ns) - np.median(each.samples_ns) for each in chosen])
    if longer.size < LEAST_EXCHANGES:
        raise TooLittle(f"detours: {longer.size} exchanges; at least {LEAST_EXCHANGES} are needed")
    limits = np.concatenate([np.full(len(each.samples_ns), _far(np.array(each.samples_ns))) for each in chosen])
    far = longer > limits
    if far.mean() > RARE:
        raise TooLittle(f"detours: {far.mean():.0%} of exchanges are far above the median: not rare, no detours")
    hits, tries = int(far.sum()), int(far.size)
    each = tuple(1 - (1 - share) ** (1 / ranks) for share in (hits / tries, *share_interval(hits, tries)))
    of_run = any(each.what == "exchange" for each in chosen)
    holds = f"{tries} {'fast cycles' if of_run else f'exchanges of {sizes_of(chosen)}'}, {ranks_of(chosen)}"
    share = Estimate(
        "noise.detour_probability", "detours, each rank and cycle", each[0], each[1], each[2], "share", holds,
        note=f"{hits} of {tries} exchanges",
    )  # fmt: skip
    if not hits:
        return [share]
    excess = longer[far]
    return [share, Estimate(
        "noise.detour_length", "length of a detour", float(excess.mean()), *mean_interval(excess), "ns", holds,
    )]  # fmt: skip


def _far(samples: Float) -> float:
    """How far above the median an exchange is no longer one of the others: also twice the median, at least."""
    middle = np.median(samples)
    return float(max(FAR * 1.4826 * np.median(np.abs(samples - middle)), middle))


def sleeping(measurement: Measurement) -> list[Estimate]:
    """How late a sleep ends: a loop with a cycle time sleeps that much longer. Nothing in a scenario says it."""
    series = list(measurement.of("sleep"))
    if not series:
        return []
    samples = np.concatenate([np.array(each.samples_ns) for each in series])
    random = np.random.default_rng(0)
    draws = np.array([np.median(resampled(samples, random)) for _ in range(RESAMPLES)])
    return [Estimate(
        "", "a sleep of 1 ms ends late by", float(np.median(samples)), *interval(draws), "ns", ranks_of(series),
        note=f"95 % end within {np.quantile(samples, 0.95) / 1e3:.0f} us",
    )]  # fmt: skip
