"""A ready order by rank and step (docs/semantics.md 2.6): both engines, closed forms, and what only one engine does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coordsim.cost.orders import shuffled_places
from coordsim.errors import Refused
from coordsim.record.breakdown import breakdown
from coordsim.record.trace import Trace, difference
from coordsim.scenario.model import CONTROL_PLANES, Groups, Noise, Scenario, Spread
from coordsim.simulate import event, vector
from coordsim.simulate.engine import simulate
from coordsim.simulate.problem import Problem
from tests.differential.test_engines_agree import assert_engines_agree, assert_splits_exactly
from tests.scenarios import CLUSTER, DATA, NEGOTIATED, PLANE, scenario, shuffled_scenario, tensors, workload

RAGGED = Noise(rank=Spread("normal", 100_000), tensor=Spread("exponential", 300_000))
GROUPINGS = [Groups(), Groups("layer"), Groups("count", 3, strict=True)]


def shuffled(described: Scenario) -> Scenario:
    return replace(described, workload=replace(described.workload, order="shuffled"))


@pytest.mark.parametrize("first", [5, 25])
def test_random_scenarios(first: int) -> None:
    for seed in range(first, first + 20):
        assert_engines_agree(shuffled_scenario(seed), debug=seed % 4 == 0)


def event_only(described: Scenario) -> Trace:
    """With the protocol's invariants checked in every cycle."""
    trace = event.run(Problem(described), debug=True)
    assert_splits_exactly(trace)
    return trace


@pytest.mark.parametrize("grouping", GROUPINGS)
def test_small_caches_and_trees_run_by_events(grouping: Groups) -> None:
    for capacity, radix in ((1, 2), (3, 3), (7, 4)):
        small = replace(PLANE, groups=grouping, cache_capacity=capacity, cycle_time_ns=300_000)
        event_only(shuffled(scenario(7, 3, noise=RAGGED, control_plane=small)))
        tree = replace(small, name="hierarchical", radix=radix, merge=radix != 3)
        event_only(shuffled(scenario(11, 2, noise=RAGGED, control_plane=tree)))


def run(described: Scenario) -> Trace:
    """By both engines where both can."""
    return event_only(described) if described.control_plane.name == "hierarchical" else assert_engines_agree(described)


@pytest.mark.parametrize("plane", CONTROL_PLANES)
def test_before_r_nothing_changes(plane: str) -> None:
    """Names move, times stay: forward, backward and straggler_wait are those of one order for all."""
    control = replace(PLANE, name=plane, first_bucket_bytes=8000, bucket_bytes=8000)
    same = scenario(9, 3, noise=RAGGED, control_plane=control)
    one, other = vector.run(Problem(same)), run(shuffled(same))
    assert difference(one, other) is not None
    for name in ("forward", "backward", "straggler_wait"):
        np.testing.assert_array_equal(breakdown(one)[name], breakdown(other)[name])
    np.testing.assert_array_equal(one.steps["ready_last_rank"], other.steps["ready_last_rank"])


def test_one_gradient_has_one_order() -> None:
    alone = scenario(5, workload=workload(1), noise=RAGGED)
    assert difference(vector.run(Problem(alone)), run(shuffled(alone))) is None


def latest_places(described: Scenario, step: int) -> np.ndarray:
    """Shape [unit]: the last place over ranks at which a unit is completed."""
    problem = Problem(described)
    places = shuffled_places(described.seed, step, 0, described.ranks, len(problem.tensors))
    index = {name: place for place, name in enumerate(problem.tensors)}
    return np.array([places[:, [index[name] for name in unit]].max() for unit in problem.units])


