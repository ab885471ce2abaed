"""Reads the output of nccl-tests, and its forks (rccl-tests, mscclpp-test), in any log.

Sources: ``src/common.cu`` of nccl-tests from 2.0 (2019) to 2.19, ``src/common.cu`` of rccl-tests and
``test/mscclpp-test/common.cc`` of mscclpp. Columns are identified by their names. A log may hold several runs, one
after another or of several writers in turns; lines between them are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from coordsim.errors import InputError
from coordsim.formats.nccl_tests.run import CPU_TIME, EXPECTED, NEWEST, Device, Kind, Printed, Run, program_in
from coordsim.formats.shared.benchmark_table import LARGEST, MOST_RANKS, MOST_TABLES, Spread, Table, TableFile
from coordsim.formats.shared.sources import SourcePath
from coordsim.formats.shared.wrapped_lines import Line, WrappedLines

_RANK = re.compile(
    r"#?\s*Rank\s+(?P<rank>\d{1,9})\s+(?:Group\s+(?P<group>\d{1,9})\s+)?Pid\s+(?P<pid>\d{1,12})\s+on\s+(?P<host>\S+)\s+"
    r"device\s+\d+\s+\[[^\]]*\]\s*(?P<gpu>.*)"
)
_SETTINGS = re.compile(
    r"#?\s*nThread\s+(\d{1,6})\s+nGpus\s+(\d{1,6})\b(?:\s+minBytes\s+(\d{1,18})\s+maxBytes\s+(\d{1,18})\b)?"
)
_VERSION = re.compile(r"#?\s*(nccl-tests version (\d{1,4})\.(\d{1,4})\S{0,40}|rccl-tests: Version \S{1,80})(.{0,120})")
_STARTING = re.compile(r"#?\s*Collective test (starting|concluded): (.{1,200})")
_CYCLE = re.compile(r"#?\s*Testing (\d{1,9}) cycle")
_FOOTER = re.compile(r"#?\s*(Out of bounds values|Avg bus bandwidth)\s*:\s*(\S{1,40})")
_IN_PLACE_FIRST = re.compile(r"#?\s*in-place\s.*\bout-of-place")
_SHORTENED = re.compile(r".{0,200}\.\.\.\s*")
_COUNT = re.compile(r"[0-9]{1,18}")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")
_NO_NUMBER = re.compile(r"-?(?:inf|nan)|N/A", re.IGNORECASE)
_TYPE = re.compile(r"[A-Za-z][\w.]{0,40}")
_WHOLE = re.compile(r"-?[0-9]{1,9}")
_TIMES = ("time", "cputime")
_LIMITS = {"half": 1e-2, "bfloat16": 1e-2, "float": 1e-5, "double": 1e-12}
"""Largest right ``error`` of one addition, by type (DeltaMaxValue of nccl-tests until 2022); 0 for whole numbers."""
_MIXED = (
    "several processes printed their tables into one another, so that rows cannot be told apart; run with "
    "mpirun --tag-output, or build nccl-tests with MPI=1, so that one process prints"
)
_MOST_WRITERS = 10_000
_MOST_MENTIONS = 10_000


def read_text(path: SourcePath) -> TableFile:
    """Return the tables of a log. Raises InputError, with file and line, if there is none or a row is invalid."""
    lines, reader = WrappedLines(path), _Reader(path)
    last = ""
    for line in lines:
        reader.feed(line)
        last = line.text
    tables = reader.finish()
    tables[-1].note_cut(last, lines.ended, lines.lost)
    return TableFile(tables, reader.not_read())


@dataclass
class _Stream:
    """What one writer has printed so far."""

    run: Run
    settings: bool = False
    """Whether the run's first line stood here."""
    doubled: bool = False
    """Whether a second run began before the first had rows: it failed, or both print at once."""
    one_size: bool = False
    """Whether the run's first line states that every row is of the same size."""
    header: list[str] | None = None
    in_place_first: bool = False
    incomplete: int = 0
    interrupted: str | None = None
    """Content of the first row that other output interrupted."""
    problem: InputError | None = None
    """Why the rest of this run is passed over."""
    ended_at: int = 0
    """Line of the last row of the run before."""


