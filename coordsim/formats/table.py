"""The formats that ``coordsim import`` reads: one line each. A new format is one folder and one line here."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from coordsim.errors import InputError
from coordsim.formats.imported import Imported
from coordsim.formats.shared.small_files import first_bytes

MOST_FILES = 100_000
_HEAD_BYTES = 1 << 16


@dataclass(frozen=True)
class Head:
    """How a file begins, unpacked: what its format is recognised by."""

    name: str
    raw: bytes
    text: str
    """``raw`` as UTF-8, without white space and a byte order mark before it."""

    @property
    def is_object(self) -> bool:
        """Whether a JSON object begins the file."""
        return self.text.startswith("{")


@dataclass(frozen=True)
class SourceFormat:
    """One format: its name on the command line, how its files are recognised, and what reads them."""

    name: str
    signs: str
    """What :attr:`recognises` looks for, in words, for messages."""
    recognises: Callable[[Head], bool]
    reader: str
    """``module:function``; the function takes one job's files and returns what they give."""

    def read(self, paths: list[Path]) -> Imported:
        """Read one job's files. Raises InputError for files that are not of this format, or of several jobs."""
        module, function = self.reader.split(":")
        result: Imported = getattr(import_module(module), function)(paths)
        return result


def _object_with(*patterns: str) -> Callable[[Head], bool]:
    sign = re.compile("|".join(patterns))
    return lambda head: head.is_object and sign.search(head.text) is not None


def _text_with(pattern: str) -> Callable[[Head], bool]:
    sign = re.compile(pattern, re.MULTILINE)
    return lambda head: not head.is_object and sign.search(head.text) is not None


def _array(head: Head) -> bool:
    return re.match(r"\[\s*(?:\{|\]|$)", head.text) is not None


_CHAKRA_OBJECT = _object_with(r'"schema"\s*:\s*"[^"]{0,40}chakra', r'"nodes"\s*:\s*\[')
_FLIGHT_OBJECT = _object_with(r'"(?:entries|pg_config|pg_status|comm_lib_version|nccl_comm_state|nccl_version)"\s*:')
_NCCL_JSON = _object_with(r'"args"\s*:\s*\[[^\]]{0,8192}\]\s*,\s*"env"\s*:', r'"(?:bus_bw|aggregated_iterations)"\s*:')
_NCCL_TABLE = _text_with(r"\bbusbw\b|^#\s*nThread\b")
_INSPECTOR = _object_with(r'"(?:coll_perf|p2p_perf|dump_stats|inspector_output_format_version)"\s*:')
_NCCL_LOG = re.compile(r"\bNCCL (?:INFO|WARN|TRACE|CALL) |^(?:NCCL|RCCL) version\s?:? ?[0-9]", re.MULTILINE)

SOURCES: tuple[SourceFormat, ...] = (
    SourceFormat(
        "horovod", "a JSON array of events", _array,
        "coordsim.formats.horovod.run:import_timelines",
    ),
    SourceFormat(
        "chakra", 'an object with "nodes", or a name that ends in .et',
        lambda head: head.name.endswith((".et", ".et.gz")) or _CHAKRA_OBJECT(head),
        "coordsim.formats.chakra:import_executions",
    ),
    SourceFormat(
        "nccl-tests", 'a header with "busbw", or an object with "args" before "env"',
        lambda head: _NCCL_JSON(head) or _NCCL_TABLE(head),
        "coordsim.formats.nccl_tests.reader:import_tables",
    ),
    SourceFormat(
        "kineto", 'an object with "traceEvents"',
        _object_with(r'"traceEvents"\s*:', r'"schemaVersion"\s*:', r'"distributedInfo"\s*:'),
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
        "coordsim.formats.gloo_bench.reader:import_tables",
    ),
    SourceFormat(
        "nccl-inspector", 'objects with "coll_perf", "p2p_perf" or "inspector_output_format_version"', _INSPECTOR,
        "coordsim.formats.nccl_inspector:import_dumps",
    ),
    SourceFormat(
        "nccl-debug", 'lines with "NCCL INFO" or "NCCL WARN", and no table of nccl-tests',
        lambda head: _NCCL_LOG.search(head.text) is not None,
        "coordsim.formats.nccl_debug:import_logs",
    ),
)  # fmt: skip
"""In the order in which they are tried."""

FORMATS = tuple(source.name for source in SOURCES)


def import_source(path: Path, given: str) -> Imported:
    """Read ``path``, a file or a folder of one job's files, as ``given`` says (one of FORMATS, or ``auto``).

    Raises InputError for what is none of them, with what was looked at, and for a folder of several kinds.
    """
    paths = files_of(path)
    source = next((source for source in SOURCES if source.name == given), None)
    return (source or _common_format(paths)).read(paths)


def _common_format(paths: Sequence[Path]) -> SourceFormat:
    first = format_of(paths[0])
    for path in paths[1:]:
        if (other := format_of(path)) is not first:
            message = (
                f"a {other.name} file beside {paths[0].name}, a {first.name} file; a folder is one job's, of one kind"
            )
            raise InputError.one(str(path), "", other.name, message)
    return first


def files_of(path: Path) -> list[Path]:
    """The files of one job: ``path``, or what lies in it, by name; hidden ones and folders are passed over."""
    if not path.is_dir():
        if not path.exists():
            raise InputError.one(str(path), "", str(path), "no such file or folder")
        return [path]
    paths = sorted(entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith("."))
    if not paths:
        raise InputError.one(str(path), "", str(path), "an empty folder")
    if len(paths) > MOST_FILES:
        raise InputError.one(str(path), "", len(paths), f"{len(paths):,} files; no job leaves more than {MOST_FILES:,}")
    return paths


def format_of(path: Path) -> SourceFormat:
    """The format of one file, by how it begins. Raises InputError, with what stood there, when it is none."""
    raw = first_bytes(path, _HEAD_BYTES)
    head = Head(path.name, raw, raw.decode("utf-8", errors="replace").lstrip("\ufeff \t\r\n"))
    for source in SOURCES:
        if source.recognises(head):
            return source
    start = f"begins with {head.text[:12]!r}" if head.text else "is empty"
    message = f"{start}, which is none of {', '.join(FORMATS)}; name it with --format if it is"
    raise InputError.one(str(path), "", head.text[:12], message)
