"""What one run of a benchmark printed, whichever it was, and what its readers share."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NoReturn

from coordsim.errors import InputError
from coordsim.formats.shared.sources import SourcePath

ALLREDUCE = "all_reduce"
LARGEST_FILE = 1 << 24
MOST_RANKS = 1 << 20
MOST_TABLES = 1000
MOST_ROWS = 100_000
"""Rows of all tables of one file."""
LARGEST_SIZE = 1 << 62
_ROW = re.compile(r"\s*[0-9]+\s")
LARGEST = 1e12
"""Of a time in us, or a rate in GB/s."""


@dataclass(frozen=True)
class Spread:
    """Times of one size over the iterations, ns; None where the benchmark does not print it."""

    least_ns: int
    median_ns: int | None
    p99_ns: int
    most_ns: int


@dataclass(frozen=True)
class Row:
    """One size. ``time_ns`` is the mean where that is known well enough, else the median."""

    nbytes: int
    time_ns: int
    algorithm_Bps: float | None
    """Bytes over time, of all that ran at once; None where the benchmark prints no number."""
    bus_Bps: float | None
    """As nccl-tests defines it; None where the collective or the ranks are not known."""
    spread: Spread | None = None


@dataclass
class Table:
    """One table: one collective of one type and operation, by size."""

    path: SourcePath
    line: int = 1
    """Where its header stands in the file."""
    writer: str = ""
    """The rank, host or container that printed it, as the log's prefixes say; empty where there is none."""
    kind: str = ""
    """What tells this table from others of the same run: ``float sum``, ``cycle 2``."""
    version: str | None = None
    """Of the benchmark, as it prints it."""
    collective: str | None = None
    """``all_reduce``; None where the output does not say."""
    algorithm: str | None = None
    """As gloo calls it, ``allreduce_ring_chunked``."""
    ranks: int | None = None
    """In one communicator."""
    nodes: int | None = None
    gpus: list[str] = field(default_factory=list)
    """Different ones, by name."""
    wrong: int | None = 0
    """Rows whose results were checked and are wrong; None where none was checked."""
    out_of_bounds: int | None = None
    """Wrong values of the whole run, as its last lines say."""
    average_bus_Bps: float | None = None
    """Of the whole run, as its last lines say."""
    rows: list[Row] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)
    """What this output does not tell -> why."""

    @property
    def is_wrong(self) -> bool:
        """Whether a check of results failed."""
        return bool(self.wrong) or bool(self.out_of_bounds)

    @property
    def gives_cluster(self) -> bool:
        """Whether its bandwidth is that of a correct allreduce."""
        bus = self.rows[-1].bus_Bps
        return self.collective == ALLREDUCE and not self.is_wrong and bus is not None and bus >= 1

    def add(self, row: Row, where: str) -> None:
        """Append a row; sizes grow within a run. Raises InputError when they do not."""
        if self.rows and row.nbytes < self.rows[-1].nbytes:
            self.wrong_at(where, row.nbytes, f"size {row.nbytes} after {self.rows[-1].nbytes}: two runs?")
        self.rows.append(row)

    def note_cut(self, last: str, ended: bool, lost: str | None) -> None:
        """Note what a cut took: inside the compression, or inside a row, whose line has no end then.

        ``last`` is the file's last line, ``ended`` whether it has an end, ``lost`` what the compression lost, in words.
        """
        if lost is None and not ended and _ROW.match(last):
            lost = f"the last line ends at {last[-20:].strip()!r}"
        if lost is not None:
            self.unknown["cut"] = f"the file is cut off: {lost}"

    def wrong_at(self, where: str, value: object, message: str) -> NoReturn:
        """Raise: ``where`` (a line, a key) is no table's."""
        raise InputError.one(str(self.path), where, value, message)


@dataclass
class TableFile:
    """What one file of a benchmark holds."""

    tables: list[Table]
    """At least one."""
    not_read: dict[str, int | str] = field(default_factory=dict)
    """Tables that make no sense beside others that do -> why."""


def bus_factor(ranks: int) -> float:
    """Bus over algorithm bandwidth of an allreduce."""
    return 2 * (ranks - 1) / ranks
