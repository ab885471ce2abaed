"""What a timeline does not say stays unknown, with the true reason; what differs is told apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coordsim.errors import InputError
from coordsim.formats.horovod import tables as g
from coordsim.formats.horovod.grouped import class_of, read_views
from coordsim.formats.horovod.run import import_timeline, import_timelines
from coordsim.record.breakdown import breakdown
from tests.formats.horovod.test_run import US, begin, counted, end, fused, mark, sums, tick, timeline
from tests.formats.horovod.test_unfinished import step_of_four
from tests.told import told_of

CASES = Path(__file__).parents[2] / "data" / "horovod"


def named(name: str, pid: int) -> dict[str, Any]:
    return {"name": "process_name", "ph": "M", "pid": pid, "args": {"name": name}}


def test_a_size_that_the_file_does_not_give_is_unknown_and_no_smallest_message() -> None:
    found = import_timeline(CASES / "no_shape.json")
    assert found.summary["message_bytes"] == {"min": 400, "median": 400, "max": 400}
    assert found.summary["messages_without_size"] == 3
    assert "the size of 3 of 6 messages is not known" in found.unknown["bytes_per_step"]
    assert found.trace is not None
    messages = told_of(found.trace, found.facts)["messages"]
    assert (messages["bytes_min"], messages["bytes_per_step"]) == (400, None)
    assert sorted(set(found.trace.responses["bytes"].tolist())) == [-1, 400]


def test_a_join_is_the_reason_not_the_cache() -> None:
    found = import_timeline(CASES / "join.json")
    for key in ("last", "straggler_wait"):
        assert "a rank had joined" in found.unknown[key]
        assert "cache" not in found.unknown[key]
    assert found.unknown["last"].startswith("not told in 4 of 8 steps: ")


def test_tensors_that_fewer_ranks_always_ask_for_are_of_a_process_set_or_a_join(tmp_path: Path) -> None:
    pair = [begin("NEGOTIATE_ALLREDUCE", 2001, 2), tick(0, 2002, 2), tick(1, 2002, 2), end(2003, 2), *fused(2010, 2)]
    found = import_timeline(timeline(tmp_path / "t.json", *step_of_four(1, 1000), *pair))
    assert "process set, or a rank had joined; the file does not say which" in found.unknown["last"]


def test_a_hierarchical_allreduce_is_the_sum_of_its_collectives_and_copies() -> None:
    found = import_timeline(CASES / "hierarchical.json")
    (kind,) = found.summary["step_sets"]
    assert (kind["collective_s"], kind["copies_s"], kind["bytes"]) == (0.006, 0.0042, 800)
    assert found.trace is not None
    parts = breakdown(found.trace)
    assert (int(parts["exposed_collective"][1]), int(parts["fusion_copy"][1])) == (6_000_000, 4_200_000)
    sums(found)
    totals = {each["name"]: each["total_s"] for each in found.summary["activities"]}
    assert totals["MPI_ALLREDUCE"] == 0.032
    assert totals["NCCL_REDUCESCATTER"] == totals["NCCL_ALLGATHER"] == 0.008


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ("MEMCPY_IN_FUSION_BUFFER MEMCPY_IN_HOST_BUFFER MEMCPY_IN_SHARED_BUFFER", g.COPY_IN),
        ("MEMCPY_OUT_FUSION_BUFFER MEMCPY_OUT_HOST_BUFFER COPY_ALLGATHER_OUTPUT", g.COPY_OUT),
        ("WAIT_FOR_DATA WAIT_FOR_OTHER_TENSOR_DATA", g.DATA_WAIT),
        ("QUEUE", g.WAIT),
        ("INIT_FUSION_BUFFER INIT_NCCL ALLOCATE_OUTPUT ALLOCATE_SHARED_BUFFER SCHEDULE", g.SETUP),
        (
            "MPI_ALLREDUCE MPI_ADASUM_ALLREDUCE MPI_REDUCESCATTER MPI_ALLGATHER MPI_CROSS_ALLGATHER MPI_BCAST "
            "MPI_ALLTOALL NCCL_ALLREDUCE NCCL_REDUCESCATTER NCCL_ALLGATHER NCCL_REDUCE NCCL_BCAST NCCL_ALLTOALL "
            "CCL_ALLREDUCE CCL_ALLGATHER CCL_BCAST CCL_ALLTOALL MLSL_ALLREDUCE MLSL_ALLGATHER MLSL_BCAST "
            "GLOO_ALLREDUCE GLOO_ALLGATHER GLOO_BCAST GLOO_REDUCESCATTER HCCL_ALLREDUCE",
            g.COLLECTIVE,
        ),
        ("FORWARD BACKWARD", g.OTHER),
    ],
)
def test_activities_of_every_version_are_known_by_kind(names: str, kind: int) -> None:
    assert {class_of(name) for name in names.split()} == {kind}


def test_an_operation_without_a_collective_activity_is_one_as_a_whole_but_for_its_copies(tmp_path: Path) -> None:
    """IBM's DDL reduces between two activities."""
    events = [
        *counted(1, 10_000, 12_000), begin("ALLREDUCE", 12_020, 1), begin("MEMCPY_IN_FUSION_BUFFER", 12_020, 1),
        end(12_030, 1), end(12_130, 1, "[100]"),
    ]  # fmt: skip
    (kind,) = import_timeline(timeline(tmp_path / "t.json", *events)).summary["step_sets"]
    assert kind["collective_s"] == pytest.approx(100e-6)
    assert kind["copies_s"] == pytest.approx(10e-6)


