"""Reads the nodes of an execution trace that communicate, and its gradients."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from coordsim.errors import InputError
from coordsim.formats.shared.json_text import JsonText, members
from coordsim.formats.shared.torch_types import TYPES, numel_of

EXPECTED = "expected an execution trace: an object with nodes, as ExecutionTraceObserver writes"
MOST_KEPT = 1 << 20
_GRADIENT = "torch::autograd::AccumulateGrad"
_GROUPS = "## process_group:init ##"
_COLLECTIVES = ("c10d::", "gloo:", "nccl:", "mpi:", "ucc:")


@dataclass(frozen=True, slots=True)
class Message:
    name: str
    nbytes: int | None
    duration_ns: int | None = None


@dataclass
class Execution:
    path: Path
    schema: str | None = None
    nodes: int = 0
    messages: list[Message] = field(default_factory=list)
    """In order of the nodes' numbers, which is the order in which they began."""
    gradients: list[tuple[tuple[int, ...], str]] = field(default_factory=list)
    """(shape, type), in the order in which backward made them."""
    ranks: int | None = None
    lost: str | None = None


def read_json(path: Path) -> Execution:
    """Raises InputError, with the file and the node, for what is no execution trace."""
    found = Execution(path)
    text = JsonText(path, EXPECTED, "node")
    kept: list[tuple[int, Message]] = []
    gradients: list[tuple[int, tuple[int, ...], str]] = []
    for key, value in members(text, frozenset({"nodes"})):
        if key == "schema" and isinstance(value, str):
            found.schema = value[:40]
        if key != "nodes":
            continue
        where = f"nodes[{found.nodes}]"
        found.nodes += 1
        if not isinstance(value, dict) or not isinstance(value.get("name"), str) or type(value.get("id")) is not int:
            wrong(path, where, value, f"is no node with an id and a name; {EXPECTED}")
        if len(kept) + len(gradients) == MOST_KEPT:
            wrong(path, where, "", f"is beyond {MOST_KEPT:,} collectives and gradients")
        name = value["name"]
        if name.startswith(_COLLECTIVES):
            kept.append((value["id"], Message(name[:80], _nbytes(value.get("inputs")))))
        elif name == _GRADIENT:
            shape = _shape(value.get("inputs"))
            if shape is not None:
                gradients.append((value["id"], *shape))
        elif name == _GROUPS:
            found.ranks = _world(value.get("inputs"))
    found.lost = text.lost
    if not found.nodes:
        wrong(path, "nodes", None, f"holds no node; {EXPECTED}")
    found.messages = [message for _, message in sorted(kept, key=lambda each: each[0])]
    found.gradients = [(shape, kind) for _, shape, kind in sorted(gradients)]
    return found


def _first(inputs: Any) -> tuple[Any, str] | None:
    """(shape, type) of a node's first input; of a list of one tensor, that tensor's."""
    if not isinstance(inputs, dict):
        return None
    shapes, types = inputs.get("shapes"), inputs.get("types")
    if not isinstance(shapes, list) or not isinstance(types, list) or not shapes or not types:
        return None
    shape, kind = shapes[0], str(types[0])
    if kind.startswith("GenericList[") and isinstance(shape, list) and len(shape) == 1 and "," not in kind:
        shape, kind = shape[0], kind.removeprefix("GenericList[").removesuffix("]")
    if not kind.startswith("Tensor("):
        return None
    return shape, kind.removeprefix("Tensor(").removesuffix(")")


def _nbytes(inputs: Any) -> int | None:
    found = _first(inputs)
    if found is None:
        return None
    numel, size = numel_of(found[0]), TYPES.get(found[1].lower())
    return numel * size[1] if numel is not None and size is not None else None


def _shape(inputs: Any) -> tuple[tuple[int, ...], str] | None:
    found = _first(inputs)
    if found is None or numel_of(found[0]) is None or found[1].lower() not in TYPES:
        return None
    return tuple(found[0]), TYPES[found[1].lower()][0]


def _world(inputs: Any) -> int | None:
    """Ranks of the largest process group, which PyTorch writes as JSON within the JSON."""
    values = inputs.get("values") if isinstance(inputs, dict) else None
    if not isinstance(values, list) or not values or not isinstance(values[0], str):
        return None
    try:
        groups = json.loads(values[0])
    except (ValueError, RecursionError):
        return None
    sizes = [each.get("group_size") for each in groups if isinstance(each, dict)] if isinstance(groups, list) else []
    return max((size for size in sizes if type(size) is int and 0 < size <= 1 << 20), default=None)


def wrong(path: Path, key: str, value: Any, message: str) -> NoReturn:
    """Raise: the file is not what it should be."""
    raise InputError.one(str(path), key, str(value)[:80], message)
