"""A whole timeline, grouped: every step, message and cycle in which something happened, as tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coordsim.errors import InputError
from coordsim.formats.horovod import grouping as g
from coordsim.formats.horovod.columns import MOST_RANKS, ColumnReader, Columns
from coordsim.formats.horovod.events import EventKind
from coordsim.formats.horovod.grouping import Rows, Table
from coordsim.formats.horovod.scan import Int32

DTYPE_BYTES = {
    "bool": 1, "uint8": 1, "int8": 1, "uint16": 2, "int16": 2, "int32": 4, "int64": 8, "float16": 2, "bfloat16": 2,
    "float32": 4, "float64": 8,
}  # fmt: skip
BARRIER = "BARRIER"
_COPY_IN = ("MEMCPY_IN", "INIT_FUSION_BUFFER")
_COPY_OUT = ("MEMCPY_OUT",)
_WAITS = ("QUEUE", "WAIT_FOR", "INIT_NCCL")
_LIBRARIES = ("NCCL", "MPI", "GLOO", "CCL", "DDL", "ADASUM")
MOST_BYTES = 540_000_000
"""Of the tables: reading stops behind the batch of events with which they are larger."""
MOST_MEMBERS = 1 << 22
"""Members of all sets together that are kept."""


@dataclass(frozen=True)
class Grouped:
    """What one timeline says. Tables' columns are those of :mod:`coordsim.formats.horovod.grouping`; times in us."""

    path: Path
    events: int
    start_epoch_us: int | None
    lost: str | None
    stopped: str | None
    """Why it was not read to its end, in words."""
    names: list[str]
    """Tensors by number."""
    tensors: Table
    cycles: Rows
    messages: Rows
    steps: Rows
    """Steps that are whole, from the file's first; what was cut off is left out."""
    began_us: int
    """When the first step's first tensor was asked for."""
    sets: list[Int32]
    """Tensors of each set, in the order in which they were first asked for."""
    ranks: int | None
    """Ranks whose requests were counted; None when the file counts none."""
    dtypes: list[str]
    """Words by number."""
    libraries: tuple[str, ...]
    """Who moved the data, as the activities say."""
    marked: bool
    """Whether every cycle is marked."""
    turns: int
    """Cycles that are marked, idle ones included."""
    asynchronous: bool
    """Whether the loop went on while operations ran."""
    incomplete: str | None
    """What of the last step was left out, in words."""
    untold_types: bool
    """Whether a type has a size that is not known."""


def read_grouped(path: Path) -> Grouped:
    """Raises InputError, with file and place, for what is no timeline or contradicts itself."""
    reader = ColumnReader(path)
    grouping = _Grouping(reader)
    for batch in reader.batches():
        grouping.add(batch)
        if grouping.nbytes > MOST_BYTES:
            grouping.stopped = (
                f"read up to event {reader.events:,}: what was executed up to there takes {MOST_BYTES / 1e6:.0f} MB, "
                "and nothing behind it is in the run; record less of the job"
            )
            break
    return grouping.result()


