"""``hierarchical``: a tree, with merging or without."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from coordsim.protocol.messages import Response
from coordsim.record.trace import Kind
from coordsim.simulate.problem import Problem
from coordsim.simulate.vector.kernels import exchanges as ex
from coordsim.simulate.vector.kernels.requests import tree_work
from coordsim.simulate.vector.pattern import Outcome, Pattern, Patterns
from coordsim.simulate.vector.plane import Decision, Plane
from coordsim.simulate.vector.steps import Steps

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]


class Hierarchical(Plane):
    """A tree with merging: a node passes on what its whole subtree asked for."""

    def __init__(self, problem: Problem, steps: Steps, patterns: Patterns) -> None:
        super().__init__(problem, steps, patterns)
        ranks, self.radix = problem.ranks, problem.settings.radix
        first = self.radix * np.arange(ranks, dtype=np.int64) + 1
        self._children = np.clip(np.minimum(first + self.radix, ranks) - first, 0, None)
        self._sent: Int32 = np.zeros(ranks, dtype=np.int32)
        self._sent_now: Int32 = np.zeros(ranks, dtype=np.int32)

    def new_step(self) -> None:
        super().new_step()
        self._sent[:] = 0

    def idle(self, pattern: Pattern) -> Outcome:
        def make() -> Outcome:
            nbytes = np.full(self.problem.ranks, self.problem.wire.request_header, dtype=np.int64)
            return self._round(pattern, nbytes, self.problem.host.per_message_ns * self._children, ())

        return self._kept(pattern, "idle", make)

    def idle_bytes(self) -> int:
        return self.problem.wire.request_header * int(self._children[0])

    def decide(self, pattern: Pattern, wake_ns: int) -> Decision:
        before, least = self._pop(pattern, wake_ns)
        ex.subtree_minimum(self.counts, self.radix, self._sent_now)
        host, members = self.problem.host, self.member_prefix
        passed_on = self._between(members, self._sent, self._sent_now, 0)
        nbytes = self._list_bytes(self._sent, self._sent_now)
        work = np.empty(before.size, dtype=np.int64)
        counted = tree_work(
            before, self.counts, passed_on, members, host.per_message_ns, host.per_request_ns, self.radix, work
        )
        schedule = self._ready_schedule(self.done, least) if least > self.done else ()
        self.done = least
        self._sent, self._sent_now = self._sent_now, self._sent
        outcome = self._round(pattern, nbytes, work, schedule)
        root_bytes = int(nbytes[1 : 1 + self._children[0]].sum())
        return Decision(schedule, Kind.SLOW, outcome, counted, root_bytes)

    def _round(self, pattern: Pattern, nbytes: Int64, work: Int64, schedule: tuple[Response, ...]) -> Outcome:
        built = self.problem.host.per_response_ns * sum(len(response.names) for response in schedule)
        answer_bytes = self.problem.schedule_bytes(schedule)
        nothing = np.zeros_like(work)
        self._within_reach(max(int(nbytes.max()), answer_bytes), max(int(nbytes.sum()), answer_bytes * nbytes.size))

        def serial(free: Int64, working: bool) -> None:
            ex.tree_up(free, nbytes, work if working else nothing, self.radix, self.net)
            if working:
                free[0] += built
            ex.tree_down(free, answer_bytes, self.radix, self.net)

        return self._evaluate(pattern, serial, True)


class Unmerged(Hierarchical):
    """A tree without merging: every list goes up as it was, and the root alone counts."""

    def decide(self, pattern: Pattern, wake_ns: int) -> Decision:
        before, least = self._pop(pattern, wake_ns)
        host, header = self.problem.host, self.problem.wire.request_header
        own = self._between(self.member_prefix, before, self.counts, 0)
        asked = own.copy()
        nbytes = np.where(own > 0, self._list_bytes(before, self.counts), 0)
        ex.subtree_sum(asked, self.radix)
        ex.subtree_sum(nbytes, self.radix)
        nbytes += header
        counted = int(asked[0])
        work = host.per_message_ns * self._children + host.per_request_ns * (asked - own)
        work[0] += host.per_request_ns * int(own[0])
        schedule = self._ready_schedule(self.done, least) if least > self.done else ()
        self.done = least
        outcome = self._round(pattern, nbytes, work, schedule)
        root_bytes = int(nbytes[1 : 1 + self._children[0]].sum())
        return Decision(schedule, Kind.SLOW, outcome, counted, root_bytes)
