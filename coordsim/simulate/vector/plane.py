"""What every control plane does in the vector engine: pointers instead of lists."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coordsim.cost.network import NS_PER_S, refuse_beyond_clock, refuse_message
from coordsim.protocol.messages import Response, respond_to
from coordsim.protocol.negotiator import agree
from coordsim.record.trace import Kind
from coordsim.simulate.problem import Problem
from coordsim.simulate.vector.kernels.exchanges import Network
from coordsim.simulate.vector.kernels.readiness import count_ready, next_ready
from coordsim.simulate.vector.kernels.requests import between
from coordsim.simulate.vector.pattern import Outcome, Pattern, Patterns
from coordsim.simulate.vector.steps import Steps

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]


@dataclass(slots=True)
class Decision:
    """What one cycle agreed on, and what it cost to say so."""

    schedule: tuple[Response, ...]
    kind: Kind
    outcome: Outcome
    requests: int = 0
    request_bytes: int = 0
    hits_common: int = 0


class Asked:
    """Who asks for what in a cycle with requests: arrays of shape [rank]."""

    def __init__(self, requests: Int64, nbytes: Int64) -> None:
        self.requests = requests
        self.nbytes = nbytes
        """Of each rank's list, header included."""
        self.total = int(requests.sum())
        self.sent_bytes = int(nbytes.sum() - nbytes[0])
        """What reaches rank 0 over the wire."""


class Plane:
    """A control plane's part of the loop; one subclass each below."""

    def __init__(self, problem: Problem, steps: Steps, patterns: Patterns) -> None:
        self.problem = problem
        self.steps = steps
        self.net = Network.of(problem.network)
        self.patterns = patterns
        self.detour_ns: Int64 | None = None
        """Shape [rank]: what the operating system takes from each control CPU in the current cycle; None: nothing."""
        self.done = 0
        """Units of the current step that have been scheduled."""
        self.counts: Int32 = np.zeros(problem.ranks, dtype=np.int32)
        """Shape [rank]: units popped so far in the current step."""
        self._schedules: dict[tuple[int, int], tuple[Response, ...]] = {}
        self.member_prefix = prefix_sums(len(unit) for unit in problem.units)
        self.byte_prefix = prefix_sums(
            sum(problem.request_size[name] for name in unit) for unit in problem.units
        )

    # -- what the loop asks ------------------------------------------------------------------------

    def next_event_ns(self, pattern: Pattern) -> int:
        """Rank 0's wake from which on a cycle is not idle any more, ns since the start of the run."""
        return self._next_pop_ns(pattern)

    def idle(self, pattern: Pattern) -> Outcome:
        """A cycle in which nobody has anything to say."""
        raise NotImplementedError

    def idle_bytes(self) -> int:
        """What rank 0 takes in over the wire in an idle cycle."""
        return 0

    def decide(self, pattern: Pattern, wake_ns: int) -> Decision:
        """A cycle in which somebody has."""
        raise NotImplementedError

    def new_step(self) -> None:
        self.done = 0
        self.counts[:] = 0

    # -- shared by the planes ----------------------------------------------------------------------

    def _next_pop_ns(self, pattern: Pattern) -> int:
        found = next_ready(self.steps.ready.matrix, self.counts, pattern.offset)
        return found + self.steps.start_ns

    def _pop(self, pattern: Pattern, wake_ns: int) -> tuple[Int32, int]:
        """Advance the pointers; returns the ones before, and the smallest one now."""
        before = self.counts
        limit = pattern.offset + (wake_ns - self.steps.start_ns)
        self.counts = np.empty_like(before)
        return before, count_ready(self.steps.ready.matrix, limit, self.done, self.counts)

    def _between(self, prefix: Int64, before: Int32, now: Int32, plus: int) -> Int64:
        """Shape [rank]: plus + what the units from ``before`` to ``now`` add up to."""
        out = np.empty(before.size, dtype=np.int64)
        between(prefix, before, now, plus, out)
        return out

    def _list_bytes(self, before: Int32, now: Int32) -> Int64:
        return self._between(self.byte_prefix, before, now, self.problem.wire.request_header)

    def _ready_schedule(self, first: int, last: int) -> tuple[Response, ...]:
        """Schedule of units first..last-1 when every one of them went through the coordinator."""
        schedule = self._schedules.get((first, last))
        if schedule is None:
            names = [name for unit in self.problem.units[first:last] for name in unit]
            ready = [respond_to(self.problem.requests[name]) for name in names]
            schedule = self._schedules[first, last] = agree((), ready, self.problem.settings)
        return schedule

    def _within_reach(self, largest: int, total: int) -> None:
        """Refuse control messages whose times would leave int64: ``largest`` bytes, ``total`` over all ranks."""
        network = self.problem.network
        slowest = min(network.bandwidth_Bps, network.local_bandwidth_Bps, network.root_nic_Bps)
        refuse_message(largest)
        refuse_beyond_clock(total * NS_PER_S // slowest, "a control exchange")

    def _evaluate(self, pattern: Pattern, serial: Callable[[Int64, bool], None], works: bool) -> Outcome:
        """Run a closed form from the pattern's wakes, and again without serial work for the shadow."""
        leave = self._open(pattern)
        serial(leave, True)
        if not works:
            return Outcome.of(pattern, leave, leave)
        shadow = self._open(pattern)
        serial(shadow, False)
        return Outcome.of(pattern, leave, shadow)

    def _open(self, pattern: Pattern) -> Int64:
        """When each rank's control CPU is there for the exchange, relative to rank 0's wake; shape [rank]."""
        return pattern.offset.copy() if self.detour_ns is None else pattern.offset + self.detour_ns

    def _kept(self, pattern: Pattern, what: Hashable, make: Callable[[], Outcome]) -> Outcome:
        """An exchange that depends on nothing but the pattern: evaluated once, unless this cycle is disturbed."""
        if self.detour_ns is not None:
            return make()
        outcome = pattern.outcomes.get(what)
        if outcome is None:
            outcome = pattern.outcomes[what] = make()
        return outcome


def prefix_sums(values: Iterable[int]) -> Int64:
    """[0, v0, v0 + v1, ...]"""
    return np.concatenate([[0], np.cumsum(np.fromiter(values, dtype=np.int64))]).astype(np.int64)
