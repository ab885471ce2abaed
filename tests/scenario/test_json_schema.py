"""The JSON Schema of a scenario file: it is one, it describes every key, and it judges files as the loader does."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from coordsim.errors import InputError
from coordsim.scenario import catalog, load_scenario
from coordsim.scenario.declared import key_names
from coordsim.scenario.json_schema import SECTIONS, scenario_schema
from coordsim.scenario.model import ControlNetwork, DataNetwork, HostCosts, Machine, Scenario

ROOT = Path(__file__).parents[2]
SCHEMA = scenario_schema()
SHIPPED = sorted((ROOT / "analyses").rglob("scenarios/*.toml"))


def mistakes(document: Any, table: str | None = None) -> list[str]:
    """What the schema, or one table of it, finds wrong."""
    wanted = SCHEMA if table is None else {"$ref": f"#/$defs/{table}", "$defs": SCHEMA["$defs"]}
    return [error.message for error in Draft202012Validator(wanted).iter_errors(document)]


def test_it_is_a_schema_of_the_draft_it_names():
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(SCHEMA)


def test_every_key_is_described():
    tables = {"scenario": SCHEMA, **SCHEMA["$defs"]}
    bare = [f"{name}.{key}" for name, table in tables.items()
            for key, shape in table["properties"].items() if len(shape.get("description", "")) < 10]  # fmt: skip
    assert not bare


def test_it_has_the_keys_of_the_tables():
    inner = {"machine": Machine, "control": ControlNetwork, "host": HostCosts, "data": DataNetwork}
    for name, table in {"": Scenario, **SECTIONS, **inner}.items():
        shapes = SCHEMA["$defs"][name] if name else SCHEMA
        assert set(key_names(table)) <= set(shapes["properties"]), name
        assert shapes["additionalProperties"] is False


def test_a_key_in_the_table_of_another_one_is_there_and_only_there():
    shapes = SCHEMA["$defs"]
    for axis in ("step", "common"):
        assert set(shapes[f"noise_{axis}"]["properties"]) == {"distribution", "sigma", "correlation"}
    assert set(shapes["spread"]["properties"]) == {"distribution", "sigma"}
    assert shapes["noise"]["properties"]["rank"]["$ref"] == "#/$defs/spread"
    assert "step.correlation" not in shapes["noise"]["properties"]


def test_it_says_units_and_bounds():
    machine, plane = SCHEMA["$defs"]["machine"]["properties"], SCHEMA["$defs"]["control_plane"]["properties"]
    assert machine["ranks_per_node"] == {
        "description": "GPUs of one node; each has one rank.", "type": "integer", "minimum": 1, "maximum": 65_536,
    }  # fmt: skip
    assert "0: never." in plane["cycle_time"]["description"]
    assert 'Written as a time, such as "5ms"' in plane["cycle_time"]["description"]
    assert plane["name"]["enum"] == ["ideal", "ddp", "point-to-point", "coordinator", "hierarchical", "cached"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_studys_scenarios_are_valid(path):
    assert SHIPPED
    assert mistakes(tomllib.loads(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("kind", catalog.KINDS)
def test_every_catalog_entry_is_a_valid_table(kind):
    for name in catalog.names(kind):
        entry = tomllib.loads(catalog.show(name))
        assert mistakes(entry, kind) == []
        assert mistakes({kind: {key: value for key, value in entry.items() if key != "noise"}}) == []
        assert mistakes(entry | {"sorces": {}}, kind) != []


@pytest.mark.parametrize(
    ("document", "word"),
    [
        ({"rankz": 3}, "rankz"),
        ({"ranks": 0}, "minimum"),
        ({"ranks": "6"}, "not of type 'integer'"),
        ({"include": "a.toml"}, "not of type 'array'"),
        ({"noise": {"rnak": {"sigma": "1%"}}}, "rnak"),
        ({"workload": 3}, "not valid"),
        ({"cluster": {"machine": {"pue": "1.1x"}}}, "not valid"),
        ({"control_plane": {"cycletime": "1ms"}}, "not valid"),
        ({"workload": {"tensors": [{"shape": "4"}]}}, "not valid"),
    ],
)
def test_what_is_wrong_is_refused(document, word):
    (message,) = mistakes(document)
    assert word in message


VALUES = [
    ("control_plane.cycle_time", ["5ms", "5 ms", ".5us", "1e3ns", "0", "+1s", "s"]),
    ("control_plane.cycle_time", [0, "5", 5, "-1ms", "5 m", "ms", "", "1MS"]),
    ("control_plane.fusion_threshold", ["64MiB", "1.5GB", 0, "64", 64, "64Mib", "-1B"]),
    ("cluster.machine.node_read", ["5.5GB/s", "25Gbit/s", 0, "5.5GB", 5]),
    ("cluster.machine.device_flops", ["60TF/s", "60TFLOP/s", "60TF"]),
    ("cluster.machine.pue", ["1.1", 1.1, "110%", "1.1W", True]),
    ("cluster.host.device_entry", ["4.28ns", "12ps", 0, "4"]),
    ("cluster.data.tree_bandwidth", ["75%", 0.75, "75"]),
    ("noise.rank.sigma", ["1.5%", 0.015, "15000ppm", 0, "1.5 percent"]),
    ("noise.rank.distribution", ["normal", "gauss"]),
    ("control_plane.groups", ["none", "layer", 3, [["a.weight"]], 0, "fc", [[]], []]),
    ("control_plane.name", ["cached", "static", 3]),
    ("control_plane.strict_groups", [True, 1]),
    ("workload.batch", [1, 0, 1.5, "8"]),
    ("workload.replicas", [1, "all", 0, "some"]),
    ("workload.flops_per_sample", ["24.5GFLOP", 0, "24.5"]),
    ("workload.rates", [{"V100-SXM2": 688}, {"V100-SXM2": 0}, {"V100-SXM2": "688"}]),
    ("steps", [1, 1_000_000, 1_000_001, 0, True]),
    ("seed", [0, -1, 2**63]),
]
CANNOT_SAY = [["cluster.data.tree_bandwidth", "75"]]
"""What only the loader refuses: text beyond a bound."""


@pytest.mark.parametrize(("key", "values"), VALUES)
def test_it_judges_a_value_as_the_loader_does(tmp_path, key, values):
    (tmp_path / "list.csv").write_text("name,shape,ready\na.weight,4,1ms\nb,4,2ms\nc,4,3ms\n")
    path = tmp_path / "job.toml"
    head = {"ranks": 6, "steps": 1, "cluster": {"base": "summit"}, "workload": {"base": "list.csv"}}
    judged = set()
    for value in values:
        document = json.loads(json.dumps(head))
        table = document
        *outer, last = key.split(".")
        for part in outer:
            table = table.setdefault(part, {})
        table[last] = value
        if key == "workload.rates":
            document["workload"]["gpu"] = "V100-SXM2"
        path.write_text(toml(document))
        try:
            load_scenario(path)
            loads = True
        except InputError:
            loads = False
        judged.add(loads)
        valid = mistakes(tomllib.loads(path.read_text())) == []
        assert valid == (loads or [key, value] in CANNOT_SAY), (value, loads)
    assert judged == {True, False}


def toml(document: dict[str, Any]) -> str:
    """``document`` as TOML: JSON's values are TOML's, but for tables."""
    def inline(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{json.dumps(k)} = {inline(v)}" for k, v in value.items()) + "}"
        return json.dumps(value)

    return "".join(f"{key} = {inline(value)}\n" for key, value in document.items())
