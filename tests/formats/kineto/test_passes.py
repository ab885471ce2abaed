"""Steps as the source says they are; passes of gradient accumulation; one gradient is one parameter."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordsim.formats.kineto import import_traces
from tests.formats.kineto.traces import DATA, STEP_US, Event, event, read, step, trace
from tests.told import told_of

_NODE = "autograd::engine::evaluate_function: "


def one_pass(at: float, shapes: list[list[int]], *, forward: bool = True) -> list[Event]:
    """Forward of 1 ms and a backward of 2 ms that leaves a gradient of each shape at its end."""
    events = [event("user_annotation", "DistributedDataParallel.forward", at, 1000.0)] if forward else []
    events += [event("cpu_op", f"{_NODE}MeanBackward0", at + 1100, 100.0, tid=8),
               event("cpu_op", f"{_NODE}AddmmBackward0", at + 1200, 1500.0, tid=8)]  # fmt: skip
    for place, shape in enumerate(shapes):
        ready = at + 3000 - 50 * (len(shapes) - place)
        events += [event("cpu_op", f"{_NODE}torch::autograd::AccumulateGrad", ready, 50.0, tid=8),
                   event("cpu_op", "torch::autograd::AccumulateGrad", ready, 50.0, tid=8, Input_Dims=[shape],
                         Input_type=["float"])]  # fmt: skip
    return events


def accumulated(passes: int, shapes: list[list[int]], *, forward: bool = True, steps: int = 3) -> list[Event]:
    """Steps of several passes, 4 ms apart; the last one reduces."""
    events: list[Event] = []
    for number in range(steps):
        at = number * 4 * STEP_US
        events.append(step(number + 2, at, 4 * STEP_US - 100))
        for place in range(passes):
            events += one_pass(at + 500 + 4000 * place, shapes, forward=forward)
        events.append(event("user_annotation", "gloo:all_reduce", at + 4000 * passes, 700.0, tid=9, Input_Dims=[[60]],
                            Input_type=["float"]))  # fmt: skip
    return events


def test_two_passes_leave_two_gradients() -> None:
    found = import_traces([DATA / "two_passes.json"])
    assert (found.summary["gradients"], found.summary["gradient_bytes"]) == (2, 840)
    assert found.summary["passes_per_step"] == 2
    assert found.summary["forward_s"] == pytest.approx(0.020)
    assert found.summary["backward_s"] == pytest.approx(0.0363, abs=2e-4)
    assert found.workload_csv is not None
    assert len(found.workload_csv.splitlines()) == 3


@pytest.mark.parametrize("passes", [1, 2, 4, 8])
@pytest.mark.parametrize("forward", [True, False])
def test_forward_and_backward_are_sums_over_passes(passes: int, forward: bool, tmp_path: Path) -> None:
    found = read(tmp_path / "t.json", trace(accumulated(passes, [[10], [10, 5]], forward=forward), world=1))
    assert found.summary["passes_per_step"] == passes
    assert (found.summary["gradients"], found.summary["gradient_bytes"]) == (2, 240)
    if forward:
        assert found.summary["forward_s"] == pytest.approx(0.001 * passes)
        assert found.summary["backward_s"] == pytest.approx(0.0019 * passes + 0.0005, rel=0.03)
    assert found.trace is not None
    report = told_of(found.trace, found.facts)["breakdown_s"]
    assert report["forward"] == found.summary["forward_s"]
    assert report["backward"] == found.summary["backward_s"]


def test_equal_layers_are_not_taken_for_passes(tmp_path: Path) -> None:
    found = read(tmp_path / "t.json", trace(accumulated(1, [[64, 64]] * 6, forward=False), world=1))
    assert found.summary["gradients"] == 6
    assert found.summary["passes_per_step"] == 1


def test_a_gradient_of_one_pass_only_is_a_parameter_too(tmp_path: Path) -> None:
    events = [step(0, 0.0, 9900.0), *one_pass(100.0, [[3], [4]]), *one_pass(4100.0, [[4], [5]]), step(1, 10_000.0)]
    found = read(tmp_path / "t.json", trace(events, world=1))
    assert found.workload_csv is not None
    assert [row.split(",")[1] for row in found.workload_csv.splitlines()[1:]] == ["3", "4", "5"]


def test_a_step_without_backward_does_not_hide_the_gradients(tmp_path: Path) -> None:
    events = [step(0, 0.0), step(1, STEP_US), *one_pass(STEP_US + 100, [[7]])]
    found = read(tmp_path / "t.json", trace(events, world=1))
    assert found.summary["gradients"] == 1
    assert found.summary["forward_s"] is None


def by_optimizer(steps: int, marks: dict[str, float], tail: float = 0.0) -> list[Event]:
    """Iterations without a profiler's step; ``marks``: annotation -> when in an iteration."""
    events: list[Event] = []
    for number in range(steps):
        at = number * STEP_US
        events += one_pass(at + 200, [[7]])
        events.append(event("user_annotation", "gloo:all_reduce", at + 3100, 200.0, tid=9, Input_Dims=[[7]],
                            Input_type=["float"]))  # fmt: skip
        events += [event("user_annotation", name, at + when, 300.0) for name, when in marks.items()]
    return [*events, event("cpu_op", "c10d::wait", steps * STEP_US + tail, 1.0)]


