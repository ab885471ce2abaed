"""Reads an execution trace, JSON or protobuf, node by node, and keeps what communicates and what accumulates."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from coordsim.formats.chakra import gradients
from coordsim.formats.chakra.collectives import Call, Part, calls_of, group_size_of, part_of
from coordsim.formats.chakra.gradients import Accumulation, Backward
from coordsim.formats.chakra.iterations import Marks
from coordsim.formats.chakra.node import Node, node_of, ranks_of_groups, wrong
from coordsim.formats.chakra.simulated import DeviceCalls, simulated_node
from coordsim.formats.shared.json_text import JsonText, members

EXPECTED = "expected an execution trace: an object with nodes, as ExecutionTraceObserver writes"
MOST_KEPT = 1 << 20
LONGEST_NODE = 1 << 23
"""Characters; a fused optimizer's node lists several tensors for each of thousands of parameters."""
GROUPS = "## process_group:init ##"
_FORWARD = "DistributedDataParallel.forward"
SCHEMAS = (
    "1.0.0", "1.0.1", "1.0.2-chakra.0.0.4", "1.0.3-chakra.0.0.4", "1.0.4-chakra.0.0.4", "1.1.0-chakra.0.0.4",
    "1.1.1-chakra.0.0.4", "1.1.1-chakra.1.0.0", "1.0.2-chakra.1.0.0", "0.0.4", "1.0.0",
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
    passes: list[int] = field(default_factory=list)
    """Where backward passes begin; empty when the trace has no sequence numbers."""
    forwards: list[int] = field(default_factory=list)
    described_ranks: int | None = None
    """Of the largest process group that is described."""
    ranks: int | None = None
    """The same, else of the largest one that is used."""
    backend: str | None = None
    groups_cut: bool = False
    """Whether process groups are described in a text that is no JSON: PyTorch cut it at 4,096 characters once."""
    lost: str | None = None


class Collector:
    """Takes nodes in the order of the file, in which a node may come before or behind those within it."""

    def __init__(self, path: Path) -> None:
        self.found = Execution(path)
        self._parts: list[Part] = []
        self._backward: list[Backward] = []
        self._evaluated: dict[int, int] = {}
        self._group_size: int | None = None

    def take(self, node: Node) -> None:
        """Keep what is needed of ``node``. Raises InputError when that is more than can be kept."""
        found, name = self.found, node.name
        found.nodes += 1
        found.marks.add(node)
        if name == gradients.NAME:
            found.accumulated.append(gradients.accumulation_of(node))
        elif name.startswith(gradients.EVALUATED):
            self._evaluated[node.number] = node.parent
        elif name == GROUPS:
            text = node.inputs.values[0] if node.inputs.values else None
            if isinstance(text, str):
                found.described_ranks, found.backend = ranks_of_groups(text)
                found.groups_cut = found.described_ranks is None
        elif name == _FORWARD:
            found.forwards.append(node.number)
        elif (part := part_of(node)) is not None:
            self._parts.append(part)
            if part.kind and (size := group_size_of(node)) is not None:
                self._group_size = max(size, self._group_size or 0)
        elif (sequence := node.sequence) is not None and node.attributes.get("scope") == 1:
            self._backward.append(Backward(node.number, node.parent, node.thread, sequence))
        kept = len(found.accumulated) + len(self._parts) + len(self._backward) + len(found.marks) + len(found.forwards)
        if kept + len(self._evaluated) > MOST_KEPT:
            wrong(found.path, f"node {node.number}", "", f"is beyond {MOST_KEPT:,} collectives and nodes of backward")

    def done(self) -> Execution:
        """Everything that was taken, in order."""
        found = self.found
        found.calls, found.unread = calls_of(self._parts)
        found.accumulated.sort(key=lambda gradient: gradient.number)
        found.passes = gradients.starts_of_passes(self._backward, self._evaluated)
        found.forwards.sort()
        found.ranks = found.described_ranks or self._group_size
        if found.backend is None:
            found.backend = ", ".join(sorted({call.backend for call in found.calls if call.backend})) or None
        return found


def read_json(path: Path) -> Execution:
    """Raises InputError, with the file and the node, for what is no execution trace."""
    text = JsonText(path, EXPECTED, "node", LONGEST_NODE)
    collector = Collector(path)
    found = collector.found
    calls = DeviceCalls(path)
    for key, value in members(text, frozenset({"nodes", "workload_graph"})):
        if key == "schema" and isinstance(value, str):
            found.schema = value[:40]
        elif key == "nodes":
            collector.take(node_of(path, f"nodes[{found.nodes}]", value, EXPECTED))
        elif key == "workload_graph":
            node = simulated_node(path, f"workload_graph[{found.nodes}]", value)
            collector.take(node)
            calls.take(node.number, node.name, value.get("NodeType"), value)
        elif key == "ngpus" and type(value) is int and 0 < value <= 1 << 20:
            found.described_ranks = value
    found.lost = text.lost
    if not found.nodes:
        wrong(path, "nodes", None, f"holds no node; {EXPECTED}")
    collector.done()
    found.calls = calls.done() or found.calls
    return found
