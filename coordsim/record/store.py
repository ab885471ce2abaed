"""A run directory: ``manifest.json`` beside ``trace.npz``. Written to a temporary name, then renamed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coordsim.errors import InputError
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


def write_run(path: Path, trace: Trace, facts: dict[str, Any], streams: Path | None = None) -> None:
    """Write a run directory, all of it or nothing; an earlier run of that name is replaced.

    ``facts`` (versions, scenario, summary) goes into the manifest beside the trace's digest; ``streams``: a folder of
    ranks' records that is copied into it as ``ranks``.
    """
    check_target(path)
    parent = path.absolute().parent
    fresh = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=parent))
    try:
        _write_columns(fresh / "trace.npz", trace)
        manifest = {
            **facts, "schema": SCHEMA, "blocking": trace.blocking, "trace_sha256": trace.digest(),
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


def read_run(path: Path) -> tuple[Trace, dict[str, Any]]:
    """The trace and the manifest of a run directory. Raises InputError when it is none, or damaged."""
    manifest_path = path / "manifest.json"
    if not manifest_path.is_file():
        raise InputError.one(str(path), "", str(path), "no run directory (it has no manifest.json)")
    try:
        manifest: dict[str, Any] = json.loads(manifest_path.read_text())
    except ValueError as error:
        raise InputError.one(str(manifest_path), "", None, f"not JSON: {error}") from error
    if not isinstance(manifest, dict):
        raise InputError.one(str(manifest_path), "", None, "not a JSON object")
    if manifest.get("schema") != SCHEMA:
        raise InputError.one(
            str(manifest_path), "schema", manifest.get("schema"), f"schema {manifest.get('schema')!r}", (SCHEMA,)
        )
    try:
        with open(path / "trace.npz", "rb") as file, np.load(file, allow_pickle=False) as stored:
            tables: dict[str, dict[str, Int64]] = {
                table: {name: stored[f"{table}.{name}"] for name in names} for table, names in _TABLES.items()
            }
            blocking = bool(stored["blocking"])
            own: dict[str, Int64] = {name: stored[f"own.{name}"] for name in manifest.get("own_parts", ())}
    except Exception as error:  # a damaged archive raises BadZipFile, zlib.error, RuntimeError, struct.error...
        raise InputError.one(str(path / "trace.npz"), "", None, f"damaged: {error}") from error
    missing = frozenset(map(str, manifest.get("missing_parts", ())))
    trace = Trace(tables["cycles"], tables["responses"], tables["steps"], blocking, missing, own)
    if blocking is not manifest.get("blocking"):
        raise InputError.one(str(manifest_path), "blocking", manifest.get("blocking"), f"trace.npz says {blocking}")
    if trace.digest() != manifest.get("trace_sha256"):
        raise InputError.one(str(path / "trace.npz"), "", None, "its digest differs from the manifest's")
    return trace, manifest