class _Reader:
    def __init__(self, path: SourcePath) -> None:
        self._path = path
        self._streams: dict[str, _Stream] = {}
        self._tables: list[Table] = []
        self._problems: list[InputError] = []
        self._mentions: list[tuple[int, str]] = []
        self._header_seen = False

    def feed(self, line: Line) -> None:
        """Read one line."""
        text = line.text
        if not text or text.isspace():
            return
        stream = self._streams.get(line.writer)
        if stream is None:
            if len(self._streams) >= _MOST_WRITERS:
                return
            stream = self._streams[line.writer] = _Stream(Run(self._path, line.writer))
        words = text.split()
        if _COUNT.fullmatch(words[0]):
            if stream.header is not None and stream.problem is None:
                self._guarded(stream, line.number, lambda: self._row(stream, line.number, words))
            return
        names = [word for word in words if word != "#"]
        names[:1] = [names[0].lstrip("#")] if names else []
        if names and names[0] in ("size", "bytes") and "busbw" in names:
            if stream.run.begun:
                self._begin(stream)
            if stream.problem is None:
                self._guarded(stream, line.number, lambda: self._header(stream, line, names))
        else:
            self._guarded(stream, line.number, lambda: self._comment(stream, line.number, text))

    def finish(self) -> list[Table]:
        """Return all tables, in the order in which they begin. Raises InputError if there is none."""
        for stream in self._streams.values():
            self._close(stream)
        if not self._tables:
            if self._problems:
                raise self._problems[0]
            why = next((stream.interrupted for stream in self._streams.values() if stream.interrupted), None)
            what = "no row below the header" if self._header_seen else "no header"
            Table(self._path).wrong_at("", None, f"{what if why is None else f'no row is whole: {why}'}; {EXPECTED}")
        return sorted(self._tables, key=lambda table: table.line)

    def not_read(self) -> dict[str, int | str]:
        """Return tables that were passed over beside others -> reason."""
        named: dict[str, int | str] = {}
        for error in self._problems:
            problem = error.problems[0]
            named[f"a table ({problem.key})" if problem.key else "a table"] = problem.message
        return named

    def _guarded(self, stream: _Stream, number: int, action: Callable[[], None]) -> None:
        """Do ``action``; an error in it ends this run, and not the others."""
        try:
            action()
        except InputError as error:
            stream.problem = error
            self._problems.append(error)

    def _begin(self, stream: _Stream) -> None:
        """Begin a new run of this writer."""
        self._close(stream)
        stream.run = Run(self._path, stream.run.writer)
        stream.settings = stream.doubled = stream.in_place_first = stream.one_size = False
        stream.header, stream.incomplete, stream.interrupted, stream.problem = None, 0, None, None

    def _close(self, stream: _Stream) -> None:
        if stream.problem is not None:
            return
        if stream.incomplete:
            first = f" ({stream.interrupted})" if stream.interrupted is not None else ""
            why = f"{stream.incomplete} rows are not whole or interrupted by other output{first}, and are left out"
            stream.run.unknown["rows"] = why
        self._tables += stream.run.finish()
        if len(self._tables) > MOST_TABLES:
            raise InputError.one(str(self._path), "", None, f"more than {MOST_TABLES:,} tables")

    def _header(self, stream: _Stream, line: Line, names: list[str]) -> None:
        self._header_seen = True
        table, where = Table(self._path), f"line {line.number}"
        if names[0] == "bytes":
            table.wrong_at(where, "bytes", f"a table of the tests of NCCL 1, whose times are in ms; {EXPECTED}")
        if "cputime" in names:
            table.wrong_at(where, "cputime", CPU_TIME)
        if "time" not in names or not {"algbw", "busbw"} <= set(names):
            return
        if stream.header is not None and stream.settings:
            table.wrong_at(where, "", _MIXED)
        stream.header, stream.run.line = names, line.number

    def _comment(self, stream: _Stream, number: int, text: str) -> None:
        """Read a line that is neither header nor row."""
        body = text.lstrip()
        if (settings := _SETTINGS.match(body)) is not None:
            if stream.run.begun or stream.problem is not None:
                self._begin(stream)
            elif stream.settings:
                stream.doubled = True
                stream.run.devices, stream.run.ranks_lost, stream.header = [], None, None
            stream.settings, stream.one_size = True, settings[3] is not None and settings[3] == settings[4]
            stream.run.per_process = max(int(settings[1]) * int(settings[2]), 1)
        elif (rank := _RANK.match(body)) is not None:
            self._rank(stream, rank)
        elif (footer := _FOOTER.match(body)) is not None:
            self._footer(stream.run, footer)
        elif (cycle := _CYCLE.match(body)) is not None:
            stream.run.cycle = int(cycle[1])
        elif (version := _VERSION.match(body)) is not None:
            self._version(stream, version)
        elif (starting := _STARTING.match(body)) is not None:
            if starting[1] == "starting" and (stream.run.begun or stream.problem is not None):
                self._begin(stream)
            stream.run.program = program_in(starting[2])
        elif _IN_PLACE_FIRST.match(body):
            stream.in_place_first = True
        elif stream.run.devices and stream.header is None and _SHORTENED.fullmatch(body):
            stream.run.shortened = True
        elif len(self._mentions) < _MOST_MENTIONS and "_perf" in text and (program := program_in(text)):
            self._mentions.append((number, program))

    def _rank(self, stream: _Stream, rank: re.Match[str]) -> None:
        index = int(rank["rank"])
        if index == 0 and (stream.run.begun or stream.problem is not None):
            self._begin(stream)
        run = stream.run
        if stream.header is not None or len(run.devices) >= MOST_RANKS:
            return
        if index == 0 and run.devices and stream.doubled:
            Table(self._path).wrong_at("", None, _MIXED)
        if index != len(run.devices) and not run.shortened and not _is_new_group(run, rank):
            next_rank = len(run.devices)
            run.ranks_lost = f"the list of ranks is not whole: rank {index} stands where rank {next_rank} is next"
        gpu = rank["gpu"].strip()
        run.shortened = run.shortened or gpu.endswith("...")
        run.devices.append(Device(rank["group"] or "0", rank["host"][:200], rank["pid"], gpu[:80]))

    def _footer(self, run: Run, footer: re.Match[str]) -> None:
        if footer[1].startswith("Out") and _COUNT.fullmatch(footer[2]):
            run.out_of_bounds = int(footer[2])
        elif footer[1].startswith("Avg") and _NUMBER.fullmatch(footer[2]) and float(footer[2]) <= LARGEST:
            run.average_bus = float(footer[2])

    def _version(self, stream: _Stream, version: re.Match[str]) -> None:
        if stream.run.begun or stream.problem is not None:
            self._begin(stream)
        stream.run.version = (version[1].replace("version ", "").replace(": Version", "") + version[4]).strip()
        if version[2] is not None and (int(version[2]), int(version[3])) > NEWEST:
            newest = ".".join(map(str, NEWEST))
            stream.run.unknown["version"] = f"{version[1]} is newer than {newest}, the newest that is known"

    def _row(self, stream: _Stream, number: int, words: list[str]) -> None:
        header, run = stream.header, stream.run
        assert header is not None
        columns = _columns(header, words, stream.in_place_first)
        where = f"line {number}"
        if columns is None:
            stream.incomplete += _looks_like_row(words)
            return
        if (strange := columns.strange()) is not None:
            stream.incomplete += 1
            stream.interrupted = stream.interrupted or f"{where}: {strange}"
            return
        if not run.begun:
            run.programs = [name for line, name in self._mentions if line > stream.ended_at]
        stream.ended_at = number
        row = _printed(Table(self._path), where, columns, max(len(run.devices) - 1, 1))
        lead = columns.lead
        kind = Kind(lead.get("type", ""), lead.get("redop", ""), lead.get("root", ""), run.cycle)
        if run.begun and kind == run.kinds[-1]:
            before = run.tables[-1].rows
            again = row.nbytes < before[-1].nbytes or (row.nbytes == before[-1].nbytes > 0)
            if again and stream.doubled:
                Table(self._path).wrong_at(where, None, _MIXED)
            # small sizes of a gather are rounded to equal ones; a cycle (-N) begins with the first size again, and
            # newer versions do not announce it
            if again and row.nbytes == before[0].nbytes and (stream.one_size or row.nbytes < before[-1].nbytes):
                run.cycle += 1
                kind = Kind(kind.dtype, kind.redop, kind.root, run.cycle)
        run.add(where, run.line, kind, row)