def test_a_collective_of_less_than_a_microsecond_takes_none(tmp_path: Path) -> None:
    events = [
        *counted(1, 10_000, 12_000), begin("ALLREDUCE", 12_020, 1), begin("QUEUE", 12_020, 1), end(12_120, 1),
        begin("NCCL_ALLREDUCE", 12_120, 1), end(12_120, 1), end(12_120, 1, "[100]"),
    ]  # fmt: skip
    (kind,) = import_timeline(timeline(tmp_path / "t.json", *events)).summary["step_sets"]
    assert kind["collective_s"] == 0


def test_a_wait_for_data_is_backward_and_no_collective(tmp_path: Path) -> None:
    events = []
    for at in (10_000, 50_000):
        events += counted(1, at, at + 2000)
        events += [begin("ALLREDUCE", at + 2010, 1), begin("WAIT_FOR_DATA", at + 2010, 1), end(at + 12_010, 1)]
        events += [begin("NCCL_ALLREDUCE", at + 12_010, 1), end(at + 12_310, 1), end(at + 12_310, 1, "[100]")]
    found = import_timeline(timeline(tmp_path / "t.json", *events))
    assert found.trace is not None
    parts = breakdown(found.trace)
    assert int(parts["exposed_collective"][1]) == 300 * US
    assert int(parts["straggler_wait"][1]) == 2000 * US
    sums(found)


def test_a_failed_operation_is_told(tmp_path: Path) -> None:
    events = [*counted(1, 10_000, 12_000), begin("ERROR", 12_010, 1), end(12_020, 1)]
    found = import_timeline(timeline(tmp_path / "t.json", *events))
    assert "operations of 1 tensors were errors" in found.unknown["failed"]
    assert "1 operations failed (ERROR)" in found.unknown["bytes_per_step"]


