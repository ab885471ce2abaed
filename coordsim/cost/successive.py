"""Autocorrelated noise: an autoregressive process in normal scores (docs/semantics.md 1.5).

``z(0) = e(0)``, ``z(s) = rho z(s-1) + sqrt(1 - rho^2) e(s)`` with standard normal ``e`` drawn by counter, then the
spread's quantile at the normal's probability of ``z(s)`` (a Gaussian copula). The distribution of a single step is the
one that was asked for, whatever rho. Step s depends on steps 0 to s and on nothing else. All values are integers, so
that machines and engines agree: ``z`` with 24 fractional bits, rounded to nearest, rho and its complement with 30.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import cache
from itertools import pairwise
from math import isqrt

import numpy as np

from coordsim.cost.distributions import load
from coordsim.cost.draws import CHUNK, Int64, Quantiles, UInt32, draw, keys
from coordsim.scenario.model import Spread

PPM = 1_000_000
_ONE_Q30 = 1 << 30
_GRID_BITS = 16
"""Fractional bits of a score (of 24) between two knots of the probability table, which has 256 knots a standard
deviation."""


class Successive:
    """Factors of one spread over the steps. Steps asked for in order cost one step each."""

    def __init__(self, seed: int, stream: int, indices: Int64, spread: Spread, correlation_ppm: int) -> None:
        """``indices`` (shape [index]) are those of ranks, or one for all; ``correlation_ppm`` is 0 to below a
        million."""
        self._seed, self._stream, self._indices = seed, stream, indices
        self._quantiles = Quantiles.of(spread)
        self._rho_q30 = correlation_ppm * _ONE_Q30 // PPM
        self._rest_q30 = isqrt((PPM**2 - correlation_ppm**2) * _ONE_Q30**2 // PPM**2)
        self._score: Int64 = np.zeros(indices.size if correlation_ppm else 0, dtype=np.int64)
        self._at = -1

    def factor_q16(self, step: int) -> Int64:
        """Return the Q16 factor of each index in ``step`` (from 0), shape [index]; it is never negative."""
        if self._rho_q30:
            self._go_to(step)
        factor = np.empty(self._indices.size, dtype=np.int64)
        for first in range(0, self._indices.size, CHUNK):
            part = slice(first, first + CHUNK)
            u32 = self._bits(self._score[part]) if self._rho_q30 else self._draw(step, part)
            factor[part] = self._quantiles.factor(u32)
        return factor

    def _draw(self, step: int, part: slice) -> UInt32:
        return draw(keys(self._seed, self._stream, step, self._indices[part]))

    def _go_to(self, step: int) -> None:
        """Compute the scores of ``step``, from those of the last step asked for or from the first step."""
        if step < self._at:
            self._at = -1
        while self._at < step:
            self._at += 1
            for first in range(0, self._indices.size, CHUNK):
                part = slice(first, first + CHUNK)
                fresh = _normal()(self._draw(self._at, part))
                if self._at:
                    fresh = (self._rho_q30 * self._score[part] + self._rest_q30 * fresh + _ONE_Q30 // 2) >> 30
                self._score[part] = fresh

    def _bits(self, score: Int64) -> UInt32:
        """Return the 32 bits that :class:`Quantiles` maps to the spread's value at each score's probability."""
        knots, slopes = _probabilities()
        size = np.minimum(np.abs(score), (knots.size << _GRID_BITS) - 1)
        at = size >> _GRID_BITS
        within = knots[at] + ((slopes[at] * (size & ((1 << _GRID_BITS) - 1))) >> _GRID_BITS)
        if self._quantiles.symmetric:
            bits = within | ((score < 0).astype(np.int64) << 31)
        else:  # one-sided tables take 31 bits of probability
            half = within >> 1
            bits = np.where(score < 0, (1 << 30) - 1 - half, (1 << 30) + half)
        return np.asarray(bits, dtype=np.uint32)


@cache
def _normal() -> Quantiles:
    """Return the table from u32 to a standard normal with 24 fractional bits, from the committed table."""
    values = load("half-normal").values
    slopes = [after - before for before, after in pairwise(values)]
    slopes[1023] = 0  # unused: the tail's own knots
    return Quantiles(np.array(values[:-1], dtype=np.int32), np.array(slopes, dtype=np.int32), symmetric=True)


@cache
def _probabilities() -> tuple[Int64, Int64]:
    """Return the half-normal table's inverse: 31 bits of probability at |z| = 0, 1/256, 2/256..., and each knot's
    rise."""
    values = list(load("half-normal").values)
    del values[1023]  # 1023/1024 is a knot of both parts of the table
    bits = [*(i << 21 for i in range(1023)), *((1023 << 21) + (j << 11) for j in range(1025))]
    probability = []
    for z in range(0, values[-1], 1 << _GRID_BITS):
        below = bisect_right(values, z) - 1
        wide, rise = values[below + 1] - values[below], bits[below + 1] - bits[below]
        probability.append(bits[below] + (z - values[below]) * rise // wide)
    probability += [(1 << 31) - 1] * 2  # Beyond the last knot every score has the largest probability.
    knots = np.array(probability, dtype=np.int64)
    return knots[:-1], np.diff(knots)
