"""A job recorded at two ranks, predicted with others on the same machine: against jobs whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coordsim.analyse.predict.anchor import Setting, anchor, spread_over
from coordsim.analyse.predict.collectives import Costs
from coordsim.analyse.predict.here import ASSUMED, MEASURED, carried, predict_here
from coordsim.analyse.predict.typical import typical_step
from coordsim.errors import InputError
from coordsim.simulate.shared_cores import Host
from tests.analyse.predict.played import COMPUTING, GLOO, MS, ROOMY, SLEEPING, Played

OTHERS = Costs(fixed_ns=40_000, hop_ns=120_000, byte_ps=350, start_ns=50_000, wait_ns=30_000)
"""Of a faster machine, in other proportions."""


def predicted_ms(played: Played, ranks: int, costs: Costs = GLOO) -> float:
    return predict_here(typical_step(played.records(2)), costs, ASSUMED, ranks).step_ns / MS


def test_what_slept_is_told_from_what_computed():
    found = typical_step(SLEEPING.records(2))
    asleep = sum(piece.sleep_ns for piece in found.pieces) / MS
    assert asleep == pytest.approx(40.0, rel=0.03)
    assert sum(piece.cpu_ns for piece in found.pieces) / MS == pytest.approx(4.5, rel=0.03)
    computing = typical_step(COMPUTING.records(2))
    assert sum(piece.sleep_ns for piece in computing.pieces) / MS < 1.0


def test_collectives_are_handed_over_where_they_were():
    found = typical_step(SLEEPING.records(2))
    assert [call.nbytes for call in found.calls] == [1 << 20] * 2
    done = [sum(piece.cpu_ns + piece.sleep_ns for piece in found.pieces[: call.after]) / MS for call in found.calls]
    assert done == [pytest.approx(1.5 + 20 + 1.25, abs=0.5), pytest.approx(44.0, abs=0.5)]
    assert [one.after for one in found.gradients] == [call.after for call in found.calls]


@pytest.mark.parametrize("played", [SLEEPING, COMPUTING, replace(SLEEPING, input_ms=9, between_ms=4)])
def test_the_recorded_run_is_reproduced(played):
    found = anchor(typical_step(played.records(2)), Setting(OTHERS))
    assert abs(found.off) < 0.03
    assert sum(found.typical.parts_ns.values()) / MS == pytest.approx(played.step_ms(2), rel=0.02)


@pytest.mark.parametrize("ranks", [3, 4, 8])
@pytest.mark.parametrize("played", [SLEEPING, COMPUTING], ids=["sleeping", "computing"])
def test_more_ranks_on_the_same_cores_are_predicted(played, ranks):
    assert predicted_ms(played, ranks) == pytest.approx(played.step_ms(ranks), rel=0.06)


@pytest.mark.parametrize("ranks", [3, 4, 8])
def test_costs_of_another_machine_are_brought_to_the_records_level(ranks):
    assert predicted_ms(SLEEPING, ranks, OTHERS) == pytest.approx(SLEEPING.step_ms(ranks), rel=0.10)


def test_where_each_rank_has_cores_of_its_own_only_the_collectives_grow():
    found = predict_here(typical_step(ROOMY.records(2)), GLOO, ASSUMED, 8)
    assert not found.crowded
    assert found.step_ns / MS == pytest.approx(ROOMY.step_ms(8), rel=0.04)
    computes = sum(ns for part, ns in found.step.parts_ns.items() if part != "waits")
    assert computes == pytest.approx(found.anchor.typical.own_ns, rel=0.02)


def test_it_says_how_many_cores_are_wanted():
    found = predict_here(typical_step(COMPUTING.records(2)), GLOO, ASSUMED, 8)
    assert found.crowded
    assert found.wanted_cores > 7
    assert found.step.cores == 2


def test_the_interval_holds_the_truth_and_ends_above_nothing():
    for ranks in (2, 3, 8):
        found = predict_here(typical_step(SLEEPING.records(2)), OTHERS, ASSUMED, ranks)
        low, high = found.interval_ns
        assert 0 < low <= SLEEPING.step_ms(ranks) * MS <= high
        assert low <= found.step_ns <= high


def test_the_interval_grows_with_the_distance_and_shrinks_with_a_calibration():
    typical = typical_step(SLEEPING.records(2))
    near, far = (predict_here(typical, GLOO, ASSUMED, ranks) for ranks in (3, 16))
    measured = predict_here(typical, GLOO, MEASURED, 16)

    def width(found) -> float:
        return (found.interval_ns[1] - found.interval_ns[0]) / found.step_ns

    def of_parameters(found) -> float:
        low, high = found.components_ns["parameters"]
        return (high - low) / found.step_ns

    assert width(far) > width(near)
    assert of_parameters(measured) < of_parameters(far)


def test_a_straggler_is_kept_apart_from_jitter():
    late = replace(SLEEPING, late_ms=15.0, noise=0.005, cores=64)
    typical = typical_step(late.records(4))
    assert typical.late_rank == 3
    assert typical.late_ns / MS == pytest.approx(15, rel=0.1)
    found = predict_here(typical, GLOO, ASSUMED, 8)
    alike = replace(late, late_ms=0.0)
    assert found.step_ns / MS == pytest.approx(alike.step_ms(8), rel=0.05)
    assert found.late_ns is not None
    assert found.late_ns / MS == pytest.approx(late.step_ms(8), rel=0.05)


def test_checkpoints_count_for_the_mean_and_not_for_the_median():
    kept = replace(SLEEPING, checkpoint_ms=50.0)
    typical = typical_step(kept.records(2))
    assert typical.occasional_ns / MS == pytest.approx(50 * 3 / 30, rel=0.15)
    assert typical.step_ns / MS == pytest.approx(SLEEPING.step_ms(2), rel=0.02)


def test_ranks_are_dealt_to_the_recorded_hosts():
    assert spread_over((Host(4, 2), Host(8, 2)), 5) == (Host(4, 3), Host(8, 2))
    assert spread_over((Host(4, 2), Host(8, 2)), 1) == (Host(4, 1),)


def test_what_is_unexplained_is_carried_by_its_law():
    found = anchor(typical_step(SLEEPING.records(2)), Setting(GLOO))
    assert carried(found, 8, "constant") == found.unexplained_ns
    assert carried(found, 8, "per collective") == pytest.approx(7 * found.unexplained_ns)


def test_a_record_without_cpu_times_is_refused_with_what_to_do():
    old = SLEEPING.records(2)
    for record in old:
        record.steps[:] = [step._replace(cpu=None) for step in record.steps]
    with pytest.raises(InputError, match=r"no CPU times.*--cluster"):
        typical_step(old)


def test_a_record_whose_collectives_have_no_end_is_refused_with_what_to_do():
    seen = SLEEPING.records(2)
    for record in seen:
        record.responses[:] = [one._replace(end_ns=-(1 << 63)) for one in record.responses]
    with pytest.raises(InputError, match="--cluster"):
        typical_step(seen)


def test_too_many_ranks_for_a_machine_are_refused_with_what_to_do():
    with pytest.raises(InputError, match="--cluster NAME"):
        predict_here(typical_step(SLEEPING.records(2)), GLOO, ASSUMED, 27_600)


def test_ranks_keep_what_they_had_together():
    typical = typical_step(replace(SLEEPING, noise=0.05).records(2))
    assert typical.spread.shape == (2, 30)
    assert np.abs(np.median(typical.spread)) < 0.02
