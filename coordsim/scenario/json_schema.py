"""JSON Schema (draft 2020-12) of a scenario file, for editors and for other people's generators.

Made from the declarations of the keys (:mod:`coordsim.scenario.declared`): each key is described by the docstring of
its field, and by how its value is written. What concerns several values at once (groups and tensors, ranks and nodes)
a schema cannot say: loading the scenario does.
"""

from __future__ import annotations

import inspect
from collections import Counter
from typing import Any, Literal, get_args, get_origin

from coordsim.scenario.declared import REQUIRED, Declared, declared_keys, docstrings, keys_inside, written
from coordsim.scenario.generators import GENERATORS
from coordsim.scenario.keys import Filled, NotEmpty
from coordsim.scenario.model import ControlPlane, Noise, Scenario
from coordsim.scenario.recipes import ClusterEntry, TensorRow, WorkloadRecipe
from coordsim.scenario.workloads import parameter_names

DRAFT = "https://json-schema.org/draft/2020-12/schema"
SECTIONS = {"workload": WorkloadRecipe, "cluster": ClusterEntry, "control_plane": ControlPlane, "noise": Noise}
"""The tables of a file by their names, with what declares their keys."""
_TYPES = {int: "integer", str: "string", bool: "boolean"}


def scenario_schema() -> dict[str, Any]:
    """The schema of a scenario file. ``$defs`` has each of its tables by the table's name in the file.

    A catalog entry, or a file named by ``base``, has the keys of its table at the top level.
    """
    defs: dict[str, Any] = {}
    for name, table in {**SECTIONS, "tensor": TensorRow}.items():
        defs[name] = _table(declared_keys(table), name, defs)
    _complete_workload(defs["workload"])
    needed = (key for key in declared_keys(TensorRow) if key.default is REQUIRED and key.written.first(Filled) is None)
    defs["tensor"]["required"] = [key.path for key in needed]
    defs["cluster"]["properties"]["noise"] = {
        "$ref": "#/$defs/noise",
        "description": "In a cluster's own file: the noise that it brings with it.",
    }
    top = [key for key in declared_keys(Scenario) if key.path not in SECTIONS]
    properties = {
        "include": {
            "description": "Files, relative to this one, whose settings come below this one's; later ones win.",
            "type": "array",
            "items": {"type": "string"},
        },
        **{key.path: _value(key) for key in top},
        "workload": _named("A catalog entry's name, a .toml file like one, a .csv file of tensors,", "workload"),
        "cluster": _named("A catalog entry's name, a .toml file like one,", "cluster"),
        "control_plane": _named("A control plane's name,", "control_plane"),
        "noise": {"$ref": "#/$defs/noise", "description": "On compute, and on control exchanges."},
    }
    return {
        "$schema": DRAFT,
        "title": "coordsim scenario",
        "description": "Every key is optional where the catalog or a default gives it.",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": dict(sorted(defs.items())),
    }


def _table(keys: tuple[Declared, ...], name: str, defs: dict[str, Any]) -> dict[str, Any]:
    """The table ``name`` with ``keys``; tables in it are added to ``defs``."""
    shared = Counter(key.table for key in keys if key.table is not None)
    properties: dict[str, dict[str, Any]] = {}
    for key in keys:
        if "." in key.path:
            continue  # lies in the table of another key
        inside = keys_inside(keys, key.path)
        if key.table is not None:
            inner = f"{name}_{key.path}" if inside else key.path
            if not inside and shared[key.table] > 1:
                inner = key.table.__name__.lower()
            defs[inner] = _table((*declared_keys(key.table), *inside), inner, defs)
            doc = key.doc or docstrings(key.table)[""]
            properties[key.path] = {"description": doc, "$ref": f"#/$defs/{inner}"}
        elif key.named is not None:
            entry, own = key.named
            inner = key.path.removesuffix("s")
            defs[inner] = _table(tuple(one for one in declared_keys(entry) if one.path != own), inner, defs)
            tables = {"$ref": f"#/$defs/{inner}"}
            properties[key.path] = {"description": key.doc, "type": "object", "additionalProperties": tables}
        else:
            properties[key.path] = _value(key)
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _value(key: Declared) -> dict[str, Any]:
    """What the key may hold, described."""
    words = key.written.form.words if key.written.form is not None else ""
    parts = [part for part in (key.doc, f"Written as {words}." if words else "") if part]
    return {"description": " ".join(parts), **_shape(key.written.kind)}


def _shape(kind: Any) -> dict[str, Any]:
    """The values of an annotated type."""
    value = written(kind)
    if value.form is not None and value.form.shapes:
        shapes = [dict(shape) for shape in value.form.shapes]
        return shapes[0] if len(shapes) == 1 else {"anyOf": shapes}
    if get_origin(value.plain) is Literal:
        return {"type": "string", "enum": list(get_args(value.plain))}
    if get_origin(value.plain) is dict:
        return {"type": "object", "additionalProperties": _shape(get_args(value.plain)[1])}
    shape: dict[str, Any] = {"type": _TYPES[value.plain]}
    lowest = [bound.lowest for bound in value.bounds if bound.lowest is not None]
    highest = [bound.highest for bound in value.bounds if bound.highest is not None]
    shape |= {"minimum": max(lowest)} if lowest else {}
    shape |= {"maximum": min(highest)} if highest else {}
    return shape | ({"minLength": 1} if value.first(NotEmpty) is not None else {})


def _complete_workload(table: dict[str, Any]) -> None:
    """Keys that are read apart: a generator's parameters, beside it or in a table of their own."""
    parameters = {
        key: {"description": f"Parameter of the generator {name}.", **_parameter(name, key)}
        for name in GENERATORS
        for key in parameter_names(name)
    }
    for key, shape in parameters.items():
        table["properties"].setdefault(key, shape)
    table["properties"]["parameters"] = {
        "description": "The generator's parameters as a table of their own.",
        "type": "object",
        "properties": parameters,
        "additionalProperties": False,
    }


def _parameter(generator: str, key: str) -> dict[str, Any]:
    kind = str(inspect.signature(GENERATORS[generator]).parameters[key].annotation)
    if kind == "int":
        return {"type": "integer", "minimum": 1}
    return {"type": "array", "items": {"type": "integer", "minimum": 1}} if "tuple" in kind else {"type": "string"}


def _named(names: str, table: str) -> dict[str, Any]:
    return {"description": f"{names} or a table.", "anyOf": [{"type": "string"}, {"$ref": f"#/$defs/{table}"}]}
