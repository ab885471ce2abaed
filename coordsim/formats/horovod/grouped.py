"""A whole timeline, grouped: every step, message and cycle in which something happened, as tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coordsim.dtypes import ELEMENT_BYTES
from coordsim.errors import InputError
from coordsim.formats.horovod import tables as g
from coordsim.formats.horovod.columns import MOST_RANKS, ColumnReader
from coordsim.formats.horovod.events import EventKind
from coordsim.formats.horovod.grouping import group
from coordsim.formats.horovod.open_steps import close_step
from coordsim.formats.horovod.reader import EXPECTED
from coordsim.formats.horovod.scan import Columns, Int32, Int64
from coordsim.formats.horovod.tables import Rows, Table

_TYPES = (
    "bool", "uint8", "int8", "uint16", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64",
)  # fmt: skip
DTYPE_BYTES = {name: ELEMENT_BYTES[name] for name in _TYPES} | {
    "float": ELEMENT_BYTES["float32"], "double": ELEMENT_BYTES["float64"],
}  # fmt: skip
"""Bytes of one value, by Horovod's name of its type. ``float`` and ``double``: as versions before 0.12 spell them."""
BARRIER, ERROR = "BARRIER", "ERROR"
OPERATIONS = ("ALLREDUCE", "ALLGATHER", "BROADCAST", "JOIN", "ADASUM", "ALLTOALL", BARRIER, "REDUCESCATTER", ERROR)
"""What a response can be, of all versions."""
_KINDS = (
    (re.compile(r"MEMCPY_IN_.+"), g.COPY_IN),
    (re.compile(r"MEMCPY_OUT_.+|COPY_ALLGATHER_OUTPUT"), g.COPY_OUT),
    (re.compile(r"WAIT_FOR_(?:OTHER_TENSOR_)?DATA"), g.DATA_WAIT),
    (re.compile(r"QUEUE"), g.WAIT),
    (re.compile(r"INIT_(?:FUSION_BUFFER|NCCL|[A-Z]+)|ALLOCATE_(?:OUTPUT|SHARED_BUFFER)|SCHEDULE"), g.SETUP),
    (
        re.compile(r"([A-Z]+)_(?:CROSS_|ADASUM_)?(?:ALLREDUCE|ALLGATHER|BCAST|ALLTOALL|REDUCESCATTER|REDUCE)"),
        g.COLLECTIVE,
    ),
)
"""Names of activities in all versions, 0.9.10 to 0.28.1, and of libraries that forks add (common/common.h)."""
KIND_NAMES = {
    g.OTHER: "other", g.COPY_IN: "copy in", g.COPY_OUT: "copy out", g.WAIT: "wait for the stream",
    g.DATA_WAIT: "wait for data", g.SETUP: "setup", g.COLLECTIVE: "collective",
}  # fmt: skip
MOST_BYTES = 540_000_000
"""Of the tables: reading stops behind the batch of events with which they are larger."""
MOST_MEMBERS = 1 << 22
"""Members of all sets together that are kept."""


@dataclass(frozen=True)
class Waiting:
    """A tensor that some rank had asked for and not every rank, when the file ended."""

    tensor: str
    operation: str
    asked: tuple[int, ...]
    """Ranks whose requests were counted; empty when hits of the cache alone are in the file, which name no rank."""
    expected: int | None
    """Requests with which the same tensor was agreed before; None: never with any."""
    waited_us: int


@dataclass(frozen=True)
class Executing:
    """An operation that had begun and not ended, when the file ended; or one that was agreed and had not begun."""

    tensors: tuple[str, ...]
    """At most :data:`MOST_NAMED`."""
    count: int
    operation: str
    activity: str | None
    """The open activity's name; None between activities."""
    began: bool
    lasted_us: int
    """Since it began, or was agreed."""


MOST_NAMED = 100
"""Tensors of each kind that are named at the end."""


@dataclass(frozen=True)
class AtEnd:
    """What the last event found unfinished."""

    waiting: list[Waiting]
    """Longest first; at most :data:`MOST_NAMED`."""
    waiting_count: int
    executing: list[Executing]
    executing_count: int
    """Operations, each with all tensors that are reduced together."""


