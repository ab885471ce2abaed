"""Compute, the data plane's stream and the ends of steps: the same for every control plane."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import simpy

from coordsim.cost.network import refuse_beyond_clock
from coordsim.protocol.messages import Response
from coordsim.record.trace import TraceWriter
from coordsim.simulate.event.clock import Clock, Wait
from coordsim.simulate.problem import Problem, Progress

Int64 = npt.NDArray[np.int64]


class Steps:
    """Compute and step ends, the same for every control plane."""

    def __init__(
        self, problem: Problem, env: Clock, submit: Callable[[int, int], None], progress: Progress | None
    ) -> None:
        self.problem = problem
        self.env = env
        self.writer = TraceWriter()
        self.step = 0
        self._submit = submit
        self._progress = progress
        self._total = problem.scenario.steps + 1
        self._start_ns = 0
        self._starts = [env.event() for _ in range(self._total)]
        self._offsets: Int64 = np.empty((0, 0), dtype=np.int64)
        self._reduced = 0
        self.over = env.event()
        for rank in range(problem.ranks):
            env.process(self._compute(rank))
        self._begin(0)

    def _begin(self, start_ns: int) -> None:
        """A step's start: one number for all ranks."""
        self._start_ns = start_ns
        workload = self.problem.scenario.workload
        noise = self.problem.noise
        backward = self.problem.backward_ns
        ready = noise.ready_ns(self.step, workload.forward_ns, backward, 0, self.problem.ranks)
        self._offsets = np.ascontiguousarray(ready[:, self.problem.last_member])
        self._starts[self.step].succeed()

    def _compute(self, rank: int) -> Wait:
        for step in range(self._total):
            yield self._starts[step]
            start = self._start_ns
            for unit, offset in enumerate(self._offsets[rank].tolist()):
                delay = start + offset - self.env.ns
                if delay:
                    yield self.env.timeout(delay)
                self._submit(rank, unit)

    def reduced(self, tensors: int, end_ns: int) -> None:
        """``tensors`` more have been reduced; called at their end. Ends the step with the last of them."""
        self._reduced += tensors
        if self._reduced < len(self.problem.tensors):
            return
        self._reduced = 0
        self.env.process(self._finish_step(end_ns))

    def _finish_step(self, collectives_end_ns: int) -> Wait:
        problem, workload = self.problem, self.problem.scenario.workload
        start, last = self._start_ns, self._offsets[:, -1]
        median = (problem.ranks - 1) // 2
        forward = np.sort(problem.noise.forward_ns(self.step, workload.forward_ns))[median]
        end = collectives_end_ns + workload.optimizer_ns
        refuse_beyond_clock(end, "the end of a step")
        self.writer.step(
            self.step, start, int(forward), int(np.sort(last)[median]), start + int(last.max()),
            int(last.argmax()), collectives_end_ns, end,
        )  # fmt: skip
        self.step += 1
        if self._progress is not None:
            self._progress(self.step, self._total)
        if self.step == self._total:
            self.over.succeed()
            return
        following = problem.next_start_ns(start, end)
        if following > self.env.ns:
            yield self.env.timeout(following - self.env.ns)
        self._begin(following)


class Stream:
    """The data plane's one stream: responses first in, first out (docs/semantics.md 6.1)."""

    def __init__(self, problem: Problem, env: Clock, steps: Steps) -> None:
        self.problem = problem
        self.env = env
        self.steps = steps
        self._jobs: simpy.Store = simpy.Store(env)
        env.process(self._serve())

    def launch(
        self, cycle: int, schedule: tuple[Response, ...], shadow_ns: int, blocking: bool, done: simpy.Event
    ) -> Wait:
        """Launch a schedule from now on; ``done`` fires when it has been executed."""
        ended: simpy.Event | None = None
        for index, response in enumerate(schedule):
            cost = self.problem.data.cost(response.nbytes, len(response.names))
            if cost.local_ns + cost.launch_ns:
                yield self.env.timeout(cost.local_ns + cost.launch_ns)
            ended = self.env.event()
            self._jobs.put((cycle, index, response, cost, self.env.ns, shadow_ns, ended))
            if blocking:
                yield ended
                shadow_ns = self.env.ns
        if ended is not None and not blocking:
            yield ended
        done.succeed()

    def _serve(self) -> Wait:
        while True:
            cycle, index, response, cost, launch_ns, shadow_ns, ended = yield self._jobs.get()
            begin_ns = self.env.ns
            refuse_beyond_clock(begin_ns + cost.stream_ns, "the end of a collective")
            for part in (cost.copy_in_ns, cost.collective_ns, cost.copy_out_ns):
                if part:
                    yield self.env.timeout(part)
            self.steps.writer.response(
                cycle, index, len(response.names), response.nbytes, launch_ns, shadow_ns, begin_ns,
                cost.copy_in_ns, cost.collective_ns, cost.copy_out_ns, self.env.ns,
            )  # fmt: skip
            ended.succeed()
            self.steps.reduced(len(response.names), self.env.ns)
