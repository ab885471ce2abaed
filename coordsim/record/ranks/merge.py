"""Several ranks' records as one trace, on rank 0's clock, by the rules that a simulated trace keeps.

1. Clocks: each rank's times are moved by its best estimate of how far rank 0's clock is ahead.
2. Steps are those of one stated rank, the median one (:mod:`coordsim.record.ranks.split`): S is where its forward
   began, E its end of the step; R is the last submission of all ranks; C the stated rank's end of the last collective.
   The parts of a step (``Trace.own``) are that rank's own durations and waits.
3. Cycles, by index: A is the last entrance among ranks with details, T the last exit. Of the time between, rank 0's own
   protocol code is the work; the shadow is what is left.
4. Responses: a collective begins for everybody when it does for the last rank; it ends when the stated rank has it.
5. Where nobody negotiates there are no cycles: a collective begins with its last gradient, or when the one before ends,
   and everything up to its call is copying. So control is 0 by definition, not by measurement.

What no rank measured is not made up: the parts of a step that would need it are named in ``Trace.missing``, and the
time in them is part of what comes after (input and forward of backward, copies of the collective).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from coordsim.errors import InputError
from coordsim.record.ranks.facts import clock_offset, facts_of, negotiated
from coordsim.record.ranks.folder import read_folder
from coordsim.record.ranks.format import NULL
from coordsim.record.ranks.own import OwnStep, ends_known, last_ready, own_steps, timed_at_all
from coordsim.record.ranks.reader import CycleRecord, RankRecord, ResponseRecord, SpanKind, StepRecord
from coordsim.record.ranks.split import columns, stated
from coordsim.record.run_facts import RunFacts
from coordsim.record.trace import CycleRow, Trace, TraceWriter, wake_hash


@dataclass(frozen=True)
class Merged:
    """A trace of consecutive steps, and what is known about it."""

    trace: Trace
    facts: RunFacts
    base_ns: int = 0
    """The trace's time 0 on rank 0's clock."""
    records: Sequence[RankRecord] = ()
    """Of the ranks that were merged."""
    own: Sequence[Mapping[int, OwnStep]] = ()
    """By rank as ``records``: its steps by number, split into its own work and its waits."""
    steps: range = range(0)
    """Numbers of the trace's steps."""

    @property
    def first_step(self) -> int:
        """Number, in the run, of the trace's first step."""
        return self.steps.start


def merge(folder: Path, steps: range | None = None) -> Merged:
    """The longest run of detailed steps in ``folder`` that begins in ``steps`` (default: anywhere).

    Raises InputError when there is none: no rank has details of a step that all ranks went through.
    """
    return merge_records(read_folder(folder), steps)


def merge_records(records: Sequence[RankRecord], steps: range | None = None) -> Merged:
    """As :func:`merge`, of records that were read before. Ranks that ended no step are left out, and named."""
    useful = [record for record in records if record.steps] or records
    chosen = _consecutive(useful, steps)
    if not chosen:
        where = str(records[0].path.parent)
        raise InputError.one(where, "", None, "no step that every rank ended and that was recorded in detail")
    return _Merge(useful, chosen).merged([record.rank for record in records if record not in useful])


def _consecutive(records: Sequence[RankRecord], within: range | None) -> range:
    """The longest run of steps that all ranks have, and all ranks with details in detail.

    Where hooks told what a rank did, a step without their word is left out: the process ended before they could speak,
    so the end of that step is not known.
    """
    common = set.intersection(*({step.step for step in record.steps if timed_at_all(step)} for record in records))
    for record in records:
        spanned = {step.step for step in record.steps if step.spans}
        common &= spanned or common
        if record.detailed:
            common &= {step.step for step in record.steps if step.detailed}
    best, start = range(0), None
    for number in sorted(common):
        if within is not None and number not in within:
            continue
        if start is None or number - 1 not in common:
            start = number
        if number + 1 - start > len(best):
            best = range(start, number + 1)
    return best


