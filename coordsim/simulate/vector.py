"""The vector engine: whole arrays of ranks at once, equal to the event engine bit for bit.

Global decisions are taken by the protocol's own cache, group and fusion code; only *counting* is replaced ("every
rank asked" is "the smallest pointer passed"). Exchanges are evaluated by the closed forms of
:mod:`coordsim.simulate.kernels.exchanges`. What it cannot do exactly it refuses by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coordsim.cost.wire_sizes import LENGTH_BYTES
from coordsim.protocol.cache import ResponseCache
from coordsim.protocol.fusion import fuse
from coordsim.protocol.messages import Response, respond_to
from coordsim.protocol.negotiator import agree, remember
from coordsim.record.trace import CycleRow, Kind, Trace, TraceWriter, schedule_hash
from coordsim.simulate.buckets import ddp_buckets
from coordsim.simulate.data_stream import execute
from coordsim.simulate.kernels import exchanges as ex
from coordsim.simulate.kernels.readiness import count_ready, latest_lag, next_ready
from coordsim.simulate.kernels.requests import between, tree_work
from coordsim.simulate.pattern import Outcome, Pattern, Patterns
from coordsim.simulate.problem import Problem
from coordsim.simulate.ready_steps import ReadySteps

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


class _Steps:
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
        self, schedule: tuple[Response, ...], cycle: int, leave_ns: int, shadow_ns: int, blocking: bool
    ) -> None:
        """Execute a schedule from the moment its exchange is over everywhere."""
        costs = [self.problem.data.cost(each.nbytes, len(each.names)) for each in schedule]
        runs = execute(costs, leave_ns, shadow_ns, self.stream_free_ns, blocking)
        for index, (response, cost, done) in enumerate(zip(schedule, costs, runs, strict=True)):
            self.writer.response(
                cycle, index, len(response.names), response.nbytes, done.launch_ns, done.launch_shadow_ns,
                done.begin_ns, cost.copy_in_ns, cost.collective_ns, cost.copy_out_ns, done.end_ns,
            )  # fmt: skip
            self.stream_free_ns = done.end_ns

    def finish(self, collectives_end_ns: int) -> None:
        """The step's last gradient is reduced; load the next step."""
        ready, workload = self.ready, self.problem.scenario.workload
        end_ns = collectives_end_ns + workload.optimizer_ns
        self.writer.step(
            self.step, self.start_ns, ready.forward_median, ready.ready_median,
            self.start_ns + int(ready.latest[-1]), ready.ready_last_rank, collectives_end_ns, end_ns,
        )  # fmt: skip
        self.step += 1
        if self._progress is not None:
            self._progress(self.step, self.total)
        if not self.over:
            self.start_ns = self.problem.next_start_ns(self.start_ns, end_ns)
            ready.load(self.step)


@dataclass(slots=True)
class _Decision:
    """What one cycle agreed on, and what it cost to say so."""

    schedule: tuple[Response, ...]
    kind: Kind
    outcome: Outcome
    requests: int = 0
    request_bytes: int = 0
    hits_common: int = 0


class _Asked:
    """Who asks for what in a cycle with requests: arrays of shape [rank]."""

    def __init__(self, requests: Int64, nbytes: Int64) -> None:
        self.requests = requests
        self.nbytes = nbytes
        """Of each rank's list, header included."""
        self.total = int(requests.sum())
        self.sent_bytes = int(nbytes.sum() - nbytes[0])
        """What reaches rank 0 over the wire."""


class _Plane:
    """A control plane's part of the loop; one subclass each below."""

    def __init__(self, problem: Problem, steps: _Steps, patterns: Patterns) -> None:
        self.problem = problem
        self.steps = steps
        self.net = ex.network_vector(problem.network)
        self.patterns = patterns
        self.done = 0
        """Units of the current step that have been scheduled."""
        self.counts: Int32 = np.zeros(problem.ranks, dtype=np.int32)
        """Shape [rank]: units popped so far in the current step."""
        self._schedules: dict[tuple[int, int], tuple[Response, ...]] = {}
        self.member_prefix = _prefix(len(unit) for unit in problem.units)
        self.byte_prefix = _prefix(
            sum(problem.request_size[name] for name in unit) for unit in problem.units
        )

    # -- what the loop asks ------------------------------------------------------------------------

    def next_event_ns(self, pattern: Pattern) -> int:
        """Rank 0's wake from which on a cycle is not idle any more, ns since the start of the run."""
        return self._next_pop_ns(pattern)

    def idle(self, pattern: Pattern) -> Outcome:
        """A cycle in which nobody has anything to say."""
        raise NotImplementedError

    def decide(self, pattern: Pattern, wake_ns: int) -> _Decision:
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

    def _evaluate(self, pattern: Pattern, serial: Callable[[Int64, bool], None], works: bool) -> Outcome:
        """Run a closed form from the pattern's wakes, and again without serial work for the shadow."""
        leave = pattern.offset.copy()
        serial(leave, True)
        if not works:
            return Outcome.of(pattern, leave, leave)
        shadow = pattern.offset.copy()
        serial(shadow, False)
        return Outcome.of(pattern, leave, shadow)


