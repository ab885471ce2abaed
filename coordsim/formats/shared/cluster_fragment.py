"""A benchmark's table as figures of a cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from coordsim.errors import InputError
from coordsim.formats.imported import Imported
from coordsim.formats.shared.benchmark_table import ALLREDUCE, Row, Table

_UNKNOWN = {
    "run": "a table of sizes has no steps and no gradients",
    "cost of a hop": "small messages are timed as a whole; cluster.data.hop_latency stays as the base says",
    "control plane": "nothing of it was measured: latency, overhead and host costs stay as the base says",
}


def import_table(paths: list[Path], form: str, read: Callable[[Path], Table]) -> Imported:
    """The figures in ``paths``, which must be one table; that of an allreduce gives a cluster.

    Raises InputError for several files, and what ``read`` raises.
    """
    if len(paths) > 1:
        names = ", ".join(path.name for path in paths[:4])
        raise InputError.one(str(paths[0].parent), "", names, f"{len(paths)} tables ({names}); import one at a time")
    return imported(read(paths[0]), form)


def imported(table: Table, form: str) -> Imported:
    """As :func:`import_table`, of a table that was read before."""
    smallest, largest = table.rows[0], table.rows[-1]
    unknown = _UNKNOWN | table.unknown
    spread = [row for row in table.rows if row.spread is not None]
    if not spread:
        unknown["spread"] = "nccl-tests prints means over its iterations"
    bus = [row.bus_Bps for row in table.rows if row.bus_Bps is not None]
    summary: dict[str, Any] = {
        "collective": table.collective,
        "algorithm": table.algorithm,
        "ranks": table.ranks,
        "nodes": table.nodes,
        "gpus": table.gpus or None,
        "rows": len(table.rows),
        "rows_with_wrong_results": table.wrong,
        "smallest": {"bytes": smallest.nbytes, "time_s": smallest.time_ns / 1e9},
        "largest": {"bytes": largest.nbytes, "time_s": largest.time_ns / 1e9},
        "bus_bandwidth_Bps": largest.bus_Bps,
        "bus_bandwidth_p99_to_best_Bps": _interval(largest),
        "best_bus_bandwidth_Bps": max(bus, default=None),
        "table": [[row.nbytes, row.time_ns / 1e9] for row in table.rows],
        "spread": [_spread(row) for row in spread] or None,
    }  # fmt: skip
    toml = None
    if table.collective == ALLREDUCE and largest.bus_Bps is not None and largest.bus_Bps >= 1:
        toml = _toml(table, form, round(largest.bus_Bps))
    return Imported(form, [table.path.name], summary, unknown, cluster_toml=toml)


def _spread(row: Row) -> list[float | None]:
    """Bytes, then the least, median, 99th percentile and longest time, s."""
    assert row.spread is not None
    times = (row.spread.least_ns, row.spread.median_ns, row.spread.p99_ns, row.spread.most_ns)
    return [row.nbytes, *(None if time is None else time / 1e9 for time in times)]


def _interval(row: Row) -> list[float] | None:
    """Bus bandwidth when an iteration takes as long as the 99th percentile, and when it is the shortest, bytes/s."""
    if row.spread is None or row.bus_Bps is None or row.spread.least_ns <= 0 or row.spread.p99_ns <= 0:
        return None
    return [row.bus_Bps * row.time_ns / row.spread.p99_ns, row.bus_Bps * row.time_ns / row.spread.least_ns]


def _toml(table: Table, form: str, bus_Bps: int) -> str:
    lines = [
        f"# Measured by {form}: bus bandwidth of the largest allreduce. Everything else comes from a base:",
        "# coordsim simulate THIS_FILE --cluster NAME --workload NAME",
    ]
    if (interval := _interval(table.rows[-1])) is not None:
        lines.append(f"# Spread: {interval[0]:.4g} B/s at the 99th percentile of times, {interval[1]:.4g} at best.")
    if table.ranks is not None:
        lines.append(f"ranks = {table.ranks}")
    return "\n".join([*lines, "", "[cluster.data]", f'bus_bandwidth = "{bus_Bps}B/s"', ""])
