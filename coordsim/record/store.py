"""A run directory: ``manifest.json`` beside ``trace.npz``. Written to a temporary name, then renamed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coordsim.errors import InputError
from coordsim.record.findings import Findings
from coordsim.record.run_facts import RunFacts
from coordsim.record.trace import CYCLE_COLUMNS, RESPONSE_COLUMNS, SCHEMA, STEP_COLUMNS, Int64, Trace

_TABLES = {"cycles": CYCLE_COLUMNS, "responses": RESPONSE_COLUMNS, "steps": STEP_COLUMNS}


_OWN = ("manifest.json", "trace.npz", "ranks")


def _is_run(manifest: Path) -> bool:
    """Whether it is one of ours, of whatever version: other tools have files of that name, too."""
    try:
        found = json.loads(manifest.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and str(found.get("schema", "")).startswith(SCHEMA.rpartition("/")[0] + "/")


def check_target(path: Path, where: str = "--out") -> None:
    """Raise InputError when a run cannot be written to ``path``: it exists and is no earlier run, or one with files in
    it that no run has."""
    if os.path.lexists(path):
        if path.is_symlink() or not _is_run(path / "manifest.json"):
            raise InputError.one(where, "", str(path), f"{path} exists and is not a run directory; choose another name")
        foreign = sorted(each.name for each in path.iterdir() if each.name not in _OWN)
        if foreign:
            message = f"{path} is a run that also holds {foreign[0]}, which would be lost; choose another name"
            raise InputError.one(where, "", str(path), message)
    if not path.absolute().parent.is_dir():
        raise InputError.one(where, "", str(path), f"folder {path.absolute().parent} does not exist")


class Stored(NamedTuple):
    """What a run directory holds, beside ranks' records."""

    trace: Trace
    facts: RunFacts
    findings: Findings | None
    """What was found out about it when it was written, where that was kept."""


def write_run(
    path: Path, trace: Trace, facts: RunFacts, findings: Findings | None = None, streams: Path | None = None
) -> None:
    """Write a run directory, all of it or nothing; an earlier run of that name is replaced.

    ``facts`` and ``findings`` go into the manifest beside the trace's digest; ``streams``: a folder of ranks' records
    that is copied into it as ``ranks``.
    """
    from coordsim.record.manifest import manifest_of

    check_target(path)
    parent = path.absolute().parent
    fresh = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=parent))
    try:
        _write_columns(fresh / "trace.npz", trace)
        manifest = {
            **manifest_of(facts, findings),
            "schema": SCHEMA, "blocking": trace.blocking, "trace_sha256": trace.digest(),
            **({"missing_parts": sorted(trace.missing)} if trace.missing else {}),
            **({"own_parts": list(trace.own)} if trace.own else {}),
        }  # fmt: skip
        (fresh / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
        if streams is not None:
            (fresh / "ranks").mkdir()
            for each in streams.glob("*.rank"):
                shutil.copyfile(each, fresh / "ranks" / each.name)
        fresh.chmod(0o755)
        if path.exists():
            _replace(path, fresh)
        else:
            os.rename(fresh, path)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _write_columns(path: Path, trace: Trace) -> None:
    """As :func:`numpy.savez_compressed` writes them, one column at a time and five times as fast."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:

        def put(name: str, column: npt.NDArray[Any]) -> None:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, column, allow_pickle=False)

        put("blocking", np.array(trace.blocking))
        for table, names in _TABLES.items():
            for name in names:
                put(f"{table}.{name}", getattr(trace, table)[name])
        for name, column in trace.own.items():
            put(f"own.{name}", column)


def _replace(path: Path, fresh: Path) -> None:
    """Put ``fresh`` where the run ``path`` is; when that fails, ``path`` stays as it was."""
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=fresh.parent))
    try:
        os.rename(path, old / "run")
        os.rename(fresh, path)
    except BaseException:
        if not path.exists() and (old / "run").exists():
            os.rename(old / "run", path)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def read_run(path: Path) -> Stored:
    """What a run directory holds. Raises InputError when it is none, damaged, or of a later version."""
    from coordsim.record.manifest import facts_of_manifest, findings_of_manifest, read_json_object

    manifest_path = path / "manifest.json"
    where = str(manifest_path)
    if not manifest_path.is_file():
        raise InputError.one(str(path), "", str(path), "no run directory (it has no manifest.json)")
    manifest = read_json_object(manifest_path)
    schema = manifest.get("schema")
    if schema != SCHEMA:
        raise InputError.one(where, "schema", schema, _unreadable(schema), (SCHEMA,))
    facts = facts_of_manifest(manifest, where)
    findings = findings_of_manifest(manifest, where)
    own, missing = (_names(manifest, key, where) for key in ("own_parts", "missing_parts"))
    trace = _read_trace(path / "trace.npz", own, missing)
    if trace.blocking is not manifest.get("blocking"):
        raise InputError.one(where, "blocking", manifest.get("blocking"), f"trace.npz says {trace.blocking}")
    if not trace.has_digest(manifest.get("trace_sha256")):
        raise InputError.one(str(path / "trace.npz"), "", None, "its digest differs from the manifest's")
    return Stored(trace, facts, findings)


def _unreadable(schema: object) -> str:
    """Why a run of that schema cannot be read: it is a later version, or none of ours."""
    family, _, number = str(schema)[:80].rpartition("/")
    ours, _, newest = SCHEMA.rpartition("/")
    if family == ours and number.isdecimal() and int(number) > int(newest):
        return f"{family}/{number} is written by a later coordsim; this one reads up to {SCHEMA}"
    return f"schema {schema!r}"[:100]


def _names(manifest: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    names = manifest.get(key, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError.one(where, key, names, "is not a list of names")
    return tuple(names)


def _read_trace(path: Path, own_parts: tuple[str, ...], missing: tuple[str, ...]) -> Trace:
    """Raises InputError for an archive that is damaged, or whose columns are no tables."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            tables: dict[str, dict[str, Int64]] = {
                table: {name: stored[f"{table}.{name}"] for name in names} for table, names in _TABLES.items()
            }
            blocking = bool(stored["blocking"])
            own: dict[str, Int64] = {name: stored[f"own.{name}"] for name in own_parts}
    except Exception as error:  # a damaged archive raises BadZipFile, zlib.error, RuntimeError, struct.error...
        raise InputError.one(str(path), "", None, f"damaged: {error}") from error
    for table, columns in {**tables, "own": own}.items():
        shape = next(iter(tables["steps" if table == "own" else table].values())).shape
        for name, column in columns.items():
            if column.dtype != np.int64 or column.ndim != 1 or column.shape != shape:
                message = f"damaged: {table}.{name} is no column of {shape} whole numbers"
                raise InputError.one(str(path), "", None, message)
    return Trace(tables["cycles"], tables["responses"], tables["steps"], blocking, frozenset(missing), own)
