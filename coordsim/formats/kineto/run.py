"""Ranks' profiler traces as one run: its trace by the rules of docs/semantics.md 8, and what they cannot tell.

1. A step is ``ProfilerStep#N``: E is its last end among the ranks. S is where the last rank has its batch, told by the
   ``DataLoader`` event at the step's beginning, else E of the step before.
2. Forward ends where ``DistributedDataParallel.forward`` does, else where backward's first node begins. R is when the
   last rank asks for the step's last collective.
3. Collectives are matched by their place in the step. Each moment is the last rank's; one begins when it was asked for
   or the one before it ends, as on one stream, and what it waits for is part of it.

Ranks of one host share a clock. Those of several hosts do not: then the lowest rank alone is the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coordsim.errors import InputError
from coordsim.formats.imported import Imported
from coordsim.formats.kineto.reader import MOST_KEPT, RankTrace, Transfer, read_trace
from coordsim.formats.kineto.steps import RankStep, steps_of
from coordsim.formats.kineto.workload import gradients_csv
from coordsim.record.trace import CycleRow, Kind, Trace, TraceWriter

FORMAT = "kineto"
_DDP = "nothing is negotiated under DDP, and what another control plane did is in no profiler trace"
_MISSING = {
    "cycle_wait": _DDP,
    "control_exchange": _DDP,
    "control_work": _DDP,
    "fusion_copy": "copies into buckets are part of backward, copies out of them of the optimizer",
}
_NO_LOADER = "no DataLoader event is in the steps: its time is part of forward"
_CONTROL = (
    "cycles_per_step", "slow_cycles_per_step", "requests_per_step", "coordinator_bytes_per_step"
)  # fmt: skip


def import_traces(paths: list[Path]) -> Imported:
    """The run whose ranks wrote ``paths``. Raises InputError for files that are none, or of different runs."""
    ranks: list[RankTrace] = []
    room = MOST_KEPT
    for path in paths:
        ranks.append(read_trace(path, room))
        room = ranks[-1].room
    _one_run(ranks)
    ranks.sort(key=lambda each: each.rank or 0)
    return imported(ranks)


def imported(ranks: Sequence[RankTrace]) -> Imported:
    """As :func:`import_traces`, of traces of one run that were read before, by rank."""
    numbers = _common_steps(ranks)
    merge = _Merge(ranks, numbers)
    trace = merge.trace()
    first = ranks[0]
    present = [each.rank for each in ranks if each.rank is not None]
    world = first.world_size
    absent = sorted(set(range(world)) - set(present)) if world is not None and len(present) == len(ranks) else []
    unknown = merge.unknown | dict.fromkeys(_CONTROL, _DDP)
    if world is None:
        unknown["ranks"] = "distributedInfo is missing: the job was not distributed, or the profiler is old"
    lost = [each for each in ranks if each.lost]
    if lost:
        unknown["cut"] = f"{lost[0].path.name} is cut off: {lost[0].lost}"
    summary = _summary(ranks, numbers, merge)
    files = [each.path.name for each in ranks]
    facts = {
        "source": "real run", "ranks": world, "first_step": numbers.start, "missing": merge.missing,
        "unknown": unknown, "ranks_absent": absent, "ranks_with_details": None,
        "ended_early": [each.rank for each in lost if each.rank is not None],
        "imported": {"format": FORMAT, "files": files, **summary},
    }  # fmt: skip
    workload = gradients_csv(ranks[0], numbers)
    return Imported(FORMAT, files, summary, {**merge.missing, **unknown}, trace, facts, workload_csv=workload)


def _one_run(ranks: Sequence[RankTrace]) -> None:
    """Raise where files contradict each other."""
    first = ranks[0]
    seen: dict[int | None, Path] = {}
    for each in ranks:
        for key in ("world_size", "backend", "groups"):
            mine, theirs = getattr(each, key), getattr(first, key)
            if mine != theirs:
                message = f"of another run: {mine!r}, where {first.path.name} has {theirs!r}"
                raise InputError.one(str(each.path), f"distributedInfo.{key}", mine, message)
        if len(ranks) > 1 and each.rank is None:
            raise InputError.one(str(each.path), "distributedInfo.rank", None, "does not say its rank, beside others")
        if each.rank in seen:
            message = f"rank {each.rank} has two traces, here and in {seen[each.rank].name}; of two runs?"
            raise InputError.one(str(each.path), "distributedInfo.rank", each.rank, message)
        if each.rank is not None and each.world_size is not None and each.rank >= each.world_size:
            message = f"rank {each.rank} of a job of {each.world_size}"
            raise InputError.one(str(each.path), "distributedInfo.rank", each.rank, message)
        seen[each.rank] = each.path


def _common_steps(ranks: Sequence[RankTrace]) -> range:
    """The longest run of steps that every rank has."""
    common = set.intersection(*(set(each.steps) for each in ranks))
    best, start = range(0), None
    for number in sorted(common):
        if start is None or number - 1 not in common:
            start = number
        if number + 1 - start > len(best):
            best = range(start, number + 1)
    if not best:
        empty = next((each for each in ranks if not each.steps), None)
        where, why = (empty, "has no step: call the profiler's step() in every iteration") if empty else (
            ranks[0], "no step is in all files: of different runs, or recorded at different times"
        )  # fmt: skip
        raise InputError.one(str(where.path), "ProfilerStep", None, why)
    return best


class _Merge:
    def __init__(self, ranks: Sequence[RankTrace], numbers: range) -> None:
        self.missing: dict[str, str] = dict(_MISSING)
        self.unknown: dict[str, str] = {}
        hosts = {each.host for each in ranks}
        self.one_clock = len(ranks) == 1 or (len(hosts) == 1 and None not in hosts)
        if not self.one_clock:
            self.unknown["clocks"] = (
                f"the ranks' hosts have clocks of their own, which are not aligned: moments are those of rank "
                f"{ranks[0].rank} alone, and nobody can be told to be last"
            )
            ranks = ranks[:1]
        world = ranks[0].world_size
        self.complete = self.one_clock and (world is None or world == len(ranks))
        if not self.complete:
            self.missing["straggler_wait"] = "needs all ranks on one clock: its time is part of backward"
            self.unknown["last"] = "nobody can be told to be last without all ranks on one clock"
        if any(each.on_gpu for each in ranks):
            self.unknown["gpu"] = (
                "steps are those of the CPU, which runs ahead of the GPU; a kernel counts in the step it begins in"
            )
        self._numbers = numbers
        self._ranks = [each.rank or 0 for each in ranks]
        self.steps = [steps_of(each, numbers) for each in ranks]
        if not all(step.loaded_ns is not None for steps in self.steps for step in steps):
            self.missing["input_stall"] = _NO_LOADER
        if not all(step.forward_ns is not None for steps in self.steps for step in steps):
            self.missing["forward"] = "nothing of backward is recorded: its time is part of backward"
        self._base = min(steps[0].begin_ns for steps in self.steps)
        self.nbytes_untold = False

    def trace(self) -> Trace:
        """All steps on one time axis; 0 is where the first rank begins the first step."""
        writer, end = TraceWriter(), 0
        for index in range(len(self._numbers)):
            end = self._step(writer, index, [steps[index] for steps in self.steps], end)
        if self.nbytes_untold:
            why = "record_shapes=True, or NCCL's own figures, would tell sizes"
            self.unknown |= dict.fromkeys(("bytes_per_step", "bytes_min", "bytes_median", "bytes_max"), why)
        return writer.finish(blocking=False, missing=frozenset(self.missing))

    def _step(self, writer: TraceWriter, index: int, found: list[RankStep], before: int) -> int:
        base, start = self._base, before
        if "input_stall" not in self.missing:
            start = max(before, *(step.loaded_ns - base for step in found if step.loaded_ns is not None))
        asked = [max([*step.asked_ns, step.begin_ns]) - base for step in found]
        ready_last = max(*asked, start)
        collective = self._responses(writer, index, found, before)
        collective = max(collective, ready_last)
        end = max([step.end_ns - base for step in found] + [collective])
        median = (len(found) - 1) // 2
        ready = min(max(sorted(asked)[median], start), ready_last) - start if self.complete else ready_last - start
        forward = 0
        if "forward" not in self.missing:
            ends = sorted(step.forward_ns - base for step in found if step.forward_ns is not None)
            forward = min(max(ends[median] - start, 0), ready)
        last = self._ranks[asked.index(max(asked))] if self.complete else -1
        writer.step(index, start, forward, ready, ready_last, last, collective, end)
        return end

    def _responses(self, writer: TraceWriter, index: int, found: list[RankStep], before: int) -> int:
        """Write the step's collectives; returns when the last one ends."""
        counts = {len(step.transfers) for step in found}
        if len(counts) > 1:
            self.unknown["collectives"] = "ranks differ in how many collectives a step has; the shortest list counts"
        at, rows = before, []
        for place in range(min(counts)):
            each = [step.transfers[place] for step in found]
            asked = max(step.asked_of(place) for step in found) - self._base
            rows.append((max(transfer.end_ns for transfer in each) - self._base, asked, each))
        for end_ns, asked_ns, each in sorted(rows, key=lambda row: row[0]):
            end = max(end_ns, at)
            launch = min(max(asked_ns, before), end)
            begin = max(launch, at)
            nbytes = _size_of(each)
            self.nbytes_untold |= nbytes is None
            writer.cycle(CycleRow(
                index, int(Kind.FAST), launch, launch, -1, launch, launch, 0, 0, 0, responses=1,
            ))  # fmt: skip
            writer.response(
                writer.next_cycle - 1, 0, 1, nbytes or 0, launch, launch, begin, 0, end - begin, 0, end
            )
            at = end
        return at


