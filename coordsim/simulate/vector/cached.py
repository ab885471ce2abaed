"""``cached``: a bit vector that all ranks intersect; the coordinator only for what the cache does not know."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from coordsim.protocol.cache import ResponseCache
from coordsim.protocol.messages import Response, respond_to
from coordsim.protocol.negotiator import agree, remember
from coordsim.record.trace import Kind
from coordsim.simulate.problem import Problem
from coordsim.simulate.vector.coordinator import Coordinator
from coordsim.simulate.vector.kernels import exchanges as ex
from coordsim.simulate.vector.kernels.readiness import latest_lag
from coordsim.simulate.vector.pattern import Outcome, Pattern, Patterns
from coordsim.simulate.vector.plane import Asked, Decision, prefix_sums
from coordsim.simulate.vector.steps import Steps

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]


class Cached(Coordinator):
    """A bit vector that all ranks intersect each cycle; the coordinator only for what the cache does not know."""

    def __init__(self, problem: Problem, steps: Steps, patterns: Patterns) -> None:
        super().__init__(problem, steps, patterns)
        self.cache = ResponseCache(problem.settings.cache_capacity)
        self._evicted: set[str] = set()
        """Names that lost their bit in the cycle before."""
        self._all_known = False
        self._hit_schedules: dict[tuple[int, int, int], tuple[Response, ...]] = {}
        self._fits = problem.settings.cache_capacity >= len(problem.tensors)

    def new_step(self) -> None:
        super().new_step()
        self._all_known = self._fits and len(self.cache) == len(self.problem.tensors)

    def idle_bytes(self) -> int:
        return 0

    def idle(self, pattern: Pattern) -> Outcome:
        return self._kept(pattern, self.cache.words, lambda: self._evaluate(pattern, self._intersect, False))

    def _intersect(self, free: Int64, working: bool) -> None:
        control, nbytes = self.problem.control, 8 * self.cache.words
        if control.and_reduce == "ring":
            ex.reduce_ring(free, nbytes, self.net)
        elif control.and_reduce == "in-network":
            ex.reduce_in_network(free, control.in_network_ns)
        else:
            ex.reduce_recursive_doubling(free, nbytes, self.net)

    def next_event_ns(self, pattern: Pattern) -> int:
        if self._all_known:
            return self._lag(self.done, pattern) + self.steps.start_ns
        return 0 if self._evicted else self._next_pop_ns(pattern)

    def _lag(self, unit: int, pattern: Pattern) -> int:
        """Wake of rank 0, after the step's start, from which on every rank has popped ``unit``."""
        if pattern is self.patterns.uniform:
            return int(self.steps.ready.latest[unit])
        lags = pattern.lags_of(self.steps.step)
        lag = lags.get(unit)
        if lag is None:
            lag = lags[unit] = latest_lag(self.steps.ready.matrix[unit], pattern.offset)
        return lag

    def decide(self, pattern: Pattern, wake_ns: int) -> Decision:
        return self._by_bits(pattern, wake_ns) if self._all_known else self._by_lists(pattern, wake_ns)

    def _by_bits(self, pattern: Pattern, wake_ns: int) -> Decision:
        """Everything is cached, and stays so: the schedule depends on the common units alone."""
        first, units = self.done, len(self.problem.units)
        while self.done < units and self._lag(self.done, pattern) + self.steps.start_ns <= wake_ns:
            self.done += 1
        key = (first, self.done, self.cache.generation)
        schedule = self._hit_schedules.get(key)
        if schedule is None:
            names = [name for unit in self.problem.units[first : self.done] for name in unit]
            names.sort(key=self.cache.bit)
            schedule = agree([self.cache.peek(name) for name in names], (), self.problem.settings)
            self._hit_schedules[key] = schedule
        hits = int(self.member_prefix[self.done] - self.member_prefix[first])
        return Decision(schedule, Kind.FAST, self.idle(pattern), hits_common=hits)

    def _by_lists(self, pattern: Pattern, wake_ns: int) -> Decision:
        """Some name is unknown (cold, or the cache is too small): count who asks for what."""
        problem, cache, units = self.problem, self.cache, self.problem.units
        before, least = self._pop(pattern, wake_ns)
        asked = self._ask_lists(before)
        complete = range(self.done, least)
        hits = sorted((cache.bit(name), name) for u in complete for name in units[u] if name in cache)
        misses = [(u, name) for u in complete for name in units[u] if name not in cache]
        slow = asked.total > 0
        look = cache.peek if slow else cache.touch
        ready = [respond_to(problem.requests[name]) for name in self._completion_order(misses, before)]
        schedule = agree([look(name) for _, name in hits], ready, problem.settings)
        self.done = least
        if slow:
            kind, sent = Kind.SLOW, asked.sent_bytes
            outcome = self._slow_round(pattern, asked, schedule)
            gone = remember(cache, schedule, problem.requests)
            self._evicted = {name for name in gone if name not in cache}
        else:
            kind, sent, outcome = (Kind.FAST if hits else Kind.IDLE), 0, self.idle(pattern)
            self._evicted = set()
        return Decision(schedule, kind, outcome, asked.total, sent, len(hits))

    def _ask_lists(self, before: Int32) -> Asked:
        """Requests per rank: uncached units just popped, and units popped before that lost their bit."""
        units, sizes, known = self.problem.units, self.problem.request_size, self.cache
        fresh = [[name for name in unit if name not in known] for unit in units]
        lost = [
            [name for name in unit if name in self._evicted] if index >= self.done else []
            for index, unit in enumerate(units)
        ]
        count, nbytes = (
            [prefix_sums(weigh(part) for part in parts) for parts in (fresh, lost)]
            for weigh in (len, lambda part: sum(sizes[name] for name in part))
        )
        now = self.counts
        return Asked(
            count[0][now] - count[0][before] + count[1][before],
            nbytes[0][now] - nbytes[0][before] + nbytes[1][before] + self.problem.wire.request_header,
        )

    def _completion_order(self, misses: list[tuple[int, str]], before: Int32) -> list[str]:
        """By completing rank, then by place in that rank's list (docs/semantics.md 5.3)."""

        def completer(unit: int, name: str) -> int:
            if name in self._evicted:
                return self.problem.ranks - 1
            return int(np.flatnonzero(before <= unit)[-1])

        ranked = [(completer(unit, name), place, name) for place, (unit, name) in enumerate(misses)]
        return [name for _, _, name in sorted(ranked)]

    def _slow_round(self, pattern: Pattern, asked: Asked, schedule: tuple[Response, ...]) -> Outcome:
        self._refuse_large(asked, schedule)

        def serial(free: Int64, working: bool) -> None:
            self._intersect(free, working)
            self.ask(free, asked, schedule, working)

        return self._evaluate(pattern, serial, True)
