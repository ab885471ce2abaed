"""The parts of the wire format of protocol buffers that are written here: one function for each kind of field.

See https://protobuf.dev/programming-guides/encoding. A message is the bytes of its fields, one after another.
"""

from __future__ import annotations

from collections.abc import Iterable

_VARINT, _LENGTH = 0, 2


def varint(value: int) -> bytes:
    """Return a whole number, 7 bits a byte, the lowest first; a negative one as its 64-bit two's complement."""
    value &= (1 << 64) - 1
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


def number(field: int, value: int) -> bytes:
    """Return a field of type int32, int64, uint32, uint64, bool or enum. Zero is written, too: it may be a oneof's
    choice."""
    return varint(field << 3 | _VARINT) + varint(value)


def data(field: int, value: bytes) -> bytes:
    """Return a field of type bytes, or an embedded message."""
    return varint(field << 3 | _LENGTH) + varint(len(value)) + value


def text(field: int, value: str) -> bytes:
    """Return a field of type string; what UTF-8 cannot represent becomes a question mark."""
    return data(field, value.encode("utf-8", "replace"))


def numbers(field: int, values: Iterable[int]) -> bytes:
    """Return a repeated field of whole numbers, packed; empty if there are none."""
    packed = b"".join(map(varint, values))
    return data(field, packed) if packed else b""


def delimited(message: bytes) -> bytes:
    """Return a message in a file of messages, preceded by its length."""
    return varint(len(message)) + message
