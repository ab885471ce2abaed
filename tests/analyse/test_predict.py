"""A measured workload: what is taken from ranks' records, and what a prediction makes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coordsim.analyse.predict import measured_workload, predict
from coordsim.analyse.predict.asked import Asked, answer
from coordsim.analyse.predict.changes import Changes
from coordsim.analyse.predict.intervals import Beside, Prediction
from coordsim.analyse.predict.measured import MeasuredWorkload
from coordsim.analyse.predict.place import write_scenario
from coordsim.analyse.predict.uncertain import Change, forms
from coordsim.cost.noise import NoiseModel
from coordsim.errors import InputError
from coordsim.record.ranks.format import NULL
from coordsim.record.ranks.reader import CycleRecord, RankRecord, StepRecord
from coordsim.report.predict import prediction_report
from coordsim.report.tables import Page
from coordsim.scenario import load_scenario
from coordsim.scenario.model import Noise, Spread
from coordsim.simulate.engine import simulate

MS = 1_000_000
FORWARD_MS, BACKWARD_MS, OPTIMIZER_MS = 20, 50, 3
SHAPES = ((64, 3, 7, 7), (), (1000, 64))


def records(
    ranks: int = 4, steps: int = 30, *, rank_sigma: float = 0.0, step_sigma: float = 0.0, marked: bool = True,
    op: str = "ALLREDUCE", seed: int = 0, common_sigma: float = 0.0, factors: np.ndarray | None = None,
) -> list[RankRecord]:  # fmt: skip
    """Every rank's clock starts elsewhere; gradients get ready in the order c, b, a at 1/3, 2/3 and all of backward.

    ``factors``: of backward, shape [step, rank], instead of drawn ones.
    """
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
            if factors is not None:
                factor = factors[step, rank]
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
    assert found.jitter.rank.value == found.jitter.step.value == 0


def test_what_nobody_marked_is_null_and_part_of_backward():
    found = measured_workload(records(marked=False))
    assert (found.forward_ns, found.optimizer_ns) == (None, None)
    assert found.gradients[-1].ready_ns == (OPTIMIZER_MS + FORWARD_MS + BACKWARD_MS) * MS


@pytest.mark.parametrize(("rank_sigma", "step_sigma"), [(0.05, 0.01), (0.0, 0.02), (0.03, 0.0)])
def test_persistent_and_passing_differences_are_told_apart(rank_sigma, step_sigma):
    found = measured_workload(records(24, 60, rank_sigma=rank_sigma, step_sigma=step_sigma, common_sigma=0.04))
    assert found.jitter.rank.value == pytest.approx(rank_sigma, rel=0.4, abs=0.002)
    assert found.jitter.step.value == pytest.approx(step_sigma, rel=0.15, abs=0.0005)
    assert found.jitter.common.value == pytest.approx(0.04, rel=0.4)
    assert found.jitter.step_correlation.value < 0.15


def test_intervals_of_jitter_hold_what_was_put_in():
    inside = 0
    for seed in range(20):
        found = measured_workload(records(16, 40, step_sigma=0.02, seed=seed)).jitter.step
        inside += found.low <= 0.02 <= found.high
    assert inside >= 15


def test_ranks_may_come_in_any_order():
    made = records(6, 20, rank_sigma=0.02, step_sigma=0.01)
    one, other = measured_workload(made), measured_workload(made[::-1])
    assert one.gradients == other.gradients
    assert one.jitter.step.value == pytest.approx(other.jitter.step.value)
    assert one.jitter.rank.value == pytest.approx(other.jitter.rank.value)


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
    assert found.run_noise == (pytest.approx(found.step_s), pytest.approx(found.step_s))


@pytest.fixture(scope="module")
def told():
    made = records(4, 30, rank_sigma=0.02, step_sigma=0.01)
    return answer(made, Asked("mine", "here", Changes(600, control_plane="coordinator"), "summit", 4)).facts


def test_one_interval_holds_the_answer_and_its_components_are_behind_it(told):
    interval = told["interval"]
    assert set(interval["components_s"]) == {"run_noise", "parameters", "form", "unexplained"}
    for low, high in interval["components_s"].values():
        assert low <= told["step_time_s"] <= high
    low, high = interval["components_s"]["parameters"]
    assert 0 < interval["low_s"] < told["step_time_s"] < interval["high_s"]
    assert interval["high_s"] - interval["low_s"] > 0.8 * (high - low)
    json.dumps(told, allow_nan=False)


def test_what_no_simulation_has_is_added_to_every_time():
    measured = measured_workload(records(4, 30, rank_sigma=0.02, step_sigma=0.01))
    asked = {"ranks": 12, "cluster": "summit", "control_plane": "ideal", "steps": 3}
    plain = predict(measured, "mine", "here", **asked)
    beside = predict(measured, "mine", "here", **asked, beside=Beside({"input_stall": 9e6}, 2e6))
    assert beside.step_s == pytest.approx(plain.step_s + 0.011)
    assert beside.alone_s == pytest.approx(plain.alone_s + 0.011)
    assert sum(beside.breakdown_s.values()) == pytest.approx(beside.step_s)
    assert beside.interval[1] >= plain.interval[1] + 0.0109


def test_a_record_that_cannot_be_replayed_is_said_to_be_so_on_the_first_line(told):
    assert told["recorded"]["replayed"] is False
    first = prediction_report(told, Page()).splitlines()[0]
    assert first.startswith("recorded: cannot be replayed: the record has no CPU times")


def test_it_says_what_dominates_and_how_far_anything_was_validated(told):
    widths = [each["high_s"] - each["low_s"] for each in told["effects"]]
    assert widths == sorted(widths, reverse=True)
    assert told["dominates"] == told["effects"][0]["name"]
    assert told["validated"]["inside"] is False
    assert "no prediction of it was compared with a run" in told["validated"]["says"]
    names = {each["name"] for each in told["effects"]}
    assert {"rank jitter", "step jitter", "request cost"} <= names
    assert {"gather binomial", "rank jitter with an exponential tail", "step jitter without a tail (uniform)"} <= names


def test_the_page_says_so_within_80_columns(told):
    page = prediction_report(told, Page())
    assert max(map(len, page.splitlines())) <= 80
    assert "not validated for" in page
    assert f"dominated by {told['dominates']}" in " ".join(page.split())
    assert "4 ranks say little about how the slowest of many differs" in " ".join(page.split())


def lasting(sigma: float, correlation_ppm: int, common: float = 0.0) -> MeasuredWorkload:
    """200 steps of 4 ranks with a scenario's noise."""
    noise = Noise(
        step=Spread("normal", round(sigma * 1e6)), step_correlation_ppm=correlation_ppm,
        common=Spread("normal", round(common * 1e6)), common_correlation_ppm=correlation_ppm,
    )  # fmt: skip
    model = NoiseModel(noise, 5, 4, 4)
    factors = np.array([model.step_q16(step) for step in range(200)]) / (1 << 16)
    return measured_workload(records(4, 200, factors=factors))