def _prefix(values: Iterable[int]) -> Int64:
    """[0, v0, v0 + v1, ...]"""
    return np.concatenate([[0], np.cumsum(np.fromiter(values, dtype=np.int64))]).astype(np.int64)


class _Coordinator(_Plane):
    """Gather lengths, gather lists, count, broadcast length, broadcast list; every cycle."""

    def idle(self, pattern: Pattern) -> Outcome:
        outcome = pattern.outcomes.get("idle")
        if outcome is None:
            nobody = np.zeros(self.problem.ranks, dtype=np.int64)
            asked = _Asked(nobody, nobody + self.problem.wire.request_header)
            outcome = pattern.outcomes["idle"] = self._round(pattern, asked, ())
        return outcome

    def idle_bytes(self) -> int:
        return self.problem.wire.request_header * (self.problem.ranks - 1)

    def decide(self, pattern: Pattern, wake_ns: int) -> _Decision:
        before, least = self._pop(pattern, wake_ns)
        asked = _Asked(self._between(self.member_prefix, before, self.counts, 0), self._list_bytes(before, self.counts))
        schedule = self._ready_schedule(self.done, least) if least > self.done else ()
        self.done = least
        outcome = self._round(pattern, asked, schedule)
        return _Decision(schedule, Kind.SLOW, outcome, asked.total, asked.sent_bytes)

    def _round(self, pattern: Pattern, asked: _Asked, schedule: tuple[Response, ...]) -> Outcome:
        def serial(free: Int64, working: bool) -> None:
            self.ask(free, asked, schedule, working)

        return self._evaluate(pattern, serial, True)

    def ask(self, free: Int64, asked: _Asked, schedule: tuple[Response, ...], working: bool) -> None:
        """The slow path's sequence, from ``free`` on (updated in place)."""
        host, net = self.problem.host, self.net
        self._gather(free, np.full(free.size, LENGTH_BYTES, dtype=np.int64))
        self._gather(free, asked.nbytes)
        if working:
            free[0] += host.per_message_ns * (free.size - 1) + host.per_request_ns * asked.total
            free[0] += host.per_response_ns * sum(len(response.names) for response in schedule)
        ex.broadcast_binomial(free, LENGTH_BYTES, net)
        ex.broadcast_binomial(free, self.problem.schedule_bytes(schedule), net)

    def _gather(self, free: Int64, nbytes: Int64) -> None:
        control = self.problem.control
        if control.gather == "binomial":
            ex.gather_binomial(free, nbytes, self.net)
        elif control.gather == "node-leaders":
            ex.gather_node_leaders(free, nbytes, self.net)
        else:
            ex.gather_linear(free, nbytes, control.eager_limit_bytes, self.net)


class _PointToPoint(_Coordinator):
    """Every worker messages rank 0, which serves as they come and answers one after the other."""

    def ask(self, free: Int64, asked: _Asked, schedule: tuple[Response, ...], working: bool) -> None:
        host, net = self.problem.host, self.net
        service = np.full(free.size, net[1], dtype=np.int64)
        if working:
            service += host.per_message_ns + host.per_request_ns * asked.requests
            free[0] += host.per_request_ns * int(asked.requests[0])
        ex.star_gather(free, asked.nbytes, service, net)
        if working:
            free[0] += host.per_response_ns * sum(len(response.names) for response in schedule)
        ex.star_broadcast(free, self.problem.schedule_bytes(schedule), net)


