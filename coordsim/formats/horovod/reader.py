"""Reads timelines of any size: a rolling buffer, never the whole file."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from coordsim.errors import InputError
from coordsim.formats.horovod.events import CYCLE_START, EPOCH, NEGOTIATE, UNFINISHED, EventKind, TimelineEvent
from coordsim.formats.shared.json_text import JsonText

EXPECTED = "expected a Horovod timeline: a JSON array of events"
IDLE, NEGOTIATING = 0, -1
"""What a tensor's state can be beside the depth of its open operation, 1 without an open activity."""
DEEPEST = 17
MOST_VIEWS = 4096
"""Timelines in one file."""

_SHAPE = re.compile(r"\[(?:[0-9]{1,15}(?:, ?[0-9]{1,15}){0,31})?\]")
_RANK = re.compile(r"[0-9]{1,9}")


class TimelineReader:
    """Events of one file, in file order, which is the order in which rank 0 did things.

    Iterate once. Plain or gzip (told by its first bytes). A file cut off anywhere, as by Ctrl-C or a kill, is read
    up to the cut; :attr:`lost` then says what is missing. Raises InputError, with file and place, for what is no
    timeline: no JSON array, no event at all, events of another structure, damaged compression.

    One file may hold several timelines, merged: one after the other (a process number is introduced again, or a second
    header comes), or with process numbers moved apart (a tensor's name is introduced again). Each has a *view*.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.start_epoch_us: int | None = None
        """Wall time of ts 0, microseconds since 1970; None until the header has been read."""
        self.lost: str | None = None
        """What a cut removed, in words; None (so far) if nothing is missing."""
        self.events = 0
        """Number of JSON objects read so far, metadata included."""
        self.tensors: list[str] = []
        """Names by slot; every pid that was introduced in a timeline has a slot of its own."""
        self.view_of_slot = array("i")
        self.place_of_slot = array("i")
        """Place of each slot among its view's tensors."""
        self.views: list[int] = []
        """Tensors by view."""
        self.epochs: dict[int, int] = {}
        """:attr:`start_epoch_us` by section."""
        self.section_of_view: list[int] = []
        self.section = 0
        """Number of timelines that have ended in the file before the place that is read; cycle marks belong to this
        one."""
        self.foreign: dict[str, int] = {}
        """Events that Horovod does not write, which were passed over -> how many."""
        self._times_of_name: dict[str, int] = {}
        self._unnamed: set[int] = set()
        """Slots of process numbers that no event has named so far, whose names are made up."""
        self.unnamed = 0
        """Number of tensors that were never named."""
        self._view_of: dict[tuple[int, int], int] = {}
        self._slots: dict[int, int] = {}
        self._state = array("b")
        """State by slot: IDLE, NEGOTIATING, or the number of open activities."""
        self._slot = -1
        """Slot of the last event that was interpreted."""
        self._place = ""

    def __iter__(self) -> Iterator[TimelineEvent]:
        for at, value in self._values():
            self.events += 1
            self._place = f"event {self.events} (character {at})"
            event = self._typed(value)
            if event is not None:
                yield event
        if not self.events:
            raise InputError.one(str(self.path), "", None, f"holds no event; {EXPECTED}")

    # The text.

    def _values(self) -> Iterator[tuple[int, Any]]:
        """Yield (place in characters, JSON value) of every element of the file's one array."""
        text = JsonText(self.path, EXPECTED)
        first = text.next_character()
        if first != "[":
            text.wrong(f"starts with {first!r}" if first else text.lost or "is empty")
        text.at += 1
        while True:
            self._ahead(text)
            character = text.next_character()
            if character == "":
                text.note_cut("no closing bracket")
            if character in ("", "]"):
                break
            place = text.place
            value = text.value()
            if text.cut:
                break
            yield place, value
            if text.next_character() == ",":
                text.at += 1
            elif text.next_character() not in ("]", ""):
                text.no_json(text.place, "expected a comma or the closing bracket")
        self.lost = text.lost
        if self.lost is None:
            text.at += 1
            if text.next_character():
                text.no_json(text.place, "text after the closing bracket")

    def _ahead(self, text: JsonText) -> None:
        """Take events off the text at once, where a subclass can; the cursor is where an event may begin."""

    # The meaning.

    def _typed(self, event: Any) -> TimelineEvent | None:
        if not isinstance(event, dict):
            self._wrong(event, f"is no object; {EXPECTED}")
        phase = event.get("ph")
        if phase == "M":
            self._metadata(event)
            return None
        if not isinstance(phase, str):
            self._wrong(phase, f'has no text as "ph"; {EXPECTED}')
        if phase not in ("B", "E", "X", "i"):
            self._pass_over('another "ph" than B, E, X, i or M')
            return None
        if phase == "X" and not _is_rank(event.get("name")):
            self._pass_over("an X event whose name is no rank")
            return None
        if phase == "i" and event.get("name") != CYCLE_START:
            self._pass_over("another instant event than CYCLE_START")
            return None
        ts = self._count(event, "ts")
        if phase == "i":
            return TimelineEvent(EventKind.CYCLE, ts)
        pid = self._count(event, "pid")
        slot = self._slots.get(pid)
        if slot is None:
            slot = self._add_tensor(pid, f"pid {pid}")
            self._unnamed.add(slot)
        self._slot, tensor = slot, self.tensors[slot]
        if phase == "E":
            return self._end(event, ts, tensor)
        name = event.get("name")
        if not isinstance(name, str):
            self._wrong(name, 'has no text as "name"')
        if phase == "X":
            return self._tick(ts, tensor, name)
        return self._begin(ts, tensor, name)

    def _begin(self, ts: int, tensor: str, name: str) -> TimelineEvent:
        state = self._state[self._slot]
        if state == IDLE:
            negotiates = name.startswith(NEGOTIATE)
            self._state[self._slot] = NEGOTIATING if negotiates else 1
            kind = EventKind.NEGOTIATE if negotiates else EventKind.OPERATION
            return TimelineEvent(kind, ts, tensor, name.removeprefix(NEGOTIATE) if negotiates else name)
        if state == NEGOTIATING:
            self._wrong(name, f"begins {name[:80]!r} of {tensor[:80]!r} while it is still negotiated")
        if state == DEEPEST:
            self._wrong(name, f"nests activities of {tensor[:80]!r} too deep")
        self._state[self._slot] += 1
        return TimelineEvent(EventKind.ACTIVITY, ts, tensor, name)

    def _end(self, event: dict[str, Any], ts: int, tensor: str) -> TimelineEvent:
        args = event.get("args", {})
        if not isinstance(args, dict):
            self._wrong(args, '"args" is no object')
        state = self._state[self._slot]
        if state != IDLE:
            self._state[self._slot] = IDLE if state == NEGOTIATING else state - 1
        if args.get(UNFINISHED) is True:
            return TimelineEvent(EventKind.UNFINISHED, ts, tensor)
        if state == NEGOTIATING:
            return TimelineEvent(EventKind.AGREED, ts, tensor)
        if state > 1:
            return TimelineEvent(EventKind.ACTIVITY_END, ts, tensor)
        if state == IDLE or not args:
            return TimelineEvent(EventKind.STRAY_END if state == IDLE else EventKind.OPERATION_END, ts, tensor)
        dtype, shape = args.get("dtype"), args.get("shape")
        if not isinstance(dtype, str):
            self._wrong(dtype, 'has no text as "dtype"')
        if not isinstance(shape, str) or not _SHAPE.fullmatch(shape):
            self._wrong(shape, 'has no "shape" such as "[10, 10]"')
        extents = tuple(int(part) for part in shape[1:-1].split(",") if part)
        return TimelineEvent(EventKind.OPERATION_END, ts, tensor, dtype=dtype, shape=extents)

    def _tick(self, ts: int, tensor: str, name: str) -> TimelineEvent | None:
        if self._state[self._slot] != NEGOTIATING:
            return None  # the recording began in the middle of this negotiation
        return TimelineEvent(EventKind.TICK, ts, tensor, rank=int(name))

    def _metadata(self, event: dict[str, Any]) -> None:
        if event.get("name") != "process_name":
            return
        args = event.get("args")
        if not isinstance(args, dict):
            self._wrong(args, 'has no object as "args"')
        pid = self._count(event, "pid")
        if pid == 0 and EPOCH in args:
            epoch = self._count(args, EPOCH)
            if self.section in self.epochs or self._slots:
                self._begin_section()
            self.epochs[self.section] = epoch
            if self.start_epoch_us is None:
                self.start_epoch_us = epoch
            return
        name = args.get("name")
        if not isinstance(name, str):
            self._wrong(name, "names a process without text")
        known = self._slots.get(pid)
        if known is not None and known in self._unnamed:  # events came first, as in a file that a viewer saved
            self.tensors[known] = name
            self._unnamed.discard(known)
            return
        if known is not None:
            self._begin_section()
        self._add_tensor(pid, name)

    def _begin_section(self) -> None:
        """Begin another timeline, since Horovod introduces a process number once."""
        self.section += 1
        self._slots = {}
        self._times_of_name = {}
        self._unnamed = set()

    def _add_tensor(self, pid: int, name: str) -> int:
        times = self._times_of_name.get(name, 0)
        self._times_of_name[name] = times + 1
        view = self._view_of.setdefault((self.section, times), len(self.views))
        if view == len(self.views):
            if view == MOST_VIEWS:
                self._wrong(name, f"begins more than {MOST_VIEWS:,} timelines in one file")
            self.views.append(0)
            self.section_of_view.append(self.section)
        self._slots[pid] = len(self.tensors)
        self.tensors.append(name)
        self.view_of_slot.append(view)
        self.place_of_slot.append(self.views[view])
        self.views[view] += 1
        self._state.append(IDLE)
        return self._slots[pid]

    def _pass_over(self, what: str) -> None:
        self.foreign[what] = self.foreign.get(what, 0) + 1

    def _count(self, event: dict[str, Any], key: str) -> int:
        value = event.get(key)
        if type(value) is not int or not 0 <= value < 1 << 63:
            self._wrong(value, f'has no whole number as "{key}", 0 to 2^63 - 1; {EXPECTED}')
        return value

    def _wrong(self, value: Any, message: str) -> NoReturn:
        raise InputError.one(str(self.path), self._place, str(value)[:80], message)


def _is_rank(name: Any) -> bool:
    return isinstance(name, str) and _RANK.fullmatch(name) is not None
