"""The step, part by part: on the shown rank, by kind of step, or beside what each cause would save."""

from __future__ import annotations

from collections.abc import Sequence

from coordsim.analyse.answer.model import Answer
from coordsim.analyse.explain import Counterfactual
from coordsim.record.breakdown import CONTROL_PARTS
from coordsim.record.findings import StepKind
from coordsim.report import tables, text
from coordsim.report.tables import Page

PARTS_OF = {
    "input": ("input_stall",),
    "jitter": ("straggler_wait",),
    "control_plane": CONTROL_PARTS,
    "fusion_copies": ("fusion_copy",),
    "collectives": ("exposed_collective",),
}
"""Cause -> the parts of a step beside which it is printed."""
KINDS = 3
"""Kinds of step shown at most."""
_KIND_CELLS = 12
"""Of a kind's name, in the head of its column."""
_BAR_CELLS = 12
_SHORT_BAR_CELLS = (5, 3, 0)
"""Beside counterfactuals: the longest with which the table fits the page."""
_SMALLEST_SAVING = 1e-4
_WAITS = ("straggler_wait", "fusion_copy", "exposed_collective")
"""Not shown of a run in which no collective was seen."""


def split_lines(answer: Answer, page: Page) -> list[str]:
    """The parts with their shares, and whose they are."""
    if answer.explained is not None:
        return _explained(answer, answer.explained, page)
    kinds = kinds_shown(answer)
    shown = answer.facts.shown_rank if answer.ranks not in (1, None) else None
    whose = "where it goes" if shown is None else f"where it goes on rank {shown:,}"
    rows = [[whose, "time", "share", *(kind.kind[:_KIND_CELLS] or "other" for kind in kinds), ""]]
    rows += [_row(answer, name, value, kinds, page) for name, value in _shown_parts(answer)]
    lines = tables.columns(rows, f"lrr{'r' * len(kinds)}l", indent=2)
    if shown is not None:
        note = f"rank {shown:,} is the median one of {answer.ranks:,} by its own work; its waits are for others"
        lines += [page.dim(line) for line in page.wrap(note, "  ")]
    return [page.dim(lines[0]), *lines[1:]]


def kinds_shown(answer: Answer) -> Sequence[StepKind]:
    """Kinds of step that are told apart; none where all steps are alike."""
    kinds = () if answer.findings is None else answer.findings.kinds
    return kinds[:KINDS] if len(kinds) > 1 else ()


def _shown_parts(answer: Answer) -> list[tuple[str, float | None]]:
    """Without those that a run without negotiation, or without collectives, cannot have."""
    parts = [(part.name, None if part.mean is None else part.mean.value) for part in answer.split]
    if answer.real and answer.nobody_negotiates:
        parts = [(name, value) for name, value in parts if name not in CONTROL_PARTS]
    if answer.subject is None and answer.messages is not None and not answer.messages.per_step:
        parts = [(name, value) for name, value in parts if value or name not in _WAITS]
    return parts


def _row(answer: Answer, name: str, value: float | None, kinds: Sequence[StepKind], page: Page) -> list[str]:
    if value is None:
        return [text.words(name), "-", "-", *("-" for _ in kinds), "" if kinds else "not measured apart"]
    whole = answer.step_time.mean.value
    share = value / whole if whole else 0.0
    apart = [text.seconds(kind.breakdown_s.get(name, 0.0)) for kind in kinds]
    bar = "" if kinds else page.bar(share, _BAR_CELLS)
    return [text.words(name), text.seconds(value), text.percent(share), *apart, bar]


def _explained(answer: Answer, explained: Sequence[Counterfactual], page: Page) -> list[str]:
    """The parts, and what each would save when its cause is removed."""
    whole, beside = answer.step_time.mean.value, _beside(answer, explained, page)
    header = ["where it goes", "time", "share", "", "without", "saves", "node-h", "kWh"]
    lines: list[str] = []
    for cells in _SHORT_BAR_CELLS:
        rows = [header]
        for name, value in _shown_parts(answer):
            share = (value or 0.0) / whole
            mark, *right = beside.get(name, [""] * 5)
            bar = f"{page.bar(share, cells):<{cells}} {mark}".rstrip() if cells else mark
            rows.append([text.words(name), text.seconds(value or 0.0), text.percent(share), bar, *right])
        lines = tables.columns(rows, "lrrlrrrr", indent=2)
        if max(map(len, lines)) <= page.width:
            break
    legend = "  without: simulated again without it; node-h, kWh: saved in 1,000 steps"
    return [page.dim(lines[0]), *lines[1:], page.dim(legend)]


def _beside(answer: Answer, explained: Sequence[Counterfactual], page: Page) -> dict[str, list[str]]:
    """Part -> a bracket and the four cells to its right; a cause of several parts is bracketed."""
    node_hours = 0.0 if answer.costs is None else answer.costs.node_hours_per_1000_steps
    cells = {}
    for cause in explained:
        parts, kwh = PARTS_OF[cause.cause], cause.saves_kwh_per_1000_steps
        saved = ["-" if amount is None else _saved(amount) for amount in (cause.saves * node_hours, kwh)]
        values = [text.seconds(cause.step_time_s), text.percent(cause.saves), *saved]
        marks = ["┐", "├", "┘"] if page.unicode else ["\\", "+", "/"]
        for place, part in enumerate(parts):
            beside_middle = place == len(parts) // 2
            cells[part] = [marks[place] if len(parts) > 1 else "", *(values if beside_middle else [""] * 4)]
    return cells


def _saved(amount: float) -> str:
    """What no table has room for is nothing."""
    return text.number(amount) if abs(amount) >= _SMALLEST_SAVING else "0"
