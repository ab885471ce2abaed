"""Which source a file or folder comes from, told by content, and its reader."""

from __future__ import annotations

from pathlib import Path

from coordsim.errors import InputError
from coordsim.record.imported import Imported

FORMATS = ("horovod", "kineto", "flight-recorder", "chakra", "nccl-tests")
MOST_FILES = 100_000


def import_source(path: Path, given: str) -> Imported:
    """Read ``path``, a file or a folder of one job's files, as ``given`` says (one of FORMATS, or ``auto``).

    Raises InputError for what is none of them, with what was looked at.
    """
    from coordsim.record.timeline.run import import_timeline

    return import_timeline(path)


def files_of(path: Path) -> list[Path]:
    """The files of one job: ``path``, or what lies in it, by name; hidden ones and folders are passed over."""
    if not path.is_dir():
        if not path.exists():
            raise InputError.one(str(path), "", str(path), "no such file or folder")
        return [path]
    found = sorted(each for each in path.iterdir() if each.is_file() and not each.name.startswith("."))
    if not found:
        raise InputError.one(str(path), "", str(path), "an empty folder")
    if len(found) > MOST_FILES:
        raise InputError.one(str(path), "", len(found), f"{len(found):,} files; no job leaves more than {MOST_FILES:,}")
    return found
