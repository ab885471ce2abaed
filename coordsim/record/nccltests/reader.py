"""Reads what nccl-tests prints."""

from __future__ import annotations

import gzip
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from coordsim.errors import InputError

EXPECTED = "expected the table that nccl-tests prints (a header with size, time, algbw and busbw)"
LARGEST_FILE = 1 << 24
MOST_RANKS = 1 << 20
_RANK = re.compile(r"#\s*Rank\s+(\d+)\s+(?:Group\s+\d+\s+)?Pid\s+\d+\s+on\s+(\S+)\s+device\s+\d+\s+\[[^\]]*\]\s*(.*)")
_PROGRAM = re.compile(r"(\w+)_perf\b")
_COUNT = re.compile(r"[0-9]{1,18}")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")
_GB = 1e9
_LARGEST = 1e12
"""Of a time in us, or a rate in GB/s."""


@dataclass(frozen=True)
class Row:
    """One size; times of the in-place variant where there is one, else of the other."""

    nbytes: int
    dtype: str
    time_ns: int
    algorithm_Bps: float
    bus_Bps: float


@dataclass
class Table:
    """What one run of one program printed."""

    path: Path
    program: str | None = None
    """``all_reduce``; None where the output does not say."""
    ranks: int | None = None
    hosts: list[str] = field(default_factory=list)
    """By rank."""
    gpus: list[str] = field(default_factory=list)
    wrong: int = 0
    """Rows whose results were checked and are wrong."""
    rows: list[Row] = field(default_factory=list)


def read_table(path: Path) -> Table:
    """The table in ``path``. Raises InputError, with file and line, where there is none or a row makes no sense."""
    table, header = Table(path), None
    for number, line in enumerate(_text(path).splitlines(), 1):
        words = line.split()
        if line.lstrip().startswith("#"):
            _comment(table, line)
            names = [word for word in words if word != "#"]
            if _is_header(names):
                if header is not None and table.rows:
                    raise InputError.one(str(path), f"line {number}", "", "a second table; give each run its own file")
                header = names
        elif header is not None and words and _COUNT.fullmatch(words[0]) and len(words) >= len(header):
            _row(table, header, words, number)
        elif (found := _PROGRAM.search(line)) and table.program is None:
            table.program = found[1]
    if header is None or not table.rows:
        raise InputError.one(str(path), "", None, f"{'no row below the header' if header else 'no header'}; {EXPECTED}")
    table.ranks = len(table.hosts) or None
    return table


def _text(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST_FILE + 1)
        if data[:2] == b"\x1f\x8b":
            with gzip.open(path) as packed:
                data = packed.read(LARGEST_FILE + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError.one(str(path), "", None, f"damaged compression: {error}") from error
    if len(data) > LARGEST_FILE:
        raise InputError.one(str(path), "", None, f"longer than {LARGEST_FILE:,} bytes; {EXPECTED}")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError.one(str(path), "", None, f"not UTF-8 text: {error.reason}; {EXPECTED}") from error


def _comment(table: Table, line: str) -> None:
    if table.program is None and (found := _PROGRAM.search(line)):
        table.program = found[1]
    if (rank := _RANK.match(line.strip())) and len(table.hosts) < MOST_RANKS:
        if int(rank[1]) != len(table.hosts):
            message = f"rank {rank[1]} where rank {len(table.hosts)} is next: ranks are missing, or of two runs"
            raise InputError.one(str(table.path), "", rank[1], message)
        table.hosts.append(rank[2])
        table.gpus.append(rank[3].strip())


def _is_header(names: list[str]) -> bool:
    """Whether it names a row's size first, and a time with its bandwidths."""
    if names[:1] != ["size"] or "time" not in names:
        return False
    last = names[len(names) - 1 - names[::-1].index("time") :]
    return "algbw" in last and "busbw" in last


def _row(table: Table, header: list[str], words: list[str], number: int) -> None:
    where = f"line {number}"
    last = len(header) - 1 - header[::-1].index("time")

    def value(name: str, start: int = 0) -> float:
        word = words[header.index(name, start)]
        if not _NUMBER.fullmatch(word) or float(word) > _LARGEST:
            raise InputError.one(str(table.path), where, word[:40], f"{word[:40]!r} is no {name}")
        return float(word)

    nbytes, time_us = int(words[header.index("size")]), value("time", last)
    row = Row(
        nbytes, words[header.index("type")] if "type" in header else "", round(time_us * 1000),
        value("algbw", last) * _GB, value("busbw", last) * _GB,
    )  # fmt: skip
    if table.rows and nbytes < table.rows[-1].nbytes:
        raise InputError.one(str(table.path), where, nbytes, f"size {nbytes} after {table.rows[-1].nbytes}: two runs?")
    for name in ("#wrong", "error"):
        if name in header[last:]:
            wrong = words[header.index(name, last)]
            table.wrong += _NUMBER.fullmatch(wrong) is not None and name == "#wrong" and float(wrong) > 0
    table.rows.append(row)
