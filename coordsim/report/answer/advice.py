"""What to change, in a sentence: of a simulation what was simulated again, of a recorded run what was replayed."""

from __future__ import annotations

from coordsim.analyse.answer.model import Answer
from coordsim.record.findings import Recommendation
from coordsim.report import tables, text
from coordsim.report.tables import LABEL, Page

WORTH_CHANGING = 0.005
"""Below this share of the step no change is recommended."""


def advice_lines(answer: Answer, page: Page) -> list[str]:
    """Nothing where nothing was tried."""
    if answer.findings is not None:
        return ["", *tables.facts(_recommended_rows(answer.findings.recommendation), page, label=LABEL)]
    if answer.candidates is None:
        return []
    return ["", *page.wrap(best_candidate(answer), page.bold("change:") + " ", "  ")]


def best_candidate(answer: Answer) -> str:
    """The change that saves most, or that none does and what is left."""
    candidates = answer.candidates or ()
    left = max(answer.explained or (), key=lambda cause: cause.saves, default=None)
    rest = ""
    if left is not None and left.saves >= WORTH_CHANGING:
        rest = f"; the largest cause is {text.words(left.cause)} ({text.percent(left.saves)})"
    if not candidates:
        return f"nothing to try on this control plane{rest}"
    best, saves = candidates[0], candidates[0].saves.value
    if saves < WORTH_CHANGING:
        tried = f"none of the {len(candidates)} tried saves {text.percent(WORTH_CHANGING)}"
        return f"{tried} (best: {best.change}, {text.percent(saves)}){rest}"
    node_hours = 0.0 if answer.costs is None else answer.costs.node_hours_per_1000_steps
    return (
        f"{best.change} brings the step to {text.seconds(best.step_time.value)} and saves {text.percent(saves)} "
        f"= {text.number(saves * node_hours)} node-hours for 1,000 steps"
    )


def _recommended_rows(advice: Recommendation) -> list[tuple[str, str]]:
    """The largest part, where no replay is about it, and what is recommended."""
    rows, largest = [], advice.largest
    if largest is not None and advice.saves is None and advice.change is None:
        part = f"{text.words(largest.part)}, {text.percent(largest.share)} of the step"
        rows.append(("largest", f"{part}. No replay can predict what a change there saves; look at {largest.look_at}"))
    elif largest is not None and advice.about not in (largest.part, "late"):
        part = f"{text.words(largest.part)}, {text.percent(largest.share)} of the step"
        rows.append(("largest", f"{part}: look at {largest.look_at}"))
    return [*rows, ("recommended", _recommended(advice))]


def _recommended(advice: Recommendation) -> str:
    if advice.change is None:
        return f"nothing: {advice.why}"
    if advice.saves is None or advice.saves_low is None or advice.saves_high is None:
        return f"{advice.change}; what that saves cannot be predicted: {advice.why}"
    return (
        f"{advice.change}: saves {text.percent(advice.saves)} of the step (90 % interval "
        f"{text.percent(advice.saves_low)} to {text.percent(advice.saves_high)}), {advice.why}"
    )
