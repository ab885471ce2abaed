"""One step's readiness for the vector engine: a matrix [unit, rank] and its maxima."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from coordsim.simulate.problem import Problem
from coordsim.simulate.vector.kernels.readiness import Ready, fill_ready

Int64 = npt.NDArray[np.int64]


class ReadySteps:
    """Fills the readiness of one step after another into the same memory.

    32 bits hold a step of up to 4.29 s; a longer one switches to 64 bits for good.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._noise = problem.noise
        self._backward = problem.backward_ns.astype(np.uint64)
        self._unit_of = np.full(self._backward.size, -1, dtype=np.int64)
        self._unit_of[problem.last_member] = np.arange(problem.last_member.size)
        table = self._noise.tensor_quantiles
        self._noisy = table is not None
        self._symmetric = table is not None and table.symmetric
        packed = np.zeros(2048, dtype=np.uint64)
        if table is not None:
            packed = table.base.astype(np.uint64) << np.uint64(32) | table.slope.astype(np.uint64)
        self._packed = packed
        self._no_keys = np.zeros(problem.ranks, dtype=np.uint32)
        self.latest: Int64 = np.zeros(problem.last_member.size, dtype=np.int64)
        """Shape [unit]: M, the maximum over ranks, ns after the step's start."""
        self.forward_median = 0
        self.ready_median = 0
        self.ready_last_rank = 0
        self.matrix: Ready = np.empty((self.latest.size, problem.ranks), dtype=np.uint32)
        """Shape [unit, rank], ns after the step's start."""

    def load(self, step: int) -> None:
        """Make ``step`` the current one."""
        forward = self._noise.forward_ns(step, self._problem.scenario.workload.forward_ns)
        factor = self._noise.step_q16(step).astype(np.uint32)
        low, high = self._noise.tensor_keys(step) if self._noisy else (self._no_keys, self._no_keys)
        for _ in range(2):
            fill_ready(
                low, high, factor, forward, self._backward, self._unit_of, self._packed, self._symmetric,
                self._noisy, self.matrix, self.latest,
            )  # fmt: skip
            if self.matrix.dtype == np.int64 or self.latest[-1] < 1 << 32:
                break
            self.matrix = np.empty(self.matrix.shape, dtype=np.int64)
        median = (forward.size - 1) // 2
        last = self.matrix[-1]
        self.forward_median = int(np.partition(forward, median)[median])
        self.ready_median = int(np.partition(last, median)[median])
        self.ready_last_rank = int(last.argmax())
