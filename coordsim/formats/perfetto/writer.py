"""Perfetto's native trace, a stream of ``TracePacket``, which https://ui.perfetto.dev and offline copies of it open.

It needs the extra ``perfetto`` for the messages' definitions, but not its trace processor, which would be downloaded.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from heapq import merge
from pathlib import Path
from typing import Any

from coordsim.errors import EnvironmentProblem
from coordsim.formats.picture.picture import Event, Picture, Track, What
from coordsim.record.files import whole_file

SUFFIX = ".pftrace"
SEQUENCE = 1
"""The one writer of the trace."""


def write_perfetto(path: Path, picture: Picture) -> None:
    """Write ``picture`` completely or not at all. Raises EnvironmentProblem without the extra, OSError."""
    messages = _messages()
    with whole_file(path) as fresh, open(fresh, "wb") as file:
        for packet in _packets(messages, picture):
            trace = messages.Trace()
            trace.packet.append(packet)
            file.write(trace.SerializeToString())


def _messages() -> Any:
    try:
        from perfetto.protos.perfetto.trace import perfetto_trace_pb2
    except ImportError as error:
        raise EnvironmentProblem("--to perfetto needs an extra: pip install 'coordsim[perfetto]'") from error
    return perfetto_trace_pb2


def _packets(messages: Any, picture: Picture) -> Iterator[Any]:
    uuids: dict[Track, int] = {track: number + 1 for number, track in enumerate(picture.tracks)}
    groups: dict[str, int] = {}
    for track in picture.tracks:
        groups.setdefault(track.group, len(uuids) + len(groups) + 1)
    yield _packet(messages, sequence_flags=messages.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED)
    for place, (group, uuid) in enumerate(groups.items()):
        packet = _packet(messages)
        _describe(messages, packet.track_descriptor, uuid, group, place)
        yield packet
    counters = {each.track for each in picture.events if each.what is What.COUNTER}
    for track, uuid in uuids.items():
        packet = _packet(messages)
        _describe(messages, packet.track_descriptor, uuid, track.name, uuid)
        packet.track_descriptor.parent_uuid = groups[track.group]
        if track in counters:
            packet.track_descriptor.counter.unit_name = "us"
        yield packet
    yield _about(messages, picture, next(iter(uuids.values()), 0))
    flows = _flows(picture)
    on: dict[Track, list[tuple[int, Event]]] = {track: [] for track in uuids}
    for number, event in enumerate(picture.events):
        if event.what is not What.ARROW:
            on[event.track].append((number, event))
    per_track = [_of_track(messages, on[track], uuid, flows) for track, uuid in uuids.items()]
    yield from merge(*per_track, key=lambda packet: packet.timestamp)


def _packet(messages: Any, **fields: int) -> Any:
    return messages.TracePacket(trusted_packet_sequence_id=SEQUENCE, **fields)


def _describe(messages: Any, descriptor: Any, uuid: int, name: str, place: int) -> None:
    descriptor.uuid, descriptor.name, descriptor.sibling_order_rank = uuid, _text(name), place
    descriptor.child_ordering = messages.TrackDescriptor.EXPLICIT


def _about(messages: Any, picture: Picture, uuid: int) -> Any:
    """Return an instant at time 0 that states what the file contains and what not."""
    packet = _event(messages, messages.TrackEvent.TYPE_INSTANT, uuid, 0)
    packet.track_event.name = "about this file"
    packet.track_event.debug_annotations.add(name="coordsim", string_value=json.dumps(picture.metadata()))
    return packet


def _event(messages: Any, kind: int, uuid: int, at_ns: int) -> Any:
    packet = _packet(messages, timestamp=at_ns)
    packet.track_event.type, packet.track_event.track_uuid = kind, uuid
    return packet


def _flows(picture: Picture) -> dict[tuple[int, bool], list[int]]:
    """Return (number of a slice among the events, whether it is the head) -> ids of arrows."""
    slices: dict[Track, list[tuple[int, int]]] = {}
    for number, event in enumerate(picture.events):
        if event.what is What.SLICE:
            slices.setdefault(event.track, []).append((event.begin_ns, number))
    flows: dict[tuple[int, bool], list[int]] = {}
    for number, event in enumerate(picture.events):
        if event.what is What.ARROW:
            ends = ((event.track, event.begin_ns, False), (event.head or event.track, event.end_ns, True))
            places = [(bisect_right(slices.get(track, []), (at, len(picture.events))), track) for track, at, _ in ends]
            if all(place for place, _ in places):
                for (place, track), (_, _, head) in zip(places, ends, strict=True):
                    flows.setdefault((slices[track][place - 1][1], head), []).append(number + 1)
    return flows


def _of_track(
    messages: Any, events: Sequence[tuple[int, Event]], uuid: int, flows: dict[tuple[int, bool], list[int]]
) -> Iterator[Any]:
    """Yield packets of one track in order of time; slices as begin and end, a nested one within its parent.

    ``events`` holds each event with its number among all of the picture's.
    """
    kinds, open_ends = messages.TrackEvent, list[int]()
    for number, event in events:
        while open_ends and open_ends[-1] <= event.begin_ns:
            yield _event(messages, kinds.TYPE_SLICE_END, uuid, open_ends.pop())
        if event.what is What.COUNTER:
            packet = _event(messages, kinds.TYPE_COUNTER, uuid, event.begin_ns)
            packet.track_event.double_counter_value = float(next(iter(event.args.values())))
            yield packet
            continue
        kind = kinds.TYPE_SLICE_BEGIN if event.what is What.SLICE else kinds.TYPE_INSTANT
        packet = _event(messages, kind, uuid, event.begin_ns)
        _fill(packet.track_event, event)
        packet.track_event.flow_ids.extend(flows.get((number, False), ()))
        packet.track_event.terminating_flow_ids.extend(flows.get((number, True), ()))
        yield packet
        if event.what is What.SLICE:
            open_ends.append(min([event.end_ns, *open_ends[-1:]]))
    while open_ends:
        yield _event(messages, kinds.TYPE_SLICE_END, uuid, open_ends.pop())


def _fill(track_event: Any, event: Event) -> None:
    track_event.name = _text(event.name)
    track_event.categories.append(event.kind)
    for name, value in event.args.items():
        annotation = track_event.debug_annotations.add(name=name)
        if isinstance(value, str):
            annotation.string_value = _text(value)
        elif isinstance(value, int):
            annotation.int_value = value
        else:
            annotation.double_value = value


def _text(value: str) -> str:
    """Replace what UTF-8 cannot represent (half a surrogate pair, in a name) by a question mark."""
    return value.encode("utf-8", "replace").decode()
