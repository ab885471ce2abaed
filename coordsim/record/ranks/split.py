"""The split of a recorded run's steps: one stated rank's own durations, and what it waited for.

The stated rank is the median one (:func:`stated`). Its clock, moved to rank 0's, is the run's: a step runs from its end
of the step before to its own end, so the parts sum to the step to the nanosecond and no skew between ranks cuts any of
them. Of its waits, those for other ranks' data are ``straggler_wait``: in the tail up to the last rank's last gradient,
in a gather up to the last rank's call. The rest of the tail is what the control plane and the collectives take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median_low

import numpy as np

from coordsim.record.breakdown import RECORDED_PARTS, tails_of
from coordsim.record.ranks.facts import clock_offset
from coordsim.record.ranks.own import OWN_PARTS, OwnStep
from coordsim.record.ranks.reader import RankRecord
from coordsim.record.trace import Int64, Trace

Own = Mapping[int, OwnStep]
"""A rank's steps by number."""


def stated(records: Sequence[RankRecord], own: Sequence[Own], steps: range) -> int:
    """Place of the rank whose durations are shown: the (lower) median of all by own work.

    A rank's own work is its median over the steps (without the run's first one) of the step less its waits. Of N ranks
    in order of that, then of their numbers, it is number ``(N - 1) // 2`` from 0; if that one has no details, the rank
    with details whose own work is nearest.
    """
    counted = steps[1:] if steps.start == 0 and len(steps) > 1 else steps
    work = [median_low([of_rank[number].work.total for number in counted]) for of_rank in own]
    order = sorted(range(len(records)), key=lambda place: (work[place], records[place].rank))
    middle = order[(len(order) - 1) // 2]
    detailed = [place for place in order if records[place].detailed]
    if middle in detailed or not detailed:
        return middle
    return min(detailed, key=lambda place: (abs(work[place] - work[middle]), records[place].rank))


def columns(
    trace: Trace, records: Sequence[RankRecord], own: Sequence[Own], steps: range, place: int, base_ns: int
) -> dict[str, Int64]:
    """The parts of each step as the rank at ``place`` had them: name -> ns, shape [step].

    ``trace``: the three tables, whose steps end with this rank's; ``base_ns``: its time 0 on rank 0's clock. Parts that
    the records cannot tell apart are left out.
    """
    mine = [own[place][number] for number in steps]
    moved = clock_offset(records[place]) - base_ns
    found = {name: np.array([getattr(step.work, name) for step in mine], dtype=np.int64) for name in OWN_PARTS}
    begin = np.array([step.tail[0] + moved if step.tail else 0 for step in mine], dtype=np.int64)
    end = np.array([step.tail[1] + moved if step.tail else 0 for step in mine], dtype=np.int64)
    ready = np.minimum(np.maximum(trace.steps["ready_last_ns"], begin), end)
    found["straggler_wait"] = ready - begin
    tails = tails_of(trace, ready, end)
    rest = end - ready - np.sum(list(tails.values()), axis=0, dtype=np.int64)
    found |= tails
    found["exposed_collective"] = tails["exposed_collective"] + rest
    if any(step.waits for step in mine):
        late, gathered, reduced = _waits(records, mine, steps, moved + base_ns)
        found["straggler_wait"] = found["straggler_wait"] + late
        found["gather_wait"] = gathered
        found["exposed_collective"] = found["exposed_collective"] + reduced
    for name in trace.missing & {"input_stall", "forward"}:
        found["backward"] = found["backward"] + found[name]
    spanned = any(step.record.spans for step in mine)
    first = "between_steps" if spanned else "input_stall" if "input_stall" not in trace.missing else "backward"
    lengths = np.array([step.end_ns - step.begin_ns for step in mine], dtype=np.int64)
    found[first] = found[first] + np.diff(trace.steps["end_ns"], prepend=0) - lengths
    if not spanned:  # marks cannot tell these apart
        del found["between_steps"], found["before_optimizer"]
    return {name: found[name] for name in RECORDED_PARTS if name in found and name not in trace.missing}


def _waits(
    records: Sequence[RankRecord], mine: Sequence[OwnStep], steps: range, moved: int
) -> tuple[Int64, Int64, Int64]:
    """Of a rank's waits before its tail, by step: for the last rank's call; from there on in gathers, and in
    reductions. ``moved``: how far rank 0's clock is ahead of the rank's."""
    last = last_calls(records)
    rows = []
    for number, step in zip(steps, mine, strict=True):
        late, gathered, reduced = 0, 0, 0
        for wait in step.waits:
            called = min(max(last[number, wait.place] - moved, wait.begin_ns), wait.end_ns)
            late += called - wait.begin_ns
            gathered += wait.end_ns - called if wait.gather else 0
            reduced += 0 if wait.gather else wait.end_ns - called
        rows.append((late, gathered, reduced))
    columns = np.array(rows, dtype=np.int64).T
    return columns[0], columns[1], columns[2]


def last_calls(records: Sequence[RankRecord]) -> dict[tuple[int, int], int]:
    """(step, place) -> when the last rank called that collective, on rank 0's clock."""
    found: dict[tuple[int, int], int] = {}
    for record in records:
        moved = clock_offset(record)
        for each in record.responses:
            key = each.step, each.place
            at = each.copied_in_ns + moved
            found[key] = max(found.get(key, at), at)
    return found
