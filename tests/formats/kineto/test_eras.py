"""Traces of every PyTorch since 1.8, and of other writers of the same format: units, names of categories, forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coordsim.errors import InputError
from coordsim.formats.kineto import import_traces
from coordsim.formats.table import import_source
from tests.formats.kineto.traces import DATA, STEP_US, Event, event, events_of, nccl_call, read, step, trace, write


def plain(steps: int = 3, group: int = 8) -> list[Event]:
    """One all-reduce a step, soon run by the GPU."""
    events: list[Event] = []
    for number in range(steps):
        at = 1_000_000.0 + number * STEP_US
        events += [step(number + 2, at), *nccl_call(at + 4000, 1000, 10 * number + 1, kernel_at=at + 5000, group=group)]
    return events


def test_times_since_1970_are_times() -> None:
    found = import_traces([DATA / "epoch_us.json"])
    assert found.summary["steps"] == 4
    assert found.summary["collectives_per_step"] == 2
    assert found.summary["step_s"]["max"] == pytest.approx(0.01)


_ERAS: dict[str, Any] = {
    "since 1970, whole us": lambda ts: 1_694_128_190_000_000 + int(ts),
    "since 1970, a fraction": lambda ts: 1_694_128_190_000_000.0 + ts,
    "since boot, a fraction of ns": lambda ts: 3_743_411_230_047.485 + ts,
    "a negative beginning": lambda ts: ts - 1_000_050.0,
    "since 1970, text": lambda ts: f"{1_694_128_190_000_000 + int(ts)}.123",
    "since a base, text": lambda ts: f"{ts:.3f}",
}


@pytest.mark.parametrize("era", list(_ERAS))
@pytest.mark.parametrize("base", [None, 1_751_410_836_000_000_000])
def test_ts_may_be_of_any_era(era: str, base: int | None, tmp_path: Path) -> None:
    events = plain()
    for one in events:
        one["ts"] = _ERAS[era](one["ts"])
        if "text" in era:
            one["dur"] = str(one["dur"])
    more: dict[str, Any] = {"displayTimeUnit": "ns", "traceName": "t"} | ({"baseTimeNanoseconds": base} if base else {})
    found = read(tmp_path / "t.json", trace(events, **more))
    assert found.summary["steps"] == 3
    assert found.summary["collectives_per_step"] == 1
    assert found.summary["step_s"]["median"] == pytest.approx(0.01, abs=1e-6)
    assert found.summary["collective_s"] == pytest.approx(0.0015, abs=1e-6)


def test_a_base_may_stand_behind_the_events(tmp_path: Path) -> None:
    """Tools that rewrite a trace put it there; ranks are compared on absolute times all the same."""
    ahead = trace(plain(group=2), 0, 2, baseTimeNanoseconds=1_751_410_836_000_000_000)
    behind = trace(plain(group=2), 1, 2)
    behind["baseTimeNanoseconds"] = ahead["baseTimeNanoseconds"] + 2_000_000
    found = import_traces([write(tmp_path / "a.json", ahead), write(tmp_path / "b.json", behind)])
    assert found.trace is not None
    assert found.trace.steps["ready_last_rank"].tolist() == [1] * 3
    assert found.summary["by_rank"][1]["waited_for_s"] == pytest.approx(0.002)


def test_pytorch_1_8_calls_categories_otherwise(tmp_path: Path) -> None:
    """Capital letters, threads as text, "external id", flows "async"; no records of the engine's nodes."""
    categories = {"cpu_op": "Operator", "user_annotation": "Operator", "cuda_runtime": "Runtime", "kernel": "Kernel"}
    events = [one for one in plain() if not one["name"].startswith(("c10d", "record"))]
    for number in range(3):
        at = 1_000_000.0 + number * STEP_US
        events.append(event("cpu_op", "NllLossBackward", at + 3000, 100.0, tid=8))
        events += [event("cpu_op", "torch::autograd::AccumulateGrad", at + 3200 + 100 * place, 20.0, tid=8,
                         Input_Dims=[[10 + place]], Input_type=["float"]) for place in range(2)]  # fmt: skip
    for one in events:
        one["cat"] = categories.get(one["cat"], one["cat"])
        one["tid"] = str(one["tid"])
        one["ts"] = 1_623_142_623_460_111 + int(one["ts"])
        one["args"] = {key.replace("External", "external"): value for key, value in one["args"].items()}
    found = read(tmp_path / "t.json", {"schemaVersion": 1, "traceEvents": events})
    assert found.summary["steps"] == 3
    assert found.summary["collectives_per_step"] == 1
    assert found.summary["bytes_per_step"] == 4000
    assert found.summary["watched_on"] == "GPU"
    assert (found.summary["gradients"], found.summary["passes_per_step"]) == (2, 1)
    assert found.summary["ranks"] is None


