"""Compiled scan over events of exactly the form that Horovod writes; it stops at anything else.

What it understands it understands as :class:`coordsim.formats.horovod.reader.TimelineReader` does, which takes over
where it stops. Words are known by the exact bytes between their quotes and taught by :class:`Words`.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from coordsim.formats.horovod.events import NEGOTIATE, EventKind
from coordsim.formats.shared.compiled import compiled

Bytes = npt.NDArray[np.uint8]
Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

MARGIN: Final = 2048
"""Zeros that must follow the text, so that nothing needs to look for its end."""
PIDS = 1 << 20
"""Tensors' pids below it are scanned; Horovod numbers them from 1."""
LARGEST_NUMEL = 1 << 50

_WORD: Final = 256
_TABLE: Final = 1 << 12
_WORDS = 1 << 10
_ARENA = 1 << 16

_CYCLE, _NEGOTIATE, _TICK, _AGREED = (
    EventKind.CYCLE.value, EventKind.NEGOTIATE.value, EventKind.TICK.value, EventKind.AGREED.value
)  # fmt: skip
_OPERATION, _ACTIVITY, _ACTIVITY_END = (
    EventKind.OPERATION.value, EventKind.ACTIVITY.value, EventKind.ACTIVITY_END.value
)  # fmt: skip
_OPERATION_END, _STRAY_END = EventKind.OPERATION_END.value, EventKind.STRAY_END.value


def _literal(text: str) -> Bytes:
    return np.frombuffer(text.encode(), dtype=np.uint8).copy()


_PHASE: Final = _literal('{"ph": "')
_MARK: Final = _literal('i", "name": "CYCLE_START", "ts": ')
_MARK_END: Final = _literal(', "s": "g"}')
_NAME: Final = _literal('", "name": "')
_TS: Final = _literal('", "ts": ')
_PID: Final = _literal(', "pid": ')
_DUR: Final = _literal(', "dur": 0}')
_ARGS: Final = _literal(', "args": {"dtype": "')
_SHAPE: Final = _literal('", "shape": "[')
_ARGS_END: Final = _literal(']"}}')


class Words:
    """The words of operations, activities and types that the scan knows, by number."""

    def __init__(self) -> None:
        self.names: list[str] = []
        """By number."""
        self._numbers: dict[str, int] = {}
        self.arena = np.zeros(_ARENA, np.uint8)
        self.table = np.full(_TABLE, -1, np.int32)
        """Hash -> entry of ``entries``."""
        self.entries = np.zeros((_WORDS, 4), np.int64)
        """Place and length in the arena, number as it stands, number without NEGOTIATE_ (-1: does not begin so)."""
        self._taught: set[str] = set()
        self._used = 0

    def number(self, word: str) -> int:
        """The number of ``word``, a new one at first sight."""
        found = self._numbers.setdefault(word, len(self.names))
        if found == len(self.names):
            self.names.append(word)
        return found

    def teach(self, word: str) -> None:
        """Let the scan know ``word``, where it is written as plain ASCII and there is room."""
        raw = word.encode("utf-8", "surrogatepass")
        plain = word.isascii() and word.isprintable() and '"' not in word and "\\" not in word and len(raw) < _WORD
        if not plain or word in self._taught or len(self._taught) == _WORDS or self._used + len(raw) > _ARENA:
            return
        negotiates = self.number(word.removeprefix(NEGOTIATE)) if word.startswith(NEGOTIATE) else -1
        self.arena[self._used : self._used + len(raw)] = np.frombuffer(raw, np.uint8)
        entry = len(self._taught)
        self.entries[entry] = self._used, len(raw), self.number(word), negotiates
        place = _hash(self.arena, self._used, len(raw)) % _TABLE
        while self.table[place] >= 0:
            place = (place + 1) % _TABLE
        self.table[place] = entry
        self._used += len(raw)
        self._taught.add(word)


@compiled
def _hash(text: Bytes, at: int, length: int) -> int:
    state = np.uint32(2166136261)
    for index in range(at, at + length):
        state = np.uint32((state ^ np.uint32(text[index])) * np.uint32(16777619))
    return int(state)


@compiled
def _is(text: Bytes, at: int, literal: Bytes) -> bool:
    for index in range(literal.size):  # noqa: SIM110
        if text[at + index] != literal[index]:
            return False
    return True


@compiled
def _whole(text: Bytes, at: int) -> tuple[int, int]:
    """The number at ``at`` and the place behind it; -1 where JSON has no number, or a long one."""
    value, begin = 0, at
    while 48 <= text[at] <= 57 and at - begin < 18:
        value = value * 10 + int(text[at]) - 48
        at += 1
    if at == begin or (at - begin > 1 and text[begin] == 48) or 48 <= text[at] <= 57:
        return -1, at
    return value, at


