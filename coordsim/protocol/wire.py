"""The binary form of request and response lists: little-endian, versioned, additive.

``len(encode(list)) == HEADER + sum of the entries' sizes``, so a list's size is known without building
it. Malformed bytes raise :class:`MalformedMessage`; nothing is ever executed or allocated on the word of
a length field alone.

Layout: ``magic u16 | version u8 | kind u8 | flags u8 | rank u32 | count u32 | errors u32`` then the
entries, then the errors: ``name (u16 + UTF-8) | reason (u16 + UTF-8)`` each.
A request: ``op u8 | dtype u8 | reduce u8 | root i32 | device i16 | prescale f64 | postscale f64 | group u64 |
name (u16 + UTF-8) | shape (u8 + i64 each)``. A response: ``op u8 | dtype u8 | reduce u8 | gpu u8 | root i32 |
prescale f64 | postscale f64 | group u64 | error (u16 + UTF-8) | count u32 | (name, size i64) each``.
"""

from __future__ import annotations

import struct
from typing import TypeVar

from coordsim.protocol.messages import DType, Op, ReduceOp, Request, RequestList, Response, ResponseList

MAGIC = 0xC0D5
VERSION = 1
_KIND_REQUESTS, _KIND_RESPONSES = 1, 2
_SHUTDOWN, _JOINED = 1, 2

_HEADER = struct.Struct("<HBBBIII")
_REQUEST = struct.Struct("<BBBihddQ")
_RESPONSE = struct.Struct("<BBBBiddQ")
_U8, _U16, _U32, _I64 = struct.Struct("<B"), struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<q")

HEADER_BYTES = _HEADER.size

_E = TypeVar("_E", Op, DType, ReduceOp)


class MalformedMessage(ValueError):
    """Bytes that are no message of this version."""


def request_bytes(request: Request) -> int:
    """Encoded size of one request, bytes."""
    return _REQUEST.size + 2 + len(request.name.encode()) + 1 + 8 * len(request.shape)


def response_bytes(response: Response) -> int:
    """Encoded size of one response, bytes."""
    names = sum(2 + len(name.encode()) + 8 for name in response.names)
    return _RESPONSE.size + 2 + len(response.error.encode()) + 4 + names


def list_bytes(message: RequestList | ResponseList) -> int:
    """Encoded size of a whole list, bytes, without encoding it."""
    if isinstance(message, RequestList):
        errors = sum(4 + len(name.encode()) + len(reason.encode()) for name, reason in message.errors)
        return HEADER_BYTES + sum(request_bytes(request) for request in message.requests) + errors
    return HEADER_BYTES + sum(response_bytes(response) for response in message.responses)


def _text(value: str) -> bytes:
    raw = value.encode()
    if len(raw) > 0xFFFF:
        raise ValueError(f"text of {len(raw)} bytes does not fit the wire form (65,535)")
    return _U16.pack(len(raw)) + raw


def encode(message: RequestList | ResponseList) -> bytes:
    """The bytes of a list. Raises ValueError when a value does not fit its field."""
    try:
        return _encode(message)
    except struct.error as error:
        raise ValueError(f"does not fit the wire form: {error}") from error


def _encode(message: RequestList | ResponseList) -> bytes:
    if isinstance(message, RequestList):
        flags = _SHUTDOWN * message.shutdown | _JOINED * message.joined
        counts = len(message.requests), len(message.errors)
        head = _HEADER.pack(MAGIC, VERSION, _KIND_REQUESTS, flags, message.rank, *counts)
        errors = b"".join(_text(name) + _text(reason) for name, reason in message.errors)
        return head + b"".join(_encode_request(request) for request in message.requests) + errors
    flags = _SHUTDOWN * message.shutdown
    head = _HEADER.pack(MAGIC, VERSION, _KIND_RESPONSES, flags, 0, len(message.responses), 0)
    return head + b"".join(_encode_response(response) for response in message.responses)


def _encode_request(request: Request) -> bytes:
    fixed = _REQUEST.pack(
        request.op, request.dtype, request.reduce_op, request.root_rank, request.device,
        request.prescale, request.postscale, request.group,
    )  # fmt: skip
    shape = _U8.pack(len(request.shape)) + b"".join(_I64.pack(extent) for extent in request.shape)
    return fixed + _text(request.name) + shape


def _encode_response(response: Response) -> bytes:
    fixed = _RESPONSE.pack(
        response.op, response.dtype, response.reduce_op, response.on_gpu, response.root_rank,
        response.prescale, response.postscale, response.group,
    )  # fmt: skip
    members = b"".join(
        _text(name) + _I64.pack(size) for name, size in zip(response.names, response.sizes, strict=True)
    )
    return fixed + _text(response.error) + _U32.pack(len(response.names)) + members


