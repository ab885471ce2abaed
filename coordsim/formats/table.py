"""The table of the formats that ``coordsim import`` reads. A new format is one folder, and one line here."""

from __future__ import annotations

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path

from coordsim.errors import InputError
from coordsim.formats.imported import Imported
from coordsim.formats.shared.job_files import JobFiles, open_job_files
from coordsim.formats.shared.small_files import first_bytes
from coordsim.formats.shared.sources import SourcePath, open_source
from coordsim.formats.shared.wrapped_lines import unwrap_lines

AUTO = "auto"
_HEAD_BYTES = 1 << 16
_START = 40
_LOG_BYTES = 1 << 24
"""Number of bytes of a log that are searched for the sign of a format."""
_LONGEST_SIGN = 1024
_FOREIGN: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"^\x28\xb5\x2f\xfd"), "compressed by zstd; unpack it first"),
    (re.compile(rb"^\xfd7zXZ\0"), "compressed by xz; unpack it first"),
    (re.compile(rb"^BZh[1-9]"), "compressed by bzip2; unpack it first"),
    (re.compile(rb"^7z\xbc\xaf\x27\x1c"), "a 7-zip archive; unpack it first"),
    (re.compile(rb"^PK\x03\x04"), "an archive in an archive; unpack the outer one first"),
    (re.compile(rb"^SQLite format 3\0"), "an SQLite database, such as Nsight Systems exports"),
    (re.compile(rb"^#\s*OSU [\w+ -]+", re.MULTILINE), "a table of the OSU micro-benchmarks"),
    (re.compile(rb"Intel\(R\) MPI Benchmarks"), "a table of the Intel MPI benchmarks"),
    (re.compile(rb"#bytes\s+#?(?:elem_count|repetitions)\b"), "a table of oneCCL's or Intel's MPI benchmark"),
    (re.compile(rb"#bytes\s+#iterations\s+BW peak"), "a table of perftest (ib_write_bw)"),
    (re.compile(rb"^nvbandwidth Version"), "output of nvbandwidth"),
)
"""Formats that users have beside those that are read -> description."""


@dataclass
class Head:
    """The unpacked beginning of a file, by which its format is recognised."""

    name: str
    raw: bytes
    text: str
    """``raw`` as UTF-8, without a byte order mark and white space at its beginning."""

    @cached_property
    def plain(self) -> str:
        """:attr:`text` without the prefixes that launchers put before each line."""
        return "\n".join(line.text for line in unwrap_lines(self.text.split("\n")))

    @property
    def start(self) -> str:
        """The beginning of the first line, for messages."""
        return self.text[:_START].split("\n", 1)[0].rstrip()

    @property
    def is_object(self) -> bool:
        """Whether a JSON object begins the file."""
        return self.text.startswith("{")


@dataclass(frozen=True)
class SourceFormat:
    """One format: its name on the command line, how its files are recognised, and its reader."""

    name: str
    signs: str
    """What :attr:`recognises` looks for, in words, for messages."""
    recognises: Callable[[Head], bool]
    reader: str
    """``module:function``; the function takes one job's files and returns what they contain."""
    words: tuple[str, ...] = ()
    """Words of a sign that may stand far behind the beginning of a log; parts of the log that contain one are examined.
    A format without words is recognised by the beginning alone."""
    gives_way: bool = False
    """Whether another format wins whose sign stands anywhere in the same log."""

    def read(self, paths: Sequence[SourcePath]) -> Imported:
        """Read one job's files. Raises InputError for files that are not of this format, or of several jobs."""
        module, function = self.reader.split(":")
        result: Imported = getattr(import_module(module), function)(list(paths))
        return result


def _object_with(*patterns: str) -> Callable[[Head], bool]:
    sign = re.compile("|".join(patterns))
    return lambda head: head.is_object and sign.search(head.text) is not None


def _text_with(pattern: str) -> Callable[[Head], bool]:
    sign = re.compile(pattern, re.MULTILINE)
    return lambda head: not head.is_object and sign.search(head.plain) is not None


