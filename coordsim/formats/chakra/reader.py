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
"""Largest number of characters; a fused optimizer's node lists several tensors for each of thousands of parameters."""
GROUPS = "## process_group:init ##"
_FORWARD = "DistributedDataParallel.forward"
SCHEMAS = (
    "1.0.0", "1.0.1", "1.0.2-chakra.0.0.4", "1.0.3-chakra.0.0.4", "1.0.4-chakra.0.0.4", "1.1.0-chakra.0.0.4",
    "1.1.1-chakra.0.0.4", "1.1.1-chakra.1.0.0", "1.0.2-chakra.1.0.0", "0.0.4", "1.0.0",
)  # fmt: skip
"""Schemas that PyTorch and Chakra's converters have written. Others are read in the same way, and named."""


@dataclass
class Execution:
    """The content of one file, in order of the nodes' numbers, which is the order in which they began."""

    path: Path
    schema: str | None = None
    nodes: int = 0
    marks: Marks = field(default_factory=Marks)
    calls: list[Call] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)
    """Names of nodes that communicate but are no known collective."""
    accumulated: list[Accumulation] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)
    """Where backward passes begin; empty if the trace has no sequence numbers."""
    forwards: list[int] = field(default_factory=list)
    described_ranks: int | None = None
    """Number of ranks of the largest process group that is described."""
    ranks: int | None = None
    """The same, or else that of the largest group that is used."""
    backend: str | None = None
    groups_cut: bool = False
    """Whether process groups are described in a text that is no JSON; a version of PyTorch cut it at 4,096
    characters."""
    lost: str | None = None


class Collector:
    """Takes nodes in the order of the file, in which a node may come before or after those within it."""

    def __init__(self, path: Path) -> None:
        self.found = Execution(path)
        self._parts: list[Part] = []
        self._backward: list[Backward] = []
        self._evaluated: dict[int, int] = {}
        self._group_size: int | None = None

    def take(self, node: Node) -> None:
        """Keep what is needed of ``node``. Raises InputError if that is more than can be kept."""
        execution, name = self.found, node.name
        execution.nodes += 1
        execution.marks.add(node)
        if name == gradients.NAME:
            execution.accumulated.append(gradients.accumulation_of(node))
        elif name.startswith(gradients.EVALUATED):
            self._evaluated[node.number] = node.parent
        elif name == GROUPS:
            text = node.inputs.values[0] if node.inputs.values else None
            if isinstance(text, str):
                execution.described_ranks, execution.backend = ranks_of_groups(text)
                execution.groups_cut = execution.described_ranks is None
        elif name == _FORWARD:
            execution.forwards.append(node.number)
        elif (part := part_of(node)) is not None:
            self._parts.append(part)
            if part.kind and (size := group_size_of(node)) is not None:
                self._group_size = max(size, self._group_size or 0)
        elif (sequence := node.sequence) is not None and node.attributes.get("scope") == 1:
            self._backward.append(Backward(node.number, node.parent, node.thread, sequence))
        kept = len(execution.accumulated) + len(execution.marks) + len(execution.forwards)
        kept += len(self._parts) + len(self._backward) + len(self._evaluated)
        if kept > MOST_KEPT:
            message = f"is beyond {MOST_KEPT:,} collectives and nodes of backward"
            wrong(execution.path, f"node {node.number}", "", message)

    def done(self) -> Execution:
        """Return everything that was taken, in order."""
        execution = self.found
        execution.calls, execution.unread = calls_of(self._parts)
        execution.accumulated.sort(key=lambda gradient: gradient.number)
        execution.passes = gradients.starts_of_passes(self._backward, self._evaluated)
        execution.forwards.sort()
        execution.ranks = execution.described_ranks or self._group_size
        if execution.backend is None:
            execution.backend = ", ".join(sorted({call.backend for call in execution.calls if call.backend})) or None
        return execution


def read_json(path: Path) -> Execution:
    """Read a JSON trace. Raises InputError, with the file and the node, for anything that is no execution trace."""
    text = JsonText(path, EXPECTED, "node", LONGEST_NODE)
    collector = Collector(path)
    execution = collector.found
    calls = DeviceCalls(path)
    for key, value in members(text, frozenset({"nodes", "workload_graph"})):
        if key == "schema" and isinstance(value, str):
            execution.schema = value[:40]
        elif key == "nodes":
            collector.take(node_of(path, f"nodes[{execution.nodes}]", value, EXPECTED))
        elif key == "workload_graph":
            node = simulated_node(path, f"workload_graph[{execution.nodes}]", value)
            collector.take(node)
            calls.take(node.number, node.name, value.get("NodeType"), value)
        elif key == "ngpus" and type(value) is int and 0 < value <= 1 << 20:
            execution.described_ranks = value
    execution.lost = text.lost
    if not execution.nodes:
        wrong(path, "nodes", None, f"holds no node; {EXPECTED}")
    collector.done()
    execution.calls = calls.done() or execution.calls
    return execution
