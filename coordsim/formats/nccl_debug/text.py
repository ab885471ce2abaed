"""The lines of a log of any size, one at a time."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from coordsim.errors import InputError

_MAGIC = b"\x1f\x8b"
_PIECE = 1 << 18
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
LONGEST = 1 << 16
"""Characters of a line that are kept."""


class LogLines:
    """Iterates over a log's lines, without colours; :attr:`lost` says what a cut took."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost: str | None = None

    def __iter__(self) -> Iterator[str]:
        rest = b""
        for piece in self._pieces():
            *lines, rest = (rest + piece).split(b"\n")
            yield from map(self._decoded, lines)
            rest = rest[:LONGEST]
        if rest:
            yield self._decoded(rest)

    @staticmethod
    def _decoded(line: bytes) -> str:
        text = line[:LONGEST].decode("utf-8", errors="replace")
        return _COLOUR.sub("", text) if "\x1b" in text else text

    def _pieces(self) -> Iterator[bytes]:
        with open(self.path, "rb") as file:
            stream = gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == _MAGIC else file
            while True:
                try:
                    piece = stream.read1(_PIECE)
                except EOFError:
                    self.lost = "the compressed file is cut off"
                    return
                except (zlib.error, gzip.BadGzipFile) as error:
                    raise InputError.one(str(self.path), "", None, f"damaged compression: {error}") from error
                if not piece:
                    return
                yield piece
