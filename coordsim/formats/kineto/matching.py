"""Matches the same collective on several ranks, and finds the rank that the others waited for.

Calls are matched within a step by their process group and, if the trace has it, the group's sequence number; else by
their place among the step's calls of that group and operation. Sends and receives are not matched: they pair two ranks.
On one clock a rank arrives when it requests the collective (with kernels: when its kernel begins). With several clocks
the durations decide: collectives that all ranks end together are shortest on the rank that came last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coordsim.formats.kineto.causality import Call
from coordsim.formats.kineto.names import POINT_TO_POINT, TOGETHER
from coordsim.formats.kineto.raw import Span
from coordsim.formats.kineto.steps import RankRecord, RankStep

FEWEST_STEPS = 4
"""With fewer steps, chance alone could put one rank behind in all."""
_SHARE_OF_STEP = 0.01
_LEAST_NS = 500_000
"""Shorter waits are not counted, since schedulers cause them between equal ranks."""
_CLEAR = 3.0

Key = tuple[Any, ...]


@dataclass(frozen=True)
class WaitedFor:
    """One rank that the others wait for, and the evidence."""

    rank: int
    steps: int
    """Number of steps in which it was waited for longest."""
    wait_ns: int
    """Median wait a step."""
    least_ns: int
    most_ns: int
    others_ns: int
    """Median of the longest wait for any other rank in a step."""


@dataclass(frozen=True)
class Arrivals:
    """How long ranks were waited for in collectives, shape [rank][step], ns, and which rank stands out.

    Time that passes in several collectives at once counts once.
    """

    ranks: list[int]
    waits: list[list[int]]
    matched: int
    """Number of collectives that at least two ranks have."""
    late: WaitedFor | None
    by_duration: bool
    why_nobody: str


def keyed(calls: Sequence[Call]) -> dict[Key, Call]:
    """Return a step's calls by a key that is the same on every rank of their group."""
    places: Counter[Key] = Counter()
    by_key: dict[Key, Call] = {}
    for call in calls:
        if call.operation in POINT_TO_POINT:
            continue
        kind: Key = (*call.group, call.operation if call.sequence is None else call.sequence)
        by_key[*kind, places[kind]] = call
        places[kind] += 1
    return by_key


def arrivals(ranks: Sequence[RankRecord], steps: Sequence[Sequence[RankStep]], one_clock: bool) -> Arrivals | None:
    """Return which ranks were waited for; None for a single rank.

    ``steps`` holds the steps of each rank, the same ones in the same order.
    """
    if len(ranks) < 2 or any(rank.rank is None for rank in ranks):
        return None
    numbers = [rank.rank if rank.rank is not None else -1 for rank in ranks]
    count = len(steps[0])
    waits = [[0] * count for _ in ranks]
    matched, partial = 0, 0
    for place in range(count):
        spans: dict[tuple[int, int], list[Span]] = {}
        by_key = [keyed(of_rank[place].calls) for of_rank in steps]
        for key in dict.fromkeys(key for of_rank in by_key for key in of_rank):
            there = [index for index, of_rank in enumerate(by_key) if key in of_rank]
            calls = [by_key[index][key] for index in there]
            if len(there) < 2 or not _whole(calls, {numbers[index] for index in there}, ranks[0].world_size):
                partial += len(there) >= 2
                continue
            times = _times(calls, one_clock)
            if times is None:
                continue
            matched += 1
            last = max(times)
            behind, wait = times.index(last), last - sorted(times)[(len(times) - 1) // 2]
            clock, begin = (-1, last - wait) if one_clock else _waiting_from(calls, there, behind)
            spans.setdefault((there[behind], clock), []).append(Span(begin, begin + wait))
        for (index, _), of_rank in spans.items():
            waits[index][place] += _covered(of_rank)
    step_ns = float(np.median([step.end_ns - step.begin_ns for step in steps[0]]))
    late, why = _late(numbers, waits, step_ns)
    if not matched:
        why = (
            "not all ranks of any group have a trace" if partial
            else "no collective has a time on two ranks that can be compared"
        )  # fmt: skip
    return Arrivals(numbers, waits, matched, late if matched else None, not one_clock, why)


def _waiting_from(calls: Sequence[Call], there: Sequence[int], late: int) -> tuple[int, int]:
    """Return (the rank's place, when its call began on its own clock) of the first rank that is not the late one."""
    other = 1 if late == 0 else 0
    begin = calls[other].begin_ns
    return there[other], begin if begin is not None else calls[other].asked_ns


def _covered(spans: Sequence[Span]) -> int:
    """Return the time that spans cover together, ns: a rank that several collectives wait for is waited for once."""
    ordered = sorted(spans)
    total, until = 0, ordered[0].begin_ns
    for span in ordered:
        begin = max(span.begin_ns, until)
        total += max(span.end_ns - begin, 0)
        until = max(until, span.end_ns)
    return total


def _whole(calls: Sequence[Call], there: set[int], world: int | None) -> bool:
    """Return whether all ranks of the calls' group are there; an absent one may be the last."""
    ranks = next((call.group_ranks for call in calls if call.group_ranks), None)
    if ranks is not None:
        return set(ranks) <= there
    size = next((call.group_size for call in calls if call.group_size), None) or world
    return size is None or len(there) >= size


def _times(calls: Sequence[Call], one_clock: bool) -> list[int] | None:
    """Return when each rank came; the values are comparable among themselves only."""
    if one_clock:
        on_device = [call.begin_ns for call in calls if call.on_device and call.begin_ns is not None]
        return on_device if len(on_device) == len(calls) else [call.asked_ns for call in calls]
    spans = [(call.begin_ns, call.end_ns) for call in calls if call.operation in TOGETHER]
    lengths = [begin - end for begin, end in spans if begin is not None and end is not None]
    return lengths if len(lengths) == len(calls) else None


def _late(numbers: Sequence[int], waits: Sequence[Sequence[int]], step_ns: float) -> tuple[WaitedFor | None, str]:
    """Return the rank that is waited for in nearly every step by more than any other ever is; or None, and the
    reason."""
    matrix = np.array(waits, np.int64)
    count = matrix.shape[1]
    if count < FEWEST_STEPS:
        why = f"with {count} steps chance alone can put one rank behind in all"
        return None, f"{why}: it takes {FEWEST_STEPS} to name one"
    medians = np.median(matrix, axis=1)
    first = int(medians.argmax())
    rest = np.delete(matrix, first, axis=0).max(axis=0)
    low, high = (0.1, 0.9) if count >= 20 else (0.0, 1.0)
    least, most = (int(np.quantile(matrix[first], share)) for share in (low, high))
    others = int(np.median(rest))
    wait = int(medians[first])
    small = wait < max(_LEAST_NS, _SHARE_OF_STEP * step_ns)
    if small or wait < _CLEAR * others or least <= int(np.quantile(rest, high)):
        return None, "no rank is waited for in every step by more than the others sometimes are"
    steps = int((matrix.argmax(axis=0) == first).sum())
    return WaitedFor(numbers[first], steps, wait, least, most, others), ""
