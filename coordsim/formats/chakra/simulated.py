"""Nodes for simulators, whose type states that they communicate: Chakra's protobuf, and its feeder's JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coordsim.formats.chakra.collectives import Call, kind_of
from coordsim.formats.chakra.node import LARGEST_BYTES, Arguments, Node, wrong

MOST_CALLS = 1 << 20
SEND, RECEIVE, COLLECTIVE = 5, 6, 7
KINDS = (
    "all_reduce", "reduce", "all_gather", "gather", "scatter", "broadcast", "all_to_all", "reduce_scatter",
    "reduce_scatter", "barrier",
)  # fmt: skip
"""Kinds of calls by ``comm_type``, since 0.0.4."""


class DeviceCalls:
    """Collects calls. A converter also keeps the host's part of a call as a node; the device's part counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._on_host: list[Call] = []
        self._on_device: list[Call] = []

    def take(
        self, number: int, name: str, node_type: Any, attributes: Mapping[str, Any], kinds: tuple[str, ...] = KINDS
    ) -> None:
        """Keep a node if it is a call. Raises InputError when there are too many."""
        if node_type == COLLECTIVE:
            kind = _kind(name, attributes.get("comm_type"), kinds)
        elif node_type in (SEND, RECEIVE):
            kind = "send" if node_type == SEND else "recv"
        else:
            return
        size = attributes.get("comm_size")
        if size is None and node_type != COLLECTIVE:
            size = attributes.get("tensor_size")
        good = type(size) is int and 0 <= size < LARGEST_BYTES
        calls = self._on_host if attributes.get("is_cpu_op") is True else self._on_device
        calls.append(Call(number, kind, size if good else None))
        if len(self._on_host) + len(self._on_device) > MOST_CALLS:
            wrong(self._path, f"node {number}", "", f"is beyond {MOST_CALLS:,} collectives")

    def done(self) -> list[Call]:
        """Return the calls, in order."""
        return sorted(self._on_device or self._on_host)


def _kind(name: str, number: Any, kinds: tuple[str, ...]) -> str:
    if type(number) is int and 0 <= number < len(kinds):
        return kinds[number]
    operation = name.rpartition(":")[2].partition("(")[0]
    if operation.startswith(("ncclKernel_", "ncclDevKernel_")):
        operation = operation.split("_")[1]
    return kind_of(operation) or f"comm_type {number}"


def simulated_node(path: Path, where: str, value: Any) -> Node:
    """Return an element of ``workload_graph``: Id, Name, NodeType, and the attributes of its call beside them."""
    if not isinstance(value, dict) or type(value.get("Id")) is not int or not isinstance(value.get("Name"), str):
        wrong(path, where, value, "has no Id and Name; expected a node of Chakra's JSON for simulators")
    if not 0 <= value["Id"] < 1 << 64:
        wrong(path, f"{where}.Id", value["Id"], "is not between 0 and 2^64 - 1")
    return Node(value["Id"], 0, value["Name"], {}, Arguments([], [], []))
