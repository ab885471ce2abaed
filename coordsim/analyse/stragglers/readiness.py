"""When each rank was ready for its collectives, step by step, from the ranks' records.

Times are ns; arrays have shape [step, rank].
"""

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
"""Steps at the start of a run that are not judged, because everything happens for the first time in them."""


@dataclass(frozen=True)
class Readiness:
    """The steps in which every rank submitted gradients, and when it did."""

    ranks: tuple[int, ...]
    hosts: tuple[str, ...]
    """Host of each rank, in the order of ``ranks``."""
    steps: Int64
    """Numbers of the steps, shape [step]."""
    first_SR: Int64
    """First submission of each rank, on rank 0's clock as far as the offset is known."""
    last_SR: Int64
    """Last submission of each rank; from then on the rank waits for others."""
    begun_SR: Int64
    """End of the preceding step on each rank. Valid only where :attr:`chained` is true."""
    chained: Any
    """Whether every rank has the end of the preceding step; bool of shape [step]."""
    error_ns: tuple[int | None, ...]
    """Largest possible error of each rank's clock offset; None where it is not known."""

    @property
    def clock_error_ns(self) -> int | None:
        """The largest error of any rank; None when one is not known."""
        known = [error for error in self.error_ns if error is not None]
        return max(known) if len(known) == len(self.error_ns) else None


def readiness(records: Sequence[RankRecord], within: range | None = None) -> Readiness:
    """Collect readiness over all steps of a run, or over the steps ``within``.

    ``records`` stand in the order of ranks; there must be at least one.
    """
    by_rank = [{step.step: step for step in record.steps if step.last_submit_ns != NULL} for record in records]
    common = sorted(set.intersection(*(set(steps) for steps in by_rank)))
    chosen = [number for number in common if number >= COLD_STEPS and (within is None or number in within)]
    clocks = [record.clock for record in records]
    offsets = np.array([0 if clock is None else clock.offset_ns for clock in clocks], dtype=np.int64)
    errors = tuple(
        0 if record.rank == 0 else None if clock is None else clock.error_ns
        for record, clock in zip(records, clocks, strict=True)
    )

    def tabulate(key: str) -> Int64:
        rows = [[int(getattr(steps[number], key)) for steps in by_rank] for number in chosen]
        return np.array(rows, dtype=np.int64).reshape(len(chosen), len(records)) + offsets

    ends = [{number: _end_ns(step) for number, step in steps.items()} for steps in by_rank]
    begun = np.array(
        [[of_rank.get(number - 1, NULL) for of_rank in ends] for number in chosen], dtype=np.int64
    ).reshape(len(chosen), len(records))  # fmt: skip
    chained = (begun != NULL).all(axis=1)
    return Readiness(
        tuple(record.rank for record in records),
        tuple(record.host for record in records),
        np.array(chosen, dtype=np.int64),
        tabulate("first_submit_ns"), tabulate("last_submit_ns"), np.where(begun == NULL, 0, begun + offsets), chained,
        errors,
    )  # fmt: skip


def _end_ns(step: StepRecord) -> int:
    """When a rank had the results of a step; what it does from then on is its own work."""
    return step.end_collective_ns if step.end_collective_ns != NULL else step.end_ns
