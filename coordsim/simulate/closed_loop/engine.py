"""Runs the compiled loop over one workload."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coordsim.cost.distributions import scaled_table
from coordsim.simulate.closed_loop.problem import Int64, LoopCosts, LoopProblem

_ONE = 1_000_000  # ppm: tables of standard deviation (normal) or mean (exponential) 1


@dataclass(frozen=True)
class LoopRun:
    """One simulated launch. Times in ns, shape [rank, step]."""

    submitted_ns: Int64
    end_ns: Int64
    cycles: int
    slow_cycles: int
    messages: Int64
    """Shape [step]: fused responses."""

    def step_ms(self, skip: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """As :meth:`coordsim.record.horovod_runs.RecordedWorkload.step_ms`."""
        return np.asarray(np.diff(self.end_ns.max(axis=0))[skip - 1 :] / 1e6)

    def tail_ms(self, skip: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """As :meth:`coordsim.record.horovod_runs.RecordedWorkload.tail_ms`."""
        return np.asarray((self.end_ns.max(axis=0) - self.submitted_ns.max(axis=0))[skip:] / 1e6)


def run(problem: LoopProblem, costs: LoopCosts, seed: int) -> LoopRun:
    """Simulate one launch; ``seed`` draws the loops' phases, the jitter of sleeps, stalls and shuffled orders."""
    from coordsim.simulate.closed_loop.kernel import closed_loop

    half_normal, half_normal_slope = scaled_table("half-normal", _ONE)
    exponential, exponential_slope = scaled_table("exponential", _ONE)
    submitted = np.zeros((problem.ranks, problem.steps), dtype=np.int64)
    end = np.zeros_like(submitted)
    messages = np.zeros(problem.steps, dtype=np.int64)
    cycles, slow = closed_loop(
        problem.cores, problem.cycle_ns, problem.duration_ns, problem.gap_ns, problem.share_q30,
        problem.unit_bytes, problem.unit_tensors, problem.threshold_bytes, problem.uncached,
        problem.always_asks, problem.shuffled, problem.computes,
        np.array(costs[:17], dtype=np.int64), costs.star_ns, costs.ride_ns, costs.along_bytes, costs.held_ns,
        np.array(costs.sleep_asked_ns, dtype=np.int64), np.array(costs.sleep_over_ns, dtype=np.int64),
        half_normal, half_normal_slope, exponential, exponential_slope,
        np.uint64(seed), submitted, end, messages,
    )  # fmt: skip
    return LoopRun(submitted, end, int(cycles), int(slow), messages)
