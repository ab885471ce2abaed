"""What is written as TOML or CSV is read back by tomllib and by our own loaders, whatever names stand in it."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordsim.analyse.calibrate import calibrate
from coordsim.analyse.calibrate.toml import cluster_toml
from coordsim.analyse.predict.measured import measured_workload
from coordsim.analyse.predict.place import write_scenario
from coordsim.formats.imported import Gradient, workload_csv
from coordsim.fragments import csv_names, toml_comment, toml_key, toml_value
from coordsim.scenario import catalog
from coordsim.scenario.loading import load_scenario
from tests.analyse.measured import machine, measurement
from tests.analyse.test_predict import records
from tests.budget import examples

ANY = st.text(st.characters(exclude_categories=[]), max_size=40)
"""Every character there is, lone surrogates too."""
HARD = [
    "", " ", "\U0001f600", 'a"b', "a'b", '"""', "'''", "a\\b", "a\nb", "a\r\nb", "\x00\x1b[31m", "\x85\u2028", "\ud83d",
    "#", "a = 1", "[x]", "=", ",", "'\"\n", "\u00e9" * 10_000, "x" * 10_000, "\ufeffa", "a.b", "-", "inf", "true",
]  # fmt: skip

BASE = load_scenario(cluster="localhost", workload="resnet50").cluster


def encodable(text: str) -> str:
    return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)


@settings(max_examples=examples(300), deadline=None)
@given(st.dictionaries(ANY, ANY, max_size=4), ANY)
def test_any_text_is_a_key_a_value_and_a_comment(table: dict[str, str], comment: str) -> None:
    lines = [toml_comment(comment), f"one = {toml_value(list(table.values()))}  {toml_comment(comment)}", "[table]"]
    keys = {encodable(key): encodable(value) for key, value in table.items()}
    lines += [f"{toml_key(key)} = {toml_value(value)}" for key, value in keys.items()]
    read = tomllib.loads("\n".join(lines) + "\n")
    assert read == {"one": [encodable(value) for value in table.values()], "table": keys}
    assert tomllib.loads(f"x = {toml_value(keys)}") == {"x": keys}


@pytest.mark.parametrize("value", [0, -1, 1 << 62, 1.5, 1e300, True, Decimal("0.10"), [1, "a"], {"a b": {"c": 0.5}}])
def test_other_values(value: Any) -> None:
    read = tomllib.loads(f"x = {toml_value(value)}", parse_float=type(value) if isinstance(value, Decimal) else float)
    assert read == {"x": value}


@settings(max_examples=examples(50), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.one_of(ANY, st.sampled_from(HARD)), min_size=1, max_size=6))
def test_a_workload_of_any_names_is_read_back(names: list[str], tmp_path: Path) -> None:
    gradients = [Gradient(name, 10 + place, "float32", 40 + 4 * place) for place, name in enumerate(names)]
    path = tmp_path / "w.csv"
    path.write_text(workload_csv(gradients), encoding="utf-8")
    tensors = load_scenario(workload=str(path), cluster="summit", ranks=2).workload.tensors
    assert [tensor.shape for tensor in tensors] == [(gradient.numel,) for gradient in gradients]
    assert [tensor.name for tensor in tensors] == csv_names(names[::-1])[::-1]


@pytest.mark.parametrize("name", HARD)
def test_a_prediction_of_any_name_is_read_back(name: str, tmp_path: Path) -> None:
    measured = measured_workload(records())
    named = [replace(gradient, name=name) for gradient in measured.gradients]
    path = write_scenario(tmp_path, replace(measured, gradients=tuple(named)), name or "x", name)
    workload = load_scenario(path, cluster="summit", ranks=2).workload
    assert len({tensor.name for tensor in workload.tensors}) == len(named)
    assert workload.forward_ns > 1


@pytest.mark.parametrize("name", HARD)
def test_a_calibration_on_any_host_is_read_back(name: str) -> None:
    found = calibrate(measurement(machine(10_000, 1_000, 0.2, 1)), BASE)
    odd = replace(
        found, host={**found.host, "name": name, "cpu": name, "system": name}, notes=(name,), source=name,
        not_fitted=((name, name),), taken={"date": name}, base=name,
    )  # fmt: skip
    base = catalog.read("cluster", "localhost")
    tree = tomllib.loads(cluster_toml(odd, base), parse_float=Decimal)
    assert tree["control"].keys() == base["control"].keys()


def test_names_are_all_different() -> None:
    assert csv_names(["a", "a", "a (2)", "", "\n"]) == ["a", "a (2)", "a (2) (2)", "unnamed", "unnamed (2)"]
