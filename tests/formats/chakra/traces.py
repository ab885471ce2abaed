"""Execution traces for tests, built node by node in the form of schema 1.1.1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[2] / "data" / "execution_traces"


Argument = tuple[Any, Any, str]
"""(value, shape, type)."""


def tensor(*shape: int, kind: str = "float", width: int = 4, identity: int = 2, storage: int = 3) -> Argument:
    """A tensor as an argument of a node."""
    numel = 1
    for size in shape:
        numel *= size
    return [identity, storage, 0, numel, width, "cpu"], list(shape), f"Tensor({kind})"


def tensors(*inner: Argument) -> Argument:
    """A list of tensors as one argument."""
    kinds = ",".join(each[2] for each in inner)
    return [each[0] for each in inner], [each[1] for each in inner], f"GenericList[{kinds}]"


def plain(value: Any, kind: str) -> Argument:
    return value, [], kind


class Trace:
    """Nodes are numbered as they are added."""

    def __init__(self, schema: str | None = "1.1.1-chakra.0.0.4") -> None:
        self.schema = schema
        self.nodes: list[dict[str, Any]] = []
        self.last = 1

    def add(self, name: str, *inputs: Argument, parent: int = 1, **attributes: Any) -> int:
        """Returns the node's number."""
        self.last += 1
        self.nodes.append({
            "id": self.last, "name": name, "ctrl_deps": parent,
            "inputs": {
                "values": [each[0] for each in inputs], "shapes": [each[1] for each in inputs],
                "types": [each[2] for each in inputs],
            },
            "outputs": {"values": [], "shapes": [], "types": []},
            "attrs": [{"name": key, "type": "", "value": value} for key, value in attributes.items()],
        })  # fmt: skip
        return self.last

    def gradient(self, *shape: int, parent: int = 1) -> int:
        return self.add("torch::autograd::AccumulateGrad", tensor(*shape), parent=parent)

    def backward(self, sequence: int, parent: int = 1, within: int | None = None) -> int:
        """A node of backward, in the engine's, which may be within another one."""
        engine = self.add("autograd::engine::evaluate_function: AddmmBackward0", parent=within or parent)
        return self.add("AddmmBackward0", parent=engine, seq_id=sequence, scope=1, tid=1)

    def allreduce(self, *shape: int, parent: int = 1) -> int:
        return self.add("c10d::allreduce_", tensors(tensor(*shape)), parent=parent)

    def write(self, path: Path) -> Path:
        found = {"pid": 1, "time": "", "start_ts": 1, "nodes": self.nodes, "finish_ts": 2}
        if self.schema is not None:
            found["schema"] = self.schema
        path.write_text(json.dumps(found))
        return path