def _array(head: Head) -> bool:
    return re.match(r"\[\s*(?:\{|\]|$)", head.text) is not None


_PROFILED_EVENT = re.compile(
    r'"ProfilerStep#\d|"record_param_comms"|"(?:nccl|hccl|xccl|gloo):\w|'
    r'"cat"\s*:\s*"(?:cpu_op|Operator|user_annotation|kernel|Kernel|cuda_runtime|Runtime|python_function)"'
)
"""Matches events of PyTorch's profiler, and none of Horovod's."""
_CHAKRA_OBJECT = _object_with(r'"schema"\s*:\s*"[^"]{0,40}chakra', r'"(?:nodes|workload_graph)"\s*:\s*\[')
_CHAKRA_NAMES = (".et", ".et.gz", ".eg", ".eg.gz")
_FLIGHT_OBJECT = _object_with(r'"(?:entries|pg_config|pg_status|comm_lib_version|nccl_comm_state|nccl_version)"\s*:')
_NCCL_JSON = _object_with(r'"args"\s*:\s*\[[^\]]{0,8192}\]\s*,\s*"env"\s*:', r'"(?:bus_bw|aggregated_iterations)"\s*:')
_NCCL_TABLE = _text_with(
    r"\b(?:size|bytes)\s+(?:count|N)\s[^\n]{0,400}\balgbw\s+busbw\b|\bnThread\s+\d{1,6}\s+nGpus\s+\d"
)
_KINETO_OBJECT = _object_with(r'"traceEvents"\s*:', r'"schemaVersion"\s*:', r'"distributedInfo"\s*:')
_INSPECTOR = _object_with(r'"(?:coll_perf|p2p_perf|dump_stats|inspector_output_format_version)"\s*:')
_NCCL_LOG = re.compile(r"\bNCCL (?:INFO|WARN|TRACE|CALL) |^(?:NCCL|RCCL) version\s?:? ?[0-9]", re.MULTILINE)

SOURCES: tuple[SourceFormat, ...] = (
    SourceFormat(
        "ddp-logging", 'a dict with "bucket_sizes"',
        lambda head: re.search(r"""["']bucket_sizes["']\s*:""", head.text) is not None,
        "coordsim.formats.ddp_logging:import_logging_data",
    ),
    SourceFormat(
        "horovod", "a JSON array of events",
        lambda head: _array(head) and ('"NEGOTIATE_' in head.text or not _PROFILED_EVENT.search(head.text)),
        "coordsim.formats.horovod.run:import_timelines",
    ),
    SourceFormat(
        "chakra", 'an object with "nodes" or "workload_graph", or a name that ends in .et or .eg',
        lambda head: head.name.endswith(_CHAKRA_NAMES) or _CHAKRA_OBJECT(head),
        "coordsim.formats.chakra:import_executions",
    ),
    SourceFormat(
        "nccl-tests", 'a header with "size" and "busbw", or an object with "args" before "env"',
        lambda head: _NCCL_JSON(head) or _NCCL_TABLE(head),
        "coordsim.formats.nccl_tests.reader:import_tables", words=("busbw", "nThread"),
    ),
    SourceFormat(
        "kineto", 'an object with "traceEvents", or an array of the profiler\'s events',
        lambda head: _KINETO_OBJECT(head) or (_array(head) and _PROFILED_EVENT.search(head.text) is not None),
        "coordsim.formats.kineto:import_traces",
    ),
    SourceFormat(
        "flight-recorder", 'a pickle, or an object with "entries" and "pg_config"',
        lambda head: head.raw[:1] == b"\x80" or _FLIGHT_OBJECT(head),
        "coordsim.formats.flight_recorder:import_dumps",
    ),
    SourceFormat(
        "gloo-benchmark", 'a header with "elements", "min" and "p50"',
        _text_with(r"\belements\s+min \((?:us|ns)\)\s+p50 \("),
        "coordsim.formats.gloo_bench.reader:import_tables", words=("elements",),
    ),
    SourceFormat(
        "nccl-inspector", 'objects with "coll_perf", "p2p_perf" or "inspector_output_format_version"', _INSPECTOR,
        "coordsim.formats.nccl_inspector:import_dumps",
    ),
    SourceFormat(
        "nccl-debug", 'lines with "NCCL INFO" or "NCCL WARN", and no table of nccl-tests',
        lambda head: _NCCL_LOG.search(head.text) is not None,
        "coordsim.formats.nccl_debug:import_logs", words=("NCCL ", "RCCL "), gives_way=True,
    ),
)  # fmt: skip
"""All formats, in the order in which they are tried."""

