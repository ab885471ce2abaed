"""The table of ranks: what each rank's own step is made of, and which ranks stand out."""

from __future__ import annotations

from collections.abc import Sequence

from coordsim.record.findings import Column, RankRow, RankTable
from coordsim.report import tables, text
from coordsim.report.tables import Page

MOST_ROWS = 10
"""Ranks shown; of more, the slowest, those around the median, and the fastest."""
_TITLES = {
    "between_steps": "between", "input_stall": "input", "forward": "forward", "backward": "backward",
    "gathers": "gathers", "collectives": "collect.", "before_optimizer": "to opt.", "optimizer": "optimizer",
}  # fmt: skip
_KEY = {
    "between_steps": "between: between steps and passes (logging, evaluation, checkpoints)",
    "gathers": "gathers: waits for parameters",
    "collectives": "collect.: waits for the other ranks and for the last collective",
    "before_optimizer": "to opt.: from backward to the optimizer (such as clipping)",
}


def rank_lines(table: RankTable, page: Page, explained: bool) -> list[str]:
    """``explained``: with what the columns mean."""
    rows = table.ranks
    shown = [name for name in table.columns if any(row.column(name) for row in rows)]
    unit, scale = _unit(max((row.column(name) for row in rows for name in shown), default=0.0))
    chosen = _chosen(rows)
    cells = [["rank", *(_TITLES[name] for name in shown)]]
    cells += [[f"{row.rank:,}", *(_cell(row, name, scale) for name in shown)] for row in chosen]
    lines = tables.columns(cells, "r" * (len(shown) + 1), gap=1, indent=2)
    steps = text.plural(table.steps, "step")
    kind = f" of kind {table.kind}" if table.kind else ""
    title = f"each rank's own {unit}, median of {steps}{kind}"
    if len(chosen) < len(rows):
        title += f"; {len(chosen)} of {len(rows):,} ranks: slowest, median, fastest by own work"
    if table.differs:
        title += "; * longer than on the others"
    keys = [_KEY[name] for name in shown if name in _KEY and explained]
    return [
        *(page.dim(line) for line in page.wrap(title, "  ", "  ")), page.dim(lines[0]), *lines[1:],
        *(page.dim(line) for line in page.wrap("; ".join(keys), "  ", "  ") if keys),
    ]  # fmt: skip


def _cell(row: RankRow, name: Column, scale: float) -> str:
    value = row.column(name) / scale
    mark = "*" if name in row.outliers else " "
    return f"{value:.0f}{mark}" if value >= 1000 else f"{value:.1f}{mark}"


def _unit(largest_s: float) -> tuple[str, float]:
    return ("s", 1.0) if largest_s >= 100 else ("ms", 1e-3)


def _chosen(rows: Sequence[RankRow]) -> list[RankRow]:
    if len(rows) <= MOST_ROWS:
        return list(rows)
    ordered = sorted(rows, key=lambda row: (-row.work_s, row.rank))
    middle = (len(ordered) - 2) // 2
    return [*ordered[:4], *ordered[middle - 1 : middle + 2], *ordered[-3:]]
