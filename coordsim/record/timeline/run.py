"""A Horovod timeline as a run: its trace by the rules of docs/semantics.md 8, and what it cannot tell.

1. A step ends with its last operation (C = E), and the next one starts there: what a rank computes is not in the file.
2. R is where rank 0 enters the cycle in which the last tensor was agreed; without cycle marks, where that cycle's first
   operation is launched. Nobody submits later than that, but for ranks that enter the cycle after rank 0.
3. A rank is last when its last request was counted in a later cycle than everybody else's. That takes the slow path:
   a hit of the cache is counted for nobody.
4. From R to the launch it is control exchange, work included. An operation begins when it is launched, or when the one
   before it ends; what it waits for (data, a stream) is part of its collective.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from coordsim.errors import InputError
from coordsim.record.imported import Gradient, Imported, workload_csv
from coordsim.record.timeline import grouping as g
from coordsim.record.timeline.grouped import DTYPE_BYTES, Grouped, read_grouped
from coordsim.record.trace import CYCLE_COLUMNS, RESPONSE_COLUMNS, STEP_COLUMNS, Int64, Kind, Trace

FORMAT = "horovod"
_NS = 1000
_ALLREDUCE = "ALLREDUCE"

_MISSING = {
    "input_stall": "a timeline has no marks of steps: its time is part of backward",
    "forward": "a timeline has no marks of forward: its time is part of backward",
    "optimizer": "a timeline does not say when the optimizer ends: its time is part of the next step's backward",
    "cycle_wait": "a timeline does not say when a tensor was submitted, only in which cycle it was counted: the wait "
    "for that cycle is part of backward",
    "control_work": "rank 0's own work is not told apart from the exchange: its time is part of control exchange, and "
    "between two collectives of a cycle part of the later one",
}
_NO_STRAGGLER = (
    "hits of the cache are counted for no rank, so nobody can be told to be last: its time is part of backward"
)
_NO_MARKS = (
    "the cycles are not marked (HOROVOD_TIMELINE_MARK_CYCLES=1 marks them): its time is part of backward"
)


def import_timeline(path: Path) -> Imported:
    """The run that the timeline ``path`` holds. Raises InputError for a file that is none, or holds no whole step."""
    return imported(read_grouped(path))


def imported(found: Grouped) -> Imported:
    """As :func:`import_timeline`, of a timeline that was read before."""
    if not len(found.steps):
        why = found.incomplete or "nothing is negotiated in it"
        raise InputError.one(str(found.path), "", None, f"holds no whole step: {why}")
    known, told = _told(found)
    missing = dict(_MISSING)
    if not told:
        missing["straggler_wait"] = _NO_STRAGGLER
    if not found.marked:
        missing["control_exchange"] = _NO_MARKS
    trace = _Builder(found, known, told).trace(frozenset(missing))
    unknown = _unknown(found, known)
    summary = _summary(found, trace, known)
    facts = {
        "source": "real run", "ranks": found.ranks, "first_step": 0, "missing": missing, "unknown": unknown,
        "ended_early": [0] if found.lost else [],
        "imported": {"format": FORMAT, "files": [found.path.name], **summary},
    }  # fmt: skip
    return Imported(
        FORMAT, [found.path.name], summary, {**missing, **unknown}, trace, facts, workload_csv=_workload(found)
    )


def _told(found: Grouped) -> tuple[Any, bool]:
    """Steps (shape [step], bool) of which every rank's last request was counted; and whether all that count are."""
    ranks = found.ranks or -1
    steps = found.steps
    known = (
        (steps[:, g.S_RANKS] == ranks)
        & (steps[:, g.S_TICKS_LEAST] == ranks)
        & (steps[:, g.S_TICKS_MOST] == ranks)
        & (steps[:, g.S_LAST_ROW] == steps[:, g.S_ROW])
    )
    counted = known[1:] if known.size > 1 else known
    return known, bool(counted.all())


