"""A timeline's decisions on one screen and as JSON."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from coordsim.analyse.validate import decisions as analysis
from coordsim.formats.horovod import TimelineWriter
from coordsim.report.decisions import SCHEMA, shorten, timeline_facts, timeline_table
from coordsim.report.tables import Page
from coordsim.report.text import printable
from tests.protocol.drive import settings, tensor
from tests.timelines import RECORDED, run, write

MIXED = [tensor("a", 400), tensor("b", 400), tensor("c", 400)]


@cache
def facts(case: str, **given: Any) -> dict[str, Any]:
    return timeline_facts(RECORDED / f"tl_{case}.timeline.json.gz", **given)


def test_the_facts_of_a_real_recording() -> None:
    found = facts("gloo_n4_cache")
    assert json.loads(json.dumps(found)) == found
    assert (found["schema"], found["missed"]) == (SCHEMA, []) == ("coordsim.decisions/1", [])
    assert found["agreement"] == {
        "steps": 21, "same_count": 21, "same_count_share": 1.0, "active_cycles": 104, "same_kind": 104,
        "comparable_cycles": 74, "same_composition": 74, "same_order": 74,
    }  # fmt: skip
    assert found["tolerance"]["same_count_share"] == 0.9
    assert found["settings"]["ranks"] == {"value": 4, "source": "n in tl_gloo_n4_cache.json"}
    assert found["recording"]["cycles"] == 172 == sum(found["cycles"]["recorded"].values())
    assert found["cycle_period_us"]["recorded"] == {"median": 4337, "p10": 1642, "p90": 10828}
    assert found["mismatches"] == []
    step = found["steps"][9]
    assert (step["messages_recorded"], step["messages_predicted"], step["slow_cycles_recorded"]) == (3, 3, 4)
    members = [[found["tensors"][place] for place in message] for message in step["messages"]]
    assert [len(names) for names in members] == [32, 65, 64]
    assert members[0][0] == "grouped_allreduce.small.g5.0_1of32"
    everything = sorted(place for message in step["messages"] for place in message)
    assert everything == sorted(found["tensor_sets"][step["tensor_set"]])
    assert found["steps"][-1]["cut"] is True


@pytest.mark.parametrize("width", [80, 100])
def test_the_table_of_a_real_recording_fits_the_page(width: int) -> None:
    shown = timeline_table(facts("gloo_n4_cache"), Page(width=width))
    assert max(map(len, shown.splitlines())) <= width
    assert "MISSED" not in shown
    words = " ".join(shown.split())
    for said in (
        "22 steps in 172 cycles (10 slow, 67 fast), 26,410 events",
        "4 (n in tl_gloo_n4_cache.json)",
        "64 MiB (HOROVOD_FUSION_THRESHOLD in tl_gloo_n4_cache.json)",
        "median 4.337 ms, p10 1.642 ms, p90 10.83 ms",
        "allreduce.small.0 + 160 10 4 4 0 0",
        "21 of 21 steps (at least 90.0 %)",
        "members in 74, order in 74 of 74 cycles",
        "104 of 104 cycles",
        "1 step not executed to the end within the file: not compared",
    ):
        assert said in words


def test_what_differs_is_shown_and_counted() -> None:
    found = facts("mpi_n2_cache0", cache_capacity=1024, fusion_threshold_bytes=1024)
    assert len(found["missed"]) == 4
    assert found["mismatched_cycles"] > len(found["mismatches"]) == analysis.KEPT_MISMATCHES
    shown = " ".join(timeline_table(found, Page()).split())
    assert "MISSED 15 of 22 steps have another number of messages" in shown
    assert f"{found['mismatched_cycles']} cycles differ, the first:" in shown
    assert "cycle 5 at 24.14 ms, kind: recorded slow, 1 message [allreduce.barrier]; predicted fast" in shown
    assert "cycle 28 at 65.24 ms, count: recorded slow, 1 message [allreduce.small.3, allreduce.small.4, " in shown
    assert "predicted slow, 3 messages" in shown
    assert "was it made with HOROVOD_CACHE_CAPACITY=0?" in shown
    assert "1,024 tensors (given)" in shown


def test_one_difference_is_one(tmp_path: Path) -> None:
    path = write(tmp_path / "t.json", "cached", settings(2, threshold=1 << 20), [dict.fromkeys((0, 1), tuple(MIXED))])
    found = timeline_facts(path, fusion_threshold_bytes=2048)
    assert "\n1 cycle differs:\n" in timeline_table(found, Page())
    assert found["mismatches"] == [{
        "cycle": 0, "at_us": 1, "what": "count", "recorded": [["a", "b", "c"]], "predicted": [["a"], ["b"], ["c"]],
        "recorded_kind": "slow", "predicted_kind": "slow",
    }]  # fmt: skip


def test_only_the_first_steps_are_kept_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "KEPT_STEPS", 2)
    path = write(tmp_path / "t.json", "cached", settings(2), [dict.fromkeys((0, 1), tuple(MIXED))] * 3)
    steps = timeline_facts(path)["steps"]
    assert [each["messages"] for each in steps] == [[[0, 1, 2]], [[0, 1, 2]], None]
    assert [each["messages_recorded"] for each in steps] == [1, 1, 1]


def test_strict_groups_and_no_cache_are_said(tmp_path: Path) -> None:
    path = write(tmp_path / "t.json", "coordinator", settings(2, threshold=0), [dict.fromkeys((0, 1), tuple(MIXED))])
    shown = timeline_table(timeline_facts(path, cache_capacity=0, disable_group_fusion=True), Page())
    assert "groups         fuse with nothing else  (given)" in shown
    assert "cache          none  (given)" in shown


def test_limits_of_the_comparison_are_said(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    turns = [dict.fromkeys((0, 1), tuple(MIXED))] * 3
    with TimelineWriter() as writer:

        def later() -> Any:
            for index, turn in enumerate(turns):
                if index == 1:
                    writer.start(path, mark_cycles=True)
                yield turn

        run(writer, "cached", settings(2), later())
    data = path.read_text()
    path.write_text(data[:-1])
    notes = timeline_facts(path)["notes"]
    assert notes[0] == "the file is cut off; lost: no closing bracket"
    assert any(each.startswith("3 tensors cached before recording began") for each in notes)
    path = write(path, "coordinator", settings(2), turns)
    notes = timeline_facts(path, ranks=3, cache_capacity=0)["notes"]
    assert any(each.startswith("9 negotiations ended without a request from each of 3 ranks") for each in notes)


def test_names_from_a_file_cannot_drive_a_terminal(tmp_path: Path) -> None:
    nasty = tensor("a\x1b[2J\n\udcff\u202e", 4)
    path = write(tmp_path / "t.json", "cached", settings(2), [dict.fromkeys((0, 1), (nasty,))] * 2)
    found = timeline_facts(path)
    assert found["tensors"] == [nasty.name]
    shown = timeline_table(found, Page())
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "a\\x1b[2J\\n\\udcff\\u202e" in shown
    assert printable("plain \u00fc") == "plain \u00fc"


def test_a_long_name_keeps_both_ends() -> None:
    assert shorten("abcdefghijklmnopqrstuvwxyz", 11) == "abc...vwxyz"
    assert shorten("abc", 11) == "abc"
    assert len(shorten("x" * 99, 26)) == 26