class _Hierarchical(_Plane):
    """A tree with merging: a node passes on what its whole subtree asked for."""

    def __init__(self, problem: Problem, steps: _Steps, patterns: Patterns) -> None:
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
        outcome = pattern.outcomes.get("idle")
        if outcome is None:
            nbytes = np.full(self.problem.ranks, self.problem.wire.request_header, dtype=np.int64)
            work = self.problem.host.per_message_ns * self._children
            outcome = pattern.outcomes["idle"] = self._round(pattern, nbytes, work, ())
        return outcome

    def idle_bytes(self) -> int:
        return self.problem.wire.request_header * int(self._children[0])

    def decide(self, pattern: Pattern, wake_ns: int) -> _Decision:
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
        return _Decision(schedule, Kind.SLOW, outcome, counted, root_bytes)

    def _round(self, pattern: Pattern, nbytes: Int64, work: Int64, schedule: tuple[Response, ...]) -> Outcome:
        built = self.problem.host.per_response_ns * sum(len(response.names) for response in schedule)
        answer_bytes = self.problem.schedule_bytes(schedule)
        nothing = np.zeros_like(work)

        def serial(free: Int64, working: bool) -> None:
            ex.tree_up(free, nbytes, work if working else nothing, self.radix, self.net)
            if working:
                free[0] += built
            ex.tree_down(free, answer_bytes, self.radix, self.net)

        return self._evaluate(pattern, serial, True)


class _Cached(_Coordinator):
    """A bit vector that all ranks intersect each cycle; the coordinator only for what the cache does not know."""

    def __init__(self, problem: Problem, steps: _Steps, patterns: Patterns) -> None:
        super().__init__(problem, steps, patterns)
        self.cache = ResponseCache(problem.settings.cache_capacity)
        self._evicted: set[str] = set()
        """Names that lost their bit in the cycle before."""
        self._all_known = False
        self._lags: dict[tuple[int, int], int] = {}
        self._hit_schedules: dict[tuple[int, int, int], tuple[Response, ...]] = {}
        self._fits = problem.settings.cache_capacity >= len(problem.tensors)

    def new_step(self) -> None:
        super().new_step()
        self._lags.clear()
        self._all_known = self._fits and len(self.cache) == len(self.problem.tensors)

    def idle_bytes(self) -> int:
        return 0

    def idle(self, pattern: Pattern) -> Outcome:
        words = self.cache.words
        outcome = pattern.outcomes.get(words)
        if outcome is None:
            outcome = pattern.outcomes[words] = self._evaluate(pattern, self._intersect, False)
        return outcome

    def _intersect(self, free: Int64, working: bool) -> None:
        ex.reduce_recursive_doubling(free, 8 * self.cache.words, self.net)

    def next_event_ns(self, pattern: Pattern) -> int:
        if self._all_known:
            return self._lag(self.done, pattern) + self.steps.start_ns
        return 0 if self._evicted else self._next_pop_ns(pattern)

    def _lag(self, unit: int, pattern: Pattern) -> int:
        """Wake of rank 0, after the step's start, from which on every rank has popped ``unit``."""
        if pattern is self.patterns.uniform:
            return int(self.steps.ready.latest[unit])
        lag = self._lags.get((unit, id(pattern)))
        if lag is None:
            lag = latest_lag(self.steps.ready.matrix[unit], pattern.offset)
            self._lags[unit, id(pattern)] = lag
        return lag

    def decide(self, pattern: Pattern, wake_ns: int) -> _Decision:
        return self._by_bits(pattern, wake_ns) if self._all_known else self._by_lists(pattern, wake_ns)

    def _by_bits(self, pattern: Pattern, wake_ns: int) -> _Decision:
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
        return _Decision(schedule, Kind.FAST, self.idle(pattern), hits_common=hits)

    def _by_lists(self, pattern: Pattern, wake_ns: int) -> _Decision:
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
        return _Decision(schedule, kind, outcome, asked.total, sent, len(hits))

    def _ask_lists(self, before: Int32) -> _Asked:
        """Requests per rank: uncached units just popped, and units popped before that lost their bit."""
        units, sizes, known = self.problem.units, self.problem.request_size, self.cache
        fresh = [[name for name in unit if name not in known] for unit in units]
        lost = [
            [name for name in unit if name in self._evicted] if index >= self.done else []
            for index, unit in enumerate(units)
        ]
        count, nbytes = (
            [_prefix(weigh(part) for part in parts) for parts in (fresh, lost)]
            for weigh in (len, lambda part: sum(sizes[name] for name in part))
        )
        now = self.counts
        return _Asked(
            count[0][now] - count[0][before] + count[1][before],
            nbytes[0][now] - nbytes[0][before] + nbytes[1][before] + self.problem.wire.request_header,
        )

    def _completion_order(self, misses: list[tuple[int, str]], before: Int32) -> list[str]:
        """By completing rank, then by place in that rank's list (SEMANTICS 5.3)."""

        def completer(unit: int, name: str) -> int:
            if name in self._evicted:
                return self.problem.ranks - 1
            return int(np.flatnonzero(before <= unit)[-1])

        ranked = [(completer(unit, name), place, name) for place, (unit, name) in enumerate(misses)]
        return [name for _, _, name in sorted(ranked)]

    def _slow_round(self, pattern: Pattern, asked: _Asked, schedule: tuple[Response, ...]) -> Outcome:
        def serial(free: Int64, working: bool) -> None:
            self._intersect(free, working)
            self.ask(free, asked, schedule, working)

        return self._evaluate(pattern, serial, True)


