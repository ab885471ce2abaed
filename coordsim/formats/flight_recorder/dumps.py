"""Ranks' dumps side by side: how far each came, what differs, and the pattern of messages that they repeat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coordsim.errors import InputError
from coordsim.formats.flight_recorder.compare import GroupReport, compare
from coordsim.formats.flight_recorder.findings import Finding
from coordsim.formats.flight_recorder.job import Job, RankCalls
from coordsim.formats.flight_recorder.operations import is_known
from coordsim.formats.flight_recorder.reader import KNOWN_VERSIONS, MOST_ENTRIES, Dump, Entry, read_dump
from coordsim.formats.flight_recorder.words import names_of, plural, ranks_in_words
from coordsim.formats.imported import Imported, workload_csv
from coordsim.formats.shared.repeated_messages import buckets, repeated
from coordsim.formats.shared.sources import names_in_job

FORMAT = "flight-recorder"
MOST_TOLD = 20
MOST_GROUPS = 1000
"""Largest number of groups and findings in JSON."""
_REDUCTIONS = frozenset({"all_reduce", "allreduce", "allreduce_coalesced"})

_UNKNOWN = {
    "run": "a ring buffer of collectives has no marks of steps, and says nothing of compute",
    "gradients": "a message's members are not recorded: each message of the pattern counts as one gradient",
}


def import_dumps(paths: list[Path]) -> Imported:
    """Read the dumps of one job. Raises InputError for files that are no dumps, and for ranks of different jobs.

    Dumps are folded one after the other; of the lowest rank's dump all entries are kept, for the pattern of messages.
    """
    job, room = Job(), MOST_ENTRIES
    first: Dump | None = None
    lost: Dump | None = None
    seen, names = _Seen(), names_in_job(paths)
    for path, name in zip(paths, names, strict=True):
        dump = read_dump(path, room)
        room -= len(dump.entries)
        seen.check(dump, name)
        job.add(dump, name)
        lost = lost or (dump if dump.lost else None)
        if first is None or _order(dump) < _order(first):
            first = dump
    assert first is not None
    return _imported(job, first, lost, seen, names)


def _order(dump: Dump) -> tuple[bool, int]:
    return dump.rank is None, dump.rank or 0


class _Seen:
    """Values that must be the same in all dumps of a job."""

    def __init__(self) -> None:
        self.files: dict[int, str] = {}
        self.worlds: dict[tuple[int, ...], str] = {}
        self.version: tuple[str, str] | None = None

    def check(self, dump: Dump, name: str) -> None:
        """Raise InputError for a dump, called ``name``, that is of another job than those before it."""
        path = str(dump.path)
        if self.version is None and not dump.lost:
            self.version = (dump.version, name)
        elif self.version is not None and self.version[0] != dump.version and (dump.version or not dump.lost):
            message = f"version {dump.version!r}, where {self.version[1]} has {self.version[0]!r}: of another job?"
            raise InputError.one(path, "version", dump.version, message)
        world = _world(dump)
        if world is not None:
            self.worlds.setdefault(world, name)
        if len(self.worlds) > 1:
            (first, where), (other, _) = list(self.worlds.items())[:2]
            message = f"its group of all ranks has {len(other)} ranks, in {where} {len(first)}: of another job?"
            if len(first) == len(other):
                message = f"its group of all ranks has other ranks than in {where}: of another job?"
            raise InputError.one(path, "pg_config", len(other), message)
        if dump.rank is not None:
            if dump.rank in self.files:
                message = f"rank {dump.rank} has two dumps, here and in {self.files[dump.rank]}"
                raise InputError.one(path, "", dump.rank, message)
            self.files[dump.rank] = name

    @property
    def world(self) -> tuple[int, ...] | None:
        """Return the ranks of the job, if its group of all ranks is recorded."""
        return next(iter(self.worlds), None)


def _world(dump: Dump) -> tuple[int, ...] | None:
    """Return the members of the group of all ranks, sorted."""
    for name, group in dump.groups.items():
        alone = name == "" and len(dump.groups) == 1 and len({entry.group for entry in dump.entries}) <= 1
        if group.ranks is not None and (group.description == "default_pg" or (alone and len(dump.status) <= 1)):
            return tuple(sorted(group.ranks))
    return None


def _imported(job: Job, first: Dump, lost: Dump | None, seen: _Seen, files: list[str]) -> Imported:
    reports = compare(job)
    findings = [finding for report in reports for finding in report.findings]
    waited_for, cycle = _waited_for(job, findings)
    if cycle is not None:
        findings.insert(0, cycle)
    group, entries = _busiest(first)
    reductions = [entry.nbytes for entry in entries if entry.operation in _REDUCTIONS and not entry.p2p]
    known = [size for size in reductions if size is not None]
    pattern = repeated(known) if len(known) == len(reductions) else None
    gradients = buckets(pattern)
    timed = [
        entry.completed_ns - entry.started_ns for entry in entries
        if entry.completed_ns is not None and entry.started_ns is not None and entry.done
    ]  # fmt: skip
    world = _size(seen, reports)
    strange = Counter({name: count for name, count in job.names.items() if not is_known(name)})
    summary: dict[str, Any] = {
        "dumps": len(job.ranks),
        "version": first.version or None,
        "ranks": world,
        "group": group,
        "collectives": len(entries),
        "kinds": dict(Counter(entry.name for entry in entries).most_common(6)),
        "pattern_bytes": pattern,
        "duration_s": float(np.median(timed)) / 1e9 if timed else None,
        "by_rank": _by_rank(job, group),
        "behind": [rank if rank >= 0 else None for rank in waited_for][:MOST_TOLD],
        "differ": [finding.text for finding in findings if finding.calls][:MOST_TOLD],
        "records": sum(rank.records for rank in job.ranks.values()),
        "operations": dict(job.names.most_common(50)),
        "not_compared": dict(strange.most_common(MOST_TOLD)),
        "findings": [finding.as_json() for finding in findings[:MOST_GROUPS]],
        "groups": [_group(report) for report in reports[:MOST_GROUPS]],
    }  # fmt: skip
    unknown = _unknown(job, first, lost, seen, reports, strange)
    if not timed:
        unknown["times"] = "starts and ends were not recorded (TORCH_NCCL_ENABLE_TIMING=1 does, for NCCL)"
    if len(known) < len(reductions):
        unknown["workload"] = f"the sizes of {len(reductions) - len(known):,} reductions are not recorded"
    elif not gradients:
        unknown["workload"] = "the messages repeat no pattern, or their sizes are not recorded"
    return Imported(FORMAT, files, summary, unknown, workload_csv=workload_csv(gradients) if gradients else None)


def _unknown(
    job: Job, first: Dump, lost: Dump | None, seen: _Seen, reports: Sequence[GroupReport], strange: Counter[str]
) -> dict[str, str]:
    unknown = dict(_UNKNOWN)
    named = [rank for rank in job.ranks if rank >= 0]
    if len(named) < len(job.ranks):
        unknown["rank"] = "a dump does not say whose it is; the file's name has to end in the rank"
    if not first.version:
        unknown["version"] = "the dumps do not say their version, as torch 2.2's do not"
    elif first.version not in KNOWN_VERSIONS:
        unknown["version"] = (
            f"version {first.version!r} is not one of those known (1.0 to 1.4, 2.0 to 2.10); read as the newest of them"
        )
    if _size(seen, reports) is None:
        unknown["ranks"] = (
            f"the dumps do not list the members of their groups; those here are of {ranks_in_words(named) or 'no rank'}"
        )
    absent = sorted({rank for report in reports if report.members_recorded for rank in report.members} - set(named))
    if absent and "rank" not in unknown:
        more = " ..." if len(absent) > 8 else ""
        unknown["absent"] = f"ranks without a dump: {', '.join(map(str, absent[:8]))}{more}"
    if lost is not None:
        unknown["cut"] = f"{lost.path.name} is cut off: {lost.lost}"
    cut = [rank for rank, kept in job.ranks.items() if not kept.whole]
    if cut:
        unknown["before"] = (
            f"the buffers of {plural(len(cut), 'rank')} do not go back to the first call: what was overwritten is not "
            "compared"
        )
    if strange:
        words = ", ".join(f"{name} ({count:,})" for name, count in strange.most_common(8))
        unknown["operations"] = f"operations without rules for their sizes, compared by name only: {words}"
    return unknown


def _size(seen: _Seen, reports: Sequence[GroupReport]) -> int | None:
    """Return the number of ranks of the job: of its group of all ranks, else those that any group lists; None if none
    is listed."""
    if seen.world is not None:
        return len(seen.world)
    ranks = {rank for report in reports if report.members_recorded for rank in report.members}
    return len(ranks) or None


def _waited_for(job: Job, findings: Sequence[Finding]) -> tuple[list[int], Finding | None]:
    """Return ranks that others wait for and that do not wait themselves; a finding if all of them wait."""
    wanted = {rank for finding in findings for rank in finding.waited_for}
    waits = {rank for finding in findings for rank in finding.waiting}
    free = sorted(wanted - waits)
    if free or not wanted:
        return free, None
    edges = [finding for finding in findings if finding.waited_for]
    text = f"{names_of(job, wanted)} wait for each other: " + "; ".join(
        f"{names_of(job, finding.waiting)} in {_where(finding)} for {names_of(job, finding.waited_for)}"
        for finding in edges[:4]
    )
    more = f"; {len(edges) - 4} more" if len(edges) > 4 else ""
    groups = ", ".join(dict.fromkeys(finding.group for finding in edges[:4]))
    cycle = Finding("cycle", groups, None, edges[0].operation, f"{text}{more}.", waiting=tuple(sorted(wanted)))
    return sorted(wanted), cycle


def _where(finding: Finding) -> str:
    if finding.number is None:
        return f"a {finding.operation} of {finding.group}"
    return f"call {finding.number} of {finding.group} ({finding.operation})"


def _group(report: GroupReport) -> dict[str, Any]:
    return {
        "name": report.key.name, "description": report.description,
        "size": len(report.members) if report.members_recorded else None, "members": list(report.members[:4096]),
        "members_recorded": report.members_recorded, "calls": report.calls, "seen": report.seen,
        "findings": len(report.findings), "notes": list(report.notes), "text": report.text,
    }  # fmt: skip


def _busiest(dump: Dump) -> tuple[str | None, list[Entry]]:
    """Return the process group with most entries, and those."""
    groups = Counter(entry.group for entry in dump.entries).most_common(1)
    if not groups:
        return None, []
    return groups[0][0], [entry for entry in dump.entries if entry.group == groups[0][0]]


def _by_rank(job: Job, group: str | None) -> list[dict[str, Any]]:
    """Return the last calls in ``group``, or in a rank's own busiest one, for the first twenty ranks."""
    rows = []
    for rank in sorted(job.ranks)[:MOST_TOLD]:
        own = [(key.name, ranks[rank]) for key, ranks in job.groups.items() if rank in ranks and ranks[rank].numbers]
        name, calls = max(own, key=lambda item: (item[0] == group, len(item[1].numbers)), default=(None, None))
        rows.append({
            "rank": rank if rank >= 0 else None, "group": name,
            "last_enqueued": (calls.last or None) if calls is not None else None,
            "last_completed": _last_done(calls) if calls is not None else None,
        })  # fmt: skip
    return rows


def _last_done(calls: RankCalls) -> int | None:
    return calls.last_done or None
