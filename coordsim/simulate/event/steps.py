"""Starts and ends of steps, and the data plane's stream: the same for every control plane."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import simpy

from coordsim.cost.network import refuse_beyond_clock
from coordsim.protocol.messages import Response
from coordsim.record.trace import TraceWriter
from coordsim.simulate.event.clock import Clock, Wait
from coordsim.simulate.event.compute import Compute
from coordsim.simulate.problem import Problem, Progress

Int64 = npt.NDArray[np.int64]


class Steps:
    """Step starts and ends, the same for every control plane."""

    def __init__(
        self, problem: Problem, env: Clock, submit: Callable[[int, int], None], progress: Progress | None
    ) -> None:
        self.problem = problem
        self.env = env
        self.writer = TraceWriter()
        self.step = 0
        self._progress = progress
        self._total = problem.scenario.steps + 1
        self._start_ns = 0
        self._reduced = 0
        self.over = env.event()
        self.compute = Compute(problem, env, submit, self._total)
        self._begin(0)

    def _begin(self, start_ns: int) -> None:
        """A step's start: one number for all ranks."""
        self._start_ns = start_ns
        self.compute.begin(self.step, start_ns)

    def reduced(self, tensors: int, end_ns: int) -> None:
        """``tensors`` more have been reduced; called at their end. Ends the step with the last of them."""
        self._reduced += tensors
        if self._reduced < len(self.problem.tensors):
            return
        self._reduced = 0
        self.env.process(self._finish_step(end_ns))

    def _finish_step(self, collectives_end_ns: int) -> Wait:
        problem, workload = self.problem, self.problem.scenario.workload
        start, last = self._start_ns, self.compute.last_ns - self._start_ns
        median = (problem.ranks - 1) // 2
        forward = np.sort(self.compute.forward_ns)[median]
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
            self.put(cycle, index, response, shadow_ns, ended)
            if blocking:
                yield ended
                shadow_ns = self.env.ns
        if ended is not None and not blocking:
            yield ended
        done.succeed()

    def put(self, cycle: int, index: int, response: Response, shadow_ns: int, ended: simpy.Event) -> None:
        """Launch one response now; ``ended`` fires at its end."""
        self._jobs.put((cycle, index, response, self.env.ns, shadow_ns, ended))

    def _serve(self) -> Wait:
        compute = self.steps.compute
        while True:
            cycle, index, response, launch_ns, shadow_ns, ended = yield self._jobs.get()
            cost = self.problem.data.cost(response.nbytes, len(response.names))
            if compute.existing is not None:
                yield from compute.existing.on_all({self.problem.unit_of[name] for name in response.names})
            begin_ns = self.env.ns
            refuse_beyond_clock(begin_ns + cost.stream_ns, "the end of a collective")
            compute.hold()
            for part in (cost.copy_in_ns, cost.collective_ns, cost.copy_out_ns):
                if part:
                    yield self.env.timeout(part)
            compute.release()
            self.steps.writer.response(
                cycle, index, len(response.names), response.nbytes, launch_ns, shadow_ns, begin_ns,
                cost.copy_in_ns, cost.collective_ns, cost.copy_out_ns, self.env.ns,
            )  # fmt: skip
            ended.succeed()
            self.steps.reduced(len(response.names), self.env.ns)
