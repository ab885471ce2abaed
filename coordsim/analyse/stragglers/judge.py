"""Is a column of arrival times late, and since when? Exact tests on who is last, no assumption about the jitter.

If N alike units arrive in each step, each is last with probability 1/N, whatever their jitter looks like. So the number
of steps in which one is last follows a binomial law, and more of them than :data:`CHANCE` allows is no chance. The
median lateness has an interval from order statistics, which assumes nothing either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, bdtrc

from coordsim.record.trace import Int64

CHANCE = 0.02
"""Of naming anybody in a run in which all are alike."""
CONFIDENCE = 0.95
WORTH = 0.01
"""Share of a step below which lateness is not worth a name."""
LEAST_NS = 500_000
"""Lateness that nobody is named for: what schedulers and the order in which results reach ranks make of equal ranks."""
APART = 3.0
"""How many times further off than the others usually are among themselves a late unit must be."""
SHORTEST = 8
"""Steps that a part of a run must have to be judged by itself."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Late:
    """One unit, late in steps ``begin`` to ``end`` (places, ``end`` excluded)."""

    unit: int
    begin: int
    end: int
    last: int
    """Steps among these in which it came last, by more than clocks may be wrong."""
    chance: float
    """Of that many or more, were all alike; before it was looked for among several units."""
    median_ns: float
    low_ns: float
    high_ns: float
    cost_ns: float
    """Median over these steps of how long the others waited for it alone."""
    cost_mean_ns: float


def find(arrive_SU: Int64, margin_U: Int64, step_ns: float) -> Late | None:
    """The latest of several units, or None. ``margin_U``: how far a unit's clock may be off against any other."""
    steps, units = arrive_SU.shape
    if steps == 0 or units < 2:
        return None
    gaps, lateness = behind_all_others(arrive_SU), behind_median(arrive_SU)
    found: list[Late] = []
    for unit in range(units):
        for begin, end, tries in _parts(lateness[:, unit], units):
            needed = _needed(end - begin, units, tries)
            last = int((gaps[begin:end, unit] > margin_U[unit]).sum())
            if needed is not None and last >= needed:
                late = _judge(arrive_SU, gaps, lateness, unit, begin, end, last, int(margin_U[unit]), step_ns)
                if late is not None:
                    found.append(late)
                    break
    return max(found, key=lambda each: each.cost_mean_ns * (each.end - each.begin), default=None)


def smallest_seen(arrive_SU: Int64, margin_U: Int64, step_ns: float) -> float | None:
    """ns: the smallest constant delay that would have been found on whichever unit had it; None: none, however large.

    Each unit is given the delay in thought, over the jitter that was there.
    """
    steps, units = arrive_SU.shape
    needed = _needed(steps, units, 1)
    if units < 2 or needed is None:
        return None
    often = np.sort(-behind_all_others(arrive_SU), axis=0)[needed - 1] + margin_U
    lateness, levels = behind_median(arrive_SU), _levels(arrive_SU)
    wanted = [_least(step_ns)]
    for unit in range(units):
        median, low, _ = median_interval(lateness[:, unit])
        far = max(_least(step_ns), APART * _spread(levels, unit)) - median
        wanted.append(max(float(often[unit]), far, int(margin_U[unit]) + LEAST_NS - low))
    return max(wanted)


def behind_all_others(arrive_SU: Int64) -> Int64:
    """How much later than the last of all others each unit comes, ns, shape [step, unit]; below 0: it is not last."""
    ordered = np.sort(arrive_SU, axis=1)
    last, before = ordered[:, -1:], ordered[:, -2:-1]
    return np.where(arrive_SU == last, arrive_SU - before, arrive_SU - last)


