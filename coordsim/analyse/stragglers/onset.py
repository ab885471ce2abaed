"""Onset of a rank's lateness within its step: at the start of the step, at the first gradient, or at one tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from coordsim.analyse.stragglers.chain import Chain, excess_by_part
from coordsim.analyse.stragglers.judge import LEAST_NS, behind_median
from coordsim.analyse.stragglers.readiness import Readiness
from coordsim.record.findings import Onset, PartExcess
from coordsim.record.ranks import RankRecord
from coordsim.record.ranks.facts import readiness
from coordsim.record.trace import Int64

MOSTLY = 0.6
"""Share of the lateness that must appear at one place for this place to be its onset."""
BEGUN, FIRST, TENSOR, BACKWARD, WORK = "begin", "first gradient", "tensor", "backward", "work"
SENTENCES = {
    BEGUN: "it has the results of the step before later than others",
    FIRST: "late by its first gradient already (input, forward)",
    TENSOR: "most of it comes at one tensor",
    BACKWARD: "it grows through backward (slow compute)",
    WORK: "by its own work between gathers, in which ranks wait for each other",
}

PARTS = {
    "between_steps": "between the steps (logging, evaluation, checkpoints)", "input_stall": "by its input (samples)",
    "forward": "in forward", "backward": "in backward, all through it (slow compute)",
    "before_optimizer": "between backward and the optimizer (such as clipping)",
    "optimizer": "in the optimizer of the step before",
}  # fmt: skip
"""Part of a rank's own work -> words for an onset in that part."""
ALSO = 0.2
"""A further part is named if its excess is at least this share of the largest part's."""


def locate_by_parts(
    chain: Chain, place: int, marked: Onset, records: Sequence[RankRecord], own_clock: bool
) -> Onset:
    """Locate the onset by durations: the parts of its own work that take the rank at ``place`` longer than the others.

    ``marked`` is the onset by marks (:func:`locate_by_marks`), which also shows results that arrive late. ``records``
    state when each gradient was submitted, in the order of the chain's ranks.
    """
    longer = excess_by_part(chain, place)
    late_ns = max(marked.at_last_gradient_s * 1e9, 0.0)
    largest = max(longer, key=longer.__getitem__)
    least = max(ALSO * longer[largest], LEAST_NS / 2)
    named = sorted((part for part in longer if longer[part] >= least), key=lambda part: -longer[part])
    less = [part for part in longer if longer[part] <= -max(ALSO * late_ns, LEAST_NS)]
    parts = tuple(PartExcess(part=part, excess_s=longer[part] / 1e9) for part in (*named, *less))
    if sum(longer.values()) < (1 - MOSTLY) * late_ns or not named:
        return replace(marked, origin=BEGUN, what=SENTENCES[BEGUN], tensor=None, parts=parts)
    tensor = None
    if largest == "backward":
        name, jump = _largest_jump(_lateness_by_tensor(records, place, set(chain.steps.tolist()), own_clock))
        tensor = name if jump >= MOSTLY * longer[largest] else None
    where = f"in backward, from {tensor} on" if tensor else PARTS[largest]
    return replace(marked, origin=TENSOR if tensor else largest, what=where, tensor=tensor, parts=parts)


def locate_by_marks(
    ready: Readiness, records: Sequence[RankRecord], place: int, within: slice, own_clock: bool
) -> Onset:
    """Locate the onset by marks, for the rank at ``place`` in the steps at the places ``within``.

    ``tensor`` is the one at which the lateness appears, as far as cycles of this rank and of another were recorded in
    detail. With ``own_clock`` no clocks are compared: times count from the end of the preceding step on each rank.
    """
    chained = ready.chained[within]
    begins = ready.begun_SR[within][chained]
    begun = _median_lateness_ns(begins, place) if chained.any() and not own_clock else None
    if own_clock:
        last = _median_lateness_ns(ready.last_SR[within][chained] - begins, place)
        first = _median_lateness_ns(ready.first_SR[within][chained] - begins, place)
    else:
        last = _median_lateness_ns(ready.last_SR[within], place)
        first = _median_lateness_ns(ready.first_SR[within], place)
    profile = _lateness_by_tensor(records, place, set(ready.steps[within].tolist()), own_clock)
    tensor, jump = _largest_jump(profile)
    where = BACKWARD
    if begun is not None and begun >= MOSTLY * last:
        where = BEGUN
    elif first >= MOSTLY * last:
        where = FIRST
    elif tensor is not None and jump >= MOSTLY * last:
        where = TENSOR
    return Onset(
        origin=where, what=SENTENCES[where], tensor=tensor if where == TENSOR else None,
        at_begin_s=None if begun is None else begun / 1e9, at_first_gradient_s=first / 1e9,
        at_last_gradient_s=last / 1e9, tensors_compared=len(profile),
    )  # fmt: skip


