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
from coordsim.formats.horovod import grouping as g
from coordsim.formats.horovod.grouped import DTYPE_BYTES, Grouped, read_grouped
from coordsim.formats.horovod.scan import Int32
from coordsim.formats.imported import Gradient, Imported, workload_csv
from coordsim.record.trace import CYCLE_COLUMNS, RESPONSE_COLUMNS, STEP_COLUMNS, Columns, Int64, Kind, Trace

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
    builder = _Builder(found, known, told)
    trace = builder.trace(frozenset(missing))
    unknown = _unknown(found, known)
    summary = _summary(found, len(builder.messages), known)
    facts = {
        "source": "real run", "ranks": found.ranks, "first_step": 0, "missing": missing, "unknown": unknown,
        "ended_early": [0] if found.lost or found.stopped else [],
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
        (steps["ranks"] == ranks)
        & (steps["ticks_least"] == ranks)
        & (steps["ticks_most"] == ranks)
        & (steps["last_row"] == steps["row"])
    )
    counted = known[1:] if known.size > 1 else known
    return known, bool(counted.all())


class _Builder:
    """Tables of a trace, ns since the first cycle of the first step; a column is made when it is asked for."""

    def __init__(self, found: Grouped, known: Any, told: bool) -> None:
        self._found = found
        self._known, self._told = known, told
        cycles, messages = found.cycles, found.messages
        self._base_us = min(found.began_us, int(self._enter_us(found.steps["row"][:1])[0]))
        inside = (messages["step"] >= 0) & (messages["step"] < len(found.steps)) & (messages["row"] >= 0)
        kept = messages if inside.all() else messages[inside]
        self.messages = kept[np.argsort(kept["end"], kind="stable")] if found.asynchronous else kept
        inside = (cycles["step"] < len(found.steps)) & (cycles["step"] >= 0)
        self._rows = np.flatnonzero(inside).astype(np.int32)

    def trace(self, missing: frozenset[str]) -> Trace:
        """The trace; ``missing``: parts that nobody measured."""
        cycles = Columns(CYCLE_COLUMNS, self._cycles)
        responses, steps = Columns(RESPONSE_COLUMNS, self._responses), Columns(STEP_COLUMNS, self._steps)
        return Trace(cycles, responses, steps, not self._found.asynchronous, missing)

    def _enter_us(self, rows: Int32) -> Int64:
        """When rank 0 entered the cycles of these rows; without marks, launched their first operation."""
        cycles = self._found.cycles
        if self._found.marked:
            return cycles["enter"][rows]
        launch = cycles["launch"][rows]
        return np.where(launch >= 0, launch, cycles["leave"][rows])

    def _ns(self, us: Int64) -> Int64:
        return np.maximum(us - self._base_us, 0) * _NS

    def _steps(self, name: str) -> Any:
        steps = self._found.steps
        if name == "step":
            return np.arange(len(steps))
        if name == "forward_median_ns":
            return np.zeros(len(steps), np.int64)
        if name == "ready_last_rank":
            return np.where(self._known, steps["last_rank"], -1)
        end = np.maximum.accumulate(self._ns(steps["end"]))
        if name in ("end_collective_ns", "end_ns"):
            return end
        start = np.concatenate([[0], end[:-1]])
        if name == "start_ns":
            return start
        ready = np.clip(self._ns(self._enter_us(steps["row"])), start, end)
        if name == "ready_last_ns":
            return ready
        if not self._told:
            return ready - start
        rows = np.where(self._known, steps["median_row"], steps["row"])
        return np.clip(self._ns(self._enter_us(rows)), start, ready) - start

    def _responses(self, name: str) -> Any:
        table = self.messages
        if name in ("units", "bytes"):
            return table[name]
        row = table["row"]
        if name == "cycle":
            return self._found.cycles["index"][row]
        if name == "index":
            return _place(row)
        end = np.maximum.accumulate(self._ns(table["end"])) if len(table) else np.zeros(0, np.int64)
        if name == "end_ns":
            return end
        before = np.concatenate([[0], end[:-1]]) if len(table) else end
        launch = np.minimum(self._ns(table["launch"]), end)
        if not self._found.asynchronous:  # the loop blocks
            same = np.concatenate([[False], row[1:] == row[:-1]]) if len(table) else np.zeros(0, bool)
            launch = np.where(same, before, np.maximum(launch, before))
        if name in ("launch_ns", "launch_shadow_ns"):
            return launch
        begin = np.minimum(np.maximum(launch, before), end)
        if name == "begin_ns":
            return begin
        del before, launch
        whole = end - begin
        measured_from = np.maximum(self._ns(table["begin"]), begin)
        copied = np.clip(self._ns(table["copied"]) - measured_from, 0, whole)
        copy_in = np.where(table["copied"] >= 0, copied, 0)
        if name == "copy_in_ns":
            return copy_in
        del begin, measured_from, copied
        copy_out = np.where(table["out"] >= 0, np.clip(end - self._ns(table["out"]), 0, whole - copy_in), 0)
        return copy_out if name == "copy_out_ns" else whole - copy_in - copy_out

    def _cycles(self, name: str) -> Any:
        """Rows are cycles in which something happened; idle ones are left out, as in any real run."""
        table, rows = self._found.cycles, self._rows
        told = {"cycle": "index", "step": "step", "requests": "ticks", "hits_common": "hits", "responses": "messages"}
        if name in told:
            return table[told[name]][rows]
        if name == "kind":
            return np.where(table["ticks"][rows] > 0, int(Kind.SLOW), int(Kind.FAST))
        if name in ("enter_first_ns", "enter_last_ns"):
            return self._ns(self._enter_us(rows))
        if name in ("leave_last_ns", "leave_last_shadow_ns"):
            return np.maximum(self._ns(table["leave"][rows]), self._ns(self._enter_us(rows)))
        return np.full(rows.size, {"repeat": 1, "enter_last_rank": -1}.get(name, 0), np.int64)


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
    tied = known & (found.steps["last_rank"] < 0)
    if not known.all():
        many = f"{int((~known).sum()):,} of {len(found.steps):,} steps"
        unknown["last"] = f"not told in {many}: the cache agreed on some of their tensors"
    elif tied.any():
        many = f"{int(tied.sum()):,} of {len(found.steps):,} steps"
        unknown["last"] = f"not told in {many}: several ranks were counted in the last cycle"
    if found.incomplete:
        unknown["end"] = f"left out: {found.incomplete}"
    if found.stopped:
        unknown["rest"] = found.stopped
    if found.lost:
        unknown["cut"] = f"the file is cut off: {found.lost}"
    if found.untold_types:
        unknown["bytes"] = "some tensors have a type of unknown size; they count 0 bytes"
    return unknown


