"""A Horovod timeline as a run: its trace by the rules of docs/semantics.md 8, and what it cannot tell.

1. A step ends with its last operation (C = E), and the next one starts there: what a rank computes is not in the file.
2. R is where rank 0 enters the cycle in which the last tensor was agreed; without cycle marks, where that cycle's first
   operation is launched. Nobody submits later than that, but for ranks that enter the cycle after rank 0.
3. A rank is last when its last request was counted in a later cycle than everybody else's. That takes the slow path:
   a hit of the cache is counted for nobody.
4. From R to the launch it is control exchange, work included. An operation begins when it is launched, or when the one
   before it ends, and ends with its last activity. Copies are its copying activities; the rest is its collective, with
   waits for the stream, allocations and pauses. While it waits for data the gradient is not computed: R is later.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from coordsim.errors import InputError
from coordsim.formats.horovod import reasons, summary
from coordsim.formats.horovod import tables as g
from coordsim.formats.horovod.grouped import DTYPE_BYTES, Grouped, read_views
from coordsim.formats.horovod.scan import Int32
from coordsim.formats.imported import Gradient, Imported, workload_csv
from coordsim.formats.shared.sources import names_in_job
from coordsim.record.run_facts import RunFacts, RunKind
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
_NO_MARKS = (
    "the cycles are not marked (HOROVOD_TIMELINE_MARK_CYCLES=1 marks them): its time is part of backward"
)


def import_timeline(path: Path) -> Imported:
    """Return what the timelines in ``path`` contain: a run, unless no step is complete.

    Raises InputError for a file that is no timeline.
    """
    return import_timelines([path])


def imported(timeline: Grouped) -> Imported:
    """Return the content of one timeline that has been read."""
    names = [timeline.path.name]
    if not len(timeline.steps):
        why = timeline.incomplete or "nothing is negotiated in it"
        unknown = {"run": f"no step is whole: {why}", **reasons.unknown(timeline, None)}
        return Imported(FORMAT, names, summary.without_steps(timeline), unknown)
    known = _known_steps(timeline)
    counted = known[1:] if known.size > 1 else known
    last_known = bool(counted.all())
    missing = dict(_MISSING)
    if not last_known:
        why = reasons.nobody_last(timeline, known)
        missing["straggler_wait"] = f"nobody can be told to be last, for {why}: its time is part of backward"
    if not timeline.marked:
        missing["control_exchange"] = _NO_MARKS
    builder = _Builder(timeline, known, last_known)
    trace = builder.trace(frozenset(missing))
    unknown = reasons.unknown(timeline, known)
    figures = summary.of_steps(timeline, builder.messages, known)
    facts = RunFacts(
        kind=RunKind.IMPORTED, ranks=timeline.ranks, missing=missing, unknown=unknown,
        ended_early=(0,) if timeline.lost or timeline.stopped else (),
        imported={"format": FORMAT, "files": names, **figures},
    )  # fmt: skip
    return Imported(FORMAT, names, figures, {**missing, **unknown}, trace, facts, workload_csv=_workload(timeline))


def _known_steps(timeline: Grouped) -> Any:
    """Return the steps of which every rank's last request was counted, bool of shape [step]."""
    ranks = timeline.ranks or -1
    steps = timeline.steps
    return (
        (steps["ranks"] == ranks)
        & (steps["cached"] == 0)
        & (steps["ticks_least"] == ranks)
        & (steps["ticks_most"] == ranks)
        & (steps["last_row"] == steps["row"])
    )


