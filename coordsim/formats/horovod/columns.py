"""A timeline as columns: what :class:`TimelineReader` says of each event, a hundred times as fast.

Events of the form that Horovod writes are scanned in compiled code, a buffer at a time; everything else goes through
the strict reader, whose errors, places and states are kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from coordsim.errors import InputError
from coordsim.formats.horovod.events import EventKind, TimelineEvent
from coordsim.formats.horovod.reader import EXPECTED, TimelineReader
from coordsim.formats.horovod.scan import LARGEST_NUMEL, MARGIN, PIDS, Bytes, Columns, Tensors, Words, scan
from coordsim.formats.shared.json_text import JsonText

ROWS = 1 << 15
MOST_WORDS = 1 << 16
"""Largest number of different operations, activities and types; a file with more is no timeline."""
MOST_TENSORS = 1 << 20
MOST_RANKS = 1 << 20
_INTRODUCES = re.compile(
    r'\{"name": "process_name", "ph": "M", "pid": ([1-9][0-9]{0,8}), "args": \{"name": "([ !#-\[\]-~]+)"\}\},\s*'
    r'(\{"name": "process_sort_index", "ph": "M", "pid": \1, "args": \{"sort_index": [1-9][0-9]{0,8}\}\},\s*)?(?=\{)'
)
"""Matches a tensor's first events, as Horovod writes them, with the beginning of the next one."""
_WITH_WORD = (EventKind.NEGOTIATE, EventKind.OPERATION, EventKind.ACTIVITY)


class ColumnReader(TimelineReader):
    """Events of one file as :class:`Columns`; iterate :meth:`batches` once.

    Raises as :class:`TimelineReader` does, and InputError for more tensors, words, ranks or values than any job has.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.words = Words()
        self._kind = np.zeros(ROWS, np.uint8)
        self._ts = np.zeros(ROWS, np.int64)
        self._slot_column = np.zeros(ROWS, np.int32)
        self._what = np.zeros(ROWS, np.int32)
        self._numel = np.zeros(ROWS, np.int64)
        self._rows = 0
        self._slot_of_pid = np.full(PIDS, -1, np.int32)
        self._introduced = 0
        self._section_of_slots = 0
        self._scanned: str | None = None
        self._bytes: Bytes | None = None

    def batches(self) -> Iterator[Columns]:
        """Yield the events, some ten thousand at a time."""
        for at, value in self._values():
            self.events += 1
            self._place = f"event {self.events} (character {at})"
            event = self._typed(value)
            if self.section != self._section_of_slots:
                self._section_of_slots = self.section
                self._slot_of_pid.fill(-1)
            if len(self.tensors) > self._introduced:
                self._introduce()
            if event is not None:
                self._append(event)
                self._learn(value)
            if self._rows > ROWS // 2:
                yield self._taken()
        if not self.events:
            raise InputError.one(str(self.path), "", None, f"holds no event; {EXPECTED}")
        if self._rows:
            yield self._taken()

    def _ahead(self, text: JsonText) -> None:
        text.next_character()
        if self._rows == ROWS - 1:
            return
        if self._scanned is not text.buffer:
            self._scanned = text.buffer
            self._bytes = None
            if text.buffer.isascii():
                self._bytes = np.frombuffer(text.buffer.encode("ascii") + bytes(MARGIN), np.uint8)
        if self._bytes is None:
            return
        self._scan(text)
        while (match := _INTRODUCES.match(text.buffer, text.at)) and int(match[1]) not in self._slots:
            self.events += 1 if match[3] is None else 2
            self._add_tensor(int(match[1]), match[2])
            self._introduce()
            text.at = match.end()
            self._scan(text)

    def _scan(self, text: JsonText) -> None:
        if self._rows == ROWS - 1:
            return
        assert self._bytes is not None
        first = self._rows
        columns = Columns(self._kind[:-1], self._ts, self._slot_column, self._what, self._numel)
        tensors = Tensors(self._slot_of_pid, np.frombuffer(self._state, np.int8))
        text.at, self._rows, passed = scan(
            self._bytes, text.at, columns, self._rows, tensors, self.words.vocabulary
        )
        self.events += passed
        if self.section:
            marks = self._slot_column[first : self._rows]
            marks[marks < 0] = -1 - self.section

    def _append(self, event: TimelineEvent) -> None:
        what, numel = -1, -1
        if event.kind in _WITH_WORD:
            what = self._number(event.what)
        elif event.kind is EventKind.TICK:
            what = event.rank
        elif event.shape is not None:
            what, numel = self._number(event.dtype), self._values_in(event.shape)
        row = self._rows
        self._kind[row], self._ts[row], self._what[row], self._numel[row] = event.kind.value, event.ts_us, what, numel
        self._slot_column[row] = -1 - self.section if event.kind is EventKind.CYCLE else self._slot
        self._rows += 1

    def _number(self, word: str) -> int:
        if len(self.words.names) > MOST_WORDS:
            self._wrong(word, f"is one of more than {MOST_WORDS:,} different operations and activities")
        return self.words.number(word)

    def _values_in(self, shape: tuple[int, ...]) -> int:
        numel = 1
        for extent in shape:
            numel *= extent
            if numel > LARGEST_NUMEL:
                self._wrong(shape, f"has a tensor of more than {LARGEST_NUMEL:,} values")
        return numel

    def _learn(self, value: dict[str, Any]) -> None:
        """Add the words of this event to those that the scan knows."""
        name, args = value.get("name"), value.get("args")
        if isinstance(name, str) and value["ph"] == "B":
            self.words.teach(name)
        if isinstance(args, dict) and isinstance(args.get("dtype"), str):
            self.words.teach(args["dtype"])

    def _introduce(self) -> None:
        if len(self.tensors) > MOST_TENSORS:
            self._wrong(len(self.tensors), f"introduces more than {MOST_TENSORS:,} tensors")
        pid = next(reversed(self._slots))
        if pid < PIDS:
            self._slot_of_pid[pid] = self._slots[pid]
        self._introduced = len(self.tensors)

    def _taken(self) -> Columns:
        rows, self._rows = self._rows, 0
        return Columns(
            self._kind[:rows].copy(), self._ts[:rows].copy(), self._slot_column[:rows].copy(),
            self._what[:rows].copy(), self._numel[:rows].copy(),
        )  # fmt: skip