def width(found: Prediction) -> float:
    return found.run_noise[1] - found.run_noise[0]


def test_jitter_that_goes_on_widens_the_mean_of_many_steps():
    """All ranks alike, one step's noise sigma: the mean of 100 steps varies by the formula, not by sigma / 10."""
    found = lasting(0.002, 900_000, common=0.03)
    goes_on = predict(found, "mine", "here", ranks=16, cluster="summit", control_plane="ideal", steps=100)
    never = ("noise.common.correlation=0", "noise.step.correlation=0")
    anew = predict(
        found, "mine", "here", ranks=16, cluster="summit", control_plane="ideal", steps=100, overrides=never
    )
    assert width(goes_on) > 2 * width(anew)
    assert goes_on.step_s == pytest.approx(anew.step_s, rel=0.02)


def test_another_tail_has_the_same_mean_and_deviation():
    """One rank's compute under each law, over many draws: what is compared is the tail alone."""
    scenario = replace(
        load_scenario(workload="resnet50", cluster="summit", ranks=6),
        noise=Noise(rank=Spread("normal", 0), step=Spread("normal", 80_000)),
    )  # fmt: skip
    found = {each.name: each for each in forms(measured_workload(records()), scenario)}
    moments = {}
    for name in ("", "step jitter with an exponential tail", "step jitter without a tail (uniform)"):
        described = load_scenario(
            workload="resnet50", cluster="summit", ranks=6,
            overrides=["noise.step.sigma=8%", *(found[name].change.overrides if name else ())],
        )  # fmt: skip
        described = found[name].change.of(described) if name else described
        model = NoiseModel(replace(described.noise, rank=Spread()), 0, 200_000, 6)
        times = model.forward_ns(0, described.workload.forward_ns)
        moments[name] = times.mean(), times.std()
        if name:
            assert described.workload.backward_ns < scenario.workload.backward_ns
    mean, deviation = moments.pop("")
    for other in moments.values():
        assert other == (pytest.approx(mean, rel=1e-3), pytest.approx(deviation, rel=0.02))


def test_a_spread_that_no_floor_can_carry_has_no_other_tail():
    scenario = replace(
        load_scenario(workload="resnet50", cluster="summit", ranks=6), noise=Noise(step=Spread("normal", 600_000))
    )
    assert not any("tail" in each.name for each in forms(measured_workload(records()), scenario))


def test_a_factor_on_compute_scales_forward_and_every_gradient():
    scenario = load_scenario(workload="resnet50", cluster="summit", ranks=6)
    changed = (Change((), 0.5) + Change((), 1.5)).of(scenario)
    assert changed.workload.forward_ns == round(scenario.workload.forward_ns * 0.75)
    assert changed.workload.backward_ns == round(scenario.workload.backward_ns * 0.75)
    assert changed.workload.optimizer_ns == scenario.workload.optimizer_ns
