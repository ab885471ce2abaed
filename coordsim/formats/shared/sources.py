"""Where the bytes of a source lie: a file, or a member of a zip or tar archive; plain or gzip.

Readers take a :data:`SourcePath`, print it, and open it with :func:`open_source` (mostly through
:class:`~coordsim.formats.shared.json_text.JsonText` and :mod:`~coordsim.formats.shared.small_files`). A member's name
is printed and never used as a path: a member is found by its place in the archive.
"""

from __future__ import annotations

import codecs
import gzip
import io
import lzma
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

from coordsim.errors import InputError

GZIP_MAGIC = b"\x1f\x8b"
_DEFLATE = b"\x08"
LARGEST_DIRECTORY = 1 << 26
"""Largest size of a zip archive's central directory, which :mod:`zipfile` reads whole."""
_END, _END_BYTES, _COMMENT_BYTES = b"PK\x05\x06", 22, 1 << 16
_END64, _LOCATOR_BYTES, _END64_BYTES = b"PK\x06\x06", 20, 56
_LOG_PIECE = 1 << 18


@dataclass(frozen=True, slots=True)
class Member:
    """One file inside an archive. It can be pickled, and opened in another process, as a :class:`~pathlib.Path` can."""

    archive: Path
    """The archive, as the user named it; printed."""
    inner: str
    """The member's name in the archive; printed, never opened."""
    store: Path
    """The file that has the bytes: the archive, or the file to which a compressed tar was unpacked."""
    index: int
    """Place in a zip's directory; -1 for a tar."""
    offset: int = 0
    """First byte in ``store``, for a tar."""
    size: int = 0
    """Unpacked size in bytes, as the archive states it."""

    @property
    def name(self) -> str:
        """Last part of the member's name."""
        return self.inner.replace("\\", "/").rstrip("/").rpartition("/")[2]

    @property
    def parent(self) -> Path:
        """The archive, which messages about several members name."""
        return self.archive

    @property
    def suffix(self) -> str:
        """Suffix as of a path: ``.json``; empty if the name has no dot."""
        stem, dot, last = self.name.rpartition(".")
        return dot + last if stem else ""

    def is_dir(self) -> bool:
        """False: only files are listed."""
        return False

    def __str__(self) -> str:
        return f"{self.archive}: {self.inner}"


SourcePath: TypeAlias = Path | Member
"""The argument of a reader. Both have ``name``, ``parent``, ``suffix`` and ``str()``; only ``open_source`` opens
them."""


def names_in_job(paths: Sequence[SourcePath]) -> list[str]:
    """Return a name for each file of a job, different for all.

    It is the file's own name or, if some share it, the path below the folder that contains all.
    """
    own = [path.name for path in paths]
    if len(set(own)) == len(own):
        return own
    parts = [_parts(path) for path in paths]
    common = len(list(takewhile(lambda level: len(set(level)) == 1, zip(*parts, strict=False))))
    names: list[str] = []
    seen: Counter[str] = Counter()
    for name, of_path in zip(own, parts, strict=True):
        longer = "/".join(of_path[common:]) or name
        seen[longer] += 1  # an archive may hold two members of one name
        names.append(longer if seen[longer] == 1 else f"{longer} ({seen[longer]})")
    return names


def _parts(path: SourcePath) -> list[str]:
    if isinstance(path, Member):
        return [*path.archive.parts, *path.inner.replace("\\", "/").strip("/").split("/")]
    return list(path.parts)


class Unpacked:
    """The unpacked bytes of a source, read once from the front.

    :attr:`lost` states what a cut inside the compression removed, once it was reached; None so far if nothing is
    missing.
    """

    def __init__(self, path: SourcePath, file: BinaryIO) -> None:
        self.lost: str | None = None
        self._path = path
        buffered = cast(io.BufferedReader, file)
        head = self._checked(lambda: buffered.peek(3)[:3])
        packed = head[:2] == GZIP_MAGIC
        if packed and head[2:] not in (b"", _DEFLATE):
            message = f"damaged compression: gzip has no method {head[2]}"
            raise InputError.one(str(path), "", head[2], message)
        self._stream = cast(io.BufferedReader, gzip.GzipFile(fileobj=buffered)) if packed else buffered

    def read(self, count: int) -> bytes:
        """Return up to ``count`` bytes, at least one; none at the end or at a cut. Raises InputError for damaged
        data."""
        # read1: bytes that are there already are not lost when the next block turns out to be cut
        return self._checked(lambda: self._stream.read1(count))

    def _checked(self, action: Callable[[], bytes]) -> bytes:
        try:
            return action()
        except EOFError:
            self.lost = "the archive is cut off" if isinstance(self._path, Member) else "the compressed file is cut off"
            return b""
        except (zlib.error, lzma.LZMAError, zipfile.BadZipFile, OSError) as error:  # bz2 and gzip raise OSError
            raise InputError.one(str(self._path), "", None, f"damaged compression: {error}") from error