FORMATS = tuple(source.name for source in SOURCES)


def import_source(path: Path, given: str) -> Imported:
    """Read ``path``: a file, a folder or an archive of one job's files. ``given`` is one of FORMATS, or ``auto``.

    Files of no known format beside others are listed in :attr:`Imported.not_read`. Raises InputError if no file can be
    read, stating what was looked for and what was there, and for files of two formats.
    """
    with open_job_files(path) as job:
        choice = choose_files(path, job, given)
        result = choice.source.read(choice.paths) if given == AUTO else _read_as_told(choice)
    result.not_read = _not_read(choice.others) | result.not_read
    return result


@dataclass(frozen=True)
class _Sniffed:
    """One file, and the format that its beginning shows."""

    path: SourcePath
    source: SourceFormat | None
    start: str
    """How it begins, in words: ``begins with '# nThread'``."""
    foreign: str | None = None
    """Its format, if that is known but not read."""

    @property
    def looks(self) -> str:
        """What the file looks like, in words."""
        return self.start if self.foreign is None else f"is {self.foreign}"


@dataclass(frozen=True)
class Choice:
    """The files to read, all of one format, and (name, reason) of the others."""

    source: SourceFormat
    paths: list[SourcePath]
    others: list[tuple[str, str]]
    first: _Sniffed


def choose_files(path: Path, job: JobFiles, given: str) -> Choice:
    """Choose the files of one format. Raises InputError as :func:`import_source` does."""
    alone = len(job.files) == 1 and not job.skipped
    sniffed = [_sniff(file, alone) for file in job.files]
    by_format: dict[str, list[_Sniffed]] = {}
    for one in sniffed:
        if one.source is not None:
            by_format.setdefault(one.source.name, []).append(one)
    if given != AUTO:
        source = next(source for source in SOURCES if source.name == given)
        # a format whose files cannot all be told by their beginning is read where nothing else is known of them
        chosen = by_format.get(given) or [one for one in sniffed if one.source is None] or sniffed
    elif len(by_format) > 1:
        raise InputError.one(str(path), "", sorted(by_format), _several_formats(by_format))
    elif by_format:
        chosen = next(iter(by_format.values()))
        assert chosen[0].source is not None
        source = chosen[0].source
    else:
        raise InputError.one(str(path), "", None, _nothing_known(sniffed, job.skipped))
    if not chosen:
        raise InputError.one(str(path), "", None, _nothing_known(sniffed, job.skipped))
    kept = {id(one) for one in chosen}
    others = [(one.path.name, _name_of(one)) for one in sniffed if id(one) not in kept]
    return Choice(source, [one.path for one in chosen], [*others, *job.skipped], chosen[0])


def _name_of(one: _Sniffed) -> str:
    if one.source is not None:
        return f"files of format {one.source.name}"
    return "files of no known format" if one.foreign is None else one.foreign


def _several_formats(by_format: dict[str, list[_Sniffed]]) -> str:
    listed = "; ".join(f"{name}: {_names([one.path.name for one in ones])}" for name, ones in by_format.items())
    choices = " or ".join(f"--format {name}" for name in by_format)
    return f"holds files of {len(by_format)} formats ({listed}); choose one with {choices}"


