"""``validate recorded``: what it measures, what it may use, and how far off it is."""

from __future__ import annotations

import dataclasses
import json
import shutil
from functools import cache

import numpy as np
import pytest
from scipy.stats import ks_2samp

from coordsim.analyse.validate.recorded.cases import SKIPPED_STEPS, cases
from coordsim.analyse.validate.recorded.costs import CONTROLLERS, Measured, loop_costs, parameters
from coordsim.analyse.validate.recorded.fit import fit
from coordsim.analyse.validate.recorded.judge import TOLERANCE, distance, simulate_launches, validate
from coordsim.analyse.validate.recorded.summary import facts
from coordsim.record.horovod_runs import Primitive, read_folder
from coordsim.report.tables import Page
from coordsim.report.validation import validation_report
from coordsim.simulate.closed_loop import run
from tests.data import HOROVOD_RUNS


@cache
def recorded(glob):
    return validate(read_folder(HOROVOD_RUNS), [glob])


@pytest.mark.long
@pytest.mark.parametrize("controller", ["mpi", "gloo"])
def test_four_ranks_are_predicted_from_two(controller):
    """The promise: fitted on N = 2, predicting N = 4; median absolute error 10 % (step) and 20 % (tail)."""
    found = recorded(f"{controller}_n2_*")
    rows = [row for row in found.rows if row.case.name.startswith(f"{controller}_n4_")]
    assert len(rows) >= 8
    assert all(row.predicted is not None and not row.case.fitted for row in rows), "a case was refused"
    for metric, tolerance in TOLERANCE.items():
        every = [abs(row.relative_error) for row in rows if row.metric == metric]
        judged = [
            abs(row.relative_error) for row in rows if row.metric == metric and row.judged_by == "median"
        ]
        assert np.median(every) <= tolerance
        assert np.median(judged) <= tolerance
    assert found.missed == []


def test_the_json_object():
    found = facts(recorded("mpi_n2_*"))
    assert found["schema"] == "coordsim.validation/1"
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert {row["metric"] for row in found["rows"]} == {"step_ms", "tail_ms"}
    for row in found["rows"]:
        assert {"case", "workload", "metric", "measured", "predicted", "relative_error", "ks", "fitted"} <= set(row)
        if row["predicted"] is None:
            assert row["reason"]
            assert row["relative_error"] is None
        else:
            assert row["relative_error"] == pytest.approx(row["predicted"] / row["measured"] - 1)
            assert 0 <= row["ks"] <= 1
        quantiles = row["measured_quantiles"]
        assert quantiles["p10"] <= quantiles["median"] <= quantiles["p90"]
        assert quantiles["median_p05"] <= quantiles["median_p95"]
    errors = found["median_abs_relative_error"]
    judged = [
        abs(row["relative_error"])
        for row in found["rows"]
        if row["predicted"] is not None and not row["fitted"] and row["judged_by"] == "median"
    ]
    assert errors["predicted"] == pytest.approx(float(np.median(judged)))


def test_costs_are_never_carried_across_controllers():
    rows = {row.case.name: row for row in recorded("mpi_n2_*").rows}
    assert "no fitted file has controller gloo" in rows["gloo_n4_cache"].reason
    assert "timeline" in rows["tl_mpi_n2_cache"].reason


def test_main_threads_take_turns_only_where_ranks_spin():
    """The recorded ones do, under MPI (docs/validation.md 3)."""
    assert [each.crowded for each in recorded("mpi_n2_*").fits] == [True]
    assert [name for name, known in CONTROLLERS.items() if known.spins] == ["mpi"]


def test_the_report_fits_a_terminal():
    text = validation_report(facts(recorded("mpi_n2_*")), Page())
    assert max(map(len, text.splitlines())) <= 80
    assert "promised: 10.0 %" in text
    assert "mpi_n4_cache0" in text
    assert "lottery" in text


