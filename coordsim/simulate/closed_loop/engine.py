"""Runs the compiled loop over one workload."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from coordsim.cost.distributions import scaled_table
from coordsim.simulate.closed_loop.problem import Int64, LoopCosts, LoopProblem

Int32 = npt.NDArray[np.int32]

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


@cache
def _tables() -> tuple[Int32, Int32, Int32, Int32]:
    """Made once: scaling them takes as long as simulating a short launch."""
    return *scaled_table("half-normal", _ONE), *scaled_table("exponential", _ONE)


def run(problem: LoopProblem, costs: LoopCosts, seed: int) -> LoopRun:
    """Simulate one workload; ``seed`` draws the loops' phases, the jitter of sleeps, stalls and shuffled orders."""
    from coordsim.simulate.closed_loop.draws import Draws
    from coordsim.simulate.closed_loop.kernel import Job, Outcome, closed_loop

    job = Job(
        problem.cores, problem.cycle_ns, problem.duration_ns, problem.gap_ns, problem.share_q30,
        problem.unit_bytes, problem.unit_tensors, problem.threshold_bytes, problem.uncached,
        problem.always_asks, problem.shuffled, problem.computes,
        # what is held up for a share of all time is so when a loop wakes, once a cycle, whatever the cycle's length
        min(problem.disturbed_ppm * costs.late_ppm // _ONE, _ONE),
        # more ranks than cores take turns anyway: that is in what stretches, and in the cores of main threads
        min(problem.held_up_ppm * costs.taken_ppm // _ONE, _ONE) if problem.ranks <= problem.cores else 0,
    )  # fmt: skip
    draws = Draws(
        np.uint64(seed), *_tables(),
        np.array(costs.sleep_asked_ns, dtype=np.int64), np.array(costs.sleep_over_ns, dtype=np.int64),
    )  # fmt: skip
    submitted = np.zeros((problem.ranks, problem.steps), dtype=np.int64)
    outcome = Outcome(submitted, np.zeros_like(submitted), np.zeros(problem.steps, dtype=np.int64))
    # the tables of sleeps travel as arrays: each length of a tuple would be compiled anew
    costs = costs._replace(sleep_asked_ns=(), sleep_over_ns=())
    cycles, slow = closed_loop(job, costs, draws, outcome)
    return LoopRun(outcome.submitted, outcome.end, int(cycles), int(slow), outcome.messages)
