"""A measured workload: what is taken from ranks' records, and what a prediction makes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coordsim.analyse.predict import measured_workload, predict
from coordsim.analyse.predict.intervals import facts
from coordsim.analyse.predict.place import write_scenario
from coordsim.errors import InputError
from coordsim.record.ranks.format import NULL
from coordsim.record.ranks.reader import CycleRecord, RankRecord, StepRecord
from coordsim.report.predict import prediction_report
from coordsim.report.tables import Page
from coordsim.scenario import load_scenario
from coordsim.simulate.engine import simulate

MS = 1_000_000
FORWARD_MS, BACKWARD_MS, OPTIMIZER_MS = 20, 50, 3
SHAPES = ((64, 3, 7, 7), (), (1000, 64))


def records(
    ranks: int = 4, steps: int = 30, *, rank_sigma: float = 0.0, step_sigma: float = 0.0, marked: bool = True,
    op: str = "ALLREDUCE", seed: int = 0, common_sigma: float = 0.0,
) -> list[RankRecord]:  # fmt: skip
    """Every rank's clock starts elsewhere; gradients get ready in the order c, b, a at 1/3, 2/3 and all of backward."""
    rng = np.random.default_rng(seed)
    of_rank, of_step = rng.normal(0, rank_sigma, ranks), rng.normal(0, common_sigma, steps)
    found = []
    for rank in range(ranks):
        head = {"rank": rank, "ranks": ranks, "job": "made", "host": f"n{rank // 2}", "detailed": True}
        tensors = [
            {"name": name, "op": op, "shape": list(shape), "dtype": "FLOAT32"}
            for name, shape in zip("abc", SHAPES, strict=True)
        ]
        record = RankRecord(Path(f"rank-{rank:05d}.rank"), head, tensors)
        at = rng.integers(10**12)
        for step in range(steps):
            factor = 1 + of_rank[rank] + of_step[step] + rng.normal(0, step_sigma)
            begin = at + FORWARD_MS * MS
            stamps = [begin + round(BACKWARD_MS * MS * factor * share / 3) for share in (1, 2, 3)]
            collective = begin + 100 * MS
            end = collective + OPTIMIZER_MS * MS
            record.cycles.append(CycleRecord(
                step, step, 1, stamps[-1], collective, 0, collective, 0, 0, 3, 1, 0, 0, (2, 1, 0), tuple(stamps)
            ))  # fmt: skip
            record.steps.append(StepRecord(
                step, at if marked else NULL, begin if marked else NULL, stamps[0], stamps[-1], collective,
                end if marked else NULL, 1, 3, 0, 1,
            ))  # fmt: skip
            at = end
        found.append(record)
    return found


def test_gradients_come_in_ready_order_with_median_times():
    found = measured_workload(records())
    assert [(each.name, each.shape, each.dtype) for each in found.gradients] == [
        ("c", (1000, 64), "float32"), ("b", (1,), "float32"), ("a", (64, 3, 7, 7), "float32"),
    ]  # fmt: skip
    assert [round(each.ready_ns / MS, 3) for each in found.gradients] == [16.667, 33.333, 50.0]
    assert (found.forward_ns, found.optimizer_ns) == (FORWARD_MS * MS, OPTIMIZER_MS * MS)
    assert (found.ranks, found.hosts, found.steps) == (4, 2, 29)
    assert found.backward.value == found.backward.low == found.backward.high == BACKWARD_MS * MS
    assert found.rank_sigma.value == found.step_sigma.value == 0


def test_what_nobody_marked_is_null_and_part_of_backward():
    found = measured_workload(records(marked=False))
    assert (found.forward_ns, found.optimizer_ns) == (None, None)
    assert found.gradients[-1].ready_ns == (OPTIMIZER_MS + FORWARD_MS + BACKWARD_MS) * MS


@pytest.mark.parametrize(("rank_sigma", "step_sigma"), [(0.05, 0.01), (0.0, 0.02), (0.03, 0.0)])
def test_persistent_and_passing_differences_are_told_apart(rank_sigma, step_sigma):
    found = measured_workload(records(24, 60, rank_sigma=rank_sigma, step_sigma=step_sigma, common_sigma=0.04))
    assert found.rank_sigma.value == pytest.approx(rank_sigma, rel=0.4, abs=0.002)
    assert found.step_sigma.value == pytest.approx(step_sigma, rel=0.15, abs=0.0005)
    assert found.common_sigma == pytest.approx(0.04, rel=0.4)
    assert abs(found.autocorrelation or 0.0) < 0.15


