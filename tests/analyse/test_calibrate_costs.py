"""Fits recover what the measurement was made of, intervals hold the truth, and too little is refused."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordsim.analyse.calibrate import calibrate, network
from coordsim.analyse.calibrate.calibration import facts
from coordsim.analyse.calibrate.costs import allreduce, coordinator, copies
from coordsim.analyse.calibrate.regression import Point, fit
from coordsim.analyse.calibrate.result import TooLittle
from coordsim.analyse.calibrate.toml import cluster_toml
from coordsim.errors import InputError
from coordsim.record.measurement import KINDS, Measurement, Series
from coordsim.report.calibration import calibration_report
from coordsim.report.tables import Page
from coordsim.scenario import catalog
from coordsim.scenario.loading import load_scenario
from tests.analyse.measured import allreduces, counting, machine, measurement, noisy

BASE = load_scenario(cluster="localhost", workload="resnet50").cluster


def by_key(found: list[network.Estimate]) -> dict[str, network.Estimate]:
    return {each.key: each for each in found}


@settings(max_examples=8, deadline=None)
@given(st.floats(2e3, 1e5), st.floats(300, 2e4), st.floats(0.05, 2.0), st.integers(0, 1000))
def test_a_link_is_recovered(latency: float, overhead: float, gap: float, seed: int) -> None:
    found = by_key(network.link(measurement(machine(latency, overhead, gap, seed)))[0])
    one_way = found[""].value
    assert one_way == pytest.approx(latency + 2 * overhead, rel=0.06)
    assert found["control.overhead"].value == pytest.approx(overhead, rel=0.1)
    assert abs(found["control.local_latency"].value - latency) < 0.12 * (latency + 2 * overhead)


@pytest.mark.long
def test_intervals_hold_the_truth_nine_times_out_of_ten() -> None:
    truth = np.array([20_000.0, 4_000.0, 0.4])
    hits = np.zeros(3)
    runs = 20
    for seed in range(runs):
        _, found = network.link(measurement(machine(*truth, seed)))
        for index in range(3):
            low, high = found.interval(index)
            hits[index] += low <= truth[index] <= high
    assert (hits / runs >= 0.8).all(), hits


def test_an_and_round_a_ring_is_told_from_recursive_doubling() -> None:
    measured = measurement(machine(10_000, 1_000, 0.2, 1, ranks=(2, 8)))
    _, found = network.link(measured)
    _, choices = network.exchanges(measured, found)
    assert {each.key: each.value for each in choices} == {"control.and_reduce": "ring"}


def test_what_cannot_be_told_apart_is_called_a_ridge() -> None:
    only = [each for each in machine(10_000, 1_000, 0.2, 1, spread=0.4) if each.count in (1, 4)]
    found = by_key(network.link(measurement(only))[0])
    assert "ridge" in found["control.overhead"].note
    assert found["control.overhead"].loose


def test_ranks_that_shared_cores_are_in_no_fit() -> None:
    crowded = measurement(machine(90_000, 9_000, 9, 1, ranks=(4,)), cores=2)
    with pytest.raises(TooLittle, match="ranks that had a core each"):
        network.link(crowded)
    both = measurement([*machine(10_000, 1_000, 0.2, 1), *machine(90_000, 9_000, 9, 1, ranks=(4,))], cores=2)
    assert by_key(network.link(both)[0])["control.overhead"].value == pytest.approx(1_000, rel=0.2)


@settings(max_examples=8, deadline=None)
@given(st.floats(2e4, 1e6), st.floats(3e8, 2e10), st.integers(0, 1000))
def test_an_allreduce_is_recovered(alpha: float, bandwidth: float, seed: int) -> None:
    measured = measurement(allreduces(alpha, bandwidth, seed, (2, 4, 8)))
    found = by_key(allreduce(measured, BASE.data)[0])
    assert found["data.bus_bandwidth"].value == pytest.approx(bandwidth, rel=0.05)
    assert found["host.launch"].value == pytest.approx(alpha - 4_400, rel=0.1)  # the ring's own latency at 2 ranks


def test_costs_of_a_coordinator_are_recovered() -> None:
    found = by_key(coordinator(measurement(counting(12_000, 600, 900, 3))))
    assert found["host.per_message"].value == pytest.approx(12_000, rel=0.1)
    assert found["host.per_request"].value == pytest.approx(600, rel=0.1)
    assert found["host.per_response"].low <= 900 <= found["host.per_response"].high
    assert found["host.per_request"].error_worst is not None
    assert found["host.per_request"].error_worst < 0.1


def test_small_copies_are_no_bandwidth() -> None:
    random = np.random.default_rng(0)
    with pytest.raises(TooLittle, match="copies"):
        copies(measurement([Series("copy", 2, noisy(2e4, random), 5 << 10)]))
    sizes = [1 << 10, 1 << 20, 1 << 24]
    made = [Series("copy", 2, noisy(5_000 + nbytes / 5, random), nbytes) for nbytes in sizes]
    assert copies(measurement(made))[0].value == pytest.approx(5e9, rel=0.05)


def test_one_odd_size_does_not_bend_the_rest() -> None:
    random = np.random.default_rng(0)
    times = {1: 1_010, 8: 1_080, 64: 8_200, 512: 6_120, 4096: 41_960}
    points = [Point((1.0, float(size)), noisy(took, random)) for size, took in times.items()]
    assert fit(points, "line").values == pytest.approx([1_000, 10], rel=0.1)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([], "nothing of the kind"),
        ([Point((1.0, 2.0), [1.0] * 9)], "1 series for 2 parameters"),
        ([Point((1.0, 2.0), [1.0] * 9), Point((2.0, 4.0), [2.0] * 9)], "do not tell 2 parameters apart"),
        ([Point((1.0,), [1.0] * 4)], "a series of 4 repeats"),
        ([Point((1.0,), [0.0] * 9)], "median is 0"),
    ],
)
def test_too_little_is_refused(points: list[Point], message: str) -> None:
    with pytest.raises(TooLittle, match=message):
        fit(points, "line")


def test_the_same_measurement_gives_the_same_calibration() -> None:
    measured = measurement([*machine(10_000, 1_000, 0.2, 1), *allreduces(1e5, 1e9, 2), *counting(1e4, 500, 900, 3)])
    first, second = calibrate(measured, BASE), calibrate(measured, BASE)
    assert first == second
    assert set(first.by_key) >= {"control.overhead", "data.bus_bandwidth", "host.launch", "host.per_request"}
    assert dict(first.not_fitted).keys() == {"cached tensors", "copies", "noise of compute"}


TIMES = st.lists(st.floats(0, 1e12), min_size=1, max_size=40).map(tuple)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.builds(
    Series, st.sampled_from(sorted(KINDS)), st.integers(2, 9), TIMES, st.sampled_from([0, 8, 4096, 1 << 40]),
    st.integers(0, 99), st.sampled_from(["", "auto", "gloo"]), st.integers(-1, 9), st.sampled_from(["", "a", "b", "c"]),
), min_size=1, max_size=12))  # fmt: skip
def test_any_measurement_is_fitted_or_refused(series: list[Series]) -> None:
    try:
        found = calibrate(measurement(series), BASE)
    except InputError:
        return
    calibration_report(facts(found), Page())
    tree = tomllib.loads(cluster_toml(found, catalog.read("cluster", "localhost")))
    assert tree["control"].keys() == catalog.read("cluster", "localhost")["control"].keys()
    json.dumps(facts(found), allow_nan=False)


def test_a_measurement_that_tells_nothing_is_an_error() -> None:
    nothing: Measurement = measurement([Series("sleep", 2, (5e4,) * 9, rank=0)])
    with pytest.raises(InputError, match="nothing can be fitted"):
        calibrate(nothing, BASE)


def test_what_was_not_measured_is_said_and_the_base_stands() -> None:
    made = measurement(machine(10_000, 1_000, 0.2, 1))
    found = calibrate(replace(made, missing={"allreduce": "torch is not installed"}), BASE)
    assert dict(found.not_fitted)["allreduce"] == "torch is not installed"
    base = catalog.read("cluster", "localhost")
    tree = tomllib.loads(cluster_toml(found, base))
    assert tree["data"]["bus_bandwidth"] == base["data"]["bus_bandwidth"]
    assert tree["sources"]["data.bus_bandwidth"].startswith("from base localhost: as control.bandwidth")
