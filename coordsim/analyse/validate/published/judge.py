"""Every published number, in the order of docs/published.md 1."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

from coordsim.analyse.validate.published import closed, coordinator, horovod_chart, mlperf, speedup, stemdl
from coordsim.analyse.validate.published.rows import Row

Progress: TypeAlias = Callable[[int, int], None]
"""(parts done, parts in all)."""


def published_rows(progress: Progress | None = None, *, quick: bool = False) -> list[Row]:
    """All rows, by number and then GPUs. ``quick`` has fewer of everything: for tests."""
    models = speedup.CASES[1::2] if quick else speedup.CASES
    parts: list[Callable[[], Iterator[Row]]] = [
        *(partial(speedup.rows, case, quick) for case in models),
        *(partial(coordinator.ddp_rows, case, quick) for case in coordinator.CASES),
        partial(stemdl.rows, quick),
        *(partial(horovod_chart.rows, workload, quick) for workload in horovod_chart.NAMES),
        closed.nccl_rows,
        *(partial(coordinator.point_to_point_rows, case, quick) for case in coordinator.CASES),
        *(partial(mlperf.rows, case, quick) for case in mlperf.CASES),
        closed.not_modelled_rows,
    ]
    found: list[Row] = []
    for done, part in enumerate(parts):
        if progress is not None:
            progress(done, len(parts))
        found += part()
    if progress is not None:
        progress(len(parts), len(parts))
    return sorted(found, key=lambda row: (int(row.id[1:]), row.gpus or 0))


def missed(rows: list[Row]) -> list[str]:
    """Stated tolerances that were not kept, one sentence each."""
    return [
        f"{row.id} {row.what}, {row.gpus:,} GPUs: predicted {row.predicted:.3f}, published {row.published},"
        f" promised {row.tolerance}" + (f"; {row.note}" if row.note else "")
        for row in rows
        if row.verdict == "miss" and row.tolerance
    ]
