"""Reads what nccl-tests prints, and the JSON that it writes (``-J``): src/common.cu and src/util.cu there."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from coordsim.formats.imported import Imported
from coordsim.formats.shared.benchmark_table import (
    ALLREDUCE,
    LARGEST,
    LARGEST_FILE,
    LARGEST_SIZE,
    MOST_RANKS,
    Row,
    Spread,
    Table,
    bus_factor,
)
from coordsim.formats.shared.cluster_fragment import import_table
from coordsim.formats.shared.json_text import JsonText, members
from coordsim.formats.shared.small_files import first_bytes, small_text

EXPECTED = "expected the table that nccl-tests prints (a header with size, time, algbw and busbw), or its JSON"
_RANK = re.compile(r"#\s*Rank\s+(\d+)\s+(?:Group\s+\d+\s+)?Pid\s+\d+\s+on\s+(\S+)\s+device\s+\d+\s+\[[^\]]*\]\s*(.*)")
_EACH = re.compile(r"#\s*nThread\s+(\d{1,6})\s+nGpus\s+(\d{1,6})\b")
_PROGRAM = re.compile(r"(\w+)_perf\b")
_COUNT = re.compile(r"[0-9]{1,18}")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")
_GB = 1e9
_HEAD = 256
_CPU_TIME = "times the CPU's part of a call alone (-C), not the collective; run it without"


@dataclass
class _Output:
    """What was read of one run so far."""

    table: Table
    hosts: list[str] = field(default_factory=list)
    """By rank, as far as ranks are listed."""
    gpus: list[str] = field(default_factory=list)
    each: int = 1
    """Ranks of a process."""
    kind: tuple[str, str] = ("", "")
    """Type and operation of the rows."""

    def row(self, where: str, row: Row, kind: tuple[str, str], wrong: bool) -> None:
        if self.table.rows and kind != self.kind:
            before, now = " ".join(filter(None, self.kind)), " ".join(filter(None, kind))
            self.table.wrong_at(where, now[:80], f"{now[:80]} below {before[:80]}; give each type and operation a file")
        self.kind = kind
        self.table.add(row, where)
        self.table.wrong += wrong

    def whole(self) -> Table:
        table = self.table
        table.nodes, table.gpus = len(set(self.hosts)) or None, sorted(set(self.gpus))
        if not self.hosts:
            table.unknown["ranks"] = "the output has no list of ranks"
        elif table.ranks is None:
            table.unknown["ranks"] = "the list of ranks is cut off"
        if table.collective is None:
            table.collective = _guessed(table)
        if table.collective is None:
            table.unknown["collective"] = (
                "the output names no program, and the ratio of its bandwidths is of no allreduce"
            )
        return table


def import_tables(paths: list[Path]) -> Imported:
    """The table in ``paths``, one file. Raises InputError for several, and as :func:`read_nccl` does."""
    return import_table(paths, "nccl-tests", read_nccl)


def read_nccl(path: Path) -> Table:
    """The table in ``path``. Raises InputError, with file and place, where there is none or a row makes no sense."""
    return _json(path) if first_bytes(path, _HEAD).lstrip()[:1] == b"{" else _text(path)


def _guessed(table: Table) -> str | None:
    """Allreduce where bus over algorithm bandwidth is 2(n-1)/n."""
    largest = table.rows[-1]
    if table.ranks is None or table.ranks < 2 or largest.algorithm_Bps <= 0 or largest.bus_Bps is None:
        return None
    wanted = bus_factor(table.ranks)
    return ALLREDUCE if abs(largest.bus_Bps / largest.algorithm_Bps - wanted) < 0.02 * wanted else None


# Text.


def _text(path: Path) -> Table:
    output, header = _Output(Table(path)), None
    text, lost = small_text(path, LARGEST_FILE, EXPECTED)
    for number, line in enumerate(text.splitlines(), 1):
        words, where = line.split(), f"line {number}"
        if line.lstrip().startswith("#"):
            _comment(output, line)
            names = [word for word in words if word != "#"]
            if _is_header(output.table, where, names):
                if header is not None and output.table.rows:
                    output.table.wrong_at(where, "", "a second table; give each run its own file")
                header = names
        elif header is not None and words and _COUNT.fullmatch(words[0]):
            _line(output, header, words, where)
        elif found := _PROGRAM.search(line):
            output.table.collective = output.table.collective or found[1]
    if header is None or not output.table.rows:
        output.table.wrong_at("", None, f"{'no row below the header' if header else 'no header'}; {EXPECTED}")
    ranks = len(output.hosts)
    output.table.ranks = ranks if ranks and ranks % output.each == 0 else None
    output.table.cut(text, lost)
    return output.whole()


def _comment(output: _Output, line: str) -> None:
    table = output.table
    if table.collective is None and (found := _PROGRAM.search(line)):
        table.collective = found[1]
    if each := _EACH.match(line.strip()):
        output.each = max(int(each[1]) * int(each[2]), 1)
    if (rank := _RANK.match(line.strip())) and len(output.hosts) < MOST_RANKS:
        if int(rank[1][:18]) != len(output.hosts):
            message = f"rank {rank[1][:18]} where rank {len(output.hosts)} is next: ranks are missing, or of two runs"
            table.wrong_at("", rank[1][:18], message)
        output.hosts.append(rank[2][:200])
        output.gpus.append(rank[3].strip()[:80])


def _is_header(table: Table, where: str, names: list[str]) -> bool:
    """Whether it names a row's size first, and a time with its bandwidths. Raises for tables of another meaning."""
    if names[:1] == ["bytes"] and "busbw" in names:
        table.wrong_at(where, "bytes", f"a table of the tests of NCCL 1, whose times are in ms; {EXPECTED}")
    if names[:1] != ["size"] or "busbw" not in names:
        return False
    if "cputime" in names:
        table.wrong_at(where, "cputime", _CPU_TIME)
    return "time" in names and {"algbw", "busbw"} <= set(names[_last(names) :])


