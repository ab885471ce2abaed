"""A folder of ranks' records, and one rank's record: files in, :class:`RankRecord` out."""

from __future__ import annotations

from pathlib import Path

from coordsim.errors import InputError
from coordsim.record.ranks.decode import decode_blocks, decode_head
from coordsim.record.ranks.format import HEAD_BYTES, LARGEST_HEAD, MAGIC, Block, blocks
from coordsim.record.ranks.reader import SUFFIX, RankRecord


def read_folder(folder: Path) -> list[RankRecord]:
    """All ranks' records in ``folder``, by rank, without those that end before their head (:func:`headless`).

    Raises InputError when there are none, or those of two runs.
    """
    paths = sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []
    if not paths:
        raise InputError.one(str(folder), "", str(folder), f"no folder with ranks' records (*{SUFFIX})")
    read = [read_rank(path) for path in paths if len(paths) == 1 or not headless(path)]
    if not read:
        message = f"{len(paths)} ranks' records, and each ends before its head: no rank came to write anything"
        raise InputError.one(str(folder), "", None, message)
    records = sorted(read, key=lambda record: record.rank)
    first = records[0]
    for other in records[1:]:
        for key in ("ranks", "job"):
            if other.head.get(key) != first.head.get(key):
                message = f"record of another run: {first.path.name} has {first.head.get(key)!r}"[:200]
                raise InputError.one(str(other.path), key, other.head.get(key), message)
    numbers = [record.rank for record in records]
    if len(set(numbers)) < len(numbers):
        twice = sorted({number for number in numbers if numbers.count(number) > 1})
        raise InputError.one(str(folder), "rank", twice, f"rank {twice[0]} has two records")
    return records


def headless(path: Path) -> bool:
    """Whether a rank's record ends before its head is whole: the process or its disk did not get further."""
    try:
        with path.open("rb") as file:
            start = file.read(LARGEST_HEAD)
    except OSError:
        return False
    if not start.startswith(MAGIC):
        return MAGIC.startswith(start)
    return next(blocks(memoryview(start)[len(MAGIC) :]), None) is None


def read_rank(path: Path) -> RankRecord:
    """One rank's record, up to where it is whole. Raises InputError for a file that is none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError.one(str(path), "", None, f"cannot be read: {error}") from error
    if not data.startswith(MAGIC):
        raise InputError.one(str(path), "", None, "no rank's record (it does not begin like one)")
    body = memoryview(data)[len(MAGIC) :]
    stream = blocks(body)
    first = next(stream, None)
    if first is None or first[0] is not Block.HEAD:
        raise InputError.one(str(path), "", None, "a rank's record without a head")
    record = RankRecord(path, decode_head(bytes(first[1]), str(path)))
    decode_blocks(record, stream, len(body) - HEAD_BYTES - len(first[1]))
    return record
