"""Checks every operation of a pickle before any is carried out: only those that build plain values are allowed."""

from __future__ import annotations

import pickletools
import re

MOST_BYTES = 1 << 25
"""Largest number of bytes of operations without text, enough for some hundred thousand entries."""
MOST_CONTAINERS = 1 << 22
"""Largest number of lists, dicts and tuples of a pickle, some 60 bytes each, which could otherwise fill the memory."""
LONGEST_NUMBER = 128
"""Largest number of bytes of an integer; no counter or time is longer."""
MOST_REMEMBERED = 1 << 23
"""Largest index of the unpickler's memo, which is a list of that length, whatever the file's size."""

PLAIN = frozenset({
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT",
    "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "EMPTY_LIST",
    "EMPTY_TUPLE", "EMPTY_DICT", "APPEND", "APPENDS", "LIST", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "DICT", "SETITEM",
    "SETITEMS", "GET", "BINGET", "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE",
})  # fmt: skip
"""Operations that build containers and plain values; all others call something."""

_NAMES = {ord(operation.code): operation.name for operation in pickletools.opcodes}
_FIXED = {"uint1": 1, "uint2": 2, "int4": 4, "uint4": 4, "uint8": 8, "float8": 8}
_COUNTED = {
    "string1": 1, "bytes1": 1, "unicodestring1": 1, "long1": 1, "string4": 4, "bytes4": 4, "unicodestring4": 4,
    "long4": 4, "bytes8": 8, "unicodestring8": 8,
}  # fmt: skip
"""Arguments that begin with their own length -> bytes of that length."""
_LINES = frozenset({"decimalnl_short", "decimalnl_long", "floatnl", "stringnl", "unicodestringnl"})


class NotPlainError(ValueError):
    """An operation that is not allowed, or is incomplete; ``operation`` is its name, or empty."""

    def __init__(self, message: str, operation: str = "") -> None:
        super().__init__(message)
        self.operation = operation


def _tables() -> tuple[re.Pattern[bytes], dict[int, int], frozenset[int]]:
    """Return a pattern of operations of fixed length; code -> bytes of its length field; codes whose argument is a
    line."""
    fixed: list[bytes] = []
    counted: dict[int, int] = {}
    lines: set[int] = set()
    for operation in pickletools.opcodes:
        code, argument = ord(operation.code), operation.arg
        if operation.name not in PLAIN or operation.name == "STOP":
            continue
        if argument is None or argument.name in _FIXED:
            count = 0 if argument is None else _FIXED[argument.name]
            value = b".{%d}" % count if count else b""
            if operation.name == "LONG_BINPUT":
                value = rb"..[\x00-\x7f]\x00"  # a larger index ends the run, and is refused behind it
            fixed.append(re.escape(bytes([code])) + value)
        elif argument.name in _COUNTED:
            counted[code] = _COUNTED[argument.name]
        else:
            assert argument.name in _LINES, argument.name
            lines.add(code)
    return re.compile(b"(?:" + b"|".join(fixed) + b")*+", re.DOTALL), counted, frozenset(lines)


_CONTAINERS = b"]}ldt\x85\x86\x87"
_RUN, _LENGTHS, _LINE_CODES = _tables()


def check_operations(data: bytes) -> None:
    """Raise NotPlainError for the first operation that is not allowed, is cut off, or is one too many."""
    at = spent = containers = 0
    while True:
        match = _RUN.match(data, at)
        assert match is not None
        run = match[0]
        spent += len(run) + 1
        at = match.end()
        # an argument's byte can look like one of these, which only makes the count too high
        containers += len(run) - len(run.translate(None, _CONTAINERS))
        if spent > MOST_BYTES or containers > MOST_CONTAINERS:
            raise NotPlainError(
                f"has more than {MOST_BYTES:,} bytes of operations" if spent > MOST_BYTES
                else f"has more than {MOST_CONTAINERS:,} lists, dicts and tuples"
            )  # fmt: skip
        if at >= len(data):
            raise NotPlainError("no whole pickle: it ends without STOP")
        code = data[at]
        name = _NAMES.get(code, "")
        if name == "STOP":
            return
        if name not in PLAIN:
            shown = name or f"byte {code}"
            raise NotPlainError(f"holds more than plain values: {shown} at byte {at}", shown)
        at = _behind(data, at, code, name)


def _behind(data: bytes, at: int, code: int, name: str) -> int:
    """Return where the operation at ``at`` ends.

    Raises NotPlainError if the data end before that, or for an absurd number.
    """
    if code in _LENGTHS:
        start = at + 1 + _LENGTHS[code]
        length = int.from_bytes(data[at + 1 : start], "little")
        end = start + length
        number = name.startswith("LONG")
    elif code in _LINE_CODES:
        end = data.find(b"\n", at) + 1
        length = end - at
        number = name in ("INT", "LONG", "FLOAT", "PUT")
        if end == 0:
            raise NotPlainError(f"no whole pickle: {name} at byte {at} is cut off")
        if name == "PUT" and length > len(str(MOST_REMEMBERED)) + 1:
            raise NotPlainError(f"remembers more than {MOST_REMEMBERED:,} values at byte {at}")
    elif name == "LONG_BINPUT" and at + 5 <= len(data):
        raise NotPlainError(f"remembers more than {MOST_REMEMBERED:,} values at byte {at}")
    else:
        raise NotPlainError(f"no whole pickle: {name} at byte {at} is cut off")
    if number and length > LONGEST_NUMBER:
        raise NotPlainError(f"holds a number of absurd length at byte {at}")
    if end > len(data):
        raise NotPlainError(f"no whole pickle: {name} at byte {at} is cut off")
    return end
