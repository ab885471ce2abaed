"""Reads timelines of any size: a rolling buffer, never the whole file."""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

from coordsim.errors import InputError
from coordsim.record.timeline.events import CYCLE_START, EPOCH, NEGOTIATE, UNFINISHED, EventKind, TimelineEvent

CHUNK_BYTES = 1 << 18
EVENT_LIMIT = 1 << 20
"""Characters of one event; a longer one is no timeline's."""
EXPECTED = "expected a Horovod timeline: a JSON array of events"

_DECODE = json.JSONDecoder().raw_decode
_SPACE = re.compile(r"[ \t\r\n]*")
_SHAPE = re.compile(r"\[(?:[0-9]{1,15}(?:, ?[0-9]{1,15}){0,31})?\]")
_RANK = re.compile(r"[0-9]{1,9}")
_LITERALS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")
_ESCAPE = 6
"""Characters of the longest escape in a string."""


class TimelineReader:
    """Events of one file, in file order, which is the order in which rank 0 did things.

    Iterate once. Plain or gzip (told by its first bytes). A file cut off anywhere, as by Ctrl-C or a kill, is read
    up to the cut; :attr:`lost` then says what is missing. Raises InputError, with file and place, for what is no
    timeline: no JSON array, no event at all, events of another structure, damaged compression.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.start_epoch_us: int | None = None
        """Wall time of ts 0, microseconds since 1970; None until the header has been read."""
        self.lost: str | None = None
        """What a cut took, in words; None (so far) when nothing is missing."""
        self.events = 0
        """JSON objects read so far, metadata included."""
        self._tensors: dict[int, str] = {}
        self._open: dict[int, list[EventKind]] = {}
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

    def _text(self) -> Iterator[str]:
        """The file's text in pieces. A cut inside the compression or a character ends it quietly."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        if self.path.is_dir():
            raise InputError.one(str(self.path), "", None, f"is a folder; {EXPECTED}")
        try:
            file = open(self.path, "rb")  # noqa: SIM115
        except FileNotFoundError:
            raise InputError.one(str(self.path), "", None, "no such file") from None
        with file:
            packed = file.peek(2)[:2] == b"\x1f\x8b"
            stream: BufferedReader | gzip.GzipFile = gzip.GzipFile(fileobj=file) if packed else file
            while True:
                try:
                    # read1: what is there already is not lost when the next block turns out to be cut
                    piece = stream.read1(CHUNK_BYTES)
                except EOFError:
                    self.lost = "the compressed file is cut off"
                    return
                except (zlib.error, gzip.BadGzipFile) as error:
                    raise InputError.one(str(self.path), "", None, f"damaged compression: {error}") from error
                try:
                    yield decoder.decode(piece, final=not piece)
                except UnicodeDecodeError as error:
                    if not piece:
                        self.lost = "the file ends inside a character"
                        return
                    message = f"not UTF-8 text: {error.reason}; {EXPECTED}"
                    raise InputError.one(str(self.path), "", None, message) from error
                if not piece:
                    return

    def _values(self) -> Iterator[tuple[int, Any]]:
        """(place in characters, JSON value) of every element of the file's one array."""
        text = _Text(self._text())
        first = text.next_character()
        if first != "[":
            found = f"starts with {first!r}" if first else "is empty"
            raise InputError.one(str(self.path), "", None, f"{found}; {EXPECTED}")
        text.at += 1
        while True:
            character = text.next_character()
            if character == "":
                self._cut("no closing bracket")
                return
            if character == "]":
                break
            place = text.place
            value = self._value(text)
            if text.cut:
                return
            yield place, value
            if text.next_character() == ",":
                text.at += 1
            elif text.next_character() not in ("]", ""):
                self._no_json(text.place, "expected a comma or the closing bracket")
        text.at += 1
        if text.next_character():
            self._no_json(text.place, "text after the closing bracket")

    def _value(self, text: _Text) -> Any:
        """The value at the cursor, which moves behind it; at a cut, ``text.cut`` is set."""
        while True:
            try:
                value, text.at = _DECODE(text.buffer, text.at)
                return value
            except json.JSONDecodeError as error:
                if not _ran_out(error):
                    self._no_json(text.place + error.pos - text.at, error.msg)
            except (ValueError, RecursionError) as error:
                reason = "nested too deep" if isinstance(error, RecursionError) else "a number of absurd length"
                self._no_json(text.place, reason)
            if len(text.buffer) - text.at > EVENT_LIMIT:
                self._no_json(text.place, f"an event longer than {EVENT_LIMIT:,} characters")
            if not text.more():
                text.cut = True
                self._cut(f"the event at character {text.place} ({len(text.buffer) - text.at} characters)")
                return None

    def _cut(self, what: str) -> None:
        self.lost = what if self.lost is None else f"{self.lost}; {what}"

    def _no_json(self, place: int, reason: str) -> NoReturn:
        raise InputError.one(str(self.path), "", None, f"not JSON at character {place}: {reason}; {EXPECTED}")

    # The meaning.

    def _typed(self, event: Any) -> TimelineEvent | None:
        if not isinstance(event, dict):
            self._wrong(event, f"is no object; {EXPECTED}")
        phase = event.get("ph")
        if phase == "M":
            self._metadata(event)
            return None
        ts = self._count(event, "ts")
        if phase == "i":
            return TimelineEvent(EventKind.CYCLE, ts) if event.get("name") == CYCLE_START else None
        if phase not in ("B", "E", "X"):
            self._wrong(phase, 'has a "ph" of none of B, E, X, i, M')
        pid = self._count(event, "pid")
        tensor = self._tensors.get(pid)
        if tensor is None:
            self._wrong(pid, f"names pid {pid}, which no process_name event has introduced")
        stack = self._open.setdefault(pid, [])
        if phase == "E":
            return self._end(event, ts, tensor, stack)
        name = event.get("name")
        if not isinstance(name, str):
            self._wrong(name, 'has no text as "name"')
        if phase == "X":
            return self._tick(ts, tensor, stack, name)
        return self._begin(ts, tensor, stack, name)

    def _begin(self, ts: int, tensor: str, stack: list[EventKind], name: str) -> TimelineEvent:
        if not stack:
            negotiates = name.startswith(NEGOTIATE)
            kind = EventKind.NEGOTIATE if negotiates else EventKind.OPERATION
            stack.append(kind)
            return TimelineEvent(kind, ts, tensor, name.removeprefix(NEGOTIATE) if negotiates else name)
        if stack[-1] is EventKind.NEGOTIATE:
            self._wrong(name, f"begins {name!r} of {tensor!r} while it is still negotiated")
        if len(stack) > 16:
            self._wrong(name, f"nests activities of {tensor!r} too deep")
        stack.append(EventKind.ACTIVITY)
        return TimelineEvent(EventKind.ACTIVITY, ts, tensor, name)

    def _end(self, event: dict[str, Any], ts: int, tensor: str, stack: list[EventKind]) -> TimelineEvent:
        args = event.get("args", {})
        if not isinstance(args, dict):
            self._wrong(args, '"args" is no object')
        kind = stack.pop() if stack else EventKind.STRAY_END
        if args.get(UNFINISHED) is True:
            return TimelineEvent(EventKind.UNFINISHED, ts, tensor)
        if kind is EventKind.NEGOTIATE:
            return TimelineEvent(EventKind.AGREED, ts, tensor)
        if kind is EventKind.ACTIVITY:
            return TimelineEvent(EventKind.ACTIVITY_END, ts, tensor)
        if kind is EventKind.STRAY_END or not args:
            ended = kind if kind is EventKind.STRAY_END else EventKind.OPERATION_END
            return TimelineEvent(ended, ts, tensor)
        dtype, shape = args.get("dtype"), args.get("shape")
        if not isinstance(dtype, str):
            self._wrong(dtype, 'has no text as "dtype"')
        if not isinstance(shape, str) or not _SHAPE.fullmatch(shape):
            self._wrong(shape, 'has no "shape" such as "[10, 10]"')
        extents = tuple(int(part) for part in shape[1:-1].split(",") if part)
        return TimelineEvent(EventKind.OPERATION_END, ts, tensor, dtype=dtype, shape=extents)

    def _tick(self, ts: int, tensor: str, stack: list[EventKind], name: str) -> TimelineEvent | None:
        if not _RANK.fullmatch(name):
            self._wrong(name, f"{name!r} is no rank; an X event of a timeline says which rank's request was counted")
        if not stack or stack[-1] is not EventKind.NEGOTIATE:
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
            self.start_epoch_us = self._count(args, EPOCH)
            return
        name = args.get("name")
        if not isinstance(name, str):
            self._wrong(name, "names a process without text")
        if self._tensors.setdefault(pid, name) != name:
            self._wrong(pid, f"gives pid {pid} a second name, {name!r}")

    def _count(self, event: dict[str, Any], key: str) -> int:
        value = event.get(key)
        if type(value) is not int or not 0 <= value < 1 << 63:
            self._wrong(value, f'has no whole number as "{key}"')
        return value

    def _wrong(self, value: Any, message: str) -> NoReturn:
        raise InputError.one(str(self.path), self._place, str(value)[:80], message)