def test_shapes_may_be_text(tmp_path: Path) -> None:
    events = plain()
    for one in events:
        kept = {key: value for key, value in one["args"].items() if "nelems" not in key and key != "dtype"}
        one["args"] = {key: json.dumps(value) if key.startswith("Input") else value for key, value in kept.items()}
    assert read(tmp_path / "t.json", trace(events)).summary["bytes_per_step"] == 4000


def test_a_bare_list_of_events_is_chromes_other_form(tmp_path: Path) -> None:
    found = import_traces([write(tmp_path / "t.json", plain())])
    assert (found.summary["steps"], found.summary["bytes_per_step"]) == (3, 4000)


def test_a_scalar_tensor_has_one_value(tmp_path: Path) -> None:
    events = [step(1, 0.0), event("user_annotation", "nccl:all_reduce", 50.0, Input_Dims=[[]], Input_type=["float"])]
    assert read(tmp_path / "t.json", trace(events)).summary["bytes_per_step"] == 4


_GPU_NAMES = [
    "ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "ncclDevKernel_Generic_4(...)",
    "ncclKernel_AllReduce_RING_LL_Sum_float(ncclWorkElem)", "ncclAllReduceRingLLKernel_sum_f32(ncclColl)",
    "ncclSymkDevKernel_AllReduce_RSxLD_AGxST_sum_f32", "rcclGenericKernel<1, false>(ncclDevComm*)",
    "void rccl::AllReduce_RING_LL_Sum_float", "Broadcast_RING_LL_Sum_int8_t(ncclWorkElem)",
    "void (anonymous namespace)::ReduceScatter_RING_SIMPLE_Sum_float", "hcom_allReduce__428_0_1",
]  # fmt: skip


@pytest.mark.parametrize("name", _GPU_NAMES)
def test_kernels_of_every_library_count(name: str, tmp_path: Path) -> None:
    events = plain()
    for one in events:
        if one["cat"] == "kernel":
            one["name"] = name
    found = read(tmp_path / "t.json", trace(events))
    assert found.summary["collectives_per_step"] == 1
    assert found.summary["collective_s"] == pytest.approx(0.0015)


@pytest.mark.parametrize(
    ("category", "name"), [("collective_comm", "xccl::allreduce"), ("mtia_ccp_events", "hccl::allreduce")]
)
def test_other_devices_have_other_categories(category: str, name: str, tmp_path: Path) -> None:
    events = plain()
    for one in events:
        if one["cat"] == "kernel":
            one["cat"], one["name"] = category, name
        elif one["cat"] == "cuda_runtime":
            one["cat"] = "mtia_runtime"
    found = read(tmp_path / "t.json", trace(events))
    assert found.summary["collectives_per_step"] == 1
    assert found.summary["collective_s"] == pytest.approx(0.0015)


@pytest.mark.parametrize("name", ["ncclDevKernelLike", "vectorized_elementwise_kernel", "reduce_kernel<512>"])
def test_kernels_of_no_collective_do_not_count(name: str, tmp_path: Path) -> None:
    events = [*plain(), event("kernel", name.replace("ncclDevKernelLike", "gather_kernel"), 1_000_100.0, 5.0, pid=0)]
    assert read(tmp_path / "t.json", trace(events)).summary["collectives_per_step"] == 1


