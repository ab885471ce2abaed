"""What calls of one number must have in common, by the meaning of their operation.

The rules follow NCCL and torch/distributed/flight_recorder, and are weaker where an operation allows ranks to differ.
The shapes of a tensor do not matter, only the number of its values; uneven exchanges, gathers and scatters are added up
over all ranks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from coordsim.formats.flight_recorder.job import Call, Operation
from coordsim.formats.flight_recorder.reader import Tensors, bytes_of

_FAMILIES = {
    "all_reduce": ("all_reduce", "allreduce", "allreduce_coalesced", "all_reduce_coalesced"),
    "broadcast": ("broadcast", "_broadcast_oop"),
    "reduce": ("reduce", "_reduce_oop"),
    "all_gather": (
        "all_gather", "allgather", "_all_gather_base", "_allgather_base", "all_gather_base", "all_gather_single",
        "all_gather_into_tensor", "all_gather_into_tensor_coalesced", "allgather_into_tensor_coalesced", "all_gather_v",
        "allgather_coalesced",
    ),
    "reduce_scatter": (
        "reduce_scatter", "_reduce_scatter_base", "reduce_scatter_base", "reduce_scatter_single",
        "reduce_scatter_tensor", "reduce_scatter_tensor_coalesced", "reduce_scatter_v",
    ),
    "gather": ("gather",), "scatter": ("scatter",),
    "all_to_all": (
        "all_to_all", "alltoall", "alltoall_base", "all_to_all_single", "all_to_all_v_single", "all_to_allv",
    ),
    "barrier": ("barrier", "all_reduce_barrier", "monitored_barrier"),
    "split": ("split",), "new_window": ("new_window",),
    "coalesced": ("coalesced", "ALLGATHER_coalesced", "REDUCE_SCATTER_coalesced", "ALLTOALL_coalesced"),
}  # fmt: skip
"""Names under which backends record the same collective."""
_LIBRARY = re.compile(r"^(?:nccl|hccl|xccl|rccl|mccl|ucc)(?=[A-Za-z])")


def _plain(name: str) -> str:
    """Return a name without the library in front (HcclAllReduce), capitals and underscores."""
    return _LIBRARY.sub("", name.lower()).replace("_", "")


_FAMILY_OF = {_plain(name): family for family, names in _FAMILIES.items() for name in names}
_NEEDS_ALL = frozenset({"all_reduce", "all_gather", "reduce_scatter", "all_to_all", "barrier", "coalesced"})
_SAME_VALUES = frozenset({"all_reduce", "broadcast", "reduce"})


class Disagreement(NamedTuple):
    """Why calls of one number do not fit together."""

    what: str
    """ "operation", "size" or "type"."""
    sentence: str


def family(operation: Operation) -> str:
    """Return the collective in common words; the operation's own name if it is not known."""
    return _family(operation.operation)


@lru_cache(maxsize=4096)
def _family(name: str) -> str:
    return _FAMILY_OF.get(_plain(name), name)


def is_known(name: str) -> bool:
    """Return whether the operation of a record (``nccl:all_reduce``) has rules for its sizes; sends and receives
    have."""
    operation, _, peers = name.rpartition(":")[2].partition(" ")
    return _plain(operation) in _FAMILY_OF or (operation in ("send", "recv") and bool(peers))


def needs_all(call: Call) -> bool:
    """Return whether a rank can only finish the call when all ranks have made it; not so for a root's sends."""
    return any(family(operation) in _NEEDS_ALL for operation in call.operations)