def _size_of(each: Sequence[Transfer]) -> int | None:
    sizes = {transfer.nbytes for transfer in each}
    return next(iter(sizes)) if len(sizes) == 1 else None


def _summary(ranks: Sequence[RankTrace], numbers: range, merge: _Merge) -> dict[str, Any]:
    per_rank = []
    for each in ranks:
        steps = steps_of(each, numbers)
        moving = [transfer.end_ns - transfer.begin_ns for step in steps for transfer in step.transfers]
        per_rank.append({
            "rank": each.rank, "step_s": float(np.median([step.end_ns - step.begin_ns for step in steps])) / 1e9,
            "collective_s": float(np.median(moving)) / 1e9 if moving else None,
        })  # fmt: skip
    steps = steps_of(ranks[0], numbers)
    return {
        "events": sum(each.events for each in ranks),
        "ranks": ranks[0].world_size,
        "ranks_with_a_trace": len(ranks),
        "backend": ranks[0].backend,
        "groups": ranks[0].groups,
        "hosts": len({each.host for each in ranks if each.host}) or None,
        "one_clock": merge.one_clock,
        "first_step": numbers.start,
        "steps": len(numbers),
        "collectives_per_step": len(steps[-1].transfers),
        "collective_bytes": [transfer.nbytes for transfer in steps[-1].transfers],
        "watched_on": "GPU" if ranks[0].on_gpu else "CPU",
        "by_rank": per_rank,
    }  # fmt: skip
