"""A Horovod timeline as a run: steps, messages, who was last, and nothing that the file does not say."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordsim.analyse.validate.timeline import CycleReader
from coordsim.errors import InputError
from coordsim.formats.horovod import TimelineReader
from coordsim.formats.horovod.grouped import read_grouped
from coordsim.formats.horovod.run import import_timeline
from coordsim.formats.imported import Imported
from coordsim.record.breakdown import breakdown, step_times
from tests.budget import examples
from tests.timelines import REAL, real_events
from tests.told import told_of

US = 1000


def timeline(path: Path, *events: dict[str, Any], tensors: int = 2) -> Path:
    pids = range(1, tensors + 1)
    head = [{"name": "process_name", "ph": "M", "pid": pid, "args": {"name": f"t{pid}"}} for pid in pids]
    path.write_text(json.dumps([*head, *events]))
    return path


def mark(ts: int) -> dict[str, Any]:
    return {"ph": "i", "name": "CYCLE_START", "ts": ts, "s": "g"}


def begin(name: str, ts: int, pid: int) -> dict[str, Any]:
    return {"ph": "B", "name": name, "ts": ts, "pid": pid}


def end(ts: int, pid: int, shape: str | None = None) -> dict[str, Any]:
    args = {} if shape is None else {"args": {"dtype": "float32", "shape": shape}}
    return {"ph": "E", "ts": ts, "pid": pid, **args}


def tick(rank: int, ts: int, pid: int) -> dict[str, Any]:
    return {"ph": "X", "name": str(rank), "ts": ts, "pid": pid, "dur": 0}


def counted(pid: int, first_us: int, second_us: int, marks: bool = True) -> list[dict[str, Any]]:
    """Tensor ``pid``, asked for by rank 0 in one cycle and by rank 1 in a later one."""
    marked = [mark(first_us - 4)] if marks else []
    again = [mark(second_us - 4)] if marks else []
    return [
        *marked, begin("NEGOTIATE_ALLREDUCE", first_us, pid), tick(0, first_us + 1, pid),
        *again, tick(1, second_us, pid), end(second_us, pid),
    ]  # fmt: skip


def fused(at: int, *pids: int) -> list[dict[str, Any]]:
    """One message: launched, 10 us copy in, 30 us collective, 5 us copy out."""
    shape = "[100]"
    return [
        *(begin("ALLREDUCE", at, pid) for pid in pids),
        *(begin("MEMCPY_IN_FUSION_BUFFER", at, pid) for pid in pids), *(end(at + 10, pid) for pid in pids),
        *(begin("MPI_ALLREDUCE", at + 10, pid) for pid in pids), *(end(at + 40, pid) for pid in pids),
        *(begin("MEMCPY_OUT_FUSION_BUFFER", at + 40, pid) for pid in pids), *(end(at + 45, pid) for pid in pids),
        *(end(at + 45, pid, shape) for pid in pids),
    ]  # fmt: skip


def two_steps(marks: bool) -> list[dict[str, Any]]:
    """In each, rank 1 asks for t1 a cycle, 2 ms, later than rank 0; then both tensors are reduced together."""
    found = []
    for start in (10_000, 30_000):
        found += counted(1, start, start + 2000, marks)
        found += [begin("NEGOTIATE_ALLREDUCE", start + 2001, 2), tick(0, start + 2001, 2), tick(1, start + 2002, 2)]
        found += [end(start + 2002, 2), *fused(start + 2020, 1, 2)]
    return found


def sums(found: Imported) -> None:
    assert found.trace is not None
    np.testing.assert_array_equal(sum(breakdown(found.trace).values()), step_times(found.trace))


def test_a_slow_step_to_the_microsecond(tmp_path: Path) -> None:
    events = counted(1, 10_000, 12_000) + fused(12_020, 1) + counted(1, 30_000, 32_000) + fused(32_020, 1)
    found = import_timeline(timeline(tmp_path / "t.json", *events))
    trace = found.trace
    assert trace is not None
    assert trace.blocking
    parts = {name: int(column[1]) for name, column in breakdown(trace).items()}
    assert parts == {
        "backward": (29_996 - 12_065) * US, "straggler_wait": 2000 * US, "control_exchange": 24 * US,
        "fusion_copy": 15 * US, "exposed_collective": 30 * US,
    }  # fmt: skip
    assert trace.missing == {"input_stall", "forward", "optimizer", "cycle_wait", "control_work"}
    assert trace.steps["ready_last_rank"].tolist() == [1, 1]
    assert found.summary["ranks"] == 2
    assert found.summary["steps_with_last_rank"] == 2
    sums(found)


def test_tensors_reduced_together_are_one_message(tmp_path: Path) -> None:
    found = import_timeline(timeline(tmp_path / "t.json", *two_steps(marks=True)))
    trace = found.trace
    assert trace is not None
    assert trace.responses["units"].tolist() == [2, 2]
    assert trace.responses["bytes"].tolist() == [800, 800]
    assert trace.cycles["requests"].tolist() == [1, 3, 1, 3]
    assert found.summary["step_sets"] == [
        {
            "steps": 2, "tensors": 2, "operations": ["ALLREDUCE"], "step_s": 0.02, "collective_s": 30e-6,
            "copies_s": 15e-6, "bytes": 800,
        }
    ]  # fmt: skip
    assert found.workload_csv == "name,numel,dtype\nt2,100,float32\nt1,100,float32\n"
    sums(found)


def test_without_cycle_marks_the_exchange_is_not_known(tmp_path: Path) -> None:
    events = counted(1, 10_000, 12_000, False) + fused(12_020, 1) + counted(1, 30_000, 32_000, False) + fused(32_020, 1)
    found = import_timeline(timeline(tmp_path / "t.json", *events))
    trace = found.trace
    assert trace is not None
    assert "control_exchange" in trace.missing
    assert "HOROVOD_TIMELINE_MARK_CYCLES" in found.unknown["control_exchange"]
    assert found.summary["cycles_marked"] is None
    assert trace.steps["ready_last_rank"].tolist() == [1, 1], "2 ms later is another cycle"
    sums(found)
    in_one_go = import_timeline(timeline(tmp_path / "t.json", *two_steps(marks=False)))
    assert in_one_go.trace is not None
    assert in_one_go.trace.steps["ready_last_rank"].tolist() == [-1, -1], "both ranks were counted in the last cycle"
    assert in_one_go.trace.cycles["requests"].tolist() == [1, 1, 2] * 2, "a lower rank after a higher: another cycle"


def test_on_the_fast_path_nobody_is_last(tmp_path: Path) -> None:
    hit = [mark(40_000), begin("NEGOTIATE_ALLREDUCE", 40_010, 1), mark(41_000), end(41_010, 1), *fused(41_020, 1)]
    events = counted(1, 10_000, 12_000) + fused(12_020, 1) + hit
    found = import_timeline(timeline(tmp_path / "t.json", *events))
    assert found.trace is not None
    assert found.trace.steps["ready_last_rank"].tolist() == [1, -1]
    assert "straggler_wait" in found.trace.missing
    assert found.unknown["last"].startswith("not told in 1 of 2 steps")
    assert found.summary["last_tensor_negotiated_s"]["max"] == 0.002
    sums(found)


def test_ranks_are_unknown_when_nobody_was_counted(tmp_path: Path) -> None:
    hit = [mark(4), begin("NEGOTIATE_ALLREDUCE", 10, 1), end(10, 1), *fused(20, 1)]
    found = import_timeline(timeline(tmp_path / "t.json", *hit))
    assert found.summary["ranks"] is None
    assert "ranks" in found.unknown


def test_operations_that_outlast_their_cycle(tmp_path: Path) -> None:
    """NCCL: the loop goes on; the second message waits for the first, and its wait is no copy."""
    first, second = fused(12_020, 1), fused(12_065, 2)
    second[1:1] = [begin("QUEUE", 12_030, 2), end(12_065, 2)]
    second[0]["ts"] = 12_025
    events = counted(1, 10_000, 12_000) + first[:4] + counted(2, 12_022, 12_023) + first[4:] + second
    found = import_timeline(timeline(tmp_path / "t.json", *events))
    trace = found.trace
    assert trace is not None
    assert not trace.blocking
    assert trace.responses["begin_ns"][1] == trace.responses["end_ns"][0]
    assert trace.responses["copy_in_ns"].tolist() == [10 * US, 10 * US]
    sums(found)


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_messages_are_those_that_validate_finds(path: Path) -> None:
    found = import_timeline(path).trace
    assert found is not None
    cycles = list(CycleReader(TimelineReader(path), str(path)))
    theirs = [
        (cycle.index, len(message.members))
        for cycle in cycles
        for message in cycle.messages
        if all(member.step < found.steps["step"].size for member in message.members)
    ]
    ours = list(zip(found.responses["cycle"].tolist(), found.responses["units"].tolist(), strict=True))
    offset = theirs[0][0] - ours[0][0]
    assert ours == [(index - offset, units) for index, units in theirs]


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_step_times_sum_and_are_close_to_what_the_job_measured(path: Path) -> None:
    found = import_timeline(path)
    assert found.trace is not None
    sums(found)
    launch = json.loads((path.parent / path.name.replace(".timeline.json.gz", ".json")).read_text())
    ranks = launch["workloads"]["seq"]["ranks"]
    measured = np.diff(np.max([rank["t_end"] for rank in ranks], axis=0))
    steps = next(each["steps"] for each in found.summary["step_sets"] if each["tensors"] == 161)
    assert steps >= 4
    nearest = np.abs(step_times(found.trace)[:, None] / 1e9 - measured).min(axis=0)
    assert np.median(nearest / measured) < 0.05


def test_a_cut_leaves_the_last_step_out(tmp_path: Path) -> None:
    text = json.dumps(real_events(REAL[1]))
    path = tmp_path / "t.json"
    path.write_bytes(gzip.compress(text[: len(text) // 2].encode()))
    found = import_timeline(path)
    whole = import_timeline(REAL[1])
    assert found.trace is not None
    assert whole.trace is not None
    steps = found.trace.steps["step"].size
    assert 3 < steps < whole.trace.steps["step"].size
    np.testing.assert_array_equal(found.trace.steps["end_ns"], whole.trace.steps["end_ns"][:steps])
    assert "were not executed" in found.unknown["end"] or "tensors where" in found.unknown["end"]
    assert "cut off" in found.unknown["cut"]
    assert found.facts.ended_early == (0,)


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([], "an array of events without any of Horovod's"),
        ([mark(5), mark(4)], "cycle marks run backwards, from 5 to 4 us"),
        ([begin("NEGOTIATE_ALLREDUCE", 9, 1), end(2, 1)], "times of 't1' run backwards"),
        ([begin("ALLREDUCE", 5, 1), begin("MPI_ALLREDUCE", 9, 1), end(8, 1)], "times of 't1' run backwards"),
        ([begin("ALLREDUCE", 5, 1), end(4, 1)], "times of 't1' run backwards"),
        ([begin("NEGOTIATE_ALLREDUCE", 1, 1), tick(99_999_999, 1, 1)], "counts a request of rank 99,999,999"),
    ],
)
def test_what_cannot_be_is_one_error(events: list[dict[str, Any]], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"t\.json: ") as caught:
        import_timeline(timeline(tmp_path / "t.json", *events))
    assert said in str(caught.value)


_MOVES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 900), st.integers(0, 4), st.booleans()), max_size=120)


def any_order(moves: list[tuple[int, int, int, bool]]) -> list[dict[str, Any]]:
    """Each tensor goes its own way through negotiation and operation; pid 0 stands for a cycle mark."""
    now, depth, events = 1000, [0] * 4, []
    for pid, later, rank, go_on in moves:
        now += later
        match depth[pid]:
            case _ if pid == 0:
                events += [mark(now)] if go_on else []
            case 0:
                events.append(begin("NEGOTIATE_ALLREDUCE", now, pid))
                depth[pid] = 1
            case 1:
                events.append(end(now, pid) if go_on else tick(rank, now, pid))
                depth[pid] += go_on
            case 2:
                events.append(begin("ALLREDUCE", now, pid))
                depth[pid] = 3
            case 3:
                names = ("QUEUE", "MEMCPY_IN_FUSION_BUFFER", "NCCL_ALLREDUCE", "MEMCPY_OUT_FUSION_BUFFER", "OTHER")
                events.append(end(now, pid, "[7]") if go_on else begin(names[rank], now, pid))
                depth[pid] = 0 if go_on else 4
            case _:
                events.append(end(now, pid))
                depth[pid] = 3
    return events


@settings(max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=_MOVES, whole=st.booleans())
def test_any_order_of_events_is_a_run_that_sums_or_one_error(
    tmp_path: Path, moves: list[tuple[int, int, int, bool]], whole: bool
) -> None:
    path = timeline(tmp_path / "t.json", *counted(1, 10, 500), *fused(520, 1), *any_order(moves), tensors=3)
    if not whole:
        path.write_text(path.read_text()[:-1])
    try:
        found = import_timeline(path)
    except InputError as error:
        assert "run backwards" in str(error)  # noqa: PT017
        return
    if found.trace is None:
        assert found.unknown["run"].startswith("no step is whole: ")
        return
    sums(found)
    for part in breakdown(found.trace).values():
        assert (part >= 0).all()
    told_of(found.trace, found.facts)


def steps_of_one_tensor(path: Path, count: int, rank: int) -> Path:
    """Steps in which ``rank`` is counted in a later cycle than rank 0."""
    made = []
    for at in range(1000, 1000 + 1000 * count, 1000):
        made += [
            mark(at), begin("NEGOTIATE_ALLREDUCE", at + 1, 1), tick(0, at + 2, 1), mark(at + 100),
            tick(rank, at + 101, 1), end(at + 102, 1), begin("ALLREDUCE", at + 110, 1), end(at + 120, 1, "[4]"),
        ]  # fmt: skip
    return timeline(path, *made, tensors=1)


def test_a_rank_of_a_huge_job_is_last_in_every_step(tmp_path: Path) -> None:
    """A row of a million ranks was cleared and sorted for every step."""
    found = import_timeline(steps_of_one_tensor(tmp_path / "t.json", 3000, 1_000_000))
    assert (found.summary["steps"], found.summary["ranks"]) == (3000, 1_000_001)
    grouped = read_grouped(tmp_path / "t.json")
    assert set(grouped.steps["last_rank"].tolist()) == {1_000_000}
    assert set(grouped.steps["ranks"].tolist()) == {2}


def test_reading_stops_where_memory_would_not_suffice_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = steps_of_one_tensor(tmp_path / "t.json", 6000, 1)
    whole = import_timeline(path)
    monkeypatch.setattr("coordsim.formats.horovod.grouped.MOST_BYTES", 1000)
    found = import_timeline(path)
    assert 0 < found.summary["steps"] < whole.summary["steps"] == 6000
    assert "nothing behind it is in the run" in found.unknown["rest"]
    assert found.facts.ended_early == (0,)
    assert found.trace is not None
    assert whole.trace is not None
    kept = found.summary["steps"]
    assert np.array_equal(found.trace.steps["end_ns"], whole.trace.steps["end_ns"][:kept])


LONG = "9" * 70_000


@pytest.mark.parametrize(
    "events",
    [
        [begin("NEGOTIATE_ALLREDUCE", 1, 1), begin(LONG, 2, 1)],
        [
            {"name": "process_name", "ph": "M", "pid": 9, "args": {"name": LONG}},
            begin("NEGOTIATE_ALLREDUCE", 9, 9), end(2, 9),
        ],
        [{"name": "process_name", "ph": "M", "pid": 9, "args": {"name": LONG}}]
        + [begin("ALLREDUCE", 1, 9) for _ in range(20)],
    ],
)
def test_an_error_about_a_long_name_stays_short(events: list[dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        import_timeline(timeline(tmp_path / "t.json", *events))
    assert "99999999" in str(caught.value) or "pid 1" in str(caught.value)
    assert len(str(caught.value)) < 600
