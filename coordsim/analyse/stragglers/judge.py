"""Exact tests of whether one unit (a rank or a host) arrives late, and since when.

If N units behave identically, each is last in a step with probability 1/N, whatever the distribution of the jitter.
The number of steps in which one unit is last then follows a binomial law, and a count whose p-value is below
:data:`CHANCE` is no chance. The interval of the median lateness comes from order statistics and assumes no
distribution either.

Arrays of arrival times have shape [step, unit] and are in ns on a common clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import bdtrc

from coordsim.analyse.medians import median_interval
from coordsim.record.trace import Int64

CHANCE = 0.02
"""False-alarm probability of a run when all units behave identically."""
WORTH = 0.01
"""Lateness below this share of a step is not reported."""
LEAST_NS = 500_000
"""Lateness below this is not reported: schedulers, and the order in which results reach ranks, cause as much."""
APART = 3.0
"""A late unit must exceed the others' typical spread by this factor."""
SHORTEST = 8
"""Fewest steps of a part of a run that is judged by itself."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Late:
    """One unit that is late in the steps at the places ``begin`` to ``end`` (``end`` excluded)."""

    unit: int
    begin: int
    end: int
    last: int
    """Number of these steps in which the unit was last by more than the clocks' error."""
    chance: float
    """p-value of that count under the null hypothesis, before correction for testing several units."""
    median_ns: float
    """Median lateness against the median of the others, with its interval in ``low_ns`` and ``high_ns``."""
    low_ns: float
    high_ns: float
    cost_ns: float
    """Time for which the others waited for this unit alone, median over these steps."""
    cost_mean_ns: float
    """The same, mean over these steps."""


class _Part(NamedTuple):
    """A part of a run (places of steps, ``end`` excluded), and how many hypotheses are tested for it."""

    begin: int
    end: int
    hypotheses: int


def find_latest(arrive_SU: Int64, margin_U: Int64, step_ns: float) -> Late | None:
    """Find the late unit that costs most, or None if no unit is late.

    ``margin_U`` is the largest error of each unit's clock against any other, ns; ``step_ns`` the time of a step.
    """
    steps, units = arrive_SU.shape
    if steps == 0 or units < 2:
        return None
    gaps, lateness = behind_all_others(arrive_SU), behind_median(arrive_SU)
    candidates: list[Late] = []
    for unit in range(units):
        for part in _choose_parts(lateness[:, unit], units):
            late = _judge(arrive_SU, gaps[:, unit], lateness[:, unit], unit, part, int(margin_U[unit]), step_ns)
            if late is not None:
                candidates.append(late)
                break
    return max(candidates, key=lambda late: late.cost_mean_ns * (late.end - late.begin), default=None)


def smallest_detectable_ns(arrive_SU: Int64, margin_U: Int64, step_ns: float) -> float | None:
    """Return the smallest constant delay that would have been detected on any unit; None if no delay would have been.

    The delay is added in thought to one unit after the other, over the jitter that was recorded. The arguments are
    those of :func:`find_latest`.
    """
    steps, units = arrive_SU.shape
    needed = _count_needed(steps, units, 1)
    if units < 2 or needed is None:
        return None
    to_be_last = np.sort(-behind_all_others(arrive_SU), axis=0)[needed - 1] + margin_U
    lateness, levels = behind_median(arrive_SU), _median_levels(arrive_SU)
    delays = [_least_ns(step_ns)]
    for unit in range(units):
        median, low, _ = median_interval(lateness[:, unit])
        to_stand_apart = max(_least_ns(step_ns), APART * _spread_of_others(levels, unit)) - median
        delays.append(max(float(to_be_last[unit]), to_stand_apart, int(margin_U[unit]) + LEAST_NS - low))
    return max(delays)


def behind_all_others(arrive_SU: Int64) -> Int64:
    """Return how much later than the last of all others each unit arrives, ns, shape [step, unit].

    A value below 0 says that the unit is not last.
    """
    ordered = np.sort(arrive_SU, axis=1)
    last, before = ordered[:, -1:], ordered[:, -2:-1]
    return np.where(arrive_SU == last, arrive_SU - before, arrive_SU - last)


