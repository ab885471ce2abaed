"""Dumps of NCCL Inspector as one job: calls, durations, bandwidths, the last rank, and the messages that repeat."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from coordsim.errors import InputError
from coordsim.formats.imported import ClusterFigures, Gradient, Imported, workload_csv
from coordsim.formats.nccl_inspector.arrivals import Arrivals, arrivals_of
from coordsim.formats.nccl_inspector.calls import (
    SYNCHRONISING,
    Columns,
    SizeRow,
    collective_columns,
    differences,
    missing_calls,
    missing_numbers,
    size_rows,
)
from coordsim.formats.nccl_inspector.records import EXPECTED, HOST, KNOWN_VERSIONS, MOST_RECORDS, Records, read_records
from coordsim.formats.shared.cluster_fragment import cluster_toml
from coordsim.formats.shared.repeated_messages import buckets, repeated
from coordsim.formats.shared.sources import SourcePath, names_in_job

FORMAT = "nccl-inspector"
MOST_ROWS = 200
LEAST_CLUSTER_CALLS = 10
LEAST_CLUSTER_BYTES = 1 << 20
_REDUCING = ("AllReduce", "ReduceScatter")
_UNKNOWN = {
    "run": "the plug-in records collectives, and neither steps nor compute",
    "gradients": "a message's members are not recorded: each message of the pattern counts as one gradient",
    "hang": "only calls that ended are recorded",
}
_PARQUET = b"PAR1"


def import_dumps(paths: list[SourcePath]) -> Imported:
    """Read the dumps of one job, one file for each process.

    Raises InputError for files without a record, and for the Parquet files that NCCL's exporter makes of dumps.
    """
    for path in paths:
        if path.name.endswith((".parquet", ".prom")):
            form = "Parquet" if path.name.endswith(".parquet") else "Prometheus metrics"
            raise InputError.one(str(path), "", path.name, f"{form}, which are not read; {EXPECTED}")
    return imported(read_records(paths), names_in_job(paths))


def imported(records: Records, files: list[str]) -> Imported:
    """Return as :func:`import_dumps`, from records that have been read."""
    columns = collective_columns(records)
    rows, arrivals = size_rows(columns, records), arrivals_of(columns, records)
    unknown = dict(_UNKNOWN)
    missing = missing_calls(columns)
    gradients = _workload(columns, records, unknown)
    figures = _cluster(rows, records, unknown)
    clusters = {} if figures is None else {1: ClusterFigures("allreduce", figures)}
    _note_what_is_not_known(records, columns, rows, arrivals, unknown)
    operations = Counter[str]()
    for series, count in zip(*np.unique(np.asarray(records.of_series), return_counts=True), strict=True):
        operations[records.series[int(series)].operation] += int(count)
    summary: dict[str, Any] = {
        "version": ", ".join(sorted(records.versions)) or None,
        "processes": len(set(records.processes.values())) or None,
        "hosts": len({process.host for process in records.processes.values()}) or None,
        "communicators": len(records.communicators),
        "ranks": max((communicator.ranks for communicator in records.communicators), default=None),
        "records": len(records.number) + records.beyond,
        "operations": dict(operations.most_common(8)),
        "algorithms": dict(records.algorithms.most_common(6)) or None,
        "not_recorded": missing,
        "dropped": sum(records.dropped.values()) if records.dropped else None,
        "pattern_bytes": [gradient.nbytes for gradient in gradients] or None,
        "waited_for": _waited_for(arrivals, records) or None,
        "arrivals_from": "; ".join(dict.fromkeys(each.source for each in arrivals)) or None,
        "differ": differences(columns, records),
        "communicators_table": _communicator_rows(records),
        "collectives_table": [_row(row) for row in rows[:MOST_ROWS]],
        "arrivals_table": [_arrival_row(each) for each in arrivals[:MOST_ROWS]],
        "arrivals_by_rank": [
            [records.communicators[each.communicator].id, *rank]
            for each in arrivals[:MOST_ROWS] for rank in each.by_rank[:MOST_ROWS]
        ],
    }  # fmt: skip
    return Imported(
        FORMAT, files, {key: value for key, value in summary.items() if value is not None or key in _ALWAYS}, unknown,
        workload_csv=workload_csv(gradients) if gradients else None, clusters=clusters, not_read=_not_read(records),
    )  # fmt: skip


def _not_read(records: Records) -> dict[str, int | str]:
    not_read: dict[str, int | str] = {f"records of {kind}": count for kind, count in records.other_kinds.most_common(6)}
    if records.unread:
        not_read["lines or records that make no sense"] = f"{records.unread:,}; the first: {records.first_unread}"
    if records.repeated:
        not_read["records that stand in two files"] = records.repeated
    if records.beyond:
        not_read[f"records behind the first {MOST_RECORDS:,}"] = records.beyond
    return not_read


_ALWAYS = frozenset({"version", "processes", "hosts", "ranks"})


def _communicator_rows(records: Records) -> list[dict[str, Any]]:
    hosts: dict[int, set[str]] = {}
    seen = Counter(communicator for communicator, _ in records.processes)
    for (communicator, _), process in records.processes.items():
        hosts.setdefault(communicator, set()).add(process.host)
    return [
        {
            "comm": place, "id": each.id, "name": each.name, "ranks": each.ranks, "ranks_in_files": seen[place] or None,
            "nodes": each.nodes, "hosts": len(hosts.get(place, ())) or None,
        }
        for place, each in enumerate(records.communicators[:MOST_ROWS])
    ]  # fmt: skip


def _row(row: SizeRow) -> dict[str, Any]:
    return {
        "comm": row.communicator, "collective": row.operation, "bytes": row.nbytes, "calls": row.calls,
        "median_s": row.median_s, "p99_s": row.p99_s, "bus_Bps": row.bus_Bps,
        "last_rank_median_s": row.last_median_s, "last_rank_bus_Bps": row.last_bus_Bps, "records": row.records,
    }  # fmt: skip


def _arrival_row(arrived: Arrivals) -> dict[str, Any]:
    return {
        "comm": arrived.communicator, "ranks": arrived.ranks, "calls": arrived.calls,
        "calls_with_wait": arrived.waits, "median_s": arrived.median_s, "p99_s": arrived.p99_s,
        "sum_s": arrived.waited_s,
    }  # fmt: skip


def _waited_for(arrivals: list[Arrivals], records: Records) -> list[str]:
    sentences = []
    for arrived in arrivals:
        for late in arrived.late:
            process = records.processes.get((arrived.communicator, late.rank))
            where = f" ({process.host}, pid {process.pid})" if process is not None else ""
            sentences.append(
                f"rank {late.rank} of communicator {arrived.communicator}{where}: last in {late.last:,} of "
                f"{arrived.waits:,} calls at which anybody waits ({arrived.calls:,} in all), "
                f"{_milliseconds(late.behind_s)} behind the first rank in the median of them"
            )
    return sentences


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"


def _workload(columns: Columns, records: Records, unknown: dict[str, str]) -> list[Gradient]:
    """Return the pattern of reductions of the communicator that reduces most, from its lowest rank."""
    of = np.asarray(records.of_series, dtype=np.int64)
    reducing = np.asarray([each.operation in _REDUCING for each in records.series], dtype=bool)
    communicator = np.asarray([each.communicator for each in records.series], dtype=np.int64)
    ranks = np.asarray([each.ranks for each in records.communicators], dtype=np.int64)
    factor = np.asarray([
        ranks[each.communicator] if each.operation == "ReduceScatter" else 1 for each in records.series
    ], dtype=np.int64)  # fmt: skip
    index = np.flatnonzero(reducing[of] & (ranks[communicator[of]] > 1)) if len(of) else np.empty(0, dtype=np.int64)
    if not len(index):
        unknown["workload"] = "no AllReduce and no ReduceScatter between several ranks is recorded"
        return []
    moved = np.bincount(communicator[of[index]], weights=np.asarray(records.nbytes)[index] * factor[of[index]])
    busiest = int(moved.argmax())
    chosen = [place for place, each in enumerate(records.series) if each.communicator == busiest and reducing[place]]
    lowest = min(records.series[place].rank for place in chosen)
    chosen = [place for place in chosen if records.series[place].rank == lowest]
    if dropped := records.dropped.get((busiest, lowest), 0):
        unknown["workload"] = f"the plug-in dropped {dropped:,} calls: its ring buffer was full"
        return []
    mine = np.flatnonzero(np.isin(of, chosen))
    sizes = np.asarray(records.nbytes, dtype=np.int64)[mine] * factor[of[mine]]
    numbers = np.asarray(records.number, dtype=np.int64)[mine]
    holes = sum(missing_numbers(numbers[of[mine] == place]) for place in chosen)
    if holes and len(chosen) > 1:
        unknown["workload"] = f"{holes:,} calls between the first and the last reduction are not recorded"
        return []
    if holes:  # a size of 0 holds the place of a call that was not recorded
        if holes > 10 * len(mine):
            unknown["workload"] = f"{holes:,} AllReduces of {holes + len(mine):,} are not recorded"
            return []
        placed = np.zeros(int(numbers.max() - numbers.min()) + 1, dtype=np.int64)
        placed[numbers - numbers.min()] = sizes
        sizes = placed
    pattern = repeated(sizes.tolist())
    gradients = buckets([size for size in pattern if size] if pattern else None)
    if not gradients:
        unknown["workload"] = "the reductions repeat no pattern" + (
            f"; {holes:,} of them are not recorded" if holes else ""
        )
    elif holes:
        unknown["small messages"] = (
            "calls are missing at the same places of every repetition: below NCCL_INSPECTOR_DUMP_MIN_SIZE_BYTES, or "
            "without times of a kernel; the workload is without them"
        )
    return gradients


def _cluster(rows: list[SizeRow], records: Records, unknown: dict[str, str]) -> str | None:
    """Return the bus bandwidth of the largest allreduce of the largest communicator that has enough of them."""
    able = [
        row for row in rows
        if row.operation == "AllReduce" and row.nbytes >= LEAST_CLUSTER_BYTES and row.all_gpu and row.bus_Bps
        and max(row.calls, row.whole_calls) >= LEAST_CLUSTER_CALLS and records.communicators[row.communicator].ranks > 1
    ]  # fmt: skip
    if not able:
        unknown["cluster"] = (
            f"no size of AllReduce of 1 MiB or more was timed {LEAST_CLUSTER_CALLS} times by the GPU's clock"
        )
        return None
    row = max(able, key=lambda row: (records.communicators[row.communicator].ranks, row.nbytes))
    matched = row.whole_calls >= LEAST_CLUSTER_CALLS and row.last_bus_Bps is not None
    bus = row.last_bus_Bps if matched else row.bus_Bps
    assert bus is not None
    ranks = records.communicators[row.communicator].ranks
    how = (
        f"median of {row.whole_calls} calls, of each the time of the rank that came last"
        if matched
        else f"median of {row.records} times of single ranks; waiting for late ranks is in them, so it is a lower bound"
    )
    if not matched:
        unknown["bus bandwidth"] = "a lower bound: without all ranks' files, waiting for late ranks is in the times"
    comments = [
        f"Measured by {FORMAT}: bus bandwidth of AllReduce of {row.nbytes} bytes, {ranks} ranks,", f"{how}.",
        "Everything else comes from a base: coordsim simulate THIS_FILE --cluster NAME --workload NAME",
    ]  # fmt: skip
    return cluster_toml(comments, ranks, bus)


def _why_no_arrivals(columns: Columns) -> str:
    """Return why the arrival of ranks at a call is not known."""
    several = (np.diff(columns.communicator) == 0) & (np.diff(columns.rank) != 0)
    if not several.any():
        return "no communicator has records of two ranks; every process writes a file of its own"
    together = [place for place, name in enumerate(columns.names) if name in SYNCHRONISING]
    here = np.flatnonzero(np.isin(columns.operation, together))
    if not len(here):
        return f"no collective that all ranks leave together ({', '.join(sorted(SYNCHRONISING))}) is recorded"
    if not (columns.time_us[here] > 0).any():
        return "no call has a time of the GPU's clock or of its kernels, which would tell when a rank came"
    return "no call has a time on all ranks that have records"


def _note_what_is_not_known(
    records: Records, columns: Columns, rows: list[SizeRow], arrivals: list[Arrivals], unknown: dict[str, str]
) -> None:
    """Add what else the files do not state, each with its reason."""
    other = sorted(set(records.versions) - {*KNOWN_VERSIONS, "not said"})
    if other:
        named = ", ".join(map(repr, other[:4]))
        known = f"{KNOWN_VERSIONS[0]} to {KNOWN_VERSIONS[-1]}"
        unknown["version"] = f"{named} is not known here ({known} are): what has the known names is read"
    if records.lost:
        more = f"; {len(records.lost) - 1:,} more files" if len(records.lost) > 1 else ""
        unknown["cut"] = f"the file is cut off: {records.lost[0]}{more}"
    if records.other_rates:
        unknown["bandwidth"] = (
            f"in {records.other_rates:,} records the file's bus bandwidth is not what size, time and ranks give; "
            "here it is worked out from those"
        )
    host = int((np.asarray(records.source) == HOST).sum())
    if host:
        unknown["times"] = f"{host:,} records have a time of the host's call alone (collective_cpu), which is left out"
    if not arrivals:
        unknown["arrivals"] = _why_no_arrivals(columns)
    elif any(each.aligned for each in arrivals):
        unknown["clocks"] = "the hosts' clocks are compared by the ends of collectives only; drift is not taken out"
    absent = [
        f"{each.ranks - seen:,} of {each.ranks:,} ranks of {each.id}"
        for place, each in enumerate(records.communicators)
        if 0 < (seen := sum(1 for communicator, _ in records.processes if communicator == place)) < each.ranks
    ] if len(records.communicators) <= MOST_ROWS else []  # fmt: skip
    if absent:
        more = f"; {len(absent) - 3:,} more communicators" if len(absent) > 3 else ""
        unknown["absent"] = f"no record of {', '.join(absent[:3])}{more}"