def _ran_out(error: json.JSONDecodeError) -> bool:
    """Whether more text could still have made it JSON."""
    rest = error.doc[error.pos :]
    return (
        error.msg.startswith("Unterminated string")
        or (error.msg.startswith("Invalid \\") and len(rest) < _ESCAPE)
        or any(literal.startswith(rest) for literal in _LITERALS)
    )


class _Text:
    """A cursor over pieces of text that forgets what it has passed."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces = pieces
        self._dropped = 0
        self.buffer = ""
        self.at = 0
        self.cut = False

    @property
    def place(self) -> int:
        """The cursor's place in the whole text, characters."""
        return self._dropped + self.at

    def more(self) -> bool:
        """Append a piece; False at the end of the text."""
        piece = next((piece for piece in self._pieces if piece), "")
        self._dropped += self.at
        self.buffer, self.at = self.buffer[self.at :] + piece, 0
        return bool(piece)

    def next_character(self) -> str:
        """The character behind any white space; "" at the end of the text."""
        if self.at < len(self.buffer) and self.buffer[self.at] > " ":
            return self.buffer[self.at]
        while True:
            match = _SPACE.match(self.buffer, self.at)
            assert match is not None
            self.at = match.end()
            if self.at < len(self.buffer):
                return self.buffer[self.at]
            if not self.more():
                return ""