@dataclass(frozen=True)
class Grouped:
    """What one timeline says. Tables' columns are those of :mod:`coordsim.formats.horovod.tables`; times in us."""

    path: Path
    view: int
    """Which of the timelines in the file it is."""
    views: int
    """How many there are."""
    events: int
    start_epoch_us: int | None
    lost: str | None
    stopped: str | None
    """Why it was not read to its end, in words."""
    foreign: dict[str, int]
    """Events that Horovod does not write and that were passed over -> how many."""
    names: Sequence[str]
    """Tensors by number."""
    tensors: Table
    cycles: Rows
    messages: Rows
    steps: Rows
    """Steps that are whole, from the file's first; what was cut off is left out."""
    began_us: int
    """When the first step's first tensor was asked for."""
    end_us: int
    """Of the last event."""
    sets: list[Int32]
    """Tensors of each set, in the order in which they were first asked for."""
    ranks: int | None
    """Ranks of the job, as far as tensors that were agreed show; None when no request was counted for one."""
    highest_rank: int | None
    """The highest rank that asked for anything."""
    dtypes: list[str]
    """Words by number."""
    totals: Int64
    """Shape [word, 2]: how often an activity ran, once for each message, and its time in all, us."""
    libraries: tuple[str, ...]
    """Who moved the data, as the activities say."""
    marked: bool
    """Whether every cycle is marked."""
    turns: int
    """Cycles that are marked, idle ones included."""
    idle: int
    """Marked cycles in which nothing was counted or agreed."""
    asynchronous: bool
    """Whether the loop went on while operations ran."""
    incomplete: str | None
    """What of the last step was left out, in words."""
    untold_types: bool
    """Whether a type has a size that is not known."""
    abandoned: int
    """Negotiations that began again before an operation was recorded."""
    unattributed: int
    """Operations whose negotiation is not in the file."""
    failed: int
    """Tensors whose operation was an ERROR."""
    at_end: AtEnd

    def word(self, name: str) -> int:
        """The number of an operation or activity; -2 when the file has none of that name."""
        return self.dtypes.index(name) if name in self.dtypes else -2


def read_grouped(path: Path) -> Grouped:
    """The first timeline of a file, as :func:`read_views`."""
    return read_views(path)[0]


def read_views(path: Path) -> list[Grouped]:
    """The timelines in a file: one, or several that were merged.

    Raises InputError, with file and place, for what is no timeline or contradicts itself.
    """
    reader = ColumnReader(path)
    groupings = [_Grouping(reader, 0)]
    for batch in reader.batches():
        while len(groupings) < len(reader.views):
            groupings.append(_Grouping(reader, len(groupings)))
        if len(groupings) == 1:
            groupings[0].add(batch)
        else:
            _deal(reader, batch, groupings)
        if sum(grouping.nbytes for grouping in groupings) > MOST_BYTES:
            stopped = (
                f"read up to event {reader.events:,}: what was executed up to there takes {MOST_BYTES / 1e6:.0f} MB, "
                "and nothing behind it is in the run; record less of the job"
            )
            for grouping in groupings:
                grouping.stopped = stopped
            break
    if not any(grouping.is_horovods for grouping in groupings):
        what = ", ".join(f"{count:,} times {kind}" for kind, count in list(reader.foreign.items())[:3])
        message = f"an array of events without any of Horovod's{': ' * bool(what)}{what}; {EXPECTED}"
        raise InputError.one(str(path), "", None, message)
    return [grouping.result() for grouping in groupings]


def _deal(reader: ColumnReader, batch: Columns, groupings: list[_Grouping]) -> None:
    """Give each timeline its events. Marks of cycles are their section's, when that holds one timeline."""
    sections = np.array(reader.section_of_view)
    of_section = np.full(reader.section + 1, -1, np.int64)
    of_section[sections[::-1]] = np.arange(sections.size)[::-1]
    shared = np.bincount(sections, minlength=reader.section + 1) > 1
    for view, section in enumerate(sections.tolist()):
        if shared[section]:
            groupings[view].forget_marks()
    is_mark = batch.slot < 0
    section = np.where(is_mark, -1 - batch.slot, 0)
    slots = np.where(is_mark, 0, batch.slot)
    owner = np.where(
        is_mark, np.where(shared[section], -1, of_section[section]), np.array(reader.view_of_slot, np.int64)[slots]
    )
    order = np.argsort(owner, kind="stable")
    bounds = np.searchsorted(owner[order], np.arange(len(groupings) + 1))
    for view, grouping in enumerate(groupings):
        rows = order[bounds[view] : bounds[view + 1]]
        if rows.size:
            grouping.add(_chosen(batch, rows))


