"""Rows of an answer, label and text: results, who was late, what travelled, what the control plane did, its costs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from coordsim.analyse.answer.model import Answer
from coordsim.analyse.step_kinds import Outliers
from coordsim.record.findings import Onset, StepKind, Stragglers
from coordsim.record.run_facts import Machine
from coordsim.report import text
from coordsim.report.answer.split import kinds_shown

Row = tuple[str, str]

WORTH_A_WORD = 0.02
"""Share of the step from which on a wait for a core is stated."""
_OUTLIERS = 3
_MANY = 20
"""Steps from which on percentiles are told of a recorded run; of fewer, the shortest and the longest."""


def results(answer: Answer) -> list[Row]:
    """How long steps took, what a step is where they are not all alike, which took much longer, and how it scales."""
    rows = [("step time", f"{text.seconds(answer.step_time.mean.value)}  ({_spread(answer)})")]
    kinds = () if answer.findings is None else answer.findings.kinds
    if len(kinds) > 1:
        rows.append(("kinds of step", "; ".join(map(_kind, kinds_shown(answer)))))
    elif kinds and kinds[0].backward_passes > 1:
        passes = f"{kinds[0].backward_passes:,} backward passes"
        rows.append(("a step", f"{passes}; forward and backward below are their sums"))
    if answer.outliers is not None:
        rows.append(("outliers", _outliers(answer.outliers)))
    if answer.scaling is not None:
        alone = text.seconds(answer.step_time.mean.value * answer.scaling.efficiency)
        rows.append(("efficiency", f"{text.percent(answer.scaling.efficiency)}  (one GPU alone, no noise: {alone})"))
        samples, flops = f"{text.number(answer.scaling.samples_per_s)} samples/s", answer.scaling.sustained_flops
        rows.append(("throughput", f"{samples}, {text.si(flops, 'FLOP/s')} sustained" if flops else samples))
    return rows


def _spread(answer: Answer) -> str:
    step = answer.step_time
    percentiles = answer.subject is not None or answer.steps >= _MANY
    low, high = (step.p05, step.p95) if percentiles else (step.min, step.max)
    spread = f"{'p05-p95 ' if percentiles else ''}{text.seconds(low or 0.0)} to {text.seconds(high or 0.0)}"
    if answer.subject is not None and step.min == step.max:
        spread = "every step alike"
    return spread if step.cold is None else f"{spread}; cold first: {text.seconds(step.cold)}"


def _kind(kind: StepKind) -> str:
    steps = f"{text.plural(kind.steps, 'step')} of {kind.kind or 'another kind'}, {text.seconds(kind.mean_s)}"
    return f"{steps}, {kind.backward_passes:,} backward passes each" if kind.backward_passes > 1 else steps


def _outliers(far: Outliers) -> str:
    shown = far.named[:_OUTLIERS]
    steps = ", ".join(
        f"step {each.step:,} took {text.seconds(each.time_s)} (mostly {text.words(each.part)})" for each in shown
    )
    steps += f" and {far.count - len(shown):,} more" if far.count > len(shown) else ""
    return f"{steps}; the mean without: {text.seconds(far.mean_without_s)}"


def happened(answer: Answer) -> list[Row]:
    """Who was late, what travelled, and what the control plane did where there is one."""
    rows, messages = list[Row](), answer.messages
    several = answer.ranks != 1
    if answer.findings is not None and several:
        rows.append(("late", _late(answer.findings.stragglers)))
    if answer.subject is not None or (several and (not answer.real or (messages is not None and messages.per_step))):
        rows.append(("last to come", last_to_come(answer)))
    if answer.facts.waited_for:
        rows.append(("waited for", _waited_for(answer)))
    if answer.subject is None:
        rows.append(("messages", _messages(answer)))
    if not answer.real or not answer.nobody_negotiates:
        rows.append(("control", control_row(answer)))
        hits = answer.control.cache_hits_per_step
        if hits is not None and messages is not None and answer.subject is None:
            rows.append(("cache", _cache(hits, messages.tensors_per_step)))
        if answer.facts.clock_error_s and several:
            rows.append(("clocks", f"ranks' clocks are known to {text.seconds(answer.facts.clock_error_s)} or better"))
    crowded = [] if answer.findings is None else [machine for machine in answer.findings.machines if machine.crowded]
    cores = [*map(_cores, crowded[:1]), *_core_waits(answer)]
    return [*rows, ("cores", ". ".join(cores))] if cores else rows


def last_to_come(answer: Answer) -> str:
    """Who came last, how often, and how long that was waited for."""
    lateness = answer.lateness
    if lateness.explained is not None:
        return lateness.explained
    if not lateness.last:
        return "not known"
    first, *others = lateness.last
    where = f" on {first.host}" if first.host else ""
    if first.node is not None:
        where = f" (node {first.node:,})"
    said = f"rank {first.rank:,}{where} in {first.steps:,} of {text.plural(answer.steps, 'step')}"
    if answer.subject is not None:
        said += "" if lateness.different == 1 else f" ({lateness.different} different ranks were last)"
        return f"{said}; the median rank waits {text.seconds(lateness.wait_mean_s or 0.0)} for the last"
    if first.tensors:
        said += ", with " + ", ".join(f"{tensor.name} ({tensor.steps:,})" for tensor in first.tensors[:2])
    if others:
        said += "; then " + ", ".join(f"rank {other.rank:,} in {other.steps:,}" for other in others[:3])
    if lateness.wait_median_s is None:
        return said
    shown = answer.facts.shown_rank
    who = "the median rank" if shown is None else f"rank {shown:,}"
    return f"{said}; in the median step {who} waits {text.seconds(lateness.wait_median_s)} for the last"


def _late(found: Stragglers) -> str:
    """The verdict on stragglers: where each gets late and, of one, what that costs."""
    said, several = found.verdict, len(found.late) > 1
    for unit in found.late[:3]:
        who = f"host {unit.host}" if unit.what == "host" else f"rank {unit.ranks[0]:,}"
        said += f". {f'{_capital(who)} is late' if several else 'Where:'} {_where(unit.onset)}"
        if not several:
            said += f". The others wait {text.seconds(unit.costs_s)} a step for it alone"
    return said


def _where(onset: Onset) -> str:
    """In which part of its own work, and by how much in each."""
    where = onset.what
    if onset.tensor and onset.tensor not in where:
        where += f", {onset.tensor}"
    parts = (onset.parts or ()) if onset.origin != "begin" else ()
    longer = [part for part in parts if part.excess_s > 0]
    less = [f"{text.words(part.part)} {text.seconds(-part.excess_s)} shorter" for part in parts if part.excess_s <= 0]
    if len(longer) == 1:
        where += f", {text.seconds(longer[0].excess_s)} longer than on the others"
    elif longer:
        named = [f"{text.words(part.part)} {text.seconds(part.excess_s)}" for part in longer]
        where += f"; longer than on the others: {', '.join(named)}"
    return where + (f", but {', '.join(less)}" if less else "")


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _waited_for(answer: Answer) -> str:
    first = (answer.facts.waited_for or ())[0]
    return (
        f"rank {first.rank:,} longest in {first.steps:,} of {text.plural(answer.steps, 'step')}, "
        f"{text.seconds(first.wait_ns / 1e9)} a step: gathers tie ranks together before gradients are ready"
    )


def _messages(answer: Answer) -> str:
    messages = answer.messages
    if messages is None or not messages.per_step:
        return "none was seen"
    said = f"{text.number(messages.per_step)} a step"
    if messages.bytes_median is None or messages.bytes_min is None or messages.bytes_max is None:
        return f"{said}, of unknown size"
    total = messages.bytes_per_step
    in_all = "others of unknown size" if total is None else f"{text.size(total)} in all"
    if total is None:
        said += ", those of known size"
    sizes = f"{text.size(messages.bytes_min)} to {text.size(messages.bytes_max)}, median "
    if messages.bytes_min == messages.bytes_max:
        sizes = "each of "
    return f"{said}{' ' if total is None else ', '}{sizes}{text.size(messages.bytes_median)}; {in_all}"


def control_row(answer: Answer) -> str:
    """What the control plane did in a step."""
    control = answer.control
    if answer.subject is not None and not control.exchanges_per_step:
        return "no messages: nothing is negotiated"
    if control.cycles_per_step is None:
        if answer.control_plane is None and answer.unknown:
            return "cycles and requests are not known"
        return f"{answer.control_plane or 'none'}: nobody negotiates, so its three parts are 0"
    nbytes, exchanges = control.coordinator_bytes_per_step, control.exchanges_per_step
    exchanged = "" if exchanges is None else f"{text.number(exchanges)} exchanges, "
    received = "" if nbytes is None else f" ({text.size(nbytes)} to rank 0)"
    counted = [
        text.number(0.0 if value is None else value)
        for value in (control.slow_cycles_per_step, control.requests_per_step, control.responses_per_step)
    ]
    return (
        f"{text.number(control.cycles_per_step)} cycles a step, {counted[0]} of them slow; "
        f"{exchanged}{counted[1]} requests{received}, {counted[2]} responses"
    )


def _cache(hits: float, tensors: float | None) -> str:
    share = f" ({text.percent(hits / tensors)})" if tensors else ""
    return f"{text.number(hits)} hits a step for {text.number(tensors or 0.0)} tensors{share}"


def _core_waits(answer: Answer) -> list[str]:
    """How long training threads wait for a core; nothing where that is not known or not worth a word."""
    table = None if answer.findings is None else answer.findings.rank_table
    rows = () if table is None else table.ranks
    waits = {row.rank: row.core_wait_s for row in rows if row.core_wait_s is not None}
    if not waits or max(waits.values()) < WORTH_A_WORD * answer.step_time.mean.value:
        return []
    worst = max(waits, key=lambda rank: waits[rank])
    middle = text.seconds(statistics.median(waits.values()))
    return [f"Training threads wait {middle} a step for a core (rank {worst:,}: {text.seconds(waits[worst])})"]


def _cores(machine: Machine) -> str:
    threads = f" of {text.plural(machine.threads, 'thread')}" if machine.threads else ""
    cores = text.plural(machine.cores or 0, "core")
    said = f"{text.plural(machine.ranks, 'rank')}{threads} on {cores} of {machine.host}"
    if machine.oversubscribed:
        return f"oversubscribed: {said}, so ranks slow each other down"
    return f"none to spare: {said}; whatever else runs there slows a rank down"


def cost_rows(answer: Answer) -> Sequence[Row]:
    """What the allocation pays; nothing where no machine's costs are known."""
    if answer.costs is None:
        return []
    rows = [("cost", cost_row(answer)), ("energy", energy_row(answer)), ("staging", staging_row(answer))]
    return [(label, said) for label, said in rows if said]


