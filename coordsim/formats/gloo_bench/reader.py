"""Reads what gloo's ``benchmark`` prints: gloo/benchmark/runner.cc in its four forms since 2017.

Columns are identified by name: elements, times (min, p50, p99, max) and their count in all of them; a bandwidth, bytes
over mean time in GiB/s, since 2017-08; the size in bytes since 2021. Earlier bandwidths by percentile repeat what the
times state.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from coordsim.formats.imported import Imported
from coordsim.formats.shared.benchmark_table import (
    ALLREDUCE,
    LARGEST,
    MOST_RANKS,
    MOST_ROWS,
    MOST_TABLES,
    Row,
    Spread,
    Table,
    TableFile,
    bus_factor,
)
from coordsim.formats.shared.cluster_fragment import import_files
from coordsim.formats.shared.sources import SourcePath
from coordsim.formats.shared.wrapped_lines import Line, WrappedLines

EXPECTED = "expected the table that gloo's benchmark prints (a header with elements, min, p50, p99 and max)"
_HEADER = re.compile(r"\s*(?:size \(B\)\s+)?elements\s+min \((?:us|ns)\)\s+p50 \((?:us|ns)\)\s")
_COLUMN = re.compile(r"([A-Za-z0-9]+)(?: \(([A-Za-z/]+)\))?")
_WHOLE = re.compile(r"[0-9]{1,18}")
_NUMBER = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,9})?|inf|nan")
_ALGORITHM = re.compile(r"\s*Algorithm:\s+(\w{1,80})\s*")
_TITLE = re.compile(r"\s*([A-Z0-9_]{1,80})\s*")
_KNOWN = re.compile(r"REDUCE|GATHER|BARRIER|BROADCAST|EXCHANGE|ALLTOALL|ALL_TO_ALL|SCATTER|SEND|RECV")
"""In newer output the algorithm stands alone on its line, between the first rule and the device."""
_OPTIONS = re.compile(
    r"\s*Options:\s+processes=(\d{1,9}), inputs=(\d{1,9})(?:, threads=(\d{1,9}))?(?:.*\bverify=(\w+))?"
)
_TIMES = ("min", "p50", "p99", "max")
_MEANS = ("avg", "bw", "bandwidth")
_GIB = 1 << 30
_TELLING = 0.1
"""Bandwidths are printed in GiB/s with three decimals; below this value the mean is too coarse."""
_FLOAT = 4


class _Line(NamedTuple):
    """One row as it is printed; times in ns."""

    elements: int
    nbytes: int | None
    spread: Spread
    mean_GiB: float | None


def import_tables(paths: Sequence[SourcePath]) -> Imported:
    """Return the tables in ``paths``. Raises InputError as :func:`read_gloo` does, if no file has a table."""
    return import_files(paths, "gloo-benchmark", read_gloo)


def read_gloo(path: SourcePath) -> TableFile:
    """Return the tables in a log. Raises InputError, with file and line, if there is none or a row is invalid."""
    lines = WrappedLines(path)
    runs: list[_Run] = []
    latest: dict[str, _Run] = {}
    last = ""
    for line in lines:
        last = line.text
        run = latest.get(line.writer)
        if run is None or (run.rows and _begins(line.text)):
            run = latest[line.writer] = _Run(Table(path, line.number, line.writer))
            runs.append(run)
            if len(runs) > MOST_TABLES:
                run.table.wrong_at(f"line {line.number}", None, f"more than {MOST_TABLES:,} tables and writers")
        run.feed(line)
    whole = [run for run in runs if run.rows]
    if not whole:
        header = any(run.header is not None for run in runs)
        Table(path).wrong_at("", None, f"{'no row below the header' if header else 'no header'}; {EXPECTED}")
    for run in whole:
        _finish(run.table, run.threads, run.rows)
    whole[-1].table.note_cut(last, lines.ended, lines.lost)
    return TableFile([run.table for run in whole])


def _begins(text: str) -> bool:
    """Return whether another run begins behind the rows of one."""
    return bool(_HEADER.match(text) or _ALGORITHM.fullmatch(text) or _OPTIONS.match(text) or _is_title(text))


def _is_title(text: str) -> bool:
    title = _TITLE.fullmatch(text)
    return title is not None and _KNOWN.search(title[1]) is not None


@dataclass
class _Run:
    """One run of the benchmark while it is read."""

    table: Table
    threads: int = 1
    header: list[tuple[str, str]] | None = None
    rows: list[tuple[str, _Line]] = field(default_factory=list)

    def feed(self, line: Line) -> None:
        """Read one line. Raises InputError for an invalid row."""
        where, text, table = f"line {line.number}", line.text, self.table
        words = text.split()
        if _HEADER.match(text):
            self.header, table.line = _COLUMN.findall(text), line.number
        elif self.header is not None:
            if words and _WHOLE.fullmatch(words[0]) and len(words) == len(self.header):
                self.rows.append((where, _line(table, where, dict(zip(self.header, words, strict=True)))))
                if len(self.rows) > MOST_ROWS:
                    table.wrong_at(where, None, f"more than {MOST_ROWS:,} rows")
            elif text.strip() == "VERIFY ERRORS":
                table.wrong = 1  # the benchmark ends with the first size that is wrong
        elif name := _ALGORITHM.fullmatch(text) or (_TITLE.fullmatch(text) if _is_title(text) else None):
            table.algorithm = name[1].lower()
        elif options := _OPTIONS.match(text):
            table.ranks, self.threads = int(options[1]), int(options[3] or 1)
            if options[4] == "false":
                table.wrong = None
                table.unknown["rows with wrong results"] = "results were not checked (verify=false)"
            if not 0 < table.ranks <= MOST_RANKS or self.threads < 1:
                table.wrong_at(where, options[0][:80], "is no number of processes or threads")


def _line(table: Table, where: str, columns: dict[tuple[str, str], str]) -> _Line:
    def whole(name: str, unit: str) -> int:
        word = columns.get((name, unit), "")
        if not _WHOLE.fullmatch(word) or int(word) > LARGEST * 1000:
            table.wrong_at(where, word[:40], f"{word[:40]!r} is no {name}")
        return int(word)

    unit = "ns" if ("min", "ns") in columns else "us"
    least, median, p99, most = (whole(name, unit) * (1 if unit == "ns" else 1000) for name in _TIMES)
    if not least <= median <= p99 <= most:
        table.wrong_at(where, median, "its times do not grow from min over p50 and p99 to max")
    means = [columns[name, "GB/s"] for name in _MEANS if (name, "GB/s") in columns]
    if means and not _NUMBER.fullmatch(means[0]):
        table.wrong_at(where, means[0][:40], f"{means[0][:40]!r} is no bandwidth")
    mean = float(means[0]) if means else None
    nbytes = whole("size", "B") if ("size", "B") in columns else None
    good = mean is not None and _TELLING <= mean <= LARGEST
    return _Line(whole("elements", ""), nbytes, Spread(least, median, p99, most), mean if good else None)


def _finish(table: Table, threads: int, lines: list[tuple[str, _Line]]) -> None:
    """Make rows of the lines, with what is known of all of them."""
    if table.algorithm is None:
        table.unknown["collective"] = "the output does not name its algorithm: of before 2017-04, or without its head"
    else:
        table.collective = _collective(table.algorithm)
    if table.ranks is None:
        table.unknown["ranks"] = "the output does not say with how many processes it was made"
    if threads > 1:
        table.unknown["single"] = f"{threads} threads ran one collective each at once; bandwidths are of them all"
    element = _element(table, threads, lines[-1][1])
    factor = bus_factor(table.ranks) if table.collective == ALLREDUCE and table.ranks is not None else None
    for where, line in lines:
        nbytes = line.nbytes if line.nbytes is not None else line.elements * element
        time_ns = line.spread.median_ns or 0
        if line.mean_GiB is not None:
            time_ns = round(nbytes * threads / (line.mean_GiB * _GIB) * 1e9)
        rate = nbytes * threads * 1e9 / time_ns if time_ns else 0.0
        table.add(Row(nbytes, time_ns, rate, rate * factor if factor is not None else None, line.spread), where)
    if lines[-1][1].mean_GiB is None:
        table.unknown["mean"] = "times are medians: a mean is not printed, or too coarsely"


def _element(table: Table, threads: int, largest: _Line) -> int:
    """Return the bytes of an element where sizes are not printed: float or float16 by the bandwidth, else float."""
    if largest.nbytes is not None:
        return _FLOAT
    if largest.mean_GiB is not None and largest.elements and largest.spread.median_ns:
        rates = largest.mean_GiB * _GIB * largest.spread.median_ns / 1e9 / threads / largest.elements
        for size in (2, _FLOAT):
            if 0.75 < rates / size < 1.33:
                return size
    table.unknown["bytes"] = "sizes are printed in elements alone; they are counted as float32"
    return _FLOAT


def _collective(algorithm: str) -> str:
    name = re.sub(r"^(?:new|cuda|peel)_", "", algorithm)
    return ALLREDUCE if name.startswith("allreduce") and name != "allreduce_local" else name