class _Builder:
    """Tables of a trace, ns since the first cycle of the first step."""

    def __init__(self, found: Grouped, known: Any, told: bool) -> None:
        self._found = found
        self._known, self._told = known, told
        cycles, messages = found.cycles, found.messages
        self._enter_us = cycles[:, g.C_ENTER]
        if not found.marked:
            self._enter_us = np.where(cycles[:, g.C_LAUNCH] >= 0, cycles[:, g.C_LAUNCH], cycles[:, g.C_LEAVE])
        steps = found.steps
        first = int(steps[0, g.S_BEGUN])
        self._base_us = min(first, int(self._enter_us[steps[0, g.S_ROW]]))
        inside = (messages[:, g.M_STEP] >= 0) & (messages[:, g.M_STEP] < len(steps)) & (messages[:, g.M_ROW] >= 0)
        kept = messages if inside.all() else messages[inside]
        self._messages = kept[np.argsort(kept[:, g.M_END], kind="stable")] if found.asynchronous else kept

    def _ns(self, us: Int64) -> Int64:
        return np.maximum(us - self._base_us, 0) * _NS

    def trace(self, missing: frozenset[str]) -> Trace:
        """The trace; ``missing``: parts that nobody measured."""
        return Trace(self._cycles(), self._responses(), self._steps(), not self._found.asynchronous, missing)

    def _steps(self) -> dict[str, Int64]:
        steps = self._found.steps
        end = np.maximum.accumulate(self._ns(steps[:, g.S_END]))
        start = np.concatenate([[0], end[:-1]])
        ready = np.clip(self._ns(self._enter_us[steps[:, g.S_ROW]]), start, end)
        median = ready - start
        if self._told:
            rows = np.where(self._known, steps[:, g.S_MEDIAN_ROW], steps[:, g.S_ROW])
            median = np.clip(self._ns(self._enter_us[rows]), start, ready) - start
        last = np.where(self._known, steps[:, g.S_LAST_RANK], -1)
        columns = (np.arange(len(steps)), start, np.zeros_like(start), median, ready, last, end, end)
        return _named(STEP_COLUMNS, columns)

    def _responses(self) -> dict[str, Int64]:
        table, blocking = self._messages, not self._found.asynchronous
        end = np.maximum.accumulate(self._ns(table[:, g.M_END])) if len(table) else np.zeros(0, np.int64)
        before = np.concatenate([[0], end[:-1]]) if len(table) else end
        launch = np.minimum(self._ns(table[:, g.M_LAUNCH]), end)
        row = table[:, g.M_ROW]
        same = np.concatenate([[False], row[1:] == row[:-1]]) if len(table) else np.zeros(0, bool)
        if blocking:
            launch = np.where(same, before, np.maximum(launch, before))
        begin = np.minimum(np.maximum(launch, before), end)
        whole = end - begin
        copied, out = table[:, g.M_COPIED], table[:, g.M_OUT]
        measured_from = np.maximum(self._ns(table[:, g.M_BEGIN]), begin)
        copy_in = np.where(copied >= 0, np.clip(self._ns(copied) - measured_from, 0, whole), 0)
        copy_out = np.where(out >= 0, np.clip(end - self._ns(out), 0, whole - copy_in), 0)
        columns = (
            self._found.cycles[row, g.C_INDEX], _place(row), table[:, g.M_UNITS], table[:, g.M_BYTES], launch, launch,
            begin, copy_in, whole - copy_in - copy_out, copy_out, end,
        )  # fmt: skip
        return _named(RESPONSE_COLUMNS, columns)

    def _cycles(self) -> dict[str, Int64]:
        """Rows are cycles in which something happened; idle ones are left out, as in any real run."""
        inside = (self._found.cycles[:, g.C_STEP] < len(self._found.steps)) & (self._found.cycles[:, g.C_STEP] >= 0)
        table = self._found.cycles[inside]
        enter = self._ns(self._enter_us[inside])
        leave = np.maximum(self._ns(table[:, g.C_LEAVE]), enter)
        zero = np.zeros_like(enter)
        kind = np.where(table[:, g.C_TICKS] > 0, int(Kind.SLOW), int(Kind.FAST))
        columns = (
            table[:, g.C_INDEX], zero + 1, zero, table[:, g.C_STEP], kind, enter, enter, zero - 1, leave, leave, zero,
            zero, zero, table[:, g.C_TICKS], zero, table[:, g.C_HITS], table[:, g.C_MESSAGES], zero,
        )  # fmt: skip
        return _named(CYCLE_COLUMNS, columns)


def _named(names: tuple[str, ...], columns: tuple[Any, ...]) -> dict[str, Int64]:
    return {name: np.ascontiguousarray(column, np.int64) for name, column in zip(names, columns, strict=True)}


def _place(row: Int64) -> Int64:
    """Position of each message among those of its cycle; shape [message]."""
    order = np.argsort(row, kind="stable")
    ordered = row[order]
    first = np.searchsorted(ordered, ordered, side="left")
    place = np.empty_like(row)
    place[order] = np.arange(row.size) - first
    return place


def _unknown(found: Grouped, known: Any) -> dict[str, str]:
    unknown = {"coordinator_bytes_per_step": "a timeline counts requests, not the bytes of their lists"}
    if found.ranks is None:
        unknown["ranks"] = "no request of any rank is counted in the file"
    tied = known & (found.steps[:, g.S_LAST_RANK] < 0)
    if not known.all():
        many = f"{int((~known).sum()):,} of {len(found.steps):,} steps"
        unknown["last"] = f"not told in {many}: the cache agreed on some of their tensors"
    elif tied.any():
        many = f"{int(tied.sum()):,} of {len(found.steps):,} steps"
        unknown["last"] = f"not told in {many}: several ranks were counted in the last cycle"
    if found.incomplete:
        unknown["end"] = f"left out: {found.incomplete}"
    if found.lost:
        unknown["cut"] = f"the file is cut off: {found.lost}"
    if found.untold_types:
        unknown["bytes"] = "some tensors have a type of unknown size; they count 0 bytes"
    return unknown


