"""Ranks' dumps side by side: how far each came, what differs, and the pattern of messages that they repeat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coordsim.errors import InputError
from coordsim.formats.flight_recorder.reader import MOST_ENTRIES, Dump, Entry, read_dump
from coordsim.formats.imported import Imported, workload_csv
from coordsim.formats.shared.repeated_messages import buckets, repeated

FORMAT = "flight-recorder"
MOST_TOLD = 20

_UNKNOWN = {
    "run": "a ring buffer of collectives has no marks of steps, and says nothing of compute",
    "gradients": "a message's members are not recorded: each message of the pattern counts as one gradient",
}


def import_dumps(paths: list[Path]) -> Imported:
    """The dumps of one job. Raises InputError for files that are none, and for ranks of different jobs."""
    dumps: list[Dump] = []
    room = MOST_ENTRIES
    for path in paths:
        dumps.append(read_dump(path, room))
        room = max(room - len(dumps[-1].entries), 0)
    _one_job(dumps)
    dumps.sort(key=lambda each: each.rank if each.rank is not None else 0)
    return imported(dumps)


def imported(dumps: Sequence[Dump]) -> Imported:
    """As :func:`import_dumps`, of dumps of one job that were read before, by rank."""
    group, entries = _busiest(dumps[0])
    ranks = _ranks_of(dumps[0], group)
    sizes = [each.nbytes for each in entries if "all_reduce" in each.name and not each.p2p]
    pattern = repeated([size or 0 for size in sizes])
    gradients = buckets(pattern)
    unknown = dict(_UNKNOWN)
    timed = [
        each.completed_ns - each.started_ns for each in entries
        if each.completed_ns is not None and each.started_ns is not None
    ]  # fmt: skip
    if not timed:
        unknown["times"] = "starts and ends were not recorded (TORCH_NCCL_ENABLE_TIMING=1 does, for NCCL)"
    if any(each.rank is None for each in dumps):
        unknown["rank"] = "a dump does not say whose it is; the file's name has to end in the rank"
    if not gradients:
        unknown["workload"] = "the messages repeat no pattern, or their sizes are not recorded"
    absent = sorted(set(ranks or ()) - {each.rank for each in dumps if each.rank is not None})
    if absent and "rank" not in unknown:
        more = " ..." if len(absent) > 8 else ""
        unknown["absent"] = f"ranks without a dump: {', '.join(map(str, absent[:8]))}{more}"
    lost = next((each for each in dumps if each.lost), None)
    if lost is not None:
        unknown["cut"] = f"{lost.path.name} is cut off: {lost.lost}"
    summary: dict[str, Any] = {
        "dumps": len(dumps),
        "version": dumps[0].version,
        "ranks": len(ranks) if ranks is not None else None,
        "group": group,
        "collectives": len(entries),
        "kinds": dict(Counter(each.name for each in entries).most_common(6)),
        "pattern_bytes": pattern,
        "duration_s": float(np.median(timed)) / 1e9 if timed else None,
        "by_rank": [_progress(each) for each in dumps[:MOST_TOLD]],
        "behind": _behind(dumps),
        "differ": _differences(dumps),
    }  # fmt: skip
    files = [each.path.name for each in dumps]
    return Imported(FORMAT, files, summary, unknown, workload_csv=workload_csv(gradients) if gradients else None)


def _one_job(dumps: Sequence[Dump]) -> None:
    first = dumps[0]
    seen: dict[int, str] = {}
    for each in dumps:
        if each.version != first.version:
            message = f"version {each.version!r}, where {first.path.name} has {first.version!r}: of another job?"
            raise InputError.one(str(each.path), "version", each.version, message)
        mine, theirs = _world(each), _world(first)
        if mine != theirs:
            message = f"its largest group has {mine} ranks, in {first.path.name} {theirs}: of another job?"
            raise InputError.one(str(each.path), "pg_config", mine, message)
        if each.rank is None:
            continue
        if each.rank in seen:
            message = f"rank {each.rank} has two dumps, here and in {seen[each.rank]}"
            raise InputError.one(str(each.path), "", each.rank, message)
        seen[each.rank] = each.path.name


def _world(dump: Dump) -> int:
    return max((len(ranks) for ranks in dump.groups.values()), default=0)


def _busiest(dump: Dump) -> tuple[str | None, list[Entry]]:
    """The process group with most entries, and those."""
    groups = Counter(each.group for each in dump.entries).most_common(1)
    if not groups:
        return None, []
    return groups[0][0], [each for each in dump.entries if each.group == groups[0][0]]


def _ranks_of(dump: Dump, group: str | None) -> list[int] | None:
    """The group's ranks; gloo leaves its name out where there is one group."""
    found = dump.groups.get(group or "")
    return found if found is not None else next(iter(dump.groups.values()), None) if len(dump.groups) == 1 else None


def _progress(dump: Dump) -> dict[str, Any]:
    _, entries = _busiest(dump)
    status = next(iter(dump.status.values()), {}) if len(dump.status) == 1 else {}
    return {
        "rank": dump.rank, "last_enqueued": max((each.sequence for each in entries), default=None),
        "last_completed": status.get("last_completed_collective"),
    }  # fmt: skip


def _behind(dumps: Sequence[Dump]) -> list[int | None]:
    """Ranks that asked for fewer collectives than the furthest one: those that the others wait for."""
    reached = [(each.rank, max((entry.sequence for entry in _busiest(each)[1]), default=0)) for each in dumps]
    furthest = max(number for _, number in reached)
    return [rank for rank, number in reached if number < furthest][:MOST_TOLD]


def _differences(dumps: Sequence[Dump]) -> list[str]:
    """Collectives of one number that are not the same on all ranks."""
    found = []
    first = {(each.group, each.sequence): each for each in dumps[0].entries if not each.p2p}
    for other in dumps[1:]:
        for each in other.entries:
            mine = first.get((each.group, each.sequence))
            if each.p2p or mine is None or (mine.name, mine.nbytes) == (each.name, each.nbytes):
                continue
            found.append(
                f"number {each.sequence}: {mine.name} of {mine.nbytes} B on rank {dumps[0].rank}, "
                f"{each.name} of {each.nbytes} B on rank {other.rank}"
            )
            break
    return found[:MOST_TOLD]
