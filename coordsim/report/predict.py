"""A prediction on one screen: the recorded run first, then the answer with its one interval, and what it rests on."""

from __future__ import annotations

from typing import Any

from coordsim.report import tables, text
from coordsim.report.tables import Page

_LABEL = 13
_EFFECTS = 6
_WORTH = 1e-3
"""Share of a step below which an effect or a part is not shown."""
_DIFFERENCES = 3
"""Parts of the recorded run's difference that are told."""
_COMPONENTS = {
    "parameters": "parameters", "run_noise": "run noise", "form": "the model's form", "unexplained": "unexplained part",
}  # fmt: skip


def prediction_report(facts: dict[str, Any], page: Page) -> str:
    """``facts``: of :mod:`coordsim.analyse.predict.facts`, with the workload's ``name``."""
    lines = page.wrap(_recorded(facts["recorded"]), rest="  ")
    lines += ["", *(page.bold(line) for line in page.wrap(_title(facts), rest="  ")), ""]
    lines += tables.facts(_answer(facts), page, label=_LABEL)
    lines += ["", *_parts(facts, page)]
    if facts.get("effects"):
        lines += ["", *_effects(facts, page)]
    return "\n".join([*lines, "", *tables.facts(_rests_on(facts), page, label=_LABEL)])


def _recorded(found: dict[str, Any]) -> str:
    """The first line: the run at its own number of ranks on its own machine."""
    note = f" {found['note'][0].upper()}{found['note'][1:]}." if found.get("note") else ""
    if not found["replayed"]:
        return f"recorded: cannot be replayed: {found['reason']}.{note}"
    hosts = found["hosts"]
    where = text.plural(len(hosts), "host") if len(hosts) > 1 else str(hosts[0]["host"])
    cores = hosts[0]["cores"]
    machine = f"{where}, {cores} cores" + (" each" if len(hosts) > 1 else "") if cores else f"{where}, cores not known"
    head = (
        f"recorded: {text.plural(found['ranks'], 'rank')} on {machine}, {found['backend']}: "
        f"{text.seconds(found['predicted_s'])} a step predicted, {text.seconds(found['measured_s'])} measured "
        f"({_signed(found['off'])}"
    )
    parts = sorted(found["parts"].items(), key=lambda item: -abs(item[1]["difference_s"]))
    told = [
        f"{name.replace('_', ' ')} {_signed_time(-each['difference_s'])}" for name, each in parts[:_DIFFERENCES]
        if abs(each["difference_s"]) > _WORTH * found["measured_s"]
    ]  # fmt: skip
    head += f": {', '.join(told)})" if told else ")"
    if found["cannot_be_reproduced"]:
        head += ". It cannot be reproduced: take what follows as a guess"
    unexplained = found["unexplained_s"]
    if abs(unexplained) > _WORTH * found["measured_s"]:
        head += f". {_signed_time(unexplained)} unexplained, carried along ({found['unexplained_law']})"
    return f"{head}.{note}"


def _title(facts: dict[str, Any]) -> str:
    if facts["cluster"] is None:
        hosts = facts["machine"]
        where = "its own machine" if len(hosts) == 1 else f"its own {len(hosts)} machines"
    else:
        where = f"{facts['cluster']}, control plane {facts['control_plane']}"
    changed = [
        f"batch {each['asked']} (recorded {each['recorded']})" if name == "batch" else f"{_words(name)} {each}"
        for name, each in facts["changes"].items() if not (name == "control_plane" and facts["cluster"])
    ]
    return f"{facts['name']} with {facts['ranks']:,} ranks on {where}: a prediction" + (
        f"; {', '.join(changed)}" if changed else ""
    )


def _words(name: str) -> str:
    return name.replace("_", " ")


