"""What the recording of another tool gives: a run, a workload, a cluster's figures, and what it cannot state."""

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
    """The outcome of reading one source. A value of None was not in it, and :attr:`unknown` states the reason."""

    format: str
    files: list[str]
    """Names, for reports; the files are not opened again."""
    summary: dict[str, Any]
    """Content of the source as plain data, for a table and for JSON; null where the source has no value."""
    unknown: dict[str, str] = field(default_factory=dict)
    """What cannot be known from the source -> reason."""
    trace: Trace | None = None
    facts: RunFacts | None = None
    """Facts of the run beside its trace."""
    workload_csv: str | None = None
    """Gradients in the form that ``simulate --workload`` reads."""
    clusters: dict[int, ClusterFigures] = field(default_factory=dict)
    """Number of a table in the source, from 1 -> figures of a cluster."""
    not_read: dict[str, int | str] = field(default_factory=dict)
    """What was passed over, in words -> how often, or the reason where it cannot be counted."""

    @property
    def cluster_toml(self) -> str | None:
        """The figures of the cluster, if there is one choice only."""
        return next(iter(self.clusters.values())).toml if len(self.clusters) == 1 else None


@dataclass(frozen=True, slots=True)
class Gradient:
    name: str
    numel: int
    dtype: str
    nbytes: int


_DTYPES = ("float16", "bfloat16", "float32", "float64")


def workload_csv(gradients: Iterable[Gradient]) -> str:
    """Return the CSV of gradients that are given first ready first.

    The CSV lists them as a model lists its parameters, since backward walks them from the end.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    rows = list(gradients)[::-1]
    counted = all(row.dtype in _DTYPES and row.numel > 0 for row in rows)
    writer.writerow(["name", "numel", "dtype"] if counted else ["name", "bytes"])
    for cell, row in zip(csv_names(row.name for row in rows), rows, strict=True):
        writer.writerow([cell, row.numel, row.dtype] if counted else [cell, row.nbytes])
    return text.getvalue()
