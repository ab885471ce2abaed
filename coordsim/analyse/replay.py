"""What one change would have saved in a recorded run: its own steps again, with one cause taken out.

Every step is played from what each rank wrote: a reduction begins when its last gradient is there on the last rank
and when the one before has ended, and takes what it took, negotiation included. So a step that nothing is taken out of
ends when it ended, and a saving is the difference of two replays, never a part of the breakdown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from coordsim.protocol.messages import Op
from coordsim.record.ranks.facts import NOT_NEGOTIATED, clock_offset, control_plane, submissions
from coordsim.record.ranks.format import NULL
from coordsim.record.ranks.reader import RankRecord, ResponseRecord

Float = npt.NDArray[np.float64]
_REDUCE = (Op.ALLREDUCE, Op.REDUCESCATTER)


@dataclass(frozen=True)
class Reduction:
    """One reduction of one step; ns since the end of the step before."""

    ready_R: tuple[int, ...]
    """When its last gradient was there, by rank."""
    nbytes: int
    waits_ns: int
    """From when it could have begun to its begin: negotiation."""
    takes_ns: int
    """From its begin to its end."""


@dataclass(frozen=True)
class Step:
    """One step of the replay, ns since the end of the step before."""

    start_R: tuple[int, ...]
    """When forward began, by rank; 0 where nobody knows."""
    reductions: tuple[Reduction, ...]
    rest_ns: int
    """From the end of the last reduction to the end of the step."""


def played(step: Step) -> int:
    """How long ``step`` takes, ns."""
    at = 0
    for each in step.reductions:
        at = max(at, *each.ready_R) + each.waits_ns + each.takes_ns
    return at + step.rest_ns


def without_input(step: Step) -> Step:
    """Every rank's samples are there when the step before ends."""
    return replace(step, reductions=tuple(
        replace(each, ready_R=tuple(at - start for at, start in zip(each.ready_R, step.start_R, strict=True)))
        for each in step.reductions
    ))  # fmt: skip


def without_control(step: Step) -> Step:
    """Nobody waits for an agreement."""
    return replace(step, reductions=tuple(replace(each, waits_ns=0) for each in step.reductions))


def without_lateness(rank: int) -> Callable[[Step], Step]:
    """``rank`` (an index) is never later than the median of all."""

    def changed(step: Step) -> Step:
        return replace(step, reductions=tuple(
            replace(each, ready_R=(*each.ready_R[:rank], min(each.ready_R[rank], _median(each.ready_R)),
                                   *each.ready_R[rank + 1 :]))
            for each in step.reductions
        ))  # fmt: skip

    return changed


def savings(steps: Sequence[Step], change: Callable[[Step], Step]) -> Float:
    """Share of the mean step that ``change`` saves in each step, shape [step]."""
    before = np.array([played(step) for step in steps], dtype=np.float64)
    after = np.array([played(change(step)) for step in steps], dtype=np.float64)
    found: Float = (before - after) / before.mean()
    return found


def _median(values: Sequence[int]) -> int:
    return sorted(values)[(len(values) - 1) // 2]


def steps_of(records: Sequence[RankRecord], numbers: range) -> list[Step] | None:
    """Steps ``numbers`` but the first, whose begin nobody knows, of ranks with details.

    None where the record cannot carry a replay: ends of reductions are not known, or who was ready when.
    """
    ranks = [record for record in records if record.steps and record.head.get("detailed")]
    tables = [_Rank(record) for record in ranks]
    found = []
    for before, number in pairwise(numbers):
        step = _step(tables, before, number)
        if step is None:
            return None
        found.append(step)
    return found or None


class _Rank:
    """One rank's record by step, on rank 0's clock."""

    def __init__(self, record: RankRecord) -> None:
        self.offset_ns = clock_offset(record)
        self.steps = {step.step: step for step in record.steps}
        self.reductions: dict[int, dict[tuple[int, int], ResponseRecord]] = {}
        for each in record.responses:
            if each.op in _REDUCE:
                self.reductions.setdefault(each.step, {})[each.cycle, each.place] = each
        self._record = record
        self._stamps = submissions(record)
        self._negotiated = control_plane(record) != NOT_NEGOTIATED

    def ends(self, number: int) -> int | None:
        """When step ``number`` ended: where nobody marked it, with its last collective."""
        step = self.steps.get(number)
        at_ns = NULL if step is None else step.end_ns if step.end_ns != NULL else step.end_collective_ns
        return None if at_ns == NULL else at_ns + self.offset_ns

    def ready(self, number: int, response: ResponseRecord) -> int | None:
        """When the last gradient of ``response`` was there."""
        if not self._negotiated:
            return response.launch_ns + self.offset_ns
        stamps = self._stamps.get(number, {})
        found = [stamps.get(self._record.name(each)) for each in response.tensors]
        known = [each for each in found if each is not None]
        return max(known) + self.offset_ns if known and len(known) == len(found) else None


def _step(ranks: Sequence[_Rank], before: int, number: int) -> Step | None:
    began = [rank.ends(before) for rank in ranks]
    ended = [rank.ends(number) for rank in ranks]
    keys = sorted(ranks[0].reductions.get(number, {}))
    if None in began or None in ended or not keys:
        return None
    zero = max(each for each in began if each is not None)
    reductions, at = [], 0
    for key in keys:
        each = [rank.reductions.get(number, {}).get(key) for rank in ranks]
        known = [(rank, one) for rank, one in zip(ranks, each, strict=True) if one is not None and one.end_ns != NULL]
        ready = [rank.ready(number, one) for rank, one in known]
        if len(known) < len(ranks) or None in ready:
            return None
        by_rank = tuple(one - zero for one in ready if one is not None)
        can_begin = max(at, *by_rank)
        negotiated = max(one.begin_ns + rank.offset_ns for rank, one in known) - zero
        end = max(max(one.end_ns + rank.offset_ns for rank, one in known) - zero, can_begin)
        waits = min(max(negotiated - can_begin, 0), end - can_begin)
        reductions.append(Reduction(by_rank, known[0][1].nbytes, waits, end - can_begin - waits))
        at = end
    starts = tuple(_start(rank, number, zero) for rank in ranks)
    return Step(starts, tuple(reductions), max(max(each for each in ended if each is not None) - zero - at, 0))


def _start(rank: _Rank, number: int, zero: int) -> int:
    at_ns = rank.steps[number].start_ns
    return 0 if at_ns == NULL else max(at_ns + rank.offset_ns - zero, 0)
