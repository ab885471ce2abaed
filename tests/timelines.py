"""Timelines for tests: of our own protocol in lock-step, and real ones to read and to doctor."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from coordsim.formats.horovod import TimelineWriter
from coordsim.protocol.lockstep import LockStep
from coordsim.protocol.messages import Request
from coordsim.protocol.negotiator import Settings
from coordsim.simulate.timeline import TimelineRecorder

RECORDED = Path(__file__).parent / "data" / "horovod_runs"
REAL = tuple(sorted(RECORDED.glob("tl_*.timeline.json.gz")))

Event = dict[str, Any]
Turn = Mapping[int, Sequence[Request]]
"""One cycle: what each rank submits before it, by rank."""


def run(writer: TimelineWriter, plane: str, settings: Settings, turns: Iterable[Turn]) -> LockStep:
    """Drive a job through ``turns`` while ``writer`` writes."""
    recorder = TimelineRecorder(writer, settings.ranks)
    job = LockStep(plane, settings, recorder)
    for turn in turns:
        for rank, requests in turn.items():
            for request in requests:
                job.submit(rank, request)
        job.cycle()
    return job


def write(path: Path, plane: str, settings: Settings, turns: Iterable[Turn]) -> Path:
    """A finished timeline, cycles marked."""
    with TimelineWriter(path, mark_cycles=True) as writer:
        run(writer, plane, settings, turns)
    return path


def events(path: Path) -> list[Event]:
    """The file as Python's own JSON reader sees it."""
    data = path.read_bytes()
    found = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    assert isinstance(found, list)
    return found


def names(found: Iterable[Event]) -> dict[int, str]:
    """Tensor by pid."""
    return {
        each["pid"]: each["args"]["name"]
        for each in found
        if each["ph"] == "M" and each["name"] == "process_name" and each["pid"]
    }


def real_events(path: Path) -> list[Event]:
    """A real recording's events; real ones may end without their bracket."""
    text = gzip.decompress(path.read_bytes()).decode()
    return list(json.loads(text if text.endswith("]") else text + "]"))


def doctored(source: Path, target: Path, change: Callable[[list[Event]], list[Event]]) -> Path:
    """A copy of a real recording, and of its description, with its events changed."""
    target.write_text(json.dumps(change(real_events(source))))
    description = source.name.removesuffix(".timeline.json.gz") + ".json"
    if (source.parent / description).is_file():
        name = target.name.removesuffix(".timeline.json") + ".json"
        (target.parent / name).write_bytes((source.parent / description).read_bytes())
    return target