def _nothing_known(sniffed: list[_Sniffed], skipped: list[tuple[str, str]]) -> str:
    known = f"none of {', '.join(FORMATS)}"
    if len(sniffed) == 1 and not skipped:
        if sniffed[0].foreign is not None:
            return f"{sniffed[0].looks}; read are {', '.join(FORMATS)}"
        return f"{sniffed[0].start}, which is {known}; name it with --format if it is"
    reasons = [f"{one.path.name} {one.looks}" for one in sniffed] + [f"{name} is {why}" for name, why in skipped]
    more = f"; {len(reasons) - 3:,} more" if len(reasons) > 3 else ""
    return f"holds no recording of a known format ({known}): {'; '.join(reasons[:3])}{more}"


def _not_read(others: list[tuple[str, str]]) -> dict[str, int | str]:
    names: dict[str, list[str]] = {}
    for name, why in others:
        names.setdefault(why, []).append(name)
    return {f"{why} ({_names(listed)})": len(listed) for why, listed in names.items()}


def _names(names: list[str]) -> str:
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(name[:80] for name in names[:3]) + more


def _read_as_told(choice: Choice) -> Imported:
    """Read files as ``--format`` says; an error also says what was looked for, and what stood there."""
    try:
        return choice.source.read(choice.paths)
    except InputError as error:
        first = choice.first
        if first.source is choice.source:
            raise
        like = f", which looks like {first.source.name}" if first.source is not None else ""
        message = f"expected {choice.source.signs}; the file {first.start}{like}"
        if first.source is None:
            message += f" ({error.problems[0].message})"
        raise InputError.one(str(first.path), "", first.start, message) from error


def _sniff(path: SourcePath, alone: bool) -> _Sniffed:
    """Return what ``path`` looks like.

    Raises InputError for damaged data if ``alone``; beside others such a file is passed over.
    """
    try:
        head = read_head(path)
    except InputError as error:
        if alone:
            raise
        return _Sniffed(path, None, f"is not readable: {error.problems[0].message}")
    source = next((source for source in SOURCES if source.recognises(head)), None)
    foreign = None
    if source is None and head.text:
        foreign = next((name for sign, name in _FOREIGN if sign.search(head.raw)), None)
    if (source is None or source.gives_way) and foreign is None and _is_log(head):
        source = _source_further_on(path, source)
    return _Sniffed(path, source, f"begins with {head.start!r}" if head.text else "is empty", foreign)


def _is_log(head: Head) -> bool:
    """Return whether a text continues beyond what was examined, so that it may contain a format that is read."""
    return len(head.raw) >= _HEAD_BYTES and b"\0" not in head.raw[2:] and not head.is_object


def _source_further_on(path: SourcePath, passed_over: SourceFormat | None) -> SourceFormat | None:
    """Return the format of a part of a log; ``passed_over`` is one that gives way and is known to be there."""
    sources = [source for source in SOURCES if source.words and source is not passed_over]
    yielding = passed_over
    before, passed = b"", 0
    with suppress(InputError), open_source(path) as opened:
        while passed < _LOG_BYTES and (piece := opened.read(_HEAD_BYTES)):
            passed += len(piece)
            text = (before + piece).decode("utf-8", errors="replace")
            before = piece[-_LONGEST_SIGN:]
            head = Head(path.name, b"", f"\n{text}")
            for source in sources:
                if not any(word in text for word in source.words) or not source.recognises(head):
                    continue
                if not source.gives_way:
                    return source
                yielding = yielding or source
            sources = [source for source in sources if source is not yielding]
    return yielding


def format_of(path: SourcePath) -> SourceFormat:
    """Return the format of one file, by its beginning.

    Raises InputError, with the beginning, if it is of no known format.
    """
    one = _sniff(path, alone=True)
    if one.source is None:
        raise InputError.one(str(path), "", one.start, _nothing_known([one], []))
    return one.source


def read_head(path: SourcePath) -> Head:
    """Read the beginning of ``path``. Raises InputError for damaged data."""
    raw = first_bytes(path, _HEAD_BYTES)
    encoding = "utf-16" if raw[:2] in (BOM_UTF16_LE, BOM_UTF16_BE) else "utf-8"
    return Head(path.name, raw, raw.decode(encoding, errors="replace").lstrip("\ufeff \t\r\n"))