def _answer(facts: dict[str, Any]) -> list[tuple[str, str]]:
    interval, step = facts["interval"], facts["step_time_s"]
    what = "median" if facts["cluster"] is None else "mean"
    rows = [("step time", (
        f"{text.seconds(step)}; the {what} step of a new run is in {text.seconds(interval['low_s'])} to "
        f"{text.seconds(interval['high_s'])} in 90 of 100 cases"
    ))]  # fmt: skip
    behind = [
        f"{label} {text.seconds(ends[0])} to {text.seconds(ends[1])}"
        for name, label in _COMPONENTS.items()
        if (ends := interval["components_s"][name])[1] - ends[0] > _WORTH * step
    ]
    if behind:
        rows.append(("made of", "; ".join(behind)))
    if facts["occasional_s"] > _WORTH * step:
        rows.append(("on average", f"{text.seconds(facts['mean_step_time_s'])} with evaluation and checkpoints as they "
                                   "were recorded"))  # fmt: skip
    if "scaling_efficiency" in facts:
        rows.append(("efficiency", f"{text.percent(facts['scaling_efficiency'])} of one rank alone"))
    if facts["cores"] is not None:
        rows.append(("cores", facts["cores"]["says"]))
    late = facts["late"]
    if late is not None:
        rows.append(("late", f"with rank {late['rank']} as it is {text.seconds(late['as_it_is_s'])}, like the others "
                             f"{text.seconds(late['like_the_others_s'])}. {late['says']}"))  # fmt: skip
    return rows


def _parts(facts: dict[str, Any], page: Page) -> list[str]:
    whole = facts["step_time_s"]
    rows = [["where it goes", "time", "share"]]
    rows += [
        [name.replace("_", " "), text.seconds(value) if value >= 0 else f"-{text.seconds(-value)}",
         text.percent(value / whole)]
        for name, value in facts["breakdown_s"].items() if abs(value) > _WORTH * whole
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
    said = str(facts["validated"]["says"])
    word, _, rest = said.partition(" ")
    rows = [(word, rest)] if word == "validated" else [("validated", said)]
    if facts["cluster"] is None:
        recorded = facts["recorded"]
        cpu = recorded["cpu_s"]
        rows.append(("measured", (
            f"{recorded['steps']:,} steps after the first; CPU time of a rank and step "
            f"{text.seconds(cpu['training_thread'])} in the training thread, {text.seconds(cpu['other_threads'])} in "
            "all others"
        )))  # fmt: skip
        rows.append(("collectives", facts["costs"]))
        return rows
    found = facts["measured"]
    rows += [
        ("measured", f"{found['ranks']:,} ranks on {text.plural(found['hosts'], 'host')}, {found['steps']:,} steps "
                     f"after the first, {found['tensors']:,} gradients; backward "
                     f"{_interval(found['backward_s'], text.seconds)}"),
        ("jitter", f"between ranks {_interval(found['rank_sigma'], text.percent)}; per rank and step "
                   f"{_interval(found['step_sigma'], text.percent)}, correlation with the step before "
                   f"{_interval(found['step_correlation'], _number)}; of all ranks alike "
                   f"{_interval(found['common_sigma'], text.percent)}, correlation "
                   f"{_interval(found['common_correlation'], _number)}"),
        ("not known", "; ".join(_unknown(found)) + "."),
    ]  # fmt: skip
    return rows


def _unknown(found: dict[str, Any]) -> list[str]:
    told = ["compute times are the recorded machine's, whatever GPUs the cluster has"]
    if found["forward_s"] is None:
        told.append("forward was not marked and is in backward")
    if found["optimizer_s"] is None:
        told.append("the optimizer was not marked and is taken for nothing")
    if found["input_s"] is None:
        told.append("input was not told apart and is taken for nothing")
    if found["ranks"] < 2:
        told.append("one rank shows no difference between ranks")
    elif found["ranks"] < 16:
        told.append(f"{found['ranks']} ranks say little about how the slowest of many differs")
    return told


def _interval(each: dict[str, float], show: Any) -> str:
    return f"{show(each['value'])} ({show(each['low'])} to {show(each['high'])})"


def _number(value: float) -> str:
    return f"{value:.2f}"


def _signed(share: float) -> str:
    return f"{'+' if share >= 0 else '-'}{abs(100 * share):.1f} %"


def _signed_time(seconds: float) -> str:
    return f"{'+' if seconds >= 0 else '-'}{text.seconds(abs(seconds))}"
