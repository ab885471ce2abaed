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


def _end(step: StepRecord) -> int:
    """When a rank had the results of a step: what it does from then on is its own work."""
    return step.end_collective_ns if step.end_collective_ns != NULL else step.end_ns
