"""Maps 32 random bits to a relative slow-down in Q16 (1.0 = 65,536), in integers only.

The engines inline :func:`sample_q16`, which is written here once, plainly, as the reference.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from coordsim.cost.distributions.table import SEGMENTS, load
from coordsim.scenario.model import Distribution

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

SLOPE_LIMIT = 1 << 20
"""Largest slope, since a slope times a 12-bit fraction must fit 32 bits without a sign."""


def scaled_table(name: Distribution, sigma_ppm: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(base, slope), 2,048 entries each in Q16: the table of ``name`` times ``sigma_ppm`` / 10**6.

    A knot is floor(value * sigma_ppm / (10**6 * 2**8)). Entries 0..1022 are the segments of width 2**-10,
    1023 is unused (slope 0), 1024..2047 are the segments of the last one, 2**-20 wide.

    Raises:
        ValueError: ``sigma_ppm`` is negative, or so large that 32 bits overflow (a sigma above 1.9 for the
            exponential, 11 for the normal, 16,000 for the uniform distribution).
    """
    import numpy as np

    if sigma_ppm < 0:
        raise ValueError(f"sigma must not be negative, got {sigma_ppm} ppm")
    knots = [value * sigma_ppm // (10**6 << 8) for value in load(name).values]
    slopes = [after - knot for knot, after in pairwise(knots)]
    slopes[SEGMENTS - 1] = 0
    if max(slopes) >= SLOPE_LIMIT or knots[-1] >= 1 << 31:
        raise ValueError(f"a {name} spread of {sigma_ppm} ppm does not fit 32-bit arithmetic")
    return np.array(knots[:-1], dtype=np.int32), np.array(slopes, dtype=np.int32)


def sample_q16(
    u32: int,
    base: Sequence[int] | NDArray[np.signedinteger],
    slope: Sequence[int] | NDArray[np.signedinteger],
    symmetric: bool,
) -> int:
    """Return one draw in Q16 from 32 uniform bits: the sign above, then 31 bits of probability.

    Values are linear between knots. Within the last 2**-20 of probability the tables go straight to the quantile of 1 -
    2**-32, which is heavier than the true distribution there.
    """
    u = u32 & 0x7FFFFFFF
    index, fraction = u >> 21, (u >> 9) & 4095
    if index == SEGMENTS - 1:
        index, fraction = SEGMENTS + ((u >> 11) & 1023), (u & 2047) << 1
    value = int(base[index]) + ((int(slope[index]) * fraction) >> 12)
    return -value if symmetric and u32 >> 31 else value
