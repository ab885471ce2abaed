"""What a timeline says of a job that stalled or was killed: who waited for whom, and what was executing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coordsim.formats.horovod.run import import_timeline
from tests.formats.horovod.test_run import begin, counted, end, fused, mark, tick, timeline


def stalled(path: Path, *ranks: int, ended_us: int = 90_000_000) -> Path:
    """A step of 4 ranks, then t1 is asked for by ``ranks``, and cycles go on until ``ended_us``."""
    asked = [begin("NEGOTIATE_ALLREDUCE", 30_000_000, 1), *(tick(rank, 30_000_001, 1) for rank in ranks)]
    return timeline(path, *step_of_four(1, 1000), mark(30_000_000), *asked, mark(ended_us))


def step_of_four(pid: int, at: int) -> list[dict[str, Any]]:
    return [
        mark(at), begin("NEGOTIATE_ALLREDUCE", at + 1, pid), *(tick(rank, at + 2, pid) for rank in range(4)),
        end(at + 3, pid), *fused(at + 10, pid),
    ]  # fmt: skip


def test_a_stalled_job_names_the_tensor_and_who_had_asked_for_it(tmp_path: Path) -> None:
    found = import_timeline(stalled(tmp_path / "t.json", 0, 2))
    (waiting,) = found.summary["waiting_at_end"]
    assert waiting == {
        "tensor": "t1", "operation": "ALLREDUCE", "waited_s": 60.0, "asked": [0, 2], "not_asked": [1, 3],
    }  # fmt: skip
    assert found.summary["steps"] == 1
    assert found.unknown["at_end"] == (
        "with the last event, 't1' had waited 60.0 s for all ranks to ask for ALLREDUCE: asked for by ranks 0, 2, "
        "not by ranks 1, 3"
    )


def test_an_operation_that_began_and_never_ended_is_named_with_its_tensors(tmp_path: Path) -> None:
    agreed = [
        *counted(1, 10_000, 12_000), begin("NEGOTIATE_ALLREDUCE", 12_001, 2), tick(0, 12_001, 2),
        tick(1, 12_002, 2), end(12_002, 2),
    ]  # fmt: skip
    copied = fused(13_000, 1, 2)[:8]  # up to the beginning of MPI_ALLREDUCE
    found = import_timeline(timeline(tmp_path / "t.json", *agreed, *copied, mark(5_013_000)))
    assert found.summary["executing_at_end"] == [
        {
            "operation": "ALLREDUCE", "activity": "MPI_ALLREDUCE", "began": True, "lasted_s": 5.0,
            "tensors": ["t1", "t2"], "count": 2,
        }
    ]  # fmt: skip
    assert "ALLREDUCE of 't1', 't2' had run 5.0 s, in MPI_ALLREDUCE" in found.unknown["at_end"]
    assert found.summary["waiting_at_end"] == []


def test_what_was_agreed_and_never_begun_is_named(tmp_path: Path) -> None:
    found = import_timeline(timeline(tmp_path / "t.json", *counted(1, 10_000, 12_000), mark(22_000)))
    assert [each["began"] for each in found.summary["executing_at_end"]] == [False]
    assert "was agreed 10.0 ms ago and had not begun" in found.unknown["at_end"]


def test_hits_of_the_cache_name_no_rank(tmp_path: Path) -> None:
    events = [*counted(1, 10_000, 12_000), *fused(12_020, 1), begin("NEGOTIATE_ALLREDUCE", 13_000, 1), mark(1_013_000)]
    found = import_timeline(timeline(tmp_path / "t.json", *events))
    (waiting,) = found.summary["waiting_at_end"]
    assert (waiting["asked"], waiting["not_asked"]) == (None, None)
    assert "which had asked is not counted (cached)" in found.unknown["at_end"]


def test_nobody_is_accused_where_a_process_set_may_be_waited_for(tmp_path: Path) -> None:
    """t2 is agreed by two of four ranks; so t3, asked for by rank 0 alone, may be of two ranks as well."""
    pair = [begin("NEGOTIATE_ALLREDUCE", 2001, 2), tick(0, 2002, 2), tick(1, 2002, 2), end(2003, 2), *fused(2010, 2)]
    asked = [begin("NEGOTIATE_ALLREDUCE", 3000, 3), tick(0, 3001, 3), mark(9000)]
    found = import_timeline(timeline(tmp_path / "t.json", *step_of_four(1, 1000), *pair, *asked, tensors=3))
    (waiting,) = found.summary["waiting_at_end"]
    assert (waiting["asked"], waiting["not_asked"]) == ([0], None)
    assert "not by" not in found.unknown["at_end"]


def test_a_job_that_ended_well_waits_for_nothing(tmp_path: Path) -> None:
    found = import_timeline(timeline(tmp_path / "t.json", *step_of_four(1, 1000), mark(9000)))
    assert (found.summary["waiting_at_end"], found.summary["executing_at_end"]) == ([], [])
    assert "at_end" not in found.unknown
