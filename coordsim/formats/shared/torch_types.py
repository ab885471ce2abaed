"""How PyTorch's recorders write types and shapes."""

from __future__ import annotations

import math
from typing import Any

TYPES = {
    "float": ("float32", 4), "double": ("float64", 8), "c10::half": ("float16", 2), "c10::bfloat16": ("bfloat16", 2),
    "half": ("float16", 2), "bfloat16": ("bfloat16", 2), "long": ("int64", 8), "long int": ("int64", 8),
    "int": ("int32", 4), "short": ("int16", 2), "char": ("int8", 1), "signed char": ("int8", 1), "byte": ("uint8", 1),
    "unsigned char": ("uint8", 1), "bool": ("bool", 1),
}  # fmt: skip
"""PyTorch's name of a type -> ours, bytes."""


def numel_of(shape: Any) -> int | None:
    """Values in a recorded shape; None for anything that is no shape of a size that can be."""
    if not isinstance(shape, list) or len(shape) > 32 or any(type(each) is not int or each < 0 for each in shape):
        return None
    numel = math.prod(shape)
    return numel if numel < 1 << 50 else None