@contextmanager
def open_source(path: SourcePath) -> Iterator[Unpacked]:
    """Open ``path`` for reading from the front.

    Raises InputError for a folder, for a path that does not exist, and for a member that is encrypted or packed by a
    method that Python does not have.
    """
    if path.is_dir():
        raise InputError.one(str(path), "", None, "is a folder")
    try:
        file = _open_member(path) if isinstance(path, Member) else cast(BinaryIO, open(path, "rb"))  # noqa: SIM115
    except FileNotFoundError:
        raise InputError.one(str(path), "", None, "no such file") from None
    except OSError as error:
        raise InputError.one(str(path), "", None, f"cannot be read: {error.strerror or error}") from error
    with file:
        yield Unpacked(path, file)


def _open_member(member: Member) -> BinaryIO:
    if member.index < 0:
        window = _Window(member.store, member.offset, member.size)
        return cast(BinaryIO, io.BufferedReader(window, 1 << 16))
    archive = zip_archive(member.store)
    try:
        return cast(BinaryIO, archive.open(archive.infolist()[member.index]))
    except RuntimeError as error:  # zipfile raises it (and NotImplementedError, which is one) for both causes
        why = "is encrypted" if "encrypted" in str(error) or "password" in str(error) else str(error)
        raise InputError.one(str(member), "", None, f"{why}; unpack the archive first") from None
    except zipfile.BadZipFile as error:
        raise InputError.one(str(member), "", None, f"damaged archive: {error}") from error


def zip_archive(path: Path) -> zipfile.ZipFile:
    """Return the zip archive at ``path``, opened once a process, so that its directory is read once and not per member.

    Raises InputError for an archive that is cut off or damaged, or whose directory is too large to read.
    """
    return _zip_archive(path, os.getpid())


def close_archives() -> None:
    """Close the archives that :func:`zip_archive` holds open."""
    _zip_archive.cache_clear()


@lru_cache(maxsize=4)
def _zip_archive(path: Path, _process: int) -> zipfile.ZipFile:
    # by process: a forked child shares the file's position with its parent
    if (size := _directory_bytes(path)) > LARGEST_DIRECTORY:
        message = f"its directory has {size:,} bytes, more than {LARGEST_DIRECTORY:,}; unpack it and name the folder"
        raise InputError.one(str(path), "", size, message)
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError) as error:
        message = f"a zip archive that is cut off or damaged: {error}"
        raise InputError.one(str(path), "", None, message) from error


def _directory_bytes(path: Path) -> int:
    """Return the bytes of a zip's central directory, as its last record states it; 0 if that record is missing."""
    with open(path, "rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(length - _END_BYTES - _COMMENT_BYTES - _LOCATOR_BYTES - _END64_BYTES, 0))
        tail = file.read()
    at = tail.rfind(_END)
    if at < 0:
        return 0
    size = int.from_bytes(tail[at + 12 : at + 16], "little")
    at64 = tail.rfind(_END64, 0, at)
    large = int.from_bytes(tail[at64 + 40 : at64 + 48], "little") if at64 >= 0 else 0
    return max(size if size != 0xFFFFFFFF else 0, large)


def decoded_pieces(source: Unpacked) -> Iterator[str]:
    """Yield the text of a log, piece by piece: UTF-16 by its mark, else UTF-8; invalid bytes become U+FFFD."""
    piece = source.read(_LOG_PIECE)
    encoding = "utf-16" if piece[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    while piece:
        yield decoder.decode(piece)
        piece = source.read(_LOG_PIECE)


class _Window(io.RawIOBase):
    """``size`` bytes of a file from ``offset`` on."""

    def __init__(self, path: Path, offset: int, size: int) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115
        self._file.seek(offset)
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = self._file.readinto(buffer[: min(len(buffer), self._left)]) or 0
        self._left -= count
        if not count and self._left and len(buffer):
            raise EOFError
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
