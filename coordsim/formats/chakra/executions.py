"""Execution traces as a workload: gradients in the order of backward, else messages as they repeat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

from coordsim.errors import InputError
from coordsim.formats.chakra.protobuf import read_protobuf
from coordsim.formats.chakra.reader import Execution, read_json
from coordsim.formats.imported import Gradient, Imported, workload_csv
from coordsim.formats.shared.repeated_messages import buckets, repeated
from coordsim.formats.shared.torch_types import TYPES

FORMAT = "chakra"
_SIZES = dict(TYPES.values())
_UNKNOWN = {
    "run": "an execution trace is the graph of what ran, with no times of steps",
    "ready": "when gradients are ready is not recorded; simulate spreads backward over them by their bytes",
    "names": "autograd knows no names of parameters; gradients are called by their place",
}


def import_executions(paths: list[Path]) -> Imported:
    """The traces of one job's ranks. Raises InputError for files that are none, and for ranks that differ."""
    found = [read_protobuf(path) if path.name.endswith((".et", ".et.gz")) else read_json(path) for path in paths]
    first = found[0]
    for other in found[1:]:
        for key in ("schema", "ranks"):
            if getattr(other, key) != getattr(first, key):
                message = f"{getattr(other, key)!r}, where {first.path.name} has {getattr(first, key)!r}: another job?"
                raise InputError.one(str(other.path), key, getattr(other, key), message)
        if _sizes(other) != _sizes(first):
            message = f"other collectives than in {first.path.name}: of another job, or of another iteration"
            raise InputError.one(str(other.path), "nodes", "", message)
    return imported(found)


def imported(found: Sequence[Execution]) -> Imported:
    """As :func:`import_executions`, of traces that were read before."""
    first, unknown = found[0], dict(_UNKNOWN)
    sizes = _sizes(first)
    gradients = [
        Gradient(f"gradient.{place}", prod(shape), dtype, prod(shape) * _SIZES[dtype])
        for place, (shape, dtype) in enumerate(first.gradients)
    ]
    if not gradients:
        unknown["gradients"] = "no gradient is in it: each message of the iteration counts as one"
        pattern = repeated([size or 0 for size in sizes]) or [size or 0 for size in sizes]
        gradients = buckets(pattern if pattern else None)
    if not gradients:
        unknown["workload"] = "no gradient and no allreduce of known size is in it"
    if first.ranks is None:
        unknown["ranks"] = "no process group of known size is in it"
    lost = next((each for each in found if each.lost), None)
    if lost is not None:
        unknown["cut"] = f"{lost.path.name} is cut off: {lost.lost}"
    summary: dict[str, Any] = {
        "traces": len(found),
        "schema": first.schema,
        "nodes": sum(each.nodes for each in found),
        "ranks": first.ranks,
        "collectives": dict(Counter(message.name for message in first.messages).most_common(6)),
        "allreduce_bytes": sizes,
        "gradients": len(first.gradients) or None,
        "gradient_bytes": sum(each.nbytes for each in gradients) if first.gradients else None,
    }  # fmt: skip
    files = [each.path.name for each in found]
    return Imported(FORMAT, files, summary, unknown, workload_csv=workload_csv(gradients) if gradients else None)


def _sizes(found: Execution) -> list[int | None]:
    """Of allreduces, each counted once: PyTorch records the call and the backend's part of it."""
    calls = [each.nbytes for each in found.messages if each.name in ("c10d::allreduce_", "all_reduce")]
    return calls or [each.nbytes for each in found.messages if each.name.endswith(":all_reduce")]