def _is_new_group(run: Run, rank: re.Match[str]) -> bool:
    """Return whether ranks are numbered anew in another group (NCCL_TESTS_SPLIT), as some forks do."""
    return int(rank["rank"]) == 0 and bool(run.devices) and rank["group"] is not None and all(
        device.group != rank["group"] for device in run.devices
    )  # fmt: skip


@dataclass
class _Columns:
    """A row's words by the names of their columns."""

    lead: dict[str, str]
    """Words before the first time: size, count, type, redop, root."""
    taken: dict[str, str]
    """The variant that is used: in place, if it was printed."""
    variants: Sequence[dict[str, str]]
    """All variants that were printed."""
    more: Sequence[str]
    """Words behind the last column."""
    checks: Sequence[tuple[str, str]] = ()
    """(``#wrong`` or ``error``, its word) of each variant."""

    def strange(self) -> str | None:
        """Return what shows that other output interrupted the row, in words; None if nothing does."""
        names = ("time", "algbw", "busbw", "i_min", "i_max", "i_p99")
        for variant in self.variants:
            for name in names:
                if not _is_number(word := variant.get(name, "0")):
                    return f"{word[:40]!r} is no {name}"
        if self.more and _is_number(self.more[0]):
            return f"{self.more[0][:40]!r} stands behind the last column"
        return None


