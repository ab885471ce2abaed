"""The content of one trace file, before it is interpreted. Times are ns on the file's clock."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from coordsim.formats.kineto.sizes import NOTHING, Elements

OPERATOR, METADATA, TITLE = 0, 1, 2
"""Kinds of records of a call: c10d's operator, ``record_param_comms``, the backend's annotation."""
SINCE_1970_NS = 10**17
"""Larger times are counted from 1970: 1973, or three years after a machine's boot."""
MOST_LAUNCHES = 1 << 22
"""Largest number of launches of a file that are kept, 20 bytes each."""


class Span(NamedTuple):
    begin_ns: int
    end_ns: int


class Mark(NamedTuple):
    """A named span: a step, or an optimizer's step."""

    begin_ns: int
    end_ns: int
    name: str
    number: int = 0


class Group(NamedTuple):
    """What is known of a call's process group."""

    name: str = ""
    size: int | None = None
    ranks: tuple[int, ...] | None = None
    sequence: int | None = None


UNGROUPED = Group()


class Record(NamedTuple):
    """One event of the CPU that describes a call."""

    thread: int
    begin_ns: int
    end_ns: int
    kind: int
    operation: str | None
    backend: str
    known: Elements
    external: int | None
    group: Group


class Kernel(NamedTuple):
    """One activity of a device that moves data between ranks."""

    begin_ns: int
    end_ns: int
    name: str
    operation: str | None
    device: str
    stream: str
    correlation: int | None
    external: int | None
    known: Elements = NOTHING
    group: Group = UNGROUPED


class Gradient(NamedTuple):
    at_ns: int
    shape: tuple[int, ...]
    dtype: str


@dataclass
class Launches:
    """Launches of kernels: correlation -> thread and time; columns of one length."""

    correlation: array[int] = field(default_factory=lambda: array("q"))
    at_ns: array[int] = field(default_factory=lambda: array("q"))
    thread: array[int] = field(default_factory=lambda: array("i"))
    left_out: int = 0

    def add(self, correlation: int, at_ns: int, thread: int) -> None:
        """Keep a launch if there is room."""
        if len(self.correlation) >= MOST_LAUNCHES:
            self.left_out += 1
            return
        self.correlation.append(correlation)
        self.at_ns.append(at_ns)
        self.thread.append(thread)


@dataclass
class Nodes:
    """Backward's nodes: begin, end, and index of the name; columns of one length."""

    begin_ns: array[int] = field(default_factory=lambda: array("q"))
    end_ns: array[int] = field(default_factory=lambda: array("q"))
    name: array[int] = field(default_factory=lambda: array("i"))
    names: dict[str, int] = field(default_factory=dict)
    evaluated: bool = False
    """Whether the engine's own records of nodes are there."""

    def add(self, span: Span, name: str) -> None:
        """Keep a node."""
        self.begin_ns.append(span.begin_ns)
        self.end_ns.append(span.end_ns)
        self.name.append(self.names.setdefault(name[:120], len(self.names)))


@dataclass
class Process:
    """One process's events in a file, which are one rank's, as profilers write them."""

    pid: str
    rank: int | None = None
    """The rank as written by tools that join the traces of several ranks (``args.rank``)."""
    steps: list[Mark] = field(default_factory=list)
    device_steps: list[Mark] = field(default_factory=list)
    optimizers: list[Mark] = field(default_factory=list)
    zero_grads: list[Mark] = field(default_factory=list)
    forwards: list[Span] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)
    """When FSDP2's root module begins its forward pass."""
    loaders: list[Span] = field(default_factory=list)
    nodes: Nodes = field(default_factory=Nodes)
    records: list[Record] = field(default_factory=list)
    kernels: list[Kernel] = field(default_factory=list)
    launches: Launches = field(default_factory=Launches)
    gradients: list[Gradient] = field(default_factory=list)


@dataclass
class RawTrace:
    """The content of one file."""

    file: str
    rank: int | None = None
    world_size: int | None = None
    backend: str | None = None
    host: str | None = None
    groups: dict[str, tuple[int, ...]] | None = None
    """Name -> ranks, of the groups that the file lists with their ranks."""
    group_count: int | None = None
    shapes: bool = False
    """Whether the file states that shapes were recorded."""
    events: int = 0
    characters: int = 0
    lost: str | None = None
    processes: list[Process] = field(default_factory=list)
    threads: dict[tuple[str, str], int] = field(default_factory=dict)
    """(pid, tid) -> number."""
    window: Span | None = None
    not_read: Counter[str] = field(default_factory=Counter)
    """Events that suggest communication, or lack a time, and were left out -> how often."""


def move(trace: RawTrace, by_ns: int) -> None:
    """Shift times that were read relative to a base, when the base stands behind the events, to times since 1970."""

    def later(at_ns: int) -> int:
        return at_ns if at_ns >= SINCE_1970_NS else at_ns + by_ns

    def moved(spans: list[Any]) -> list[Any]:
        return [one._replace(begin_ns=later(one.begin_ns), end_ns=later(one.end_ns)) for one in spans]

    for process in trace.processes:
        for name in (
            "steps", "device_steps", "optimizers", "zero_grads", "forwards", "loaders", "records", "kernels",
        ):  # fmt: skip
            setattr(process, name, moved(getattr(process, name)))
        process.roots = [later(at_ns) for at_ns in process.roots]
        process.gradients = [one._replace(at_ns=later(one.at_ns)) for one in process.gradients]
        for column in (process.nodes.begin_ns, process.nodes.end_ns, process.launches.at_ns):
            if column:
                values = np.frombuffer(column, np.int64)
                values[values < SINCE_1970_NS] += by_ns
    if trace.window is not None:
        trace.window = Span(later(trace.window.begin_ns), later(trace.window.end_ns))
