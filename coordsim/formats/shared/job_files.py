"""The files of one job: one file, a folder with everything below it, or the members of archives.

Archives (zip, tar, tar.gz) are recognised by their first bytes. They are not extracted: members of a zip and of a plain
tar are read in place. A compressed tar has no index, so it is unpacked once to a temporary file, as one tar. Archives
inside archives are not opened.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from coordsim.errors import InputError
from coordsim.formats.shared.small_files import first_bytes
from coordsim.formats.shared.sources import GZIP_MAGIC, Member, SourcePath, close_archives, open_source, zip_archive

MOST_FILES = 100_000
LARGEST_UNPACKED = 1 << 36
"""Largest size in bytes to which a compressed tar may unpack on disk; half of the free space there, if that is less."""
_SUSPICIOUS, _RATIO = 1 << 30, 200
"""Above that many unpacked bytes, a compressed tar that is larger by this factor than packed is taken for a bomb."""
_LARGEST_TAR_HEADER = 1 << 24
_PIECE = 1 << 20
_ZIP_MAGIC = b"PK\x03\x04"
_EMPTY_ZIP = b"PK\x05\x06"
_TAR_MAGIC, _TAR_AT = b"ustar", 257
_TAR_HEAD = 512
_APPLE_FOLDER = "__MACOSX"


@dataclass
class JobFiles:
    """The files at the path that a user gave."""

    files: list[SourcePath] = field(default_factory=list)
    """Files by name; hidden ones are passed over."""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """(name, reason) of files that cannot be opened."""

    def add(self, file: SourcePath, place: Path) -> None:
        """Append a file. Raises InputError for more files than any job leaves."""
        self.files.append(file)
        if len(self.files) > MOST_FILES:
            message = f"more than {MOST_FILES:,} files; no job leaves as many"
            raise InputError.one(str(place), "", len(self.files), message)


@contextmanager
def open_job_files(path: Path) -> Iterator[JobFiles]:
    """List the files at ``path``, which can be opened as long as the context lasts.

    Raises InputError if the path does not exist or has no file, and for an archive that is damaged or encrypted.
    """
    job = JobFiles()
    with ExitStack() as stack:
        stack.callback(close_archives)
        if path.is_dir():
            for entry in _walk(path):
                _add(job, entry, stack, within_folder=True)
            if not job.files and not job.skipped:
                raise InputError.one(str(path), "", str(path), "an empty folder")
        else:
            _check_regular(path)
            _add(job, path, stack, within_folder=False)
        yield job


def _check_regular(path: Path) -> None:
    if not path.exists():
        raise InputError.one(str(path), "", str(path), "no such file or folder")
    if not path.is_file():
        message = "is a pipe or a device, which can be read only once; save it to a file first"
        raise InputError.one(str(path), "", str(path), message)


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the regular files in and below ``folder``, by name. Links to folders are not followed: they may be a
    circle."""
    count = 0
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != _APPLE_FOLDER)
        for name in sorted(names):
            entry = Path(place, name)
            if name.startswith(".") or not entry.is_file():
                continue
            count += 1
            if count > MOST_FILES:
                raise InputError.one(str(folder), "", count, f"more than {MOST_FILES:,} files; no job leaves as many")
            yield entry


def _add(job: JobFiles, path: Path, stack: ExitStack, within_folder: bool) -> None:
    """Add ``path``, or its content if it is an archive; a damaged archive beside other files is passed over."""
    try:
        kind = _archive_kind(path)
        if kind is None:
            job.add(path, path.parent)
        elif kind == "zip":
            _add_zip(job, path)
        else:
            _add_tar(job, path, _unpack_tar(path, stack) if kind == "tar.gz" else path)
    except InputError as error:
        if not within_folder or len(job.files) > MOST_FILES:
            raise
        job.skipped.append((path.name, error.problems[0].message))


def _archive_kind(path: Path) -> str | None:
    """Return ``zip``, ``tar``, ``tar.gz``, or None for anything else, by the first bytes."""
    try:
        with open(path, "rb") as file:
            raw = file.read(_TAR_HEAD)
    except OSError as error:
        raise InputError.one(str(path), "", None, f"cannot be read: {error.strerror or error}") from error
    if raw[:4] in (_ZIP_MAGIC, _EMPTY_ZIP):
        return "zip"
    if raw[:2] == GZIP_MAGIC:
        head = first_bytes(path, _TAR_HEAD)
        return "tar.gz" if _is_tar(head) else None
    return "tar" if _is_tar(raw) else None