@pytest.mark.long
def test_a_model_that_is_right_is_found():
    """Recordings made by the closed loop itself, with other costs than expected: N = 4 follows from N = 2."""
    runs = read_folder(HOROVOD_RUNS)
    primitives = [Primitive("gloo", 2, "allreduce", 4, 180_000)]  # two hops: what N = 2 alone cannot tell from work
    of = parameters("gloo", [2], primitives)
    truth = {each.name: each.expected for each in of} | {
        "allreduce_hop": 90.0, "response": 45.0, "tensor": 1.7, "wake_shift": 3.0
    }  # fmt: skip
    measured = Measured.of(runs.sleep, 700)

    def made(case, seeds):
        costs = loop_costs(truth, False, measured, "gloo", case.ranks)
        launches = []
        for found in (run(case.problems[0], costs, seed) for seed in seeds):
            start = np.zeros_like(found.end_ns)
            start[:, 1:] = found.end_ns[:, :-1] + case.problems[0].gap_ns[:, 1:]
            launches.append(dataclasses.replace(
                case.recorded[0], start_ns=start, submitted_ns=found.submitted_ns, end_ns=found.end_ns, notice_ns=700.0
            ))  # fmt: skip
        return dataclasses.replace(case, recorded=tuple(launches))

    names = ("seq", "seq_nodelay", "group5", "straggler20ms")
    known = [
        made(case, range(1000, 1004))
        for case in cases(runs, ["gloo_n2_*"])
        if case.name == "gloo_n2_cache" and case.workload in names
    ]
    unknown = [made(case, range(50, 66)) for case in cases(runs, []) if case.name == "gloo_n4_cache"]
    found = fit(known, primitives, runs.sleep)
    for case in unknown:
        launches = simulate_launches(case, found)
        true = np.median(np.concatenate([each.step_ms(SKIPPED_STEPS) for each in case.recorded]))
        predicted = np.median(np.concatenate([each.step_ms(SKIPPED_STEPS) for each in launches]))
        assert predicted == pytest.approx(true, rel=0.05)
    for each in found.ranges:
        assert each.low <= each.value <= each.high


def test_hops_are_those_of_the_algorithms():
    assert [CONTROLLERS["gloo"].allreduce(ranks) for ranks in (1, 2, 4, 8)] == [0, 2, 6, 14]
    assert [CONTROLLERS["mpi"].allreduce(ranks) for ranks in (1, 2, 3, 4, 8)] == [0, 1, 2, 2, 3]
    assert [CONTROLLERS["gloo"].broadcast(ranks) for ranks in (2, 5)] == [1, 3]


def test_distance_is_kolmogorov_smirnov():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=40), rng.normal(0.4, 1.3, size=57)
    assert distance(first, second) == pytest.approx(ks_2samp(first, second).statistic)


def test_workloads_of_a_file_share_one_cache():
    """``seq`` and ``random`` have the same names: only the first step of the first is new; groups are other names."""
    found = {case.workload: case for case in cases(read_folder(HOROVOD_RUNS), []) if case.name == "mpi_n2_cache"}
    asked = {name: found[name].problems[0].uncached for name in ("seq", "random", "group5")}
    assert asked["seq"][0].all()
    assert not asked["seq"][1:].any()
    assert not asked["random"].any()
    assert asked["group5"][0].all()


def test_repeated_launches_are_one_case(tmp_path):
    for name in ("mpi_n2_first", "mpi_n2_again"):
        shutil.copy(HOROVOD_RUNS / "mpi_n2_cache_cyc5.json", tmp_path / f"{name}.json")
    found = cases(read_folder(tmp_path), ["mpi_n2_*"])
    assert {len(case.recorded) for case in found} == {2}
    assert len(found) == 3


def test_an_unknown_number_of_cores_refuses(tmp_path):
    launch = json.loads((HOROVOD_RUNS / "mpi_n2_cache_cyc5.json").read_text())
    launch["machine"] = "somewhere"
    (tmp_path / "mpi_n2_x.json").write_text(json.dumps(launch))
    runs = read_folder(tmp_path)
    assert {case.refused for case in cases(runs, [])} == {
        "the file does not say how many cores the ranks shared (--cores)"
    }
    assert not any(case.refused for case in cases(runs, [], cores=2))