@pytest.mark.parametrize(
    ("marks", "source"),
    [
        ({"Optimizer.step#SGD.step": 5000.0}, "Optimizer.step"),
        ({"Optimizer.step#SGD.step": 5000.0, "Optimizer.zero_grad#SGD.zero_grad": 50.0}, "Optimizer.step"),
        ({"Optimizer.step#Combined.step": 5000.0, "Optimizer.step#Adam.step": 5100.0}, "Optimizer.step"),
        ({"Optimizer.step#G.step": 5000.0, "Optimizer.step#D.step": 5500.0}, "Optimizer.step"),
        ({"Optimizer.zero_grad#SGD.zero_grad": 50.0}, "Optimizer.zero_grad"),
        ({"Optimizer.zero_grad#SGD.zero_grad": 6000.0}, "Optimizer.zero_grad"),
    ],
)
def test_iterations_are_told_by_the_optimizer_where_no_step_is_marked(
    marks: dict[str, float], source: str, tmp_path: Path
) -> None:
    found = read(tmp_path / "t.json", trace(by_optimizer(4, marks), world=1))
    assert (found.summary["steps_by"], found.summary["steps"]) == (source, 4)
    assert found.summary["collectives_per_step"] == 1
    assert "no ProfilerStep" in found.unknown["steps"]


def test_a_recording_without_any_mark_is_read_and_has_no_steps(tmp_path: Path) -> None:
    found = read(tmp_path / "t.json", trace(by_optimizer(4, {}), world=1))
    assert found.summary["steps"] is None
    assert (found.summary["collectives"], found.summary["bytes"]) == (4, 112)
    assert found.trace is None
    assert "no ProfilerStep, Optimizer.step or Optimizer.zero_grad" in found.unknown["steps"]


def test_an_evaluation_has_no_parts_that_anybody_knows(tmp_path: Path) -> None:
    found = read(tmp_path / "t.json", trace([step(1, 0.0), step(2, STEP_US)], world=1))
    assert found.trace is not None
    report = told_of(found.trace, found.facts)
    assert set(report["breakdown_s"].values()) == {None}
    assert report["step_time_s"]["mean"] > 0.009


def test_fsdps_root_begins_a_pass(tmp_path: Path) -> None:
    events: list[Event] = []
    for number in range(2):
        at = number * STEP_US
        events.append(step(number, at))
        for place in range(2):
            events += [event("user_annotation", "FSDP::root_pre_forward", at + 100 + 4000 * place, 10.0),
                       *one_pass(at + 200 + 4000 * place, [[7]], forward=False)]  # fmt: skip
    found = read(tmp_path / "t.json", trace(events, world=1))
    assert found.summary["passes_per_step"] == 2
    assert found.summary["forward_s"] == pytest.approx(0.0024)


@pytest.mark.parametrize("again", ["Optimizer.step#AdamW.step", "Optimizer.step#Muon.step"])
def test_optimizers_that_step_after_one_backward_end_one_iteration(again: str, tmp_path: Path) -> None:
    events = by_optimizer(4, {"Optimizer.step#AdamW.step": 5000.0})
    events += [event("user_annotation", again, number * STEP_US + 5400, 300.0) for number in range(4)]
    found = read(tmp_path / "t.json", trace(events, world=1))
    assert (found.summary["steps"], found.summary["collectives_per_step"]) == (4, 1)


def test_optimizers_that_step_inside_of_backward_do_not_end_an_iteration_each(tmp_path: Path) -> None:
    events: list[Event] = []
    for number in range(3):
        at = number * STEP_US
        events += one_pass(at, [[7], [8]], forward=False)
        for ready in (at + 2910, at + 2960):
            events.append(event("user_annotation", "Optimizer.step#SGD.step", ready, 30.0, tid=8))
    found = read(tmp_path / "t.json", trace(events, world=1))
    assert (found.summary["steps"], found.summary["gradients"], found.summary["passes_per_step"]) == (3, 2, 1)


def test_what_follows_an_optimizer_is_a_pass_of_its_own(tmp_path: Path) -> None:
    """Two models of a GAN: 1.1 ms of forward before each backward, whose gradients differ."""
    events: list[Event] = []
    for number in range(3):
        at = number * STEP_US
        events += [step(number, at), *one_pass(at, [[7]], forward=False),
                   event("user_annotation", "Optimizer.step#Adam.step", at + 3100, 900.0),
                   *one_pass(at + 4000, [[8], [9]], forward=False),
                   event("user_annotation", "Optimizer.step#Adam.step", at + 7100, 900.0)]  # fmt: skip
    found = read(tmp_path / "t.json", trace(events, world=1))
    assert (found.summary["steps"], found.summary["passes_per_step"], found.summary["gradients"]) == (3, 2, 3)
    assert found.summary["forward_s"] == pytest.approx(0.0022, rel=0.02)


def test_steps_whose_rounded_times_overlap_end_where_the_next_begins(tmp_path: Path) -> None:
    events = [step(number, number * STEP_US, STEP_US + 1) for number in range(3)]
    found = read(tmp_path / "t.json", trace([*events, *one_pass(100.0, [[7]])], world=1))
    assert found.summary["step_s"] == pytest.approx({"min": 0.01, "median": 0.01, "mean": 0.01, "max": 0.01}, rel=1e-3)


def test_numbers_of_steps_that_begin_again_are_said(tmp_path: Path) -> None:
    events = [step(number % 2, number * STEP_US) for number in range(4)]
    found = read(tmp_path / "t.json", trace([*events, *one_pass(100.0, [[7]])], world=1))
    assert found.summary["steps"] == 4
    assert "gaps, before 0, where numbers begin again" in found.unknown["gaps"]
