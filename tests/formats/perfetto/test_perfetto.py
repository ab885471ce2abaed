"""Perfetto's format: parsed back with its own messages, every slice that begins ends, tracks have parents."""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as trace_pb2

from coordsim.errors import EnvironmentProblem
from coordsim.formats.perfetto.writer import write_perfetto
from coordsim.formats.picture.picture import Picture, Track, What, slice_of
from coordsim.formats.picture.run_picture import picture
from coordsim.record.ranks import merge_records, read_folder
from coordsim.record.store import read_run
from coordsim.report.export import export_run
from tests.formats.runs import NAMES

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
    trace, facts, _ = read_run(simulated)
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


@given(st.text(), st.integers(0, 2**62))
def test_any_name_can_be_written(name: str, at_ns: int) -> None:
    track = Track("ranks", name)
    events = [slice_of("tensors", track, name, at_ns, at_ns + 7, note=name, count=-1, share=0.5)]
    with TemporaryDirectory() as folder:
        write_perfetto(Path(folder) / "t", Picture([track], events))
        found = trace_pb2.Trace.FromString((Path(folder) / "t").read_bytes())
    begun = next(each.track_event for each in found.packet if each.track_event.type == BEGIN)
    assert begun.name == name.encode("utf-8", "replace").decode()
    assert begun.debug_annotations[1].int_value == -1


def test_half_a_surrogate_pair_is_a_question_mark(tmp_path: Path) -> None:
    track = Track("ranks", "a\ud800")
    write_perfetto(tmp_path / "t", Picture([track], [slice_of("tensors", track, "\ud800", 0, 1)]))
    found = trace_pb2.Trace.FromString((tmp_path / "t").read_bytes())
    assert [each.track_event.name for each in found.packet if each.track_event.type == BEGIN] == ["?"]


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
