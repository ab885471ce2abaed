"""JSON files of any size, read through a rolling buffer: one value at a time, never the whole file.

The file is plain or gzip, or a member of an archive. A file cut off anywhere is read up to the cut. Memory is bounded
by the longest single value, whatever a compressed file unfolds to.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from coordsim.errors import InputError
from coordsim.formats.shared.sources import SourcePath, open_source

CHUNK_BYTES = 1 << 18
VALUE_LIMIT = 1 << 20
"""Default limit of the characters of one value; no format has longer events."""

_SPACE = re.compile(r"[ \t\r\n]*")
_LITERALS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")
_IN_NUMBER = (".", "e", "E", "e+", "e-", "E+", "E-")
"""Characters that may follow where a number was cut off."""
_ESCAPE = 6
"""Number of characters of the longest escape in a string."""


class _Twice(ValueError):
    """An object names a key twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    by_key = dict(pairs)
    if len(by_key) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Twice(next(key for key in keys if keys.count(key) > 1))
    return by_key


_DECODE = json.JSONDecoder(object_pairs_hook=_once).raw_decode


class JsonText:
    """A cursor over a file's text, which forgets the text that it has passed.

    ``expected`` ends every message: what the file should have been. All problems are InputError with the file, and with
    the place if there is one. :attr:`lost` states what a cut removed; None (so far) if nothing is missing. A value
    longer than ``limit`` characters is refused.
    """

    def __init__(self, path: SourcePath, expected: str, kind: str = "event", limit: int = VALUE_LIMIT) -> None:
        self.path = path
        self.lost: str | None = None
        self.buffer = ""
        self.at = 0
        self.cut = False
        """Whether the value at the cursor is cut off."""
        self._expected = expected
        self._kind = kind
        self._limit = limit
        self._pieces = self._text()
        self._dropped = 0

    @property
    def place(self) -> int:
        """The cursor's place in the whole text, characters."""
        return self._dropped + self.at

    def more(self) -> bool:
        """Append a piece; return False at the end of the text."""
        piece = next((piece for piece in self._pieces if piece), "")
        self._dropped += self.at
        self.buffer, self.at = self.buffer[self.at :] + piece, 0
        return bool(piece)

    def next_character(self) -> str:
        """Return the next character that is no white space; "" at the end of the text."""
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

    def value(self) -> Any:
        """Return the value at the cursor, and move behind it; at a cut, set :attr:`cut`."""
        while True:
            try:
                value, end = _DECODE(self.buffer, self.at)
                if end == len(self.buffer) and type(value) in (int, float) and self.more():
                    continue  # its digits may go on
                self.at = end
                return value
            except json.JSONDecodeError as error:
                if not _ran_out(error):
                    self.no_json(self.place + error.pos - self.at, error.msg)
            except _Twice as error:
                self.no_json(self.place, f"an object with two keys {str(error)[:60]!r}")
            except (ValueError, RecursionError) as error:
                reason = "nested too deep" if isinstance(error, RecursionError) else "a number of absurd length"
                self.no_json(self.place, reason)
            held = len(self.buffer) - self.at
            if held > self._limit:
                article = "an" if self._kind[0] in "aeiou" else "a"
                self.no_json(self.place, f"{article} {self._kind} longer than {self._limit:,} characters")
            if not self.more():
                self.cut = True
                self.note_cut(f"the {self._kind} at character {self.place} ({held} characters)")
                return None
            # twice as much before the next attempt, so that a long value is not parsed once a piece
            while len(self.buffer) - self.at < min(2 * held, self._limit + 1) and self.more():
                pass

    def note_cut(self, what: str) -> None:
        """Add to what is lost."""
        self.lost = what if self.lost is None else f"{self.lost}; {what}"

    def wrong(self, what: str) -> NoReturn:
        """Raise InputError: the file is something else."""
        raise InputError.one(str(self.path), "", None, f"{what}; {self._expected}")

    def no_json(self, place: int, reason: str) -> NoReturn:
        """Raise InputError: the text at ``place`` is no JSON."""
        message = f"not JSON at character {place}: {reason}; {self._expected}"
        raise InputError.one(str(self.path), "", None, message)

    def _text(self) -> Iterator[str]:
        """Yield the file's text in pieces. A cut inside the compression or a character ends it without an error."""
        decoder = codecs.getincrementaldecoder("utf-8-sig")()
        for piece in self._bytes():
            try:
                yield decoder.decode(piece, final=not piece)
            except UnicodeDecodeError as error:
                if not piece:
                    self.lost = "the file ends inside a character"
                    return
                message = f"not UTF-8 text: {error.reason}; {self._expected}"
                raise InputError.one(str(self.path), "", None, message) from error

    def _bytes(self) -> Iterator[bytes]:
        """Return unpacked bytes of the file; empty at its end, but not after a cut."""
        if self.path.is_dir():
            raise InputError.one(str(self.path), "", None, f"is a folder; {self._expected}")
        with open_source(self.path) as source:
            while True:
                piece = source.read(CHUNK_BYTES)
                if source.lost is not None:
                    self.lost = source.lost
                    return
                yield piece
                if not piece:
                    return


def _ran_out(error: json.JSONDecodeError) -> bool:
    """Return whether more text could still have made it JSON."""
    rest = error.doc[error.pos :]
    return (
        error.msg.startswith("Unterminated string")
        or (error.msg.startswith("Invalid \\") and len(rest) < _ESCAPE)
        or any(literal.startswith(rest) for literal in _LITERALS)
        or rest in _IN_NUMBER
    )


def members(text: JsonText, arrays: frozenset[str]) -> Iterator[tuple[str, Any]]:
    """Yield (key, value) of a file's one object; for keys in ``arrays``, (key, element) of every element of their list.

    A cut ends the iteration, and is noted. Raises InputError for text that is no object, for a repeated key, and for
    text behind the object.
    """
    first = text.next_character()
    if first != "{":
        text.wrong(f"starts with {first!r}" if first else text.lost or "is empty")
    text.at += 1
    seen: set[str] = set()
    while (character := text.next_character()) not in ("}", ""):
        if seen:
            if character != ",":
                text.no_json(text.place, "expected a comma or the closing brace")
            text.at += 1
            if not text.next_character():
                break
        key = text.value()
        if text.cut:
            return
        if not isinstance(key, str) or text.next_character() not in (":", ""):
            text.no_json(text.place, "expected a key and a colon")
        if key in seen or len(seen) > 1000:
            text.no_json(text.place, f"an object with two keys {key[:60]!r}" if key in seen else "too many keys")
        seen.add(key)
        text.at += 1
        if key in arrays and text.next_character() == "[":
            yield from ((key, element) for element in elements(text))
        elif text.next_character():
            value = text.value()
            if not text.cut:
                yield key, value
        if text.cut:
            return
    if not text.next_character():
        text.note_cut("no closing brace")
        return
    text.at += 1
    if text.next_character():
        text.no_json(text.place, "text after the closing brace")


def elements(text: JsonText) -> Iterator[Any]:
    """Yield the elements of the list at the cursor, up to its end or to a cut."""
    text.at += 1
    first = True
    while (character := text.next_character()) != "]":
        if character and not first:
            if character != ",":
                text.no_json(text.place, "expected a comma or the closing bracket")
            text.at += 1
        if not text.next_character():
            text.cut = True
            text.note_cut("no closing bracket")
            return
        value = text.value()
        if text.cut:
            return
        yield value
        first = False
    text.at += 1
