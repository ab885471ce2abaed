"""Who was late: found when somebody was, nobody when all are alike, and no more said than the records hold."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import quantile_test

from coordsim.analyse.medians import median_interval
from coordsim.analyse.stragglers import stragglers
from coordsim.analyse.stragglers.judge import (
    CHANCE,
    behind_median,
    find_change,
    find_latest,
    smallest_detectable_ns,
)
from coordsim.record.findings import Stragglers
from coordsim.record.manifest import as_json, restored
from tests.analyse.late_records import MS, STEP_MS, delays, records
from tests.budget import examples


def late_ranks(found: Stragglers) -> list[list[int]]:
    return [list(each.ranks) for each in found.late]


@pytest.mark.parametrize("ranks", [2, 3, 4, 16])
@pytest.mark.parametrize("seed", range(5))
def test_five_milliseconds_in_twenty_steps_are_found_under_jitter_of_one(ranks: int, seed: int) -> None:
    found = stragglers(records(delays(20, ranks, {1: 5.0}), 1.0, seed))
    assert late_ranks(found) == [[1]]
    late = found.late[0]
    assert late.late_low_s <= 0.005 <= late.late_high_s
    assert late.late_s == pytest.approx(0.005, abs=0.001)
    assert (late.of_steps, late.from_step, late.to_step, late.changed) == (19, 1, 19, False)
    assert 0.002 < late.costs_s < 0.0065
    assert found.verdict.startswith("rank 1 is late: ")
    assert f"last in {late.last_in} of 19 steps" in found.verdict
    assert restored(Stragglers, json.loads(json.dumps(as_json(found))), "manifest.json") == found


def test_the_verdict_is_a_sentence() -> None:
    found = stragglers(records(delays(21, 4, {3: 5.2}), 0.0))
    assert found.verdict == "rank 3 is late: 5.2 ms (5.2 to 5.2) a step, last in 20 of 20 steps"


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_nobody_is_named_when_all_are_alike(ranks: int) -> None:
    """At most 5 % of 200 runs; the tests are set to 2 %."""
    alarms = sum(bool(stragglers(records(np.zeros((40, ranks)), 1.0, seed)).late) for seed in range(200))
    assert alarms <= 0.05 * 200


@pytest.mark.parametrize("draw", ["exponential", "lognormal", "minus exponential", "pareto"])
@pytest.mark.parametrize("units", [2, 3, 4, 9])
def test_skewed_jitter_names_nobody_either(draw: str, units: int) -> None:
    generator = np.random.default_rng(1)
    alarms = 0
    for _ in range(200):
        jitter = {
            "exponential": lambda: generator.exponential(1.0, (40, units)),
            "lognormal": lambda: generator.lognormal(0, 1, (40, units)),
            "minus exponential": lambda: -generator.exponential(1.0, (40, units)),
            "pareto": lambda: generator.pareto(1.5, (40, units)),
        }[draw]()
        arrive = np.round(jitter * MS).astype(np.int64)
        alarms += find_latest(arrive, np.zeros(units, dtype=np.int64), 0.0) is not None
    assert alarms <= 2.5 * CHANCE * 200


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(5)), st.integers(0, 1000), st.sampled_from([0.0, 1.0, 3.0, 8.0]))
def test_permuting_ranks_permutes_the_verdict(order: list[int], seed: int, late: float) -> None:
    generator = np.random.default_rng(seed)
    arrive = np.round(generator.normal(0, 1, (30, 5)) * MS).astype(np.int64)
    arrive[:, 2] += round(late * MS)
    margin = np.arange(5, dtype=np.int64) * 10_000
    one = find_latest(arrive, margin, 100.0 * MS)
    two = find_latest(arrive[:, order], margin[order], 100.0 * MS)
    assert (one is None) is (two is None)
    if one is not None and two is not None:
        assert order[two.unit] == one.unit
        assert (one.begin, one.end, one.last, one.median_ns, one.cost_ns) == (
            two.begin, two.end, two.last, two.median_ns, two.cost_ns
        )  # fmt: skip


@settings(max_examples=examples(40), deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(12, 40))
def test_what_would_have_been_seen_is_seen(seed: int, units: int, steps: int) -> None:
    """Every unit that gets the stated delay, and a little, is last often enough."""
    generator = np.random.default_rng(seed)
    arrive = np.round(generator.normal(0, 1, (steps, units)) * MS).astype(np.int64)
    margin = np.full(units, 20_000, dtype=np.int64)
    seen = smallest_detectable_ns(arrive, margin, 100.0 * MS)
    assert seen is not None
    for unit in range(units):
        slow = arrive.copy()
        slow[:, unit] += round(seen) + 1
        late = find_latest(slow, margin, 0.0)
        assert late is not None
        assert late.unit == unit


def test_a_late_host_is_told_from_a_late_rank() -> None:
    hosts = ["a", "a", "a", "b", "b", "b", "c", "c", "c"]
    whole = stragglers(records(delays(30, 9, {3: 6.0, 4: 6.0, 5: 6.0}), 1.0, hosts=hosts))
    assert [(each.what, each.host, list(each.ranks)) for each in whole.late] == [("host", "b", [3, 4, 5])]
    assert whole.verdict.startswith("host b (ranks 3, 4, 5) is late: ")
    single = stragglers(records(delays(30, 9, {4: 6.0}), 1.0, hosts=hosts))
    assert [(each.what, each.host, list(each.ranks)) for each in single.late] == [("rank", "b", [4])]


def test_of_two_hosts_the_late_one_is_named() -> None:
    hosts = ["a"] * 4 + ["b"] * 4
    found = stragglers(records(delays(30, 8, dict.fromkeys(range(4, 8), 6.0)), 1.0, hosts=hosts))
    assert late_ranks(found) == [[4, 5, 6, 7]]


def test_two_late_ranks_are_both_named_the_later_first() -> None:
    found = stragglers(records(delays(40, 6, {1: 12.0, 4: 6.0}), 0.5))
    assert late_ranks(found) == [[1], [4]]
    assert "; then rank 4 is late" in found.verdict
    assert found.costs_together_s == pytest.approx(0.012, abs=0.002)
    assert found.late[0].costs_s == pytest.approx(0.006, abs=0.001)


def test_a_small_lateness_is_not_named_beside_a_large_one() -> None:
    assert late_ranks(stragglers(records(delays(40, 6, {1: 30.0, 4: 4.0}), 0.2))) == [[1]]
    assert late_ranks(stragglers(records(delays(40, 6, {4: 4.0}), 0.2))) == [[4]]


def test_taking_turns_is_nobody() -> None:
    late = np.zeros((40, 4))
    late[np.arange(40), np.arange(40) % 4] = 8.0
    found = stragglers(records(late, 0.2))
    assert not found.late
    assert found.verdict.startswith("nobody: no rank is last by more, and more often")
    assert found.smallest_seen_s > 0.007


def test_a_lateness_that_begins_later_has_a_beginning_and_one_that_stops_an_end() -> None:
    begins = stragglers(records(delays(60, 4, {2: 6.0}, begin=40), 1.0)).late[0]
    assert begins.ranks == (2,)
    assert begins.changed
    assert abs(begins.from_step - 40) <= 1
    assert begins.to_step == 59
    stops = stragglers(records(delays(60, 4, {2: 6.0}, end=25), 1.0))
    assert stops.late[0].to_step in (23, 24, 25)
    assert "until step 2" in stops.verdict


@pytest.mark.parametrize(
    ("how", "where", "tensor"),
    [
        ({}, "first gradient", None), ({"growing": True}, "backward", None), ({"from_tensor": 4}, "tensor", "t4"),
        ({"begun_late": True}, "begin", None),
    ],
)  # fmt: skip
def test_where_in_its_step_the_rank_gets_late(how: dict[str, Any], where: str, tensor: str | None) -> None:
    found = stragglers(records(delays(25, 4, {2: 8.0}), 0.3, **how))
    assert late_ranks(found) == [[2]]
    onset = found.late[0].onset
    assert (onset.origin, onset.tensor) == (where, tensor)
    assert onset.at_last_gradient_s == pytest.approx(0.008, abs=0.001)


def test_without_details_no_tensor_is_named() -> None:
    found = stragglers(records(delays(25, 4, {2: 8.0}), 0.3, from_tensor=4, detailed=False))
    assert found.late[0].onset.tensor is None
    assert found.late[0].onset.tensors_compared == 0


def test_where_without_clocks_that_are_known() -> None:
    unknown: dict[int, float | None] = {1: None, 2: None, 3: None}
    made = records(delays(25, 4, {2: 8.0}), 0.3, from_tensor=4, skews_ms={2: 1e6}, error_ms=unknown)
    onset = stragglers(made).late[0].onset
    assert (onset.origin, onset.tensor) == ("tensor", "t4")


def test_clocks_that_differ_are_corrected() -> None:
    skews = {1: 3_600_000.0, 2: -50.0}
    assert late_ranks(stragglers(records(delays(25, 4, {2: 8.0}), 1.0, skews_ms=skews))) == [[2]]
    assert not stragglers(records(delays(25, 4, {}), 1.0, skews_ms=skews)).late


def test_a_clock_that_may_be_wrong_by_more_than_the_lateness_accuses_nobody() -> None:
    wrong = {1: 10.0, 2: 10.0, 3: 10.0}
    made = records(delays(25, 4, {2: 4.0}), 0.3, error_ms=wrong, chained=False)
    found = stragglers(made)
    assert not found.late
    assert found.verdict.startswith("nobody for certain: rank 2 seems ")
    assert found.smallest_seen_s > 0.015


def test_then_each_ranks_own_clock_tells_how_long_it_worked() -> None:
    """An error of the clocks puts rank 1 last in every step; what rank 2 needs by its own clock is what counts."""
    wrong = {1: 10.0, 2: 10.0, 3: 10.0}
    found = stragglers(records(delays(25, 4, {2: 4.0}), 0.3, error_ms=wrong))
    assert late_ranks(found) == [[2]]
    assert found.measure == "each rank's own clock"
    shifted = records(delays(25, 4, {}), 0.3, error_ms=wrong)
    shifted[1].clocks[0] = shifted[1].clocks[0]._replace(offset_ns=8 * MS)
    assert not stragglers(shifted).late


def test_unknown_clocks_leave_the_ranks_own_ones() -> None:
    unknown: dict[int, float | None] = {1: None, 2: None, 3: None}
    found = stragglers(records(delays(25, 4, {3: 6.0}), 1.0, skews_ms={1: 1e5, 3: -1e4}, error_ms=unknown))
    assert late_ranks(found) == [[3]]
    assert found.clock_error_s is None
    onset = found.late[0].onset
    assert (onset.origin, onset.at_begin_s) == ("first gradient", None)
    assert onset.at_last_gradient_s == pytest.approx(0.006, abs=0.001)
    nothing = stragglers(records(delays(25, 4, {3: 6.0}), 1.0, error_ms=unknown, chained=False))
    assert not nothing.late
    assert "the offsets of ranks' clocks are not known" in nothing.verdict


def test_steady_differences_like_those_of_the_others_are_no_lateness() -> None:
    """The order in which ranks are woken: each is 2 ms after the one before, always."""
    assert not stragglers(records(delays(30, 5, {rank: 2.0 * rank for rank in range(5)}), 0.1)).late


def test_too_little_to_matter_is_not_named() -> None:
    assert not stragglers(records(delays(30, 4, {2: 0.5}), 0.01)).late


def test_few_steps_are_said_to_be_few() -> None:
    found = stragglers(records(delays(5, 2, {1: 50.0}), 0.1))
    assert not found.late
    assert found.smallest_seen_s is None
    assert "can be last every time by chance" in found.verdict


def test_one_rank_and_no_step() -> None:
    assert stragglers(records(delays(9, 1, {}))).verdict == "nobody: there is one rank"
    nothing = stragglers(records(delays(1, 3, {})))
    assert (nothing.steps, nothing.late, nothing.step_time_s) == (0, (), None)


def test_only_the_steps_asked_for() -> None:
    made = records(delays(60, 4, {2: 6.0}, begin=40), 1.0)
    assert not stragglers(made, range(30)).late
    assert late_ranks(stragglers(made, range(40, 60))) == [[2]]
    assert stragglers(made, range(40, 60)).first_step == 40


def test_the_step_time_is_that_of_the_run() -> None:
    assert stragglers(records(delays(30, 4, {}), 0.5)).step_time_s == pytest.approx(STEP_MS / 1000, rel=0.02)


@settings(max_examples=examples(50), deadline=None)
@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=60))
def test_the_interval_holds_the_median_and_is_within_the_values(values: list[float]) -> None:
    median, low, high = median_interval(np.array(values))
    assert min(values) <= low <= median <= high <= max(values)


@pytest.mark.parametrize("size", [1, 2, 5, 6, 7, 8, 25, 60, 101, 1000])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_the_interval_is_scipys(size: int, confidence: float) -> None:
    values = np.random.default_rng(size).normal(0, 1, size)
    theirs = quantile_test(values, q=0.0, p=0.5).confidence_interval(confidence)
    low = values.min() if np.isnan(theirs.low) else theirs.low
    high = values.max() if np.isnan(theirs.high) else theirs.high
    assert median_interval(values, confidence) == (np.median(values), low, high)


def test_the_interval_covers_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        _, low, high = median_interval(generator.exponential(1.0, 25))
        held += low <= np.log(2) <= high
    assert 940 <= held <= 995


def test_a_change_is_placed_and_none_is_seen_where_there_is_none() -> None:
    generator = np.random.default_rng(3)
    series = generator.normal(0, 1, 80)
    assert find_change(series)[1] > 0.05
    series[50:] += 4
    at, chance = find_change(series)
    assert abs(at - 50) <= 1
    assert chance < 1e-6


@settings(max_examples=examples(50), deadline=None)
@given(st.integers(2, 7).flatmap(lambda n: st.lists(st.lists(st.integers(0, 5), min_size=n, max_size=n), min_size=1)))
def test_the_median_of_the_others_leaves_the_unit_out(rows: list[list[int]]) -> None:
    arrive = np.array(rows, dtype=np.int64)
    found = behind_median(arrive)
    for unit in range(arrive.shape[1]):
        assert (found[:, unit] == arrive[:, unit] - np.median(np.delete(arrive, unit, axis=1), axis=1)).all()
