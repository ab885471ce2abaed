"""From where in its step on is a rank late? By its begin, its first submission, and tensor by tensor."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from coordsim.analyse.stragglers.chain import Chain, excess
from coordsim.analyse.stragglers.judge import LEAST_NS, behind_median
from coordsim.analyse.stragglers.readiness import Readiness
from coordsim.record.ranks import RankRecord
from coordsim.record.ranks.facts import readiness
from coordsim.record.trace import Int64

MOSTLY = 0.6
"""Share of the lateness that makes one place its origin."""
BEGUN, FIRST, TENSOR, BACKWARD, WORK = "begin", "first gradient", "tensor", "backward", "work"
SENTENCES = {
    BEGUN: "it has the results of the step before later than others",
    FIRST: "late by its first gradient already (input, forward)",
    TENSOR: "most of it comes at one tensor",
    BACKWARD: "it grows through backward (slow compute)",
    WORK: "by its own work between gathers, which tie ranks together",
}

PARTS = {
    "between_steps": "between the steps (logging, evaluation, checkpoints)", "input_stall": "by its input (samples)",
    "forward": "in forward", "backward": "in backward, all through it (slow compute)",
    "before_optimizer": "between backward and the optimizer (such as clipping)",
    "optimizer": "in the optimizer of the step before",
}  # fmt: skip
"""Parts of a rank's own work -> where it gets late, if that takes longer than on the others."""
ALSO = 0.2
"""Share of the largest part's excess from which on another part is named, too."""


def parts_onset(
    chain: Chain, place: int, marked: dict[str, Any], records: Sequence[RankRecord], own_clock: bool
) -> dict[str, Any]:
    """Where the rank at ``place`` gets late, by its own durations: the parts that take longer than on the others.

    ``marked``: the same by its marks, which know of results that come late; ``records`` know when each gradient came.
    """
    longer = excess(chain, place)
    late_ns = max(marked["at_last_gradient_s"] * 1e9, 0.0)
    largest = max(longer, key=longer.__getitem__)
    least = max(ALSO * longer[largest], LEAST_NS / 2)
    named = sorted((part for part in longer if longer[part] >= least), key=lambda part: -longer[part])
    less = [part for part in longer if longer[part] <= -max(ALSO * late_ns, LEAST_NS)]
    parts = [{"part": part, "excess_s": longer[part] / 1e9} for part in (*named, *less)]
    if sum(longer.values()) < (1 - MOSTLY) * late_ns or not named:
        return marked | {"from": BEGUN, "what": SENTENCES[BEGUN], "tensor": None, "parts": parts}
    tensor = None
    if largest == "backward":
        name, jump = _jump(_profile(records, place, set(chain.steps.tolist()), own_clock))
        tensor = name if jump >= MOSTLY * longer[largest] else None
    where = f"in backward, from {tensor} on" if tensor else PARTS[largest]
    return marked | {"from": TENSOR if tensor else largest, "what": where, "tensor": tensor, "parts": parts}


def onset(
    found: Readiness, records: Sequence[RankRecord], place: int, within: slice, own_clock: bool
) -> dict[str, Any]:
    """Where the lateness of the rank at ``place`` comes from, in the steps at ``within`` (places).

    ``tensor`` is the one at which it appears, as far as cycles of this rank and of another were recorded in detail.
    With ``own_clock`` ranks' clocks are not compared: times count from the end of the step before on each rank.
    """
    chained = found.chained[within]
    begins = found.begun_SR[within][chained]
    begun = _late(begins, place) if chained.any() and not own_clock else None
    if own_clock:
        last = _late(found.last_SR[within][chained] - begins, place)
        first = _late(found.first_SR[within][chained] - begins, place)
    else:
        last, first = _late(found.last_SR[within], place), _late(found.first_SR[within], place)
    profile = _profile(records, place, set(found.steps[within].tolist()), own_clock)
    tensor, jump = _jump(profile)
    where = BACKWARD
    if begun is not None and begun >= MOSTLY * last:
        where = BEGUN
    elif first >= MOSTLY * last:
        where = FIRST
    elif tensor is not None and jump >= MOSTLY * last:
        where = TENSOR
    return {
        "from": where, "what": SENTENCES[where], "tensor": tensor if where == TENSOR else None,
        "at_begin_s": None if begun is None else begun / 1e9, "at_first_gradient_s": first / 1e9,
        "at_last_gradient_s": last / 1e9, "tensors_compared": len(profile),
    }  # fmt: skip


def between_gathers(work_SR: Int64, place: int) -> dict[str, Any]:
    """The same where gathers tie ranks together: when a gradient is there says nothing then. ``work_SR`` of the steps
    that count, ns."""
    return {
        "from": WORK, "what": SENTENCES[WORK], "tensor": None, "at_begin_s": None, "at_first_gradient_s": None,
        "at_last_gradient_s": _late(work_SR, place) / 1e9, "tensors_compared": 0,
    }  # fmt: skip


def _late(arrive_SR: Int64, place: int) -> float:
    """Median over steps, ns, of how much later than the median of the others."""
    return float(np.median(behind_median(arrive_SR)[:, place]))


def _profile(
    records: Sequence[RankRecord], place: int, steps: set[int], own_clock: bool
) -> list[tuple[str, float]]:
    """(name, how much later than the median of the others, ns) in the order in which the rank submits."""
    mine = _stamps(records[place], steps, own_clock)
    first = _first(mine)
    others = [_stamps(record, steps, own_clock) for number, record in enumerate(records) if number != place]
    late: dict[str, list[float]] = {}
    order: dict[str, list[int]] = {}
    for key, at in mine.items():
        theirs = [each[key] for each in others if key in each]
        if theirs:
            late.setdefault(key[1], []).append(at - float(np.median(theirs)))
            order.setdefault(key[1], []).append(at - first[key[0]])
    names = sorted(late, key=lambda name: (float(np.median(order[name])), name))
    return [(name, float(np.median(late[name]))) for name in names]


def _stamps(record: RankRecord, steps: set[int], own_clock: bool) -> dict[tuple[int, str], int]:
    """(step, tensor) -> when it was first submitted in it: on rank 0's clock, or since the rank's first submission."""
    clock = record.clock
    offset = clock.offset_ns if clock is not None else 0
    found: dict[tuple[int, str], int] = {}
    for cycle in record.cycles:
        if cycle.step in steps:
            for tensor, stamp in zip(cycle.popped, cycle.stamps_ns, strict=True):
                found.setdefault((cycle.step, record.name(tensor)), stamp + offset)
    if not record.cycles:  # nobody negotiates: nothing is submitted, parameters are ready
        for step, of_step in readiness(record).items():
            if step in steps:
                found |= {(step, name): stamp + offset for name, stamp in of_step.items()}
    if own_clock:
        first = _first(found)
        found = {key: at - first[key[0]] for key, at in found.items()}
    return found


def _first(stamps: dict[tuple[int, str], int]) -> dict[int, int]:
    """Step -> its first submission."""
    first: dict[int, int] = {}
    for (step, _), at in stamps.items():
        first[step] = min(first.get(step, at), at)
    return first


def _jump(profile: list[tuple[str, float]]) -> tuple[str | None, float]:
    """The tensor before which most lateness appears, and how much."""
    jumps = [(after[1] - before[1], after[0]) for before, after in pairwise(profile)]
    if not jumps:
        return None, 0.0
    late, name = max(jumps)
    return name, late
