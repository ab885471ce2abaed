"""What the GPU runs belongs to the step and the call that launched it; sizes come from whichever event has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coordsim.formats.imported import Imported
from coordsim.formats.kineto import import_traces
from tests.formats.kineto.traces import DATA, KERNEL, STEP_US, Event, event, nccl_call, read, step, trace
from tests.told import told_of


def lagging(steps: int = 4, lag_us: float = 12_000.0, **more: Any) -> list[Event]:
    """Two all-reduces a step, whose kernels begin a step later."""
    events: list[Event] = []
    for number in range(steps):
        at = 1_000_000.0 + number * STEP_US
        events.append(step(10 + number, at))
        for place, values in enumerate((1_000_000, 3_000_000)):
            asked = at + 4000 + place * 3000
            events += nccl_call(asked, values, 100 * number + 10 * place + 1, kernel_at=asked + lag_us, **more)
    return events


def says(found: Imported) -> tuple[Any, Any, Any]:
    return found.summary["steps"], found.summary["collectives_per_step"], found.summary["bytes_per_step"]


def test_the_recorded_lag_does_not_move_kernels_into_other_steps() -> None:
    found = import_traces([DATA / "gpu_lag.json"])
    assert says(found) == (4, 2, 16_000_000)
    assert found.summary["step_s"]["min"] == pytest.approx(0.0099)
    assert found.summary["step_s"]["max"] == pytest.approx(0.01)
    assert found.summary["collective_bytes"] == [4_000_000, 12_000_000]


@pytest.mark.parametrize("lag_us", [300.0, 12_000.0, 35_000.0])
def test_a_kernel_belongs_to_the_step_that_launched_it(lag_us: float, tmp_path: Path) -> None:
    found = read(tmp_path / "t.json", trace(lagging(lag_us=lag_us)))
    assert says(found) == (4, 2, 16_000_000)
    assert found.summary["watched_on"] == "GPU"
    assert found.summary["step_s"]["max"] == pytest.approx(0.01)


@pytest.mark.parametrize("lag_us", [300.0, 12_000.0])
def test_the_report_says_the_same_numbers_as_the_import(lag_us: float, tmp_path: Path) -> None:
    found = read(tmp_path / "t.json", trace(lagging(lag_us=lag_us)))
    assert found.trace is not None
    report = told_of(found.trace, found.facts)
    assert report["steps"] == found.summary["steps"]
    assert report["messages"]["per_step"] == found.summary["collectives_per_step"]
    assert report["messages"]["bytes_per_step"] == found.summary["bytes_per_step"]
    assert report["step_time_s"]["mean"] == found.summary["step_s"]["mean"]
    assert report["breakdown_s"]["backward"] == found.summary["backward_s"]
    assert report["breakdown_s"]["exposed_collective"] is None


def test_a_profilers_step_0_counts_like_any_other(tmp_path: Path) -> None:
    events = lagging()
    for one in events:
        if one["name"].startswith("ProfilerStep#"):
            one["name"] = f"ProfilerStep#{int(one['name'][13:]) - 10}"
    found = read(tmp_path / "t.json", trace(events))
    assert found.trace is not None
    report = told_of(found.trace, found.facts)
    assert (report["steps"], report["first_step"], report["cold_step_s"]) == (4, 0, None)
    assert report["messages"]["bytes_per_step"] == 16_000_000


def test_all_steps_count_not_the_last_one(tmp_path: Path) -> None:
    events = lagging()
    at = 1_000_000.0 + 3 * STEP_US
    events += nccl_call(at + 9000, 500, 999, kernel_at=at + 20_000)
    found = read(tmp_path / "t.json", trace(events))
    assert found.summary["collectives_per_step"] == {"min": 2, "median": 2.0, "max": 3, "mean": 2.25}
    assert found.summary["bytes_per_step"]["max"] == 16_002_000
    assert found.summary["collective_bytes"] == {"min": 2000, "median": 4_000_000.0, "max": 12_000_000}


def test_flow_events_tell_a_launch_where_no_correlation_does(tmp_path: Path) -> None:
    events = []
    for one in lagging():
        correlation = one["args"].pop("correlation", None)
        events.append(one)
        if correlation is not None:
            phase = "f" if one["cat"] == "kernel" else "s"
            events.append({"ph": phase, "id": correlation, "pid": one["pid"], "tid": one["tid"], "ts": one["ts"],
                           "cat": "ac2g", "name": "ac2g"})  # fmt: skip
    found = read(tmp_path / "t.json", trace(events))
    assert says(found) == (4, 2, 16_000_000)
    assert found.summary["collective_s"] == pytest.approx(0.0015)


def test_the_operators_id_tells_a_launch_where_nothing_else_does(tmp_path: Path) -> None:
    events = [one for one in lagging() if one["cat"] != "cuda_runtime"]
    for one in events:
        if one["cat"] == "kernel":
            one["args"] = {"External id": one["args"]["correlation"] + 1}
    found = read(tmp_path / "t.json", trace(events))
    assert says(found) == (4, 2, 16_000_000)
    assert found.summary["collective_s"] == pytest.approx(0.0015)


def test_an_id_that_repeats_the_correlation_is_no_operators_id(tmp_path: Path) -> None:
    """PyTorch 1.10 to 2.0: the kernel's "External id" is its correlation, which is some other operator's id, too."""
    events = lagging()
    for one in events:
        if one["cat"] == "kernel":
            one["args"]["External id"] = one["args"]["correlation"] = one["args"]["correlation"] + 100
        elif one["cat"] == "cuda_runtime":
            one["args"]["correlation"] += 100
    found = read(tmp_path / "t.json", trace(events))
    assert found.summary["collectives_per_step"] == 2
    assert found.summary["bytes_per_step"] == 16_000_000


def test_kernels_launched_before_the_recording_are_in_no_step_and_said(tmp_path: Path) -> None:
    events = [*lagging(), event("kernel", KERNEL, 1_000_500.0, 900.0, pid=0, tid=20, correlation=7_000_000)]
    found = read(tmp_path / "t.json", trace(events))
    assert says(found) == (4, 2, 16_000_000)
    assert found.summary["not_read"] == {"kernels of collectives that were launched before the recording": 1}
    assert "launched before the recording" in found.unknown["not_read"]


def test_a_kernel_that_no_call_launched_counts_where_it_was_launched(tmp_path: Path) -> None:
    """Libraries that call NCCL themselves leave no operator of c10d."""
    events = [one for one in lagging() if one["cat"] in ("cuda_runtime", "kernel") or "Step" in one["name"]]
    found = read(tmp_path / "t.json", trace(events))
    assert found.summary["collectives_per_step"] == 2
    assert found.summary["operations"] == {"all_reduce": 2}
    assert found.summary["bytes_per_step"] is None
    assert found.unknown["bytes_per_step"].startswith("8 of 8 messages have no size: no shapes are recorded")


def test_coalesced_calls_share_the_kernel_that_ends_them(tmp_path: Path) -> None:
    events: list[Event] = []
    for number in range(4):
        at = 1_000_000.0 + number * STEP_US
        asked = [(at + 1000 + place * 100, 100 * number + 10 * place + 1) for place in range(3)]
        calls = [one for moment, external in asked for one in nccl_call(moment, 10, external)]
        launched = at + 1500
        events += [step(number, at), *calls,
                   event("user_annotation", "nccl:coalesced", launched - 5, 20.0),
                   event("cuda_runtime", "cudaLaunchKernel", launched, 5.0, correlation=9000 + number),
                   event("kernel", KERNEL, launched + 50, 70.0, pid=0, tid=20, correlation=9000 + number)]  # fmt: skip
    found = read(tmp_path / "t.json", trace(events))
    assert found.summary["collectives_per_step"] == 3
    assert found.summary["bytes_per_step"] == 120
    assert found.summary["collective_s"] == pytest.approx(70e-6)


def test_without_launches_kernels_belong_to_calls_by_their_order(tmp_path: Path) -> None:
    events = [one for one in lagging() if one["cat"] != "cuda_runtime"]
    for one in events:
        if one["cat"] == "kernel":
            one["args"] = {}
    found = read(tmp_path / "t.json", trace(events))
    assert says(found) == (4, 2, 16_000_000)
    assert "by their order" in found.unknown["launches"]


def test_a_recording_of_the_device_alone_has_the_steps_that_it_marks(tmp_path: Path) -> None:
    events: list[Event] = []
    for number in range(3):
        at = 1_000_000.0 + number * STEP_US
        events.append(event("gpu_user_annotation", f"ProfilerStep#{number + 4}", at, 9900.0, pid=0, tid=20))
        events += [event("kernel", KERNEL, at + 100 + 50 * place, 40.0, pid=0, tid=20) for place in range(2)]
    found = read(tmp_path / "t.json", trace(events))
    assert (found.summary["steps"], found.summary["collectives_per_step"]) == (3, 2)
    assert found.summary["steps_by"] == "ProfilerStep on the device"


@pytest.mark.parametrize("kept", ["c10d::", "record_param_comms", "nccl:"])
def test_sizes_come_from_whichever_event_has_them(kept: str, tmp_path: Path) -> None:
    events = lagging()
    for one in events:
        if one["cat"] != "kernel" and "Step" not in one["name"] and not one["name"].startswith(kept):
            for key in ("Input Dims", "In msg nelems", "Out msg nelems", "dtype"):
                one["args"].pop(key, None)
            if kept != "c10d::":
                one["args"].pop("Input type", None)
    found = read(tmp_path / "t.json", trace(events))
    assert says(found) == (4, 2, 16_000_000)


def test_sizes_on_the_kernel_alone_are_sizes(tmp_path: Path) -> None:
    events = [one for one in lagging() if "Step" in one["name"] or one["cat"] in ("kernel", "cuda_runtime")]
    for one in events:
        if one["cat"] == "kernel":
            one["args"] |= {"In msg nelems": 500, "Out msg nelems": 500, "dtype": "BFloat16", "Group size": 8}
    found = read(tmp_path / "t.json", trace(events))
    assert says(found) == (4, 2, 2000)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"Input Dims": [[]], "Input type": [""]}, "but not those of their lists of tensors"),
        ({}, "no shapes are recorded for them"),
        ({"In msg nelems": 8, "Out msg nelems": 8, "dtype": "QInt4x8"}, "of type 'QInt4x8', whose size is not known"),
    ],
)
def test_an_unknown_size_is_null_with_the_true_reason(change: dict[str, Any], why: str, tmp_path: Path) -> None:
    events = lagging(metadata=False)
    for one in events:
        if one["cat"] in ("cpu_op", "user_annotation") and "Step" not in one["name"]:
            keep = {"External id": one["args"]["External id"]}
            one["args"] = keep | (change if one["name"].startswith(("c10d", "record")) else {})
            if one["name"] == "record_param_comms":
                one["args"]["Collective name"] = "allreduce"
    found = read(tmp_path / "t.json", trace(events))
    assert found.summary["bytes_per_step"] is None
    assert found.summary["collective_bytes"] is None
    assert why in found.unknown["bytes_per_step"]


def test_calls_without_gpu_activity_have_sizes_and_no_times() -> None:
    found = import_traces([DATA / "nccl_cpu_only.json"])
    assert says(found) == (4, 2, 8_000_000)
    assert found.summary["collective_s"] is None
    assert "only the call on the CPU is recorded" in found.unknown["collective_s"]
    assert found.trace is not None
    report = told_of(found.trace, found.facts)
    assert report["messages"]["per_step"] == 2
    assert report["messages"]["bytes_per_step"] == 8_000_000
    assert report["breakdown_s"]["exposed_collective"] is None
    assert "nothing says when" in report["missing"]["exposed_collective"]


@pytest.mark.parametrize("title", ["nccl:all_reduce", "nccl2:all_reduce", "hccl:allreduce", "xccl:all_reduce"])
def test_an_annotation_alone_is_a_call_of_unknown_time(title: str, tmp_path: Path) -> None:
    """PyTorch before 1.12 dispatched no operators of c10d."""
    events: list[Event] = []
    for number in range(3):
        at = 1_000_000.0 + number * STEP_US
        events += [step(number, at), event("cpu_op", title, at + 100, 25.0, Input_Dims=[[25]], Input_type=["double"])]
    found = read(tmp_path / "t.json", trace(events))
    assert says(found) == (3, 1, 200)
    assert found.summary["collective_s"] is None


def test_what_lies_outside_of_steps_is_said(tmp_path: Path) -> None:
    events = [*nccl_call(900_000.0, 5, 5000, kernel_at=950_000.0), *lagging()]
    found = read(tmp_path / "t.json", trace(events))
    assert says(found) == (4, 2, 16_000_000)
    assert found.unknown["outside"].startswith("1 collectives were asked for outside of the steps")


def test_calls_that_do_not_say_what_they_are_are_listed(tmp_path: Path) -> None:
    events = [step(number, number * STEP_US) for number in range(3)]
    events += [event("cpu_op", "record_param_comms", 500.0 + number * STEP_US) for number in range(3)]
    found = read(tmp_path / "t.json", trace(events))
    assert found.summary["collectives_per_step"] == 0
    assert found.summary["not_read"] == {"record_param_comms that name no operation, as waits and old versions' do": 3}
