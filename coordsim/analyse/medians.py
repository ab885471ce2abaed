"""The median of a sample with its interval from order statistics, which assumes no distribution."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr


def median_interval(values: npt.NDArray[Any], confidence: float = 0.95) -> tuple[float, float, float]:
    """Median of ``values`` (shape [value], at least one), and the ends of its interval at ``confidence``.

    The interval is the exact one of :func:`scipy.stats.quantile_test`, and the whole range where there are too few
    values for any; a test holds the two equal. It is computed here because SciPy's takes 40 times as long, and the
    diagnosis of stragglers asks for one a unit and stretch of steps.
    """
    ordered = np.sort(values)
    below = bdtr(np.arange(ordered.size), ordered.size, 0.5)
    cut = int(np.searchsorted(below, (1 - confidence) / 2, side="right"))
    return float(np.median(ordered)), float(ordered[max(cut - 1, 0)]), float(ordered[min(-cut, -1)])
