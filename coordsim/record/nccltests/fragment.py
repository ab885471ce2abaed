"""nccl-tests' table as figures of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coordsim.errors import InputError
from coordsim.record.imported import Imported
from coordsim.record.nccltests.reader import Table, read_table

FORMAT = "nccl-tests"
ALLREDUCE = "all_reduce"

_UNKNOWN = {
    "run": "a table of sizes has no steps and no gradients",
    "cost of a hop": "small messages are timed as a whole; cluster.data.hop_latency stays as the base says",
    "control plane": "nothing of it was measured: latency, overhead and host costs stay as the base says",
    "spread": "nccl-tests prints means over its iterations",
}


def import_tables(paths: list[Path]) -> Imported:
    """The figures in ``paths``, of which one may be an all_reduce of one job. Raises InputError for several."""
    tables = [read_table(path) for path in paths]
    if len(tables) > 1:
        names = ", ".join(path.name for path in paths[:4])
        raise InputError.one(str(paths[0].parent), "", names, f"{len(tables)} tables ({names}); import one at a time")
    return imported(tables[0])


def imported(table: Table) -> Imported:
    """As :func:`import_tables`, of a table that was read before."""
    largest = table.rows[-1]
    collective = _collective(table)
    unknown = dict(_UNKNOWN)
    if table.ranks is None:
        unknown["ranks"] = "the output has no list of ranks"
    if collective is None:
        unknown["collective"] = "the output names no program, and the ratio of its bandwidths is of no allreduce"
    small = table.rows[0]
    summary: dict[str, Any] = {
        "collective": collective,
        "ranks": table.ranks,
        "nodes": len(set(table.hosts)) or None,
        "gpus": sorted(set(table.gpus)) or None,
        "rows": len(table.rows),
        "rows_with_wrong_results": table.wrong,
        "smallest": {"bytes": small.nbytes, "time_s": small.time_ns / 1e9},
        "largest": {"bytes": largest.nbytes, "time_s": largest.time_ns / 1e9},
        "bus_bandwidth_Bps": largest.bus_Bps,
        "best_bus_bandwidth_Bps": max(row.bus_Bps for row in table.rows),
        "table": [[row.nbytes, row.time_ns / 1e9] for row in table.rows],
    }  # fmt: skip
    toml = None
    if collective == ALLREDUCE and largest.bus_Bps >= 1:
        toml = _toml(table, round(largest.bus_Bps))
    return Imported(FORMAT, [table.path.name], summary, unknown, cluster_toml=toml)


def _collective(table: Table) -> str | None:
    """What the output says, else allreduce where bus over algorithm bandwidth is 2(n-1)/n."""
    if table.program is not None:
        return table.program
    largest = table.rows[-1]
    if table.ranks is None or table.ranks < 2 or largest.algorithm_Bps <= 0:
        return None
    wanted = 2 * (table.ranks - 1) / table.ranks
    return ALLREDUCE if abs(largest.bus_Bps / largest.algorithm_Bps - wanted) < 0.02 * wanted else None


def _toml(table: Table, bus_Bps: int) -> str:
    lines = [
        "# Measured by nccl-tests: bus bandwidth of the largest allreduce. Everything else comes from a base:",
        "# coordsim simulate THIS_FILE --cluster NAME --workload NAME",
    ]
    if table.ranks is not None:
        lines.append(f"ranks = {table.ranks}")
    return "\n".join([*lines, "", "[cluster.data]", f'bus_bandwidth = "{bus_Bps}B/s"', ""])