def _last(names: list[str]) -> int:
    """Where the last group of columns begins, which are those of the in-place variant."""
    return len(names) - 1 - names[::-1].index("time")


def _line(output: _Output, header: list[str], words: list[str], where: str) -> None:
    first, last = header.index("time"), _last(header)
    if first < last and len(words) == len(header) - (last - first):  # a replay prints nothing out of place
        header, last = header[:first] + header[last:], first
    if len(words) < len(header):
        return

    def value(name: str) -> float:
        word = words[header.index(name, last)]
        if not _NUMBER.fullmatch(word) or float(word) > LARGEST:
            output.table.wrong_at(where, word[:40], f"{word[:40]!r} is no {name}")
        return float(word)

    def told(name: str) -> str:
        return words[header.index(name)][:40] if name in header else ""

    spread = None
    if "i_min" in header[last:]:
        least, p99, most = (round(value(f"i_{each}") * 1000) for each in ("min", "p99", "max"))
        spread = Spread(least, None, p99, most)
    wrong = words[header.index("#wrong", last)] if "#wrong" in header[last:] else ""
    row = Row(int(words[0]), round(value("time") * 1000), value("algbw") * _GB, value("busbw") * _GB, spread)
    output.row(where, row, (told("type"), told("redop")), _NUMBER.fullmatch(wrong) is not None and float(wrong) > 0)


# JSON.


def _json(path: Path) -> Table:
    text, output = JsonText(path, EXPECTED, "row"), _Output(Table(path))
    config: dict[str, Any] = {}
    devices: Any = []
    arguments, rows = 0, 0
    for key, value in members(text, frozenset({"results", "args", "env"})):
        if key == "results":
            _result(output, f"results[{rows}]", value)
            rows += 1
        elif key == "args" and arguments < 1000:
            arguments += 1
            if output.table.collective is None and (found := _PROGRAM.search(str(value)[:1000])):
                output.table.collective = found[1]
        elif key == "config" and isinstance(value, dict):
            config, devices = value, value.get("devices", devices)
        elif key == "devices":
            devices = value
    if not rows:
        output.table.wrong_at("results", None, f"holds no row; {EXPECTED}")
    _devices(output, config, devices)
    if text.lost is not None:
        output.table.unknown["cut"] = f"the file is cut off: {text.lost}"
    return output.whole()


def _devices(output: _Output, config: dict[str, Any], devices: Any) -> None:
    """Ranks, hosts and GPUs: one device is listed for each process, which may have several."""
    if not isinstance(devices, list) or not all(isinstance(each, dict) for each in devices):
        output.table.wrong_at("config.devices", None, "is no list of devices")
    output.hosts = [str(each.get("hostname"))[:200] for each in devices[:MOST_RANKS]]
    output.gpus = [str(each.get("device_info"))[:80] for each in devices[:MOST_RANKS]]
    threads, gpus = config.get("nthreads"), config.get("ngpus")
    if type(threads) is int and type(gpus) is int and 0 < threads * gpus * len(devices) <= MOST_RANKS:
        output.table.ranks = len(devices) * threads * gpus


def _result(output: _Output, where: str, value: Any) -> None:
    table = output.table
    size, found = (value.get("size"), value.get("in_place")) if isinstance(value, dict) else (None, None)
    if type(size) is not int or not 0 <= size < LARGEST_SIZE:
        _no_row(table, where)
    variant = "in_place"
    if not isinstance(found, dict):
        variant, found = "out_of_place", value.get("out_of_place")
    if not isinstance(found, dict):
        _no_row(table, where)
    if "cpu_time" in found:
        table.wrong_at(where, "cpu_time", _CPU_TIME)

    def number(of: dict[str, Any], name: str) -> float:
        given = of.get(name)
        if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= LARGEST:
            table.wrong_at(f"{where}.{name}", str(given)[:40], f"{str(given)[:40]!r} is no {name}")
        return float(given)

    times, spread = value.get(f"{variant}_per_iter"), None
    if isinstance(times, dict):
        least, median, p99, most = (round(number(times, f"{each}_us") * 1000) for each in ("min", "p50", "p99", "max"))
        spread = Spread(least, median, p99, most)
    bad = found.get("nwrong")
    time_us, algorithm, bus = (number(found, name) for name in ("time", "alg_bw", "bus_bw"))
    row = Row(size, round(time_us * 1000), algorithm * _GB, bus * _GB, spread)
    kind = (str(value.get("type", ""))[:40], str(value.get("redop", ""))[:40])
    output.row(where, row, kind, bad is not None and number(found, "nwrong") > 0)


def _no_row(table: Table, where: str) -> NoReturn:
    table.wrong_at(where, None, f"is no row with a size and times; {EXPECTED}")
