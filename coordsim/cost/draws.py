"""From a counter to 32 random bits, and from bits to a slow-down; integers only (docs/semantics.md 1.4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coordsim.cost.distributions import scaled_table
from coordsim.scenario.model import Spread

ONE_Q16 = 1 << 16

UInt32 = npt.NDArray[np.uint32]
UInt64 = npt.NDArray[np.uint64]
Int64 = npt.NDArray[np.int64]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
TENSOR_STRIDE = 0x9E3779B9
CHUNK = 1 << 15
"""Ranks at a time, so that temporaries stay in the cache."""


def _mix(z: int) -> int:
    """SplitMix64's output function (Steele et al. 2014)."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return z ^ (z >> 31)


def keys(seed: int, stream: int, step: int, indices: Int64) -> tuple[UInt32, UInt32]:
    """The two key words of each index (shape [index]) in one stream and step."""
    base = seed & _MASK
    for value in (stream, step):
        base = _mix((base + _GOLDEN * (value + 1)) & _MASK)
    with np.errstate(over="ignore"):
        z = np.uint64(base) + np.uint64(_GOLDEN) * (indices.astype(np.uint64) + np.uint64(1))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return z.astype(np.uint32), (z >> np.uint64(32)).astype(np.uint32)


def draw(key: tuple[UInt32, UInt32], tensor: int = 0) -> UInt32:
    """u32 of each key (shape [index]) for one tensor: two rounds of a 32-bit mixer with the second key word
    between them (multipliers: Wellons' lowbias32)."""
    low, high = key
    x = low + np.uint32(tensor * TENSOR_STRIDE & 0xFFFFFFFF)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= high
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    return x


@dataclass(frozen=True)
class Quantiles:
    """An integer inverse-CDF table of one spread: u32 -> Q16 relative slow-down."""

    base: npt.NDArray[np.int32]
    slope: npt.NDArray[np.int32]
    symmetric: bool
    """The sign bit of u32 is the sign of the draw (normal); otherwise it is ignored."""

    @classmethod
    def of(cls, spread: Spread) -> Quantiles:
        """The committed table of ``spread``'s distribution, scaled by its sigma."""
        symmetric = spread.distribution == "normal"
        name = "half-normal" if symmetric else spread.distribution
        base, slope = scaled_table(name, spread.sigma_ppm)
        return cls(base, slope, symmetric)

    def __call__(self, u32: UInt32) -> Int64:
        """Q16 slow-down of each draw (shape of ``u32``)."""
        u = u32 & np.uint32(0x7FFFFFFF)
        coarse = u >> np.uint32(21)
        tail = coarse == 1023
        index = np.where(tail, 1024 + ((u >> np.uint32(11)) & np.uint32(1023)), coarse)
        fraction = np.where(tail, (u & np.uint32(2047)) << np.uint32(1), (u >> np.uint32(9)) & np.uint32(4095))
        value = self.base[index].astype(np.int64)
        value += (self.slope[index].astype(np.int64) * fraction.astype(np.int64)) >> 12
        if self.symmetric:
            value = np.where(u32 >> np.uint32(31) == 1, -value, value)
        return value

    def factor(self, u32: UInt32) -> Int64:
        """Q16 factor, never negative (shape of ``u32``)."""
        return np.maximum(self(u32) + ONE_Q16, 0)