def _summary(found: Grouped, trace: Trace, known: Any) -> dict[str, Any]:
    waits = np.sort(found.steps[:, g.S_AGREED] - found.steps[:, g.S_ASKED]) / 1e6
    of_sets = np.bincount(np.maximum(found.steps[:, g.S_SET], 0), minlength=len(found.sets))
    members = [int(each.size) for each in found.sets]
    told = sorted(zip(of_sets.tolist(), members, strict=False), reverse=True)[:5]
    return {
        "events": found.events,
        "ranks": found.ranks,
        "steps": len(found.steps),
        "tensors": len(set(found.names)),
        "step_sets": [{"steps": steps, "tensors": tensors} for steps, tensors in told if steps],
        "messages": int(trace.responses["cycle"].size),
        "cycles_marked": found.turns if found.marked else None,
        "cycles_idle": found.turns - len(found.cycles) if found.marked else None,
        "loop_blocks": not found.asynchronous,
        "libraries": list(found.libraries),
        "steps_with_last_rank": int((known & (found.steps[:, g.S_LAST_RANK] >= 0)).sum()),
        "last_tensor_negotiated_s": {
            "median": float(waits[(waits.size - 1) // 2]), "p95": float(waits[int((waits.size - 1) * 0.95)]),
            "max": float(waits[-1]),
        },
        "started_unix_us": found.start_epoch_us,
    }  # fmt: skip


def _workload(found: Grouped) -> str | None:
    """The gradients of the steps that come most often in all (steps times tensors)."""
    of_sets = np.bincount(np.maximum(found.steps[:, g.S_SET], 0), minlength=len(found.sets))[: len(found.sets)]
    gradients: list[Gradient] = []
    executed = [int(steps) * each.size for steps, each in zip(of_sets, found.sets, strict=True)]
    for tensor in found.sets[int(np.argmax(executed))].tolist():
        row = found.tensors[tensor]
        operation, dtype = int(row[g.OPERATION]), int(row[g.DTYPE])
        if operation < 0 or found.dtypes[operation] != _ALLREDUCE or dtype < 0 or row[g.NUMEL] <= 0:
            continue
        size = DTYPE_BYTES.get(found.dtypes[dtype], 0)
        if size:
            numel = int(row[g.NUMEL])
            gradients.append(Gradient(found.names[tensor], numel, found.dtypes[dtype], numel * size))
    return workload_csv(gradients) if gradients else None


def import_timelines(paths: list[Path]) -> Imported:
    """The run of one job whose timelines are ``paths``: rank 0's, and perhaps views of others.

    Rank 0's is the one in which requests are counted. The others must show the same operations in the same order; what
    they add is how long operations took there. Raises InputError for files of different runs.
    """
    if len(paths) == 1:
        return import_timeline(paths[0])
    views = [read_grouped(path) for path in paths]
    counting = [each for each in views if each.ranks is not None]
    if len(counting) > 1:
        names = f"{counting[0].path.name} and {counting[1].path.name}"
        message = f"{names} both count requests, as only rank 0's timeline does: of two runs? Import one at a time"
        raise InputError.one(str(paths[0].parent), "", names, message)
    first = counting[0] if counting else views[0]
    for other in views:
        _same_run(first, other)
    if first.ranks is not None and len(views) > first.ranks:
        message = f"{len(views)} timelines of a job of {first.ranks} ranks"
        raise InputError.one(str(paths[0].parent), "", len(views), message)
    found = imported(first)
    found.files = [path.name for path in paths]
    found.summary["collective_s_by_file"] = {each.path.name: _median_collective_s(each) for each in views}
    found.facts["imported"] |= {"files": found.files, "collective_s_by_file": found.summary["collective_s_by_file"]}
    found.unknown["clocks"] = (
        f"the trace is {first.path.name} alone: clocks of different files are not aligned, so moments are not compared"
    )
    found.facts["unknown"]["clocks"] = found.unknown["clocks"]
    return found


def _same_run(first: Grouped, other: Grouped) -> None:
    """Equal tensors, and equal members in the steps that both have."""
    common = min(len(first.steps), len(other.steps))
    same = set(first.names) == set(other.names) and np.array_equal(
        first.steps[:common, g.S_TENSORS], other.steps[:common, g.S_TENSORS]
    )
    if not common or not same:
        message = f"not of the run of {first.path.name}: other tensors, or other steps"
        raise InputError.one(str(other.path), "", other.path.name, message)


def _median_collective_s(found: Grouped) -> float | None:
    """Median time from launch to end of a message."""
    if not len(found.messages):
        return None
    return float(np.median(found.messages[:, g.M_END] - found.messages[:, g.M_LAUNCH])) / 1e6
