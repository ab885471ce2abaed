"""A timeline that cannot be written ends; the job does not. And the shapes that it tells."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import real_backend as rb
from tests.real_backend.processes import run

FULL = Path("/dev/full")


def no_space(folder: Path) -> float:
    """The device is full in the middle of the job; another file may be begun afterwards."""
    rb.init()
    assert rb.allreduce(torch.ones(1), "before", rb.Sum).item() == rb.size()
    rb.start_timeline(FULL)
    for _ in range(3):
        rb.allreduce(torch.ones(1), "into the void")
    rb.start_timeline(folder / "t.json")
    found = rb.allreduce(torch.ones(1), "after", rb.Sum).item()
    rb.shutdown()
    return float(found)


@pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")
def test_a_full_disk_ends_the_timeline_and_not_the_job(tmp_path: Path) -> None:
    assert run(2, no_space, tmp_path) == [2.0, 2.0]
    events = json.loads((tmp_path / "t.json").read_text())
    assert any(each.get("args", {}).get("name") == "allreduce.after" for each in events)


def everything_once() -> None:
    rb.init()
    rb.allreduce(torch.ones(2, 3), "x")
    rb.allgather(torch.ones(rb.rank() + 1, 2), "x")
    rb.reducescatter(torch.ones(5, 2), "x")
    rb.broadcast(torch.ones(4, dtype=torch.int16), 0, "x")
    rb.grouped_allreduce([torch.ones(2), torch.ones(())], "x")
    if rb.rank() == 0:
        rb.join()
    else:
        rb.allreduce(torch.ones(2, 3), "x")
        rb.join()
    rb.shutdown()


def told(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """What the ends of a tensor's operations say."""
    (pid,) = (each["pid"] for each in events if each["ph"] == "M" and each["args"].get("name") == name)
    return [each["args"] for each in events if each["ph"] == "E" and each["pid"] == pid and "args" in each]


def test_shapes_are_those_of_rank_0s_outputs_and_activities_are_gloos(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    run(2, everything_once, env={"COORDSIM_TIMELINE": os.fspath(path)})
    events = json.loads(path.read_text())
    joined = {"dtype": "float32", "shape": "[6]"}
    assert told(events, "allreduce.x") == [{"dtype": "float32", "shape": "[2, 3]"}, joined]
    assert told(events, "allgather.x") == [{"dtype": "float32", "shape": "[3, 2]"}]
    assert told(events, "reducescatter.x") == [{"dtype": "float32", "shape": "[3, 2]"}]
    assert told(events, "broadcast.x") == [{"dtype": "int16", "shape": "[4]"}]
    assert told(events, "grouped_allreduce.x_2of2") == [{"dtype": "float32", "shape": "[]"}]
    names = {each.get("name") for each in events}
    assert {"GLOO_ALLREDUCE", "GLOO_ALLGATHER", "GLOO_REDUCESCATTER", "GLOO_BCAST"} <= names
    assert {"MEMCPY_IN_FUSION_BUFFER", "MEMCPY_OUT_FUSION_BUFFER"} <= names


def start_without_a_place_to_write() -> str:
    try:
        rb.init()
    except rb.CannotStart as error:
        return str(error)
    return "started"


@pytest.mark.parametrize("variable", ["COORDSIM_TIMELINE", "COORDSIM_RECORD"])
def test_what_cannot_be_written_ends_the_start_before_anybody_is_connected(tmp_path: Path, variable: str) -> None:
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "under"
    (said,) = run(1, start_without_a_place_to_write, env={variable: str(place)})
    assert said.startswith("cannot write ")
    assert str(place) in said
