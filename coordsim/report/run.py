"""A stored run on one screen: where its steps went, who was last, what the control plane did."""

from __future__ import annotations

from typing import Any

from coordsim.report import tables, text
from coordsim.report.tables import Page

_BAR_CELLS = 12
_LABEL = 14


def run_report(facts: dict[str, Any], title: str, page: Page) -> str:
    """``facts``: :func:`coordsim.analyse.run_summary.run_summary`; ``title``: what the run is called."""
    lines = [page.bold(line) for line in page.wrap(f"{title}: {_what(facts)}", rest="  ")]
    step = facts["step_time_s"]
    spread = f"p05-p95 {text.seconds(step['p05'])} to {text.seconds(step['p95'])}"
    if facts["cold_step_s"] is not None:
        spread += f"; cold first: {text.seconds(facts['cold_step_s'])}"
    lines += ["", *tables.facts([("step time", f"{text.seconds(step['mean'])}  ({spread})")], page, label=_LABEL)]
    lines += ["", *_parts(facts, page)]
    rows = [("last to come", _last(facts))]
    if facts["stragglers"] is not None and facts["ranks"] != 1:
        rows.append(("late", _late(facts["stragglers"])))
    rows.append(("control", _control(facts)))
    if facts["clock_error_s"] is not None and facts["ranks"] != 1:
        rows.append(("clocks", f"ranks' clocks are known to {text.seconds(facts['clock_error_s'])} or better"))
    lines += ["", *tables.facts(rows, page, label=_LABEL)]
    caveats = _caveats(facts)
    if caveats:
        lines += ["", page.dim("what this record cannot tell")]
        for sentence in caveats:
            lines += [page.dim(line) for line in page.wrap(sentence, "  - ")]
    return "\n".join(lines)


def _what(facts: dict[str, Any]) -> str:
    ranks = text.plural(facts["ranks"], "rank") if facts["ranks"] else "ranks unknown"
    return f"{facts['source']}, {ranks}, {text.plural(facts['steps'], 'step')} from number {facts['first_step']:,} on"


def _parts(facts: dict[str, Any], page: Page) -> list[str]:
    whole = facts["step_time_s"]["mean"]
    rows = [["where it goes", "time", "share", ""]]
    for name, value in facts["breakdown_s"].items():
        words = name.replace("_", " ")
        if value is None:
            rows.append([words, "-", "-", "not measured apart"])
        else:
            share = value / whole if whole else 0.0
            rows.append([words, text.seconds(value), text.percent(share), page.bar(share, _BAR_CELLS)])
    lines = tables.columns(rows, "lrrl", indent=2)
    return [page.dim(lines[0]), *lines[1:]]


def _last(facts: dict[str, Any]) -> str:
    if facts["ranks"] == 1:
        return "nobody: there is one rank"
    if not facts["last"]:
        return "not known"
    first, *others = facts["last"]
    told = f"rank {first['rank']:,} in {first['steps']:,} of {text.plural(facts['steps'], 'step')}"
    if others:
        told += "; then " + ", ".join(f"rank {each['rank']:,} in {each['steps']:,}" for each in others[:3])
    if facts["straggler_wait_s"] is None:
        return told
    return f"{told}; the median rank waits {text.seconds(facts['straggler_wait_s'])} for the last"


def _late(found: dict[str, Any]) -> str:
    """The verdict on stragglers; of one, where it gets late and what that costs."""
    told = str(found["verdict"])
    if len(found["late"]) == 1:
        each = found["late"][0]
        onset = each["onset"]
        where = onset["what"] + (f", {onset['tensor']}" if onset["tensor"] else "")
        told += f"; {where}. Were it like the others, a step would wait {text.seconds(each['costs_s'])} less"
    return told


def _control(facts: dict[str, Any]) -> str:
    control = facts["control"]
    nbytes, median = control["coordinator_bytes_per_step"], control["response_bytes_median"]
    responses = f"{text.number(control['responses_per_step'])} responses"
    responses += "" if median is None else f" of {text.size(median)} (median)"
    if control["cycles_per_step"] is None:
        return f"{responses} a step; cycles and requests are not known"
    told = "" if nbytes is None else f" ({text.size(nbytes)} to rank 0)"
    return (
        f"{text.number(control['cycles_per_step'])} cycles a step, {text.number(control['slow_cycles_per_step'])} of "
        f"them slow; {text.number(control['requests_per_step'])} requests{told}, {responses}"
    )


def _caveats(facts: dict[str, Any]) -> list[str]:
    found = tables.reasons({**facts["missing"], **facts["unknown"]})
    detailed = facts["ranks_with_details"]
    if detailed is not None and facts["ranks"] and len(detailed) < facts["ranks"]:
        found.append(
            f"cycles were recorded on {len(detailed):,} of {facts['ranks']:,} ranks; steps and who was last on all"
        )
    if facts["ranks_absent"]:
        found.append(f"ranks without a record: {_some(facts['ranks_absent'])}")
    if facts["ended_early"]:
        found.append(f"ranks that ended without closing their record: {_some(facts['ended_early'])}")
    return found


def _some(ranks: list[int]) -> str:
    more = f" and {len(ranks) - 8:,} more" if len(ranks) > 8 else ""
    return ", ".join(f"{rank:,}" for rank in ranks[:8]) + more
