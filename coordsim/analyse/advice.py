"""The one change that a recorded run itself says would pay, by how much, and how sure that is.

Every candidate is a replay of the run's own steps (:mod:`coordsim.analyse.replay`). The interval is that of the mean
over steps like these (bootstrap): it knows of their spread, and nothing of what the change itself may cost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np

from coordsim.analyse.replay import (
    Float,
    Step,
    played,
    savings,
    steps_of,
    without_control,
    without_input,
    without_lateness,
)
from coordsim.record.ranks.facts import NOT_NEGOTIATED, control_plane, gathers
from coordsim.record.ranks.merge import Merged
from coordsim.record.ranks.reader import RankRecord

LEAST_STEPS = 5
WORTH_CHANGING = 0.005
"""Below this share of the step no change is recommended."""
_DRAWS = 2_000
_LOW, _HIGH = 0.05, 0.95
_RARE = 3.0
"""Time between steps whose mean is so many times its median is that of few steps."""
_LATE = 0.75
"""A rank that is last in more than this share of the steps is late for a reason of its own."""


def advice(records: Sequence[RankRecord], merged: Merged, late: Collection[int] = ()) -> dict[str, Any]:
    """``change`` with ``saves``, ``saves_low``, ``saves_high`` (shares of the mean step) and ``step_time_s``; or
    ``change`` null and ``why`` there is none. ``late``: ranks that are known to be, in a part of the run at least."""
    numbers = range(merged.first_step, merged.first_step + merged.trace.steps["step"].size)
    if len(numbers) <= LEAST_STEPS:
        return _none(f"{len(numbers)} steps are too few to predict from; more than {LEAST_STEPS} are needed")
    steps = steps_of(records, numbers)
    if any(gathers(record) for record in records):
        return _none("ranks wait for each other in gathers inside forward and backward, which a replay of reductions "
                     "does not see")  # fmt: skip
    if steps is None:
        return _none("this record does not say when each reduction could begin and when it ended, so nothing can be "
                     "predicted from it")  # fmt: skip
    before = np.array([played(step) for step in steps], dtype=np.float64)
    mean_s = float(before.mean()) / 1e9
    best: dict[str, Any] | None = None
    for change, changed in _candidates(records, steps, late):
        each = savings(steps, changed)
        low, high = _interval(each, before)
        saves = float(each.mean())
        if low > 0 and saves >= WORTH_CHANGING and (best is None or saves > best["saves"]):
            best = {
                "change": change, "why": "replayed from this record without it", "saves": saves, "saves_low": low,
                "saves_high": high, "step_time_s": mean_s * (1 - saves),
            }  # fmt: skip
    return best or _none("no change that this record can predict would save half a percent of the step")


def _candidates(
    records: Sequence[RankRecord], steps: Sequence[Step], late: Collection[int]
) -> Iterator[tuple[str, Callable[[Step], Step]]]:
    ranks = [record for record in records if record.steps and record.head.get("detailed")]
    last = Counter(_last(step) for step in steps)
    for index, record in enumerate(ranks):
        if len(ranks) > 1 and (record.rank in late or last[index] > _LATE * len(steps)):
            yield (
                f"bring rank {record.rank} ({record.head.get('host')}), which is late, to the median rank's speed",
                without_lateness(index),
            )
    if any(any(step.start_R) for step in steps):
        index, times = Counter(step.start_R.index(max(step.start_R)) for step in steps).most_common(1)[0]
        where = f" on rank {ranks[index].rank}" if len(ranks) > 1 and times > _LATE * len(steps) else ""
        yield f"{_between(steps)}{where}", without_input
    if control_plane(ranks[0]) != NOT_NEGOTIATED:
        yield "negotiate less (groups, cycles on submission), at most", without_control


def _between(steps: Sequence[Step]) -> str:
    """What lies between a step and the next forward: the record does not say what it was, but whether it was rare."""
    waits = [max(step.start_R) for step in steps]
    if np.mean(waits) > _RARE * np.median(waits):
        return "shorten what is done between steps now and then (evaluation, a checkpoint, samples)"
    return "begin forward sooner after a step: samples (more workers, prefetching), or what else is done there"


def _last(step: Step) -> int:
    ready = [max(each.ready_R[rank] for each in step.reductions) for rank in range(len(step.start_R))]
    return ready.index(max(ready))


def _interval(each: Float, before: Float) -> tuple[float, float]:
    """5th and 95th percentile of what is saved of as many steps, drawn from these. ``each``: shares of the mean step
    saved in each, ``before``: how long each took, ns."""
    draws = np.random.default_rng(0).integers(0, each.size, (_DRAWS, each.size))
    saved = each[draws].mean(axis=1) * before.mean() / before[draws].mean(axis=1)
    low, high = np.quantile(saved, (_LOW, _HIGH))
    return float(low), float(high)


def _none(why: str) -> dict[str, Any]:
    return {"change": None, "why": why, "saves": None, "saves_low": None, "saves_high": None, "step_time_s": None}
