"""Bytes of one value, by the name of its type as this project spells it.

Formats have spellings of their own for some of these names; they say which name is meant, and the size stands here.
The protocol has the same sizes by the numbers of its wire (:class:`coordsim.protocol.messages.DType`): it depends on no
other room, and a test holds the two equal.
"""

from __future__ import annotations

ELEMENT_BYTES = {
    "bool": 1, "uint8": 1, "int8": 1, "uint16": 2, "int16": 2, "uint32": 4, "int32": 4, "uint64": 8, "int64": 8,
    "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "complex64": 8, "complex128": 16,
    "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1,
}  # fmt: skip
