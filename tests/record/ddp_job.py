"""Records of a DDP job played on an injected clock: the causes of ``inject.py``, known to the nanosecond, and noise.

Ranks read samples, run forward, run backward layer by layer (a gradient and a bucket each), wait for the last bucket,
clip, and step. Buckets are reduced one after the other, each when its gradient is there on the last rank.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from coordsim.record.ranks.reader import (
    ClockRecord,
    CpuTimes,
    RankRecord,
    ReadyRecord,
    ResponseRecord,
    Span,
    SpanKind,
    StepRecord,
)

MS = 1_000_000
LAYERS = 6
SLOW_LAYER = 2
"""In whose backward BWD sleeps: its own gradient and those after it are late."""
BASE_MS = {"log": 0.05, "input": 0.6, "forward": 0.9, "backward": 2.0, "clip": 0.05, "optimizer": 0.5}
REDUCTION_MS = 0.2


@dataclass(frozen=True)
class Causes:
    """Milliseconds, as ``inject.py`` takes them from the environment."""

    DATA: float = 0
    DATA_LATE: float = 0
    FWD: float = 0
    FWD_ALL: float = 0
    BWD: float = 0
    BWD_ALL: bool = False
    CLIP: float = 0
    OPT: float = 0
    OPT_LATE: bool = False
    EVAL: float = 0
    LOG: float = 0
    LATE_RANK: int = 1


@dataclass
class Job:
    """What is played, and what its ranks measured themselves (means over steps 1 on, ms)."""

    ranks: int = 2
    steps: int = 21
    causes: Causes = Causes()
    noise: float = 0.05
    """Relative standard deviation of each part of each rank and step."""
    contention: float = 0.0
    """Factor by which a rank is slowed, besides, while a neighbour is on its core; it comes and goes."""
    busy_ranks: tuple[int, ...] | None = None
    """Ranks that may have such a neighbour; None: all."""
    core_waits: bool = False
    """Whether the records say how long ranks waited for a core."""
    seed: int = 0
    cores: int = 64
    skews_ms: tuple[float, ...] = ()
    own: list[dict[str, float]] = field(default_factory=list)

    def records(self) -> list[RankRecord]:
        """One record a rank."""
        return _Player(self).play()


class _Player:
    def __init__(self, job: Job) -> None:
        self._job, self._random = job, np.random.default_rng(job.seed)
        self._skews = [round(each * MS) for each in job.skews_ms] or [0] * job.ranks
        self._at = [0] * job.ranks
        self._busy = [False] * job.ranks
        self._cpu = [0] * job.ranks
        self._core_wait = [0] * job.ranks
        self._stream = 0
        tensors = [
            {"kind": "parameter", "name": f"layer.{layer}", "dtype": "float32", "shape": [256, 256], "bytes": 262144}
            for layer in reversed(range(LAYERS))
        ]
        self._records = [
            RankRecord(
                Path(f"/made/rank-{rank:05d}.rank"),
                {"schema": "coordsim.rank/3", "rank": rank, "ranks": job.ranks, "job": "made", "host": "node0",
                 "detailed": True, "settings": {"control_plane": "ddp"}, "cores": list(range(job.cores)),
                 "threads": {"torch": 1, "interop": 1}, "local_ranks": job.ranks},
                list(tensors), clocks=[ClockRecord(0, -self._skews[rank], 20_000)],
                end={"error": "", "left_out_steps": 0},
            ) for rank in range(job.ranks)
        ]  # fmt: skip
        self._sums = [dict.fromkeys(("data", "fwd", "bwd", "clip", "opt", "step"), 0.0) for _ in range(job.ranks)]

    def play(self) -> list[RankRecord]:
        for step in range(self._job.steps):
            self._step(step)
        self._job.own = [
            {name: value / (self._job.steps - 1) / MS for name, value in sums.items()} for sums in self._sums
        ]
        return self._records

    def _takes(self, what: str, rank: int) -> int:
        factor = float(np.exp(self._random.normal(0, self._job.noise)))
        self._cpu[rank] += round(BASE_MS[what] * factor * MS)
        alone = round(BASE_MS[what] * factor * MS)
        if not self._busy[rank]:
            return alone
        took = round(alone * (1 + self._job.contention * self._random.uniform(0.5, 1.5)))
        self._core_wait[rank] += took - alone
        return took

    def _step(self, step: int) -> None:
        job, causes = self._job, self._job.causes
        begins, passes = [], []
        for rank in range(job.ranks):
            alone = job.busy_ranks is not None and rank not in job.busy_ranks
            if job.contention and not alone and self._random.random() < 0.15:
                self._busy[rank] = bool(self._random.random() < 0.5)
            begins.append(self._at[rank])
            passes.append(self._until_backward(step, rank))
        ready = [
            self._gradients(rank, passes[rank][3], self._late(rank) or causes.BWD_ALL) for rank in range(job.ranks)
        ]
        ends = []
        for layer in range(LAYERS):
            began = max(self._stream, *(of_rank[layer] for of_rank in ready))
            self._stream = began + round(REDUCTION_MS * MS * float(np.exp(self._random.normal(0, job.noise))))
            ends.append(self._stream)
        for rank in range(job.ranks):
            self._rest(step, rank, begins[rank], passes[rank], ready[rank], ends)

    def _late(self, rank: int) -> bool:
        return rank == self._job.causes.LATE_RANK

    def _until_backward(self, step: int, rank: int) -> tuple[int, int, int, int]:
        """When input begins and ends, when forward begins, when backward begins."""
        causes, late = self._job.causes, self._late(rank)
        at = self._at[rank] + self._takes("log", rank) + round(MS * (causes.LOG if rank == 0 and step else 0))
        at += round(MS * (causes.EVAL if step and step % 10 == 0 else 0))
        asked = at
        at += self._takes("input", rank) + round(MS * (causes.DATA + (causes.DATA_LATE if late else 0)))
        given = at
        forward = at + 20_000
        at = forward + self._takes("forward", rank) + round(MS * (causes.FWD_ALL + (causes.FWD if late else 0)))
        return asked, given, forward, at

    def _gradients(self, rank: int, begin: int, slow: bool) -> list[int]:
        """When each layer's gradient is there, the last layer's first."""
        took = self._takes("backward", rank)
        return [
            begin + took * (place + 1) // LAYERS
            + (round(MS * self._job.causes.BWD) if slow and LAYERS - 1 - place <= SLOW_LAYER else 0)
            for place in range(LAYERS)
        ]  # fmt: skip

    def _rest(
        self, step: int, rank: int, begin: int, passed: tuple[int, int, int, int], ready: list[int], ends: list[int]
    ) -> None:
        job, causes, skew = self._job, self._job.causes, self._skews[rank]
        asked, given, forward, backward = passed
        mine = max(ends[-1], ready[-1]) + 30_000 + int(self._random.integers(0, 20_000))
        over = mine + 40_000
        clipped = over + self._takes("clip", rank) + round(MS * causes.CLIP)
        slow = round(MS * causes.OPT) if not causes.OPT_LATE or self._late(rank) else 0
        end = clipped + self._takes("optimizer", rank) + slow
        self._at[rank] = end
        record = self._records[rank]
        spans = (
            Span(SpanKind.INPUT, 0, asked + skew, given + skew), Span(SpanKind.FORWARD, 0, forward + skew,
            backward + skew), Span(SpanKind.BACKWARD, 0, backward + skew, over + skew),
            Span(SpanKind.OPTIMIZER, 0, clipped + skew, end + skew),
        )  # fmt: skip
        cpu, self._cpu[rank] = self._cpu[rank], 0
        core_wait, self._core_wait[rank] = self._core_wait[rank], 0
        record.steps.append(StepRecord(
            step, forward + skew, backward + skew, ready[0] + skew, ready[-1] + skew, mine + skew, end + skew, 0,
            LAYERS, 0, 1, spans, CpuTimes(cpu, 0, cpu, core_wait if job.core_waits else None),
        ))  # fmt: skip
        record.ready.append(ReadyRecord(step, tuple(range(LAYERS)), tuple(at + skew for at in ready)))
        for place in range(LAYERS):
            at, done = ready[place] + skew, min(ends[place], mine) + skew
            record.responses.append(ResponseRecord(
                step, step, place, 262144, 0, at, at, at + 5_000, done, done if place < LAYERS - 1 else mine + skew,
                (place,),
            ))  # fmt: skip
        if step:
            sums = self._sums[rank]
            for name, took in (("data", given - asked), ("fwd", backward - given), ("bwd", over - backward),
                               ("clip", clipped - over), ("opt", end - clipped), ("step", end - begin)):  # fmt: skip
                sums[name] += took
