"""Several files of one rank, several ranks in one file, and folders of many ranks."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from coordsim.errors import InputError
from coordsim.formats.imported import Imported
from coordsim.formats.kineto import import_traces
from tests.formats.kineto.traces import STEP_US, Event, nccl_call, step, trace, write


def cycle(first: int, steps: int = 3, at: float = 0.0, **more: Any) -> list[Event]:
    """Steps of one all-reduce of 1,000 values each."""
    events: list[Event] = []
    for number in range(first, first + steps):
        begin = at + 1_000_000.0 + number * STEP_US
        events.append(step(number, begin, pid=more.get("pid", 7)))
        events += nccl_call(begin + 4000, 1000, 10 * number + 1, kernel_at=begin + 5000, group=2, **more)
    return events


def import_all(folder: Path, files: dict[str, Any]) -> Imported:
    return import_traces(sorted(write(folder / name, found) for name, found in files.items()))


def says(found: Imported) -> tuple[Any, ...]:
    keys = ("ranks_with_a_trace", "steps", "collectives_per_step", "bytes_per_step")
    return tuple(found.summary[key] for key in keys)


def test_a_file_for_each_cycle_of_the_profiler_is_one_rank(tmp_path: Path) -> None:
    found = import_all(tmp_path, {
        f"node_7.17000000000000{number:05d}.pt.trace.json": trace(cycle(number), 0, 2) for number in (3, 13, 23)
    })  # fmt: skip
    assert says(found) == (1, 9, 1, 4000)
    assert found.summary["step_s"]["max"] == pytest.approx(0.01)
    assert "laid end to end" in found.unknown["gaps"]


def test_cycles_of_two_ranks_are_matched_cycle_by_cycle(tmp_path: Path) -> None:
    files = {f"rank{rank}_{number}.json": trace(cycle(number), rank, 2) for rank in (0, 1) for number in (3, 13)}
    found = import_all(tmp_path, files)
    assert says(found) == (2, 6, 1, 4000)
    assert found.facts.ranks_absent == ()


def test_recordings_whose_step_numbers_begin_anew_are_all_kept(tmp_path: Path) -> None:
    files = {f"epoch{number}.json": trace(cycle(3, at=number * 1e6), 0, 2) for number in range(3)}
    assert says(import_all(tmp_path, files)) == (1, 9, 1, 4000)


def test_cycles_of_a_process_that_says_no_rank_are_one_rank(tmp_path: Path) -> None:
    files = {f"worker0.16231430898{number:02d}.pt.trace.json": trace(cycle(number), None) for number in (3, 13)}
    found = import_all(tmp_path, files)
    assert says(found) == (1, 6, 1, 4000)
    assert found.summary["ranks"] is None


def test_ranks_may_stand_in_the_files_names(tmp_path: Path) -> None:
    files = {f"rank-{rank}.json": trace(cycle(3), None) for rank in (0, 1)}
    found = import_all(tmp_path, files)
    assert [row["rank"] for row in found.summary["by_rank"]] == [0, 1]
    assert "from their names" in found.unknown["rank_numbers"]


def test_files_of_one_time_that_say_no_rank_are_several_ranks(tmp_path: Path) -> None:
    files = {f"{name}.169412820155{place}.pt.trace.json": trace(cycle(3), None) for place, name in enumerate("ab")}
    found = import_all(tmp_path, files)
    assert says(found) == (2, 3, 1, 4000)
    assert "numbered in the order of their names" in found.unknown["rank_numbers"]


@pytest.mark.parametrize("form", ["args.rank", "process names", "neither"])
def test_several_ranks_in_one_file_are_told_apart(form: str, tmp_path: Path) -> None:
    events: list[Any] = []
    for rank in range(3):
        of_rank = cycle(3, pid=100 + rank, device=10 + rank)
        if form == "args.rank":
            for one in of_rank:
                one["args"]["rank"] = rank
        elif form == "process names":
            named = {"name": f"RANK {rank} - CPU"}
            events.append({"ph": "M", "name": "process_name", "pid": 100 + rank, "args": named})
        events += of_rank
    found = import_all(tmp_path, {"merged.json": trace(events, None)})
    assert says(found) == (3, 3, 1, 4000)
    assert [row["rank"] for row in found.summary["by_rank"]] == [0, 1, 2]
    assert [row["collective_s"] for row in found.summary["by_rank"]] == [pytest.approx(0.0015)] * 3
    assert ("rank_numbers" in found.unknown) == (form == "neither")


def test_kernels_of_a_merged_file_go_to_the_rank_that_launched_them(tmp_path: Path) -> None:
    """Joined and sorted by time, with ids that are unique in the file, as tools write that join ranks."""
    events = [one for rank in range(2) for one in cycle(3, pid=100 + rank, device=10 + rank, lasts=1000.0 + rank)]
    for one in events:
        if one["pid"] in (101, 11) and "correlation" in one["args"]:
            one["args"]["correlation"] += 1_000_000
    events.sort(key=lambda one: one["ts"])
    found = import_all(tmp_path, {"merged.json": trace(events, None)})
    lengths = [row["collective_s"] for row in found.summary["by_rank"]]
    assert lengths == [pytest.approx(0.001), pytest.approx(0.001001)]


def test_two_traces_of_one_rank_and_time_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rank 0 has two traces of the same time, here and in a\.json; of two runs"):
        import_all(tmp_path, {"a.json": trace(cycle(3), 0, 2), "b.json": trace(cycle(3), 0, 2)})


def test_one_rank_without_marks_makes_all_count_by_the_optimizer(tmp_path: Path) -> None:
    def with_optimizer(events: list[Event]) -> list[Event]:
        marks = [one for one in events if one["name"].startswith("ProfilerStep")]
        return events + [
            {**one, "name": "Optimizer.step#SGD.step", "ts": one["ts"] + 9000, "dur": 100.0} for one in marks
        ]

    bare = [one for one in with_optimizer(cycle(3)) if not one["name"].startswith("ProfilerStep")]
    files = {"a.json": trace(with_optimizer(cycle(3)), 0, 2), "b.json": trace(bare, 1, 2)}
    found = import_all(tmp_path, files)
    assert (found.summary["steps_by"], found.summary["steps"]) == ("Optimizer.step", 3)


def test_groups_may_differ_between_ranks(tmp_path: Path) -> None:
    """A rank lists the groups that it is in."""
    more = trace(cycle(3), 1, 2)
    more["distributedInfo"]["pg_config"].append({"pg_name": "7", "ranks": [1]})
    found = import_all(tmp_path, {"a.json": trace(cycle(3), 0, 2), "b.json": more})
    assert says(found) == (2, 3, 1, 4000)


def test_many_files_are_read_by_several_processes_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = []
    for rank in range(12):
        path = tmp_path / f"rank{rank}.json.gz"
        path.write_bytes(gzip.compress(json.dumps(trace(cycle(3), rank, 12)).encode()))
        paths.append(path)
    alone = import_traces(paths)
    monkeypatch.setattr("coordsim.formats.kineto.files.PARALLEL_CHARACTERS", 0)
    monkeypatch.setattr("coordsim.formats.kineto.files._cores", lambda: 3)
    together = import_traces(paths)
    assert together.summary == alone.summary
    assert together.trace is not None
    assert alone.trace is not None
    assert together.trace.digest() == alone.trace.digest()


def test_an_error_in_another_process_is_the_same_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write(tmp_path / f"rank{rank}.json", trace(cycle(3), rank, 6)) for rank in range(6)]
    paths[4].write_text('{"traceEvents": [{"a": 1, "a": 2}]}')
    monkeypatch.setattr("coordsim.formats.kineto.files.PARALLEL_CHARACTERS", 0)
    monkeypatch.setattr("coordsim.formats.kineto.files._cores", lambda: 2)
    with pytest.raises(InputError, match=r"rank4\.json: not JSON .* two keys 'a'"):
        import_traces(paths)


def test_without_further_processes_files_are_read_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write(tmp_path / f"rank{rank}.json", trace(cycle(3), rank, 4)) for rank in range(4)]
    monkeypatch.setattr("coordsim.formats.kineto.files.PARALLEL_CHARACTERS", 0)
    monkeypatch.setattr("coordsim.formats.kineto.files._cores", lambda: 2)
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    assert import_traces(paths).summary["ranks_with_a_trace"] == 4


def test_equal_names_in_a_folder_for_each_rank_are_of_several_ranks(tmp_path: Path) -> None:
    for folder in ("rank0", "rank1"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "trace.json", trace(cycle(3), None))
    found = import_traces([tmp_path / folder / "trace.json" for folder in ("rank0", "rank1")])
    assert [row["rank"] for row in found.summary["by_rank"]] == [0, 1]
    assert found.files == ["rank0/trace.json", "rank1/trace.json"]
