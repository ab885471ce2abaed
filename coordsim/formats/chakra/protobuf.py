"""Reads the protobuf form: length-delimited messages, a GlobalMetadata and then a Node each (MLCommons Chakra's
``et_def.proto``). Only what is used is decoded: a node's number, name, type, duration and whole-number attributes."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from coordsim.formats.chakra.reader import MOST_KEPT, Execution, Message, wrong

LARGEST_MESSAGE = 1 << 24
EXPECTED = "expected Chakra's protobuf: length-delimited messages"
_ID, _NAME, _TYPE, _DURATION, _ATTRIBUTE = 1, 2, 3, 7, 10
_ATTRIBUTE_NAME, _WHOLE_VALUES = 1, (7, 9, 11, 13)
_COLLECTIVE_NODE = 7
_KINDS = (
    "all_reduce", "reduce", "all_gather", "gather", "scatter", "broadcast", "all_to_all", "reduce_scatter",
    "reduce_scatter_block", "barrier",
)  # fmt: skip
"""By ``comm_type``."""


class _Node(NamedTuple):
    number: int
    name: str
    kind: int
    duration_us: int
    attributes: dict[str, int]


def read_protobuf(path: Path) -> Execution:
    """The collectives in ``path``. Raises InputError where the bytes are no such messages."""
    found = Execution(path)
    kept: list[tuple[int, Message]] = []
    with open(path, "rb") as file:
        packed = file.peek(2)[:2] == b"\x1f\x8b"
        stream: BufferedReader | gzip.GzipFile = gzip.GzipFile(fileobj=file) if packed else file
        try:
            messages = _messages(path, stream, found)
            if next(messages, None) is None:
                wrong(path, "", None, f"holds no message; {EXPECTED}")
            for data in messages:
                node = _node(path, data)
                found.nodes += 1
                if node.kind == _COLLECTIVE_NODE:
                    if len(kept) == MOST_KEPT:
                        wrong(path, f"node {node.number}", "", f"is beyond {MOST_KEPT:,} collectives")
                    kept.append((node.number, _message(node)))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            wrong(path, "", None, f"damaged compression: {error}")
    if not found.nodes:
        wrong(path, "", None, f"holds no node; {EXPECTED}")
    found.messages = [message for _, message in sorted(kept, key=lambda each: each[0])]
    return found


def _message(node: _Node) -> Message:
    kind = node.attributes.get("comm_type", -1)
    name = _KINDS[kind] if 0 <= kind < len(_KINDS) else node.name
    size = node.attributes.get("comm_size")
    good = size is not None and 0 <= size < 1 << 50
    return Message(name[:80], size if good else None, node.duration_us * 1000 or None)


def _messages(path: Path, stream: BufferedReader | gzip.GzipFile, found: Execution) -> Iterator[bytes]:
    """Each message's bytes; a cut one at the end is noted."""
    while True:
        length, shift = 0, 0
        while True:
            byte = stream.read(1)
            if not byte:
                if shift:
                    found.lost = "the length of the last message"
                return
            length |= (byte[0] & 0x7F) << shift
            shift += 7
            if not byte[0] & 0x80:
                break
            if shift > 28:
                wrong(path, "", None, f"a message without a length; {EXPECTED}")
        if length > LARGEST_MESSAGE:
            wrong(path, "", length, f"a message of {length:,} bytes; {EXPECTED}")
        data = stream.read(length)
        if len(data) < length:
            found.lost = f"the last message ({len(data)} of {length} bytes)"
            return
        yield data


def _node(path: Path, data: bytes) -> _Node:
    number, name, kind, duration = 0, "", 0, 0
    attributes: dict[str, int] = {}
    for tag, value in _fields(path, data):
        if isinstance(value, int):
            if tag == _ID:
                number = value
            elif tag == _TYPE:
                kind = value
            elif tag == _DURATION:
                duration = min(value, 1 << 53)
        elif tag == _NAME:
            name = value.decode("utf-8", "replace")
        elif tag == _ATTRIBUTE:
            label, whole = "", None
            for inner, found in _fields(path, value):
                if inner == _ATTRIBUTE_NAME and isinstance(found, bytes):
                    label = found.decode("utf-8", "replace")[:80]
                elif inner in _WHOLE_VALUES and isinstance(found, int):
                    whole = found if found < 1 << 63 else found - (1 << 64)
            if whole is not None and len(attributes) < 1000:
                attributes[label] = whole
    return _Node(number, name, kind, duration, attributes)


def _fields(path: Path, data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, whole number or bytes) of a message; fixed-width values come as bytes."""
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
            wrong(path, "", wire, f"a field of wire type {wire}; {EXPECTED}")
        if length > len(data) - at:
            wrong(path, "", length, f"a field that is longer than its message; {EXPECTED}")
        yield tag, data[at : at + length]
        at += length


def _varint(path: Path, data: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value & ((1 << 64) - 1), at
    return wrong(path, "", None, f"a number without an end; {EXPECTED}")