def disagreement(calls: Sequence[Call], size: int | None) -> Disagreement | None:
    """Return how ranks that made these calls under one number contradict each other, or None.

    ``calls`` has one entry for each rank. ``size`` is the number of ranks of the group if all of them are in ``calls``,
    else None.
    """
    distinct = set(calls)
    if len(distinct) < 2:
        return None
    longest = max(distinct, key=lambda call: len(call.operations))
    names = [family(operation) for operation in longest.operations]
    for call in distinct:
        own = [family(operation) for operation in call.operations]
        if own != names and (call.closed or own != names[: len(own)]):
            return Disagreement("operation", "the operation differs")
    whole = [call for call in calls if len(call.operations) == len(names)]
    if len(whole) < len(calls):
        size = None  # a batch was still being called
    for place, name in enumerate(names):
        parts = [call.operations[place] for call in whole]
        problem = _values(name, parts, size) or _types(name, parts)
        if problem is not None:
            return problem
    return None


def _values(name: str, parts: Sequence[Operation], size: int | None) -> Disagreement | None:
    inputs = [part.tensors.inputs for part in parts]
    outputs = [part.tensors.outputs for part in parts]
    problem = Disagreement("size", "the size differs")
    if name in _SAME_VALUES:
        values = {own or other for own, other in zip(inputs, outputs, strict=True) if own or other}
        return problem if len(values) > 1 else None
    if name in ("gather", "scatter"):
        values = {tensors for tensors in (inputs if name == "gather" else outputs) if tensors}
        return problem if len(values) > 1 else None
    if name not in ("all_gather", "reduce_scatter", "all_to_all") or None in inputs or None in outputs:
        return None
    given = [sum(tensors or ()) for tensors in inputs]
    taken = [sum(tensors or ()) for tensors in outputs]
    if name == "all_to_all":
        if size is None or sum(given) == sum(taken):
            return None
        return Disagreement("size", f"the ranks give {sum(given):,} values and take {sum(taken):,}")
    parts_of, whole = (given, taken) if name == "all_gather" else (taken, given)
    if len(set(zip(parts_of, whole, strict=True))) == 1:
        return None
    if size is None:
        ratios = {all_values / part if part else None for part, all_values in zip(parts_of, whole, strict=True)}
        return problem if len(ratios) == 1 and None not in ratios else None
    return None if set(whole) == {sum(parts_of)} else problem


def _types(name: str, parts: Sequence[Operation]) -> Disagreement | None:
    sides = [] if name == "scatter" else [[part.tensors.input_types for part in parts]]
    if name not in ("gather", "broadcast"):
        sides.append([part.tensors.output_types for part in parts])
    for side in sides:
        if len({frozenset(types) for types in side if types}) > 1:
            return Disagreement("type", "the type of the values differs")
    return None


def in_words(call: Call) -> str:
    """Return the call as a sentence names it: gloo:all_reduce of 10 Float (40 B)."""
    if len(call.operations) == 1:
        return _operation_in_words(call.operations[0])
    first = "; ".join(_operation_in_words(operation) for operation in call.operations[:3])
    more = f"; {len(call.operations) - 3:,} more" if len(call.operations) > 3 else ""
    return f"{len(call.operations):,} coalesced calls ({first}{more})"


def _operation_in_words(operation: Operation) -> str:
    words = tensors_in_words(operation.tensors)
    into = ""
    if family(operation) in ("all_to_all", "all_gather", "reduce_scatter") and operation.tensors.inputs:
        into = f" into {sum(operation.tensors.outputs):,}" if operation.tensors.outputs else ""
    return f"{operation.name} of {words}{into}" if words else operation.name


def tensors_in_words(tensors: Tensors) -> str:
    """Return 10 Float (40 B); empty without tensors."""
    own = tensors.inputs or tensors.outputs
    if not own:
        return ""
    types = tensors.input_types if tensors.inputs else tensors.output_types
    kinds = sorted(set(types))
    kind = f" {kinds[0]}" if len(kinds) == 1 else " values"
    size = bytes_of(own, types)
    values = "+".join(f"{numel:,}" for numel in own[:4]) + ("+..." if len(own) > 4 else "")
    return f"{values}{kind}" + (f" ({size:,} B)" if size is not None else "")
