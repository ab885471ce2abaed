"""What one run of a benchmark printed, whichever it was, and what its readers share."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from coordsim.errors import InputError

ALLREDUCE = "all_reduce"
LARGEST_FILE = 1 << 24
MOST_RANKS = 1 << 20
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
    algorithm_Bps: float
    """Bytes over time, of all that ran at once."""
    bus_Bps: float | None
    """As nccl-tests defines it; None where the collective or the ranks are not known."""
    spread: Spread | None = None


@dataclass
class Table:
    path: Path
    collective: str | None = None
    """``all_reduce``; None where the output does not say."""
    algorithm: str | None = None
    """As gloo calls it, ``allreduce_ring_chunked``."""
    ranks: int | None = None
    nodes: int | None = None
    gpus: list[str] = field(default_factory=list)
    """Different ones, by name."""
    wrong: int = 0
    """Rows whose results were checked and are wrong."""
    rows: list[Row] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)
    """What this output does not tell -> why."""

    def add(self, row: Row, where: str) -> None:
        """Append a row; sizes grow within a run. Raises InputError when they do not."""
        if self.rows and row.nbytes < self.rows[-1].nbytes:
            self.wrong_at(where, row.nbytes, f"size {row.nbytes} after {self.rows[-1].nbytes}: two runs?")
        self.rows.append(row)

    def cut(self, text: str, lost: str | None) -> None:
        """Note what a cut took: inside the compression, or inside a row, which has no end of its line then."""
        last = text.splitlines()[-1] if text else ""
        if lost is None and not text.endswith("\n") and _ROW.match(last):
            lost = f"the last line ends at {last[-20:].strip()!r}"
        if lost is not None:
            self.unknown["cut"] = f"the file is cut off: {lost}"

    def wrong_at(self, where: str, value: object, message: str) -> NoReturn:
        """Raise: ``where`` (a line, a key) is no table's."""
        raise InputError.one(str(self.path), where, value, message)


def bus_factor(ranks: int) -> float:
    """Bus over algorithm bandwidth of an allreduce."""
    return 2 * (ranks - 1) / ranks
