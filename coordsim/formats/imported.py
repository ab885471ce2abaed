"""What somebody else's recording gives: a run, a workload, a cluster's figures, and what it cannot tell."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from coordsim.fragments import csv_names
from coordsim.record.run_facts import RunFacts
from coordsim.record.trace import Trace


@dataclass(frozen=True)
class ClusterFigures:
    """Figures of a cluster that one table of a benchmark gives."""

    name: str
    """Which table it is, for people."""
    toml: str
    """A scenario file with ``[cluster.data]``."""


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
    facts: RunFacts | None = None
    """What is known of the run beside its trace."""
    workload_csv: str | None = None
    """Gradients as ``simulate --workload`` reads them."""
    clusters: dict[int, ClusterFigures] = field(default_factory=dict)
    """Number of a table in the source, from 1 -> the figures that it gives."""
    not_read: dict[str, int | str] = field(default_factory=dict)
    """What stands in the source and was passed over, in words -> how often, or why where it cannot be counted."""

    @property
    def cluster_toml(self) -> str | None:
        """The figures of the cluster, where there is one choice only."""
        return next(iter(self.clusters.values())).toml if len(self.clusters) == 1 else None


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
    counted = all(row.dtype in _DTYPES and row.numel > 0 for row in rows)
    writer.writerow(["name", "numel", "dtype"] if counted else ["name", "bytes"])
    for cell, row in zip(csv_names(row.name for row in rows), rows, strict=True):
        writer.writerow([cell, row.numel, row.dtype] if counted else [cell, row.nbytes])
    return text.getvalue()
