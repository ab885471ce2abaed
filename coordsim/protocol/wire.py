"""The binary form of request lists, bundles of them, and response lists: little-endian, versioned, additive.

``len(encode(list)) == HEADER + sum of the entries' sizes``, so a list's size is known without building
it. Malformed bytes raise :class:`MalformedMessage`; nothing is ever executed or allocated on the word of
a length field alone.

Layout: ``magic u16 | version u8 | kind u8 | flags u8 | rank u32 | count u32 | errors u32`` then the
entries, then the errors: ``name (u16 + UTF-8) | reason (u16 + UTF-8)`` each. Flags: 1 shutdown; 2 joined, of
requests then followed by ``last u32``; 4 explain, then followed by ``count u32`` and a name each, of requests
with ``count u32 | (first u32, last u32) each`` behind every name.
A request: ``op u8 | dtype u8 | reduce u8 | root i32 | device i16 | prescale f64 | postscale f64 | group u64 |
name (u16 + UTF-8) | shape (u8 + i64 each)``. A response: ``op u8 | dtype u8 | reduce u8 | gpu u8 | root i32 |
prescale f64 | postscale f64 | group u64 | error (u16 + UTF-8) | count u32 | (name, size i64) each``.
A bundle: the header, ``count`` being that of lists, then each list with its own header.
Claims: the header, ``count`` being that of settings, then ``name | value`` each. Their layout never changes and
their version is not looked at, so that ranks of different versions can find that out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import pairwise
from typing import TypeAlias, TypeVar

from coordsim.protocol.messages import (
    Bundle,
    Claims,
    DType,
    Op,
    Ranges,
    ReduceOp,
    Request,
    RequestList,
    Response,
    ResponseList,
)

MAGIC = 0xC0D5
VERSION = 2
_KIND_REQUESTS, _KIND_RESPONSES, _KIND_BUNDLE, _KIND_CLAIMS = 1, 2, 3, 4
_SHUTDOWN, _JOINED, _EXPLAIN = 1, 2, 4

_HEADER = struct.Struct("<HBBBIII")
_REQUEST = struct.Struct("<BBBihddQ")
_RESPONSE = struct.Struct("<BBBBiddQ")
_RANGE = struct.Struct("<II")
_U8, _U16, _U32, _I64 = struct.Struct("<B"), struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<q")

HEADER_BYTES = _HEADER.size

_E = TypeVar("_E", Op, DType, ReduceOp)

Message: TypeAlias = RequestList | Bundle | ResponseList | Claims


class MalformedMessage(ValueError):
    """Bytes that are no message of this version."""


def request_bytes(request: Request) -> int:
    """Encoded size of one request, bytes."""
    return _REQUEST.size + 2 + len(request.name.encode()) + 1 + 8 * len(request.shape)


def response_bytes(response: Response) -> int:
    """Encoded size of one response, bytes."""
    names = sum(2 + len(name.encode()) + 8 for name in response.names)
    return _RESPONSE.size + 2 + len(response.error.encode()) + 4 + names


def list_bytes(message: Message) -> int:
    """Encoded size of a whole message, bytes, without encoding it."""
    if isinstance(message, Bundle):
        return HEADER_BYTES + sum(list_bytes(each) for each in message.lists)
    if isinstance(message, Claims):
        return HEADER_BYTES + _pairs_bytes(message.settings)
    if isinstance(message, RequestList):
        size = HEADER_BYTES + sum(request_bytes(request) for request in message.requests)
        size += _pairs_bytes(message.errors) + _U32.size * (message.joined >= 0)
        if message.missing:
            size += _U32.size + sum(
                _text_bytes(name) + _U32.size + _RANGE.size * len(ranks) for name, ranks in message.missing
            )
        return size
    size = HEADER_BYTES + sum(response_bytes(response) for response in message.responses)
    if message.explain:
        size += _U32.size + sum(_text_bytes(name) for name in message.explain)
    return size


def _text_bytes(value: str) -> int:
    return 2 + len(value.encode())


def _pairs_bytes(pairs: Iterable[tuple[str, str]]) -> int:
    return sum(_text_bytes(one) + _text_bytes(other) for one, other in pairs)


def _text(value: str) -> bytes:
    raw = value.encode()
    if len(raw) > 0xFFFF:
        raise ValueError(f"text of {len(raw)} bytes does not fit the wire form (65,535)")
    return _U16.pack(len(raw)) + raw


def encode(message: Message) -> bytes:
    """The bytes of a message. Raises ValueError when a value does not fit its field."""
    try:
        return _encode(message)
    except struct.error as error:
        raise ValueError(f"does not fit the wire form: {error}") from error


def _encode(message: Message) -> bytes:
    if isinstance(message, Bundle):
        head = _HEADER.pack(MAGIC, VERSION, _KIND_BUNDLE, 0, message.rank, len(message.lists), 0)
        return head + b"".join(_encode(each) for each in message.lists)
    if isinstance(message, Claims):
        head = _HEADER.pack(MAGIC, VERSION, _KIND_CLAIMS, 0, message.rank, len(message.settings), 0)
        return head + _pairs(message.settings)
    flags = _SHUTDOWN * message.shutdown
    if isinstance(message, RequestList):
        joined = _U32.pack(message.joined) if message.joined >= 0 else b""
        missing = b"".join(
            _text(name) + _U32.pack(len(ranks)) + b"".join(_RANGE.pack(*each) for each in ranks)
            for name, ranks in message.missing
        )
        flags |= _JOINED * bool(joined) | _EXPLAIN * bool(missing)
        counts = len(message.requests), len(message.errors)
        head = _HEADER.pack(MAGIC, VERSION, _KIND_REQUESTS, flags, message.rank, *counts)
        if missing:
            missing = _U32.pack(len(message.missing)) + missing
        requests = b"".join(_encode_request(request) for request in message.requests)
        return head + joined + requests + _pairs(message.errors) + missing
    names = b"".join(_text(name) for name in message.explain)
    flags |= _JOINED * message.joined | _EXPLAIN * bool(names)
    head = _HEADER.pack(MAGIC, VERSION, _KIND_RESPONSES, flags, 0, len(message.responses), 0)
    if names:
        names = _U32.pack(len(message.explain)) + names
    return head + b"".join(_encode_response(response) for response in message.responses) + names


def _pairs(pairs: Iterable[tuple[str, str]]) -> bytes:
    return b"".join(_text(one) + _text(other) for one, other in pairs)


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

    def some(self) -> int:
        """A count that a flag has announced, so it is not 0."""
        count = self.integer(_U32)
        if not count:
            raise MalformedMessage("a flag announces names, but there are none")
        return count

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


def _open(reader: _Reader, kind: int, known_flags: int = 0) -> tuple[int, int, int, int]:
    """Flags, rank, count and errors of a header. Raises :class:`MalformedMessage`."""
    magic, version, found, flags, rank, count, errors = (int(value) for value in reader.unpack(_HEADER))
    if magic != MAGIC:
        raise MalformedMessage(f"starts with {magic:#06x}, not {MAGIC:#06x}")
    if version != VERSION and kind != _KIND_CLAIMS:
        raise MalformedMessage(f"wire version {version}; this side speaks {VERSION}")
    if found != kind:
        raise MalformedMessage(f"list kind {found}, expected {kind}")
    if flags & ~known_flags:
        raise MalformedMessage(f"unknown flags {flags:#04x}")
    return flags, rank, count, errors


def decode_requests(data: bytes) -> RequestList:
    """The request list in ``data``. Raises :class:`MalformedMessage`."""
    reader = _Reader(data)
    message = _decode_list(reader)
    reader.finish()
    return message


def decode_bundle(data: bytes) -> Bundle:
    """The bundle in ``data``. Raises :class:`MalformedMessage`."""
    reader = _Reader(data)
    _, rank, count, wrong = _open(reader, _KIND_BUNDLE)
    if wrong:
        raise MalformedMessage("a bundle has no errors of its own")
    lists = tuple(_decode_list(reader) for _ in range(count))
    reader.finish()
    if any(one.rank >= other.rank for one, other in pairwise(lists)):
        raise MalformedMessage(f"ranks of a bundle do not ascend: {[each.rank for each in lists][:9]}")
    return Bundle(rank, lists)


def decode_responses(data: bytes) -> ResponseList:
    """The response list in ``data``. Raises :class:`MalformedMessage`."""
    reader = _Reader(data)
    flags, rank, count, wrong = _open(reader, _KIND_RESPONSES, _SHUTDOWN | _JOINED | _EXPLAIN)
    if rank or wrong:
        raise MalformedMessage("a response list has no rank and no errors")
    responses = tuple(_decode_response(reader) for _ in range(count))
    explain: tuple[str, ...] = ()
    if flags & _EXPLAIN:
        explain = tuple(reader.text() for _ in range(reader.some()))
    reader.finish()
    return ResponseList(responses, bool(flags & _SHUTDOWN), bool(flags & _JOINED), explain)


def decode_claims(data: bytes) -> Claims:
    """The claims in ``data``, of any version. Raises :class:`MalformedMessage`."""
    reader = _Reader(data)
    _, rank, count, wrong = _open(reader, _KIND_CLAIMS)
    if wrong:
        raise MalformedMessage("claims have no errors")
    settings = tuple((reader.text(), reader.text()) for _ in range(count))
    reader.finish()
    return Claims(rank, settings)


def _decode_list(reader: _Reader) -> RequestList:
    flags, rank, count, wrong = _open(reader, _KIND_REQUESTS, _SHUTDOWN | _JOINED | _EXPLAIN)
    joined = reader.integer(_U32) if flags & _JOINED else -1
    requests = tuple(_decode_request(reader) for _ in range(count))
    errors = tuple((reader.text(), reader.text()) for _ in range(wrong))
    missing: tuple[tuple[str, Ranges], ...] = ()
    if flags & _EXPLAIN:
        missing = tuple(_decode_missing(reader) for _ in range(reader.some()))
    return RequestList(rank, requests, bool(flags & _SHUTDOWN), joined, errors, missing)


def _decode_missing(reader: _Reader) -> tuple[str, Ranges]:
    name = reader.text()
    ranks: list[tuple[int, int]] = []
    for _ in range(reader.integer(_U32)):
        first, last = (int(value) for value in reader.unpack(_RANGE))
        if last < first or (ranks and first <= ranks[-1][1] + 1):
            raise MalformedMessage(f"{name!r}: ranks {first}-{last} do not follow {ranks[-1:]}")
        ranks.append((first, last))
    return name, tuple(ranks)


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
