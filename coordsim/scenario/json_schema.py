"""JSON Schema (draft 2020-12) of a scenario file, for editors and for other people's generators.

Made from the tables of :mod:`coordsim.scenario.schema`; each key is described by the docstring of the field that it
becomes, and by how its value is written. What concerns several values at once (groups and tensors, ranks and nodes)
a schema cannot say: loading the scenario does.
"""

from __future__ import annotations

import ast
import inspect
from functools import cache
from itertools import pairwise
from types import ModuleType
from typing import Any

from pydantic.json_schema import models_json_schema

from coordsim.scenario import model, schema
from coordsim.scenario.generators import GENERATORS
from coordsim.scenario.workloads import parameter_names

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_BECOMES = {
    "RunTable": "Scenario", "TensorTable": "Tensor", "WorkloadTable": "Workload", "MachineTable": "Machine",
    "ControlTable": "ControlNetwork", "HostTable": "HostCosts", "DataTable": "DataNetwork", "ClusterTable": "Cluster",
    "ControlPlaneTable": "ControlPlane", "SpreadTable": "Spread", "RangeTable": "KeyRange",
    "PassingTable": "Spread", "NoiseTable": "Noise",
}  # fmt: skip
"""Table -> the dataclass whose fields say what its keys mean."""
_RENAMED = {
    "strict_groups": ("Groups", "strict"),
    "stall_probability": ("Noise", "stall_ppm"),
    "stall_length": ("Noise", "stall_ns"),
    "detour_probability": ("Noise", "detour_ppm"),
    "detour_length": ("Noise", "detour_ns"),
}
"""Key -> class and field, where the name is not the field's without its unit."""
_COMMON = {
    "base": "Name of a catalog entry, or a file like one, on which this table builds.",
    "name": "For reports.",
    "description": "For people.",
    "sources": "Where each number comes from, by its dotted key in this table.",
    "groups": "Which tensors are grouped.",
    "dataset_samples": "The data set's number of samples, instead of dataset_bytes.",
}
"""Keys that become no field of their own."""
_SUFFIXES = ("_ns", "_ps", "_bytes", "_Bps", "_mW", "_permille", "_percent", "_ppm")


def scenario_schema() -> dict[str, Any]:
    """The schema of a scenario file. ``$defs`` has each of its tables by the table's name in the file.

    A catalog entry, or a file named by ``base``, has the keys of its table at the top level.
    """
    tables = [getattr(schema, name) for name in _BECOMES]
    _, found = models_json_schema([(table, "validation") for table in tables], ref_template="#/$defs/{model}")
    defs = {name: _table(name, found["$defs"][name]) for name in _BECOMES}
    top = defs.pop("RunTable")
    _complete_workload(defs["WorkloadTable"])
    defs["ClusterTable"]["properties"]["noise"] = {
        "$ref": "#/$defs/NoiseTable",
        "description": "In a cluster's own file: the noise that it brings with it.",
    }
    properties = {
        "include": {
            "description": "Files, relative to this one, whose settings come below this one's; later ones win.",
            "type": "array",
            "items": {"type": "string"},
        },
        **top["properties"],
        "workload": _named("A catalog entry's name, a .toml file like one, a .csv file of tensors,", "WorkloadTable"),
        "cluster": _named("A catalog entry's name, a .toml file like one,", "ClusterTable"),
        "control_plane": _named("A control plane's name,", "ControlPlaneTable"),
        "noise": {"$ref": "#/$defs/NoiseTable", "description": "On compute, and on control exchanges."},
    }
    whole: dict[str, Any] = _renamed(
        {
            "$schema": DRAFT,
            "title": "coordsim scenario",
            "description": "Every key is optional where the catalog or a default gives it.",
            "type": "object",
            "properties": properties,
            "additionalProperties": False,
            "$defs": defs,
        }
    )
    return whole


def _table(name: str, generated: dict[str, Any]) -> dict[str, Any]:
    """One table: described, without titles; only tensors have keys that must be there."""
    fields = _docs(model)[_BECOMES[name]]
    told = _COMMON | {field.removesuffix(_suffix(field)): doc for field, doc in fields.items()} | fields
    told |= {key: _docs(model)[home][field] for key, (home, field) in _RENAMED.items()} | _docs(schema)[name]
    if name == "ControlPlaneTable":
        told["name"] = "Who decides, and how (docs/horovod.md)."
    properties = {}
    for key, shape in generated["properties"].items():
        shape = _plain(shape)
        form = shape.pop("description", "")
        doc = told.get(key, "")
        if not doc and "$ref" in shape:
            doc = _docs(model)[_BECOMES[shape["$ref"].removeprefix("#/$defs/")]][""]
        parts = [part for part in (doc, f"Written as {form}." if form else "") if part]
        properties[key] = {"description": " ".join(parts), **shape}
    found = {"type": "object", "properties": properties, "additionalProperties": False}
    return found | ({"required": ["name"]} if name == "TensorTable" else {})


def _complete_workload(table: dict[str, Any]) -> None:
    """Keys that are read apart: the tensors, and a generator with its parameters."""
    properties = table["properties"]
    properties["tensors"] = {
        "description": "A CSV file with these columns, relative to this file, or the gradients themselves.",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"$ref": "#/$defs/TensorTable"}, "minItems": 1}],
    }
    properties["generator"] = {
        "description": "Instead of tensors: what computes them.",
        "enum": list(GENERATORS),
    }
    parameters = {
        key: {"description": f"Parameter of the generator {name}.", **_parameter(name, key)}
        for name in GENERATORS
        for key in parameter_names(name)
    }
    for key, shape in parameters.items():
        properties.setdefault(key, shape)
    properties["parameters"] = {
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


def _plain(shape: dict[str, Any]) -> dict[str, Any]:
    """Without pydantic's titles, and without null, which TOML has not."""
    shape = {key: value for key, value in shape.items() if key not in ("title", "default")}
    choices = [each for each in shape.get("anyOf", []) if each != {"type": "null"}]
    if len(choices) == 1:
        del shape["anyOf"]
        shape = choices[0] | shape
    return shape


def _renamed(found: Any) -> Any:
    """``MachineTable`` as ``machine``, as the file has it."""
    names = {table: _in_file(table) for table in _BECOMES}
    if isinstance(found, dict):
        return {names.get(key, key): _renamed(value) for key, value in found.items()}
    if isinstance(found, list):
        return [_renamed(each) for each in found]
    if isinstance(found, str) and found.startswith("#/$defs/"):
        return f"#/$defs/{names[found.removeprefix('#/$defs/')]}"
    return found


def _in_file(table: str) -> str:
    words = table.removesuffix("Table")
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in words).lstrip("_")


def _suffix(field: str) -> str:
    return next((suffix for suffix in _SUFFIXES if field.endswith(suffix)), "")


@cache
def _docs(module: ModuleType) -> dict[str, dict[str, str]]:
    """Class -> field -> the docstring below it, on one line; the class's own under ``""``."""
    found: dict[str, dict[str, str]] = {}
    for part in ast.parse(inspect.getsource(module)).body:
        if not isinstance(part, ast.ClassDef):
            continue
        own = (ast.get_docstring(part) or "").partition("\n")[0]
        fields = found.setdefault(part.name, {"": own})
        for field, below in pairwise(part.body):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            match below:
                case ast.Expr(value=ast.Constant(value=str(doc))):
                    fields[field.target.id] = " ".join(doc.replace("``", "").split())
    return found
