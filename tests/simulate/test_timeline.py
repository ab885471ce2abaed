"""A simulated job's timeline: read back, it says what the trace says, and the protocol agrees with all of it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coordsim.analyse.validate.decisions import compare_decisions
from coordsim.errors import InputError, Refused
from coordsim.record.trace import Kind, Trace
from coordsim.scenario.model import ControlPlane, Groups, Scenario
from coordsim.simulate.engine import simulate
from coordsim.simulate.problem import Problem
from coordsim.simulate.timeline import export_timeline
from tests.scenarios import PLANE, scenario, tensors, workload
from tests.timelines import Event, events


def job(plane: str, **changes: Any) -> Scenario:
    """Five ranks with noise, tensors of two sizes, fusion of two or three."""
    made = replace(workload(8), tensors=tensors([400_000] * 8, [1000, 500] * 4))
    control: ControlPlane = replace(PLANE, name=plane, fusion_threshold_bytes=6 << 10, **changes)
    return scenario(5, 3, workload=made, control_plane=control)


def exported(given: Scenario, path: Path) -> tuple[list[Event], Trace]:
    export_timeline(given, path)
    return events(path), simulate(given, "event").trace


@pytest.mark.parametrize(
    ("plane", "changes"),
    [
        ("cached", {}),
        ("cached", {"cache_capacity": 3}),
        ("cached", {"data_plane": "blocking"}),
        ("cached", {"groups": Groups("count", count=3)}),
        ("coordinator", {}),
        ("coordinator", {"data_plane": "blocking"}),
        ("point-to-point", {}),
    ],
)
def test_the_protocol_agrees_with_a_simulated_timeline(plane: str, changes: dict[str, Any], tmp_path: Path) -> None:
    given = job(plane, **changes)
    path = tmp_path / "t.json"
    _, trace = exported(given, path)
    found = compare_decisions(
        path,
        cache_capacity=given.control_plane.cache_capacity if plane == "cached" else 0,
        fusion_threshold_bytes=Problem(given).settings.fusion_threshold_bytes,
    )
    assert found.missed == []
    assert (found.mismatched_cycles, found.same_kind) == (0, found.active_cycles)
    assert len(found.compared) == given.steps + 1
    assert sum(step.recorded for step in found.steps) == trace.responses["cycle"].size
    kinds = trace.cycles["kind"].repeat(trace.cycles["repeat"])
    assert found.kinds["recorded"]["slow"] == int((kinds >= Kind.SLOW).sum())
    assert found.kinds["recorded"]["fast"] == int((kinds == Kind.FAST).sum())
    assert len(found.periods_us) + 1 == kinds.size
    assert found.settings.ranks.value == 5


@pytest.mark.parametrize("data_plane", ["async", "blocking"])
def test_times_are_the_traces(data_plane: str, tmp_path: Path) -> None:
    found, trace = exported(job("cached", data_plane=data_plane), tmp_path / "t.json")
    library = {"async": "NCCL_ALLREDUCE", "blocking": "MPI_ALLREDUCE"}[data_plane]
    begun = sorted({(each["ts"], each["ph"]) for each in found if each.get("name") == library})
    columns = trace.responses
    begin_ns = columns["begin_ns"] + columns["copy_in_ns"]
    assert [ts for ts, _ in begun] == sorted({int(ns) // 1000 for ns in begin_ns})
    ended = [each["ts"] for each in found if each["ph"] == "E" and "args" in each]
    units = columns["units"].tolist()
    assert sorted(ended) == sorted(
        int(ns) // 1000 for ns, count in zip(columns["end_ns"].tolist(), units, strict=True) for _ in range(count)
    )
    assert [each["ts"] for each in found if "ts" in each] == sorted(each["ts"] for each in found if "ts" in each)


def test_balanced_numbered_and_with_a_tick_a_rank(tmp_path: Path) -> None:
    found, _ = exported(job("cached"), tmp_path / "t.json")
    told = [each for each in found if each["ph"] in "BEX"]
    for pid in range(1, 9):
        mine = [each["ph"] for each in told if each["pid"] == pid]
        assert mine.count("B") == mine.count("E")
        assert mine.count("X") == 5, "of the cold step alone"
    assert {each["args"]["shape"] for each in told if "args" in each} == {"[1000]", "[500]"}


def test_marks_may_be_left_out(tmp_path: Path) -> None:
    export_timeline(job("cached"), tmp_path / "t.json", mark_cycles=False)
    assert not [each for each in events(tmp_path / "t.json") if each["ph"] == "i"]


def test_the_same_job_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        export_timeline(job("coordinator"), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (job("hierarchical"), "has no timeline: rank 0 does not hear every rank; allowed: point-to-point"),
        (job("ddp"), "has no timeline"),
        (replace(job("cached"), ranks=1), "a timeline is for 2 to 4,096 ranks"),
        (replace(job("cached"), ranks=5000), "a timeline is for 2 to 4,096 ranks"),
    ],
)
def test_what_has_no_timeline_is_refused_and_leaves_nothing(given: Scenario, said: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=said):
        export_timeline(given, tmp_path / "t.json")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.json"
    path.write_text("[]")
    with pytest.raises(InputError, match="does not exist"):
        export_timeline(job("cached"), tmp_path / "absent" / "t.json")
    monkeypatch.setattr(sys.modules[export_timeline.__module__], "_replay", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_timeline(job("cached"), path)
    assert json.loads(path.read_text()) == []
    assert list(tmp_path.iterdir()) == [path]