def behind_median(arrive_SU: Int64) -> Numbers:
    """How much later than the median of all others each unit comes, ns, shape [step, unit]; at least two units."""
    ordered = np.sort(arrive_SU, axis=1)
    middle = arrive_SU.shape[1] // 2
    at, below = ordered[:, middle : middle + 1], ordered[:, middle - 1 : middle]
    if arrive_SU.shape[1] % 2 == 0:
        return np.asarray(arrive_SU - np.where(arrive_SU <= below, at, below), dtype=np.float64)
    above = ordered[:, middle + 1 : middle + 2]
    one, two = np.where(arrive_SU <= at, above, at), np.where(arrive_SU >= at, below, at)
    return np.asarray(arrive_SU - (one + two) / 2, dtype=np.float64)


def median_interval(values: Numbers) -> tuple[float, float, float]:
    """Median, and the ends of its interval at :data:`CONFIDENCE` (the whole range when there are too few values)."""
    ordered = np.sort(values)
    below = bdtr(np.arange(ordered.size), ordered.size, 0.5)
    cut = int(np.searchsorted(below, (1 - CONFIDENCE) / 2, side="right"))
    return float(np.median(ordered)), float(ordered[max(cut - 1, 0)]), float(ordered[min(-cut, -1)])


def change(values: Numbers) -> tuple[int, float]:
    """Where a series most likely changes its level, and the chance of that without a change (Pettitt's test)."""
    count = values.size
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable") + 1
    drift = 2 * np.cumsum(ranks) - np.arange(1, count + 1) * (count + 1)
    place = int(np.argmax(np.abs(drift[:-1])))
    chance = 2 * np.exp(-6.0 * float(drift[place]) ** 2 / (count**3 + count**2))
    return place + 1, min(float(chance), 1.0)


def _parts(lateness: Numbers, units: int) -> list[tuple[int, int, int]]:
    """(begin, end, hypotheses) of what is judged of a unit: the run, or what lies on one side of a change."""
    steps = lateness.size
    whole = (0, steps, 1)
    if steps < 2 * SHORTEST:
        return [whole]
    at, chance = change(lateness)
    if chance * units > CHANCE or not SHORTEST <= at <= steps - SHORTEST:
        return [whole]
    before, after = np.median(lateness[:at]), np.median(lateness[at:])
    if min(before, after) > max(before, after) / 2:
        return [whole]
    return [(at, steps, 2) if after > before else (0, at, 2), whole]


def _judge(
    arrive_SU: Int64, gaps: Int64, lateness: Numbers, unit: int, begin: int, end: int, last: int, margin_ns: int,
    step_ns: float,
) -> Late | None:  # fmt: skip
    """A unit that is last often enough, if it is late by enough, too."""
    median, low, high = median_interval(lateness[begin:end, unit])
    enough = max(_least(step_ns), APART * _spread(_levels(arrive_SU[begin:end]), unit))
    if low - margin_ns < LEAST_NS or median < enough:
        return None
    waited = np.maximum(gaps[begin:end, unit], 0)
    chance = float(bdtrc(last - 1, end - begin, 1 / arrive_SU.shape[1]))
    return Late(
        unit, begin, end, last, chance, median, low - margin_ns, high + margin_ns, float(np.median(waited)),
        float(waited.mean()),
    )  # fmt: skip


def _least(step_ns: float) -> float:
    return max(WORTH * step_ns, LEAST_NS)


def _levels(arrive_SU: Int64) -> Numbers:
    """Where each unit usually is, ns from the middle of all, shape [unit]: such as the order of wake-ups."""
    return np.asarray(np.median(arrive_SU - np.median(arrive_SU, axis=1, keepdims=True), axis=0))


def _spread(levels_U: Numbers, unit: int) -> float:
    """How far the other units usually are from their middle, ns."""
    others = np.delete(levels_U, unit)
    return float(np.median(np.abs(others - np.median(others)))) if others.size > 2 else 0.0


def _needed(steps: int, units: int, tries: int) -> int | None:
    """In how many steps a unit must be last to be named; None when even all would be chance."""
    counts = np.arange(1, steps + 1)
    tail: Any = bdtrc(counts - 1, steps, 1 / units)
    enough = np.flatnonzero(tail <= CHANCE / (units * tries))
    return int(counts[enough[0]]) if enough.size else None
