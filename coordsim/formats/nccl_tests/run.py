"""One run of nccl-tests while it is read: the lines before its rows, its tables, and their collective."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from coordsim.errors import InputError
from coordsim.formats.shared.benchmark_table import (
    ALLREDUCE,
    MOST_ROWS,
    MOST_TABLES,
    Row,
    Spread,
    Table,
    bus_factor,
)
from coordsim.formats.shared.sources import SourcePath

EXPECTED = "expected the table that nccl-tests prints (a header with size, time, algbw and busbw), or its JSON"
CPU_TIME = "times the CPU's part of a call alone (-C), not the collective; run it without"
NEWEST = (2, 19)
"""The newest nccl-tests whose output was known when this was written."""
GB = 1e9
_PROGRAM = re.compile(r"([A-Za-z]\w{0,60}?)_perf(?:_mpi)?\b")
_ROOTED = re.compile(r"[0-9]{1,9}")
_HALF_DIGIT = 0.005
"""Largest error of a rate in GB/s that is rounded to two decimals."""


class _Program(NamedTuple):
    """The output of a program: whether with an operation, whether with a root, and bus over algorithm bandwidth."""

    name: str
    reduces: bool
    rooted: bool
    factor: Callable[[int], float]
    """Function of the number of ranks."""


def _of_parts(ranks: int) -> float:
    return (ranks - 1) / ranks


def _one(ranks: int) -> float:
    return 1.0


_PROGRAMS = (
    _Program(ALLREDUCE, True, False, bus_factor),
    _Program("reduce_scatter", True, False, _of_parts),
    _Program("reduce_scatter", True, False, _one),  # until 2021
    _Program("sendrecv", True, False, _one),
    _Program("reduce", True, True, _one),
    _Program("broadcast", False, True, _one),
    _Program("scatter", False, True, _of_parts),
    _Program("gather", False, True, _of_parts),
    _Program("all_gather", False, False, _of_parts),
    _Program("all_gather", False, False, _one),  # until 2021
    _Program("alltoall", False, False, _of_parts),
    _Program("alltoallv", False, False, _of_parts),
    _Program("hypercube", False, False, _one),
    _Program("sendrecv", False, False, _one),  # until 2022, and mscclpp's
)
"""``TimeTest``, ``GetBw`` and ``print_line_header`` in ``src/*.cu`` of nccl-tests in all versions since 2017."""


@dataclass(frozen=True)
class Device:
    """One line of the list of ranks; a process with several GPUs has several."""

    group: str
    host: str
    process: str
    gpu: str


@dataclass(frozen=True)
class Kind:
    """What is equal in all rows of a table. A column that a version does not print is empty."""

    dtype: str = ""
    redop: str = ""
    root: str = ""
    cycle: int = 1

    def __str__(self) -> str:
        root = f"root {self.root}" if _ROOTED.fullmatch(self.root) else ""
        cycle = f"cycle {self.cycle}" if self.cycle > 1 else ""
        return " ".join(filter(None, (self.dtype, self.redop if self.redop != "none" else "", root, cycle)))


@dataclass(frozen=True)
class Printed:
    """A row as the benchmark prints it; times in us, rates in GB/s, None for what is no number (``inf``, ``N/A``)."""

    nbytes: int
    time_us: float
    algorithm: float | None
    bus: float | None
    wrong: bool | None
    """Whether a result of either variant is wrong; None if none was checked."""
    spread: Spread | None = None


@dataclass
class Run:
    """One run: a list of ranks, a header, rows of one or several types, operations, roots and cycles."""

    path: SourcePath
    writer: str = ""
    line: int = 1
    version: str | None = None
    programs: list[str] = field(default_factory=list)
    """Names in command lines before the rows."""
    program: str | None = None
    """The program as the benchmark itself states it (since 2025-06)."""
    devices: list[Device] = field(default_factory=list)
    shortened: bool = False
    """Whether the benchmark states that its list of ranks is incomplete."""
    ranks_lost: str | None = None
    """What is wrong with the list of ranks."""
    per_process: int | None = 1
    """Number of ranks of one process; None if that is not known."""
    cycle: int = 1
    tables: list[Table] = field(default_factory=list)
    kinds: list[Kind] = field(default_factory=list)
    """One kind for each table."""
    out_of_bounds: int | None = None
    average_bus: float | None = None
    unknown: dict[str, str] = field(default_factory=dict)

    @property
    def begun(self) -> bool:
        """Whether it has rows."""
        return bool(self.tables)

    def add(self, where: str, line: int, kind: Kind, row: Printed) -> None:
        """Append a row to the table of its kind, or begin one. Raises InputError for more rows than any run prints."""
        if not self.tables or kind != self.kinds[-1]:
            if len(self.tables) >= MOST_TABLES:
                raise InputError.one(str(self.path), where, None, f"more than {MOST_TABLES:,} tables")
            self.tables.append(Table(self.path, line, self.writer, wrong=None))
            self.kinds.append(kind)
        table = self.tables[-1]
        if len(table.rows) >= MOST_ROWS:
            table.wrong_at(where, None, f"more than {MOST_ROWS:,} rows")
        algorithm, bus = (None if rate is None else rate * GB for rate in (row.algorithm, row.bus))
        table.add(Row(row.nbytes, round(row.time_us * 1000), algorithm, bus, row.spread), where)
        if row.wrong is not None:
            table.wrong = (table.wrong or 0) + row.wrong

    def finish(self) -> list[Table]:
        """Return its tables, with what the whole run states of them."""
        several = len(self.tables) > 1
        ranks, groups = self._ranks()
        for table, kind in zip(self.tables, self.kinds, strict=True):
            table.kind = str(kind) if several else ""
            table.version = self.version
            table.ranks, table.gpus = ranks, sorted({device.gpu for device in self.devices if device.gpu})
            table.nodes = len({device.host for device in self.devices}) or None
            table.unknown |= self.unknown
            # the last lines say 0, too, where nothing was checked
            table.out_of_bounds = self.out_of_bounds if self.out_of_bounds or table.wrong is not None else None
            table.average_bus_Bps = None if self.average_bus is None else self.average_bus * GB
            table.collective, why = self._collective(table, kind, ranks)
            if why is not None:
                table.unknown["collective"] = why
            if not self.devices:
                table.unknown["ranks"] = "the output has no list of ranks"
            elif ranks is None:
                table.unknown["ranks"] = self._why_no_ranks()
            if groups > 1:
                table.unknown["single"] = f"{groups} groups of ranks ran at once; ranks are of one of them"
            if table.wrong is None:
                table.unknown["rows with wrong results"] = "results were not checked"
            if table.is_wrong:
                said = f"{self.out_of_bounds} values" if self.out_of_bounds else f"{table.wrong} rows"
                table.unknown["cluster"] = f"results are wrong ({said}), so that times are not those of the collective"
        return self.tables

    def _ranks(self) -> tuple[int | None, int]:
        """Return (ranks of one communicator, number of communicators)."""
        sizes = Counter(device.group for device in self.devices)
        if self.per_process is None or self.ranks_lost is not None:
            return None, len(sizes)
        if self.shortened:
            processes = {(device.group, device.host, device.process) for device in self.devices}
            sizes = Counter(group for group, _, _ in processes for _ in range(self.per_process))
        if not sizes or len(set(sizes.values())) > 1:
            return None, len(sizes)
        size = next(iter(sizes.values()))
        return (size if size % self.per_process == 0 else None), len(sizes)

    def _why_no_ranks(self) -> str:
        if self.ranks_lost is not None:
            return self.ranks_lost
        if self.per_process is None:
            return "the output does not say how many ranks a process has"
        if len(set(Counter(device.group for device in self.devices).values())) > 1:
            return "groups of ranks are of several sizes"
        return "the list of ranks is cut off"

    def _collective(self, table: Table, kind: Kind, ranks: int | None) -> tuple[str | None, str | None]:
        """Return (name, None), or (None, why it is not known)."""
        if self.program is not None:
            return self.program, None
        named = sorted(set(self.programs))
        if len(named) == 1 and _agrees(named[0], table, kind, ranks):
            return named[0], None
        possible = possible_programs(table, kind, ranks)
        if len(possible) == 1:
            return possible[0], None
        if len(named) > 1:
            return None, f"the log names {', '.join(named[:4])} before this table"
        if named:
            return None, f"the log names {named[0]}, which prints other columns or bandwidths than this table's"
        if ranks == 2 and ALLREDUCE in possible:
            return None, (
                "the output names no program; at 2 ranks an allreduce's bus and algorithm bandwidth are equal, as are "
                "those of a send-receive with the same columns"
            )
        if ranks is None:
            return None, "the output names no program, and no ranks by which the ratio of its bandwidths would show it"
        if possible:
            return None, f"the output names no program; {', '.join(possible)} print these columns and bandwidths"
        return None, "the output names no program, and no program of nccl-tests prints these columns and bandwidths"


def program_in(line: str) -> str | None:
    """Return the collective of the program that a line names: ``all_reduce`` for ``build/all_reduce_perf``."""
    match = _PROGRAM.search(line)
    return match[1] if match else None


def possible_programs(table: Table, kind: Kind, ranks: int | None) -> list[str]:
    """Return programs that can have printed ``table``, by its columns and by the ratio of its bandwidths.

    Columns alone decide if the number of ranks is not known, or if all rates are too small to show a ratio.
    """
    reduces, rooted = kind.redop not in ("", "none"), _ROOTED.fullmatch(kind.root) is not None
    alike = [program for program in _PROGRAMS if (program.reduces, program.rooted) == (reduces, rooted)]
    if ranks is not None and ranks > 1 and len(alike) > 1:
        alike = [program for program in alike if _can_have_factor(table, program.factor(ranks))]
    return list(dict.fromkeys(program.name for program in alike))


def _agrees(program: str, table: Table, kind: Kind, ranks: int | None) -> bool:
    """Return whether columns and bandwidths of ``table`` can be those of ``program``, which a command line names."""
    if program != ALLREDUCE:
        return True
    rooted = _ROOTED.fullmatch(kind.root) is not None or kind.redop == "none"
    return not rooted and (ranks is None or _can_have_factor(table, bus_factor(ranks)))


def _fastest(table: Table) -> tuple[float, float] | None:
    """Return (algorithm, bus) bandwidth, GB/s, of the row whose rounding matters least; None if all are too small."""
    rates = [(row.algorithm_Bps / GB, row.bus_Bps / GB) for row in table.rows if row.algorithm_Bps and row.bus_Bps]
    fastest = max(rates, default=(0.0, 0.0))
    return fastest if fastest[0] > 4 * _HALF_DIGIT else None


def _can_have_factor(table: Table, factor: float) -> bool:
    """Return whether bus over algorithm bandwidth can be ``factor``, within the error of rounding."""
    fastest = _fastest(table)
    if fastest is None:
        return True
    least = (fastest[1] - _HALF_DIGIT) / (fastest[0] + _HALF_DIGIT) * 0.995
    most = (fastest[1] + _HALF_DIGIT) / (fastest[0] - _HALF_DIGIT) * 1.005
    return least <= factor <= most
