"""Tables that one run of a benchmark printed, and code that all readers of benchmarks share."""

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
"""Largest number of rows of all tables of one file."""
LARGEST_SIZE = 1 << 62
_ROW = re.compile(r"\s*[0-9]+\s")
LARGEST = 1e12
"""Largest time in us, or rate in GB/s."""


@dataclass(frozen=True)
class Spread:
    """Times of one size over the iterations, ns; None where the benchmark does not print them."""

    least_ns: int
    median_ns: int | None
    p99_ns: int
    most_ns: int


@dataclass(frozen=True)
class Row:
    """One size. ``time_ns`` is the mean if that is known well enough, else the median."""

    nbytes: int
    time_ns: int
    algorithm_Bps: float | None
    """Bytes over time, of all messages that ran at once; None where the benchmark prints no number."""
    bus_Bps: float | None
    """Bus bandwidth as nccl-tests defines it; None if the collective or the ranks are not known."""
    spread: Spread | None = None


@dataclass
class Table:
    """One table: one collective of one type and operation, by size."""

    path: SourcePath
    line: int = 1
    """Line of its header in the file."""
    writer: str = ""
    """The rank, host or container that printed it, by the log's prefixes; empty if there are none."""
    kind: str = ""
    """What distinguishes this table from others of the same run: ``float sum``, ``cycle 2``."""
    version: str | None = None
    """Version of the benchmark, as it prints it."""
    collective: str | None = None
    """Such as ``all_reduce``; None if the output does not state it."""
    algorithm: str | None = None
    """The algorithm as gloo calls it, such as ``allreduce_ring_chunked``."""
    ranks: int | None = None
    """Number of ranks in one communicator."""
    nodes: int | None = None
    gpus: list[str] = field(default_factory=list)
    """Names of the different GPUs."""
    wrong: int | None = 0
    """Number of rows whose results were checked and are wrong; None if none was checked."""
    out_of_bounds: int | None = None
    """Number of wrong values of the whole run, from its last lines."""
    average_bus_Bps: float | None = None
    """Average of the whole run, from its last lines."""
    rows: list[Row] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)
    """What this output does not state -> reason."""

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
        """Append a row. Raises InputError if sizes do not grow within a run."""
        if self.rows and row.nbytes < self.rows[-1].nbytes:
            self.wrong_at(where, row.nbytes, f"size {row.nbytes} after {self.rows[-1].nbytes}: two runs?")
        self.rows.append(row)

    def note_cut(self, last: str, ended: bool, lost: str | None) -> None:
        """Note what a cut removed: a part of the compression, or of a row, whose line has no end then.

        ``last`` is the file's last line, ``ended`` whether it has an end, ``lost`` what the compression lost, in words.
        """
        if lost is None and not ended and _ROW.match(last):
            lost = f"the last line ends at {last[-20:].strip()!r}"
        if lost is not None:
            self.unknown["cut"] = f"the file is cut off: {lost}"

    def wrong_at(self, where: str, value: object, message: str) -> NoReturn:
        """Raise InputError: the content at ``where`` (a line, a key) belongs to no table."""
        raise InputError.one(str(self.path), where, value, message)


@dataclass
class TableFile:
    """The tables of one file of a benchmark."""

    tables: list[Table]
    """At least one table."""
    not_read: dict[str, int | str] = field(default_factory=dict)
    """Invalid tables beside valid ones -> reason."""


def bus_factor(ranks: int) -> float:
    """Return bus over algorithm bandwidth of an allreduce."""
    return 2 * (ranks - 1) / ranks
