"""Compiled scan over events of exactly the form that Horovod writes; it stops at anything else.

What it understands it understands as :class:`coordsim.formats.horovod.reader.TimelineReader` does, which takes over
where it stops. Words are known by the exact bytes between their quotes and taught by :class:`Words`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from coordsim.compiling import borrowing, compiled, inlined
from coordsim.formats.horovod.events import NEGOTIATE, EventKind

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
_I, _B, _X, _E, _COMMA, _BRACE = (ord(letter) for letter in "iBXE,}")
_DEEPEST: Final = 15
"""Activities nested deeper are the strict reader's to judge."""


class Columns(NamedTuple):
    """Some events, in file order; each column has shape [event]."""

    kind: Bytes
    """Value of :class:`EventKind`."""
    ts_us: Int64
    slot: Int32
    """The tensor, an index of ``tensors``; of a CYCLE -1, or -1 less the number of timelines that ended before it."""
    what: Int32
    """NEGOTIATE, OPERATION, ACTIVITY, OPERATION_END: number of the operation, activity or type; TICK: the rank."""
    numel: Int64
    """OPERATION_END of a success: values of the output; else -1."""


class Tensors(NamedTuple):
    """What is known of tensors; the scan goes on from it and writes it back."""

    slot_of_pid: Int32
    """Shape [pid]: the tensor that a pid stands for; -1: none."""
    state: Int8
    """Shape [tensor]: -1 while it is negotiated, else how many operations and activities are open in one another."""


class Vocabulary(NamedTuple):
    """:class:`Words`, as the scan looks them up."""

    arena: Bytes
    table: Int32
    entries: Int64


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

    @property
    def vocabulary(self) -> Vocabulary:
        """What was taught, for the scan; not copied."""
        return Vocabulary(self.arena, self.table, self.entries)

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
def _word(text: Bytes, at: int, words: Vocabulary) -> tuple[int, int]:
    """Entry of the word at ``at`` and the place of its closing quote; -1: not known."""
    arena, table, entries = words
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


class _Event(NamedTuple):
    """One event, as far as it was understood."""

    end: int
    """The place behind its last brace; -1: it is not of the form that is scanned."""
    kind: int = 0
    """Value of :class:`EventKind`; 0: nothing that anybody counts."""
    when: int = 0
    slot: int = -1
    what: int = -1
    numel: int = -1
    state: int = 0
    """What is open of the tensor behind the event: -1 a negotiation, else so many nested operations and activities."""


_NOT_UNDERSTOOD = _Event(-1)


@inlined
def _mark(text: Bytes, at: int) -> _Event:
    """A cycle's mark; ``at``: its phase."""
    if not _is(text, at, _MARK):
        return _NOT_UNDERSTOOD
    when, end = _whole(text, at + _MARK.size)
    if when < 0 or not _is(text, end, _MARK_END):
        return _NOT_UNDERSTOOD
    return _Event(end + _MARK_END.size, _CYCLE, when, -1, -1, -1, 0)


@inlined
def _time_and_tensor(text: Bytes, at: int, tensors: Tensors) -> tuple[int, int, int]:
    """Time, tensor and the place behind them; the tensor is -1 where they are not as Horovod writes them."""
    if not _is(text, at, _TS):
        return 0, -1, at
    when, end = _whole(text, at + _TS.size)
    if when < 0 or not _is(text, end, _PID):
        return 0, -1, end
    pid, end = _whole(text, end + _PID.size)
    if pid < 0 or pid >= tensors.slot_of_pid.size:
        return 0, -1, end
    return when, int(np.int64(tensors.slot_of_pid[pid])), end


@inlined
def _begin(text: Bytes, at: int, tensors: Tensors, words: Vocabulary) -> _Event:
    """B: a negotiation, an operation, or an activity inside one; ``at``: behind the phase."""
    if not _is(text, at, _NAME):
        return _NOT_UNDERSTOOD
    entry, end = _word(text, at + _NAME.size, words)
    if entry < 0:
        return _NOT_UNDERSTOOD
    when, slot, end = _time_and_tensor(text, end, tensors)
    if slot < 0:
        return _NOT_UNDERSTOOD
    before = int(np.int64(tensors.state[slot]))
    if before == -1 or before > _DEEPEST or text[end] != _BRACE:
        return _NOT_UNDERSTOOD
    whole, negotiated = int(words.entries[entry, 2]), int(words.entries[entry, 3])
    if before > 0:
        return _Event(end + 1, _ACTIVITY, when, slot, whole, -1, before + 1)
    if negotiated >= 0:
        return _Event(end + 1, _NEGOTIATE, when, slot, negotiated, -1, -1)
    return _Event(end + 1, _OPERATION, when, slot, whole, -1, 1)


