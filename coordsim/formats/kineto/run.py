"""Ranks' recordings as one run: its trace by the rules of docs/semantics.md 8.

1. A step is what the profiler marked, or else what an optimizer or ``zero_grad`` ends; it is the CPU's. E is its last
end among the ranks. Where steps in between were not recorded, steps are placed end to end.

2. R is when the last rank requests the last collective of backward. Forward and backward are sums over the step's
passes, each of the median rank. Time outside of them before R is input, if the begins of forward or the DataLoader are
recorded. The rest until R is time for which the median rank waits for slower ones.

3. Collectives are those of the lowest rank, matched with the others' by :mod:`coordsim.formats.kineto.matching`. Each
time is the last rank's. On the CPU a collective begins when it was requested or when the one before it ends, as on one
stream. A device runs behind the CPU, so the CPU's steps cannot show which part of a collective is exposed.

Ranks of one host share a clock. Those of several hosts do not, and then the lowest rank alone is the run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coordsim.errors import InputError
from coordsim.formats.imported import Imported
from coordsim.formats.kineto.causality import Call
from coordsim.formats.kineto.files import read_ranks
from coordsim.formats.kineto.matching import arrivals, keyed
from coordsim.formats.kineto.steps import NONE, OPTIMIZER, ZERO_GRAD, RankRecord, RankStep
from coordsim.formats.kineto.summary import FORMAT, Sizes, summary_of, without_steps
from coordsim.formats.kineto.workload import gradients_csv
from coordsim.record.run_facts import RunFacts, RunKind, WaitedFor
from coordsim.record.trace import CycleRow, Kind, Trace, TraceWriter

_DDP = "nothing is negotiated under DDP and FSDP, and what another control plane did is in no profiler trace"
_MISSING = {
    "cycle_wait": _DDP,
    "control_exchange": _DDP,
    "control_work": _DDP,
    "fusion_copy": "copies into buckets are part of backward, copies out of them of the optimizer",
}
_NO_LOADER = "neither where forward begins nor a DataLoader event is recorded: its time is part of forward"
_NO_BACKWARD = "no backward pass and no collective is recorded in these steps, so they have no parts that are known"
_DEVICE = "a device runs behind the CPU, whose steps these are: its time is part of the optimizer's where it is exposed"
_UNTIMED = "nothing says when collectives began and ended: their time is part of the optimizer's"
_OF_STEPS = ("input_stall", "forward", "backward", "straggler_wait", "exposed_collective", "optimizer")
_CONTROL = (
    "cycles_per_step", "slow_cycles_per_step", "requests_per_step", "coordinator_bytes_per_step"
)  # fmt: skip
_SOURCES = {
    OPTIMIZER: "no ProfilerStep is recorded: a step ends with Optimizer.step, and the first begins with the recording",
    ZERO_GRAD: "no ProfilerStep and no Optimizer.step is recorded: a step is from one Optimizer.zero_grad to the next",
}


def import_traces(paths: list[Path]) -> Imported:
    """Return the run whose ranks wrote ``paths``. Raises InputError for files that are no traces, or of different
    runs."""
    return imported(read_ranks(paths))


def imported(ranks: Sequence[RankRecord]) -> Imported:
    """Return as :func:`import_traces`, from one run's records that have been read, by rank."""
    files = [name for record in ranks for name in record.files]
    if ranks[0].source == NONE:
        figures, unknown = without_steps(ranks)
        workload = gradients_csv(ranks[0].gradients)
        return Imported(FORMAT, files, figures, unknown | _told_once(ranks), workload_csv=workload)
    steps = _common_steps(ranks)
    merge = _Merge(ranks, steps)
    trace = merge.trace()
    came = arrivals(ranks, steps, merge.one_clock)
    first = ranks[0]
    world = first.world_size
    present = {record.rank for record in ranks}
    absent = sorted(set(range(world)) - present) if world is not None and None not in present else []
    unknown = merge.unknown | dict.fromkeys(_CONTROL, _DDP) | _told_once(ranks)
    if first.source in _SOURCES:
        unknown["steps"] = _SOURCES[first.source]
    if world is None:
        unknown["ranks"] = "distributedInfo is missing: the job was not distributed, or the profiler is old"
    figures, more = summary_of(ranks, steps, trace, merge.sizes, came, merge.one_clock)
    unknown |= more
    late = came.late if came else None
    gathers = any(call.operation == "all_gather" for step in steps[0] for call in step.calls)
    if gathers:
        unknown["gathers"] = (
            "gathers tie ranks together inside forward and backward, before gradients are ready: what a rank waits for "
            "another there is part of them"
        )
    facts = RunFacts(
        kind=RunKind.IMPORTED, ranks=world, first_step=steps[0][0].number, first_step_is_cold=False,
        missing=merge.missing, unknown=unknown, ranks_absent=tuple(absent),
        ended_early=tuple(record.rank for record in ranks if record.lost and record.rank is not None),
        waited_for=(WaitedFor(late.rank, late.steps, late.wait_ns),) if late and gathers else None,
        imported={"format": FORMAT, "files": files, **figures},
    )  # fmt: skip
    workload = gradients_csv(first.gradients)
    return Imported(FORMAT, files, figures, {**merge.missing, **unknown}, trace, facts, workload_csv=workload)