@pytest.mark.parametrize(
    ("title", "operation"),
    [
        ("gloo:all_reduce", "all_reduce"), ("mpi:broadcast", "broadcast"), ("ucc:all_gather", "all_gather"),
        ("gloo:all_to_all", "all_to_all"), ("gloo:send", "send"), ("gloo:recv", "recv"), ("gloo:reduce", "reduce"),
    ],
)  # fmt: skip
def test_backends_of_the_cpu_span_the_transfer(title: str, operation: str, tmp_path: Path) -> None:
    events: list[Event] = []
    for number in range(2):
        at = number * STEP_US
        events += [step(number, at), event("user_annotation", title, at + 50, 700.0, tid=9, Input_Dims=[[100]],
                                           Input_type=["float"])]  # fmt: skip
    found = read(tmp_path / "t.json", trace(events, world=4))
    assert found.summary["operations"] == {operation: 1}
    assert found.summary["collective_s"] == pytest.approx(0.0007)
    assert found.summary["bytes_per_step"] == (1600 if operation == "all_gather" else 400)


def test_what_is_not_counted_is_listed_with_its_count(tmp_path: Path) -> None:
    events = [
        *plain(), event("user_annotation", "coord:all_reduce", 1_000_700.0),
        event("user_annotation", "gloo:barrier", 1_000_800.0), event("cpu_op", "c10d::barrier", 1_000_900.0),
        event("kernel", "void multimem_all_reduce_kernel<float>", 1_000_950.0),
        event("cpu_op", "record_param_comms", 1_001_000.0, Collective_name="wait", In_msg_nelems=0, dtype="Byte"),
    ]  # fmt: skip
    found = read(tmp_path / "t.json", trace(events))
    assert found.summary["collectives_per_step"] == 1
    assert found.summary["not_read"] == {
        "barriers, which move no data": 2, "coord:all_reduce": 1, "multimem_all_reduce_kernel": 1,
    }  # fmt: skip
    assert "1 coord:all_reduce" in found.unknown["not_read"]


@pytest.mark.parametrize("dims", [[[4160], [2080], []], [[2080], [4160], []]])
def test_a_message_is_the_larger_of_what_a_rank_puts_in_and_gets_out(dims: list[Any], tmp_path: Path) -> None:
    name = "c10d::_allgather_base_" if dims[0] == [4160] else "c10d::_reduce_scatter_base_"
    events = [step(1, 0.0), event("cpu_op", name, 50.0, Input_Dims=dims, Input_type=["float", "float", ""])]
    assert read(tmp_path / "t.json", trace(events)).summary["bytes_per_step"] == 16_640


@pytest.mark.parametrize(
    ("title", "nbytes"), [("nccl:_all_gather_base", 1600), ("nccl:_reduce_scatter_base", 400), ("nccl:all_to_all", 400)]
)
def test_an_annotation_has_inputs_only_and_the_groups_size_the_rest(title: str, nbytes: int, tmp_path: Path) -> None:
    events = [step(1, 0.0), event("user_annotation", title, 50.0, Input_Dims=[[100]], Input_type=["float"])]
    assert read(tmp_path / "t.json", trace(events, world=4)).summary["bytes_per_step"] == nbytes


def test_a_gather_in_a_group_of_unknown_size_has_no_size(tmp_path: Path) -> None:
    gather = event("user_annotation", "nccl:_all_gather_base", 50.0, Input_Dims=[[100]], Input_type=["float"])
    events = [step(1, 0.0), gather]
    found = read(tmp_path / "t.json", trace(events, None))
    assert found.summary["bytes_per_step"] is None
    assert "how many ranks the group has is not" in found.unknown["bytes_per_step"]