_PLANES: dict[str, type[_Plane]] = {
    "point-to-point": _PointToPoint,
    "coordinator": _Coordinator,
    "hierarchical": _Hierarchical,
    "cached": _Cached,
}


class NegotiatedRun:
    """The background loop of all ranks, one cycle or one run of idle cycles at a time."""

    def __init__(self, problem: Problem, progress: Progress | None = None) -> None:
        self.problem = problem
        self.steps = _Steps(problem, progress)
        self.patterns = Patterns(problem.ranks)
        self.plane = _PLANES[problem.plane.name](problem, self.steps, self.patterns)
        self.pattern = self.patterns.uniform
        self.wake_ns = 0
        """Rank 0's wake; the others' are relative to it."""
        self._finish: Callable[[int], tuple[int, int]] = lambda rank: (0, 0)
        self._schedule_hashes: dict[tuple[Response, ...], int] = {(): 0}

    def run(self) -> Trace:
        """The whole trace."""
        while not self.steps.over:
            event_ns = self.plane.next_event_ns(self.pattern)
            if event_ns > self.wake_ns:
                self._rest_until(event_ns)
            else:
                self._act()
        return self.steps.writer.finish(self.problem.data.blocking)

    def _rest_until(self, event_ns: int) -> None:
        """One idle cycle; and if it leads to itself, all that come before the event."""
        outcome = self.plane.idle(self.pattern)
        idle = _Decision((), Kind.IDLE, outcome, request_bytes=self.plane.idle_bytes())
        self._write(idle)
        pattern, wake_ns = self._next_wakes(outcome, 0)
        period_ns = wake_ns - self.wake_ns
        steady = pattern is self.pattern and event_ns > wake_ns
        more = -(-(event_ns - wake_ns) // period_ns) if steady else 0
        self._depart(outcome, pattern, wake_ns)
        if more:
            self._write(idle, more, period_ns)
            self.wake_ns += (more - 1) * period_ns
            self._depart(outcome, pattern, self.wake_ns + period_ns)

    def _act(self) -> None:
        decision = self.plane.decide(self.pattern, self.wake_ns)
        cycle = self.steps.writer.next_cycle
        self._write(decision)
        schedule, outcome = decision.schedule, decision.outcome
        if not schedule:
            self._depart(outcome, *self._next_wakes(outcome, 0))
            return
        blocking = self.problem.data.blocking
        self.steps.run(schedule, cycle, self.wake_ns + outcome.last, self.wake_ns + outcome.shadow_last, blocking)
        if blocking:
            self._resume_together(self.steps.stream_free_ns)
        else:
            costs = (self.problem.data.cost(each.nbytes, len(each.names)) for each in schedule)
            busy_ns = sum(cost.local_ns + cost.launch_ns for cost in costs)
            self._depart(outcome, *self._next_wakes(outcome, busy_ns), busy_ns)
        if self.plane.done == len(self.problem.units):
            self.steps.finish(self.steps.stream_free_ns)
            self.plane.new_step()

    def _next_wakes(self, outcome: Outcome, busy_ns: int) -> tuple[Pattern, int]:
        """Pattern and rank 0's wake after a cycle that keeps every rank busy ``busy_ns`` more."""
        cycle_ns = self.problem.cycle_ns
        if outcome.slack + busy_ns <= cycle_ns:
            return self.pattern, self.wake_ns + cycle_ns
        wakes = np.maximum(self.pattern.offset + cycle_ns, outcome.leave + busy_ns)
        return self.patterns.of(wakes), self.wake_ns + int(wakes[0])

    def _depart(self, outcome: Outcome, pattern: Pattern, wake_ns: int, busy_ns: int = 0) -> None:
        """Go on to the next cycle; remember when each rank finished this one."""
        base_ns, leave, shadow = self.wake_ns, outcome.leave, outcome.leave_shadow
        self._finish = lambda rank: (base_ns + int(leave[rank]) + busy_ns, base_ns + int(shadow[rank]))
        self.pattern, self.wake_ns = pattern, wake_ns

    def _resume_together(self, end_ns: int) -> None:
        wakes = np.maximum(self.pattern.offset + (self.wake_ns + self.problem.cycle_ns), end_ns)
        self.pattern, self.wake_ns = self.patterns.of(wakes), int(wakes[0])
        self._finish = lambda rank: (end_ns, end_ns)

    def _write(self, decision: _Decision, repeat: int = 1, period_ns: int = 0) -> None:
        pattern, outcome, now = self.pattern, decision.outcome, self.wake_ns
        finish, finish_shadow = self._finish(pattern.last_rank)
        schedule = decision.schedule
        hashed = self._schedule_hashes.get(schedule)
        if hashed is None:
            hashed = self._schedule_hashes[schedule] = schedule_hash([each.names for each in schedule])
        self.steps.writer.cycle(CycleRow(
            self.steps.step, decision.kind, now + pattern.first, now + pattern.last, pattern.last_rank,
            now + outcome.last, now + outcome.shadow_last, finish, finish_shadow, pattern.wake_hash,
            decision.requests, decision.request_bytes, decision.hits_common, len(schedule), hashed,
        ), repeat, period_ns)  # fmt: skip


class UnnegotiatedRun:
    """``ideal`` and ``ddp``: from the maxima over ranks alone, O(units) per step."""

    def __init__(self, problem: Problem, progress: Progress | None = None) -> None:
        self.problem = problem
        self.steps = _Steps(problem, progress)
        self._buckets = ddp_buckets(problem) if problem.plane.name == "ddp" else []
        self._finish_ns = 0

    def run(self) -> Trace:
        """The whole trace."""
        step = self._ddp_step if self._buckets else self._ideal_step
        while not self.steps.over:
            step([self.steps.start_ns + int(latest) for latest in self.steps.ready.latest])
            self.steps.finish(self.steps.stream_free_ns)
        return self.steps.writer.finish(not self._buckets)

    def _ideal_step(self, latest: list[int]) -> None:
        """Whenever the stream is free, all units that are ready everywhere go at once."""
        problem, first = self.problem, 0
        while first < len(latest):
            now = max(latest[first], self._finish_ns)
            last = first
            while last < len(latest) and latest[last] <= now:
                last += 1
            singles = [respond_to(problem.requests[name]) for unit in problem.units[first:last] for name in unit]
            schedule = tuple(fuse(singles, problem.settings.fusion_threshold_bytes, problem.groups))
            self._go(schedule, now, blocking=True)
            self._finish_ns = self.steps.stream_free_ns
            first = last

    def _ddp_step(self, latest: list[int]) -> None:
        for bucket in self._buckets:
            now = max(latest[bucket.units[-1]], self._finish_ns)
            self._go((bucket.response,), now, blocking=False)
            self._finish_ns = now + self.problem.data.cost(
                bucket.response.nbytes, len(bucket.response.names)
            ).launch_ns

    def _go(self, schedule: tuple[Response, ...], now: int, blocking: bool) -> None:
        cycle = self.steps.writer.next_cycle
        self.steps.writer.cycle(CycleRow(
            self.steps.step, Kind.FAST, now, now, 0, now, now, self._finish_ns, self._finish_ns, 0,
            responses=len(schedule), schedule_hash=schedule_hash([each.names for each in schedule]),
        ))  # fmt: skip
        self.steps.run(schedule, cycle, now, now, blocking)


class LonelyRun:
    """One rank: a step ends with its last gradient (SEMANTICS 2.4)."""

    def __init__(self, problem: Problem, progress: Progress | None = None) -> None:
        self.steps = _Steps(problem, progress)

    def run(self) -> Trace:
        """The whole trace."""
        while not self.steps.over:
            self.steps.finish(self.steps.start_ns + int(self.steps.ready.latest[-1]))
        return self.steps.writer.finish()


def run(problem: Problem, progress: Progress | None = None) -> Trace:
    """Simulate with arrays."""
    if problem.ranks == 1:
        return LonelyRun(problem, progress).run()
    if problem.plane.name in _PLANES:
        return NegotiatedRun(problem, progress).run()
    return UnnegotiatedRun(problem, progress).run()