def _told_once(ranks: Sequence[RankRecord]) -> dict[str, str]:
    """Return what the records' readers noted, without repetition."""
    notes = {key: why for record in ranks for key, why in record.notes.items()}
    lost = [record for record in ranks if record.lost]
    if lost:
        notes["cut"] = f"{lost[0].files[-1]} is cut off: {lost[0].lost}"
    return notes


def _common_steps(ranks: Sequence[RankRecord]) -> list[list[RankStep]]:
    """Return each rank's steps that all ranks have, in order. A number that comes again is another step's."""
    keyed_steps = []
    for record in ranks:
        seen: Counter[int] = Counter()
        of_rank: dict[tuple[int, int], RankStep] = {}
        for step in record.steps:
            of_rank[step.number, seen[step.number]] = step
            seen[step.number] += 1
        keyed_steps.append(of_rank)
    common = set.intersection(*(set(of_rank) for of_rank in keyed_steps))
    if not common:
        message = "no step is in all files: of different runs, or recorded at different times"
        raise InputError.one(ranks[0].files[0], "ProfilerStep", None, message)
    order = [key for key in keyed_steps[0] if key in common]
    return [[of_rank[key] for key in order] for of_rank in keyed_steps]


def _world_of(record: RankRecord) -> int | None:
    """Return how many ranks the job has, by the file or its largest group; None if neither states it."""
    if record.world_size is not None:
        return record.world_size
    return max((call.group_size for step in record.steps for call in step.calls if call.group_size), default=None)


@dataclass(frozen=True)
class _Times:
    """Times of one step on the run's axis, of each rank that counts."""

    ends: list[int]
    ready: list[int]


