"""Robust least squares on medians, with intervals from the repeats.

Residuals are relative to the measured median, so that 8 bytes and 16 MiB weigh alike, and go through a soft L1 loss,
so that one odd size does not bend the rest. Costs cannot be negative. Intervals are the 2.5 and 97.5 percentiles of
the same fit on resampled repeats, resampled in blocks, for neighbours in time are alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coordsim.analyse.calibrate.result import TooLittle

Float = npt.NDArray[np.float64]

RESAMPLES = 200
LEAST_SAMPLES = 5
"""Fewer repeats have no interval worth the name."""
NEGLIGIBLE = 1e-6
"""Share of every median below which a parameter's part is none."""
SOFT = 0.1
"""Relative errors beyond it count less than squared."""


@dataclass(frozen=True)
class Point:
    """One series: what multiplies each parameter, and what was measured."""

    terms: tuple[float, ...]
    samples: Sequence[float]


@dataclass(frozen=True)
class Fitted:
    """Parameters, their resampled draws, and how far off the fit is at each point."""

    values: Float
    """Shape [parameter]."""
    draws: Float
    """Shape [resample, parameter]."""
    errors: Float
    """|predicted / median - 1|, shape [point]; empty where there are no more points than parameters."""

    def interval(self, parameter: int) -> tuple[float, float]:
        return interval(self.draws[:, parameter])

    @property
    def error_median(self) -> float | None:
        return float(np.median(self.errors)) if self.errors.size else None

    @property
    def error_worst(self) -> float | None:
        return float(self.errors.max()) if self.errors.size else None


def interval(draws: Float) -> tuple[float, float]:
    """The middle 95 % of ``draws``."""
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)


def fit(points: Sequence[Point], what: str, seed: int = 0) -> Fitted:
    """Parameters of a linear cost model; the same for the same points, always.

    Raises TooLittle, naming ``what``: fewer than :data:`LEAST_SAMPLES` repeats, points that do not tell the parameters
    apart, or a median of 0.
    """
    if not points:
        raise TooLittle(f"{what}: nothing of the kind was measured")
    parameters = len(points[0].terms)
    samples = [np.asarray(point.samples, dtype=np.float64) for point in points]
    if len(points) < parameters:
        raise TooLittle(f"{what}: {len(points)} series for {parameters} parameters")
    short = min(each.size for each in samples)
    if short < LEAST_SAMPLES:
        raise TooLittle(f"{what}: a series of {short} repeats; at least {LEAST_SAMPLES} are needed")
    medians = np.array([np.median(each) for each in samples])
    if medians.min() <= 0:
        raise TooLittle(f"{what}: a series whose median is 0, below the clock's resolution")
    terms = np.array([point.terms for point in points], dtype=np.float64)
    if np.linalg.matrix_rank(terms / np.abs(terms).max(axis=0, initial=1e-300)) < parameters:
        raise TooLittle(f"{what}: the sizes and ranks measured do not tell {parameters} parameters apart")
    values = _solve(terms, medians)
    random = np.random.default_rng(seed)
    draws = np.array([
        _solve(terms, np.array([max(np.median(resampled(each, random)), 1e-3) for each in samples]), values)
        for _ in range(RESAMPLES)
    ])  # fmt: skip
    errors = np.abs(terms @ values / medians - 1)
    least = NEGLIGIBLE / (terms / medians[:, None]).max(axis=0)
    values, draws = (np.where(found < least, 0.0, found) for found in (values, draws))
    return Fitted(values, draws, errors if len(points) > parameters else errors[:0])


def resampled(samples: Float, random: np.random.Generator) -> Float:
    """As many samples again, in blocks of consecutive ones (circular, length n^(1/3))."""
    length = max(1, round(samples.size ** (1 / 3)))
    starts = random.integers(samples.size, size=-(-samples.size // length))
    index = (starts[:, None] + np.arange(length)).reshape(-1)[: samples.size] % samples.size
    return np.asarray(samples[index])


def _solve(terms: Float, medians: Float, start: Float | None = None) -> Float:
    from scipy.optimize import least_squares, nnls

    relative = terms / medians[:, None]
    scale = 1 / np.abs(relative).max(axis=0)
    matrix = relative * scale
    begin = nnls(matrix, np.ones(len(medians)))[0] if start is None else start / scale
    found = least_squares(
        lambda x: matrix @ x - 1, np.maximum(begin, 1e-9), jac=lambda _: matrix, bounds=(0, np.inf), loss="soft_l1",
        f_scale=SOFT, method="trf", x_scale="jac", ftol=1e-10, xtol=1e-10, gtol=1e-10,
    )  # fmt: skip
    return np.asarray(found.x * scale, dtype=np.float64)
