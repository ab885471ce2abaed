"""Files of formats with small files, read whole, and the beginnings of others; plain, gzip or in an archive."""

from __future__ import annotations

from coordsim.errors import InputError
from coordsim.formats.shared.sources import SourcePath, open_source

_PIECE = 1 << 16


def first_bytes(path: SourcePath, count: int) -> bytes:
    """Return the first ``count`` bytes, unpacked; fewer of a short or cut file. Raises InputError for damaged data."""
    data = bytearray()
    with open_source(path) as source:
        while len(data) < count and (piece := source.read(count - len(data))):
            data += piece
    return bytes(data)


def small_bytes(path: SourcePath, limit: int, expected: str) -> tuple[bytes, str | None]:
    """Return the unpacked content of ``path``, and what a cut inside the compression removed, in words.

    Raises InputError, which ends in ``expected``, if the content is longer than ``limit`` bytes or damaged.
    """
    data = bytearray()
    with open_source(path) as source:
        while len(data) <= limit and (piece := source.read(_PIECE)):
            data += piece
    if len(data) > limit:
        raise InputError.one(str(path), "", None, f"longer than {limit:,} bytes; {expected}")
    return bytes(data), source.lost


def small_text(path: SourcePath, limit: int, expected: str) -> tuple[str, str | None]:
    """Return as :func:`small_bytes`, decoded; another encoding than UTF-8 is an InputError, too."""
    data, lost = small_bytes(path, limit, expected)
    try:
        return data.decode("utf-8", errors="ignore" if lost else "strict"), lost
    except UnicodeDecodeError as error:
        raise InputError.one(str(path), "", None, f"not UTF-8 text: {error.reason}; {expected}") from error
