"""Which source a file or folder comes from, told by content, and its reader."""

from __future__ import annotations

import re
from pathlib import Path

from coordsim.errors import InputError
from coordsim.record.imported import Imported
from coordsim.record.small_files import first_bytes

FORMATS = ("horovod", "kineto", "flight-recorder", "chakra", "nccl-tests", "gloo-benchmark")
MOST_FILES = 100_000
_HEAD_BYTES = 1 << 16
_CHAKRA = re.compile(r'"schema"\s*:\s*"[^"]{0,40}chakra|"nodes"\s*:\s*\[')
_KINETO = re.compile(r'"traceEvents"\s*:|"schemaVersion"\s*:|"distributedInfo"\s*:')
_FLIGHT = re.compile(r'"(?:entries|pg_config|pg_status|comm_lib_version|nccl_comm_state|nccl_version)"\s*:')
_NCCL_JSON = re.compile(r'"args"\s*:\s*\[[^\]]{0,8192}\]\s*,\s*"env"\s*:|"(?:bus_bw|aggregated_iterations)"\s*:')
_ARRAY = re.compile(r"\[\s*(?:\{|\]|$)")
_NCCL = re.compile(r"\bbusbw\b|^#\s*nThread\b", re.MULTILINE)
_GLOO = re.compile(r"\belements\s+min \((?:us|ns)\)\s+p50 \(")
_OBJECTS = [("chakra", _CHAKRA), ("nccl-tests", _NCCL_JSON), ("kineto", _KINETO), ("flight-recorder", _FLIGHT)]
_TABLES = [("nccl-tests", _NCCL), ("gloo-benchmark", _GLOO)]


def import_source(path: Path, given: str) -> Imported:
    """Read ``path``, a file or a folder of one job's files, as ``given`` says (one of FORMATS, or ``auto``).

    Raises InputError for what is none of them, with what was looked at, and for a folder of several kinds.
    """
    paths = files_of(path)
    form = given
    if given == "auto":
        kinds = {each: kind_of(each) for each in paths}
        form = kinds[paths[0]]
        for each, kind in kinds.items():
            if kind != form:
                message = f"a {kind} file beside {paths[0].name}, a {form} file; a folder is one job's, of one kind"
                raise InputError.one(str(each), "", kind, message)
    return _read(form, paths)


def _read(form: str, paths: list[Path]) -> Imported:
    if form in ("nccl-tests", "gloo-benchmark"):
        from coordsim.record.benchtables import import_tables

        return import_tables(paths, form)
    if form == "kineto":
        from coordsim.record.kineto import import_traces

        return import_traces(paths)
    if form == "flight-recorder":
        from coordsim.record.flight import import_dumps

        return import_dumps(paths)
    if form == "chakra":
        from coordsim.record.chakra import import_executions

        return import_executions(paths)
    from coordsim.record.timeline.run import import_timelines

    return import_timelines(paths)


def files_of(path: Path) -> list[Path]:
    """The files of one job: ``path``, or what lies in it, by name; hidden ones and folders are passed over."""
    if not path.is_dir():
        if not path.exists():
            raise InputError.one(str(path), "", str(path), "no such file or folder")
        return [path]
    found = sorted(each for each in path.iterdir() if each.is_file() and not each.name.startswith("."))
    if not found:
        raise InputError.one(str(path), "", str(path), "an empty folder")
    if len(found) > MOST_FILES:
        raise InputError.one(str(path), "", len(found), f"{len(found):,} files; no job leaves more than {MOST_FILES:,}")
    return found


def kind_of(path: Path) -> str:
    """One of FORMATS, told by how the file begins. Raises InputError when it is none."""
    head = first_bytes(path, _HEAD_BYTES)
    if head[:1] == b"\x80":
        return "flight-recorder"
    if path.name.endswith((".et", ".et.gz")):
        return "chakra"
    text = head.decode("utf-8", errors="replace").lstrip("\ufeff \t\r\n")
    if _ARRAY.match(text):
        return "horovod"
    for kind, sign in _OBJECTS if text.startswith("{") else _TABLES:
        if sign.search(text):
            return kind
    found = f"begins with {text[:12]!r}" if text else "is empty"
    message = f"{found}, which is none of {', '.join(FORMATS)}; name it with --format if it is"
    raise InputError.one(str(path), "", text[:12], message)