@inlined
def _tick(text: Bytes, at: int, tensors: Tensors) -> _Event:
    """X: rank 0 has counted a request; outside a negotiation it says nothing. ``at``: behind the phase."""
    if not _is(text, at, _NAME):
        return _NOT_UNDERSTOOD
    rank, end = _rank(text, at + _NAME.size)
    if rank < 0:
        return _NOT_UNDERSTOOD
    when, slot, end = _time_and_tensor(text, end, tensors)
    if slot < 0 or not _is(text, end, _DUR):
        return _NOT_UNDERSTOOD
    before = int(np.int64(tensors.state[slot]))
    if before == -1:
        return _Event(end + _DUR.size, _TICK, when, slot, rank, -1, before)
    return _Event(end + _DUR.size, 0, when, slot, -1, -1, before)


@inlined
def _end(text: Bytes, at: int, tensors: Tensors, words: Vocabulary) -> _Event:
    """E: of what was begun last; an operation's may have its output's type and shape. ``at``: behind the phase."""
    when, slot, end = _time_and_tensor(text, at, tensors)
    if slot < 0:
        return _NOT_UNDERSTOOD
    what, numel = -1, -1
    if text[end] == _BRACE:
        end += 1
    else:
        what, numel, end = _output(text, end, words)
        if numel < 0:
            return _NOT_UNDERSTOOD
    before = int(np.int64(tensors.state[slot]))
    if before == 1:
        return _Event(end, _OPERATION_END, when, slot, what, numel, 0)
    if before == 0:
        return _Event(end, _STRAY_END, when, slot, -1, -1, 0)
    if before == -1:
        return _Event(end, _AGREED, when, slot, -1, -1, 0)
    return _Event(end, _ACTIVITY_END, when, slot, -1, -1, before - 1)


@inlined
def _output(text: Bytes, at: int, words: Vocabulary) -> tuple[int, int, int]:
    """An output's type, its number of values and the place behind both; -1 values where they are not understood."""
    if not _is(text, at, _ARGS):
        return -1, -1, at
    entry, end = _word(text, at + _ARGS.size, words)
    if entry < 0 or not _is(text, end, _SHAPE):
        return -1, -1, end
    numel, end = _numel(text, end + _SHAPE.size)
    if numel < 0 or not _is(text, end, _ARGS_END):
        return -1, -1, end
    return int(words.entries[entry, 2]), numel, end + _ARGS_END.size


@inlined
def _behind_comma(text: Bytes, at: int, limit: int) -> int:
    """The place of what comes behind the comma at ``at`` and white space."""
    at += 1
    while at < limit and (text[at] == 32 or text[at] == 10 or text[at] == 13 or text[at] == 9):
        at += 1
    return at


@borrowing
def scan(
    text: Bytes, at: int, columns: Columns, count: int, tensors: Tensors, words: Vocabulary
) -> tuple[int, int, int]:
    """Events from ``at`` on, each with the comma behind it, into the columns from row ``count`` on.

    Returns the place of the first event that was not understood, the rows now filled, and the events passed.
    """
    limit, room, passed = text.size - MARGIN, columns.kind.size, 0
    while at < limit and count < room:
        if not _is(text, at, _PHASE):
            break
        place = at + _PHASE.size
        phase = text[place]
        if phase == _I:
            event = _mark(text, place)
        elif phase == _B:
            event = _begin(text, place + 1, tensors, words)
        elif phase == _X:
            event = _tick(text, place + 1, tensors)
        elif phase == _E:
            event = _end(text, place + 1, tensors, words)
        else:
            break
        if event.end < 0 or text[event.end] != _COMMA:  # without a comma it may be the last one, or cut off
            break
        at = _behind_comma(text, event.end, limit)
        passed += 1
        if event.slot >= 0:
            tensors.state[event.slot] = event.state
        if event.kind:
            columns.kind[count], columns.ts_us[count], columns.slot[count] = event.kind, event.when, event.slot
            columns.what[count], columns.numel[count] = event.what, event.numel
            count += 1
    return at, count, passed
