"""Reads the protobuf form (``.et``, ``.eg``): messages, each behind its length, a GlobalMetadata and then a Node each.

MLCommons Chakra's schema has had four forms; nothing in a file says which, but their fields differ:

| from | node | attributes | a collective | ``comm_type`` |
|---|---|---|---|---|
| 2023-01 (``eg_def.proto``) | ``comm_type`` 13, ``comm_size`` 18 | none | type 6 | 1 to 4, no metadata |
| 2023-06 (0.0.2) | ``parent`` 4 | field 11; whole numbers in 5 | type 6 | 0 to 3, no metadata |
| 2023-07 (0.0.3) | ``parent`` 4 | field 11; whole numbers in 6 or 7 | type 7 | 0 to 4 |
| 2023-10 (0.0.4 and 1.0.0) | ``ctrl_deps`` 4, ``data_deps`` 5 | field 10 | type 7 | 0 to 9 |

Fields that are not known are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from coordsim.formats.chakra import gradients
from coordsim.formats.chakra.collectives import RECORD
from coordsim.formats.chakra.node import Arguments, Node, wrong
from coordsim.formats.chakra.reader import GROUPS, Collector, Execution
from coordsim.formats.chakra.simulated import COLLECTIVE, KINDS, RECEIVE, SEND, DeviceCalls
from coordsim.formats.shared.python_literal import literal
from coordsim.formats.shared.sources import open_source

LARGEST_MESSAGE = 1 << 24
_PIECE = 1 << 18
EXPECTED = "expected Chakra's protobuf: length-delimited messages"
_ID, _NAME, _TYPE, _PARENT, _INPUTS, _ATTRIBUTE, _OLD_ATTRIBUTE = 1, 2, 3, 4, 8, 10, 11
_FIRST_COMM_TYPE, _FIRST_COMM_SIZE = 13, 18
_WHOLE, _ZIGZAG, _FIXED, _BOOL, _STRING = (7, 9, 11, 13), (15, 17), (19, 21, 23, 25), 27, 29
_OLD_WHOLE, _OLD_STRINGS = (5, 6, 7), (6, 7, 8)
_MOST_ATTRIBUTES = 1000
_LONGEST_ARGUMENTS = 1 << 16
_OLD_KINDS = ("all_reduce", "all_to_all", "all_gather", "reduce_scatter", "broadcast")
_WITH_ARGUMENTS = frozenset({gradients.NAME, GROUPS, RECORD})


class _Message(NamedTuple):
    """A Node, as it was written."""

    number: int
    name: str
    kind: int
    parent: int
    attributes: dict[str, Any]
    inputs: bytes
    form: int
    """1, 2 (both of 0.0.2 and 0.0.3) or 4, as in the table above."""


def read_protobuf(path: Path) -> Execution:
    """Return the calls and gradients in ``path``. Raises InputError if the bytes are no such messages."""
    collector = Collector(path)
    execution = collector.found
    calls = DeviceCalls(path)
    for place, data in enumerate(_messages(path, execution)):
        if place == 0 and _is_metadata(path, data):
            execution.schema = _schema(path, data)
            continue
        message = _message(path, data)
        collector.take(_node(message))
        _take_call(calls, message)
    if not execution.nodes:
        wrong(path, "", None, f"{execution.lost or 'holds no node'}; {EXPECTED}")
    collector.done()
    execution.calls = calls.done() or execution.calls
    return execution


def _take_call(calls: DeviceCalls, message: _Message) -> None:
    """Pass ``message`` to ``calls`` in today's numbers."""
    kind, attributes = message.kind, message.attributes
    kinds: tuple[str, ...] = KINDS if message.form == 4 else _OLD_KINDS
    if message.form != 4:
        if message.form == 1 and kind in (SEND - 1, RECEIVE - 1, COLLECTIVE - 1):
            kind += 1
        elif message.form == 2 and "comm_type" in attributes and kind == RECEIVE:
            kind = COLLECTIVE  # 0.0.2 had no type for metadata, so that all others were one less
        if message.form == 1 and kind == COLLECTIVE:
            attributes = {**attributes, "comm_type": attributes.get("comm_type", 0) - 1}
    calls.take(message.number, message.name, kind, attributes, kinds)


def _node(message: _Message) -> Node:
    name = message.name
    with_arguments = name in _WITH_ARGUMENTS or name.startswith("c10d::") or ":" in name[:20]
    inputs = _arguments(message.inputs) if with_arguments and message.inputs else Arguments([], [], [])
    return Node(message.number, message.parent, name, message.attributes, inputs)


def _arguments(data: bytes) -> Arguments:
    """Return the arguments of an IOInfo: three lists, as Python printed them."""
    lists: list[list[Any]] = [[], [], []]
    for tag, value in _fields(None, data):
        if isinstance(value, bytes) and 1 <= tag <= 3:
            try:
                read = literal(value.decode("utf-8", "replace"), _LONGEST_ARGUMENTS)
            except ValueError:
                continue
            lists[tag - 1] = read if isinstance(read, list) else []
    return Arguments(*lists)


