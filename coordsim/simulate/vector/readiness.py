"""One step's readiness for the vector engine: matrices [unit, rank] and their maxima."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from coordsim.simulate.problem import Problem
from coordsim.simulate.vector.kernels.readiness import Compute, Draws, Ready, fill_ready

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]

_CHUNK = 1 << 15
"""Ranks whose orders are drawn at a time."""


class ReadySteps:
    """Fills the readiness of one step after another into the same memory.

    32 bits hold a step of up to 4.29 s; a longer one switches to 64 bits for good. Where somebody waits for data
    there are two matrices, of submissions and of existence; else they are one. With shuffled orders a matrix is
    first filled by *place* (the first gradient in time on each rank, the second...), and units are picked from it.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._noise = problem.noise
        self._step = 0
        self._backward = problem.backward_ns.astype(np.uint64)
        self._hooks = problem.submit_gap_ns.astype(np.uint64)
        units, tensors = problem.last_member.size, self._backward.size
        self._completes = np.full(tensors, -1, dtype=np.int64)
        self._completes[problem.last_member] = np.arange(units)
        if problem.shuffled:
            self._completes = np.arange(tensors, dtype=np.int64)
        table = self._noise.tensor_quantiles
        self._noisy = table is not None
        self._symmetric = table is not None and table.symmetric
        packed = np.zeros(2048, dtype=np.uint64)
        if table is not None:
            packed = table.base.astype(np.uint64) << np.uint64(32) | table.slope.astype(np.uint64)
        self._packed = packed
        self._no_keys = np.zeros(problem.ranks, dtype=np.uint32)
        self.latest: Int64 = np.zeros(units, dtype=np.int64)
        """Shape [unit]: the last submission over ranks, ns after the step's start."""
        self.exist_latest: Int64 = np.zeros(units, dtype=np.int64)
        """Shape [unit]: when the unit exists everywhere; with one clock the same object as ``latest``."""
        self.forward_median = 0
        self.ready_median = 0
        self.ready_last_rank = 0
        self.ready_last = 0
        """The last gradient on the last rank exists, ns after the step's start."""
        rows = tensors if problem.shuffled else units
        self.matrix: Ready = np.empty((units, problem.ranks), dtype=np.uint32)
        """Shape [unit, rank]: submissions, ns after the step's start."""
        self.exist: Ready = self.matrix
        """Shape [unit, rank]: when units exist; with one clock the same object as ``matrix``."""
        self._two_clocks = problem.wait != "none"
        self._exist_rows = np.empty((rows, problem.ranks), dtype=np.uint32) if problem.shuffled else self.matrix
        self._hook_rows: Ready = np.empty((0, 0), dtype=np.uint32)
        if self._two_clocks:
            self._hook_rows = np.empty((rows, problem.ranks), dtype=np.uint32)
        self._in_order: tuple[Ready, Int32] | None = None

    def load(self, step: int) -> None:
        """Make ``step`` the current one."""
        self._step, self._in_order = step, None
        forward = self._noise.forward_ns(step, self._problem.scenario.workload.forward_ns)
        factor = self._noise.step_q16(step).astype(np.uint32)
        low, high = self._noise.tensor_keys(step) if self._noisy else (self._no_keys, self._no_keys)
        latest = np.empty(self._exist_rows.shape[0], dtype=np.int64)

        draws = Draws(low, high, factor, self._packed, self._symmetric, self._noisy)

        def fill(durations: npt.NDArray[np.uint64], rows: Ready) -> Ready:
            for _ in range(2):
                fill_ready(draws, Compute(forward, durations, self._completes), rows, latest)
                if rows.dtype == np.int64 or latest[-1] < 1 << 32:
                    break
                rows = np.empty(rows.shape, dtype=np.int64)
            return rows

        if self._two_clocks:
            self._hook_rows = fill(self._hooks, self._hook_rows)
        self._exist_rows = fill(self._backward, self._exist_rows)
        median = (forward.size - 1) // 2
        last = self._exist_rows[-1]
        self.forward_median = int(np.partition(forward, median)[median])
        self.ready_median = int(np.partition(last, median)[median])
        self.ready_last_rank = int(last.argmax())
        self.ready_last = int(last[self.ready_last_rank])
        self._by_unit(latest)

    def _by_unit(self, latest: Int64) -> None:
        """From rows in time to units, and from existence to submission."""
        if self._problem.shuffled:
            self.exist = self._picked(self._exist_rows)
            self.exist_latest = self.exist.max(axis=1).astype(np.int64)
        else:
            self.exist, self.exist_latest = self._exist_rows, latest
        self.matrix, self.latest = self.exist, self.exist_latest
        if self._two_clocks:
            hooks = self._picked(self._hook_rows) if self._problem.shuffled else self._hook_rows
            self.matrix = np.minimum(hooks, self.exist, out=hooks, casting="unsafe")  # no more than the hooks
            self.latest = self.matrix.max(axis=1).astype(np.int64)

    def _picked(self, rows: Ready) -> Ready:
        """Shape [unit, rank] out of ``rows`` [place, rank]."""
        out = np.empty((len(self._problem.units), rows.shape[1]), dtype=rows.dtype)
        for part, places in self._places():
            out[:, part] = np.take_along_axis(rows[:, part], places, axis=0)
        return out

    def _places(self) -> Iterator[tuple[slice, Int64]]:
        """For some ranks at a time: the place of the gradient that completes each unit, shape [unit, rank]."""
        ranks = self._problem.ranks
        for first in range(0, ranks, _CHUNK):
            last = min(first + _CHUNK, ranks)
            yield slice(first, last), self._problem.completing(self._step, first, last).T

    def in_order(self) -> tuple[Ready, Int32]:
        """Submissions by each rank's own order, and which unit each is; shapes [place among units, rank]."""
        if self._in_order is None:
            units = np.empty(self.matrix.shape, dtype=np.int32)
            for part, places in self._places():
                units[:, part] = np.argsort(places, axis=0)
            self._in_order = np.take_along_axis(self.matrix, units, axis=0), units
        return self._in_order

    def exist_everywhere(self, units: Iterable[int]) -> int:
        """When all ``units`` exist on all ranks, ns after the step's start."""
        return max(int(self.exist_latest[unit]) for unit in units)

    def exist_on_ranks(self, units: Iterable[int]) -> Int64:
        """When all ``units`` exist on each rank, ns after the step's start; shape [rank]."""
        chosen = sorted(units)
        if not self._problem.shuffled:  # then what comes later in the list comes later everywhere
            chosen = chosen[-1:]
        last: Int64 = self.exist[chosen].max(axis=0).astype(np.int64)
        return last
