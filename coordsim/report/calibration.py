"""A calibration on one screen: each parameter, its interval, and the sizes and ranks beyond which it means nothing."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from coordsim.report import tables, text
from coordsim.report.tables import Page


def calibration_report(facts: dict[str, Any], page: Page) -> str:
    """``facts``: :func:`coordsim.analyse.calibrate.calibration.facts`."""
    lines = [*(page.bold(line) for line in page.wrap(_what(facts), rest="  ")), ""]
    width = max(len(each["name"]) for each in facts["estimates"])
    for holds, group in groupby(facts["estimates"], key=lambda each: (each["holds"], _errors(each))):
        lines += [page.dim(line) for line in page.wrap(f"for {holds[0]}, not beyond{holds[1]}", rest="  ")]
        lines += _rows(list(group), width, page)
    lines += _noise(facts, page)
    lines += _rest(facts, page)
    return "\n".join(lines)


def _what(facts: dict[str, Any]) -> str:
    host, taken = facts["host"], facts["taken"]
    source = {"MEASURED": "measured", "RECORDED": "from recorded runs", "SIMULATED": "from SIMULATED runs"}
    parts = [f"calibration, {source.get(facts['source'], facts['source'])}", f"host {host.get('name') or 'unknown'}"]
    if host.get("cores"):
        parts.append(f"{text.plural(host['cores'], 'core')} (load {host.get('load_before', 'unknown')} before)")
    return ", ".join([*parts, str(taken.get("date") or "date unknown")])


def _errors(estimate: dict[str, Any]) -> str:
    if estimate["error_median"] is None:
        return ""
    median, worst = (text.percent(estimate[f"error_{which}"]) for which in ("median", "worst"))
    return f"; off by {median}, at worst {worst}"


def _rows(estimates: list[dict[str, Any]], width: int, page: Page) -> list[str]:
    rows = []
    for each in estimates:
        low, high = (_value(each[which], each["unit"]) for which in ("low", "high"))
        value = ("~" if each["range"] else "") + _value(each["value"], each["unit"])
        rows.append((each["name"].ljust(width), value.rjust(11), f"({low} to {high})"))
    lines = []
    following = [*(each["note"] for each in estimates[1:]), ""]
    for cells, each, after in zip(rows, estimates, following, strict=True):
        lines.append("  " + "  ".join(cells))
        if each["note"] and each["note"] != after:
            lines += [page.dim(line) for line in page.wrap(each["note"], "      ")]
    return lines


def _value(value: float, unit: str) -> str:
    if unit == "ns":
        return text.seconds(value / 1e9) if value >= 1 else f"{value:.2g} ns"
    if unit == "B/s":
        return text.si(value, "B/s")
    return f"{100 * value:.3g} %" if unit == "share" else f"{value:.2f}"


def _noise(facts: dict[str, Any], page: Page) -> list[str]:
    if not facts["noise_candidates"]:
        return []
    critical = facts["critical_ks"]
    lines = ["", page.dim(f"step noise: distance from each distribution (5 % of true samples exceed {critical:.3f})")]
    rows = [["", "KS", "p", "scale", ""]]
    for each in facts["noise_candidates"]:
        p_value = "-" if each["p_value"] is None else f"{each['p_value']:.2f}"
        kind = "" if each["sayable"] else _UNSAYABLE.get(each["distribution"], "no scenario can say it")
        rows.append([each["distribution"], f"{each['ks']:.3f}", p_value, text.percent(each["parameter"]), kind])
    return lines + tables.columns(rows, "lrrrl", indent=2)


_UNSAYABLE = dict.fromkeys(("normal", "half-normal", "exponential", "uniform"), "beyond a scenario's 100 %")


def _rest(facts: dict[str, Any], page: Page) -> list[str]:
    lines = []
    sentences = [f"{each['key']} = {each['value']}: {each['why']}" for each in facts["choices"]] + facts["notes"]
    if sentences:
        lines += ["", page.dim("chosen, and to be known")]
        for sentence in sentences:
            lines += page.wrap(sentence, "  - ")
    if facts["not_fitted"]:
        lines += ["", page.dim(f"not fitted: the value of {facts['base']} stands")]
        for what, why in facts["not_fitted"].items():
            lines += page.wrap(f"{what}: {why}", "  - ")
    if any(each["range"] for each in facts["estimates"]):
        lines += ["", page.dim("~ a range rather than a value: the interval is wider than the value")]
    return lines
