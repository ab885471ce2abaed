"""A prediction on one screen: the answer, three intervals kept apart, what dominates, what it rests on."""

from __future__ import annotations

from typing import Any

from coordsim.report import tables, text
from coordsim.report.tables import Page

_LABEL = 19
_EFFECTS = 6
_WORTH = 1e-3
"""Share of a step below which an effect is not shown."""
_INTERVALS = (
    ("run_noise", "run noise", "another run with the same jitter"),
    ("fitted_parameters", "fitted parameters", "all between their ends at once"),
    ("model_form", "model form", "other algorithms, other tails"),
)


def prediction_report(facts: dict[str, Any], name: str, page: Page) -> str:
    """``facts``: :func:`coordsim.analyse.predict.intervals.facts`."""
    where = f"{facts['ranks']:,} ranks of {facts['cluster']}, control plane {facts['control_plane']}"
    lines = [page.bold(line) for line in page.wrap(f"{name} on {where}: a prediction", rest="  ")]
    step = facts["step_time_s"]
    efficiency = text.percent(facts["scaling_efficiency"])
    rows = [("step time", f"{text.seconds(step)}  (scaling efficiency {efficiency} of one rank alone)")]
    for key, label, what in _INTERVALS:
        low, high = facts["intervals_s"][key]
        rows.append((label, f"{text.seconds(low)} to {text.seconds(high)}: {what}"))
    lines += ["", *tables.facts(rows, page, label=_LABEL)]
    lines += ["", *_parts(facts, page), "", *_effects(facts, page)]
    lines += ["", *tables.facts(_rests_on(facts), page, label=_LABEL)]
    return "\n".join(lines)


def _parts(facts: dict[str, Any], page: Page) -> list[str]:
    whole = facts["step_time_s"]
    rows = [["where it goes", "time", "share"]]
    rows += [
        [name.replace("_", " "), text.seconds(value), text.percent(value / whole)]
        for name, value in facts["breakdown_s"].items() if value
    ]  # fmt: skip
    lines = tables.columns(rows, "lrr", indent=2)
    return [page.dim(lines[0]), *lines[1:]]


def _effects(facts: dict[str, Any], page: Page) -> list[str]:
    """What alone moves the answer, the most first."""
    moving = [each for each in facts["effects"] if each["high_s"] - each["low_s"] > _WORTH * facts["step_time_s"]]
    if not moving:
        return page.wrap("Nothing that was varied moves the step time by a thousandth.", "  ")
    rows = [["what moves it", "step time", "range tried"]]
    for each in moving[:_EFFECTS]:
        ends = f"{text.seconds(each['low_s'])} to {text.seconds(each['high_s'])}"
        rows.append([each["name"], ends, "another form" if each["form"] else each["range"]])
    room = page.width - 2 - sum(max(len(row[index]) for row in rows) + 2 for index in range(2))
    rows = [[*row[:2], row[2] if len(row[2]) <= room else row[2][: room - 3] + "..."] for row in rows]
    lines = tables.columns(rows, "lll", indent=2)
    return [page.dim(lines[0]), *lines[1:], *page.wrap(f"Its spread is dominated by {moving[0]['name']}.", "  ")]


def _rests_on(facts: dict[str, Any]) -> list[tuple[str, str]]:
    found, tried = facts["measured"], facts["validated_to_ranks"]
    extrapolated = ", beyond that extrapolated" if facts["extrapolated"] else ""
    hosts = text.plural(found["hosts"], "host")
    rows = [
        ("validated", f"to N = {tried:,}{extrapolated}"),
        ("measured", f"{found['ranks']:,} ranks on {hosts}, {found['steps']:,} steps after the first, "
                     f"{found['tensors']:,} gradients; backward {_interval(found['backward_s'], text.seconds)}"),
        ("jitter", f"between ranks {_interval(found['rank_sigma'], text.percent)}; per rank and step "
                   f"{_interval(found['step_sigma'], text.percent)}, correlation with the step before "
                   f"{_interval(found['step_correlation'], _number)}; of all ranks alike "
                   f"{_interval(found['common_sigma'], text.percent)}, correlation "
                   f"{_interval(found['common_correlation'], _number)}"),
    ]  # fmt: skip
    if facts.get("late"):
        rows.append(("late", f"{facts['late']}. Here that is taken for jitter that any rank may have, so it is spread "
                             "over all of them: mend it first, then predict"))  # fmt: skip
    rows.append(("not known", "; ".join(_unknown(found)) + "."))
    return rows


def _unknown(found: dict[str, Any]) -> list[str]:
    told = ["compute times are the recorded machine's, whatever GPUs the cluster has"]
    if found["forward_s"] is None:
        told.append("forward was not marked and is in backward")
    if found["optimizer_s"] is None:
        told.append("the optimizer was not marked and is taken for nothing")
    if found["ranks"] < 2:
        told.append("one rank shows no difference between ranks")
    elif found["ranks"] < 16:
        told.append(f"{found['ranks']} ranks say little about how the slowest of many differs")
    return told


def _interval(each: dict[str, float], show: Any) -> str:
    return f"{show(each['value'])} ({show(each['low'])} to {show(each['high'])})"


def _number(value: float) -> str:
    return f"{value:.2f}"
