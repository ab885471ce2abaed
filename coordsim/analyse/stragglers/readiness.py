"""When each rank was ready, step by step, from ranks' records; ns, arrays of shape [step, rank]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coordsim.record.ranks import RankRecord
from coordsim.record.ranks.format import NULL
from coordsim.record.ranks.reader import StepRecord
from coordsim.record.trace import Int64

COLD_STEPS = 1
"""Steps at the start of a run that are not judged: everything is met for the first time there."""


@dataclass(frozen=True)
class Readiness:
    """Steps that every rank went through and submitted in."""

    ranks: tuple[int, ...]
    hosts: tuple[str, ...]
    """By place, as ``ranks``."""
    steps: Int64
    """Numbers of the steps, shape [step]."""
    first_SR: Int64
    """First submission, on rank 0's clock as far as it is known."""
    last_SR: Int64
    """Last submission: from then on the rank waits for others."""
    begun_SR: Int64
    """End of the step before on each rank, where :attr:`chained`."""
    chained: Any
    """Steps whose predecessor's end every rank has, bool of shape [step]."""
    error_ns: tuple[int | None, ...]
    """By how much a rank's clock may be wrong; None when that is not known."""

    @property
    def clock_error_ns(self) -> int | None:
        """The largest error; None when some rank's is not known."""
        known = [each for each in self.error_ns if each is not None]
        return max(known) if len(known) == len(self.error_ns) else None


def readiness(records: Sequence[RankRecord], within: range | None = None) -> Readiness:
    """Of all steps of a run, or those ``within``; ``records`` in the order of ranks, at least one."""
    by_rank = [{step.step: step for step in record.steps if step.last_submit_ns != NULL} for record in records]
    common = sorted(set.intersection(*(set(steps) for steps in by_rank)))
    chosen = [number for number in common if number >= COLD_STEPS and (within is None or number in within)]
    clocks = [record.clock for record in records]
    offsets = np.array([0 if clock is None else clock.offset_ns for clock in clocks], dtype=np.int64)
    errors = tuple(
        0 if record.rank == 0 else None if clock is None else clock.error_ns
        for record, clock in zip(records, clocks, strict=True)
    )

    def table(key: str) -> Int64:
        rows = [[int(getattr(steps[number], key)) for steps in by_rank] for number in chosen]
        return np.array(rows, dtype=np.int64).reshape(len(chosen), len(records)) + offsets

    ends = [{number: _end(step) for number, step in steps.items()} for steps in by_rank]
    begun = np.array(
        [[each.get(number - 1, NULL) for each in ends] for number in chosen], dtype=np.int64
    ).reshape(len(chosen), len(records))  # fmt: skip
    chained = (begun != NULL).all(axis=1)
    return Readiness(
        tuple(record.rank for record in records),
        tuple(str(record.head.get("host", "")) for record in records),
        np.array(chosen, dtype=np.int64),
        table("first_submit_ns"), table("last_submit_ns"), np.where(begun == NULL, 0, begun + offsets), chained, errors,
    )  # fmt: skip


def own_work(records: Sequence[RankRecord], numbers: Sequence[int]) -> Int64 | None:
    """What each rank did by itself in each step, ns, shape [step, rank]: outside of its collectives, up to its last
    gradient. Where gathers tie ranks together, that is what differs. None where ends of collectives are not known.

    A rank's own clock is enough. What runs beside a collective that was called early is not seen.
    """
    columns = [_work(record, numbers) for record in records]
    if any(each is None for each in columns):
        return None
    return np.array(columns, dtype=np.int64).T


def _work(record: RankRecord, numbers: Sequence[int]) -> list[int] | None:
    calls: dict[int, list[tuple[int, int]]] = {}
    for each in record.responses:
        if NULL in (each.copied_in_ns, each.end_ns):
            return None
        calls.setdefault(each.step, []).append((each.copied_in_ns, each.end_ns))
    steps = {step.step: step for step in record.steps}
    found = []
    for number in numbers:
        free, work = steps[number - 1].end_collective_ns, 0
        for called, end in sorted(calls.get(number, [])):
            work += max(called - free, 0)
            free = max(free, end)
        found.append(work)
    return found


def _end(step: StepRecord) -> int:
    """When a rank had the results of a step: what it does from then on is its own work."""
    return step.end_collective_ns if step.end_collective_ns != NULL else step.end_ns