def _messages(path: Path, execution: Execution) -> Iterator[bytes]:
    """Yield each message's bytes; a truncated one at the end is noted. At most one message is held in memory."""
    with open_source(path) as source:
        buffer, at = b"", 0
        while True:
            length, shift = 0, 0
            while True:
                if at == len(buffer):
                    buffer, at = source.read(_PIECE), 0
                    if not buffer:
                        execution.lost = source.lost or ("the length of the last message" if shift else None)
                        return
                byte = buffer[at]
                at += 1
                length |= (byte & 0x7F) << shift
                shift += 7
                if not byte & 0x80:
                    break
                if shift > 28:
                    wrong(path, "", None, f"a message without a length; {EXPECTED}")
            if length > LARGEST_MESSAGE:
                wrong(path, "", length, f"a message of {length:,} bytes; {EXPECTED}")
            data = bytearray(buffer[at : at + length])
            at += len(data)
            while len(data) < length:
                buffer, at = source.read(_PIECE), length - len(data)
                if not buffer:
                    execution.lost = source.lost or f"the last message ({len(data)} of {length} bytes)"
                    return
                data += buffer[:at]
                at = min(at, len(buffer))
            yield bytes(data)


def _is_metadata(path: Path, data: bytes) -> bool:
    """Return whether the first message is a GlobalMetadata: a node has a type, and its first field is a number."""
    fields = [(tag, isinstance(value, int)) for tag, value in _fields(path, data)]
    return (_ID, True) not in fields and (_TYPE, True) not in fields


def _schema(path: Path, data: bytes) -> str | None:
    """Return the version of GlobalMetadata, or, where a converter noted it, the version of the file that it read."""
    version = None
    for tag, value in _fields(path, data):
        if isinstance(value, bytes):
            if tag == 1 and value[:1] != b"\n":
                version = value.decode("utf-8", "replace")[:40] or None
            else:
                name, noted = _attribute(path, value, old=tag == 1)
                if name == "schema" and isinstance(noted, str):
                    version = noted[:40]
    return version


def _message(path: Path, data: bytes) -> _Message:
    number, name, kind, parent, inputs, form = 0, "", 0, 0, b"", 4
    attributes: dict[str, Any] = {}
    for tag, value in _fields(path, data):
        if isinstance(value, int):
            if tag == _ID:
                number = value
            elif tag == _TYPE:
                kind = value
            elif tag == _PARENT:
                parent = parent or value
            elif tag in (_FIRST_COMM_TYPE, _FIRST_COMM_SIZE):
                form = 1
                attributes["comm_type" if tag == _FIRST_COMM_TYPE else "comm_size"] = value
        elif tag == _NAME:
            name = value.decode("utf-8", "replace")
        elif tag == _PARENT:
            parent = parent or (_varint(path, value, 0)[0] if value else 0)
        elif tag == _INPUTS:
            inputs = value
        elif tag in (_ATTRIBUTE, _OLD_ATTRIBUTE) and len(attributes) < _MOST_ATTRIBUTES:
            old = tag == _OLD_ATTRIBUTE
            form = 2 if old else form
            label, said = _attribute(path, value, old=old)
            if said is not None:
                attributes[label] = said
    return _Message(number, name, kind, parent, attributes, inputs if form == 4 else b"", form)


def _attribute(path: Path, data: bytes, *, old: bool) -> tuple[str, Any]:
    """Return (name, value) of an AttributeProto; None for a value of a kind that is not used."""
    label: str = ""
    said: Any = None
    for tag, value in _fields(path, data):
        if tag == 1 and isinstance(value, bytes):
            label = value.decode("utf-8", "replace")[:80]
        elif old:
            if isinstance(value, int) and tag in _OLD_WHOLE:
                said = _signed(value)
            elif isinstance(value, int) and tag == 4:
                said = bool(value)
            elif isinstance(value, bytes) and tag in _OLD_STRINGS:
                said = value.decode("utf-8", "replace")[:200]
        elif isinstance(value, int):
            if tag in _WHOLE:
                said = _signed(value)
            elif tag in _ZIGZAG:
                said = (value >> 1) ^ -(value & 1)
            elif tag == _BOOL:
                said = bool(value)
        elif tag in _FIXED:
            said = int.from_bytes(value, "little", signed=tag in _FIXED[2:])
        elif tag == _STRING:
            said = value.decode("utf-8", "replace")[:200]
    return label, said


def _signed(value: int) -> int:
    return value if value < 1 << 63 else value - (1 << 64)


def _fields(path: Path | None, data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (field number, whole number or bytes) of a message; fixed-width values are bytes.

    Without a ``path``, an invalid message ends the iteration without an error.
    """
    at = 0
    while at < len(data):
        key, at = _varint(path, data, at)
        tag, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(path, data, at)
            yield tag, value
            continue
        if wire == 2:
            length, at = _varint(path, data, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            length = _no_message(path, f"a field of wire type {wire}")
        if length > len(data) - at:
            length = _no_message(path, "a field that is longer than its message")
        if length < 0:
            return
        yield tag, data[at : at + length]
        at += length


def _varint(path: Path | None, data: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value & ((1 << 64) - 1), at
    return _no_message(path, "a number without an end"), len(data)


def _no_message(path: Path | None, what: str) -> int:
    if path is not None:
        wrong(path, "", None, f"{what}; {EXPECTED}")
    return -1
