"""A stored run on one screen: where its steps went, who was last, what the control plane did."""

from __future__ import annotations

import statistics
from typing import Any

from coordsim.protocol.planes import PLANES
from coordsim.report import ranks as rank_table
from coordsim.report import tables, text
from coordsim.report.tables import Page

_BAR_CELLS = 12
_LABEL = 14
_LONGEST_ERROR = 120
_KINDS, _OUTLIERS = 3, 3
"""Kinds of steps and outlying steps told at most."""
_KIND_CELLS = 12
"""Of a kind's name, in the head of its column."""
_WAITS = ("straggler_wait", "fusion_copy", "exposed_collective")
"""Not shown of a run in which no collective was seen."""
_CONTROL_PARTS = ("cycle_wait", "control_exchange", "control_work")
WORTH_A_WORD = 0.02
"""Share of the step from which on a wait for a core is stated."""
_MANY = 20
"""Steps from which on percentiles are told; of fewer, the shortest and the longest."""


def run_report(facts: dict[str, Any], title: str, page: Page, ranks: bool = False) -> str:
    """``facts``: :func:`coordsim.analyse.run_summary.run_summary`; ``title``: what the run is called; ``ranks``: the
    table of ranks, whether or not they differ."""
    facts, title = text.printable_facts(facts), text.printable(title)  # a file's names may hold anything
    lines = [page.bold(line) for line in page.wrap(f"{title}: {_what(facts)}", rest="  ")]
    lines += ["", *tables.facts(_times(facts), page, label=_LABEL)]
    lines += ["", *_parts(facts, page)]
    table = facts.get("rank_table")
    if table is not None and (ranks or rank_table.differs(table)):
        lines += ["", *rank_table.rank_lines(table, page, ranks)]
    lines += ["", *tables.facts(_happened(facts), page, label=_LABEL)]
    if facts["recommendation"]:
        lines += ["", *tables.facts(_advice(facts["recommendation"]), page, label=_LABEL)]
    caveats = _caveats(facts)
    if caveats:
        lines += ["", page.dim("what this record cannot tell")]
        for sentence in caveats:
            lines += [page.dim(line) for line in page.wrap(sentence, "  - ")]
    return "\n".join(lines)


def _what(facts: dict[str, Any]) -> str:
    ranks = text.plural(facts["ranks"], "rank") if facts["ranks"] else "ranks unknown"
    return f"{facts['source']}, {ranks}, {text.plural(facts['steps'], 'step')} from number {facts['first_step']:,} on"


