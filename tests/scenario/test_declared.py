"""A key is declared once, on the field that it becomes; what files may hold follows from that."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated

import pytest

from coordsim import units
from coordsim.errors import InputError
from coordsim.scenario import model
from coordsim.scenario.declared import declared_keys, key_names, number_keys
from coordsim.scenario.keys import (
    Counts,
    Form,
    KeyName,
    Name,
    Named,
    Refusal,
    Time,
    Unsaid,
    at_least,
    at_most,
    quantity,
)
from coordsim.scenario.layers import Layer, Origin, Overlay
from coordsim.scenario.recipes import ClusterEntry, TensorRow, WorkloadRecipe
from coordsim.scenario.reference import TABLES, key_table
from coordsim.scenario.tables import read_table
from tests.scenario.wrong_scenarios import GOLDEN, as_text, messages


@dataclass(frozen=True)
class Part:
    delay_ns: Annotated[Time, at_most(1000, "1us")] = 0
    """How late it is."""


def _parse_pair(value: object) -> Pair:
    if value != "both":
        raise Refusal("is not known", ("both",))
    return Pair(2)


@dataclass(frozen=True)
class Pair:
    count: int
    strict: Annotated[bool, KeyName("strict_pair")] = False


@dataclass(frozen=True)
class Extra:
    sizes: Counts


@dataclass(frozen=True)
class Entry:
    key: str
    label: Name


@dataclass(frozen=True)
class Whole:
    size_bytes: Annotated[int, quantity("size", "1kB", units.parse_bytes), at_least(1, "1B")]
    name: Annotated[Name, Unsaid("nobody")]
    part: Part = field(default_factory=Part)
    loss_ppm: Annotated[int, KeyName("part.loss"), at_least(3, "3")] = 3
    pair: Annotated[Pair, Form("", _parse_pair)] = Pair(0)
    entries: Annotated[tuple[Entry, ...], Named("key")] = ()
    extra: Extra | None = None


def read(values: dict[str, object]) -> Whole:
    overlay = Overlay(Origin("file"))
    overlay.apply(Layer({"whole": values}, Origin("file")))
    whole, problems = read_table(Whole, values, overlay, ("whole",))
    if whole is None:
        raise InputError(problems)
    return whole


def test_a_key_is_its_field_without_the_unit():
    assert key_names(Whole) == ("size", "name", "part", "pair", "strict_pair", "entries", "extra")
    assert [key.path for key in declared_keys(Whole)][3] == "part.loss"
    assert number_keys(model.Noise, "noise.")[0] == "noise.rank.sigma"


def test_values_become_the_fields_they_are_declared_for():
    whole = read({
        "size": "2kB", "part": {"delay": "7ns", "loss": 5}, "pair": "both", "strict_pair": True,
        "entries": {"a.b": {"label": "first"}}, "extra": {"sizes": [2, 4]},
    })  # fmt: skip
    assert whole == Whole(2000, "nobody", Part(7), 5, Pair(2, True), (Entry("a.b", "first"),), Extra((2, 4)))
    assert read({"size": "1B"}) == Whole(1, "nobody")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": "0B"}, "whole.size: '0B' must be at least 1B"),
        ({"sise": 1}, "whole.sise: is not a known key; allowed: size, name, part, pair, strict_pair, entries"),
        ({"part": {"delay": "2us"}}, "whole.part.delay: '2us' must be at most 1us"),
        ({"part": {"loss": 2}}, "whole.part.loss: 2 must be at least 3"),
        ({"part": {"los": 2}}, "whole.part.los: is not a known key; allowed: delay, loss (did you mean 'loss'?)"),
        ({"pair": "one"}, "whole.pair: 'one' is not known; allowed: both"),
        ({"entries": {"a": {"label": ""}}}, "whole.entries.a.label: '' is empty"),
        ({"entries": {"a": {"label": "x", "key": "y"}}}, "whole.entries.a.key: is not a known key; allowed: label"),
        ({"extra": {"size": 3}}, "whole.extra.sizes: is missing\nfile: whole.extra.size: is not a known key; allowed: "
                                 "sizes (did you mean 'sizes'?)"),
        ({"name": 3}, "whole.name: 3 is not text"),
        ({"extra": {}}, "whole.extra.sizes: is missing"),
        ({"extra": 3}, "whole.extra: 3 is not a table"),
        ({"extra": {"sizes": [0]}}, "whole.extra.sizes: [0] is not a list of whole numbers of at least 1"),
    ],
)
def test_a_mistake_is_said_with_the_declared_words(change, message):
    with pytest.raises(InputError) as caught:
        read({"size": "1B", **change})
    assert str(caught.value).startswith(f"file: {message}")


@pytest.mark.parametrize("table", [*TABLES.values(), ClusterEntry, WorkloadRecipe, TensorRow], ids=lambda t: t.__name__)
def test_every_key_says_what_it_means(table):
    sections = {"workload", "cluster", "control_plane", "noise", "machine", "control", "host", "data"}
    assert not [key.path for key in declared_keys(table) if not key.doc and key.path not in sections]


def test_every_field_of_a_cluster_is_a_key():
    for table in (model.Machine, model.ControlNetwork, model.HostCosts, model.DataNetwork, model.Noise):
        assert {key.field for key in declared_keys(table)} == {one.name for one in fields(table)}


def test_the_page_says_bounds_units_defaults_and_sources():
    machine, plane = key_table("cluster.machine"), key_table("control_plane")
    assert "| `ranks_per_node` | a whole number; at least 1; at most 65,536 | needed | GPUs of one node" in machine
    assert "`1ms`; `5ms` (point-to-point, coordinator, hierarchical)" in plane
    assert "(PyTorch DDP: bucket_cap_mb = 25)" in plane


def test_no_message_has_changed(tmp_path):
    """``python -m tests.scenario.wrong_scenarios`` writes the file anew; a worse message needs a reason."""
    answers = list(messages(tmp_path))
    assert len(answers) > 500
    assert as_text(answers).splitlines() == GOLDEN.read_text(encoding="utf-8").splitlines()
