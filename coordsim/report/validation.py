"""Recorded runs against their predictions, for people."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from coordsim.report import tables, text
from coordsim.report.tables import Page

_METRICS = {"step_ms": "step", "tail_ms": "tail"}
_REASON_INDENT = "  "


def validation_report(facts: dict[str, Any], page: Page) -> str:
    """Every case with its two metrics, the fitted costs, and how far off the predictions are."""
    lines = _cases("Recorded runs of real Horovod, and what coordsim predicts for them", facts, page)
    return "\n".join([*lines, "", *_verdict(facts, page)])


def here_report(facts: dict[str, Any], page: Page) -> str:
    """The same for launches that were made on this machine."""
    lines = _cases("The real backend on this machine, and what coordsim predicts for it", facts, page)
    target, cores = facts["target"], facts["machine"]["cores"]
    promised = target["tolerance"]
    lines += ["", *page.wrap(
        f"Predicted step times of ranks that have a core each ({cores} cores): {target['cases']} cases, absolute error "
        + ", ".join(
            f"{name} {text.percent(target[key])} (promised {text.percent(promised[key])})"
            for key, name in (("median", "median"), ("p90", "90th percentile")) if target[key] is not None
        )
        + ". More ranks than cores share them: shown, nothing is promised."
    )]  # fmt: skip
    lines += page.wrap(
        "These runs see cycles, fusion, messages and CPU on one machine; they barely see a network, and say nothing "
        "about thousands of ranks. How long a rank took to submit is taken from the launch that is predicted; what "
        "follows is not."
    )
    return "\n".join([*lines, *(page.bold(f"MISSED {missed}") for missed in facts["missed"])])


def scale_report(facts: dict[str, Any], page: Page) -> str:
    """Control alone at few ranks and at many: a line a job, rank 0's CPU and the step."""
    lines = [page.bold("Control alone, ranks without torch: rank 0's CPU time of a step, and the step"), ""]
    head = ("plane", "ranks", "tensors", "CPU", "predicted", "error", "step", "predicted", "error", "")
    table = [head]
    rows = iter(facts["rows"])
    for cpu, wall in zip(rows, rows, strict=True):
        cells = [cpu["plane"], str(cpu["ranks"]), str(cpu["tensors"])]
        for row in (cpu, wall):
            error = f"{100 * row['relative_error']:+.0f} %"
            cells += [_ms(1e3 * row["measured_s"]), _ms(1e3 * row["predicted_s"]), error]
        table.append((*cells, "F" if cpu["fitted"] else "p"))
    lines += tables.columns(table, "lrrrrrrrrl", gap=1, indent=1)
    told = []
    for metric, what in (("cpu", "rank 0's CPU time"), ("wall", "step")):
        error, promised = facts["median_abs_relative_error"][metric], facts["tolerance"][metric]
        limit = "nothing" if promised is None else text.percent(promised)
        told.append(f"{what} {'not known' if error is None else text.percent(error)} (promised {limit})")
    lines += ["", *page.wrap(
        f"ms. F fitted, p predicted; median absolute error of what was predicted: {', '.join(told)}. "
        f"All ranks share {facts['cores']} cores and the kernel's loopback: no network, and no thousands of ranks."
    )]  # fmt: skip
    if facts["queued_per_cpu"] is None:
        lines += page.wrap("No job had a core for each rank: whether the machine did other things is not known.")
    else:
        waited = f"{facts['queued_per_cpu']:.2f}"
        how = "busy with other things, and less is promised" if facts["busy"] else "quiet"
        lines += page.wrap(f"Ranks with a core each waited for it {waited} times as long as they used it: {how}.")
    return "\n".join([*lines, *(page.bold(f"MISSED {missed}") for missed in facts["missed"])])


def _cases(title: str, facts: dict[str, Any], page: Page) -> list[str]:
    lines = [page.bold(title), ""]
    lines += _table(facts["rows"], page)
    for reason, cases in _refused(facts["rows"]).items():
        lines += page.wrap(f"{', '.join(cases)}: {reason}", "not predicted: ", _REASON_INDENT)
    for fit in facts["fit"]:
        lines += ["", *_fit(fit, page)]
    return lines


def _table(rows: list[dict[str, Any]], page: Page) -> list[str]:
    """One line a metric: median (10th-90th percentile) measured and predicted, error of the median, KS distance."""
    shown = [row for row in rows if row["predicted"] is not None]
    if not shown:
        return ["no case could be predicted", ""]
    lines = ["", *page.wrap("ms: median (p10-p90). F fitted, p predicted. KS: largest distance of the distributions.")]
    for case, members in groupby(shown, key=lambda row: (row["case"], row["fitted"])):
        table = []
        for row in members:
            workload = row["workload"] if row["metric"] == "step_ms" else ""
            judged = "F" if row["fitted"] else "p"
            error = f"{100 * row['relative_error']:+.1f} %" if row["judged_by"] == "median" else "lottery"
            table.append((
                workload, _METRICS[row["metric"]], _quantiles(row["measured_quantiles"]),
                _quantiles(row["predicted_quantiles"]), error, f"{row['ks']:.2f}", judged,
            ))  # fmt: skip
        head = ("", "", "measured", "predicted", "error", "KS", "")
        lines += ["", page.bold(case[0]), *tables.columns([head, *table], "llllrrl", gap=1, indent=1)]
    return [*lines, ""]


def _quantiles(found: dict[str, float]) -> str:
    return f"{_ms(found['median'])} ({_ms(found['p10'])}-{_ms(found['p90'])})"


def _ms(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _refused(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Why -> the cases concerned, each once."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["reason"]:
            cases = found.setdefault(row["reason"], [])
            if row["case"] not in cases:
                cases.append(row["case"])
    return found


def _fit(fit: dict[str, Any], page: Page) -> list[str]:
    """Fitted costs, each with the range that fits as well."""
    files = ", ".join(fit["files"])
    lines = page.wrap(f"{fit['controller']}: fitted on {files} ({fit['parameter_sets_tried']} parameter sets)")
    rows = [("parameter", "value", "as good", "expected", "", "")]
    for each in fit["parameters"]:
        as_good = f"{text.number(each['low'])} .. {text.number(each['high'])}"
        loose = "" if each["pinned"] else "loose"
        value, expected = text.number(each["value"]), text.number(each["expected"])
        rows.append((each["name"], value, as_good, expected, each["unit"], loose))
    lines += tables.columns(rows, "lrrrll", indent=2)
    for first, second in fit["moved_together"]:
        lines += page.wrap(f"the data cannot tell {first} and {second} apart: they move together", "  ")
    crowd = "take turns on one core" if fit["main_threads_crowd_one_core"] else "run side by side"
    lines += page.wrap(f"main threads whose work does not fit into a cycle's idle part {crowd}", "  ")
    return lines


def _verdict(facts: dict[str, Any], page: Page) -> list[str]:
    lines = []
    errors = facts["median_abs_relative_error_by_metric"]
    for metric, name in _METRICS.items():
        parts = [
            f"{text.percent(errors[metric][kind])} {kind}" for kind in ("fitted", "predicted")
            if errors[metric][kind] is not None
        ]  # fmt: skip
        promised = text.percent(facts["tolerance"][metric])
        if parts:
            lines += page.wrap(f"{name}: median absolute error {', '.join(parts)} (promised: {promised} predicted)")
    lines += page.wrap(
        "These runs see cycles, fusion, messages and CPU on one machine; they barely see a network, and say nothing "
        "about thousands of ranks. Intervals of each row and of each launch: --json."
    )
    lines += [page.bold(f"MISSED {missed}") for missed in facts["missed"]]
    return lines