def _chosen(batch: Columns, rows: Int64) -> Columns:
    return Columns(batch.kind[rows], batch.ts_us[rows], batch.slot[rows], batch.what[rows], batch.numel[rows])


class _Grouping:
    """The tables of one timeline while it is read."""

    def __init__(self, reader: ColumnReader, view: int) -> None:
        self._reader = reader
        self._view = view
        self._scalars = np.zeros(g.SCALARS, np.int64)
        for scalar in (g.CYCLE, g.ROW, g.BLOCK, g.LAST_RANK, g.ASKED_FREE):
            self._scalars[scalar] = -1
        self._scalars[g.OWNERS : g.SETS_KNOWN : 2] = -1
        self._scalars[g.BARRIER_WORD] = reader.words.number(BARRIER)
        self._scalars[g.ERROR_WORD] = reader.words.number(ERROR)
        self._tensors = np.full((0, g.TENSOR_COLUMNS), -1, np.int64)
        self._cycles = np.zeros(0, g.CYCLES)
        self._messages = np.zeros(0, g.MESSAGES_KEPT)
        self._steps = np.zeros(0, g.STEPS_KEPT)
        self._ring = np.full((g.RING, 64, 2), -1, np.int32)
        self._asked = np.zeros((0, 2), np.int32)
        self._words = np.zeros((0, g.WORD_COLUMNS), np.int64)
        self._sets: list[Int32] = []
        self._members = 0
        self._ranks = 0
        self._marks_are_shared = False
        self.stopped: str | None = None

    @property
    def nbytes(self) -> int:
        """What cycles, messages, steps and open requests take."""
        return self._cycles.nbytes + self._messages.nbytes + self._steps.nbytes + self._asked.nbytes

    @property
    def is_horovods(self) -> bool:
        """Whether anything was negotiated, marked, or executed under a name that Horovod knows."""
        words = self._reader.words.names
        executed = self._tensors[: self._many, g.OPERATION]
        return bool(self._scalars[g.STEPS] or self._scalars[g.TURNS]) or any(
            words[word] in OPERATIONS for word in np.unique(executed[executed >= 0]).tolist()
        )

    @property
    def _many(self) -> int:
        """Tensors that were introduced."""
        return self._reader.views[self._view] if self._reader.views else 0

    def forget_marks(self) -> None:
        """Marks of several timelines stand among each other: none is used from here on."""
        if not self._marks_are_shared:
            self._marks_are_shared = True
            self._scalars[g.MARKED] = 0

    def add(self, batch: Columns) -> None:
        self._learn()
        self._make_room(batch)
        slots = batch.slot
        if len(self._reader.views) > 1:
            slots = np.where(slots < 0, -1, np.array(self._reader.place_of_slot, np.int32)[np.maximum(slots, 0)])
        events = batch._replace(slot=slots)
        at, why = 0, g.NEW_SET
        while why == g.NEW_SET:
            at, why = group(at, events, self._tables())
            if why == g.NEW_SET:
                self._keep_set()
        if why != g.DONE:
            self._refuse(batch, at)

    def _tables(self) -> g.Tables:
        return g.Tables(
            self._scalars, self._tensors, self._cycles, self._messages, self._steps, self._ring,
            self._asked, self._words,
        )  # fmt: skip

    def _refuse(self, batch: Columns, at: int) -> None:
        path, when, slot = str(self._reader.path), int(batch.ts_us[at]), int(batch.slot[at])
        if slot < 0:
            message = f"cycle marks run backwards, from {self._scalars[g.ENTER]} to {when} us"
        else:
            name = self._reader.tensors[slot][:80]
            message = f"times of {name!r} run backwards: something of it ends before it begins, at {when} us"
        raise InputError.one(path, "", when, message)

    def _learn(self) -> None:
        """Words that are new since the batch before."""
        names = self._reader.words.names[len(self._words) :]
        if names:
            fresh = [[class_of(name), DTYPE_BYTES.get(name, 0), 0, 0] for name in names]
            self._words = np.concatenate([self._words, np.array(fresh, np.int64)])

    def _make_room(self, batch: Columns) -> None:
        events, scalars = batch.kind.size, self._scalars
        ticks = batch.what[batch.kind == EventKind.TICK.value]
        if ticks.size:
            highest = int(ticks.max())
            if highest >= MOST_RANKS:
                message = f"counts a request of rank {highest:,}; no job has more than {MOST_RANKS:,} ranks"
                raise InputError.one(str(self._reader.path), "", highest, message)
            self._ranks = max(self._ranks, highest + 1)
            if self._ranks > self._ring.shape[1]:
                wider = np.full((g.RING, 2 * self._ranks, 2), -1, np.int32)
                wider[:, : self._ring.shape[1]] = self._ring
                self._ring = wider
            self._asked = _grown(self._asked, int(scalars[g.ASKED_USED]) + ticks.size)
        known = self._tensors.shape[0]
        self._tensors = _grown(self._tensors, self._many)
        self._tensors[known:] = -1
        self._tensors[known:, g.PHASE] = g.NOTHING
        self._cycles = _grown(self._cycles, int(scalars[g.ROWS]) + events)
        self._messages = _grown(self._messages, int(scalars[g.MESSAGES]) + events)
        self._steps = _grown(self._steps, int(scalars[g.STEPS]) + events)

    def _keep_set(self) -> None:
        step = self._scalars[g.STEPS] - 1
        members = np.flatnonzero(self._tensors[:, g.MEMBER] == step)
        self._members += members.size
        if self._members > MOST_MEMBERS:
            members = members[:0]
        self._sets.append(members[np.argsort(self._tensors[members, g.SEQUENCE])].astype(np.int32))

    def result(self) -> Grouped:
        self._learn()
        self._make_room(Columns(*(np.zeros(0, np.int64),) * 5))  # type: ignore[arg-type]
        if close_step(self._tables()) == g.NEW_SET:
            self._keep_set()
        reader, scalars = self._reader, self._scalars
        names = reader.words.names
        tensors: Sequence[str] = reader.tensors
        if len(reader.views) > 1:
            slots = np.flatnonzero(np.array(reader.view_of_slot) == self._view)
            tensors = [reader.tensors[slot] for slot in slots.tolist()]
        whole, incomplete = self._whole_steps()
        section = reader.section_of_view[self._view] if reader.views else 0
        times = self._words[:, g.TIMES].tolist()
        libraries = {_library(name) for name, count in zip(names, times, strict=True) if count} - {""}
        return Grouped(
            reader.path, self._view, max(len(reader.views), 1), reader.events, reader.epochs.get(section), reader.lost,
            self.stopped, dict(reader.foreign), tensors, self._tensors[: len(tensors)], self._cycles[: scalars[g.ROWS]],
            self._messages[: scalars[g.MESSAGES]], self._steps[:whole], int(scalars[g.BEGAN]), int(scalars[g.END_US]),
            self._sets, ranks=self._ranks if scalars[g.COUNTED] else None,
            highest_rank=self._ranks - 1 if self._ranks else None, dtypes=names,
            totals=self._words[:, [g.TIMES, g.TOTAL_US]], libraries=tuple(sorted(libraries)),
            marked=bool(scalars[g.MARKED]) and scalars[g.UNMARKED] <= 1, turns=int(scalars[g.TURNS]),
            idle=int(scalars[g.TURNS] - scalars[g.ROWS] + scalars[g.UNMARKED]),
            asynchronous=bool(scalars[g.ASYNCHRONOUS]), incomplete=incomplete, untold_types=bool(scalars[g.UNTOLD]),
            abandoned=int(scalars[g.ABANDONED]), unattributed=int(scalars[g.UNATTRIBUTED]),
            failed=int(scalars[g.FAILED]), at_end=_at_end(tensors, names, self._tables()),
        )  # fmt: skip

    def _whole_steps(self) -> tuple[int, str | None]:
        """How many steps count. The last does not when something of it is outstanding, or it was seen only in part."""
        count = int(self._scalars[g.STEPS])
        steps = self._steps[:count]
        open_ones = np.flatnonzero(steps["outstanding"] != 0)
        if open_ones.size:
            first = int(open_ones[0])
            behind = f", and {count - first - 1:,} steps that began after it" if count - first > 1 else ""
            return first, f"step {first}: {steps[first]['outstanding']} of its tensors were not executed{behind}"
        if count > 1 and steps["set"][-1] not in steps["set"][:-1]:
            seen, before = int(steps["tensors"][-1]), int(steps["tensors"][-2])
            if seen < before:
                return count - 1, f"step {count - 1}: {seen} tensors where the step before has {before}"
        return count, None