def test_odd_events_are_no_reason_to_refuse_a_file(tmp_path: Path) -> None:
    odd: list[Any] = [
        {"ph": "M", "name": "process_name", "args": 5}, {"ph": "i", "s": "t", "name": 7}, {"ph": "s", "id": "x"},
        {"ph": "X"}, {"ph": "X", "name": None}, {"ph": "X", "name": "nccl:all_reduce", "cat": "user_annotation"},
        event("cpu_op", "c10d::allreduce_", "soon"), event("cpu_op", "c10d::allreduce_", 5.0, None),
        {**event("kernel", "ncclDevKernel_X", 1.0), "args": "text"}, {**event("cpu_op", "aten::add", 1.0), "args": [1]},
        {**event("cpu_op", "c10d::allreduce_", 1e300)}, {**event("cpu_op", "c10d::allreduce_", 10**40)},
        {**event("cpu_op", "nccl:all_reduce", float("nan"))}, {**event("cpu_op", "gloo:send", True)},
        {"ph": "X", "cat": ["a"], "name": "c10d::allreduce_"}, {"ph": "C", "name": "nccl", "args": {"a": 1}},
        {**step(77, 1.0), "cat": "python_function"}, {**event("cpu_op", "Optimizer.x", 1.0), "pid": [1], "tid": {}},
    ]  # fmt: skip
    found = read(tmp_path / "t.json", trace([*odd[:9], *plain(), *odd[9:]]))
    assert (found.summary["steps"], found.summary["collectives_per_step"]) == (3, 1)
    assert found.summary["not_read"]['events without a time as "ts" or "dur"'] == 8


def test_a_negative_duration_is_read_as_0_and_said(tmp_path: Path) -> None:
    events = plain()
    next(iter(events_of({"traceEvents": events}, "nccl")))["dur"] = -3
    found = read(tmp_path / "t.json", trace(events))
    assert found.summary["collectives_per_step"] == 1
    assert found.summary["not_read"] == {"durations below 0, read as 0": 1}


@pytest.mark.parametrize("value", [float("nan"), "soon", None, [1], 10**300, 1e300])
def test_a_step_without_a_time_is_one_error(value: Any, tmp_path: Path) -> None:
    events = plain()
    events[0]["ts"] = value
    with pytest.raises(InputError, match=r'traceEvents\[0\]: has no time as "ts"'):
        read(tmp_path / "t.json", trace(events))


def test_an_event_of_thousands_of_parameters_is_read(tmp_path: Path) -> None:
    dims = [[[1024, 1024, 3, 3]] * 4000] * 8
    update = event("cpu_op", "aten::_fused_adamw_", 1_000_010.0, Input_Dims=dims, Input_Strides=dims)
    events = [*plain(), update]
    found = read(tmp_path / "t.json", trace(events))
    assert (tmp_path / "t.json").stat().st_size > 1 << 20
    assert (found.summary["events"], found.summary["collectives_per_step"]) == (len(events), 1)


def test_a_list_of_another_tools_events_is_no_trace(tmp_path: Path) -> None:
    """Horovod's timeline is a list, too; its events have no category."""
    path = tmp_path / "t.json"
    path.write_text('[{"ph": "B", "name": "NEGOTIATE_ALLREDUCE", "ts": 1, "pid": 1}]')
    with pytest.raises(InputError, match="is one of PyTorch"):
        import_traces([path])


@pytest.mark.parametrize("ts", [int, float, str])
def test_a_bare_list_of_the_profilers_events_is_not_taken_for_horovods(ts: type, tmp_path: Path) -> None:
    events = [step(number, 1_694_128_190_000_000 + number * STEP_US) for number in range(3)]
    path = write(tmp_path / "trace_view.json", [one | {"ts": ts(one["ts"])} for one in events])
    assert (import_source(path, "auto").format, import_source(path, "auto").summary["steps"]) == ("kineto", 3)


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps(trace(plain())), encoding="utf-8-sig")
    assert import_source(path, "auto").summary["steps"] == 3
