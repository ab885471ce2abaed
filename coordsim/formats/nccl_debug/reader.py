"""Logs of NCCL_DEBUG=INFO as one job: initialisation, networks, calls, and the messages that repeat."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from coordsim.errors import InputError
from coordsim.formats.imported import Gradient, Imported, workload_csv
from coordsim.formats.nccl_debug.calls import Calls, Comparison, compare
from coordsim.formats.nccl_debug.groups import Group, groups_of
from coordsim.formats.nccl_debug.init_times import InitTimes, init_times
from coordsim.formats.nccl_debug.log import Log, Member
from coordsim.formats.nccl_debug.text import LogLines
from coordsim.formats.shared.repeated_messages import buckets, repeated
from coordsim.formats.shared.sources import SourcePath, names_in_job

FORMAT = "nccl-debug"
EXPECTED = "expected a log of NCCL (lines with NCCL INFO or NCCL WARN)"
MOST_ROWS = 200
_REDUCING = ("AllReduce", "ReduceScatter")
_UNKNOWN = {
    "run": "the log has neither steps nor compute",
    "durations": "a call's line is written when it is made; the log does not say when it ended",
}


def import_logs(paths: list[SourcePath]) -> Imported:
    """Read the logs of one job. Raises InputError for a file without a line of NCCL."""
    log = Log()
    unknown = dict(_UNKNOWN)
    names = names_in_job(paths)
    for path, name in zip(paths, names, strict=True):
        before, versions = log.messages, sum(log.versions.values())
        text = LogLines(path)
        log.read(name, text)
        if log.messages == before and sum(log.versions.values()) == versions:
            raise InputError.one(str(path), "", None, f"has no line of NCCL; {EXPECTED}")
        if text.lost is not None:
            unknown.setdefault("cut", f"{name} is cut off: {text.lost}")
    return imported(log, names, unknown)


def imported(log: Log, files: list[str], unknown: dict[str, str]) -> Imported:
    """Return as :func:`import_logs`, from a log that has been read."""
    log.settle()
    groups = groups_of(log)
    labels = {member.index: _label(log, member) for member in log.members}
    calls = Calls(log)
    comparison, times = compare(calls, groups, labels), init_times(log, groups, _labels_with_hosts(log))
    gradients = _workload(calls, groups, unknown)
    _note_what_is_not_known(log, groups, times, comparison, unknown)
    largest = max(groups, key=lambda group: (len(group.members) > 1, group.ranks), default=None)
    # a torn line may name a process or a host that is none; one that initialises a communicator is one
    ranked = {member.process for member in log.members if member.rank is not None} or set(range(len(log.processes)))
    hosts = {log.processes[index][0] for index in ranked} - {""}
    summary: dict[str, Any] = {
        "version": ", ".join(sorted(log.versions)[:4]) or None,
        "messages": log.messages,
        "processes": len(ranked),
        "hosts": len(hosts) or None,
        "communicators": len(groups),
        "ranks": max((group.ranks for group in groups), default=max((each.ranks for each in times), default=None)),
        "nodes": _common(member.nodes for member in largest.members) if largest else None,
        "network": ", ".join(sorted(log.networks)[:6]) or None,
        "connections": dict(log.connections.most_common(6)) or None,
        "channels": _common(member.channels for member in largest.members) if largest else None,
        "rings": log.rings.most_common(1)[0][0] if log.rings else None,
        **_init_summary(times),
        "not_initialised": _not_initialised(groups, labels) or None,
        "calls": len(log.number) + log.calls_beyond,
        "kinds": _kinds(log) or None,
        "algorithms": dict(log.tuned.most_common(6)) or None,
        "pattern_bytes": [gradient.nbytes for gradient in gradients] or None,
        "compared": comparison.compared or None,
        "behind": comparison.behind,
        "differ": comparison.differ,
        "warnings": [f"{text} ({_times(count)})" for text, count in log.warnings.most_common(20)] or None,
        "init_table": [_init_row(each) for each in times[:MOST_ROWS]],
        "calls_table": _call_rows(calls, groups)[:MOST_ROWS],
        "communicators_table": [_group_row(place, group, log) for place, group in enumerate(groups[:MOST_ROWS])],
        "init_by_rank": [
            [each.communicator, label, total, phases] for each in times[:MOST_ROWS]
            for label, total, phases in each.rows[:10_000]
        ],
    }  # fmt: skip
    if not comparison.compared:  # nothing was looked at: an empty list would say that nothing was found
        del summary["behind"], summary["differ"]
    summary = {key: value for key, value in summary.items() if value is not None or key in ("version", "ranks")}
    return Imported(FORMAT, files, summary, unknown, workload_csv=workload_csv(gradients) if gradients else None)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _label(log: Log, member: Member) -> str:
    if member.rank is not None:
        return f"rank {member.rank}"
    if member.job_rank is not None:
        return f"rank {member.job_rank}"
    host, pid = log.processes[member.process]
    return f"{host} pid {pid}" if host else f"GPU {pid}"


def _labels_with_hosts(log: Log) -> dict[int, str]:
    several = len({host for host, _ in log.processes}) > 1
    return {
        member.index: _label(log, member)
        + (f" ({log.processes[member.process][0]})" if several and member.rank is not None else "")
        for member in log.members
    }


def _common(values: Any) -> int | None:
    common = Counter(value for value in values if value is not None)
    return common.most_common(1)[0][0] if common else None


def _init_summary(times: list[InitTimes]) -> dict[str, Any]:
    """Summarise the communicator whose ranks spent most time."""
    if not times:
        return {}
    first = times[0]
    slowest = f"{first.slowest}: {first.slowest_s:.2f} s"
    if first.slowest_phase is not None:
        slowest += (
            f", of that {first.slowest_phase} {first.slowest_phase_s:.2f} s (median {first.phase_median_s:.2f} s)"
        )
    return {
        "init_median_s": first.median_s,
        "init_phases_median_s": first.phases or None,
        "init_slowest": slowest,
        "init_waited_for": first.last,
        "init_all_communicators_s": sum(each.median_s for each in times) if len(times) > 1 else None,
    }


def _init_row(times: InitTimes) -> dict[str, Any]:
    return {
        "comm": times.communicator,
        "ranks": times.ranks, "told": times.known_ranks, "median_s": times.median_s, "slowest": times.slowest,
        "longest_s": times.slowest_s, "phase": times.slowest_phase, "in_phase_s": times.slowest_phase_s,
        "others_s": times.phase_median_s, "function": (times.function or "").removeprefix("ncclComm") or None,
    }  # fmt: skip


def _group_row(place: int, group: Group, log: Log) -> dict[str, Any]:
    members = group.members
    return {
        "comm": place, "id": group.name, "ranks": group.ranks,
        "seen": len(members), "hosts": len({log.processes[each.process][0] for each in members} - {""}) or None,
        "nodes": _common(each.nodes for each in members), "channels": _common(each.channels for each in members),
        "initialised": sum(each.completed for each in members) or None,
    }  # fmt: skip


def _not_initialised(groups: list[Group], labels: dict[int, str]) -> list[str]:
    """Describe communicators that ranks began to initialise, and that no rank finished."""
    ranks = []
    for group in groups:
        open_ = [member for member in group.members if member.started and not member.completed and not member.torn]
        # where one rank ended, all took part: that a line is missing then says nothing of its rank
        if not open_ or any(member.ended or member.completed for member in group.members):
            continue
        names = ", ".join(labels[member.index] for member in open_[:4])
        more = f" and {len(open_) - 4:,} more" if len(open_) > 4 else ""
        absent = ""
        if group.known and len(group.members) < group.ranks:
            seen = {member.rank for member in group.members}
            missing = [rank for rank in range(min(group.ranks, 1 << 16)) if rank not in seen]
            first = ", ".join(map(str, missing[:8])) + (" ..." if len(missing) > 8 else "")
            absent = f"; no line of rank {first}" if len(missing) == 1 else f"; no line of ranks {first}"
        ranks.append(f"{names}{more} of {group.name}: Init START without Init COMPLETE, as on all of its ranks{absent}")
    return ranks[:20]


def _kinds(log: Log) -> dict[str, int]:
    if not len(log.name):
        return {}
    counts = np.bincount(np.asarray(log.name), minlength=len(log.names))
    return dict(Counter(dict(zip(log.names, counts.tolist(), strict=True))).most_common(8))


def _call_rows(calls: Calls, groups: list[Group]) -> list[dict[str, Any]]:
    """Return calls by communicator, name and size; the most bytes first."""
    if not len(calls.name):
        return []
    of_member = np.zeros(len(calls.log.members), dtype=np.int64)
    for place, group in enumerate(groups):
        for member in group.members:
            of_member[member.index] = place
    keys = (calls.nbytes, calls.name, of_member[np.asarray(calls.log.member)])
    order = np.lexsort(keys)
    changed = np.any([np.diff(key[order]) != 0 for key in keys], axis=0)
    starts = np.concatenate(([0], np.flatnonzero(changed) + 1))
    counts = np.diff(np.append(starts, len(order)))
    rows = []
    sizes = calls.nbytes[order[starts]]
    for index in np.argsort(-np.maximum(sizes, 0).astype(np.float64) * counts, kind="stable")[:MOST_ROWS]:
        place = int(order[starts[index]])
        nbytes = int(calls.nbytes[place])
        rows.append({
            "comm": int(keys[2][place]), "call": calls.log.names[int(calls.name[place])],
            "bytes": nbytes if nbytes >= 0 else None, "lines": int(counts[index]),
        })  # fmt: skip
    return rows


def _workload(calls: Calls, groups: list[Group], unknown: dict[str, str]) -> list[Gradient]:
    """Return the pattern of reductions of the communicator that reduces most, from its first rank."""
    log = calls.log
    if not len(log.name):
        unknown["workload"] = "no calls are in it (NCCL_DEBUG_SUBSYS=INIT,COLL writes them)"
        return []
    reducing = np.isin(calls.name, [index for index, name in enumerate(log.names) if name in _REDUCING])
    scatters = np.isin(calls.name, [index for index, name in enumerate(log.names) if name == "ReduceScatter"])
    member = np.asarray(log.member)
    ranks = np.asarray([each.ranks for each in log.members], dtype=np.int64)
    reducing &= ranks[member] > 1
    if not reducing.any():
        unknown["workload"] = "no AllReduce and no ReduceScatter between several ranks is in it"
        return []
    sizes = np.where(scatters, np.minimum(calls.nbytes, 1 << 38) * ranks[member], calls.nbytes)
    moved = np.bincount(member[reducing], weights=np.maximum(sizes[reducing], 0), minlength=len(log.members))
    group = max(groups, key=lambda group: max(moved[each.index] for each in group.members))
    chosen = next(each for each in group.members if moved[each.index] > 0)
    places = calls.of(chosen)
    mine = sizes[places[reducing[places]]]
    pattern = repeated([max(size, 0) for size in mine.tolist()])
    gradients = buckets(pattern)
    if not gradients:
        unknown["workload"] = (
            "a type of the calls is not known" if (mine < 0).any() else f"{len(mine):,} reductions repeat no pattern"
        )
    else:
        unknown["gradients"] = (
            "a message's members are not in the log: each message of the pattern counts as one gradient"
        )
    return gradients


def _note_what_is_not_known(
    log: Log, groups: list[Group], times: list[InitTimes], comparison: Comparison, unknown: dict[str, str]
) -> None:
    """Add what else the log does not state, each with its reason."""
    if not log.versions:
        unknown["version"] = "no line of it names the version"
    if not times:
        unknown["init times"] = (
            "no line 'Init timings' is in it: NCCL writes it since 2.22, to INIT and PROFILE of NCCL_DEBUG_SUBSYS"
        )
    else:
        unknown["init waits"] = (
            "bootstrap and allgathers hold the wait for ranks that come late: a long one accuses the others"
        )
    if any(each.torn for each in times):
        torn = sum(each.torn for each in times)
        unknown["phases"] = f"of {torn:,} ranks the phases are torn off by other processes' lines"
    if not groups and not times:
        unknown["ranks"] = "no communicator's initialisation or call is in it (INIT and COLL of NCCL_DEBUG_SUBSYS)"
    partly = sum(
        any(member.completed for member in group.members)
        and any(member.started and not member.completed and not member.torn for member in group.members)
        for group in groups
    )
    if partly:
        unknown["init ends"] = (
            f"in {partly:,} communicators some ranks have no line of the end of initialisation, where others have: "
            "lines are missing, as after a crash"
        )
    if log.torn:
        unknown["torn"] = f"{log.torn:,} messages stand in lines with others; what may be another's rest is not taken"
    if len(log.number) and (comparison.not_compared or not comparison.compared):
        reasons = "; ".join(f"{count:,}: {why}" for why, count in comparison.not_compared.most_common(4))
        unknown["differences"] = f"communicators whose calls were not compared between ranks: {reasons}"
    if comparison.behind:
        unknown["behind"] = (
            "a line is written when a call is made, not when it ends: a log that was cut while the job ran shows ranks "
            "apart without a fault"
        )
    if log.members_beyond or log.calls_beyond:
        unknown["beyond"] = (
            f"{log.members_beyond:,} communicators' ranks and {log.calls_beyond:,} calls more are counted only"
        )
    if log.table_at is not None:
        unknown["table"] = f"a table of nccl-tests stands at {log.table_at}: --format nccl-tests reads it"