@compiled
def _word(text: Bytes, at: int, arena: Bytes, table: Int32, entries: Int64) -> tuple[int, int]:
    """Entry of the word at ``at`` and the place of its closing quote; -1: not known."""
    begin = at
    while at - begin < _WORD and text[at] != 34 and text[at] != 92:
        at += 1
    if text[at] != 34:
        return -1, at
    length = at - begin
    place = _hash(text, begin, length) % _TABLE
    while table[place] >= 0:
        entry = table[place]
        if entries[entry, 1] == length:
            same = True
            for index in range(length):
                if text[begin + index] != arena[entries[entry, 0] + index]:
                    same = False
                    break
            if same:
                return entry, at
        place = (place + 1) % _TABLE
    return -1, at


@compiled
def _rank(text: Bytes, at: int) -> tuple[int, int]:
    value, begin = 0, at
    while 48 <= text[at] <= 57 and at - begin < 9:
        value = value * 10 + int(text[at]) - 48
        at += 1
    return (value if at > begin else -1), at


@compiled
def _numel(text: Bytes, at: int) -> tuple[int, int]:
    """Product of the extents at ``at``, behind the opening bracket, and the place of the closing one; -1: none."""
    product, extents = 1, 0
    if text[at] == 93:
        return product, at
    while extents < 32:
        value, begin = 0, at
        while 48 <= text[at] <= 57 and at - begin < 15:
            value = value * 10 + int(text[at]) - 48
            at += 1
        if at == begin:
            return -1, at
        if value and product > LARGEST_NUMEL // value:
            return -1, at
        product *= value
        extents += 1
        if text[at] == 93:
            return product, at
        if text[at] != 44:
            return -1, at
        at += 1
        if text[at] == 32:
            at += 1
    return -1, at


@compiled
def scan(
    text: Bytes, at: int, kinds: Bytes, ts: Int64, slots: Int32, whats: Int32, numels: Int64, count: int,
    slot_of_pid: Int32, state: Int8, arena: Bytes, table: Int32, entries: Int64,
) -> tuple[int, int, int]:  # fmt: skip
    """Events from ``at`` on, each with the comma behind it, into the columns from row ``count`` on.

    Returns the place of the first event that was not understood, the rows now filled, and the events passed.
    """
    limit, room, passed = text.size - MARGIN, kinds.size, 0
    while at < limit and count < room:
        if not _is(text, at, _PHASE):
            break
        phase = text[at + 8]
        kind, slot, what, numel, new_state = 0, -1, -1, -1, 0
        if phase == 105:  # i
            if not _is(text, at + 8, _MARK):
                break
            when, end = _whole(text, at + 8 + _MARK.size)
            if when < 0 or not _is(text, end, _MARK_END):
                break
            kind = _CYCLE
            end += _MARK_END.size
        else:
            end = at + 9
            entry, rank = -1, -1
            if phase == 66 or phase == 88:  # B, X
                if not _is(text, end, _NAME):
                    break
                end += _NAME.size
                if phase == 66:
                    entry, end = _word(text, end, arena, table, entries)
                else:
                    rank, end = _rank(text, end)
                if entry < 0 and rank < 0:
                    break
            elif phase != 69:  # E
                break
            if not _is(text, end, _TS):
                break
            when, end = _whole(text, end + _TS.size)
            if when < 0 or not _is(text, end, _PID):
                break
            pid, end = _whole(text, end + _PID.size)
            if pid < 0 or pid >= slot_of_pid.size:
                break
            slot = slot_of_pid[pid]
            if slot < 0:
                break
            before = state[slot]
            if phase == 66:
                if before == -1 or before > 15 or text[end] != 125:
                    break
                end += 1
                if before == 0:
                    negotiates = entries[entry, 3] >= 0
                    kind, new_state = (_NEGOTIATE, -1) if negotiates else (_OPERATION, 1)
                    what = entries[entry, 3] if negotiates else entries[entry, 2]
                else:
                    kind, new_state, what = _ACTIVITY, before + 1, entries[entry, 2]
            elif phase == 88:
                if not _is(text, end, _DUR):
                    break
                end += _DUR.size
                new_state = before
                if before == -1:
                    kind, what = _TICK, rank
            else:
                if text[end] == 125:
                    end += 1
                else:
                    if not _is(text, end, _ARGS):
                        break
                    entry, end = _word(text, end + _ARGS.size, arena, table, entries)
                    if entry < 0 or not _is(text, end, _SHAPE):
                        break
                    numel, end = _numel(text, end + _SHAPE.size)
                    if numel < 0 or not _is(text, end, _ARGS_END):
                        break
                    end += _ARGS_END.size
                    what = entries[entry, 2]
                if before == 0:
                    kind = _STRAY_END
                elif before == -1:
                    kind = _AGREED
                elif before == 1:
                    kind = _OPERATION_END
                else:
                    kind, new_state = _ACTIVITY_END, before - 1
                if kind != _OPERATION_END:
                    what, numel = -1, -1
        if text[end] != 44:
            break
        end += 1
        while end < limit and (text[end] == 32 or text[end] == 10 or text[end] == 13 or text[end] == 9):
            end += 1
        if slot >= 0:
            state[slot] = new_state
        if kind:
            kinds[count], ts[count], slots[count], whats[count], numels[count] = kind, when, slot, what, numel
            count += 1
        at = end
        passed += 1
    return at, count, passed
