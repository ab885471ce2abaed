"""Forward and backward on every rank, as events: when gradients are submitted, and when they exist."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import numpy as np
import numpy.typing as npt
import simpy

from coordsim.simulate.event.clock import Clock, Wait
from coordsim.simulate.problem import Problem

Int64 = npt.NDArray[np.int64]

PPM = 1_000_000


class Existing:
    """Which units of the current step exist, on each rank and everywhere; wakes those who wait for some."""

    def __init__(self, problem: Problem, env: Clock) -> None:
        self._env = env
        self._ranks = problem.ranks
        self._here: list[set[int]] = [set() for _ in range(problem.ranks)]
        self._counts = [0] * len(problem.units)
        self._everywhere: set[int] = set()
        self._news = [env.event() for _ in range(problem.ranks + 1)]
        """By rank; the last one is for units that now exist everywhere."""

    def clear(self) -> None:
        """A new step: nothing exists."""
        for units in (*self._here, self._everywhere):
            units.clear()
        self._counts = [0] * len(self._counts)

    def add(self, rank: int, unit: int) -> None:
        """``unit`` exists on ``rank`` from now on."""
        self._here[rank].add(unit)
        self._tell(rank)
        self._counts[unit] += 1
        if self._counts[unit] == self._ranks:
            self._everywhere.add(unit)
            self._tell(self._ranks)

    def on_rank(self, rank: int, units: Collection[int]) -> Wait:
        """Until all ``units`` exist on ``rank``."""
        while not self._here[rank].issuperset(units):
            yield self._news[rank]

    def on_all(self, units: Collection[int]) -> Wait:
        """Until all ``units`` exist on all ranks."""
        while not self._everywhere.issuperset(units):
            yield self._news[self._ranks]

    def _tell(self, who: int) -> None:
        told, self._news[who] = self._news[who], self._env.event()
        told.succeed()


class Compute:
    """Runs forward and backward of one step after another.

    ``submit`` is called with (rank, unit) when a unit is submitted: with ``wait_for_data = none`` when it exists.
    """

    def __init__(self, problem: Problem, env: Clock, submit: Callable[[int, int], None], steps: int) -> None:
        self.problem = problem
        self.env = env
        self.existing = Existing(problem, env) if problem.wait != "none" else None
        self.last_ns: Int64 = np.zeros(problem.ranks, dtype=np.int64)
        """Shape [rank]: the last gradient of the current step, ns since the start of the run."""
        self.forward_ns: Int64 = np.zeros(problem.ranks, dtype=np.int64)
        """Shape [rank]: of the current step."""
        self._submit = submit
        self._start_ns = 0
        self._starts = [env.event() for _ in range(steps)]
        self._order: Int64 | None = None
        self._exist_ns = self._submit_ns = np.empty((0, 0), dtype=np.int64)
        self._slowdown_ppm = problem.scenario.cluster.data.backward_slowdown_ppm
        self._held_ns = 0
        """How long responses have held the stream since the start of the run, without the present one."""
        self._held_since_ns: int | None = None
        self._turn = env.event()
        """The stream is taken or becomes free."""
        for rank in range(problem.ranks):
            env.process(self._backward(rank))
            if self.existing is not None:
                env.process(self._hooks(rank))

    def begin(self, step: int, start_ns: int) -> None:
        """All ranks start ``step`` now, at ``start_ns``."""
        problem, noise = self.problem, self.problem.noise
        forward_ns, ranks = problem.scenario.workload.forward_ns, problem.ranks
        self._start_ns = start_ns
        self.forward_ns = noise.forward_ns(step, forward_ns)
        completing = problem.completing(step, 0, ranks)
        self._order = None
        if problem.shuffled:
            self._order = np.argsort(completing, axis=1)
            completing = np.take_along_axis(completing, self._order, axis=1)
        exist = noise.ready_ns(step, forward_ns, problem.backward_ns, 0, ranks)
        self._exist_ns = np.take_along_axis(exist, completing, axis=1)
        if self.existing is not None:
            self.existing.clear()
            hooks = noise.ready_ns(step, forward_ns, problem.submit_gap_ns, 0, ranks)
            self._submit_ns = np.minimum(np.take_along_axis(hooks, completing, axis=1), self._exist_ns)
        self._starts[step].succeed()

    def hold(self) -> None:
        """A response takes the stream."""
        self._held_since_ns = self.env.ns
        self._turned()

    def release(self) -> None:
        """The response has ended."""
        assert self._held_since_ns is not None
        self._held_ns += self.env.ns - self._held_since_ns
        self._held_since_ns = None
        self._turned()

    def _turned(self) -> None:
        if self._slowdown_ppm:
            turn, self._turn = self._turn, self.env.event()
            turn.succeed()

    def _units(self, times_ns: Int64, rank: int) -> Iterator[tuple[int, int]]:
        """(unit, ns after the step's start) in the order in which ``rank`` completes them."""
        units = range(times_ns.shape[1]) if self._order is None else self._order[rank].tolist()
        return zip(units, times_ns[rank].tolist(), strict=True)

    def _hooks(self, rank: int) -> Wait:
        """Submissions, where they are not the gradients' existence."""
        for starts in self._starts:
            yield starts
            begin_ns = self._start_ns
            for unit, offset_ns in self._units(self._submit_ns, rank):
                delay_ns = begin_ns + offset_ns - self.env.ns
                if delay_ns:
                    yield self.env.timeout(delay_ns)
                self._submit(rank, unit)

    def _backward(self, rank: int) -> Wait:
        for starts in self._starts:
            yield starts
            begin_ns = self._start_ns
            forward_ns = int(self.forward_ns[rank])
            held_ns = 0
            if self._slowdown_ppm:
                yield self.env.timeout(forward_ns)
                held_ns = self._held_so_far_ns()
            for unit, offset_ns in self._units(self._exist_ns, rank):
                if self._slowdown_ppm:
                    yield from self._work(begin_ns + forward_ns, held_ns, offset_ns - forward_ns)
                else:
                    delay_ns = begin_ns + offset_ns - self.env.ns
                    if delay_ns:
                        yield self.env.timeout(delay_ns)
                if self.existing is None:
                    self._submit(rank, unit)
                else:
                    self.existing.add(rank, unit)
            self.last_ns[rank] = self.env.ns

    def _held_so_far_ns(self) -> int:
        present_ns = 0 if self._held_since_ns is None else self.env.ns - self._held_since_ns
        return self._held_ns + present_ns

    def _work(self, begin_ns: int, held_before_ns: int, work_ns: int) -> Wait:
        """Until ``work_ns`` of backward are done since ``begin_ns``; slower while the stream is held.

        Counted in parts of 1 / (PPM + slowdown) ns, of which a free ns does all and a held one does PPM; so nothing
        is rounded but the end, up to a whole ns (docs/semantics.md 2.7).
        """
        slowdown, whole = self._slowdown_ppm, PPM + self._slowdown_ppm
        while True:
            held_ns = self._held_so_far_ns() - held_before_ns
            missing = whole * (work_ns - (self.env.ns - begin_ns)) + slowdown * held_ns
            if missing <= 0:
                return
            pace = whole if self._held_since_ns is None else PPM
            end = self.env.timeout(-(-missing // pace))
            yield simpy.AnyOf(self.env, (end, self._turn))
