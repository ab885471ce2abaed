"""Another batch: compute follows by measured rates or a stated law; the optimizer stays; what was done is said."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from coordsim.analyse.assumptions import assumptions
from coordsim.scenario import load_scenario
from coordsim.scenario.batch import BatchLaw, Point

TIMES = """ranks = 8
cluster = "dgx-v100-100g"

[workload]
name = "known"
tensors = "small.csv"
gpu = "V100-SXM2"
forward = "3ms"
optimizer = "2ms"
batch = 32
sample_bytes = "100kB"
flops_per_sample = "6GFLOP"

[workload.rates]
"""


@pytest.fixture
def known(small: Path):
    """A scenario with these rates: four tensors, the last ready at 5 ms, so 10 ms a step at batch 32."""

    def with_rates(rates: str) -> Path:
        small.write_text(TIMES + rates)
        return small

    return with_rates


def compute_ms(scenario) -> float:
    return (scenario.workload.forward_ns + scenario.workload.backward_ns) / 1e6


def test_with_one_rate_compute_is_proportional_and_the_optimizer_stays(known):
    scenario = load_scenario(known("V100-SXM2 = 3200"), batch=64)
    assert compute_ms(scenario) == pytest.approx(16)
    assert scenario.workload.optimizer_ns == 2_000_000
    assert scenario.workload.batch == 64
    assert any("brought to batch 64: scaled by 2 from batch 32 to 64 (forward and backward in proportion" in each
               for each in assumptions(scenario))  # fmt: skip


def test_the_stated_batch_changes_nothing(known):
    path = known("V100-SXM2 = 3200")
    assert load_scenario(path, batch=32).workload.forward_ns == load_scenario(path).workload.forward_ns == 3_000_000
    assert load_scenario(path, batch=32).workload.timing == "native"


@pytest.mark.parametrize(
    ("batch", "step_ms"),
    [(32, 10), (48, 13), (64, 16), (96, 20), (128, 24), (256, 40), (16, 7), (1, 10 - 31 * 3 / 16)],
)
def test_between_rates_times_lie_on_straight_lines(known, batch, step_ms):
    """Rates of 10 ms at 32, 16 ms at 64 and 24 ms at 128."""
    rates = "V100-SXM2 = { 32 = 3200, 64 = 4000, 128 = 5333.333333 }"
    scenario = load_scenario(known(rates), batch=batch)
    assert compute_ms(scenario) + 2 == pytest.approx(step_ms, rel=1e-6)


def test_beyond_the_last_rate_nothing_is_better_than_in_proportion_to_it():
    """A last segment that is steeper than proportion goes on in proportion; a first one that leads below 0, too."""
    law = BatchLaw((Point(10, Fraction(5)), Point(20, Fraction(30))))
    assert law.compute_ns(40, Fraction(0)) == 60
    assert law.compute_ns(5, Fraction(0)) == Fraction(5, 2)


def test_a_fixed_time_stays_and_the_rest_is_proportional(known):
    rates = 'V100-SXM2 = 3200\n[workload.fixed]\nV100-SXM2 = "4ms"'
    assert compute_ms(load_scenario(known(rates), batch=64)) == pytest.approx(4 + 2 * 4)
    assert compute_ms(load_scenario(known(rates), batch=16)) == pytest.approx(4 + 4 / 2)


def test_a_gpu_known_at_another_batch_alone_is_reached_from_there(known):
    """A GPU with 8 ms at batch 64: half of 16 ms, so its optimizer takes 1 ms and 7 ms are compute."""
    rates = "V100-SXM2 = { 32 = 3200, 64 = 4000 }\nV100-DGX-1 = { 64 = 8000 }"
    at = {
        batch: load_scenario(known(rates), cluster="dgx-1", batch=batch, overrides=["ranks=8"]) for batch in (64, 32)
    }
    assert compute_ms(at[64]) == pytest.approx(7)
    assert compute_ms(at[32]) == pytest.approx(3.5)
    assert at[32].workload.optimizer_ns == 1_000_000


def test_without_rates_compute_is_proportional(small):
    scenario = load_scenario(small, batch=64)
    before = load_scenario(small)
    assert before.workload.batch == 32
    assert compute_ms(scenario) == pytest.approx(2 * compute_ms(before))
    assert scenario.workload.optimizer_ns == before.workload.optimizer_ns


def test_input_follows_the_batch(known):
    before, after = (load_scenario(known("V100-SXM2 = 3200"), batch=batch).workload for batch in (32, 64))
    assert after.sample_bytes * after.batch == 2 * before.sample_bytes * before.batch


def test_a_global_batch_is_shared_equally(known):
    path = known("V100-SXM2 = 3200")
    weak, strong = load_scenario(path, batch=16, ranks=16), load_scenario(path, global_batch=256, ranks=16)
    assert strong.workload.batch == weak.workload.batch == 16
    assert compute_ms(strong) == compute_ms(weak)


def test_a_global_batch_that_the_ranks_do_not_divide_names_the_nearest(known, refused):
    (problem,) = refused(known("V100-SXM2 = 3200"), global_batch=100)
    assert problem.key == "workload.global_batch"
    assert "100 samples cannot be shared equally by 8 ranks (nearest: 96 and 104)" in problem.message
    (problem,) = refused(known("V100-SXM2 = 3200"), global_batch=5)
    assert "(nearest: 8)" in problem.message


def test_batch_and_global_batch_exclude_one_another(known, refused):
    (problem,) = refused(known("V100-SXM2 = 3200"), global_batch=64, batch=8)
    assert "excludes batch" in problem.message


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_is_at_least_1(known, refused, batch):
    (problem,) = refused(known("V100-SXM2 = 3200"), batch=batch)
    assert (problem.key, "must be at least 1" in problem.message) == ("workload.batch", True)


def test_ones_own_rate_replaces_all_others_and_keeps_the_proportion_of_the_parts(known):
    scenario = load_scenario(known("V100-SXM2 = 3200"), batch=64, rate=3200)
    workload = scenario.workload
    assert compute_ms(scenario) + workload.optimizer_ns / 1e6 == pytest.approx(20)
    assert workload.forward_ns == 6_000_000
    assert any("scaled by 2 to 3200 samples/s at batch 64 (workload.rate)" in each for each in assumptions(scenario))


def test_a_rate_of_a_generated_workload_is_refused(refused):
    (problem,) = refused(None, workload="stemdl", cluster="summit", ranks=6, rate=2)
    assert problem.key == "workload.rate"
    assert "set cluster.machine.device_flops instead" in problem.message


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ("V100-SXM2 = {}", "has no rate"),
        ("V100-SXM2 = { x = 3 }", "'x' that is no batch"),
        ("V100-SXM2 = { 0 = 3 }", "'0' that is no batch"),
        ("V100-SXM2 = { 32 = 3200, 64 = 10000 }", "batch 64 takes less time than batch 32"),
        ("V100-SXM2 = { 32 = 0 }", "is not a number of samples a second"),
    ],
)
def test_mistakes_in_rates_by_batch_say_what_is_allowed(known, refused, rates, message):
    (problem,) = refused(known(rates))
    assert problem.key.startswith("workload.rates.V100-SXM2")
    assert message in str(problem)


def test_gradients_can_be_reduced_in_another_type(known):
    path = known("V100-SXM2 = 3200")
    before, after = load_scenario(path).workload, load_scenario(path, overrides=["workload.dtype=float16"]).workload
    assert 2 * after.gradient_bytes == before.gradient_bytes


def test_resnet50_on_a_dgx_1_answers_at_1040_gpus():
    """What the MLPerf rows need: a rate at batch 208, a constant, and a job of 52 a GPU."""
    workload = load_scenario(workload="resnet50", cluster="dgx-1", ranks=1040, batch=52).workload
    step_ms = (workload.forward_ns + workload.backward_ns + workload.optimizer_ns) / 1e6
    alone_ms = 208 / 1428 * 1000
    assert alone_ms * 52 / 208 < step_ms < alone_ms * 52 / 208 + 12.7


def test_a_global_batch_of_a_generated_workload_is_computed_at_its_share():
    shared = load_scenario(workload="stemdl", cluster="summit", ranks=6, global_batch=12).workload
    assert shared.batch == 2
    plain = load_scenario(workload="stemdl", cluster="summit", ranks=6, batch=2).workload
    assert (shared.forward_ns, shared.tensors) == (plain.forward_ns, plain.tensors)


def test_a_global_batch_that_does_not_divide_is_one_mistake_of_a_generated_workload_too(refused):
    (problem,) = refused(None, workload="stemdl", cluster="summit", ranks=6, global_batch=7)
    assert (problem.key, "(nearest: 6 and 12)" in problem.message) == ("workload.global_batch", True)


def test_batch_and_global_batch_exclude_one_another_for_a_generated_workload_too(refused):
    (problem,) = refused(None, workload="stemdl", cluster="summit", ranks=6, global_batch=12, batch=2)
    assert "excludes batch" in problem.message
