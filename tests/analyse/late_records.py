"""Ranks' records made up for the diagnosis of stragglers: who is late, by how much, from which tensor on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from coordsim.record.ranks.format import NULL
from coordsim.record.ranks.reader import ClockRecord, CycleRecord, RankRecord, StepRecord

Floats = npt.NDArray[np.float64]
MS = 1_000_000
STEP_MS = 100.0
TENSORS = 6


def records(
    late_ms: Floats, jitter_ms: float = 1.0, seed: int = 0, *, hosts: Sequence[str] | None = None,
    skews_ms: Mapping[int, float] | None = None, error_ms: Mapping[int, float | None] | None = None,
    from_tensor: int = 0, growing: bool = False, begun_late: bool = False, detailed: bool = True, chained: bool = True,
) -> list[RankRecord]:  # fmt: skip
    """One record a rank. ``late_ms``: [step, rank], on top of a normal jitter. Steps take 100 ms, 6 tensors each.

    The lateness is there from tensor ``from_tensor`` on (0: from the first), or grows over all, or from the end of the
    step before. ``skews_ms``: how far a rank's clock is ahead; ``error_ms``: what it says of the error (None: nothing).
    """
    steps, ranks = late_ms.shape
    jitter = np.random.default_rng(seed).normal(0.0, jitter_ms, (steps, ranks))
    found = []
    for rank in range(ranks):
        skew = (skews_ms or {}).get(rank, 0.0)
        head = {
            "rank": rank, "ranks": ranks, "job": "made", "host": hosts[rank] if hosts else f"n{rank}",
            "detailed": detailed,
        }  # fmt: skip
        record = RankRecord(Path(f"rank-{rank:05d}.rank"), head, [{"name": f"t{each}"} for each in range(TENSORS)])
        error = (error_ms or {}).get(rank, 0.0)
        if error is not None:
            record.clocks.append(ClockRecord(0, round(-skew * MS), round(error * MS)))
        for step in range(steps):
            base = step * STEP_MS + skew + jitter[step, rank]
            share = [
                (tensor + 1) / TENSORS if growing else float(tensor >= from_tensor) for tensor in range(TENSORS)
            ]  # fmt: skip
            stamps = [
                round((base + 50 + 5 * tensor + share[tensor] * late_ms[step, rank]) * MS) for tensor in range(TENSORS)
            ]
            after = late_ms[step + 1, rank] if begun_late and step + 1 < steps else 0.0
            end = round(((step + 1) * STEP_MS - 5 + skew + after) * MS)
            record.steps.append(StepRecord(
                step, NULL, NULL, stamps[0], stamps[-1], end if chained else NULL, NULL, 1, TENSORS, 0, detailed
            ))  # fmt: skip
            if detailed:
                record.cycles.append(CycleRecord(
                    step, step, 1, stamps[0], stamps[-1], 0, stamps[-1], 0, 0, TENSORS, 1, 0, 0,
                    tuple(range(TENSORS)), tuple(stamps),
                ))  # fmt: skip
        found.append(record)
    return found


def delays(steps: int, ranks: int, late_ms: Mapping[int, float], begin: int = 0, end: int | None = None) -> Floats:
    """Shape [step, rank]: rank -> ms in steps ``begin`` to ``end``."""
    found = np.zeros((steps, ranks))
    for rank, late in late_ms.items():
        found[begin:end, rank] = late
    return found
