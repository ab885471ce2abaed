"""The vector engine equals the event engine: cycles, responses and steps, bit for bit.

The breakdown is checked on every one of these traces too: no negative part, and parts that sum to the step.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coordsim.record.breakdown import breakdown, step_times
from coordsim.record.trace import Trace, difference
from coordsim.scenario.model import CONTROL_PLANES, Groups, Noise, Scenario, Spread
from coordsim.simulate import event, vector
from coordsim.simulate.problem import Problem
from tests.scenarios import (
    CLUSTER,
    CONTROL,
    PLANE,
    exchange_scenario,
    random_scenario,
    scenario,
    small_cache_scenario,
    successive_scenario,
    tensors,
    workload,
)

PER_TEST = 20


def assert_splits_exactly(trace: Trace) -> None:
    parts = breakdown(trace)
    assert min(int(part.min()) for part in parts.values()) >= 0
    np.testing.assert_array_equal(sum(parts.values()), step_times(trace))


def assert_engines_agree(described: Scenario, debug: bool = False) -> Trace:
    expected = event.run(Problem(described), debug)
    found = vector.run(Problem(described))
    assert difference(expected, found) is None
    assert expected.digest() == found.digest()
    assert_splits_exactly(found)
    return found


def seeds(usual: int, last: int, step: int) -> pytest.MarkDecorator:
    """A test for each ``step`` seeds, as ``first``; those from ``usual`` on in the long run only."""
    return pytest.mark.parametrize(
        "first", [pytest.param(first, marks=[pytest.mark.long] * (first >= usual)) for first in range(0, last, step)]
    )


@seeds(40, 320, PER_TEST)
def test_random_scenarios(first: int) -> None:
    for seed in range(first, first + PER_TEST):
        assert_engines_agree(random_scenario(seed), debug=seed % 4 == 0)


@seeds(16, 40, 8)
def test_random_exchanges(first: int) -> None:
    """Every AND, trees that do not merge, and detours."""
    for seed in range(first, first + 8):
        assert_engines_agree(exchange_scenario(seed), debug=seed % 4 == 0)


@seeds(20, 80, 10)
def test_noise_that_goes_on(first: int) -> None:
    """Correlated from step to step, and common to all ranks."""
    for seed in range(first, first + 10):
        assert_engines_agree(successive_scenario(seed), debug=seed % 4 == 0)


@pytest.mark.parametrize("first", range(0, 1200, 100))
def test_small_caches(first: int) -> None:
    """Completion order when pending hits are evicted (docs/semantics.md 5.3); seeds 295, 480 and 818 depend on it."""
    for seed in {*range(first, first + 6), *(s for s in (295, 480, 491, 818, 1099) if first <= s < first + 100)}:
        assert_engines_agree(small_cache_scenario(seed), debug=True)


@pytest.mark.parametrize("plane", CONTROL_PLANES)
@pytest.mark.parametrize("ranks", [1, 2, 3, 100, 129])
def test_sizes(plane: str, ranks: int) -> None:
    described = scenario(ranks, steps=2, control_plane=replace(PLANE, name=plane))
    assert_engines_agree(described)


@pytest.mark.parametrize("capacity", [1, 5, 7, 8])
def test_capacity_around_the_number_of_tensors(capacity: int) -> None:
    noise = Noise(rank=Spread("normal", 300_000), tensor=Spread("exponential", 500_000))
    plane = replace(PLANE, cache_capacity=capacity, cycle_time_ns=300_000)
    trace = assert_engines_agree(scenario(6, steps=6, control_plane=plane, noise=noise), debug=True)
    slow = trace.cycles["kind"][trace.cycles["step"] > 1] == 2
    assert slow.any() == (capacity < 8)


@pytest.mark.parametrize("data_plane", ["async", "blocking"])
@pytest.mark.parametrize(
    "mode", [Groups(), Groups("layer"), Groups("count", 3), Groups("count", 1), Groups("layer", strict=True)]
)
def test_groups_that_do_not_divide_the_tensors(data_plane: str, mode: Groups) -> None:
    plane = replace(PLANE, data_plane=data_plane, groups=mode, fusion_threshold_bytes=6000)
    assert_engines_agree(scenario(5, control_plane=plane), debug=True)


def test_ties_everywhere() -> None:
    """No noise and durations that are multiples of the cycle: everything happens in the same tick."""
    job = workload(tensors=tensors([1_000_000] * 6), forward_ns=2_000_000, optimizer_ns=1_000_000)
    for plane in ("coordinator", "cached", "hierarchical", "point-to-point"):
        assert_engines_agree(scenario(8, workload=job, noise=Noise(), control_plane=replace(PLANE, name=plane)))


def test_saturated_loop() -> None:
    """A gather that takes longer than the cycle time: nobody sleeps, ranks leave one after the other."""
    slow = replace(CLUSTER, control=replace(CONTROL, overhead_ns=40_000))
    plane = replace(PLANE, name="coordinator", cycle_time_ns=1000)
    trace = assert_engines_agree(scenario(40, cluster=slow, control_plane=plane))
    assert trace.cycles["enter_first_ns"][1] < trace.cycles["enter_last_ns"][1]


def test_a_step_beyond_32_bits() -> None:
    job = workload(tensors=tensors([900_000_000] * 6))
    trace = assert_engines_agree(scenario(3, steps=1, workload=job))
    assert step_times(trace)[1] > 1 << 32


def test_whole_node_of_messages_above_the_eager_limit() -> None:
    cluster = replace(CLUSTER, control=replace(CONTROL, eager_limit_bytes=100))
    assert_engines_agree(scenario(20, cluster=cluster, control_plane=replace(PLANE, name="coordinator")))


def test_detours_in_a_loop_that_never_sleeps() -> None:
    """Wake patterns come and go, more of them than are kept."""
    noise = Noise(rank=Spread("normal", 300_000), tensor=Spread("normal", 300_000), detour_ppm=900_000, detour_ns=9000)
    plane = replace(PLANE, cycle_time_ns=1000)
    trace = assert_engines_agree(scenario(5, steps=1, noise=noise, control_plane=plane))
    assert np.unique(trace.cycles["wake_hash"]).size > 64


@pytest.mark.parametrize("ranks", [2, 3, 7, 40])
@pytest.mark.parametrize("name", ["ring", "in-network"])
def test_sizes_of_other_ands(name: str, ranks: int) -> None:
    cluster = replace(CLUSTER, control=replace(CONTROL, and_reduce=name, in_network_ns=3000))
    assert_engines_agree(scenario(ranks, steps=2, cluster=cluster), debug=True)


@pytest.mark.parametrize("radix", [2, 3, 16])
@pytest.mark.parametrize("wire", ["horovod", "coordsim"])
def test_a_tree_that_does_not_merge(radix: int, wire: str) -> None:
    noise = Noise(rank=Spread("normal", 300_000), tensor=Spread("exponential", 500_000))
    plane = replace(PLANE, name="hierarchical", radix=radix, merge=False, cycle_time_ns=300_000, wire=wire)
    trace = assert_engines_agree(scenario(23, noise=noise, control_plane=plane), debug=True)
    assert int(trace.cycles["requests"].sum()) == 23 * 8 * 4
