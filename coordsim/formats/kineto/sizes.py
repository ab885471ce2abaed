"""The size of a message, from whichever event states it.

A message's size is the larger of what one rank puts in and what it gets out: the whole buffer. So an all-gather counts
what every rank has at the end, a reduce-scatter what each has at the start, as in nccl-tests and ``coordsim profile``.
"""

from __future__ import annotations

import ast
from itertools import zip_longest
from typing import Any, NamedTuple

from coordsim.dtypes import ELEMENT_BYTES
from coordsim.formats.shared.torch_types import TYPES, numel_of

_MORE = {
    "c10::float8_e4m3fn": "float8_e4m3fn", "c10::float8_e5m2": "float8_e5m2", "complexfloat": "complex64",
    "complexdouble": "complex128", "c10::complex<float>": "complex64", "c10::complex<double>": "complex128",
    "long long": "int64", "unsigned short": "uint16", "unsigned int": "uint32", "unsigned long": "uint64",
}  # fmt: skip
"""Names of types of which only the size is needed, beside those that are spelled as ours."""
_LARGEST = 1 << 50
_LONGEST_SHAPES = 1 << 16
GROWS = ("all_gather", "gather")
"""Operations in which a rank gets out what all put in."""
SHRINKS = ("reduce_scatter", "scatter")
"""Operations in which a rank puts in what all get out."""


class Elements(NamedTuple):
    """Number of values that one rank puts in and gets out, and the bytes of one; None for what an event does not
    state."""

    put_in: int | None = None
    got_out: int | None = None
    element_bytes: int | None = None
    dtype: str | None = None
    shapes: bool = False
    """Whether shapes were recorded at all, even if only of other arguments."""

    def or_else(self, other: Elements) -> Elements:
        """Return these values, with missing ones taken from ``other``."""
        put_in = self.put_in if self.put_in is not None else other.put_in
        got_out = self.got_out if self.got_out is not None else other.got_out
        return Elements(put_in, got_out, *self._kind(other), self.shapes or other.shapes)

    def _kind(self, other: Elements) -> tuple[int | None, str | None]:
        if self.element_bytes is not None:
            return self.element_bytes, self.dtype
        return other.element_bytes, self.dtype or other.dtype


NOTHING = Elements()


def bytes_of_type(kind: Any) -> int | None:
    """Return the bytes of one value of a type as PyTorch's recorders write it."""
    if not isinstance(kind, str):
        return None
    name = kind.lower()
    return TYPES[name][1] if name in TYPES else ELEMENT_BYTES.get(_MORE.get(name, name))


def from_metadata(args: dict[str, Any]) -> Elements:
    """Return what ``record_param_comms`` states, on the call or on the kernel that it launched."""
    kind = args.get("dtype")
    name = kind[:40] if isinstance(kind, str) else None
    return Elements(
        _count(args.get("In msg nelems")), _count(args.get("Out msg nelems")), bytes_of_type(kind), name
    )  # fmt: skip


def from_shapes(args: dict[str, Any], operator: str | None) -> Elements:
    """Return what recorded shapes state.

    ``operator`` is c10d's; it is None for a backend's annotation, which has its inputs only.
    """
    dims = _listed(_either(args, "Input Dims", "Input dims"))
    kinds = _listed(_either(args, "Input type", "Input Types"))
    if not dims and not kinds:
        return NOTHING
    names = [str(kind)[:40] for kind in kinds[:64]]
    counts = [_numel(shape, name) for shape, name in zip_longest(dims[:64], names, fillvalue="")]
    sizes = ((size, name) for name in names if (size := bytes_of_type(name)) is not None)
    element_bytes, dtype = next(sizes, (None, None))
    dtype = dtype or next((name for name in names if name and not name.lower().endswith(("list", "scalar", "]"))), None)
    if not dims:
        return Elements(None, None, element_bytes, dtype)
    if operator is None:
        known = [count for count in counts if count is not None]
        return Elements(sum(known) if known and len(known) == len(counts) else None, None, element_bytes, dtype, True)
    pair = counts[:2]
    if operator.startswith(_TWO_SIDED) and not operator.endswith("_into_tensor"):
        return Elements(pair[1] if len(pair) > 1 else None, pair[0], element_bytes, dtype, True)
    return Elements(pair[0], None, element_bytes, dtype, True)


_TWO_SIDED = ("_allgather_base", "allgather", "_reduce_scatter_base", "reduce_scatter", "alltoall", "gather", "scatter")
"""c10d's operators whose first argument is the output and whose second is the input."""


def size_of(operation: str | None, known: Elements, group_size: int | None) -> tuple[int | None, str | None]:
    """Return a message's bytes, or None and the reason."""
    put_in, got_out = known.put_in, known.got_out
    if put_in is None and got_out is None:
        if known.shapes:
            return None, "shapes are recorded, but not those of their lists of tensors: NCCL's metadata would tell"
        return None, "no shapes are recorded for them: record_shapes=True, or NCCL's metadata, would tell"
    if known.element_bytes is None:
        said = f"their values are of type {known.dtype!r}, whose size is not known"
        return None, said if known.dtype else "their shapes are recorded without a type of their values"
    if operation in GROWS and got_out in (None, 0):
        got_out = put_in * group_size if put_in is not None and group_size else None
    elif operation in SHRINKS and put_in in (None, 0):
        put_in = got_out * group_size if got_out is not None and group_size else None
    if (operation in GROWS and got_out is None) or (operation in SHRINKS and put_in is None):
        return None, "one side's shape is recorded, and how many ranks the group has is not"
    return max(put_in or 0, got_out or 0) * known.element_bytes, None


def _count(value: Any) -> int | None:
    if isinstance(value, str) and len(value) < 16 and value.isascii() and value.isdecimal():
        value = int(value)
    return value if type(value) is int and 0 <= value < _LARGEST else None


def _either(args: dict[str, Any], *keys: str) -> Any:
    return next((args[key] for key in keys if key in args), None)


def _listed(value: Any) -> list[Any]:
    """Return a list, or one that PyTorch 1.8 to 1.10 wrote as text."""
    if isinstance(value, str) and value.startswith("[") and len(value) < _LONGEST_SHAPES and value.count("[") < 4096:
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return []
    return value if isinstance(value, list) else []


def _numel(shape: Any, kind: str) -> int | None:
    """Return the number of values of one tensor, or of a list of tensors; None for an argument that is neither.

    ``[]`` is a tensor without dimensions if a type of values stands beside it, and else no tensor.
    """
    if isinstance(shape, list) and shape and all(isinstance(one, list) for one in shape):
        parts = [numel_of(one) for one in shape]
        return sum(part for part in parts if part is not None) if None not in parts else None
    return numel_of(shape) if shape or bytes_of_type(kind) is not None else None
