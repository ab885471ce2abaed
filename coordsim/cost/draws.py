"""Draws of 32 random bits from a counter, and a slow-down from the bits; integers only (docs/semantics.md 1.4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coordsim.cost.distributions import scaled_table
from coordsim.mixing import GOLDEN, mixed
from coordsim.scenario.model import Spread

ONE_Q16 = 1 << 16

UInt32 = npt.NDArray[np.uint32]
UInt64 = npt.NDArray[np.uint64]
Int64 = npt.NDArray[np.int64]

_MASK = (1 << 64) - 1
TENSOR_STRIDE = 0x9E3779B9
CHUNK = 1 << 15
"""Number of ranks processed together, so that temporaries stay in the cache."""


def keys(seed: int, stream: int, step: int, indices: Int64) -> tuple[UInt32, UInt32]:
    """Return the two key words of each index, shape [index] each, in one stream and step."""
    with np.errstate(over="ignore"):
        base = np.uint64(seed & _MASK)
        for value in (stream, step):
            base = mixed(base + GOLDEN * np.uint64((value + 1) & _MASK))
        z = mixed(base + GOLDEN * (indices.astype(np.uint64) + np.uint64(1)))
    return z.astype(np.uint32), (z >> np.uint64(32)).astype(np.uint32)


def draw(key: tuple[UInt32, UInt32], tensor: int = 0) -> UInt32:
    """Return 32 bits for each key, shape [index], for one tensor.

    The hash is two rounds of a 32-bit mixer with the second key word between them (multipliers: Wellons' lowbias32).
    """
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
    """Whether the sign bit of u32 is the sign of the draw (normal); otherwise the bit is ignored."""

    @classmethod
    def of(cls, spread: Spread) -> Quantiles:
        """Return the committed table of ``spread``'s distribution, scaled by its sigma."""
        symmetric = spread.distribution == "normal"
        name = "half-normal" if symmetric else spread.distribution
        base, slope = scaled_table(name, spread.sigma_ppm)
        return cls(base, slope, symmetric)

    def __call__(self, u32: UInt32) -> Int64:
        """Return the Q16 slow-down of each draw, in the shape of ``u32``."""
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
        """Return the Q16 factor of each draw, in the shape of ``u32``; it is never negative."""
        return np.maximum(self(u32) + ONE_Q16, 0)