def _is_tar(head: bytes) -> bool:
    return head[_TAR_AT : _TAR_AT + len(_TAR_MAGIC)] == _TAR_MAGIC


def _add_zip(job: JobFiles, path: Path) -> None:
    entries = sorted(enumerate(zip_archive(path).infolist()), key=lambda entry: entry[1].filename)
    if any(info.filename.endswith("/data.pkl") for _, info in entries):
        raise InputError.one(str(path), "", None, "a model or checkpoint that torch.save wrote, not a recording")
    before = len(job.files)
    for index, info in entries:
        if info.is_dir() or _is_hidden(info.filename):
            continue
        member = Member(path, info.filename, path, index, size=info.file_size)
        if info.flag_bits & 1:
            message = f"{info.filename[:80]!r} is encrypted; unpack it first"
            raise InputError.one(str(path), "", info.filename[:80], message)
        job.add(member, path)
    if len(job.files) == before:
        raise InputError.one(str(path), "", None, "a zip archive without files")


def _add_tar(job: JobFiles, archive: Path, store: Path) -> None:
    """List a tar's members. ``store`` is the plain tar: ``archive``, or the file to which that was unpacked."""
    members: list[Member] = []
    with open(store, "rb") as file:
        try:
            with tarfile.open(fileobj=cast("BinaryIO", _BoundedReads(file)), mode="r:") as tar:
                for info in tar:
                    if info.isfile() and not info.issparse() and not _is_hidden(info.name):
                        members.append(Member(archive, info.name, store, -1, info.offset_data, info.size))
                    elif not info.isdir() and not _is_hidden(info.name):
                        job.skipped.append((info.name, "a link or a sparse file in a tar archive"))
                    if len(members) + len(job.skipped) > MOST_FILES:
                        raise InputError.one(str(archive), "", None, f"holds more than {MOST_FILES:,} files")
        except (tarfile.TarError, EOFError, ValueError, OverflowError, OSError) as error:
            # a tar that is cut off is read up to the cut, as any other file
            if not members:
                raise InputError.one(str(archive), "", None, f"a damaged tar archive: {error}") from error
            job.skipped.append((f"the end of {archive.name}", f"a damaged tar archive: {error}"))
    if not members:
        raise InputError.one(str(archive), "", None, "a tar archive without files")
    for member in sorted(members, key=lambda member: member.inner):
        job.add(member, archive)


def _is_hidden(name: str) -> bool:
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return not parts or any(part.startswith(".") or part == _APPLE_FOLDER for part in parts)


class _BoundedReads:
    """A file for :mod:`tarfile`, which reads a member's extended header whole, whatever length it states."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self.tell, self.seek, self.close = file.tell, file.seek, file.close

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LARGEST_TAR_HEADER:
            raise tarfile.ReadError(f"an extended header of {size:,} bytes")
        return self._file.read(size)


def _unpack_tar(path: Path, stack: ExitStack) -> Path:
    """Decompress a tar into a temporary file, which is deleted with ``stack``. A cut ends it without an error."""
    folder = Path(tempfile.gettempdir())
    room = min(LARGEST_UNPACKED, shutil.disk_usage(folder).free // 2)
    packed = max(path.stat().st_size, 1)
    spool = tempfile.NamedTemporaryFile(prefix="coordsim-import-", suffix=".tar", dir=folder)  # noqa: SIM115
    file = stack.enter_context(spool)
    size = 0
    with open_source(path) as source:
        while piece := source.read(_PIECE):
            size += len(piece)
            if size > room:
                message = f"unpacks to more than {room:,} bytes, half of what is free in {folder}; unpack it yourself"
                raise InputError.one(str(path), "", None, message)
            if size > max(_SUSPICIOUS, packed * _RATIO):
                message = f"unpacks to more than {_RATIO} times its {packed:,} bytes; unpack it yourself if it should"
                raise InputError.one(str(path), "", None, message)
            file.write(piece)
    file.flush()
    return Path(file.name)
