"""Runs the compiled kernel over one job."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coordsim.errors import InputError
from coordsim.simulate.shared_cores.problem import Int64, SharedProblem


@dataclass(frozen=True)
class SharedRun:
    """One simulated job."""

    begins_ns: Int64
    """When each segment begins, shape [rank, step, segment + 1]; the last is the end of the step."""
    busy_ns: Int64
    """CPU time that was taken on each host."""

    @property
    def end_ns(self) -> Int64:
        """Of each step, shape [rank, step]."""
        return self.begins_ns[:, :, -1]

    @property
    def took_ns(self) -> Int64:
        """How long each segment took, shape [rank, step, segment]."""
        return np.diff(self.begins_ns, axis=2)


def run(problem: SharedProblem) -> SharedRun:
    """Simulate all steps. Raises InputError where ranks wait for each other in a circle, or hosts hold another number
    of ranks."""
    from coordsim.simulate.shared_cores.kernel import shared_cores

    if sum(host.ranks for host in problem.hosts) != problem.ranks:
        held = sum(host.ranks for host in problem.hosts)
        raise InputError.one("hosts", "", held, f"hold {held} ranks, and the job has {problem.ranks}")
    host_of = np.repeat(np.arange(len(problem.hosts)), [host.ranks for host in problem.hosts]).astype(np.int64)
    cores = np.array([host.cores for host in problem.hosts], dtype=np.int64)
    segments = problem.program.segments
    kind = np.array([int(each.kind) for each in segments], dtype=np.int64)
    which = np.array([each.collective for each in segments], dtype=np.int64)
    stages, dep, cpu, latency = _tables(problem)
    begins = np.zeros((problem.ranks, problem.steps, len(segments) + 1), dtype=np.int64)
    busy = np.zeros(cores.size, dtype=np.int64)
    times = np.ascontiguousarray(problem.program.times_ns, dtype=np.int64)
    end = shared_cores(
        host_of, cores, problem.slice_ns, kind, which, times, problem.workers, stages, dep, cpu, latency, begins, busy
    )
    if end < 0:
        raise InputError.one("collectives", "", None, "ranks wait for each other in a circle: nobody can go on")
    return SharedRun(begins, busy)


def _tables(problem: SharedProblem) -> tuple[Int64, Int64, Int64, Int64]:
    count = len(problem.collectives)
    stages = np.array([len(each.stages) for each in problem.collectives], dtype=np.int64)
    most = max(int(stages.max(initial=0)), 1)
    dep = np.zeros((max(count, 1), most, 2), dtype=np.int64)
    cpu = np.zeros((max(count, 1), most, 2), dtype=np.int64)
    latency = np.zeros((max(count, 1), most), dtype=np.int64)
    for k, collective in enumerate(problem.collectives):
        for j, stage in enumerate(collective.stages):
            dep[k, j] = int(stage.root_after), int(stage.other_after)
            cpu[k, j] = stage.root_cpu_ns, stage.other_cpu_ns
            latency[k, j] = stage.latency_ns
    return stages, dep, cpu, latency