def behind_median(arrive_SU: Int64) -> Numbers:
    """Return how much later than the median of all others each unit arrives, ns, shape [step, unit].

    There must be at least two units.
    """
    ordered = np.sort(arrive_SU, axis=1)
    middle = arrive_SU.shape[1] // 2
    at, below = ordered[:, middle : middle + 1], ordered[:, middle - 1 : middle]
    if arrive_SU.shape[1] % 2 == 0:
        return np.asarray(arrive_SU - np.where(arrive_SU <= below, at, below), dtype=np.float64)
    above = ordered[:, middle + 1 : middle + 2]
    lower, upper = np.where(arrive_SU <= at, above, at), np.where(arrive_SU >= at, below, at)
    return np.asarray(arrive_SU - (lower + upper) / 2, dtype=np.float64)


def find_change(values: Numbers) -> tuple[int, float]:
    """Return the place at which a series most likely changes its level, and the p-value of this change.

    The test is Pettitt's (A. N. Pettitt, Applied Statistics 28, 1979).
    """
    count = values.size
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable") + 1
    drift = 2 * np.cumsum(ranks) - np.arange(1, count + 1) * (count + 1)
    place = int(np.argmax(np.abs(drift[:-1])))
    chance = 2 * np.exp(-6.0 * float(drift[place]) ** 2 / (count**3 + count**2))
    return place + 1, min(float(chance), 1.0)


def _choose_parts(lateness: Numbers, units: int) -> list[_Part]:
    """Choose the parts of a run that are judged for one unit: the slower side of a change of level, then the run."""
    steps = lateness.size
    whole = _Part(0, steps, 1)
    if steps < 2 * SHORTEST:
        return [whole]
    place, chance = find_change(lateness)
    if chance * units > CHANCE or not SHORTEST <= place <= steps - SHORTEST:
        return [whole]
    before, after = np.median(lateness[:place]), np.median(lateness[place:])
    if min(before, after) > max(before, after) / 2:
        return [whole]
    return [_Part(place, steps, 2) if after > before else _Part(0, place, 2), whole]


def _judge(
    arrive_SU: Int64, gaps_S: Int64, lateness_S: Numbers, unit: int, part: _Part, margin_ns: int, step_ns: float
) -> Late | None:
    """Judge one unit in one part of a run: it is late if it is last often enough, and by enough."""
    within, steps = slice(part.begin, part.end), part.end - part.begin
    units = arrive_SU.shape[1]
    needed = _count_needed(steps, units, part.hypotheses)
    last = int((gaps_S[within] > margin_ns).sum())
    if needed is None or last < needed:
        return None
    median, low, high = median_interval(lateness_S[within])
    enough = max(_least_ns(step_ns), APART * _spread_of_others(_median_levels(arrive_SU[within]), unit))
    if low - margin_ns < LEAST_NS or median < enough:
        return None
    waited = np.maximum(gaps_S[within], 0)
    return Late(
        unit, part.begin, part.end, last, float(bdtrc(last - 1, steps, 1 / units)), median, low - margin_ns,
        high + margin_ns, float(np.median(waited)), float(waited.mean()),
    )  # fmt: skip


def _least_ns(step_ns: float) -> float:
    return max(WORTH * step_ns, LEAST_NS)


def _median_levels(arrive_SU: Int64) -> Numbers:
    """Return each unit's median distance from the middle of all units, ns, shape [unit].

    It is what persists from step to step, such as the order in which ranks are woken.
    """
    return np.asarray(np.median(arrive_SU - np.median(arrive_SU, axis=1, keepdims=True), axis=0))


def _spread_of_others(levels_U: Numbers, unit: int) -> float:
    """Return the other units' median absolute deviation from their median, ns."""
    others = np.delete(levels_U, unit)
    return float(np.median(np.abs(others - np.median(others)))) if others.size > 2 else 0.0


def _count_needed(steps: int, units: int, hypotheses: int) -> int | None:
    """Return in how many steps a unit must be last to be named; None when even all of them can be chance.

    The p-value is corrected for the number of units and of ``hypotheses`` tested for each (Bonferroni).
    """
    counts = np.arange(1, steps + 1)
    tail: Any = bdtrc(counts - 1, steps, 1 / units)
    enough = np.flatnonzero(tail <= CHANCE / (units * hypotheses))
    return int(counts[enough[0]]) if enough.size else None