def test_intervals_of_jitter_hold_what_was_put_in():
    inside = 0
    for seed in range(20):
        found = measured_workload(records(16, 40, step_sigma=0.02, seed=seed)).step_sigma
        inside += found.low <= 0.02 <= found.high
    assert inside >= 15


def test_ranks_may_come_in_any_order():
    made = records(6, 20, rank_sigma=0.02, step_sigma=0.01)
    one, other = measured_workload(made), measured_workload(made[::-1])
    assert one.gradients == other.gradients
    assert one.step_sigma.value == pytest.approx(other.step_sigma.value)
    assert one.rank_sigma.value == pytest.approx(other.rank_sigma.value)


def test_a_rank_without_details_is_left_out():
    made = records(4)
    made[3].head["detailed"] = False
    assert measured_workload(made) == replace(measured_workload(made[:3]), ranks=4)


@pytest.mark.parametrize(
    ("made", "told"), [(records(2, 5), "at least 5"), (records(2, 20, op="BROADCAST"), "no gradient")]
)
def test_too_little_is_one_clear_error(made, told):
    with pytest.raises(InputError, match=told):
        measured_workload(made)


def test_the_scenario_that_is_kept_gives_the_central_prediction(tmp_path):
    measured = measured_workload(records(4, 30, rank_sigma=0.02, step_sigma=0.01))
    found = predict(measured, "mine", "here", ranks=48, cluster="summit", control_plane="coordinator", steps=4)
    path = write_scenario(tmp_path, measured, "mine", "here")
    again = simulate(load_scenario(path, cluster="summit", ranks=48, control_plane="coordinator", steps=4))
    assert again.trace.digest() == found.central.trace.digest()


def test_what_nobody_marked_can_be_simulated_all_the_same(tmp_path):
    path = write_scenario(tmp_path, measured_workload(records(marked=False)), "mine", "here")
    scenario = load_scenario(path, cluster="summit", ranks=6, steps=2)
    assert scenario.workload.forward_ns == scenario.workload.optimizer_ns == 1


def test_without_noise_a_step_is_its_parts_and_the_last_collective(tmp_path):
    measured = measured_workload(records())
    found = predict(measured, "mine", "here", ranks=1, cluster="summit", control_plane="ideal", steps=2)
    compute_s = (FORWARD_MS + BACKWARD_MS + OPTIMIZER_MS) / 1e3
    assert found.alone_s == pytest.approx(compute_s, rel=0.01)
    assert found.run_noise == (found.step_s, found.step_s)


@pytest.fixture(scope="module")
def told():
    measured = measured_workload(records(4, 30, rank_sigma=0.02, step_sigma=0.01))
    return facts(predict(measured, "mine", "here", ranks=600, cluster="summit", control_plane="coordinator", steps=4))


def test_three_intervals_hold_the_answer_and_are_kept_apart(told):
    assert set(told["intervals_s"]) == {"run_noise", "fitted_parameters", "model_form"}
    for low, high in told["intervals_s"].values():
        assert low <= told["step_time_s"] <= high
    assert told["intervals_s"]["fitted_parameters"][0] < told["intervals_s"]["fitted_parameters"][1]
    json.dumps(told, allow_nan=False)


def test_it_says_what_dominates_and_how_far_anything_was_validated(told):
    widths = [each["high_s"] - each["low_s"] for each in told["effects"]]
    assert widths == sorted(widths, reverse=True)
    assert told["dominates"] == told["effects"][0]["name"]
    assert (told["validated_to_ranks"], told["extrapolated"]) == (4, True)
    names = {each["name"] for each in told["effects"]}
    assert {"rank jitter", "step jitter", "request cost"} <= names
    assert {"gather binomial", "rank jitter with an exponential tail"} <= names


def test_the_page_says_so_within_80_columns(told):
    page = prediction_report(told, "mine", Page())
    assert max(map(len, page.splitlines())) <= 80
    assert "to N = 4, beyond that extrapolated" in page
    assert f"dominated by {told['dominates']}" in " ".join(page.split())
    assert "4 ranks say little about how the slowest of many differs" in " ".join(page.split())
