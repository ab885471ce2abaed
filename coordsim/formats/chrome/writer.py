"""Chrome's trace events as JSON, which https://ui.perfetto.dev, chrome://tracing and Speedscope open.

The file has the object form of the Trace Event Format: ``X`` slices, ``i`` instants, ``C`` counters, ``s`` and ``f``
arrows, ``M`` names of tracks; ``ts`` and ``dur`` are in microseconds with three decimals, so nanoseconds stay exact.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coordsim.formats.picture.picture import Event, Picture, Track, What
from coordsim.record.files import whole_file

SUFFIX = ".chrome.json"


def write_chrome(path: Path, picture: Picture) -> None:
    """Write ``picture`` completely or not at all. Raises OSError."""
    with whole_file(path) as fresh, open(fresh, "w", encoding="ascii") as file:
        file.write('{"displayTimeUnit":"ns","otherData":')
        file.write(json.dumps(picture.metadata(), allow_nan=False))
        file.write(',"traceEvents":[\n')
        for number, event in enumerate(chrome_events(picture)):
            file.write((",\n" if number else "") + json.dumps(event, separators=(",", ":"), allow_nan=False))
        file.write("\n]}\n")


def chrome_events(picture: Picture) -> Iterator[dict[str, Any]]:
    """Yield events as JSON objects: names of tracks first, then all others in order of time."""
    pids: dict[str, int] = {}
    places: dict[Track, tuple[int, int]] = {}
    for number, track in enumerate(picture.tracks):
        pid = pids.setdefault(track.group, len(pids) + 1)
        places[track] = pid, number + 1
    for group, pid in pids.items():
        yield _name("process_name", pid, 0, group)
        yield {"ph": "M", "name": "process_sort_index", "pid": pid, "tid": 0, "args": {"sort_index": pid}}
    for track, (pid, tid) in places.items():
        yield _name("thread_name", pid, tid, track.name)
        yield {"ph": "M", "name": "thread_sort_index", "pid": pid, "tid": tid, "args": {"sort_index": tid}}
    for number, event in enumerate(picture.events):
        yield from _written(event, places, number)


def _name(what: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}}


def _written(event: Event, places: dict[Track, tuple[int, int]], number: int) -> Iterator[dict[str, Any]]:
    pid, tid = places[event.track]
    base = {"name": event.name, "cat": event.kind, "ts": event.begin_ns / 1000, "pid": pid, "tid": tid}
    match event.what:
        case What.SLICE:
            yield {"ph": "X", **base, "dur": (event.end_ns - event.begin_ns) / 1000, "args": dict(event.args)}
        case What.INSTANT:
            yield {"ph": "i", **base, "s": "t", "args": dict(event.args)}
        case What.COUNTER:
            yield {"ph": "C", **base, "args": dict(event.args)}
        case What.ARROW:
            head_pid, head_tid = places[event.head or event.track]
            yield {"ph": "s", **base, "id": number}
            yield {
                "ph": "f", **base, "bp": "e", "ts": event.end_ns / 1000, "pid": head_pid, "tid": head_tid, "id": number
            }  # fmt: skip