def locate_between_gathers(work_SR: Int64, place: int) -> Onset:
    """Return the onset where ranks wait for each other in gathers all through the step.

    The time of a gradient says nothing then. ``work_SR`` is each rank's own work in the steps that count, ns, shape
    [step, rank].
    """
    return Onset(
        origin=WORK, what=SENTENCES[WORK], tensor=None, at_begin_s=None, at_first_gradient_s=None,
        at_last_gradient_s=_median_lateness_ns(work_SR, place) / 1e9, tensors_compared=0,
    )  # fmt: skip


def _median_lateness_ns(arrive_SR: Int64, place: int) -> float:
    """Return how much later than the median of the others the rank at ``place`` arrives, ns, median over steps."""
    return float(np.median(behind_median(arrive_SR)[:, place]))


def _lateness_by_tensor(
    records: Sequence[RankRecord], place: int, steps: set[int], own_clock: bool
) -> list[tuple[str, float]]:
    """Return (tensor, lateness against the median of the others, ns) in the order in which the rank submits."""
    mine = _submissions_ns(records[place], steps, own_clock)
    first = _first_by_step(mine)
    others = [_submissions_ns(record, steps, own_clock) for number, record in enumerate(records) if number != place]
    late: dict[str, list[float]] = {}
    order: dict[str, list[int]] = {}
    for key, at in mine.items():
        theirs = [of_rank[key] for of_rank in others if key in of_rank]
        if theirs:
            late.setdefault(key[1], []).append(at - float(np.median(theirs)))
            order.setdefault(key[1], []).append(at - first[key[0]])
    names = sorted(late, key=lambda name: (float(np.median(order[name])), name))
    return [(name, float(np.median(late[name]))) for name in names]


def _submissions_ns(record: RankRecord, steps: set[int], own_clock: bool) -> dict[tuple[int, str], int]:
    """Return (step, tensor) -> time of its first submission in that step, ns.

    Times are on rank 0's clock or, with ``own_clock``, since the rank's first submission of the step.
    """
    clock = record.clock
    offset = clock.offset_ns if clock is not None else 0
    stamps: dict[tuple[int, str], int] = {}
    for cycle in record.cycles:
        if cycle.step in steps:
            for tensor, stamp in zip(cycle.popped, cycle.stamps_ns, strict=True):
                stamps.setdefault((cycle.step, record.name(tensor)), stamp + offset)
    if not record.cycles:  # Without negotiation nothing is submitted; the times at which gradients are ready stand in.
        for step, of_step in readiness(record).items():
            if step in steps:
                stamps |= {(step, name): stamp + offset for name, stamp in of_step.items()}
    if own_clock:
        first = _first_by_step(stamps)
        stamps = {key: at - first[key[0]] for key, at in stamps.items()}
    return stamps


def _first_by_step(stamps: dict[tuple[int, str], int]) -> dict[int, int]:
    """Return step -> time of its first submission."""
    first: dict[int, int] = {}
    for (step, _), at in stamps.items():
        first[step] = min(first.get(step, at), at)
    return first


def _largest_jump(profile: list[tuple[str, float]]) -> tuple[str | None, float]:
    """Return the tensor at which lateness grows most against the tensor before it, and by how much, ns."""
    jumps = [(after[1] - before[1], after[0]) for before, after in pairwise(profile)]
    if not jumps:
        return None, 0.0
    late, name = max(jumps)
    return name, late