def test_steps_of_other_tensors_or_operations_are_told_apart(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    for at in range(0, 40_000, 10_000):
        events += [*step_of_four(1, at + 1000)]
    for at in (50_000, 60_000):  # an average of a metric
        events += [*step_of_four(2, at + 1000)]
    broadcast = [each | {"name": each["name"].replace("ALLREDUCE", "BROADCAST")} if "name" in each else each
                 for each in step_of_four(1, 71_000)]  # fmt: skip
    found = import_timeline(timeline(tmp_path / "t.json", *events, *broadcast))
    kinds = [(each["steps"], each["tensors"], each["operations"]) for each in found.summary["step_sets"]]
    assert kinds == [(4, 1, ["ALLREDUCE"]), (2, 1, ["ALLREDUCE"]), (1, 1, ["BROADCAST"])]
    assert "steps are of 3 kinds" in found.unknown["steps"]


def test_a_tensor_that_is_negotiated_again_before_it_was_executed_is_told_not_refused(tmp_path: Path) -> None:
    again = [begin("NEGOTIATE_ALLREDUCE", 900, 1), end(901, 1)]
    found = import_timeline(timeline(tmp_path / "t.json", *again, *step_of_four(1, 1000), *step_of_four(1, 9000)))
    assert "1 times a tensor was negotiated again" in found.unknown["abandoned"]
    assert found.summary["steps"] == 3


def test_operations_whose_negotiation_was_not_recorded_are_in_no_step_and_counted(tmp_path: Path) -> None:
    found = import_timeline(timeline(tmp_path / "t.json", *fused(100, 2), *step_of_four(1, 1000)))
    assert "the negotiation of 1 operations is not in the file" in found.unknown["operations"]
    assert found.summary["messages"] == 1


def test_two_timelines_one_after_the_other_in_one_file_are_told_apart(tmp_path: Path) -> None:
    """As ``jq -s add`` makes of rank 0's and of another rank's file, which counts no requests."""
    first = json.loads(timeline(tmp_path / "0.json", *step_of_four(1, 5000), *step_of_four(1, 9000)).read_text())
    second = [each for each in first if each["ph"] not in "Xi"]
    (tmp_path / "t.json").write_text(json.dumps(first + second))
    found = import_timeline(tmp_path / "t.json")
    alone = import_timeline(tmp_path / "0.json")
    assert found.trace is not None
    assert alone.trace is not None
    assert found.trace.digest() == alone.trace.digest()
    assert found.summary["timelines"] == 2
    assert set(found.summary["collective_s_by_timeline"]) == {"timeline 0", "timeline 1"}
    assert "the run is timeline 0 alone of 2" in found.unknown["clocks"]


def test_timelines_merged_under_other_process_numbers_are_told_apart(tmp_path: Path) -> None:
    events = step_of_four(1, 5000) + step_of_four(1, 9000)
    moved = [each | {"pid": 101} for each in events if each["ph"] not in "Xi"]
    ordered = sorted(events + moved, key=lambda each: each["ts"])
    (tmp_path / "t.json").write_text(json.dumps([named("t1", 1), named("t1", 101), *ordered]))
    views = read_views(tmp_path / "t.json")
    assert [len(view.steps) for view in views] == [2, 2]
    assert [view.ranks for view in views] == [4, None]
    assert import_timeline(tmp_path / "t.json").summary["cycles_marked"] is None, "whose mark it is, is not known"


def test_a_recording_that_was_started_again_gives_the_longer_one(tmp_path: Path) -> None:
    """hvd.start_timeline writes a file each time; one process has one start of its clock."""
    header = {"name": "process_name", "ph": "M", "pid": 0, "args": {"start_time_since_epoch_in_micros": 77}}
    for name, steps in (("a.json", 1), ("b.json", 3)):
        events = [each for at in range(steps) for each in step_of_four(1, 5000 + 9000 * at)]
        (tmp_path / name).write_text(json.dumps([header, named("t1", 1), *events]))
    found = import_timelines([tmp_path / "a.json", tmp_path / "b.json"])
    assert found.summary["steps"] == 3
    assert "recorded one after the other" in found.unknown["timelines"]


def test_events_of_other_tools_are_passed_over_and_counted(tmp_path: Path) -> None:
    others = [
        {"ph": "X", "name": "conv", "ts": 1.5, "dur": 3, "pid": 1}, {"ph": "s", "id": 1, "ts": 2, "pid": 1},
        {"ph": "X", "name": "relu", "ts": 2.5, "dur": 3, "pid": 1},
    ]  # fmt: skip
    found = import_timeline(timeline(tmp_path / "t.json", *others, *step_of_four(1, 1000)))
    assert "an X event whose name is no rank (2)" in found.unknown["not_read"]
    with pytest.raises(InputError, match="an array of events without any of Horovod's: 2 times an X event"):
        import_timeline(timeline(tmp_path / "t.json", *others))


def test_process_numbers_without_a_name_keep_their_number(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps([*step_of_four(7, 1000), named("late", 8), *step_of_four(8, 9000)]))
    assert list(read_views(tmp_path / "t.json")[0].names) == ["pid 7", "late"]
    (tmp_path / "t.json").write_text(json.dumps([*step_of_four(7, 1000), named("named behind", 7)]))
    assert list(read_views(tmp_path / "t.json")[0].names) == ["named behind"]


def test_strange_names_stay_names(tmp_path: Path) -> None:
    strange = 'a "quoted"\nname ' + "x" * 10_000
    (tmp_path / "t.json").write_text(
        json.dumps([named(strange, 1), *step_of_four(1, 1000), begin("NEGOTIATE_ALLREDUCE", 5000, 1), mark(9000)])
    )
    found = import_timeline(tmp_path / "t.json")
    assert found.summary["waiting_at_end"][0]["tensor"] == strange
    assert len(found.unknown["at_end"]) < 300
    assert "\n" not in found.unknown["at_end"]


def test_marked_cycles_before_the_first_mark_are_not_idle(tmp_path: Path) -> None:
    events = [begin("NEGOTIATE_ALLREDUCE", 1, 1), tick(0, 2, 1), mark(1000), tick(1, 1001, 1), end(1001, 1)]
    found = import_timeline(timeline(tmp_path / "t.json", *events, *fused(1010, 1)))
    assert found.summary["cycles_idle"] == 0