def _summary(found: Grouped, messages: int, known: Any) -> dict[str, Any]:
    waits = np.sort(found.steps["negotiated"]) / 1e6
    of_sets = np.bincount(np.maximum(found.steps["set"], 0), minlength=len(found.sets))
    members = [int(each.size) for each in found.sets]
    told = sorted(zip(of_sets.tolist(), members, strict=False), reverse=True)[:5]
    return {
        "events": found.events,
        "ranks": found.ranks,
        "steps": len(found.steps),
        "tensors": len(set(found.names)),
        "step_sets": [{"steps": steps, "tensors": tensors} for steps, tensors in told if steps],
        "messages": messages,
        "cycles_marked": found.turns if found.marked else None,
        "cycles_idle": found.turns - len(found.cycles) if found.marked else None,
        "loop_blocks": not found.asynchronous,
        "libraries": list(found.libraries),
        "steps_with_last_rank": int((known & (found.steps["last_rank"] >= 0)).sum()),
        "last_tensor_negotiated_s": {
            "median": float(waits[(waits.size - 1) // 2]), "p95": float(waits[int((waits.size - 1) * 0.95)]),
            "max": float(waits[-1]),
        },
        "started_unix_us": found.start_epoch_us,
    }  # fmt: skip


def _workload(found: Grouped) -> str | None:
    """The gradients of the steps that come most often in all (steps times tensors)."""
    of_sets = np.bincount(np.maximum(found.steps["set"], 0), minlength=len(found.sets))[: len(found.sets)]
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
        first.steps["tensors"][:common], other.steps["tensors"][:common]
    )
    if not common or not same:
        message = f"not of the run of {first.path.name}: other tensors, or other steps"
        raise InputError.one(str(other.path), "", other.path.name, message)


def _median_collective_s(found: Grouped) -> float | None:
    """Median time from launch to end of a message."""
    if not len(found.messages):
        return None
    return float(np.median(found.messages["end"] - found.messages["launch"])) / 1e6
