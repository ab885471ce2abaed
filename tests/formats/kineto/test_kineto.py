"""PyTorch profiler traces as runs: two real ranks, and what is wrong with others."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordsim.errors import InputError
from coordsim.formats.imported import Imported
from coordsim.formats.kineto import import_traces
from coordsim.formats.kineto.files import records_of
from coordsim.formats.kineto.reader import read_trace
from coordsim.formats.kineto.steps import RankRecord
from coordsim.record.breakdown import breakdown, step_times
from tests.budget import examples
from tests.formats.torch_files import KINETO, changed, loaded


def sums(found: Imported) -> None:
    assert found.trace is not None
    np.testing.assert_array_equal(sum(breakdown(found.trace).values()), step_times(found.trace))


def events(found: dict[str, Any], start: str) -> list[dict[str, Any]]:
    return [each for each in found["traceEvents"] if str(each.get("name")).startswith(start) and each["ph"] == "X"]


def record(path: Path) -> RankRecord:
    (only,) = records_of(path, None)
    return only


def test_a_rank_is_read_as_json_reads_it() -> None:
    trace, said = record(KINETO[0]), loaded(KINETO[0])
    assert (trace.rank, trace.world_size, trace.backend, trace.lost) == (0, 2, "gloo", None)
    assert trace.events == len(said["traceEvents"])
    assert [step.number for step in trace.steps] == [3, 4, 5, 6, 7]
    calls = sorted((call for step in trace.steps for call in step.calls), key=lambda call: call.begin_ns or 0)
    reduced = sorted(events(said, "gloo:all_reduce"), key=lambda each: each["ts"])
    assert [call.nbytes for call in calls] == [4 * each["args"]["Input Dims"][0][0] for each in reduced]
    assert [call.begin_ns for call in calls] == [
        said["baseTimeNanoseconds"] + round(each["ts"] * 1000) for each in reduced
    ]
    asked = sorted(each["ts"] for each in events(said, "c10d::allreduce_"))
    assert [call.asked_ns for step in trace.steps for call in step.calls] == [
        said["baseTimeNanoseconds"] + round(ts * 1000) for ts in asked
    ]
    first = events(said, "ProfilerStep#3")[0]
    assert trace.steps[0].begin_ns == said["baseTimeNanoseconds"] + round(first["ts"] * 1000)
    assert [step.passes for step in trace.steps] == [1] * 5
    assert len(trace.gradients) == 6


def test_two_ranks_on_one_host_are_a_run() -> None:
    found = import_traces(list(KINETO))
    trace = found.trace
    assert trace is not None
    sums(found)
    assert trace.missing == {"cycle_wait", "control_exchange", "control_work", "fusion_copy"}
    assert trace.steps["step"].size == 5
    assert set(trace.steps["ready_last_rank"].tolist()) <= {0, 1}
    assert trace.responses["bytes"].tolist() == [271_392, 66_560] * 5
    assert found.facts.first_step == 3
    assert found.facts.ranks_absent == ()
    assert found.unknown["cycles_per_step"].startswith("nothing is negotiated under DDP and FSDP")
    for step in range(5):  # the last rank's end of step, on the ranks' common clock
        ends = [record(path).steps[step].end_ns for path in KINETO]
        begin = min(record(path).steps[0].begin_ns for path in KINETO)
        assert trace.steps["end_ns"][step] == max(ends) - begin


def test_a_late_rank_is_last_by_as_much_as_it_is_late(tmp_path: Path) -> None:
    def later(found: dict[str, Any]) -> None:
        for each in found["traceEvents"]:
            if "ts" in each and each.get("name") != "ProfilerStep#3" and each["ts"] > first["ts"] + 100:
                each["ts"] += 50_000.0

    first = events(loaded(KINETO[1]), "ProfilerStep#3")[0]
    slow = changed(KINETO[1], tmp_path / "rank1.json", later)
    trace = import_traces([KINETO[0], slow]).trace
    assert trace is not None
    assert trace.steps["ready_last_rank"].tolist() == [1] * 5
    assert int(breakdown(trace)["straggler_wait"][0]) == pytest.approx(50_000_000, rel=0.2)


def test_without_all_ranks_nobody_is_last() -> None:
    found = import_traces([KINETO[1]])
    assert found.trace is not None
    assert "straggler_wait" in found.trace.missing
    assert found.trace.steps["ready_last_rank"].tolist() == [-1] * 5
    assert found.facts.ranks_absent == (0,)
    sums(found)


def test_clocks_of_different_hosts_are_not_compared(tmp_path: Path) -> None:
    def moved(found: dict[str, Any]) -> None:
        found["host_name"] = "elsewhere"
        found["baseTimeNanoseconds"] += 3_600_000_000_000

    found = import_traces([KINETO[0], changed(KINETO[1], tmp_path / "b.json", moved)])
    assert found.trace is not None
    assert "not aligned" in found.unknown["clocks"]
    assert found.trace.steps["ready_last_rank"].tolist() == [-1] * 5
    assert step_times(found.trace).max() < 10**9
    assert found.summary["ranks_with_a_trace"] == 2
    sums(found)


def test_kernels_of_nccl_count_when_they_are_there(tmp_path: Path) -> None:
    """Those of a file without calls and launches of its own."""

    def with_kernels(found: dict[str, Any]) -> None:
        for each in events(found, "gloo:all_reduce"):
            each |= {"cat": "kernel", "name": "ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgs)"}
            each["args"] = {"In msg nelems": 1000, "dtype": "BFloat16", "Group size": 2, "stream": 20}

    found = import_traces([changed(KINETO[0], tmp_path / "a.json", with_kernels)])
    assert found.trace is not None
    assert found.summary["watched_on"] == "GPU"
    assert set(found.trace.responses["bytes"].tolist()) == {2000}
    assert "gpu" in found.unknown


def test_a_loader_is_told_beside_what_lies_before_forward(tmp_path: Path) -> None:
    def loading(found: dict[str, Any]) -> None:
        for each in events(found, "ProfilerStep#"):
            found["traceEvents"].append({
                **each, "name": "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__", "dur": 50.0,
            })  # fmt: skip

    found = import_traces([changed(KINETO[0], tmp_path / "a.json", loading)])
    assert found.trace is not None
    assert found.summary["loading_s"] == pytest.approx(50e-6)
    assert (breakdown(found.trace)["input_stall"] >= 50_000).all()
    sums(found)


def test_gradients_are_a_workload_with_ready_times() -> None:
    text = import_traces([KINETO[0]]).workload_csv
    assert text is not None
    rows = [row.split(",") for row in text.splitlines()]
    assert rows[0] == ["name", "shape", "dtype", "ready"]
    assert [row[1] for row in rows[1:]] == ["8", "8x256", "256", "256x256", "256", "256x64"]
    ready = [int(row[3]) for row in rows[1:]]
    assert ready == sorted(ready)


def test_sizes_without_recorded_shapes_are_not_known(tmp_path: Path) -> None:
    def bare(found: dict[str, Any]) -> None:
        for each in found["traceEvents"]:
            each.pop("args", None)

    found = import_traces([changed(KINETO[0], tmp_path / "a.json", bare)])
    assert "bytes_median" in found.unknown
    assert found.workload_csv is None


def test_a_cut_trace_keeps_its_whole_steps(tmp_path: Path) -> None:
    text = gzip.decompress(KINETO[0].read_bytes())
    path = tmp_path / "a.json"
    path.write_bytes(gzip.compress(text[: text.index(b'"ProfilerStep#6"') - 30]))
    found = import_traces([path])
    assert found.facts.first_step == 3
    assert found.summary["steps"] == 3
    assert "cut off" in found.unknown["cut"]


@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.long), 13, 1000])
def test_pieces_may_end_anywhere(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = record(KINETO[0])
    monkeypatch.setattr("coordsim.formats.shared.json_text.CHUNK_BYTES", size)
    found = record(KINETO[0])
    assert (found.steps, found.gradients, found.window) == (whole.steps, whole.gradients, whole.window)


def _other_world(found: dict[str, Any]) -> None:
    found["distributedInfo"]["world_size"] = 8


def _twice(found: dict[str, Any]) -> None:
    found["distributedInfo"]["rank"] = 0


def _beyond(found: dict[str, Any]) -> None:
    found["distributedInfo"]["rank"] = 2


def _other_steps(found: dict[str, Any]) -> None:
    for each in events(found, "ProfilerStep#"):
        each["name"] = f"ProfilerStep#{int(each['name'][13:]) + 100}"


def _no_time(found: dict[str, Any]) -> None:
    events(found, "ProfilerStep#")[0]["ts"] = float("nan")


def _twice_marked(found: dict[str, Any]) -> None:
    found["traceEvents"].append(events(found, "ProfilerStep#")[0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_other_world, "distributedInfo.world_size: of another run: 8, where kineto_rank0.json.gz has 2"),
        (_twice, "rank 0 has two traces"),
        (_beyond, "rank 2 of a job of 2"),
        (_other_steps, "no step is in all files"),
        (_no_time, 'has no time as "ts"'),
        (_twice_marked, "marks step 3 a second time"),
    ],
)
def test_ranks_that_do_not_belong_together(change: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        import_traces([KINETO[0], changed(KINETO[1], tmp_path / "other.json", change)])
    assert said in str(caught.value)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("[]", "holds no event"),
        ("7", "starts with '7'"),
        ("{}", "holds no event"),
        ('{"traceEvents": []}', "holds no event"),
        ('{"traceEvents": [1]}', "traceEvents[0]: is no object"),
        ('{"traceEvents": [{"ph": "X"}], "traceEvents": []}', "an object with two keys 'traceEvents'"),
        ('{"traceEvents": [{"a": 1, "a": 2}]}', "an object with two keys 'a'"),
        ('{"traceEvents": [{"a": ' + "[" * 200_000, "nested too deep"),
        ('{"traceEvents": [{"a": ' + "9" * 5000 + "}]}", "a number of absurd length"),
        ('{"baseTimeNanoseconds": -1}', "is no whole number of ns"),
        ('{"distributedInfo": 3}', "distributedInfo: is no object"),
        ('{"distributedInfo": {"rank": "../0"}}', "is no number of a rank"),
        ('{"a": 1} 2', "text after the closing brace"),
        ('{"traceEvents": [{}] "a": 1}', "expected a comma or the closing brace"),
        ('{"traceEvents": [{} {}]}', "expected a comma or the closing bracket"),
        ('{"traceEvents": [{},, {}]}', "Expecting value"),
        ('{"traceEvents": {}}', "holds no event"),
        ('{"traceEvents": null}', "is no object"),
    ],
)
def test_what_is_no_trace_is_one_error(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        import_traces([path])
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 600


_TEXT = gzip.decompress(KINETO[0].read_bytes())[:4000]


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(_TEXT) - 1), length=st.integers(0, 20), put=st.binary(max_size=8))
def test_damage_is_refused_or_read_and_nothing_else(tmp_path: Path, at: int, length: int, put: bytes) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(_TEXT[:at] + put + _TEXT[at + length :])
    with suppress(InputError):
        import_traces([path])


@pytest.mark.parametrize("filling", [b" ", b"x", b"[", b"1"])
def test_a_bomb_does_not_fill_the_memory(filling: bytes, tmp_path: Path) -> None:
    path = tmp_path / "t.json.gz"
    start = b'{"traceEvents": [{"name": "' if filling == b"x" else b'{"traceEvents": ['
    path.write_bytes(gzip.compress(start + filling * 100_000_000, 1))
    assert path.stat().st_size < 1_000_000
    tracemalloc.start()
    with pytest.raises(InputError):
        import_traces([path])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_json_that_is_no_trace_but_parses(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"traceEvents": [{"ph": "X", "cat": "user_annotation", "name": "ProfilerStep#1", "ts": 1,
                                                 "dur": 2}]}))  # fmt: skip
    found = import_traces([path])
    assert found.summary["ranks"] is None
    assert "distributedInfo" in found.unknown["ranks"]


def test_what_is_kept_of_a_file_has_a_limit() -> None:
    with pytest.raises(InputError, match=r"kineto_rank0.*traceEvents\[.*is beyond .* marks; record fewer steps"):
        read_trace(KINETO[0], room=100)


def test_what_is_kept_of_all_ranks_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordsim.formats.kineto.files.MOST_KEPT", 15)
    import_traces([KINETO[0]])
    with pytest.raises(InputError, match=r"kineto_rank1.*is beyond .* of all ranks; record fewer steps"):
        import_traces(list(KINETO))
