"""Reads one rank's trace through a rolling buffer, and keeps what a run is made of."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from coordsim.errors import InputError
from coordsim.formats.shared.json_text import JsonText, members
from coordsim.formats.shared.torch_types import TYPES, numel_of

EXPECTED = "expected a trace of PyTorch's profiler: an object with traceEvents"
MOST_KEPT = 1 << 20
"""Collectives, gradients and marks of all files together, some 600 bytes each; a longer recording has to be split."""
_LONGEST_US = 9e12
_STEP = re.compile(r"ProfilerStep#([0-9]{1,12})")
_BACKWARD = "autograd::engine::evaluate_function: "
_GRADIENT = "torch::autograd::AccumulateGrad"
_FORWARD = "DistributedDataParallel.forward"
_LOADER = "enumerate(DataLoader)"
_ON_CPU = ("gloo:", "mpi:", "ucc:")


class Span(NamedTuple):
    begin_ns: int
    end_ns: int


class Transfer(NamedTuple):
    """One collective moving data."""

    begin_ns: int
    end_ns: int
    name: str
    nbytes: int | None


class Gradient(NamedTuple):
    at_ns: int
    shape: tuple[int, ...]
    dtype: str


@dataclass
class RankTrace:
    """What one file says; times in ns on the file's clock."""

    path: Path
    rank: int | None = None
    world_size: int | None = None
    backend: str | None = None
    host: str | None = None
    groups: int | None = None
    base_ns: int = 0
    events: int = 0
    lost: str | None = None
    steps: dict[int, Span] = field(default_factory=dict)
    forwards: list[Span] = field(default_factory=list)
    backwards: list[int] = field(default_factory=list)
    """When backward's nodes begin."""
    loaders: list[Span] = field(default_factory=list)
    submissions: list[int] = field(default_factory=list)
    """When a collective is asked for, on the CPU."""
    on_gpu: list[Transfer] = field(default_factory=list)
    on_cpu: list[Transfer] = field(default_factory=list)
    gradients: list[Gradient] = field(default_factory=list)
    room: int = MOST_KEPT
    """How many more may be kept."""

    @property
    def transfers(self) -> list[Transfer]:
        """Where data was moved: NCCL's kernels when the GPU was watched, else what the CPU did."""
        return self.on_gpu or self.on_cpu


def read_trace(path: Path, room: int = MOST_KEPT) -> RankTrace:
    """One rank's trace, up to where it is whole. Raises InputError, with file and event, for what is none."""
    trace = RankTrace(path, room=room)
    text = JsonText(path, EXPECTED)
    found = False
    for key, value in members(text, frozenset({"traceEvents"})):
        if key == "traceEvents":
            found = True
            trace.events += 1
            _event(trace, value)
        elif key == "distributedInfo":
            _distributed(trace, value)
        elif key == "host_name" and isinstance(value, str):
            trace.host = value[:200]
        elif key == "baseTimeNanoseconds":
            if type(value) is not int or not 0 <= value < 1 << 62:
                raise InputError.one(str(path), key, str(value)[:40], "is no whole number of ns")
            trace.base_ns = value
    trace.lost = text.lost
    if not found:
        raise InputError.one(str(path), "traceEvents", None, f"holds no event; {EXPECTED}")
    return trace


def _distributed(trace: RankTrace, value: Any) -> None:
    where = "distributedInfo"
    if not isinstance(value, dict):
        raise InputError.one(str(trace.path), where, str(value)[:40], "is no object")
    for key, limit in (("rank", 1 << 20), ("world_size", 1 << 20)):
        number = value.get(key)
        if number is not None and (type(number) is not int or not 0 <= number <= limit):
            raise InputError.one(str(trace.path), f"{where}.{key}", str(number)[:40], "is no number of a rank")
    trace.rank, trace.world_size = value.get("rank"), value.get("world_size")
    trace.backend = str(value["backend"])[:40] if value.get("backend") is not None else None
    groups = value.get("pg_config")
    trace.groups = len(groups) if isinstance(groups, list) else None


