"""One gradient is one parameter, however often it is accumulated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coordsim.formats.chakra import import_executions
from coordsim.scenario.tensors import read_csv
from tests.formats.chakra.traces import DATA, Trace, plain, tensor


def figures(path: Path, *keys: str) -> list[Any]:
    found = import_executions([path]).summary
    return [found[key] for key in keys]


def of(trace: Trace, tmp_path: Path, *keys: str) -> list[Any]:
    return figures(trace.write(tmp_path / "a.json"), *keys)


SIZE = ("gradients", "gradient_bytes")
ITERATIONS = ("iterations", "iterations_told_by", "passes_per_iteration")


def test_three_steps_have_the_gradients_of_one() -> None:
    found = import_executions([DATA / "et_three_steps.json"])
    assert [found.summary[key] for key in (*SIZE, *ITERATIONS)] == [2, 840, 3, "ProfilerStep", 1]
    assert found.summary["collectives_per_iteration"] == {"all_reduce": 1}
    assert found.summary["allreduce_bytes"] == [840]
    assert found.workload_csv == "name,numel,dtype\ngradient.1,10,float32\ngradient.0,200,float32\n"


def test_shapes_beside_the_inputs() -> None:
    found = import_executions([DATA / "et_schema_1_0_1.json"])
    assert [found.summary[key] for key in SIZE] == [2, 840]
    assert found.summary["allreduce_bytes"] == [840]
    assert "gradients" not in found.unknown


def test_a_recorded_job_with_two_micro_batches_and_an_open_step() -> None:
    found = import_executions([DATA / "two_passes_rank0.json.gz", DATA / "two_passes_rank1.json.gz"])
    assert [found.summary[key] for key in (*SIZE, *ITERATIONS)] == [4, 848, 3, "ProfilerStep", 2]
    assert found.summary["collectives"] == {"all_reduce": 4, "barrier": 1}
    assert found.summary["collectives_per_iteration"] == {"all_reduce": 1}, "the open step is none of the last one"
    assert found.summary["allreduce_bytes"] == [848]
    assert found.summary["ranks"] == 2
    assert "reduced" not in found.unknown


def test_gradients_that_are_set_to_zero() -> None:
    assert figures(DATA / "zeroed.json.gz", *SIZE, *ITERATIONS) == [4, 848, 2, "Optimizer.step", 2]


def test_two_models_with_an_optimizer_each() -> None:
    assert figures(DATA / "adversarial.json.gz", *SIZE, *ITERATIONS) == [8, 1440, 2, "Optimizer.step", 2]


def test_without_any_mark_a_backward_pass_is_an_iteration() -> None:
    assert figures(DATA / "unmarked.json.gz", *SIZE, *ITERATIONS) == [4, 848, 3, "backward passes", 1]


def test_equal_checkpointed_blocks_are_not_passes() -> None:
    found = import_executions([DATA / "checkpointed.json.gz"])
    assert found.summary["passes_per_iteration"] == 1
    assert found.workload_csv is not None
    assert found.workload_csv.count(",64,") == 3


def test_passes_are_told_by_rising_sequence_numbers(tmp_path: Path) -> None:
    trace = Trace()
    for first in (3, 6):  # two passes over two equal layers
        for sequence in (first, first - 1):
            trace.backward(sequence)
            trace.gradient(4, 4)
    trace.add("Optimizer.step#SGD.step")
    assert of(trace, tmp_path, *SIZE, *ITERATIONS) == [2, 128, 1, "Optimizer.step", 2]


def test_equal_layers_are_as_many_gradients(tmp_path: Path) -> None:
    trace = Trace()
    for _ in range(4):
        trace.gradient(4, 4)
    assert of(trace, tmp_path, *SIZE) == [4, 256]


@pytest.mark.parametrize("sign", ["reduced", "forwards", "tensors"])
def test_passes_over_one_shape_need_a_sign(sign: str, tmp_path: Path) -> None:
    trace = Trace()
    for place in range(2):
        if sign == "forwards":
            trace.add("DistributedDataParallel.forward")
        for parameter in range(2):
            identity = parameter + 7 if sign == "tensors" else place * 10 + parameter
            trace.add("torch::autograd::AccumulateGrad", tensor(4, 4, identity=identity))
    if sign == "reduced":
        trace.allreduce(32)
    assert of(trace, tmp_path, *SIZE) == [2, 128]


def test_a_list_of_shapes_that_repeats_is_passes(tmp_path: Path) -> None:
    trace = Trace()
    trace.add("ProfilerStep#2")
    for _ in range(2):
        trace.gradient(10, 20)
        trace.gradient(10)
    trace.allreduce(210)
    assert of(trace, tmp_path, *SIZE, *ITERATIONS) == [2, 840, 1, "ProfilerStep", 2]


def test_zero_grad_marks_iterations_where_nothing_else_does(tmp_path: Path) -> None:
    trace = Trace()
    for _ in range(3):
        trace.add("Optimizer.zero_grad#Adam.zero_grad")
        trace.gradient(5)
    assert of(trace, tmp_path, *SIZE, *ITERATIONS) == [1, 20, 3, "Optimizer.zero_grad", 1]


def test_what_comes_before_the_first_step_does_not_count(tmp_path: Path) -> None:
    trace = Trace()
    trace.gradient(7)
    trace.allreduce(7)
    for number in range(2):
        trace.add(f"ProfilerStep#{number}")
        trace.gradient(5)
        trace.allreduce(5)
    assert of(trace, tmp_path, *SIZE, "allreduce_bytes") == [1, 20, [20]]


def test_iterations_that_differ_are_said(tmp_path: Path) -> None:
    trace = Trace()
    for shapes in ((5, 6), (5,)):
        trace.add("ProfilerStep#1")
        for shape in shapes:
            trace.gradient(shape)
    found = import_executions([trace.write(tmp_path / "a.json")])
    assert found.summary["gradients"] == 2, "a parameter that one step did not use is still one"
    assert "gradients (1 to 2)" in found.unknown["iterations"]


def test_gradients_without_a_size_are_left_out_and_counted(tmp_path: Path) -> None:
    trace = Trace()
    trace.gradient(5)
    undefined = [9, 0, 0, 0, 0, ""], [], "Tensor(nullptr (uninitialized))"
    trace.add("torch::autograd::AccumulateGrad", undefined)
    found = import_executions([trace.write(tmp_path / "a.json")])
    assert found.summary["gradients"] == 1
    assert found.unknown["gradients"].endswith("left out: 1")


def test_a_type_that_is_not_known_has_the_size_that_is_noted(tmp_path: Path) -> None:
    trace = Trace()
    trace.add("torch::autograd::AccumulateGrad", tensor(6, kind="c10::Float8_e4m3fn", width=1))
    trace.gradient(6)
    found = import_executions([trace.write(tmp_path / "a.json")])
    assert found.workload_csv == "name,bytes\ngradient.1,24\ngradient.0,6\n"


def test_reasons_are_those_that_hold(tmp_path: Path) -> None:
    trace = Trace()
    trace.add("torch::autograd::AccumulateGrad", plain("<Object>", "Object"))
    trace.add("nccl:all_gather", tensor(4))
    found = import_executions([trace.write(tmp_path / "a.json")])
    assert found.unknown["gradients"] == "none of the 1 accumulations of gradients in it says a size"
    assert found.unknown["workload"] == "no gradient of known size and no allreduce is in it, only all_gather"
    assert found.workload_csv is None


def test_reduced_bytes_that_are_not_the_gradients_are_said(tmp_path: Path) -> None:
    trace = Trace()
    trace.gradient(5)
    trace.allreduce(9)
    found = import_executions([trace.write(tmp_path / "a.json")])
    assert "send 36 B, gradients hold 20 B: other tensors are reduced" in found.unknown["reduced"]
    assert "checkpointing" not in found.unknown["reduced"]


def test_gradients_that_no_allreduce_carries_may_be_of_checkpointed_inputs(tmp_path: Path) -> None:
    trace = Trace()
    trace.gradient(9)
    trace.allreduce(5)
    found = import_executions([trace.write(tmp_path / "a.json")])
    assert "send 20 B, gradients hold 36 B" in found.unknown["reduced"]
    assert "inputs of blocks under reentrant checkpointing" in found.unknown["reduced"]


def test_the_workload_is_read_back(tmp_path: Path) -> None:
    found = import_executions([DATA / "two_passes_rank0.json.gz"])
    assert found.workload_csv is not None
    path = tmp_path / "w.csv"
    path.write_text(found.workload_csv)
    read = read_csv(path, "w.csv")
    assert not read.problems
    assert sum(each.nbytes for each in read.tensors) == 848
