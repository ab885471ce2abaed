"""What predictions on a recorded machine were compared with: real runs at other numbers of ranks, and whether a case
lies among them. The rows are written by ``python -m tests.bench.predict_real table``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from statistics import median
from typing import Any

DATA = "predictions.json"
SCHEMA = "coordsim.predictions/1"
_APART = 2.0
"""Bytes a step may be so many times fewer or more than any that was compared, and still count as among them."""


@dataclass(frozen=True)
class Compared:
    """One prediction and the real run that it was compared with."""

    backend: str
    framework: str
    job: str
    recorded_ranks: int
    ranks: int
    cores: int
    nbytes: int
    """Of gradients, reduced a step."""
    measured_s: float
    predicted_s: float
    low_s: float
    high_s: float
    date: str

    @property
    def off(self) -> float:
        return self.predicted_s / self.measured_s - 1

    @property
    def held(self) -> bool:
        return self.low_s <= self.measured_s <= self.high_s


@dataclass(frozen=True)
class Validated:
    """What was compared for a backend, and whether a case lies inside."""

    backend: str
    rows: tuple[Compared, ...]
    outside: tuple[str, ...]
    """How the case differs from all rows; empty: it lies inside."""

    @property
    def inside(self) -> bool:
        return bool(self.rows) and not self.outside

    @property
    def says(self) -> str:
        """One sentence."""
        if not self.rows:
            return f"not validated for {self.backend}: no prediction of it was compared with a run"
        errors = [abs(row.off) for row in self.rows]
        ranks, cores = {row.ranks for row in self.rows}, sorted({row.cores for row in self.rows})
        sizes = [row.nbytes for row in self.rows]
        dates = sorted({row.date for row in self.rows})
        what = (
            f"for {self.backend}, N to {max(ranks)}, {_or(cores)} cores, {_mib(min(sizes))} to {_mib(max(sizes))} a "
            f"step, on {dates[0] if len(dates) == 1 else f'{dates[0]} to {dates[-1]}'}: {len(self.rows)} runs, median "
            f"error {100 * median(errors):.0f} %, worst {100 * max(errors):.0f} %"
        )
        if self.inside:
            return f"validated {what}; this case lies inside"
        return f"not validated for {'; '.join(self.outside)}. Validated {what}"

    def facts(self) -> dict[str, Any]:
        errors = [abs(row.off) for row in self.rows]
        return {
            "inside": self.inside, "outside": list(self.outside), "backend": self.backend, "runs": len(self.rows),
            "to_ranks": max((row.ranks for row in self.rows), default=None),
            "cores": sorted({row.cores for row in self.rows}),
            "bytes": [min(sizes), max(sizes)] if (sizes := [row.nbytes for row in self.rows]) else None,
            "dates": sorted({row.date for row in self.rows}),
            "median_error": median(errors) if errors else None, "worst_error": max(errors, default=None),
            "intervals_held": sum(row.held for row in self.rows) / len(self.rows) if self.rows else None,
            "says": self.says,
        }  # fmt: skip


def validated(
    backend: str, framework: str, ranks: int, cores: int | None, nbytes: int, where: str | None,
    rows: Sequence[Compared] | None = None,
) -> Validated:  # fmt: skip
    """Whether a prediction of ``ranks`` ranks of ``backend`` lies among those compared.

    ``cores``: of the host; ``nbytes``: reduced a step; ``where``: the machine, where it is another than the recorded
    one. ``rows``: those of the package where that is None.
    """
    known = tuple(row for row in (compared() if rows is None else rows) if row.backend == backend)
    outside = []
    if where is not None:
        outside.append(f"another machine than the recorded one ({where})")
    if known and not any(row.framework == framework for row in known):
        outside.append(f"{framework or 'a script of its own'} over {backend}")
    if known and ranks > max(row.ranks for row in known):
        outside.append(f"{ranks:,} ranks")
    if known and where is None and cores not in {row.cores for row in known}:
        outside.append("a host whose cores are not known" if cores is None else f"{cores} cores")
    sizes = [row.nbytes for row in known]
    if known and not min(sizes) / _APART <= nbytes <= max(sizes) * _APART:
        outside.append(f"{_mib(nbytes)} a step")
    return Validated(backend, known, tuple(outside))


@cache
def compared() -> tuple[Compared, ...]:
    """Rows of the package."""
    path = files("coordsim.analyse") / "data" / DATA
    if not path.is_file():
        return ()
    found = json.loads(path.read_text(encoding="utf-8"))
    return tuple(Compared(**row) for row in found["rows"])


def _mib(nbytes: int) -> str:
    return f"{nbytes / (1 << 20):.3g} MiB"


def _or(numbers: Sequence[int]) -> str:
    return " or ".join(map(str, numbers))
