"""Reads an execution trace, JSON or protobuf, node by node, and keeps what communicates and what accumulates."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from coordsim.formats.chakra import gradients
from coordsim.formats.chakra.collectives import Call, Part, calls_of, part_of
from coordsim.formats.chakra.gradients import Accumulation, Backward, Within
from coordsim.formats.chakra.iterations import Marks
from coordsim.formats.chakra.node import Node, node_of, ranks_of_groups, wrong
from coordsim.formats.shared.json_text import JsonText, members

EXPECTED = "expected an execution trace: an object with nodes, as ExecutionTraceObserver writes"
MOST_KEPT = 1 << 20
_MOST_CHILDREN = 1 << 16
GROUPS = "## process_group:init ##"
_FORWARD = "DistributedDataParallel.forward"
SCHEMAS = (
    "1.0.0", "1.0.1", "1.0.2-chakra.0.0.4", "1.0.3-chakra.0.0.4", "1.0.4-chakra.0.0.4", "1.1.0-chakra.0.0.4",
    "1.1.1-chakra.0.0.4", "1.1.1-chakra.1.0.0",
)  # fmt: skip
"""Those that PyTorch and Chakra's converters have written. Others are read alike, and named."""


@dataclass
class Execution:
    """What one file says, in order of the nodes' numbers, which is the order in which they began."""

    path: Path
    schema: str | None = None
    nodes: int = 0
    marks: Marks = field(default_factory=Marks)
    calls: list[Call] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)
    """Names of what communicates but is no known collective."""
    accumulated: list[Accumulation] = field(default_factory=list)
    within: dict[int, Within] = field(default_factory=dict)
    """By the number of the accumulation."""
    passes: list[int] = field(default_factory=list)
    """Where backward passes begin; empty when the trace has no sequence numbers."""
    forwards: list[int] = field(default_factory=list)
    ranks: int | None = None
    """Of the largest process group that is described or used."""
    backend: str | None = None
    lost: str | None = None


class Collector:
    """Takes nodes in the order of the file, in which a node may come before or behind those within it."""

    def __init__(self, path: Path) -> None:
        self.found = Execution(path)
        self._parts: list[Part] = []
        self._backward: list[Backward] = []
        self._children: dict[int, Within] = {}
        """What nodes said whose parents have not come yet; the oldest are forgotten."""
        self._waiting: set[int] = set()
        self._group_size: int | None = None

    def take(self, node: Node) -> None:
        """Keep what is needed of ``node``. Raises InputError when that is more than can be kept."""
        found, name = self.found, node.name
        found.nodes += 1
        found.marks.add(node)
        if name == gradients.NAME:
            found.accumulated.append(gradients.accumulation_of(node))
            self._waiting.add(node.number)
            if (said := self._children.pop(node.number, None)) is not None:
                found.within[node.number] = said
        elif name in gradients.CHILDREN:
            self._child(node)
        elif name == GROUPS:
            text = node.inputs.values[0] if node.inputs.values else None
            if isinstance(text, str):
                found.ranks, found.backend = ranks_of_groups(text)
        elif name == _FORWARD:
            found.forwards.append(node.number)
        elif (part := part_of(node)) is not None:
            self._parts.append(part)
            size = node.attributes.get("pg_size")
            if type(size) is int and 0 < size <= 1 << 20:
                self._group_size = max(size, self._group_size or 0)
        elif (sequence := node.sequence) is not None and node.attributes.get("scope") == 1:
            self._backward.append(Backward(node.number, node.thread, sequence))
        kept = len(found.accumulated) + len(self._parts) + len(self._backward) + len(found.marks) + len(found.forwards)
        if kept > MOST_KEPT:
            wrong(found.path, f"node {node.number}", "", f"is beyond {MOST_KEPT:,} collectives and nodes of backward")

    def _child(self, node: Node) -> None:
        said = gradients.within_of(node)
        if said is None:
            return
        if node.parent in self._waiting:
            self.found.within.setdefault(node.parent, said)
            return
        self._children[node.parent] = said
        if len(self._children) > _MOST_CHILDREN:
            del self._children[next(iter(self._children))]

    def done(self) -> Execution:
        """Everything that was taken, in order."""
        found = self.found
        found.calls, found.unread = calls_of(self._parts)
        found.accumulated.sort(key=lambda gradient: gradient.number)
        found.passes = gradients.starts_of_passes(self._backward)
        found.forwards.sort()
        found.ranks = found.ranks or self._group_size
        if found.backend is None:
            found.backend = ", ".join(sorted({call.backend for call in found.calls if call.backend})) or None
        return found


def read_json(path: Path) -> Execution:
    """Raises InputError, with the file and the node, for what is no execution trace."""
    text = JsonText(path, EXPECTED, "node")
    collector = Collector(path)
    found = collector.found
    for key, value in members(text, frozenset({"nodes"})):
        if key == "schema" and isinstance(value, str):
            found.schema = value[:40]
        elif key == "nodes":
            collector.take(node_of(path, f"nodes[{found.nodes}]", value, EXPECTED))
    found.lost = text.lost
    if not found.nodes:
        wrong(path, "nodes", None, f"holds no node; {EXPECTED}")
    return collector.done()
