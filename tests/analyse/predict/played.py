"""Records of jobs played on shared cores: what they cost is known, and so is what they take at any number of ranks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from coordsim.analyse.predict.collectives import WORKERS, Costs, collective, cpu_ns
from coordsim.protocol.messages import Op
from coordsim.record.ranks.reader import (
    CpuTimes,
    RankRecord,
    ReadyRecord,
    ResponseRecord,
    Span,
    SpanKind,
    StepRecord,
)
from coordsim.simulate.shared_cores import Host, Program, Segment, SegmentKind, SharedProblem, SharedRun, run

MS = 1_000_000
GLOO = Costs(fixed_ns=100_000, hop_ns=200_000, byte_ps=500, start_ns=50_000, wait_ns=50_000)
BUCKET_BYTES = 1 << 20
_COMPUTE, _SLEEP = Segment(SegmentKind.COMPUTE), Segment(SegmentKind.SLEEP)
_SEGMENTS = (
    _SLEEP, _COMPUTE, _SLEEP, _COMPUTE, Segment(SegmentKind.SUBMIT, 0), _COMPUTE, _SLEEP,
    Segment(SegmentKind.SUBMIT, 1), Segment(SegmentKind.WAIT, 0), Segment(SegmentKind.WAIT, 1), _COMPUTE, _SLEEP,
)  # fmt: skip
"""Input; forward; backward with two buckets; the waits; the optimizer; what is between the steps."""


@dataclass(frozen=True)
class Played:
    """A DDP job over gloo; ms of one rank's own work."""

    input_ms: float = 0.0
    forward_cpu: float = 1.5
    forward_sleep: float = 20.0
    backward_cpu: float = 2.5
    backward_sleep: float = 20.0
    optimizer_cpu: float = 0.5
    between_ms: float = 0.0
    checkpoint_ms: float = 0.0
    """In every tenth step, on all ranks."""
    late_ms: float = 0.0
    """Longer forward on the last rank."""
    noise: float = 0.01
    cores: int = 2
    steps: int = 31
    seed: int = 0
    backend: str = "gloo"

    def at(self, ranks: int) -> SharedRun:
        """The job with ``ranks`` ranks on one host."""
        return run(self.problem(ranks))

    def step_ms(self, ranks: int) -> float:
        """Its median step."""
        return float(np.median(np.diff(self.at(ranks).end_ns, axis=1))) / MS

    def problem(self, ranks: int) -> SharedProblem:
        times = [
            self.input_ms, self.forward_cpu, self.forward_sleep, self.backward_cpu / 2, 0, self.backward_cpu / 2,
            self.backward_sleep, 0, 0, 0, self.optimizer_cpu, self.between_ms,
        ]  # fmt: skip
        rng = np.random.default_rng(self.seed)
        drawn = np.array(times)[None, None, :] * np.exp(rng.normal(0, self.noise, (ranks, self.steps, 1)))
        drawn[-1, :, 2] += self.late_ms
        drawn[:, ::10, 11] += self.checkpoint_ms
        program = Program(_SEGMENTS, np.round(drawn * MS).astype(np.int64))
        hosts = (Host(self.cores, ranks),)
        return SharedProblem(hosts, program, self.collectives(ranks), WORKERS[self.backend], 3 * MS)

    def collectives(self, ranks: int):
        one = collective(self.backend, int(Op.ALLREDUCE), BUCKET_BYTES, ranks, GLOO)
        return (one, one)

    def records(self, ranks: int) -> list[RankRecord]:
        """As the ranks would have written them."""
        problem = self.problem(ranks)
        found = run(problem)
        return [self._record(rank, ranks, problem, found) for rank in range(ranks)]

    def _record(self, rank: int, ranks: int, problem: SharedProblem, found: SharedRun) -> RankRecord:
        head = {
            "schema": "coordsim.rank/3", "rank": rank, "ranks": ranks, "job": "played", "host": "vm", "detailed": True,
            "settings": {"control_plane": "ddp", "backend": self.backend, "framework": "ddp"},
            "cores": list(range(self.cores)), "threads": {"torch": 1, "interop": 1}, "local_ranks": ranks,
        }  # fmt: skip
        tensors = [
            {"kind": "parameter", "name": f"layer.{index}.weight", "dtype": "float32", "shape": [BUCKET_BYTES // 4],
             "bytes": BUCKET_BYTES}
            for index in (1, 0)
        ]  # fmt: skip
        record = RankRecord(Path(f"/played/rank-{rank:05d}.rank"), head, tensors, end={"error": ""})
        kinds = np.array([segment.kind for segment in problem.program.segments])
        library = 2 * cpu_ns(problem.collectives[0], ranks)
        for step in range(self.steps):
            at = found.begins_ns[rank, step]
            times = problem.program.times_ns[rank, step]
            main = int(times[kinds == SegmentKind.COMPUTE].sum())
            asleep = int(times[kinds == SegmentKind.SLEEP].sum())
            waits = int(at[10] - at[8])
            spans = [
                Span(SpanKind.INPUT, 0, int(at[0]), int(at[1])), Span(SpanKind.FORWARD, 0, int(at[1]), int(at[3])),
                Span(SpanKind.BACKWARD, 0, int(at[3]), int(at[10])),
                Span(SpanKind.OPTIMIZER, 0, int(at[10]), int(at[11])),
            ]  # fmt: skip
            if self.checkpoint_ms and step and (step - 1) % 10 == 0:
                spans.insert(0, Span(SpanKind.CHECKPOINT, 0, int(at[0]) - round(self.checkpoint_ms * MS), int(at[0])))
            core_wait = int(at[11] - at[0]) - waits - main - (asleep - int(times[11]))
            cpu = CpuTimes(main, 0, main + round(library), max(core_wait, 0))
            record.ready.append(ReadyRecord(step, (0, 1), (int(at[4]), int(at[7]))))
            for place, (call, end) in enumerate(((at[4], at[9]), (at[7], at[10]))):
                record.responses.append(ResponseRecord(
                    step, step, place, BUCKET_BYTES, int(Op.ALLREDUCE), int(call), int(call), int(call), int(end),
                    int(end), (place,),
                ))  # fmt: skip
            record.steps.append(StepRecord(
                step, int(at[1]), int(at[3]), int(at[4]), int(at[7]), int(at[10]), int(at[11]), 0, 2, 0, 1,
                tuple(spans), cpu, "optimizer 0",
            ))  # fmt: skip
        return record


SLEEPING = Played()
COMPUTING = Played(forward_cpu=12, forward_sleep=0, backward_cpu=24, backward_sleep=0)
ROOMY = replace(SLEEPING, cores=64)
