"""Step starts and ends, and the data plane's stream that ends them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from coordsim.cost.network import refuse_beyond_clock
from coordsim.protocol.messages import Response
from coordsim.record.trace import TraceWriter
from coordsim.simulate.problem import Problem, Progress
from coordsim.simulate.vector.readiness import ReadySteps
from coordsim.simulate.vector.stream import DataWait, execute

Int64 = npt.NDArray[np.int64]


class Steps:
    """Step starts and ends, and the stream that ends them."""

    def __init__(self, problem: Problem, progress: Progress | None) -> None:
        self.problem = problem
        self.writer = TraceWriter()
        self.ready = ReadySteps(problem)
        self.total = problem.scenario.steps + 1
        self.step = 0
        self.start_ns = 0
        self.stream_free_ns = 0
        self._progress = progress
        self.ready.load(0)

    @property
    def over(self) -> bool:
        return self.step == self.total

    def run(
        self,
        schedule: tuple[Response, ...],
        cycle: int,
        enter_ns: int,
        leave_ns: int,
        shadow_ns: int,
        blocking: bool,
    ) -> None:
        """Execute a schedule of a cycle entered (by the last rank) at ``enter_ns``, from the moment its exchange is
        over everywhere."""
        costs = [self.problem.data.cost(each.nbytes, len(each.names)) for each in schedule]
        wait = None
        if self.problem.wait != "none":
            exist_ns = [self.start_ns + self.ready.exist_everywhere(self._units(each)) for each in schedule]
            wait = DataWait(self.problem.wait, exist_ns, enter_ns)
        runs = execute(costs, leave_ns, shadow_ns, self.stream_free_ns, blocking, wait)
        for index, (response, cost, done) in enumerate(zip(schedule, costs, runs, strict=True)):
            self.writer.response(
                cycle, index, len(response.names), response.nbytes, done.launch_ns, done.launch_shadow_ns,
                done.begin_ns, cost.copy_in_ns, cost.collective_ns, cost.copy_out_ns, done.end_ns,
            )  # fmt: skip
            self.stream_free_ns = done.end_ns
        refuse_beyond_clock(self.stream_free_ns, "the end of a collective")

    def launched(self, schedule: tuple[Response, ...], leave: Int64) -> Int64:
        """``wait_for_data = host``: when each rank has launched a schedule that it knows at ``leave``; shape [rank]."""
        clock = leave.copy()
        for response in schedule:
            cost = self.problem.data.cost(response.nbytes, len(response.names))
            exist = self.ready.exist_on_ranks(self._units(response)) + self.start_ns
            clock = np.maximum(clock + cost.local_ns, exist) + cost.launch_ns
        return clock

    def _units(self, response: Response) -> set[int]:
        return {self.problem.unit_of[name] for name in response.names}

    def finish(self, collectives_end_ns: int) -> None:
        """The step's last gradient is reduced; load the next step."""
        ready, workload = self.ready, self.problem.scenario.workload
        end_ns = collectives_end_ns + workload.optimizer_ns
        refuse_beyond_clock(end_ns, "the end of a step")
        self.writer.step(
            self.step, self.start_ns, ready.forward_median, ready.ready_median,
            self.start_ns + ready.ready_last, ready.ready_last_rank, collectives_end_ns, end_ns,
        )  # fmt: skip
        self.step += 1
        if self._progress is not None:
            self._progress(self.step, self.total)
        if not self.over:
            self.start_ns = self.problem.next_start_ns(self.start_ns, end_ns)
            ready.load(self.step)
