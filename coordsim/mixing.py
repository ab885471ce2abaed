"""SplitMix64's output function (Steele, Lea and Flood 2014): 64 bits in, 64 well mixed bits out, one to one.

Draws, hashes of traces and the grouping of recorded steps use it: one function for numpy arrays, for numpy's scalars
and, compiled, for kernels.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio: what SplitMix64 adds to its state for each number."""
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)

Bits = TypeVar("Bits", np.uint64, npt.NDArray[np.uint64])


def mixed(bits: Bits) -> Bits:
    """The mixed ``bits``, of the same shape. Outside kernels call it with ``numpy.errstate(over="ignore")``: products
    wrap around."""
    bits = (bits ^ (bits >> _30)) * _FIRST
    bits = (bits ^ (bits >> _27)) * _SECOND
    return bits ^ (bits >> _31)