class _Builder:
    """Tables of a trace, ns since the first cycle of the first step; a column is made when it is needed."""

    def __init__(self, timeline: Grouped, known: Any, last_known: bool) -> None:
        self._timeline = timeline
        self._known, self._last_known = known, last_known
        cycles, messages = timeline.cycles, timeline.messages
        self._base_us = min(timeline.began_us, int(self._enter_us(timeline.steps["row"][:1])[0]))
        inside = (messages["step"] >= 0) & (messages["step"] < len(timeline.steps)) & (messages["row"] >= 0)
        kept = messages if inside.all() else messages[inside]
        self.messages = kept[np.argsort(kept["end"], kind="stable")] if timeline.asynchronous else kept
        inside = (cycles["step"] < len(timeline.steps)) & (cycles["step"] >= 0)
        self._rows = np.flatnonzero(inside).astype(np.int32)

    def trace(self, missing: frozenset[str]) -> Trace:
        """Return the trace; ``missing`` names parts that were not measured."""
        cycles = Columns(CYCLE_COLUMNS, self._cycles)
        responses, steps = Columns(RESPONSE_COLUMNS, self._responses), Columns(STEP_COLUMNS, self._steps)
        return Trace(cycles, responses, steps, not self._timeline.asynchronous, missing)

    def _enter_us(self, rows: Int32) -> Int64:
        """Return when rank 0 entered the cycles of these rows or, without marks, launched their first operation."""
        cycles = self._timeline.cycles
        if self._timeline.marked:
            return cycles["enter"][rows]
        launch = cycles["launch"][rows]
        return np.where(launch >= 0, launch, cycles["leave"][rows])

    def _ns(self, us: Int64) -> Int64:
        return np.maximum(us - self._base_us, 0) * _NS

    def _steps(self, name: str) -> Any:
        steps = self._timeline.steps
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
        entered = np.clip(self._ns(self._enter_us(steps["row"])), start, end)
        # Gradients that an operation waited for were not computed before the wait was over.
        ready = np.clip(np.maximum(entered, self._ns(steps["awaited"])), start, end)
        if name == "ready_last_ns":
            return ready
        if not self._last_known:
            return ready - start
        rows = np.where(self._known, steps["median_row"], steps["row"])
        return np.clip(self._ns(self._enter_us(rows)), start, entered) - start + ready - entered

    def _responses(self, name: str) -> Any:
        table = self.messages
        if name in ("units", "bytes"):
            return table[name]
        row = table["row"]
        if name == "cycle":
            return self._timeline.cycles["index"][row]
        if name == "index":
            return _place(row)
        end = np.maximum.accumulate(self._ns(table["end"])) if len(table) else np.zeros(0, np.int64)
        if name == "end_ns":
            return end
        before = np.concatenate([[0], end[:-1]]) if len(table) else end
        launch = np.minimum(self._ns(table["launch"]), end)
        if not self._timeline.asynchronous:  # the loop blocks
            same = np.concatenate([[False], row[1:] == row[:-1]]) if len(table) else np.zeros(0, bool)
            launch = np.where(same, before, np.maximum(launch, before))
        if name in ("launch_ns", "launch_shadow_ns"):
            return launch
        begin = np.minimum(np.maximum(launch, before), end)
        if name == "begin_ns":
            return begin
        del before, launch
        whole = end - begin
        del begin
        copy_in = np.minimum(table["copy_in"] * _NS, whole)
        if name == "copy_in_ns":
            return copy_in
        copy_out = np.minimum(table["copy_out"] * _NS, whole - copy_in)
        return copy_out if name == "copy_out_ns" else whole - copy_in - copy_out

    def _cycles(self, name: str) -> Any:
        """Return a column of the cycles in which something happened; idle ones are left out, as in any real run."""
        table, rows = self._timeline.cycles, self._rows
        columns = {
            "cycle": "index", "step": "step", "requests": "ticks", "hits_common": "hits", "responses": "messages",
        }  # fmt: skip
        if name in columns:
            return table[columns[name]][rows]
        if name == "kind":
            return np.where(table["ticks"][rows] > 0, int(Kind.SLOW), int(Kind.FAST))
        if name in ("enter_first_ns", "enter_last_ns"):
            return self._ns(self._enter_us(rows))
        if name in ("leave_last_ns", "leave_last_shadow_ns"):
            return np.maximum(self._ns(table["leave"][rows]), self._ns(self._enter_us(rows)))
        return np.full(rows.size, {"repeat": 1, "enter_last_rank": -1}.get(name, 0), np.int64)


def _place(row: Int64) -> Int64:
    """Return the position of each message among those of its cycle, shape [message]."""
    order = np.argsort(row, kind="stable")
    ordered = row[order]
    first = np.searchsorted(ordered, ordered, side="left")
    place = np.empty_like(row)
    place[order] = np.arange(row.size) - first
    return place


def _workload(timeline: Grouped) -> str | None:
    """Return the gradients of the kind of step that comes most often in all (steps times tensors)."""
    of_sets = np.bincount(np.maximum(timeline.steps["set"], 0), minlength=len(timeline.sets))[: len(timeline.sets)]
    gradients: list[Gradient] = []
    executed = [int(steps) * each.size for steps, each in zip(of_sets, timeline.sets, strict=True)]
    for tensor in timeline.sets[int(np.argmax(executed))].tolist():
        row = timeline.tensors[tensor]
        operation, dtype = int(row[g.OPERATION]), int(row[g.DTYPE])
        if operation < 0 or timeline.dtypes[operation] != _ALLREDUCE or dtype < 0 or row[g.NUMEL] <= 0:
            continue
        size = DTYPE_BYTES.get(timeline.dtypes[dtype], 0)
        if size:
            numel = int(row[g.NUMEL])
            gradients.append(Gradient(timeline.names[tensor], numel, timeline.dtypes[dtype], numel * size))
    return workload_csv(gradients) if gradients else None