def _event(trace: RankTrace, event: Any) -> None:
    if not isinstance(event, dict):
        _wrong(trace, event, f"is no object; {EXPECTED}")
    name = event.get("name")
    if event.get("ph") != "X" or not isinstance(name, str):
        return
    category = event.get("cat")
    if category == "user_annotation":
        if match := _STEP.fullmatch(name):
            number = int(match[1])
            if number in trace.steps:
                _wrong(trace, number, f"marks step {number} a second time: of two recordings?")
            _room(trace)
            trace.steps[number] = _span(trace, event)
        elif name == _FORWARD:
            _keep(trace, trace.forwards, _span(trace, event))
        elif name.startswith(_LOADER):
            _keep(trace, trace.loaders, _span(trace, event))
        elif name.startswith(_ON_CPU):
            _keep(trace, trace.on_cpu, _transfer(trace, event, name))
    elif category == "cpu_op":
        if name.startswith(_BACKWARD):
            _keep(trace, trace.backwards, _span(trace, event).begin_ns)
        elif name.startswith("c10d::"):
            _keep(trace, trace.submissions, _span(trace, event).begin_ns)
        elif name == _GRADIENT:
            gradient = _gradient(trace, event)
            if gradient is not None:
                _keep(trace, trace.gradients, gradient)
    elif category == "kernel" and name.startswith("nccl"):
        _keep(trace, trace.on_gpu, _transfer(trace, event, name.partition("(")[0]))


def _keep(trace: RankTrace, into: list[Any], what: Any) -> None:
    _room(trace)
    into.append(what)


def _room(trace: RankTrace) -> None:
    if not trace.room:
        _wrong(trace, "", f"is beyond {MOST_KEPT:,} collectives, gradients and marks of all ranks; record fewer steps")
    trace.room -= 1


def _span(trace: RankTrace, event: dict[str, Any]) -> Span:
    begin, length = event.get("ts"), event.get("dur")
    for key, value in (("ts", begin), ("dur", length)):
        good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _LONGEST_US
        if not good or not math.isfinite(value):  # type: ignore[arg-type]
            _wrong(trace, value, f'has no time as "{key}"')
    begin_ns = trace.base_ns + round(begin * 1000)  # type: ignore[operator]
    return Span(begin_ns, begin_ns + round(length * 1000))  # type: ignore[operator]


def _transfer(trace: RankTrace, event: dict[str, Any], name: str) -> Transfer:
    span, args = _span(trace, event), event.get("args")
    return Transfer(*span, name[:80], _nbytes(args) if isinstance(args, dict) else None)


def _nbytes(args: dict[str, Any]) -> int | None:
    """What one rank puts in, where NCCL's figures or the recorded shapes tell."""
    elements, kind = args.get("In msg nelems"), args.get("dtype")
    if elements is None:
        dims, kinds = args.get("Input Dims"), args.get("Input type")
        if not isinstance(dims, list) or not isinstance(kinds, list) or not dims or not kinds:
            return None
        shape = dims[0]
        while isinstance(shape, list) and shape and isinstance(shape[0], list):
            if len(shape) > 1:
                return None
            shape = shape[0]
        elements, kind = numel_of(shape), kinds[0]
    size = TYPES.get(str(kind).lower())
    good = type(elements) is int and 0 <= elements < 1 << 50 and size is not None
    return elements * size[1] if good else None  # type: ignore[operator, index]


def _gradient(trace: RankTrace, event: dict[str, Any]) -> Gradient | None:
    """None without recorded shapes."""
    args = event.get("args")
    dims, kinds = (args.get("Input Dims"), args.get("Input type")) if isinstance(args, dict) else (None, None)
    if not isinstance(dims, list) or not isinstance(kinds, list) or not dims or not kinds or numel_of(dims[0]) is None:
        return None
    kind = TYPES.get(str(kinds[0]).lower())
    return Gradient(_span(trace, event).end_ns, tuple(dims[0]), kind[0]) if kind else None


def _wrong(trace: RankTrace, value: Any, message: str) -> Any:
    raise InputError.one(str(trace.path), f"traceEvents[{trace.events - 1}]", str(value)[:80], message)
