"""Chrome's format: valid against a schema, exact to the nanosecond, slices nest, arrows end where slices are."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordsim.formats.chrome.writer import write_chrome
from coordsim.formats.picture.picture import Picture, Track, slice_of
from coordsim.record.breakdown import breakdown, step_times
from coordsim.record.ranks import merge
from coordsim.record.store import read_run
from coordsim.report.export import export_run
from tests.formats.runs import NAMES, store

_NUMBER, _WHOLE, _TEXT = {"type": "number"}, {"type": "integer", "minimum": 0}, {"type": "string"}


def _kind(phase: str, **more: Any) -> dict[str, Any]:
    keys = {"ph": {"const": phase}, "name": _TEXT, "pid": _WHOLE, "tid": _WHOLE, **more}
    if phase != "M":
        keys |= {"ts": _NUMBER, "cat": _TEXT}
    return {"type": "object", "properties": keys, "required": sorted(keys), "additionalProperties": False}


ARGS = {"type": "object", "additionalProperties": {"type": ["number", "string"]}}
SCHEMA = {
    "type": "object",
    "required": ["traceEvents", "displayTimeUnit", "otherData"],
    "additionalProperties": False,
    "properties": {
        "displayTimeUnit": {"enum": ["ms", "ns"]},
        "otherData": {"type": "object", "required": ["left_out", "notes"]},
        "traceEvents": {
            "type": "array",
            "items": {
                "oneOf": [
                    _kind("M", args=ARGS),
                    _kind("X", dur={"type": "number", "minimum": 0}, args=ARGS),
                    _kind("i", s={"const": "t"}, args=ARGS),
                    _kind("C", args={"type": "object", "additionalProperties": _NUMBER, "minProperties": 1}),
                    _kind("s", id=_WHOLE),
                    _kind("f", id=_WHOLE, bp={"const": "e"}),
                ]
            },
        },
    },
}


def exported(run: Path, folder: Path, steps: range | None = None, limit: int = 100_000) -> dict[str, Any]:
    """The file, valid and strictly JSON."""

    def no_constants(name: str) -> None:
        raise AssertionError(name)

    export_run(run, "chrome", folder / "t.json", steps, limit)
    found: dict[str, Any] = json.loads((folder / "t.json").read_text("ascii"), parse_constant=no_constants)
    jsonschema.validate(found, SCHEMA)
    return found


def on_tracks(found: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """"group / track" -> its events."""
    groups = {each["pid"]: each["args"]["name"] for each in found["traceEvents"] if each["name"] == "process_name"}
    names = {each["tid"]: each["args"]["name"] for each in found["traceEvents"] if each["name"] == "thread_name"}
    tracks = defaultdict(list)
    for each in found["traceEvents"]:
        if each["ph"] != "M":
            tracks[f"{groups[each['pid']]} / {names[each['tid']]}"].append(each)
    return tracks


def ns(microseconds: float) -> int:
    return round(microseconds * 1000)


@pytest.mark.parametrize("which", ["recorded", "simulated"])
def test_slices_nest_and_arrows_begin_and_end_on_slices(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    found = exported(request.getfixturevalue(which), tmp_path)
    arrows: dict[int, list[dict[str, Any]]] = defaultdict(list)
    slices: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for each in found["traceEvents"]:
        if each["ph"] == "X":
            slices[each["pid"], each["tid"]].append((ns(each["ts"]), ns(each["ts"]) + ns(each["dur"])))
        elif each["ph"] in "sf":
            arrows[each["id"]].append(each)
    for spans in slices.values():
        open_ends: list[int] = []
        for begin, end in spans:
            while open_ends and open_ends[-1] <= begin:
                open_ends.pop()
            assert not open_ends or end <= open_ends[-1]
            open_ends.append(end)
    assert arrows
    for ends in arrows.values():
        assert [each["ph"] for each in ends] == ["s", "f"]
        assert ends[0]["ts"] <= ends[1]["ts"]
        for each in ends:
            assert any(a <= ns(each["ts"]) <= b for a, b in slices[each["pid"], each["tid"]])


def test_parts_have_the_breakdowns_nanoseconds(simulated: Path, tmp_path: Path) -> None:
    trace = read_run(simulated).trace
    tracks = on_tracks(exported(simulated, tmp_path))
    total: dict[str, int] = defaultdict(int)
    for each in tracks["run / parts of each step"]:
        total[each["name"].replace(" ", "_")] += ns(each["dur"])
    assert dict(total) == {name: int(column.sum()) for name, column in breakdown(trace).items() if column.sum()}
    assert [ns(each["dur"]) for each in tracks["run / steps"]] == step_times(trace).tolist()
    assert len([each for each in tracks["data / responses"] if "tensors" in each["name"]]) == len(
        trace.responses["cycle"]
    )  # fmt: skip
    kinds = [each["name"].split(" x ")[0] for each in tracks["control / cycles"] if each["ph"] == "X"]
    assert len(kinds) == trace.cycles["cycle"].size
    assert {"slow", "fast"} <= set(kinds)


def test_a_real_run_has_its_ranks_and_tensors(recorded: Path, tmp_path: Path) -> None:
    tracks = on_tracks(exported(recorded, tmp_path))
    trace = merge(recorded).trace
    for rank in range(3):
        lane = [each for each in tracks[f"rank {rank} / work and wait"] if each["ph"] == "X"]
        assert {"forward", "backward", "wait"} <= {each["name"] for each in lane}
        submitted = tracks[f"rank {rank} / submissions"]
        assert [each["name"] for each in submitted[:3]] == list(NAMES)
        assert len(submitted) == 5 * 3 + 1
    for name in NAMES:
        assert len(tracks[f"tensors / {name}"]) == 5
    tails = [each for key, each in tracks.items() if key.endswith("work and wait")]
    heads = sorted(ns(each["ts"]) for events in tails for each in events if each["ph"] == "s")
    assert heads[0] == trace.steps["ready_last_ns"][0]


def test_only_the_steps_asked_for(recorded: Path, tmp_path: Path) -> None:
    names = [each["name"] for each in on_tracks(exported(recorded, tmp_path, range(2, 4)))["run / steps"]]
    assert names == ["step 2", "step 3"]


def test_what_does_not_fit_is_counted_and_said(recorded: Path, tmp_path: Path) -> None:
    whole = exported(recorded, tmp_path)
    all_events = sum(each["ph"] in "XiCs" for each in whole["traceEvents"])
    for limit in (1, 7, 50, all_events - 1, all_events):
        found = exported(recorded, tmp_path, limit=limit)
        written = sum(each["ph"] in "XiCs" for each in found["traceEvents"])
        assert written <= limit
        assert written + sum(found["otherData"]["left_out"].values()) == all_events
    assert not whole["otherData"]["left_out"]
    told = export_run(recorded, "chrome", tmp_path / "t.json", None, 50).left_out
    assert told[0].startswith("left out for size: ")


def test_a_large_run_keeps_its_first_steps_whole(tmp_path: Path) -> None:
    run = store(tmp_path / "run", steps=30)
    found = exported(run, tmp_path, limit=500)
    steps = on_tracks(found)["run / steps"]
    assert 2 < len(steps) < 31
    assert found["otherData"]["left_out"]["steps"] == 31 - len(steps)


@given(st.text() | st.just("a\ud800"), st.integers(0, 2**52))
def test_any_name_can_be_written(name: str, at_ns: int) -> None:
    track = Track("ranks", name)
    with TemporaryDirectory() as folder:
        write_chrome(Path(folder) / "t", Picture([track], [slice_of("tensors", track, name, at_ns, at_ns + 7)]))
        found = json.loads((Path(folder) / "t").read_bytes())
    jsonschema.validate(found, SCHEMA)
    event = found["traceEvents"][-1]
    assert (event["name"], ns(event["ts"]), ns(event["dur"])) == (name, at_ns, 7)
