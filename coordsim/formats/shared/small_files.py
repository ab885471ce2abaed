"""Files that are small for what they are, read whole, and the beginnings of others; plain or gzip."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from coordsim.errors import InputError

_MAGIC = b"\x1f\x8b"
_PIECE = 1 << 16


def first_bytes(path: Path, count: int) -> bytes:
    """The first bytes, unpacked; as many as a damaged or cut file has, and at most ``count``."""
    with open(path, "rb") as file:
        head = file.read(count)
    if head[:2] != _MAGIC:
        return head
    try:
        return zlib.decompressobj(31).decompress(head, count)
    except zlib.error as error:
        raise _damaged(path, error) from error


def small_bytes(path: Path, limit: int, expected: str) -> tuple[bytes, str | None]:
    """What is in ``path``, unpacked, and what a cut inside the compression took, in words.

    Raises InputError, which ends in ``expected``, when that is longer than ``limit`` bytes or damaged.
    """
    data, lost = bytearray(), None
    with open(path, "rb") as file:
        stream = gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == _MAGIC else file
        try:
            while len(data) <= limit and (piece := stream.read1(_PIECE)):
                data += piece
        except EOFError:
            lost = "the compressed file is cut off"
        except (zlib.error, gzip.BadGzipFile) as error:
            raise _damaged(path, error) from error
    if len(data) > limit:
        raise InputError.one(str(path), "", None, f"longer than {limit:,} bytes; {expected}")
    return bytes(data), lost


def small_text(path: Path, limit: int, expected: str) -> tuple[str, str | None]:
    """As :func:`small_bytes`, decoded; another encoding than UTF-8 is an InputError too."""
    data, lost = small_bytes(path, limit, expected)
    try:
        return data.decode("utf-8", errors="ignore" if lost else "strict"), lost
    except UnicodeDecodeError as error:
        raise InputError.one(str(path), "", None, f"not UTF-8 text: {error.reason}; {expected}") from error


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError.one(str(path), "", None, f"damaged compression: {error}")
