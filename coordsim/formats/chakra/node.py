"""One node of an execution trace of any schema: its numbers, its tensors and its attributes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from coordsim.errors import InputError
from coordsim.formats.shared.torch_types import TYPES, numel_of

LARGEST_BYTES = 1 << 50
_LARGEST_ID = (1 << 64) - 1
_DEEPEST = 8
"""Largest depth of nested lists of tensors; PyTorch's largest is 2."""
_LISTS = ("GenericList[", "TensorList[", "Tuple[", "List[")
_ATTRIBUTES = frozenset({"tid", "seq_id", "scope", "collective_name", "dtype", "in_msg_nelems", "pg_size"})


class Tensor(NamedTuple):
    """One tensor among a node's arguments; None for values that the node does not state."""

    identity: int | None
    """PyTorch's number of the tensor object. Numbers are those of addresses, so they are reused."""
    storage: int | None
    shape: tuple[int, ...] | None
    dtype: str | None
    nbytes: int | None


class Arguments(NamedTuple):
    """A node's inputs: three lists of one length."""

    values: list[Any]
    shapes: list[Any]
    types: list[Any]

    def tensors(self, place: int) -> list[Tensor]:
        """Return every tensor in the argument at ``place``, which may be a list of tensors, or of such lists."""
        if place >= max(len(self.values), len(self.shapes)) or place >= len(self.types):
            return []
        kind = self.types[place]
        if not isinstance(kind, str):
            return []
        value = self.values[place] if place < len(self.values) else None
        shape = self.shapes[place] if place < len(self.shapes) else None
        return list(_tensors(kind, value, shape, _DEEPEST))


class Node(NamedTuple):
    """The used part of a node."""

    number: int
    parent: int
    name: str
    attributes: dict[str, Any]
    source: dict[str, Any] | Arguments
    """The inputs, or the object that contains them, since most nodes' inputs are never needed."""

    @property
    def inputs(self) -> Arguments:
        return self.source if isinstance(self.source, Arguments) else _inputs(self.source)

    @property
    def thread(self) -> Any:
        return self.attributes.get("tid")

    @property
    def sequence(self) -> int | None:
        """Autograd's sequence number of a node of backward; None for other nodes."""
        value = self.attributes.get("seq_id")
        return value if type(value) is int and 0 <= value < 1 << 62 else None


def node_of(path: Path, where: str, value: Any, expected: str) -> Node:
    """Return the node of ``value``, one element of ``nodes``. Raises InputError for a value without id and name."""
    if not isinstance(value, dict):
        wrong(path, where, value, f"is no object; {expected}")
    number, name = value.get("id"), value.get("name")
    if type(number) is not int or not isinstance(name, str):
        key = "name" if type(number) is int else "id"
        wrong(path, where, value.get(key), f'has no "{key}"; {expected}')
    if not 0 <= number <= _LARGEST_ID:
        wrong(path, f"{where}.id", number, "is not between 0 and 2^64 - 1")
    return Node(number, _parent(value), name, _attributes(value), value)


def _parent(value: dict[str, Any]) -> int:
    """Return the parent's number, called ``ctrl_deps`` in schemas from 1.0.2 on, and ``parent`` before; 0 for none."""
    parent = value.get("ctrl_deps", value.get("parent"))
    if isinstance(parent, list):
        parent = parent[0] if parent else None
    return parent if type(parent) is int and 0 <= parent <= _LARGEST_ID else 0


def _inputs(value: dict[str, Any]) -> Arguments:
    """Return ``inputs``: an object of three lists (from 1.0.2 on), or a list beside ``input_shapes`` and
    ``input_types``."""
    inner = value.get("inputs")
    if isinstance(inner, dict):
        lists = [inner.get("values"), inner.get("shapes"), inner.get("types")]
    else:
        lists = [inner, None, None]
    lists[1], lists[2] = lists[1] or value.get("input_shapes"), lists[2] or value.get("input_types")
    return Arguments(*(each if isinstance(each, list) else [] for each in lists))


def _attributes(value: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes that are used: from ``attrs`` (a list of name and value, or an object) and from the
    node."""
    inner = value.get("attrs", value.get("attr"))
    attributes = {key: value[key] for key in _ATTRIBUTES & value.keys()}
    if isinstance(inner, dict):
        attributes.update({key: inner[key] for key in _ATTRIBUTES & inner.keys()})
    elif isinstance(inner, list):
        for entry in inner:
            if isinstance(entry, dict):
                name = entry.get("name")
                if isinstance(name, str) and name in _ATTRIBUTES:
                    attributes[name] = entry.get("value")
    return attributes


def _tensors(kind: str, value: Any, shape: Any, depth: int) -> Iterator[Tensor]:
    if kind.startswith("Tensor("):
        yield _tensor(kind[len("Tensor(") :].removesuffix(")"), value, shape)
        return
    start = next((start for start in _LISTS if kind.startswith(start)), None)
    if start is None or depth == 0:
        return
    values = value if isinstance(value, list) else []
    shapes = shape if isinstance(shape, list) else []
    for place, inner in enumerate(_parts(kind[len(start) :].removesuffix("]"))):
        if inner.startswith(("Tensor(", *_LISTS)):
            yield from _tensors(
                inner, values[place] if place < len(values) else None, shapes[place] if place < len(shapes) else None,
                depth - 1,
            )  # fmt: skip


def _parts(text: str) -> Iterator[str]:
    """Split ``text`` at its commas outside of brackets."""
    if "[" not in text and "(" not in text:
        yield from text.split(",")
        return
    depth, start = 0, 0
    for place, character in enumerate(text):
        if character in "[(<":
            depth += 1
        elif character in "])>":
            depth -= 1
        elif character == "," and depth == 0:
            yield text[start:place].strip()
            start = place + 1
    yield text[start:].strip()


def _tensor(kind: str, value: Any, shape: Any) -> Tensor:
    """Return the tensor of ``value``: tensor, storage, offset, elements, bytes of an element, device."""
    known = isinstance(value, list) and len(value) >= 5 and all(type(each) is int for each in value[:5])
    numbers: list[int | None] = value[:5] if known else [None] * 5
    identity, storage, _, elements, width = numbers
    named = TYPES.get(kind.lower())
    size = named[1] if named else width or None
    if known and width == 0 and not shape:
        # An undefined gradient, or one without a storage: its shape is written as [] too, which is no scalar.
        return Tensor(identity, storage, None, None, None)
    numel = numel_of(shape)
    sized = None if numel is None else tuple(shape)
    if numel is None and elements is not None and 0 <= elements < LARGEST_BYTES:
        numel = elements
    nbytes = numel * size if numel is not None and size and 0 < size <= 1 << 10 else None
    return Tensor(identity, storage, sized, named[0] if named else None, nbytes)


def ranks_of_groups(text: str) -> tuple[int | None, str | None]:
    """Return (ranks of the largest process group, its backends) from what PyTorch writes as JSON within the JSON."""
    try:
        groups = json.loads(text)
    except (ValueError, RecursionError):
        return None, None
    largest: tuple[int, str | None] | None = None
    for group in groups if isinstance(groups, list) else []:
        size = group.get("group_size") if isinstance(group, dict) else None
        if type(size) is int and 0 < size <= 1 << 20 and (largest is None or size > largest[0]):
            backend = group.get("backend_config")
            largest = size, backend[:80] if isinstance(backend, str) and backend else None
    return largest or (None, None)


def wrong(path: Path, key: str, value: Any, message: str) -> NoReturn:
    """Raise InputError: the content of the file is invalid."""
    raise InputError.one(str(path), key, str(value)[:80], message)
