"""Whatever a TOML file holds: it is a scenario, or an InputError says what is wrong with it."""

from __future__ import annotations

import copy
import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordsim.errors import InputError
from coordsim.fragments import toml_key, toml_value
from coordsim.scenario import load_scenario
from coordsim.scenario.declared import declared_keys
from coordsim.scenario.json_schema import SECTIONS
from coordsim.scenario.model import Scenario
from coordsim.scenario.recipes import TensorRow
from tests.scenario.wrong_scenarios import CSV, TOML

EXAMPLES = int(os.environ.get("COORDSIM_FUZZ_EXAMPLES", "40"))
"""More of them for a night: ``COORDSIM_FUZZ_EXAMPLES=100000``."""
BASE = tomllib.loads(TOML) | {"cluster": {"base": "summit"}}
ANY = settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@dataclass(frozen=True)
class Raw:
    """A value as TOML writes it."""

    text: str


def loads(path: Path, **changes: Any) -> str:
    """How loading ends: empty for a scenario, else the message. Anything but an InputError is a failure."""
    try:
        load_scenario(path, **changes)
    except InputError as error:
        message = str(error)
    else:
        return ""
    assert 0 < len(message) < 50_000
    return message


def paths(table: type[object], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key of a file, and those of the tables in it."""
    for key in declared_keys(table):
        here = (*at, *key.path.split("."))
        yield here
        if key.table is not None:
            yield from paths(SECTIONS[here[0]] if len(here) == 1 else key.table, here)


def written(value: Any) -> str:
    """``value`` as TOML."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{toml_key(key)} = {written(inner)}' for key, inner in value.items())} }}"
    return f"[{', '.join(map(written, value))}]" if isinstance(value, list) else toml_value(value)


def changed(changes: list[tuple[tuple[str, ...], Any]]) -> str:
    """A good scenario with each of the keys set to its value."""
    document: dict[str, Any] = copy.deepcopy(BASE)
    for path, value in changes:
        table = document
        for part in path[:-1]:
            inner = table.get(part)
            table = table.setdefault(part, {}) if isinstance(inner, dict | None) else {}
        table[path[-1]] = value
    return "".join(f"{toml_key(key)} = {written(value)}\n" for key, value in document.items())


KEYS = [
    *paths(Scenario), *(("workload", "tensors", key.path) for key in declared_keys(TensorRow)), ("include",),
    ("workload", "parameters"), ("workload", "growth"), ("cluster", "noise"), ("x",),
]  # fmt: skip
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=6)
SCALARS = st.one_of(
    st.integers(-(2**70), 2**70), st.integers(-2, 100), st.booleans(), NAMES,
    st.sampled_from(["1ms", "0", "5GB/s", "8%", "all", "nccl", "cached", "resnet50", "summit", "small.csv", "job.toml",
                     "\0", "x" * 5000, "a/b.toml", "..", ".csv", ".toml", "\0.toml", "y" * 300 + ".csv", "1e999s",
                     "٣ms", "9" * 60 + "B", "1" + "0" * 5000]),
    st.sampled_from(["nan", "-inf", "inf", "1e400", "-0.0", "1e-400", "1979-05-27", "07:32:00", "0x7f",
                     "1979-05-27T07:32:00Z", "[[[[]]]]", "{}", "1" * 4000]).map(Raw),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=6
)


@given(changes=st.lists(st.tuples(st.sampled_from(KEYS), VALUES), min_size=1, max_size=4))
@ANY
def test_any_value_of_any_key(tmp_path_factory, changes):
    folder = tmp_path_factory.getbasetemp()
    (folder / "small.csv").write_text(CSV)
    (folder / "job.toml").write_text(changed(changes), encoding="utf-8")
    loads(folder / "job.toml")


@given(overrides=st.lists(st.tuples(st.sampled_from(KEYS), VALUES | NAMES.map(Raw)), min_size=1, max_size=3))
@ANY
def test_any_override(tmp_path_factory, overrides):
    folder = tmp_path_factory.getbasetemp()
    (folder / "small.csv").write_text(CSV)
    (folder / "good.toml").write_text(TOML)
    loads(folder / "good.toml", overrides=[f"{'.'.join(path)}={written(value)}" for path, value in overrides])


