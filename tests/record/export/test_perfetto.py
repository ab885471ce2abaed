"""Perfetto's format: parsed back with its own messages, every slice that begins ends, tracks have parents."""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as trace_pb2

from coordsim.errors import EnvironmentProblem
from coordsim.record.export.picture import What
from coordsim.record.export.run_picture import picture
from coordsim.record.ranks import merge_records, read_folder
from coordsim.record.store import read_run
from coordsim.report.export import export_run
from tests.record.export.runs import NAMES

BEGIN, END = trace_pb2.TrackEvent.TYPE_SLICE_BEGIN, trace_pb2.TrackEvent.TYPE_SLICE_END


def exported(run: Path, folder: Path, limit: int = 100_000) -> Any:
    export_run(run, "perfetto", folder / "t.pftrace", None, limit)
    data = (folder / "t.pftrace").read_bytes()
    found = trace_pb2.Trace.FromString(data)
    assert len(found.SerializeToString()) == len(data), "bytes that the schema does not know"
    return found


@pytest.mark.parametrize("which", ["recorded", "simulated"])
def test_every_slice_begins_ends_and_has_a_track(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    found = exported(request.getfixturevalue(which), tmp_path)
    described = {each.track_descriptor.uuid: each.track_descriptor for each in found.packet if
                 each.HasField("track_descriptor")}  # fmt: skip
    for each in described.values():
        assert not each.parent_uuid or each.parent_uuid in described
    open_slices: dict[int, int] = defaultdict(int)
    last, flows = 0, Counter[str]()
    for packet in found.packet:
        if packet.HasField("track_event"):
            event = packet.track_event
            assert event.track_uuid in described
            assert packet.timestamp >= last
            last = packet.timestamp
            open_slices[event.track_uuid] += (event.type == BEGIN) - (event.type == END)
            assert open_slices[event.track_uuid] >= 0
            flows.update(f"out {flow}" for flow in event.flow_ids)
            flows.update(f"in {flow}" for flow in event.terminating_flow_ids)
    assert not any(open_slices.values())
    assert {key.split()[1] for key in flows if key.startswith("out")} == {
        key.split()[1] for key in flows if key.startswith("in")
    }
    assert flows
    assert set(flows.values()) == {1}


def test_it_holds_what_the_picture_holds(simulated: Path, tmp_path: Path) -> None:
    trace, facts = read_run(simulated)
    shown = picture(trace, facts)
    kinds = Counter(each.track_event.type for each in exported(simulated, tmp_path).packet
                    if each.HasField("track_event"))  # fmt: skip
    assert kinds[BEGIN] == kinds[END] == sum(each.what is What.SLICE for each in shown.events)
    assert kinds[trace_pb2.TrackEvent.TYPE_COUNTER] == sum(each.what is What.COUNTER for each in shown.events)


def test_submissions_are_at_their_nanosecond(recorded: Path, tmp_path: Path) -> None:
    records = read_folder(recorded)
    base = merge_records(records).base_ns
    found = exported(recorded, tmp_path)
    submitted = [each.timestamp for each in found.packet if each.track_event.name == NAMES[0] and
                 list(each.track_event.categories) == ["submissions"]]  # fmt: skip
    expected = []
    for record in records:
        offset = record.clock.offset_ns if record.clock else 0
        expected += [
            stamp + offset - base for cycle in record.cycles
            for tensor, stamp in zip(cycle.popped, cycle.stamps_ns, strict=True) if record.name(tensor) == NAMES[0]
        ]  # fmt: skip
    assert submitted == sorted(expected)
    assert len(submitted) == 15


def test_it_says_what_is_left_out(recorded: Path, tmp_path: Path) -> None:
    found = exported(recorded, tmp_path, 40)
    about = [each.track_event for each in found.packet if each.track_event.name == "about this file"]
    told = json.loads(about[0].debug_annotations[0].string_value)
    assert sum(told["left_out"].values()) > 0


def test_without_the_extra_it_says_what_to_install(
    simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "perfetto.protos.perfetto.trace", None)
    with pytest.raises(EnvironmentProblem, match=r"coordsim\[perfetto\]"):
        export_run(simulated, "perfetto", tmp_path / "t.pftrace", None, 1000)
    assert not list(tmp_path.iterdir())