def _times(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """How long steps took, what a step is where they are not all alike, and which took much longer."""
    step = facts["step_time_s"]
    name, low, high = ("p05-p95 ", "p05", "p95") if facts["steps"] >= _MANY else ("", "min", "max")
    spread = f"{name}{text.seconds(step[low])} to {text.seconds(step[high])}"
    if facts["cold_step_s"] is not None:
        spread += f"; cold first: {text.seconds(facts['cold_step_s'])}"
    rows = [("step time", f"{text.seconds(step['mean'])}  ({spread})")]
    kinds = facts.get("kinds") or []
    if len(kinds) > 1:
        rows.append(("kinds of step", "; ".join(_kind(each) for each in kinds[:_KINDS])))
    elif kinds and kinds[0]["backward_passes"] > 1:
        passes = f"{kinds[0]['backward_passes']:,} backward passes"
        rows.append(("a step", f"{passes}; forward and backward below are their sums"))
    far = facts.get("outlying_steps") or []
    if far:
        rows.append(("outliers", _outliers(far)))
    return rows


def _kind(each: dict[str, Any]) -> str:
    told = f"{text.plural(each['steps'], 'step')} of {each['kind'] or 'another kind'}, {text.seconds(each['mean_s'])}"
    passes = each["backward_passes"]
    return f"{told}, {passes:,} backward passes each" if passes > 1 else told


def _outliers(far: list[dict[str, Any]]) -> str:
    steps = ", ".join(f"step {each['step']:,} took {text.seconds(each['time_s'])} (mostly {_words(each['part'])})"
                      for each in far[:_OUTLIERS])  # fmt: skip
    more = far[0]["outliers"] - len(far[:_OUTLIERS])
    steps += f" and {more:,} more" if more > 0 else ""
    return f"{steps}; the mean without: {text.seconds(far[0]['mean_without_s'])}"


def _parts(facts: dict[str, Any], page: Page) -> list[str]:
    whole = facts["step_time_s"]["mean"]
    shown = facts.get("shown_rank")
    whose = f"where it goes on rank {shown:,}" if shown is not None and facts["ranks"] != 1 else "where it goes"
    kinds = [each for each in (facts.get("kinds") or [])[:_KINDS] if len(facts["kinds"]) > 1]
    rows = [[whose, "time", "share", *(each["kind"][:_KIND_CELLS] or "other" for each in kinds), ""]]
    for name, value in facts["breakdown_s"].items():
        if _nobody_negotiates(facts) and name in _CONTROL_PARTS:
            continue
        if not value and name in _WAITS and not facts["messages"]["per_step"]:
            continue
        if value is None:
            rows.append([_words(name), "-", "-", *("-" for _ in kinds), "" if kinds else "not measured apart"])
        else:
            share = value / whole if whole else 0.0
            apart = [text.seconds(each["breakdown_s"].get(name, 0.0)) for each in kinds]
            bar = "" if kinds else page.bar(share, _BAR_CELLS)
            rows.append([_words(name), text.seconds(value), text.percent(share), *apart, bar])
    lines = tables.columns(rows, f"lrr{'r' * len(kinds)}l", indent=2)
    if shown is not None and facts["ranks"] != 1:
        note = f"rank {shown:,} is the median one of {facts['ranks']:,} by its own work; its waits are for others"
        lines += [page.dim(line) for line in page.wrap(note, "  ")]
    return [page.dim(lines[0]), *lines[1:]]


def _nobody_negotiates(facts: dict[str, Any]) -> bool:
    """Whether a real run had no negotiation, so that its three parts of control are 0 by definition."""
    kind = PLANES.get(facts["control_plane"])
    return facts["source"] == "real run" and kind is not None and not kind.negotiates


def _words(part: str) -> str:
    return part.replace("_", " ")


def _happened(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Who was late, what travelled, and what the control plane did where there is one."""
    rows = []
    if facts["stragglers"] is not None and facts["ranks"] != 1:
        rows.append(("late", _late(facts["stragglers"])))
    if facts["ranks"] != 1 and (facts["source"] != "real run" or facts["messages"]["per_step"]):
        rows.append(("last to come", _last(facts)))
    if facts["waited_for"]:
        rows.append(("waited for", _waited_for(facts)))
    rows.append(("messages", _messages(facts)))
    if not _nobody_negotiates(facts):
        rows.append(("control", _control(facts)))
        if facts["control"]["cache_hits_per_step"] is not None:
            rows.append(("cache", _cache(facts)))
        if facts["clock_error_s"] and facts["ranks"] != 1:
            rows.append(("clocks", f"ranks' clocks are known to {text.seconds(facts['clock_error_s'])} or better"))
    waits = _core_waits(facts)
    crowded = [_cores(machine) for machine in (facts.get("machines") or []) if machine["crowded"]][:1]
    if crowded or waits:
        rows.append(("cores", ". ".join([*crowded, *([waits] if waits else [])])))
    return rows


def _core_waits(facts: dict[str, Any]) -> str | None:
    """How long training threads wait for a core; None where that is not known or not worth a word."""
    ranks = (facts.get("rank_table") or {}).get("ranks", [])
    waits = {row["rank"]: row["core_wait_s"] for row in ranks if row.get("core_wait_s") is not None}
    if not waits or max(waits.values()) < WORTH_A_WORD * facts["step_time_s"]["mean"]:
        return None
    worst = max(waits, key=lambda rank: waits[rank])
    middle = statistics.median(waits.values())
    return (
        f"The thread that trains is ready to run but has no core for {text.seconds(middle)} a step (rank {worst:,}: "
        f"{text.seconds(waits[worst])})"
    )


def _cores(machine: dict[str, Any]) -> str:
    threads = f" of {text.plural(machine['threads'], 'thread')}" if machine["threads"] else ""
    told = f"{text.plural(machine['ranks'], 'rank')}{threads} on {text.plural(machine['cores'], 'core')}"
    if machine["oversubscribed"]:
        return f"oversubscribed: {told} of {machine['host']}, so ranks slow each other down"
    return f"none to spare: {told} of {machine['host']}; whatever else runs there slows a rank down"


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
    shown = facts.get("shown_rank")
    who = "the median rank" if shown is None else f"rank {shown:,}"
    return f"{told}; in the median step {who} waits {text.seconds(facts['straggler_wait_s'])} for the last"


def _late(found: dict[str, Any]) -> str:
    """The verdict on stragglers: where each gets late and, of one, what that costs."""
    told = str(found["verdict"])
    several = len(found["late"]) > 1
    for each in found["late"][:3]:
        who = f"host {each['host']}" if each["what"] == "host" else f"rank {each['ranks'][0]:,}"
        told += f". {f'{_capital(who)} is late' if several else 'Where:'} {_where(each['onset'])}"
        if not several:
            told += f". The others wait {text.seconds(each['costs_s'])} a step for it alone"
    return told


def _where(onset: dict[str, Any]) -> str:
    """In which part of its own work, and by how much in each."""
    where = str(onset["what"])
    if onset["tensor"] and onset["tensor"] not in where:
        where += f", {onset['tensor']}"
    parts = (onset.get("parts") or []) if onset["from"] != "begin" else []
    longer = [each for each in parts if each["excess_s"] > 0]
    less = [f"{_words(each['part'])} {text.seconds(-each['excess_s'])} shorter" for each in parts if each not in longer]
    if len(longer) == 1:
        where += f", {text.seconds(longer[0]['excess_s'])} longer than on the others"
    elif longer:
        named = [f"{_words(each['part'])} {text.seconds(each['excess_s'])}" for each in longer]
        where += f"; longer than on the others: {', '.join(named)}"
    return where + (f", but {', '.join(less)}" if less else "")


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


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


def _advice(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The largest part, where no replay is about it, and what is recommended."""
    rows = []
    largest = found.get("largest")
    if largest is not None and found["saves"] is None and found["change"] is None:
        told = f"{_words(largest['part'])}, {text.percent(largest['share'])} of the step. No replay can predict what a "
        rows.append(("largest", f"{told}change there saves; look at {largest['look_at']}"))
    elif largest is not None and found.get("about") not in (largest["part"], "late"):
        told = f"{_words(largest['part'])}, {text.percent(largest['share'])} of the step"
        rows.append(("largest", f"{told}: look at {largest['look_at']}"))
    return [*rows, ("recommended", _recommended(found))]


def _recommended(found: dict[str, Any]) -> str:
    if found["change"] is None:
        return f"nothing: {found['why']}"
    if found["saves"] is None:
        return f"{found['change']}; what that saves cannot be predicted: {found['why']}"
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
    if facts.get("failure"):
        found.append(_short(str(facts["failure"])))
    if facts["ended_early"]:
        found.append(f"ranks whose process died while it recorded: {_some(facts['ended_early'])}")
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
