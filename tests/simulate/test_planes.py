"""The table of control planes: what each has in the engines, and what a further one needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from coordsim.analyse.assumptions import assumptions
from coordsim.analyse.control import counters
from coordsim.protocol import planes
from coordsim.protocol.negotiator import CoordinatorNegotiator, Settings
from coordsim.protocol.planes import COORDINATOR, DDP, NEGOTIATED, NOT_YET, PLANES, PlaneKind, PlaneName
from coordsim.report.figures import COLOURS
from coordsim.simulate.engine import simulate
from coordsim.simulate.event import planes as event_planes
from coordsim.simulate.vector import planes as vector_planes
from coordsim.simulate.vector.refusals import vector_refusals
from tests.scenarios import PLANE, scenario, workload


def test_the_names_that_are_typed_are_those_of_the_table() -> None:
    assert get_args(PlaneName) == tuple(PLANES)
    assert all(kind.name == name for name, kind in PLANES.items())
    assert not set(NOT_YET) & set(PLANES)


@pytest.mark.parametrize("kind", PLANES.values(), ids=lambda kind: kind.name)
def test_both_engines_have_a_counterpart_for_every_plane(kind: PlaneKind) -> None:
    assert (kind.name in event_planes.EXCHANGES) == (kind.name in vector_planes.COUNTERPARTS) == kind.negotiates
    assert (kind.name in event_planes.RUNS) == (kind.name in vector_planes.RUNS) == (not kind.negotiates)
    if kind.negotiates:
        assert vector_planes.COUNTERPARTS[kind.name].shuffled or kind.tree, "orders by rank are refused for trees alone"
        assert kind.exchanges, "a cycle has an exchange"


@pytest.mark.parametrize("kind", PLANES.values(), ids=lambda kind: kind.name)
def test_traits_do_not_contradict_one_another(kind: PlaneKind) -> None:
    assert kind.asks_every_cycle is False or kind.cache is False
    assert kind.negotiates or not (kind.asks_every_cycle or kind.cache or kind.tree or kind.exchanges)
    assert kind.waiting is None or not kind.negotiates, "a background loop waits as the scenario says"
    assert all((kind.behaviour, kind.stands_for, kind.source, kind.title))
    assert kind.name in COLOURS


def test_an_unknown_plane_negotiates_as_little_as_ddp() -> None:
    for name in ("cache", DDP.name):
        with pytest.raises(KeyError, match=name):
            planes.make_negotiator(name, 0, Settings(2, 64))


def test_the_page_of_control_planes_says_what_the_objects_say() -> None:
    page = (Path(__file__).parents[2] / "docs" / "planes.md").read_text(encoding="utf-8").splitlines()
    for kind in PLANES.values():
        traits = (kind.negotiates, kind.asks_every_cycle, kind.cache, kind.tree, kind.buckets is not None, kind.free)
        said = ["yes" if trait else "no" for trait in traits]
        exchanges = ", ".join(f"{what} {number}" for what, number in kind.exchanges.items()) or "0"
        assert f"| `{kind.name}` | {kind.behaviour} | {kind.stands_for} | {kind.source} |" in page
        assert f"| `{kind.name}` | {' | '.join(said)} | {kind.waiting or 'as set'} | {exchanges} |" in page
    assert all(f"`{name}`" in "\n".join(page) for name in NOT_YET)


@pytest.fixture
def polite(monkeypatch: pytest.MonkeyPatch) -> PlaneKind:
    """A further control plane: the coordinator's under another name, in the tables and nowhere else."""
    fields: dict[str, Any] = {name: getattr(COORDINATOR, name) for name in COORDINATOR.__dataclass_fields__}
    kind = PlaneKind(**{**fields, "name": "polite", "assumptions": ("everybody says please",)})
    monkeypatch.setitem(PLANES, kind.name, kind)
    monkeypatch.setitem(event_planes.EXCHANGES, kind.name, event_planes.EXCHANGES[COORDINATOR.name])
    monkeypatch.setitem(vector_planes.COUNTERPARTS, kind.name, vector_planes.COUNTERPARTS[COORDINATOR.name])
    return kind


def test_a_further_plane_needs_a_row_in_each_table_and_nothing_else(polite: PlaneKind) -> None:
    jobs = [scenario(5, 2, control_plane=replace(PLANE, name=name)) for name in (polite.name, COORDINATOR.name)]
    for engine in ("event", "vector"):
        new, old = (simulate(job, engine) for job in jobs)
        assert new.trace.digest() == old.trace.digest()
        assert counters(new) == counters(old)
    assert set(assumptions(jobs[0])) - set(assumptions(jobs[1])) == {"everybody says please"}


def test_buckets_ignore_groups_and_orders_by_rank_stay_out_of_trees() -> None:
    shuffled = workload(order="shuffled")
    refused = {
        name for name in PLANES
        if vector_refusals(scenario(5, 2, workload=shuffled, control_plane=replace(PLANE, name=name)))
    }  # fmt: skip
    assert refused == {kind.name for kind in PLANES.values() if kind.tree}
    assert isinstance(planes.make_negotiator(NEGOTIATED[0], 0, Settings(2, 64)), CoordinatorNegotiator)