class _Reader:
    """A cursor over untrusted bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def unpack(self, layout: struct.Struct) -> tuple[int | float, ...]:
        if self._at + layout.size > len(self._data):
            raise MalformedMessage(f"message ends at byte {len(self._data)}, inside a field at {self._at}")
        values = layout.unpack_from(self._data, self._at)
        self._at += layout.size
        return values

    def integer(self, layout: struct.Struct) -> int:
        return int(self.unpack(layout)[0])

    def text(self) -> str:
        length = self.integer(_U16)
        raw = self._data[self._at : self._at + length]
        if len(raw) != length:
            raise MalformedMessage(f"message ends at byte {len(self._data)}, inside a text at {self._at}")
        self._at += length
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise MalformedMessage(f"text at byte {self._at - length} is not UTF-8") from error

    def member(self, kind: type[_E], value: int | float) -> _E:
        try:
            return kind(int(value))
        except ValueError as error:
            raise MalformedMessage(f"{value!r} is no {kind.__name__}") from error

    def finish(self) -> None:
        if self._at != len(self._data):
            raise MalformedMessage(f"{len(self._data) - self._at} bytes after the end of the message")


def _open(data: bytes, kind: int) -> tuple[_Reader, int, int, int, int]:
    reader = _Reader(data)
    magic, version, found, flags, rank, count, errors = (int(value) for value in reader.unpack(_HEADER))
    if magic != MAGIC:
        raise MalformedMessage(f"starts with {magic:#06x}, not {MAGIC:#06x}")
    if version != VERSION:
        raise MalformedMessage(f"wire version {version}; this side speaks {VERSION}")
    if found != kind:
        raise MalformedMessage(f"list kind {found}, expected {kind}")
    if flags & ~(_SHUTDOWN | _JOINED):
        raise MalformedMessage(f"unknown flags {flags:#04x}")
    return reader, flags, rank, count, errors


def decode_requests(data: bytes) -> RequestList:
    """The request list in ``data``. Raises :class:`MalformedMessage`."""
    reader, flags, rank, count, wrong = _open(data, _KIND_REQUESTS)
    requests = tuple(_decode_request(reader) for _ in range(count))
    errors = tuple((reader.text(), reader.text()) for _ in range(wrong))
    reader.finish()
    return RequestList(rank, requests, bool(flags & _SHUTDOWN), bool(flags & _JOINED), errors)


def decode_responses(data: bytes) -> ResponseList:
    """The response list in ``data``. Raises :class:`MalformedMessage`."""
    reader, flags, rank, count, wrong = _open(data, _KIND_RESPONSES)
    if flags & ~_SHUTDOWN or rank or wrong:
        raise MalformedMessage("a response list has no rank, no errors and no flag but shutdown")
    responses = tuple(_decode_response(reader) for _ in range(count))
    reader.finish()
    return ResponseList(responses, bool(flags & _SHUTDOWN))


def _decode_request(reader: _Reader) -> Request:
    op, dtype, reduce_op, root, device, prescale, postscale, group = reader.unpack(_REQUEST)
    name = reader.text()
    shape = tuple(reader.integer(_I64) for _ in range(reader.integer(_U8)))
    if any(extent < 0 for extent in shape):
        raise MalformedMessage(f"{name!r}: negative extent in shape {shape}")
    return Request(
        name, reader.member(Op, op), reader.member(DType, dtype), shape,
        reader.member(ReduceOp, reduce_op), int(root), int(device), float(prescale), float(postscale),
        int(group),
    )  # fmt: skip


def _decode_response(reader: _Reader) -> Response:
    op, dtype, reduce_op, on_gpu, root, prescale, postscale, group = reader.unpack(_RESPONSE)
    if on_gpu not in (0, 1):
        raise MalformedMessage(f"device flag {on_gpu}, neither 0 nor 1")
    error = reader.text()
    names: list[str] = []
    sizes: list[int] = []
    for _ in range(reader.integer(_U32)):
        names.append(reader.text())
        sizes.append(reader.integer(_I64))
        if sizes[-1] < 0:
            raise MalformedMessage(f"{names[-1]!r}: negative size {sizes[-1]}")
    return Response(
        reader.member(Op, op), tuple(names), tuple(sizes), reader.member(DType, dtype),
        reader.member(ReduceOp, reduce_op), int(root), bool(on_gpu), float(prescale), float(postscale),
        int(group), error,
    )  # fmt: skip
