"""The manifest of a run directory: :class:`RunFacts` and :class:`Findings` as one flat JSON object, and back.

This is the only place that knows the manifest's keys. Values are checked when they are read (pydantic), so what comes
out of a file has the types that its fields say. Keys that are not known are passed over: a later version of the same
schema may have added them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import TypeAdapter, ValidationError

from coordsim.errors import InputError
from coordsim.record.findings import Findings
from coordsim.record.run_facts import Command, Machine, RunFacts, RunKind

T = TypeVar("T")
Json = dict[str, Any]
"""A JSON object on its way to or from a file."""

_REAL = "real run"
_LARGEST = 1 << 64
"""Whole numbers beyond it are nobody's count."""
_OF_RECORDED = (
    "ranks", "job", "settings", "control_plane", "first_step", "control", "hosts", "ranks_with_details", "ranks_absent",
    "ranks_without_steps", "clocks", "missing", "ended_early", "ended_with_error", "last_tensors", "waited_for",
)  # fmt: skip
_OF_IMPORTED = ("ranks", "first_step", "missing", "unknown", "ended_early", "imported")
_OF_PROFILERS = ("ranks_absent", "ranks_with_details", "waited_for")
"""Of imported runs only those have them whose source names its ranks."""
_OF_SIMULATED = ("scenario", "scenario_sha256", "engine")
_OF_COMMANDS = ("exit_code", "command", "steps_wanted", "running")
_OF_ENDS = ("failure", "endings", "fate", "stopped", "world_sizes")
_OF_PROVENANCE = ("version", "versions", "system", "git", "records_sha256")
_OF_FINDINGS = ("stragglers", "recommendation", "rank_table", "kinds", "machines")
_SECTIONS = ("simulated", "command", "provenance", "end")


def as_json(value: object) -> Any:
    """A frozen dataclass as JSON: fields in order, keys as text, tuples as lists."""
    return _adapter(type(value)).dump_python(value, mode="json", by_alias=True, warnings=False)


_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


def _adapter(kind: type) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def findings_json(findings: Findings) -> Json:
    """What is kept of findings, by key; those that were read from a manifest as they stand there."""
    if findings.kept is not None:
        return dict(findings.kept)
    return {
        "recommendation": as_json(findings.recommendation), "stragglers": as_json(findings.stragglers),
        "rank_table": None if findings.rank_table is None else as_json(findings.rank_table),
        "kinds": [as_json(kind) for kind in findings.kinds],
        "machines": [_machine_json(machine) for machine in findings.machines],
    }  # fmt: skip


def _machine_json(machine: Machine) -> Json:
    return {**as_json(machine), "crowded": machine.crowded, "oversubscribed": machine.oversubscribed}


def manifest_of(facts: RunFacts, findings: Findings | None = None) -> Json:
    """The manifest, without what the store adds to it (schema, digest, names of parts)."""
    flat = as_json(facts)
    sections = {name: flat.pop(name) or {} for name in ("simulated", "command", "provenance")}
    made = {key: sections["simulated"][key] for key in _OF_SIMULATED if sections["simulated"].get(key) is not None}
    if facts.kind is not RunKind.SIMULATED:
        made["source"] = _REAL
    if facts.kind is RunKind.RECORDED:
        made |= {key: flat[key] for key in _OF_RECORDED}
        made |= {key: flat[key] for key in ("shown_rank", "skipped_steps") if flat[key] is not None}
        made |= {"unknown": flat["unknown"]} if facts.unknown else {}
    if facts.kind is RunKind.IMPORTED:
        made |= {key: flat[key] for key in (*_OF_IMPORTED, *(_OF_PROFILERS if facts.ranks_absent is not None else ()))}
        made |= {} if facts.first_step_is_cold else {"first_step_is_cold": False}
    if facts.command is not None:
        made |= _command_json(facts.command, sections["command"])
    if facts.provenance is not None:
        keys = ("version",) if facts.kind is RunKind.SIMULATED else _OF_PROVENANCE
        made |= {key: sections["provenance"][key] for key in keys}
    return made | (findings_json(findings) if findings is not None else {})


def _command_json(command: Command, flat: Json) -> Json:
    made = {key: flat[key] for key in ("command", "steps_wanted") if flat[key] is not None}
    made["exit_code"] = command.exit_code
    if command.running:
        made["running"] = True
    return made | (flat["end"] or {})


def facts_of_manifest(manifest: Json, where: str) -> RunFacts:
    """Raises InputError, naming ``where`` and the key, for a value of another type than the field's."""
    plain: Json = {key: manifest[key] for key in (*_OF_RECORDED, *_OF_IMPORTED, *_OF_PROFILERS) if key in manifest}
    plain |= {key: manifest[key] for key in ("first_step_is_cold", "shown_rank", "skipped_steps") if key in manifest}
    kind = RunKind.SIMULATED
    if manifest.get("source") == _REAL:
        kind = RunKind.RECORDED if manifest.get("imported") is None else RunKind.IMPORTED
    plain["kind"] = kind
    for name, keys in (("simulated", _OF_SIMULATED), ("command", _OF_COMMANDS), ("provenance", _OF_PROVENANCE)):
        section = {key: manifest[key] for key in keys if key in manifest}
        plain |= {name: section} if section else {}
    ended = {key: manifest[key] for key in _OF_ENDS if key in manifest}
    if ended:
        plain["command"] = {**plain.get("command", {}), "end": ended}
    scenario = manifest.get("scenario", {})
    if isinstance(scenario, dict) and scenario:
        plain.setdefault("ranks", scenario.get("ranks"))
        plane = scenario.get("control_plane")
        plain.setdefault("control_plane", plane.get("name") if isinstance(plane, dict) else None)
    plain.setdefault("ranks", None)
    return restored(RunFacts, plain, where)


def findings_of_manifest(manifest: Json, where: str) -> Findings | None:
    """None where nothing was found out, or nothing was kept. Raises InputError as :func:`facts_of_manifest` does."""
    kept = {key: manifest[key] for key in _OF_FINDINGS if manifest.get(key) is not None}
    if "stragglers" not in kept or "recommendation" not in kept:
        return None
    return restored(Findings, {**kept, "kept": kept}, where)


def restored(kind: type[T], value: object, where: str) -> T:
    """``value`` (JSON) as a frozen dataclass ``kind``. Raises InputError that names ``where`` and the key."""
    try:
        made: T = _adapter(kind).validate_python(value)
        return made
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if part not in _SECTIONS)
        message = "is missing" if first["type"] == "missing" else f"{first['input']!r}"[:80] + f": {first['msg']}"
        raise InputError.one(where, key, first["input"], message) from error


def read_json_object(path: Path) -> Json:
    """Raises InputError for a file that is no JSON object, or has numbers that nothing can hold."""
    try:
        found = json.loads(
            path.read_text(encoding="utf-8"), parse_constant=_no_number, parse_float=_finite, parse_int=_bounded
        )
    except OSError as error:
        raise InputError.one(str(path), "", None, f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError.one(str(path), "", None, f"not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError.one(str(path), "", None, "not a JSON object")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _finite(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{digits[:40]} is too large")
    return value


def _bounded(digits: str) -> int:
    value = int(digits) if len(digits) <= 21 else _LARGEST
    if not -_LARGEST < value < _LARGEST:
        raise ValueError(f"{digits[:40]} is too large")
    return value