class _Merge:
    def __init__(self, records: Sequence[RankRecord], steps: range) -> None:
        self._records = records
        self._steps = steps
        self._detailed = [record for record in records if record.detailed]
        self._offsets = {record.rank: clock_offset(record) for record in records}
        self._by_step = [{step.step: step for step in record.steps} for record in records]
        self._negotiated = negotiated(records[0])
        self._missing = self._unmarked()
        self._timed = self._negotiated or ends_known(records, steps)
        self._own = [own_steps(record, self._timed) for record in records]
        self._stated = stated(records, self._own, steps)
        self._base = self._begin()
        self._writer = TraceWriter()
        self._collective_end: dict[int, int] = {}
        """By step: when its last response ended."""
        self._ours: dict[tuple[int, int], int] = {}
        """(cycle, place) of a response -> when it ended on the stated rank."""

    @property
    def _stated_rank(self) -> int:
        return self._records[self._stated].rank

    def _begin(self) -> int:
        """On rank 0's clock: the stated rank's end of the step before; without one, the first thing known of any."""
        before = self._own[self._stated].get(self._steps.start - 1)
        if before is not None:
            return before.end_ns + self._offsets[self._stated_rank]
        return min(
            of_rank[self._steps.start].begin_ns + self._offsets[record.rank]
            for record, of_rank in zip(self._records, self._own, strict=True)
        )

    def merged(self, without_steps: Sequence[int]) -> Merged:
        if self._negotiated:
            self._cycles_and_responses(self._by_cycle(), self._by_response())
        else:
            self._collectives(self._by_response())
        end = 0
        for number in self._steps:
            end = self._step(number, end)
        trace = self._writer.finish(blocking=self._negotiated, missing=frozenset(self._missing))
        parts = columns(trace, self._records, self._own, self._steps, self._stated, self._base)
        facts = facts_of(self._records, self._steps, without_steps, self._missing, self._stated_rank)
        whole = replace(trace, own=parts)
        return Merged(whole, facts, self._base, self._records, self._own, self._steps)

    # Steps.

    def _unmarked(self) -> set[str]:
        """Parts whose begin or end some rank did not mark in some step: they are missing from all steps alike."""
        steps = [step for number in self._steps for _, step in self._of_step(number)]
        if all(step.spans for step in steps):
            fed = any(span.kind == SpanKind.INPUT for step in steps for span in step.spans)
            return set() if fed else {"input_stall"}
        if any(step.start_ns == NULL for step in steps):
            return {"input_stall", "forward"}
        return {"forward"} if any(step.forward_end_ns == NULL for step in steps) else set()

    def _of_step(self, number: int) -> list[tuple[int, StepRecord]]:
        """(offset, record) of a step on every rank."""
        pairs = zip(self._records, self._by_step, strict=True)
        return [(self._offsets[record.rank], steps[number]) for record, steps in pairs]

    def _step(self, number: int, previous_end: int) -> int:
        """Write a row of moments; returns E."""
        submitted = [
            last_ready(of_rank[number]) + self._offsets[record.rank] - self._base
            for record, of_rank in zip(self._records, self._own, strict=True)
        ]
        last_rank = self._records[submitted.index(max(submitted))].rank
        own = self._own[self._stated][number]
        mine, moved = own.record, self._offsets[self._stated_rank] - self._base
        end = max(own.end_ns + moved, previous_end)
        collective = min(max(self._collective_end.get(number, max(submitted)), previous_end), end)
        ready_last = min(max(*submitted, previous_end), collective)
        start = previous_end
        if mine.start_ns != NULL and "forward" not in self._missing:
            start = min(max(mine.start_ns + moved, previous_end), ready_last)
        ready = min(max(last_ready(own) + moved, start), ready_last) - start
        forward = 0
        if mine.forward_end_ns != NULL and "forward" not in self._missing:
            forward = min(max(mine.forward_end_ns + moved - start, 0), ready)
        self._writer.step(number - self._steps.start, start, forward, ready, ready_last, last_rank, collective, end)
        return end

    # Cycles and responses.

    def _by_cycle(self) -> dict[int, dict[int, CycleRecord]]:
        """Cycle -> rank -> record, of cycles that all ranks with details have."""
        found: dict[int, dict[int, CycleRecord]] = {}
        for record in self._detailed:
            for cycle in record.cycles:
                found.setdefault(cycle.cycle, {})[record.rank] = cycle
        return found

    def _by_response(self) -> dict[int, dict[int, list[ResponseRecord]]]:
        """Cycle -> index -> its record on each rank that has one."""
        found: dict[int, dict[int, list[ResponseRecord]]] = {}
        for record in self._detailed:
            offset = self._offsets[record.rank]
            for each in record.responses:
                moved = each._replace(
                    launch_ns=each.launch_ns + offset, begin_ns=each.begin_ns + offset,
                    copied_in_ns=_moved(each.copied_in_ns, offset), reduced_ns=_moved(each.reduced_ns, offset),
                    end_ns=_moved(each.end_ns, offset),
                )  # fmt: skip
                found.setdefault(each.cycle, {}).setdefault(each.place, []).append(moved)
                if record.rank == self._stated_rank and moved.end_ns != NULL:
                    self._ours[each.cycle, each.place] = moved.end_ns
        return found

    def _cycles_and_responses(
        self, cycles: dict[int, dict[int, CycleRecord]], responses: dict[int, dict[int, list[ResponseRecord]]]
    ) -> None:
        ranks = [record.rank for record in self._detailed]
        before = _Before()
        leave = 0
        for number in sorted(cycles):
            of_ranks = cycles[number]
            step = max(each.step for each in of_ranks.values())
            if step not in self._steps:
                continue
            entered = {rank: each.entered_ns + self._offsets[rank] - self._base for rank, each in of_ranks.items()}
            enter_last = max(*entered.values(), leave, 0)
            last_rank = min(rank for rank, at in entered.items() if at == max(entered.values()))
            left = max(each.left_ns + self._offsets[rank] - self._base for rank, each in of_ranks.items())
            leave = max(left, enter_last)
            first = of_ranks[min(of_ranks)]
            work = min(first.work_ns, leave - enter_last)
            finish, finish_shadow = before.of(number)
            self._writer.cycle(CycleRow(
                step - self._steps.start, first.kind, min(*entered.values(), enter_last), enter_last, last_rank, leave,
                leave - work, finish, finish_shadow,
                wake_hash(np.array([entered.get(rank, enter_last) - enter_last for rank in ranks], dtype=np.int64)),
                first.requests, first.request_bytes, first.hits_common, first.responses, first.schedule_hash,
            ))  # fmt: skip
            of_cycle = responses.get(number, {})
            leave = self._responses(self._writer.next_cycle - 1, of_cycle, leave, leave - work)
            if of_cycle:
                self._collective_end[step] = leave
            before = _Before(number, leave, leave - work)

    def _collectives(self, responses: dict[int, dict[int, list[ResponseRecord]]]) -> None:
        """Of a run in which nobody negotiates: a response's cycle is its step."""
        of_steps = [responses.get(number, {}) for number in self._steps]
        timed = self._timed
        if not timed and not (len(self._records) == 1 and self._records[0].ranks == 1 and not responses):
            self._missing |= {"straggler_wait", "fusion_copy", "exposed_collective"}
        at = 0
        for number, of_step in zip(self._steps, of_steps, strict=True):
            asked_by = max(
                last_ready(of_rank[number]) + self._offsets[record.rank] - self._base
                for record, of_rank in zip(self._records, self._own, strict=True)
            )
            for index in sorted(of_step):
                each = of_step[index]
                launch = max(min(max(one.launch_ns for one in each) - self._base, asked_by), 0)
                at = self._response(number - self._steps.start, index, each, launch, launch, max(at, launch), timed)
            if timed:
                self._collective_end[number] = at

    def _responses(
        self, cycle: int, of_cycle: dict[int, list[ResponseRecord]], leave: int, shadow: int
    ) -> int:
        """Returns when the last one ends."""
        at = leave
        for index in sorted(of_cycle):
            each = of_cycle[index]
            launch = max(at, max(one.launch_ns for one in each) - self._base)
            begin = max(launch, max(one.begin_ns for one in each) - self._base)
            at = self._response(cycle, index, each, begin, min(shadow, begin), begin)
        return at

    def _response(
        self, cycle: int, index: int, each: list[ResponseRecord], launch: int, shadow: int, begin: int,
        timed: bool = True,
    ) -> int:  # fmt: skip
        """Returns when it ends; at once where nobody knows (not ``timed``)."""
        end = begin
        if timed:
            ours = self._ours.get((each[0].cycle, each[0].place))
            end = self._last(each, "end_ns", begin) if ours is None else max(ours - self._base, begin)
        copied = min(self._last(each, "copied_in_ns", begin), end)
        reduced = min(self._last(each, "reduced_ns", end), end)
        if any(one.copied_in_ns == NULL for one in each):
            self._missing.add("fusion_copy")
            copied, reduced = begin, end
        self._writer.response(
            cycle, index, len(each[0].tensors), each[0].nbytes, launch, shadow, begin,
            copied - begin, reduced - copied, end - reduced, end,
        )  # fmt: skip
        return end

    def _last(self, each: Iterable[ResponseRecord], key: str, unknown: int) -> int:
        found = [int(getattr(one, key)) - self._base for one in each if getattr(one, key) != NULL]
        return max([*found, unknown])


@dataclass(frozen=True, slots=True)
class _Before:
    """The cycle that was written last: its end counts only for the very next one, for idle ones are not written."""

    cycle: int = -2
    finish: int = 0
    shadow: int = 0

    def of(self, cycle: int) -> tuple[int, int]:
        """F and its shadow of the cycle before ``cycle``, or 0: then all the wait since R is a wait for the cycle."""
        return (self.finish, self.shadow) if cycle == self.cycle + 1 else (0, 0)


def _moved(at_ns: int, offset_ns: int) -> int:
    return NULL if at_ns == NULL else at_ns + offset_ns


__all__ = ["Merged", "merge", "merge_records"]