@given(content=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
@ANY
def test_any_bytes(tmp_path_factory, content):
    for name in ("job.toml", "list.csv"):
        path = tmp_path_factory.getbasetemp() / name
        path.write_bytes(content)
        loads(path) if name == "job.toml" else loads(None, workload=str(path), cluster="summit")


DEEP = 3000
HOSTILE = {
    "a table 3,000 deep": f"[{'.'.join('a' * DEEP)}]\n",
    "a table of a cluster 3,000 deep": f"[cluster.{'.'.join('a' * DEEP)}]\n",
    "a key 3,000 deep": f"noise.{'.'.join('a' * DEEP)} = 3\n",
    "a list 3,000 deep": f"ranks = {'[' * DEEP}{']' * DEEP}\n",
    "a list 200 deep of groups": f"control_plane.groups = {'[' * 200}{']' * 200}\n",
    "inline tables 3,000 deep": f"noise = {'{ a = ' * DEEP}3{' }' * DEEP}\n",
    "inline tables 200 deep": f"noise = {'{ a = ' * 200}3{' }' * 200}\n",
    "a name of 100,000 characters": f"workload.name = '{'x' * 100_000}'\nranks = 'x'\n",
    "a key of 100,000 characters": f"{'x' * 100_000} = 3\n",
    "a cluster's name of 100,000 characters": f"cluster = '{'x' * 100_000}'\n",
    "a base of 5,000 characters": f"cluster = '{'x' * 5000}.toml'\n",
    "a base that cannot be a file": 'cluster = "\\u0000.toml"\nworkload = "\\u0000.csv"\n',
    "tensors in a file of 5,000 characters": f"workload.tensors = '{'x' * 5000}'\n",
    "tensors in no file": 'workload.tensors = "\\u0000"\n',
    "tensors in a folder": 'workload.tensors = "."\n',
    "an include of 5,000 characters": f"include = ['{'x' * 5000}']\n",
    "an include that cannot be a file": 'include = ["\\u0000"]\n',
    "an include of a folder": 'include = ["."]\n',
    "a number of 5,000 digits": f"ranks = {'9' * 5000}\n",
    "an override of many lists": f"control_plane.groups = [{'[],' * 10_000}]\n",
    "twenty thousand unknown keys": "".join(f"k{index} = 1\n" for index in range(20_000)),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_a_short_error(tmp_path, text):
    (tmp_path / "small.csv").write_text(CSV)
    (tmp_path / "job.toml").write_text(text)
    assert loads(tmp_path / "job.toml")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("a table 3,000 deep", "job.toml: tables and lists are nested more than 24 deep"),
        ("inline tables 3,000 deep", "job.toml: tables and lists are nested more than 24 deep"),
        ("a base of 5,000 characters", "cannot be read: File name too long"),
        ("an include that cannot be a file", "cannot be read: embedded null byte"),
        ("an include of a folder", "cannot be read: Is a directory"),
        ("twenty thousand unknown keys", "and 19,902 more mistakes"),
    ],
)
def test_a_hostile_file_is_told_why(tmp_path, what, message):
    (tmp_path / "job.toml").write_text(HOSTILE[what])
    assert message in loads(tmp_path / "job.toml")


def test_a_file_without_an_end_is_refused(tmp_path):
    (tmp_path / "endless.toml").symlink_to("/dev/zero")
    (tmp_path / "endless.csv").symlink_to("/dev/zero")
    assert "cannot be read: is larger than 64 MiB" in loads(tmp_path / "endless.toml")
    assert "larger than" in loads(None, workload=str(tmp_path / "endless.csv"), cluster="summit")


@pytest.mark.parametrize("text", [f"{'a.' * DEEP}a=3", f"ranks={'[' * DEEP}{']' * DEEP}", f"{'x' * 100_000}=3"])
def test_a_hostile_override_is_a_short_error(tmp_path, text):
    (tmp_path / "small.csv").write_text(CSV)
    (tmp_path / "job.toml").write_text(TOML)
    assert loads(tmp_path / "job.toml", overrides=[text])


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 5000 + ".toml", "\0.toml", "a\0b.csv", ".", "/", ""])
def test_a_hostile_name_is_a_short_error(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert loads(Path(name) if "\0" not in name else name)
    assert loads(None, workload=name, cluster="summit")
    assert loads(None, workload="resnet50", cluster=name)