def cost_row(answer: Answer) -> str:
    """Node-hours and energy."""
    paid = answer.costs
    assert paid is not None
    used = "energy not known" if paid.kwh_per_1000_steps is None else f"{text.number(paid.kwh_per_1000_steps)} kWh"
    return (
        f"{text.number(paid.node_hours_per_1000_steps)} node-hours and {used} for 1,000 steps; "
        f"{text.number(paid.node_hours_per_million_samples)} node-hours a million samples"
    )


def energy_row(answer: Answer) -> str:
    """Mean draw, and in which phases it goes; nothing when the power is not known, or nothing is drawn."""
    paid = answer.costs
    if paid is None or not paid.kwh_per_1000_steps or paid.kwh_by_phase_per_1000_steps is None:
        return ""
    used, by_phase = paid.kwh_per_1000_steps, paid.kwh_by_phase_per_1000_steps
    names = {"compute": "computing", "wait": "waiting", "idle": "without input"}
    shares = [f"{text.percent(by_phase[phase] / used)} {words}" for phase, words in names.items() if by_phase[phase]]
    return f"{text.si((paid.mean_power_kw or 0.0) * 1000, 'W')} at the meter; {', '.join(shares)}"


def staging_row(answer: Answer) -> str:
    """What comes before the first step; nothing when it is not counted, or nothing is staged."""
    paid, subject = answer.costs, answer.subject
    if paid is None or subject is None:
        return ""
    size = text.si(paid.staged_bytes_per_node or 0, "B")
    if paid.staging_fits is False:
        return f"not possible: {size} a node, whose storage holds {text.si(subject.node_storage_bytes, 'B')}"
    if not paid.staging_s:
        return ""
    return (
        f"{size} a node in {text.seconds(paid.staging_s)} before the first step: "
        f"{text.number(paid.staging_node_hours or 0.0)} node-hours"
    )
