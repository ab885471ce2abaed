"""What somebody else's recording gives: a run, a workload, a cluster's figures, and what it cannot tell."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from coordsim.record.trace import Trace


@dataclass
class Imported:
    """The outcome of reading one source. What is None was not in it, and :attr:`unknown` says why."""

    format: str
    files: list[str]
    """Names, for reports; never opened again."""
    summary: dict[str, Any]
    """What was found, as plain data for a table and for JSON; null where the source does not say."""
    unknown: dict[str, str] = field(default_factory=dict)
    """What cannot be known from the source -> why."""
    trace: Trace | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    """For the manifest of a run directory."""
    workload_csv: str | None = None
    """Gradients as ``simulate --workload`` reads them."""
    cluster_toml: str | None = None
    """A scenario file with ``[cluster.data]``."""
    not_read: dict[str, int | str] = field(default_factory=dict)
    """What stands in the source and was passed over, in words -> how often, or why where it cannot be counted."""


@dataclass(frozen=True, slots=True)
class Gradient:
    name: str
    numel: int
    dtype: str
    nbytes: int


_DTYPES = ("float16", "bfloat16", "float32", "float64")


def workload_csv(gradients: Iterable[Gradient]) -> str:
    """Gradients, first ready first, as a model lists its parameters: backward walks them from the end."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    rows = list(gradients)[::-1]
    counted = all(each.dtype in _DTYPES and each.numel > 0 for each in rows)
    writer.writerow(["name", "numel", "dtype"] if counted else ["name", "bytes"])
    for each in rows:
        name = " ".join(each.name.split()) or "unnamed"
        writer.writerow([name, each.numel, each.dtype] if counted else [name, each.nbytes])
    return text.getvalue()
