"""Records of a job that negotiates, made up: one cycle and one fused response a step, the last rank late by 2 ms."""

from __future__ import annotations

from pathlib import Path

from coordsim.record.ranks.reader import (
    ClockRecord,
    CycleRecord,
    IdleRecord,
    RankRecord,
    ResponseRecord,
    Sent,
    StepRecord,
)

MS = 1_000_000
TENSORS = 3
SETTINGS = {
    "control_plane": "cached", "control": "tcp", "backend": "gloo", "fusion_threshold_bytes": 1 << 20,
    "ranks_per_node": 1, "strict_groups": False, "radix": 2, "cache_capacity": 1024, "cycle_time_ns": MS,
}  # fmt: skip


def negotiated(ranks: int = 3, steps: int = 8) -> list[RankRecord]:
    """One record a rank; steps of 20 ms, marked."""
    return [_record(rank, ranks, steps) for rank in range(ranks)]


def _record(rank: int, ranks: int, steps: int) -> RankRecord:
    tensors = [
        {"name": f"t{place}", "op": "ALLREDUCE", "dtype": "FLOAT32", "shape": [64, 4], "reduce_op": "SUM",
         "root_rank": -1, "device": -1, "prescale": 1.0, "postscale": 1.0, "group": 0}
        for place in range(TENSORS)
    ]  # fmt: skip
    record = RankRecord(
        Path(f"rank-{rank:05d}.rank"),
        {"schema": "coordsim.rank/3", "rank": rank, "ranks": ranks, "job": "made", "host": f"n{rank}", "detailed": True,
         "settings": SETTINGS, "started_unix_ns": 1_700_000_000 * 10**9, "cores": [0, 1], "threads": None},
        tensors, clocks=[ClockRecord(0, 3 * rank * MS, 1000)], end={"error": "", "left_out_steps": 0},
    )  # fmt: skip
    ids = tuple(range(TENSORS))
    for step in range(steps):
        base = 20 * step * MS - 3 * rank * MS
        late = 2 * MS if rank == ranks - 1 else 0
        stamps = tuple(base + (8 + place) * MS + late for place in range(TENSORS))
        entered, left = base + 12 * MS + late, base + 15 * MS
        kind = 2 if step == 0 else 1
        record.cycles.append(CycleRecord(
            2 * step, step, kind, entered, left, MS // 10, left + 2 * MS, TENSORS, 90, 0 if step == 0 else TENSORS, 1,
            7, 0, ids, stamps, Sent(2, 60, 1),
        ))  # fmt: skip
        record.responses.append(ResponseRecord(
            2 * step, step, 0, 3072, 0, left, left, left + MS // 4, left + MS, left + 2 * MS, ids
        ))  # fmt: skip
        record.idle.append(IdleRecord(2 * step + 1, 1, left + 2 * MS, left + 2 * MS, left + 3 * MS, Sent(1, 8, 0)))
        record.steps.append(StepRecord(
            step, base + MS, base + 5 * MS, stamps[0], stamps[-1], left + 2 * MS, base + 19 * MS, 2, TENSORS,
            int(step == 0), 1,
        ))  # fmt: skip
    return record
