"""Reads one trace file through a rolling buffer: the members beside its events, and its events one by one.

:mod:`coordsim.formats.kineto.events` keeps the events of which a run is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coordsim.errors import InputError
from coordsim.formats.kineto.event_parts import MOST_KEPT
from coordsim.formats.kineto.events import LONGEST_NAME, OF_THE_PROFILER, EventKeeper
from coordsim.formats.kineto.fields import MOST_RANKS, ranks_of
from coordsim.formats.kineto.names import is_kernel
from coordsim.formats.kineto.raw import MOST_LAUNCHES, Process, RawTrace, move
from coordsim.formats.shared.json_text import JsonText, elements, members

EXPECTED = "expected a trace of PyTorch's profiler: an object with traceEvents"
LONGEST_EVENT = 1 << 23
"""Largest number of characters; a foreach optimizer's event has shapes and strides of thousands of parameters."""
_SURELY = re.compile(r"aten::|ProfilerStep#|Optimizer\.|_?c10d|record_param_comms|autograd::engine::|torch::autograd::")
_ITS_MEMBERS = frozenset((
    "schemaVersion", "deviceProperties", "distributedInfo", "baseTimeNanoseconds", "record_shapes",
))  # fmt: skip
"""Members that PyTorch's profiler writes beside its events, and other writers of Chrome's format do not."""
_MOST_CATEGORIES = 4


def read_trace(path: Path, room: int = MOST_KEPT) -> RawTrace:
    """Read one file, up to where it is complete. Raises InputError, with file and event, for anything that is no
    trace."""
    return _Reader(path, room).read()


class _Reader:
    """Reads one file."""

    def __init__(self, path: Path, room: int) -> None:
        self.events = EventKeeper(path, room)
        self._trace = self.events.trace
        self._where = str(path)
        self._text = JsonText(path, EXPECTED, limit=LONGEST_EVENT)
        self._late_base_ns = 0
        self._known = False
        """Whether an event has shown that the file is of PyTorch's profiler."""
        self._categories: dict[str, int] = {}
        """Categories of events until that was known."""

    def read(self) -> RawTrace:
        """Read the whole file."""
        trace, present = self._trace, False
        for key, value in self.pairs():
            self._known = self._known or key in _ITS_MEMBERS
            if key == "traceEvents":
                trace.events += 1
                if not isinstance(value, dict):
                    self.events.refuse(value, f"is no object; {EXPECTED}")
                present = present or "ph" in value
                if not self._known:
                    self._recognise(value)
                self.events.take(value)
            elif key == "distributedInfo":
                self._distributed(value)
            elif key == "host_name" and isinstance(value, str):
                trace.host = value[:200]
            elif key == "record_shapes":
                trace.shapes = bool(value)
            elif key == "baseTimeNanoseconds":
                if type(value) is str and len(value) < 20 and value.isascii() and value.isdecimal():
                    value = int(value)
                if type(value) is not int or not 0 <= value < 1 << 62:
                    raise InputError.one(self._where, key, str(value)[:40], "is no whole number of ns")
                self.rebase(value)
        trace.lost, trace.characters = self._text.lost, self._text.place
        if not present:
            raise InputError.one(self._where, "traceEvents", None, f"holds no event; {EXPECTED}")
        if not self._known:
            listed = ", ".join(f"{count:,} of category {name!r}" for name, count in self._categories.items())
            message = f"none of its {trace.events:,} events is one of PyTorch's profiler{f' ({listed})' * bool(listed)}"
            raise InputError.one(self._where, "traceEvents", None, f"{message}; {EXPECTED}")
        self.events.settle()
        if self._late_base_ns:
            move(trace, self._late_base_ns)
        return trace

    def _recognise(self, event: dict[str, Any]) -> None:
        """Return whether PyTorch's profiler writes such an event, by its category, else by its name."""
        name, category = event.get("name"), event.get("cat")
        kind = category.lower() if type(category) is str else None
        named = type(name) is str and (_SURELY.match(name[:LONGEST_NAME]) or is_kernel(name[:LONGEST_NAME]))
        self._known = kind in OF_THE_PROFILER or bool(named)
        if not self._known and kind is not None:
            counts, kind = self._categories, kind[:40]
            if kind in counts or len(counts) < _MOST_CATEGORIES:
                counts[kind] = counts.get(kind, 0) + 1

    def pairs(self) -> Iterator[tuple[str, Any]]:
        """Yield the file's members, events one by one. Chrome's other form is a bare list of events."""
        if self._text.next_character() == "[":
            return (("traceEvents", event) for event in elements(self._text))
        return members(self._text, frozenset({"traceEvents"}))

    def rebase(self, base_ns: int) -> None:
        """Apply ``baseTimeNanoseconds``, which Kineto writes before the events, and tools that rewrite traces after."""
        if not self._trace.events:
            self.events.base_ns = base_ns
        else:
            self._late_base_ns = base_ns

    # What stands beside the events.

    def _distributed(self, value: Any) -> None:
        where = "distributedInfo"
        if not isinstance(value, dict):
            raise InputError.one(self._where, where, str(value)[:40], "is no object")
        numbers: dict[str, int | None] = {}
        for key in ("rank", "world_size"):
            number = value.get(key)
            if isinstance(number, str) and len(number) < 8 and number.isascii() and number.isdecimal():
                number = int(number)
            if number is not None and (type(number) is not int or not 0 <= number <= MOST_RANKS):
                raise InputError.one(self._where, f"{where}.{key}", str(number)[:40], "is no number of a rank")
            numbers[key] = number
        trace = self._trace
        trace.rank, trace.world_size = numbers["rank"], numbers["world_size"]
        trace.backend = str(value["backend"])[:40] if value.get("backend") is not None else None
        groups = value.get("pg_config")
        if isinstance(groups, list):
            trace.group_count = len(groups)
            trace.groups = {}
            for one in groups:
                ranks = ranks_of(one.get("ranks")) if isinstance(one, dict) else None
                if ranks is not None:
                    trace.groups[str(one.get("pg_name"))[:80]] = ranks


def launch_flows(path: Path, trace: RawTrace, process: Process) -> dict[int, tuple[int, int]]:
    """Return index of a kernel without a correlation -> (ns, thread) of its launch, from flow events.

    This is a second reading, for the few files that need it. ``trace`` is the result of the first one; a thread that it
    does not know is -1.
    """
    reader = _Reader(path, MOST_KEPT)
    wanted = {
        (kernel.device, kernel.stream, kernel.begin_ns): index
        for index, kernel in enumerate(process.kernels)
        if kernel.correlation is None
    }
    ends: dict[tuple[str, str], int] = {}
    starts: dict[tuple[str, str], tuple[int, int]] = {}
    for key, event in reader.pairs():
        if key == "baseTimeNanoseconds" and type(event) is int:
            reader.rebase(event)
        if key != "traceEvents" or not isinstance(event, dict) or event.get("ph") not in ("s", "f"):
            continue
        at_ns = reader.events.ns(event.get("ts"))
        if at_ns is None or event.get("cat") == "fwdbwd" or len(starts) >= MOST_LAUNCHES:
            continue
        flow = (str(event.get("cat"))[:40], str(event.get("id"))[:40])
        place = (str(event.get("pid"))[:40], str(event.get("tid"))[:40])
        if event["ph"] == "s":
            starts[flow] = (at_ns, trace.threads.get(place, -1))
        elif (index := wanted.get((*place, at_ns))) is not None:
            ends[flow] = index
    return {index: starts[flow] for flow, index in ends.items() if flow in starts}