def import_timelines(paths: list[Path]) -> Imported:
    """The run of one job whose timelines are in ``paths``: the coordinator's, and perhaps views of other ranks.

    A file may hold several, merged. The coordinator's is the one in which requests are counted; of several of those,
    as of a job that was restarted or whose recording was, the one with the most whole steps. Other ranks' must show the
    same operations in the same order; what they add is how long operations took there. Raises InputError for files of
    different jobs.
    """
    views = [view for path in paths for view in read_views(path)]
    if len(views) == 1:
        return imported(views[0])
    counting = [view for view in views if view.highest_rank is not None]
    if len(paths) > 1:
        _refuse_two_runs(counting)
    first = max(counting or views, key=lambda view: len(view.steps))
    if len(paths) > 1:
        for other in views:
            _refuse_other_job(first, other)
        others = len(views) - len(counting)
        if first.ranks is not None and counting and others >= first.ranks:
            message = f"{others + 1} timelines of a job of {first.ranks} ranks"
            raise InputError.one(str(paths[0].parent), "", others + 1, message)
    result = imported(first)
    result.files = names_in_job(paths)
    names = dict(zip(paths, result.files, strict=True))
    result.summary["timelines"] = len(views)
    alone = all(view.views == 1 for view in views)
    by_view = "collective_s_by_file" if alone else "collective_s_by_timeline"
    result.summary[by_view] = {_title(view, names): _median_collective_s(view) for view in views}
    notes = {"clocks" if len(counting) <= 1 else "timelines": _which(first, counting, views, names)}
    same = [view for view in views if view is not first and _same_operations(first, view)]
    if len(views) > len(counting) and len(same) + len(counting) < len(views):
        notes["other_operations"] = (
            f"{len(views) - len(counting) - len(same):,} of the timelines show other tensors or other steps than "
            f"{_title(first, names)}"
        )
    result.unknown |= notes
    if result.facts is not None:
        said = {**(result.facts.imported or {}), "files": result.files, **result.summary}
        result.facts = replace(result.facts, unknown={**result.facts.unknown, **notes}, imported=said)
    return result


def _title(view: Grouped, names: dict[Path, str]) -> str:
    """Return what a timeline is called: its file, and its number in there if the file has several."""
    alone = view.view == 0 and view.views == 1
    name = names[view.path]
    return name if alone else f"{name}, timeline {view.view}" if len(names) > 1 else f"timeline {view.view}"


def _which(first: Grouped, counting: list[Grouped], views: list[Grouped], names: dict[Path, str]) -> str:
    """Return why the run is ``first`` alone."""
    alone = f"the run is {_title(first, names)} alone of {len(views):,}"
    if len(counting) <= 1:
        return f"{alone}: clocks of different timelines are not aligned, so moments are not compared"
    epochs = {view.start_epoch_us for view in counting}
    if len(epochs) == 1 and None not in epochs:
        why = "of one process, recorded one after the other (the start of their clock is the same)"
    else:
        why = "of a job that was started again, or of different jobs"
    return (
        f"{alone}, the one with the most whole steps: {len(counting):,} of them count requests, as only a "
        f"coordinator's timeline does, so they are {why}"
    )


def _refuse_two_runs(counting: list[Grouped]) -> None:
    """Raise InputError if files of several coordinators were not written by one process."""
    for other in counting[1:]:
        first = counting[0]
        if other.path != first.path and (first.start_epoch_us is None or other.start_epoch_us != first.start_epoch_us):
            names = " and ".join(names_in_job([first.path, other.path]))
            message = (
                f"{names} both count requests, as only rank 0's timeline does, and no common start says that one "
                "process wrote them: of two runs, or of a job that was started again? Import one at a time"
            )
            raise InputError.one(str(first.path.parent), "", names, message)


def _refuse_other_job(first: Grouped, other: Grouped) -> None:
    """Raise InputError if two files have no tensor in common, or one that counts nothing shows other operations."""
    if set(first.names).isdisjoint(other.names):
        message = f"not of the job of {names_in_job([first.path, other.path])[0]}: no tensor is in both"
        raise InputError.one(str(other.path), "", other.path.name, message)
    if other.highest_rank is None and not _same_operations(first, other):
        message = f"not of the run of {names_in_job([first.path, other.path])[0]}: other tensors, or other steps"
        raise InputError.one(str(other.path), "", other.path.name, message)


def _same_operations(first: Grouped, other: Grouped) -> bool:
    """Return whether tensors are equal, and the members of the steps that both have."""
    common = min(len(first.steps), len(other.steps))
    return set(first.names) == set(other.names) and np.array_equal(
        first.steps["tensors"][:common], other.steps["tensors"][:common]
    )


def _median_collective_s(view: Grouped) -> float | None:
    """Return the median time from launch to end of a message."""
    if not len(view.messages):
        return None
    return float(np.median(view.messages["end"] - view.messages["launch"])) / 1e6
