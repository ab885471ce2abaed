"""A stored run on one screen: where its steps went, who was last, what the control plane did."""

from __future__ import annotations

from typing import Any

from coordsim.report import tables, text
from coordsim.report.tables import Page

_BAR_CELLS = 12
_LABEL = 14
_LONGEST_ERROR = 120
_MANY = 20
"""Steps from which on percentiles are told; of fewer, the shortest and the longest."""


def run_report(facts: dict[str, Any], title: str, page: Page) -> str:
    """``facts``: :func:`coordsim.analyse.run_summary.run_summary`; ``title``: what the run is called."""
    facts, title = text.printable_facts(facts), text.printable(title)  # a file's names may hold anything
    lines = [page.bold(line) for line in page.wrap(f"{title}: {_what(facts)}", rest="  ")]
    step = facts["step_time_s"]
    name, low, high = ("p05-p95 ", "p05", "p95") if facts["steps"] >= _MANY else ("", "min", "max")
    spread = f"{name}{text.seconds(step[low])} to {text.seconds(step[high])}"
    if facts["cold_step_s"] is not None:
        spread += f"; cold first: {text.seconds(facts['cold_step_s'])}"
    lines += ["", *tables.facts([("step time", f"{text.seconds(step['mean'])}  ({spread})")], page, label=_LABEL)]
    lines += ["", *_parts(facts, page)]
    rows = [("last to come", _last(facts))]
    if facts["waited_for"]:
        rows.append(("waited for", _waited_for(facts)))
    if facts["stragglers"] is not None and facts["ranks"] != 1:
        rows.append(("late", _late(facts["stragglers"])))
    rows += [("messages", _messages(facts)), ("control", _control(facts))]
    if facts["control"]["cache_hits_per_step"] is not None:
        rows.append(("cache", _cache(facts)))
    if facts["clock_error_s"] and facts["ranks"] != 1:
        rows.append(("clocks", f"ranks' clocks are known to {text.seconds(facts['clock_error_s'])} or better"))
    lines += ["", *tables.facts(rows, page, label=_LABEL)]
    if facts["recommendation"]:
        lines += ["", *tables.facts([("recommended", _recommended(facts["recommendation"]))], page, label=_LABEL)]
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
    host = f" on {first['host']}" if first["host"] else ""
    told = f"rank {first['rank']:,}{host} in {first['steps']:,} of {text.plural(facts['steps'], 'step')}"
    if first["tensors"]:
        told += ", with " + ", ".join(f"{name} ({times:,})" for name, times in first["tensors"][:2])
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


def _waited_for(facts: dict[str, Any]) -> str:
    first = facts["waited_for"][0]
    return (
        f"rank {first['rank']:,} longest in {first['steps']:,} of {text.plural(facts['steps'], 'step')}, "
        f"{text.seconds(first['wait_s'])} a step: gathers tie ranks together before gradients are ready"
    )


def _messages(facts: dict[str, Any]) -> str:
    found = facts["messages"]
    if not found["per_step"]:
        return "none was seen"
    told = f"{text.number(found['per_step'])} a step"
    if found["bytes_median"] is None:
        return f"{told}, of unknown size"
    total = found["bytes_per_step"]
    in_all = "others of unknown size" if total is None else f"{text.size(total)} in all"
    if total is None:
        told += ", those of known size"
    sizes = f"{text.size(found['bytes_min'])} to {text.size(found['bytes_max'])}, median "
    if found["bytes_min"] == found["bytes_max"]:
        sizes = "each of "
    return f"{told}{' ' if total is None else ', '}{sizes}{text.size(found['bytes_median'])}; {in_all}"


def _control(facts: dict[str, Any]) -> str:
    control = facts["control"]
    if control["cycles_per_step"] is None:
        if facts["control_plane"] is None and facts["unknown"]:
            return "cycles and requests are not known"
        return f"{facts['control_plane'] or 'none'}: nobody negotiates, so its three parts are 0"
    nbytes = control["coordinator_bytes_per_step"]
    told = "" if nbytes is None else f" ({text.size(nbytes)} to rank 0)"
    return (
        f"{text.number(control['cycles_per_step'])} cycles a step, {text.number(control['slow_cycles_per_step'])} of "
        f"them slow; {text.number(control['requests_per_step'])} requests{told}, "
        f"{text.number(control['responses_per_step'])} responses"
    )


def _cache(facts: dict[str, Any]) -> str:
    hits, tensors = facts["control"]["cache_hits_per_step"], facts["messages"]["tensors_per_step"]
    share = f" ({text.percent(hits / tensors)})" if tensors else ""
    return f"{text.number(hits)} hits a step for {text.number(tensors)} tensors{share}"


def _recommended(found: dict[str, Any]) -> str:
    if found["change"] is None:
        return f"nothing: {found['why']}"
    return (
        f"{found['change']}: saves {text.percent(found['saves'])} of the step (90 % interval "
        f"{text.percent(found['saves_low'])} to {text.percent(found['saves_high'])}), {found['why']}"
    )


def _caveats(facts: dict[str, Any]) -> list[str]:
    found = tables.reasons({**facts["missing"], **facts["unknown"]})
    detailed = facts["ranks_with_details"]
    present = (facts["ranks"] or 0) - len(facts["ranks_absent"]) - len(facts["ranks_without_steps"])
    if detailed is not None and len(detailed) < present:
        found.append(
            f"cycles were recorded on {len(detailed):,} of {facts['ranks']:,} ranks; steps and who was last on all"
        )
    if facts["ranks_without_steps"]:
        found.append(f"ranks that ended no step, so they are left out: {_some(facts['ranks_without_steps'])}")
    if facts["ranks_absent"]:
        found.append(f"ranks without a record: {_some(facts['ranks_absent'])}")
    if facts["ended_early"]:
        found.append(f"ranks that ended without closing their record: {_some(facts['ended_early'])}")
    for rank, error in list(facts["ended_with_error"].items())[:2]:
        found.append(f"rank {rank} ended with {_short(error)}")
    if facts["exit_code"]:
        found.append(f"the command ended with exit code {facts['exit_code']}")
    return found


def _short(error: str) -> str:
    line = " ".join(error.split())
    return line if len(line) <= _LONGEST_ERROR else line[: _LONGEST_ERROR - 3] + "..."


def _some(ranks: list[int]) -> str:
    more = f" and {len(ranks) - 8:,} more" if len(ranks) > 8 else ""
    return ", ".join(f"{rank:,}" for rank in ranks[:8]) + more