@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("plane", NEGOTIATED)
def test_a_unit_goes_in_the_cycle_after_its_last_rank(plane: str, grouping: Groups) -> None:
    """No noise, gradients 1 ms apart, wakes at whole ms on all ranks: the k-th gradient comes at (3 + k) ms, and
    what it completes everywhere is scheduled in that cycle."""
    job = workload(tensors=tensors([1_000_000] * 8), forward_ns=2_000_000)
    control = replace(PLANE, name=plane, groups=grouping)
    described = shuffled(scenario(5, 1, seed=4, workload=job, noise=Noise(), control_plane=control))
    trace = run(described)
    sizes = np.array([len(unit) for unit in Problem(described).units])
    row = np.searchsorted(trace.cycles["cycle"], trace.responses["cycle"], side="right") - 1
    enter = trace.cycles["enter_first_ns"][row]
    step = trace.cycles["step"][row]
    places = latest_places(described, 0)
    cold = {3_000_000 + place * 1_000_000: int(sizes[places == place].sum()) for place in sorted(set(places.tolist()))}
    assert {at: int(trace.responses["units"][(step == 0) & (enter == at)].sum()) for at in cold} == cold
    assert trace.responses["units"][step == 0].sum() == 8
    start, warm = int(trace.steps["start_ns"][1]), latest_places(described, 1)
    exist = start + 3_000_000 + np.sort(warm) * 1_000_000
    found = np.repeat(enter[step == 1], trace.responses["units"][step == 1])
    expected = np.repeat(exist, sizes[np.argsort(warm, kind="stable")])
    assert ((found >= expected) & (found < expected + 1_100_000)).all()


def test_ideal_takes_each_unit_when_its_last_rank_has_it() -> None:
    free = replace(CLUSTER, data=replace(DATA, allreduce="free", copy_bandwidth_Bps=0))
    job = workload(tensors=tensors([1_000_000] * 8), forward_ns=2_000_000)
    plane = replace(PLANE, name="ideal")
    described = shuffled(scenario(3, 1, seed=2, workload=job, noise=Noise(), control_plane=plane, cluster=free))
    trace = run(described)
    expected = sorted({3_000_000 + place * 1_000_000 for place in latest_places(described, 0).tolist()})
    assert len(expected) > 2
    assert trace.cycles["enter_last_ns"][trace.cycles["step"] == 0].tolist() == expected


def test_ddps_buckets_are_fixed_and_wait_for_their_last_member() -> None:
    """They are launched in bucket order on every rank, so differing orders cost time and break nothing."""
    free = replace(CLUSTER, data=replace(DATA, allreduce="free", copy_bandwidth_Bps=0))
    job = workload(tensors=tensors([1_000_000] * 8), forward_ns=2_000_000)
    plane = replace(PLANE, name="ddp", first_bucket_bytes=8000, bucket_bytes=8000)  # two tensors each
    described = shuffled(scenario(3, 1, seed=5, workload=job, noise=Noise(), control_plane=plane, cluster=free))
    trace = run(described)
    last = latest_places(described, 0).reshape(4, 2).max(axis=1)
    expected, now = [], 0
    for place in last.tolist():
        now = max(3_000_000 + place * 1_000_000, now)
        expected.append(now)
        now += CLUSTER.host.launch_ns
    assert trace.cycles["enter_last_ns"][:4].tolist() == expected
    assert (trace.responses["units"] == 2).all()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "hierarchical"}, "no tree of ranks that differ in order"),
        ({"cache_capacity": 7}, "only with a cache that holds every tensor"),
    ],
)
def test_what_the_vector_engine_refuses(changes: dict[str, object], says: str) -> None:
    described = shuffled(scenario(4, 1, control_plane=replace(PLANE, **changes)))
    with pytest.raises(Refused, match=rf"workload\.order: .*{says}; the event engine can"):
        simulate(described, "vector")
    with pytest.raises(Refused, match=says):
        vector.run(Problem(described))
    assert simulate(described).engine == "event"
    assert simulate(replace(described, ranks=1)).engine == "vector"
    assert simulate(shuffled(scenario(4, 1, control_plane=replace(PLANE, cache_capacity=8)))).engine == "vector"
