"""Figures of a cluster from tables of benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tomlkit

from coordsim.errors import InputError
from coordsim.formats.imported import ClusterFigures, Imported
from coordsim.formats.shared.benchmark_table import Row, Table, TableFile
from coordsim.formats.shared.sources import SourcePath, names_in_job
from coordsim.fragments import one_line
from coordsim.units import format_bytes

_UNKNOWN = {
    "run": "a table of sizes has no steps and no gradients",
    "cost of a hop": "small messages are timed as a whole; cluster.data.hop_latency stays as the base says",
    "control plane": "nothing of it was measured: latency, overhead and host costs stay as the base says",
}
_NO_SPREAD = "nccl-tests prints means over its iterations"
_MOST_TABLES = 10_000


def import_files(paths: Sequence[SourcePath], form: str, read: Callable[[SourcePath], TableFile]) -> Imported:
    """Read the tables in ``paths``; each that is of an allreduce gives figures of a cluster.

    A file without a table beside others is listed as not read. Raises InputError, as ``read`` does, if no file has a
    table.
    """
    tables: list[Table] = []
    not_read: dict[str, int | str] = {}
    problems: list[InputError] = []
    names = dict(zip(paths, names_in_job(paths), strict=True))
    for path in paths:
        name = names[path]
        try:
            file = read(path)
        except InputError as error:
            problems.append(error)
            not_read[name] = error.problems[0].message
            continue
        tables += file.tables
        not_read |= {f"{name}: {what}" if len(paths) > 1 else what: why for what, why in file.not_read.items()}
        if len(tables) > _MOST_TABLES:
            raise InputError.one(str(path), "", len(tables), f"more than {_MOST_TABLES:,} tables; import fewer files")
    if not tables:
        raise problems[0]
    pairs = imported(tables, form, names)
    pairs.not_read = not_read
    return pairs


def imported(tables: Sequence[Table], form: str, names: Mapping[SourcePath, str] | None = None) -> Imported:
    """Return what some tables give, at least one.

    The figures of a single table are the summary; several are listed in it by number. ``names`` maps a path to what the
    file is called; by default it is called by its own name.
    """
    titles = [(names or {}).get(table.path, table.path.name) for table in tables]
    clusters = {
        number: ClusterFigures(_name(table, titles[number - 1] if len(tables) > 1 else None), _toml(table, form))
        for number, table in enumerate(tables, 1) if table.gives_cluster
    }  # fmt: skip
    if len(tables) == 1:
        summary = _figures(tables[0])
    else:
        summary = {"tables": [
            {"number": number, "file": titles[number - 1], "line": table.line, "printed_by": table.writer or None,
             "of": table.kind or None, **_figures(table)}
            for number, table in enumerate(tables, 1)
        ]}  # fmt: skip
    files = list(dict.fromkeys(titles))
    return Imported(form, files, summary, _UNKNOWN | _unknown_of(tables), clusters=clusters)


def _unknown_of(tables: Sequence[Table]) -> dict[str, str]:
    """Return what tables do not state -> reason, with the tables that it applies to."""
    numbers: dict[tuple[str, str], list[int]] = {}
    for number, table in enumerate(tables, 1):
        missing = dict(table.unknown)
        if all(row.spread is None for row in table.rows):
            missing.setdefault("spread", _NO_SPREAD)
        for what, why in missing.items():
            numbers.setdefault((what, why), []).append(number)
    unknown: dict[str, str] = {}
    for (what, why), of in numbers.items():
        if len(of) < len(tables):
            more = f" and {len(of) - 4:,} more" if len(of) > 4 else ""
            what = f"{what} (table{'s' if len(of) > 1 else ''} {', '.join(map(str, of[:4]))}{more})"
        unknown[what] = why
    return unknown


def _figures(table: Table) -> dict[str, Any]:
    smallest, largest = table.rows[0], table.rows[-1]
    spread = [row for row in table.rows if row.spread is not None]
    bus = [row.bus_Bps for row in table.rows if row.bus_Bps is not None]
    return {
        "collective": table.collective,
        "algorithm": table.algorithm,
        "ranks": table.ranks,
        "nodes": table.nodes,
        "gpus": table.gpus or None,
        "version": table.version,
        "rows": len(table.rows),
        "rows_with_wrong_results": table.wrong,
        "values_out_of_bounds": table.out_of_bounds,
        "smallest": {"bytes": smallest.nbytes, "time_s": smallest.time_ns / 1e9},
        "largest": {"bytes": largest.nbytes, "time_s": largest.time_ns / 1e9},
        "bus_bandwidth_Bps": largest.bus_Bps,
        "bus_bandwidth_p99_to_best_Bps": _interval(largest),
        "best_bus_bandwidth_Bps": max(bus, default=None),
        "average_bus_bandwidth_Bps": table.average_bus_Bps,
        "table": [[row.nbytes, row.time_ns / 1e9] for row in table.rows],
        "spread": [_spread(row) for row in spread] or None,
    }


def _name(table: Table, title: str | None) -> str:
    """Name a table, such as ``all_reduce float sum, 8 ranks, 8 B to 128 MiB (log.txt, line 12)``."""
    what = " ".join(filter(None, (table.collective or "unknown", table.kind)))
    ranks = "unknown ranks" if table.ranks is None else f"{table.ranks} ranks"
    sizes = " to ".join(dict.fromkeys(format_bytes(row.nbytes) for row in (table.rows[0], table.rows[-1])))
    return f"{what}, {ranks}, {sizes}" + (f" ({title[-60:]}, line {table.line})" if title is not None else "")


def _spread(row: Row) -> list[float | None]:
    """Return bytes, then the shortest, median, 99th percentile and longest time, s."""
    assert row.spread is not None
    times = (row.spread.least_ns, row.spread.median_ns, row.spread.p99_ns, row.spread.most_ns)
    return [row.nbytes, *(None if time is None else time / 1e9 for time in times)]


def _interval(row: Row) -> list[float] | None:
    """Return the bus bandwidth, bytes/s, for an iteration of the 99th percentile and for the shortest one."""
    if row.spread is None or row.bus_Bps is None or row.spread.least_ns <= 0 or row.spread.p99_ns <= 0:
        return None
    return [row.bus_Bps * row.time_ns / row.spread.p99_ns, row.bus_Bps * row.time_ns / row.spread.least_ns]


def _toml(table: Table, form: str) -> str:
    bus = table.rows[-1].bus_Bps
    assert bus is not None
    comments = [f"Measured by {form}: bus bandwidth of the largest allreduce. The rest is a base's:"]
    comments.append("coordsim simulate THIS_FILE --cluster NAME --workload NAME")
    if (interval := _interval(table.rows[-1])) is not None:
        comments.append(f"Spread: {interval[0]:.4g} B/s at the 99th percentile of times, {interval[1]:.4g} at best.")
    return cluster_toml(comments, table.ranks, bus)


def cluster_toml(comments: Sequence[str], ranks: int | None, bus_Bps: float) -> str:
    """Return a part of a scenario as TOML, with ``comments``, one line each.

    It contains ``ranks`` if known, and the bus bandwidth, bytes/s.
    """
    document = tomlkit.document()
    for comment in comments:
        document.add(tomlkit.comment(one_line(comment)))
    if ranks is not None:
        document["ranks"] = ranks
    data = tomlkit.table()
    data["bus_bandwidth"] = f"{round(bus_Bps)}B/s"
    cluster = tomlkit.table(is_super_table=True)
    cluster["data"] = data
    document["cluster"] = cluster
    return tomlkit.dumps(document)
