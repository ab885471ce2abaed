"""The lines of a log of any size, one at a time.

NCCL names host and process in each of its lines, so launchers' prefixes need not be removed. Only if mpirun tags pieces
of lines (``--tag-output``) they are joined again by :class:`WrappedLines`, which takes twice the time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from coordsim.formats.shared.small_files import first_bytes
from coordsim.formats.shared.sources import SourcePath, decoded_pieces, open_source
from coordsim.formats.shared.wrapped_lines import WrappedLines

LONGEST = 1 << 16
"""Number of characters of a line that are kept."""
_HEAD = 1 << 16
_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_TAG = re.compile(rb"<std(?:out|err|diag)>:")
_DOCKER = '{"log":"'


class LogLines:
    """Iterates once over a log's lines.

    Raises InputError for a file that cannot be opened, and for damaged compression. :attr:`lost` states what a cut
    inside the compression removed; None so far if nothing is missing.
    """

    def __init__(self, path: SourcePath) -> None:
        self.path = path
        self.lost: str | None = None

    def __iter__(self) -> Iterator[str]:
        if _TAG.search(first_bytes(self.path, _HEAD)):
            wrapped = WrappedLines(self.path)
            for whole in wrapped:
                yield whole.text[:LONGEST]
            self.lost = wrapped.lost
            return
        for text in self._physical():
            line = _ESCAPE.sub("", text) if "\x1b" in text else text
            yield _unpacked(line) if line.startswith(_DOCKER) else line

    def _physical(self) -> Iterator[str]:
        rest = ""
        for text in self._decoded():
            *lines, rest = (rest + text).split("\n")
            for line in lines:
                yield line[:LONGEST]
            rest = rest[:LONGEST]
        if rest:
            yield rest

    def _decoded(self) -> Iterator[str]:
        with open_source(self.path) as source:
            yield from decoded_pieces(source)
            self.lost = source.lost


def _unpacked(line: str) -> str:
    """Return the text that Docker's log driver json-file wrapped."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return line
    return str(value.get("log", ""))[:LONGEST].rstrip("\n") if isinstance(value, dict) else line