def _at_end(names: Sequence[str], words: Sequence[str], tables: g.Tables) -> AtEnd:
    """What the last event found unfinished."""
    table, end = tables.tensors[: len(names)], int(tables.scalars[g.END_US])
    asked = np.flatnonzero(table[:, g.PHASE] == g.ASKED)
    asked = asked[np.argsort(table[asked, g.SINCE], kind="stable")]
    waiting = []
    for tensor in asked[:MOST_NAMED].tolist():
        row = table[tensor]
        ranks, entry = set(), int(row[g.ASKED_BY])
        while entry >= 0:
            ranks.add(int(tables.asked[entry, 0]))
            entry = int(tables.asked[entry, 1])
        expected = int(row[g.TICKS_MOST]) if row[g.TICKS_MOST] > 0 else None
        waiting.append(Waiting(
            names[tensor], words[row[g.OPERATION]], tuple(sorted(ranks)), expected, end - int(row[g.SINCE])
        ))  # fmt: skip
    begun = np.flatnonzero(table[:, g.PHASE] >= g.AGREED)
    # One operation: all members of a message; before it has one, what was agreed or launched at one moment.
    running = table[begun, g.PHASE] >= g.RUNNING
    keys = np.stack([
        table[begun, g.PHASE].clip(max=g.RUNNING), table[begun, g.OPERATION],
        np.where(running, table[begun, g.MESSAGE], table[begun, g.SINCE]),
    ])  # fmt: skip
    groups = np.unique(keys, axis=1, return_inverse=True)[1].reshape(-1) if begun.size else np.zeros(0, np.int64)
    count = int(groups.max()) + 1 if groups.size else 0
    since = np.full(count, end)
    np.minimum.at(since, groups, table[begun, g.SINCE])
    longest = np.argsort(since, kind="stable")[:MOST_NAMED].tolist()
    executing = [_executing(begun[groups == group], names, words, table, end) for group in longest]
    return AtEnd(waiting, int(asked.size), executing, count)


def _executing(members: Int64, names: Sequence[str], words: Sequence[str], table: Table, end: int) -> Executing:
    row = table[members[np.argmax(table[members, g.PHASE])]]
    active = row[g.PHASE] >= g.RUNNING and row[g.DEPTH] > 0
    return Executing(
        tuple(names[tensor] for tensor in members[:MOST_NAMED].tolist()), int(members.size), words[row[g.OPERATION]],
        words[row[g.ACTIVITY]] if active else None, bool(row[g.PHASE] >= g.LAUNCHED), end - int(row[g.SINCE]),
    )  # fmt: skip


def class_of(name: str) -> int:
    """What the activity called ``name`` is: one of the constants of :mod:`coordsim.formats.horovod.tables`."""
    return next((kind for pattern, kind in _KINDS if pattern.fullmatch(name)), g.OTHER)


def _library(name: str) -> str:
    """The library that a collective's activity names; empty for other activities."""
    match = _KINDS[-1][0].fullmatch(name)
    return match[1] if match else ""


def _grown(table: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    """With room for ``rows``, in place; new rows are 0."""
    if rows > table.shape[0]:
        table.resize((rows + rows // 16, *table.shape[1:]), refcheck=False)
    return table