def _columns(header: list[str], words: list[str], in_place_first: bool) -> _Columns | None:
    """Return the columns of a row; None for a line that is no row, or is incomplete."""
    starts = [place for place, name in enumerate(header) if name in _TIMES]
    lead, width = starts[0], (starts[1] - starts[0] if len(starts) > 1 else len(header) - starts[0])
    if header[:lead][3:5] == ["redop", "root"] and len(words) > 3 and _WHOLE.fullmatch(words[3]):
        words = [*words[:3], "", *words[3:]]  # a collective without operation prints nothing there
    if len(starts) > 1 and len(words) == lead + width and len(words) < len(header):
        starts = starts[:1]  # one variant alone, in place: of a replay, or of mscclpp
    last = starts[-1] + width if len(starts) > 1 else lead + width
    if len(words) < min(last, len(header)) or not _looks_like_row(words, typed="type" in header[:lead]):
        return None
    groups = [dict(zip(header[lead : lead + width], words[start : start + width], strict=False)) for start in starts]
    taken = groups[0] if in_place_first else groups[-1]
    checks = [(name, group[name]) for group in groups for name in ("#wrong", "error") if name in group]
    more = words[max(last, len(header)) :] if starts[-1] != lead else words[last:]
    return _Columns(dict(zip(header[:lead], words[:lead], strict=True)), taken, groups, more, checks)


def _looks_like_row(words: list[str], typed: bool = False) -> bool:
    if len(words) < 3 or not _COUNT.fullmatch(words[1]):
        return False
    return _TYPE.fullmatch(words[2]) is not None if typed else True


def _printed(table: Table, where: str, columns: _Columns, additions: int) -> Printed:
    """Return a row of numbers. Raises InputError for a word that is no number."""

    def value(name: str) -> float | None:
        word = columns.taken.get(name, "")
        if _NO_NUMBER.fullmatch(word) and name not in _TIMES:
            return None
        if not _NUMBER.fullmatch(word) or float(word) > LARGEST:
            table.wrong_at(where, word[:40], f"{word[:40]!r} is no {name}")
        return float(word)

    spread = None
    if "i_min" in columns.taken:
        least, p99, most = (round((value(f"i_{name}") or 0.0) * 1000) for name in ("min", "p99", "max"))
        spread = Spread(least, None, p99, most)
    limit = _LIMITS.get(columns.lead.get("type", ""), 0.0) * additions
    checks = [_is_wrong(name, word, limit) for name, word in columns.checks]
    checked = [check for check in checks if check is not None]
    time_us = value("time") or 0.0
    return Printed(
        int(columns.lead["size"]), time_us, value("algbw"), value("busbw"), any(checked) if checked else None, spread
    )


def _is_number(word: str) -> bool:
    return _NUMBER.fullmatch(word) is not None or _NO_NUMBER.fullmatch(word) is not None


def _is_wrong(name: str, word: str, limit: float) -> bool | None:
    """Return whether a check failed; None if it was not done.

    ``limit`` is the largest right error of the older column.
    """
    number = word.rstrip("*")
    if name == "error" and _NO_NUMBER.fullmatch(number) and number.upper() != "N/A":
        return True  # an infinite difference, or one that is no number
    if not _NUMBER.fullmatch(number):
        return None
    return number != word or float(number) > (0.0 if name == "#wrong" else limit)