class _Merge:
    def __init__(self, ranks: Sequence[RankRecord], steps: Sequence[Sequence[RankStep]]) -> None:
        self.missing: dict[str, str] = dict(_MISSING)
        self.unknown: dict[str, str] = {}
        hosts = {record.host for record in ranks}
        self.one_clock = len(ranks) == 1 or (len(hosts) == 1 and None not in hosts)
        if not self.one_clock:
            why = (
                "the files do not say their hosts, whose clocks may differ" if None in hosts
                else "the ranks' hosts have clocks of their own, which are not aligned"
            )  # fmt: skip
            self.unknown["clocks"] = (
                f"{why}: moments are those of rank {ranks[0].rank} alone, and nobody can be told to be last"
            )
            ranks, steps = ranks[:1], steps[:1]
        world = _world_of(ranks[0])
        self.complete = self.one_clock and world == len(ranks)
        if not self.complete:
            needs = "all ranks on one clock" if world is not None else "to know how many ranks there are"
            self.missing["straggler_wait"] = f"needs {needs}: its time is part of backward"
            self.unknown["last"] = (
                "nobody can be told to be last without all ranks on one clock" if world is not None
                else "nobody can be told to be last: how many ranks the job has is not recorded"
            )  # fmt: skip
        self._ranks = [record.rank or 0 for record in ranks]
        self.steps = steps
        every = [step for of_rank in steps for step in of_rank]
        calls = [call for step in every for call in step.calls]
        if any(call.on_device for call in calls):
            self.unknown["gpu"] = (
                "steps are those of the CPU, which runs ahead of the GPU; a kernel counts in the step that launched it"
            )
        self.timed = all(call.begin_ns is not None and not call.on_device for call in calls)
        if not self.timed:
            self.missing["exposed_collective"] = _DEVICE if any(call.on_device for call in calls) else _UNTIMED
        self._passes_known = all(step.forward_ns is not None and step.backward_ns is not None for step in every)
        self._begins_known = self._passes_known and all(step.begins_known for step in every)
        self._loading_known = all(step.loading_ns is not None for step in every)
        self.sizes = Sizes()
        if not self._passes_known:
            self.missing["forward"] = "not every step has a backward pass recorded: its time is part of backward"
        if not self._begins_known and not self._loading_known:
            self.missing["input_stall"] = _NO_LOADER
        if not calls and not any(step.passes for step in every):
            self.missing |= dict.fromkeys(_OF_STEPS, _NO_BACKWARD)
        self._shift = min(of_rank[0].begin_ns for of_rank in steps)

    def trace(self) -> Trace:
        """Return all steps on one time axis, where 0 is when the first rank begins the first step."""
        writer, end = TraceWriter(), 0
        gaps = []
        for index in range(len(self.steps[0])):
            steps = [of_rank[index] for of_rank in self.steps]
            if index and steps[0].number != self.steps[0][index - 1].number + 1:
                self._shift = min(step.begin_ns for step in steps) - end
                gaps.append(steps[0].number)
            end = self._step(writer, index, steps, end)
        if gaps:
            again = ", where numbers begin again" if min(gaps) <= self.steps[0][0].number else ""
            self.unknown["gaps"] = (
                f"between the steps recorded by all there are gaps, before {', '.join(map(str, gaps[:4]))}"
                f"{' and more' if len(gaps) > 4 else ''}{again}: the recorded ones are laid end to end"
            )
        return writer.finish(blocking=False, missing=frozenset(self.missing))

    def _step(self, writer: TraceWriter, index: int, steps: list[RankStep], before: int) -> int:
        times = _Times(
            [step.end_ns - self._shift for step in steps], [max(step.ready_ns - self._shift, before) for step in steps]
        )
        ready_last = max(times.ready)
        collective = self._responses(writer, index, steps, before)
        collective = max(collective, ready_last) if self.timed else ready_last
        end = max([*times.ends, collective])
        median = (len(steps) - 1) // 2
        start = before + min(self._input(steps, times, before, median), ready_last - before)
        ready = min(max(sorted(times.ready)[median], start), ready_last) if self.complete else ready_last
        forward = 0
        if self._passes_known:
            forward = min(sorted(step.forward_ns or 0 for step in steps)[median], ready - start)
            if self._begins_known and self.complete and len(steps) > 1:
                # each rank's own work: where gathers tie ranks together, all come late when one of them does
                backward = sorted(step.backward_ns or 0 for step in steps)[median]
                ready = min(start + forward + backward, ready)
        last = self._ranks[times.ready.index(ready_last)] if self.complete else -1
        writer.step(index, start, forward, ready - start, ready_last, last, collective, end)
        return end

    def _input(self, steps: list[RankStep], times: _Times, before: int, median: int) -> int:
        """Return the time outside of forward and backward before R; if the begin of forward is not known, the loading
        time."""
        if self._begins_known:
            outside = [
                max(ready - before - (step.forward_ns or 0) - (step.backward_ns or 0), 0)
                for step, ready in zip(steps, times.ready, strict=True)
            ]
        else:
            outside = [step.loading_ns or 0 if self._loading_known else 0 for step in steps]
        return sorted(outside)[median]

    def _responses(self, writer: TraceWriter, index: int, steps: list[RankStep], before: int) -> int:
        """Write the step's collectives; return when the last one ends."""
        others = [keyed(step.calls) for step in steps[1:]]
        if any(len(step.calls) != len(steps[0].calls) for step in steps):
            self.unknown["collectives"] = (
                f"ranks differ in how many collectives a step has: the figures are those of rank {self._ranks[0]}"
            )
        keys = {id(call): key for key, call in keyed(steps[0].calls).items()}
        rows = []
        for call in steps[0].calls:
            key = keys.get(id(call))
            same = [call] + [of_rank[key] for of_rank in others if key in of_rank]
            rows.append((self._moments(same, steps[0], before), self.sizes.take(same)))
        at = before
        for (asked, begin, end), nbytes in sorted(rows, key=lambda row: (row[0][2], row[0][0])):
            if self.timed:
                end = max(end, at)
                asked = min(asked, end)
                begin = max(asked, at)
                at = end
            writer.cycle(CycleRow(
                index, int(Kind.FAST), asked, asked, -1, asked, asked, 0, 0, 0, responses=1,
            ))  # fmt: skip
            writer.response(
                writer.next_cycle - 1, 0, 1, nbytes or 0, asked, asked, begin, 0, end - begin, 0, end
            )
        return at

    def _moments(self, same: Sequence[Call], step: RankStep, before: int) -> tuple[int, int, int]:
        """Return when the last rank requested a collective, when it began there and when it ended.

        Without times it ends where it was requested.
        """
        asked = max(max(call.asked_ns for call in same) - self._shift, before)
        begins = [call.begin_ns for call in same if call.begin_ns is not None]
        ends = [
            call.end_ns if call.on_device else min(call.end_ns, max(step.end_ns, call.asked_ns))
            for call in same
            if call.end_ns is not None
        ]  # on a CPU a step ends after its collectives; a thread that notes the end of one late is not the collective
        if not begins or not ends:
            return asked, asked, asked
        begin = max(max(begins) - self._shift, asked if self.timed else before)
        return min(asked, begin), begin, max(max(ends) - self._shift, begin)
