"""How PyTorch's recorders write types and shapes."""

from __future__ import annotations

import math
from typing import Any

from coordsim.dtypes import ELEMENT_BYTES

_NAMES = {
    "float": "float32", "double": "float64", "c10::half": "float16", "c10::bfloat16": "bfloat16", "half": "float16",
    "bfloat16": "bfloat16", "long": "int64", "long int": "int64", "int": "int32", "short": "int16", "char": "int8",
    "signed char": "int8", "byte": "uint8", "unsigned char": "uint8", "bool": "bool",
}  # fmt: skip
TYPES = {theirs: (ours, ELEMENT_BYTES[ours]) for theirs, ours in _NAMES.items()}
"""PyTorch's name of a type -> coordsim's name, bytes."""


def numel_of(shape: Any) -> int | None:
    """Return the number of values in a recorded shape; None for anything that is no shape of a possible size."""
    if not isinstance(shape, list) or len(shape) > 32 or any(type(each) is not int or each < 0 for each in shape):
        return None
    numel = math.prod(shape)
    return numel if numel < 1 << 50 else None