class _Grouping:
    def __init__(self, reader: ColumnReader) -> None:
        self._reader = reader
        self._scalars = np.zeros(g.SCALARS, np.int64)
        for each in (g.CYCLE, g.ROW, g.BLOCK, g.LAST_RANK):
            self._scalars[each] = -1
        self._tensors = np.full((0, g.TENSOR_COLUMNS), -1, np.int64)
        self._cycles = np.zeros(0, g.CYCLES)
        self._messages = np.zeros(0, g.MESSAGES_KEPT)
        self._steps = np.zeros(0, g.STEPS_KEPT)
        self._ring = np.full((g.RING, 64, 2), -1, np.int32)
        self._owner = np.array([[-1, 0]] * g.RING, np.int64)
        self._known = np.zeros((g.SETS, 2), np.int64)
        self._classes = np.zeros(0, np.int8)
        self._sizes = np.zeros(0, np.int8)
        self._first_of: dict[str, int] = {}
        self._canonical = np.zeros(0, np.int32)
        self._sets: list[Int32] = []
        self._members = 0
        self._ranks = 0
        self.stopped: str | None = None

    @property
    def nbytes(self) -> int:
        """What cycles, messages and steps take."""
        return self._cycles.nbytes + self._messages.nbytes + self._steps.nbytes

    def add(self, batch: Columns) -> None:
        self._learn()
        self._make_room(batch)
        slots = self._canonical[batch.slot] if self._canonical.size else batch.slot
        barrier = self._reader.words.number(BARRIER)
        at, why = 0, g.NEW_SET
        while why == g.NEW_SET:
            at, why = g.group(
                at, batch.kind, batch.ts_us, slots, batch.what, batch.numel, self._classes, self._sizes, barrier,
                self._scalars, self._tensors, self._cycles, self._messages, self._steps, self._ring, self._owner,
                self._known,
            )  # fmt: skip
            if why == g.NEW_SET:
                self._keep_set()
        if why != g.DONE:
            self._refuse(why, batch, at, int(slots[at]))

    def _refuse(self, why: int, batch: Columns, at: int, tensor: int) -> None:
        path, when = str(self._reader.path), int(batch.ts_us[at])
        if why == g.BACKWARDS:
            message = f"cycle marks run backwards, from {self._scalars[g.ENTER]} to {when} us"
            raise InputError.one(path, "", when, message)
        name = self._reader.tensors[tensor][:80]
        raise InputError.one(path, "", name, f"{name!r} is negotiated again before it was executed, at {when} us")

    def _learn(self) -> None:
        """Words and tensors that are new since the batch before."""
        words = self._reader.words.names[self._classes.size :]
        self._classes = np.append(self._classes, np.array([_class_of(word) for word in words], np.int8))
        self._sizes = np.append(self._sizes, np.array([DTYPE_BYTES.get(word, 0) for word in words], np.int8))
        seen, tensors = self._canonical.size, self._reader.tensors
        fresh = [self._first_of.setdefault(tensors[slot], slot) for slot in range(seen, len(tensors))]
        self._canonical = np.append(self._canonical, np.array(fresh, np.int32))

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
        known = self._tensors.shape[0]
        self._tensors = _grown(self._tensors, len(self._reader.tensors))
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
        if g.close(self._scalars, self._steps, self._ring, self._owner, self._known) == g.NEW_SET:
            self._keep_set()
        reader, scalars = self._reader, self._scalars
        names = reader.words.names
        whole, incomplete = self._whole_steps()
        moved = [name for name in names if name.partition("_")[0] in _LIBRARIES and "_" in name]
        return Grouped(
            reader.path, reader.events, reader.start_epoch_us, reader.lost, self.stopped, reader.tensors,
            self._tensors,
            self._cycles[: scalars[g.ROWS]], self._messages[: scalars[g.MESSAGES]], self._steps[:whole],
            int(scalars[g.BEGAN]), self._sets,
            self._ranks or None, names, tuple(sorted({name.partition("_")[0] for name in moved})),
            marked=bool(scalars[g.MARKED]) and scalars[g.UNMARKED] <= 1, turns=int(scalars[g.TURNS]),
            asynchronous=bool(scalars[g.ASYNCHRONOUS]), incomplete=incomplete, untold_types=bool(scalars[g.UNTOLD]),
        )  # fmt: skip

    def _whole_steps(self) -> tuple[int, str | None]:
        """How many steps count. The last does not when something of it is outstanding, or it was seen only in part."""
        count = int(self._scalars[g.STEPS])
        steps = self._steps[:count]
        open_ones = np.flatnonzero(steps["outstanding"] != 0)
        if open_ones.size:
            first = int(open_ones[0])
            return first, f"step {first}: {steps[first]['outstanding']} of its tensors were not executed"
        if count > 1 and steps["set"][-1] not in steps["set"][:-1]:
            seen, before = int(steps["tensors"][-1]), int(steps["tensors"][-2])
            if seen < before:
                return count - 1, f"step {count - 1}: {seen} tensors where the step before has {before}"
        return count, None


def _class_of(name: str) -> int:
    for starts, activity in ((_COPY_IN, g.COPY_IN), (_COPY_OUT, g.COPY_OUT), (_WAITS, g.WAIT)):
        if name.startswith(starts):
            return activity
    return g.OTHER


def _grown(table: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    """With room for ``rows``, in place; new rows are 0."""
    if rows > table.shape[0]:
        table.resize((rows + rows // 16, *table.shape[1:]), refcheck=False)
    return table
