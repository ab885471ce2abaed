"""One simulation on one screen: what it was, where the step went, what would change it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coordsim.analyse.explain import Counterfactual
from coordsim.record.breakdown import CONTROL_PARTS
from coordsim.report import tables, text
from coordsim.report.tables import Page
from coordsim.scenario.model import ControlPlane, Scenario
from coordsim.simulate.engine import Simulation

PARTS_OF = {
    "input": ("input_stall",),
    "jitter": ("straggler_wait",),
    "control_plane": CONTROL_PARTS,
    "fusion_copies": ("fusion_copy",),
    "collectives": ("exposed_collective",),
}
"""Cause -> the parts of a step beside which it is printed."""
SHOWN_ASSUMPTIONS = 3
_BAR_CELLS = 12
_SHORT_BAR_CELLS = (5, 3, 0)
"""Beside counterfactuals: the longest with which the table fits the page."""
_LABEL = 14
_SMALLEST_SAVING = 1e-4


@dataclass(frozen=True)
class Change:
    """A change that a user can make, already simulated."""

    flags: str
    command: str
    step_time_s: float
    saves: float
    """Share of the step, 0..1; negative when it gets slower."""


def simulation_report(
    simulation: Simulation,
    facts: dict[str, Any],
    explained: Sequence[Counterfactual] | None,
    changes: Sequence[Change] | None,
    page: Page,
) -> str:
    """The whole report. ``facts`` is :func:`coordsim.analyse.summary.summary` of ``simulation``."""
    lines = _headline(simulation.scenario, page)
    lines += ["", *tables.facts(_results(simulation, facts), page, label=_LABEL)]
    lines += ["", *_breakdown(facts, explained, page)]
    rows = [("last to come", late_ranks(simulation)), ("control", control_line(facts)), ("cost", cost_line(facts))]
    found = {"energy": energy_line(facts), "staging": staging_line(simulation.scenario, facts)}
    rows += [(label, line) for label, line in found.items() if line]
    lines += ["", *tables.facts(rows, page, label=_LABEL)]
    if changes is not None:
        lines += ["", *page.wrap(recommendation(changes, explained or (), facts), page.bold("change:") + " ", "  ")]
    lines += ["", *_assumptions(facts["assumptions"], page)]
    return "\n".join(lines)


def _headline(scenario: Scenario, page: Page) -> list[str]:
    nodes = -(-scenario.ranks // scenario.cluster.machine.ranks_per_node)
    what = (
        f"{scenario.workload.name} on {scenario.cluster.name}: {text.plural(scenario.ranks, 'GPU')} "
        f"({text.plural(nodes, 'node')}), {scenario.control_plane.name}"
        f"{describe_groups(scenario.control_plane)}; {text.plural(scenario.steps, 'step')}, "
        f"seed {scenario.seed}"
    )
    return [page.bold(line) for line in page.wrap(what, rest="  ")]


def describe_groups(plane: ControlPlane) -> str:
    """How tensors are grouped, to follow the control plane's name; nothing for no groups, nor for buckets."""
    groups = plane.groups
    if plane.kind.buckets is not None:
        return ""
    strict = " (strict)" if groups.strict else ""
    if groups.mode == "layer":
        return f", a group per layer{strict}"
    if groups.mode == "count":
        return f", {text.plural(groups.count, 'group')}{strict}"
    if groups.mode == "explicit":
        return f", {text.plural(len(groups.members), 'group')} by name{strict}"
    return ""


def _results(simulation: Simulation, facts: dict[str, Any]) -> list[tuple[str, str]]:
    step = facts["step_time_s"]
    spread = f"p05-p95 {text.seconds(step['p05'])} to {text.seconds(step['p95'])}"
    if step["min"] == step["max"]:
        spread = "every step alike"
    alone = step["mean"] * facts["scaling_efficiency"]
    return [
        (
            "step time",
            f"{text.seconds(step['mean'])}  ({spread}; cold first: {text.seconds(facts['first_step_s'])})",
        ),
        (
            "efficiency",
            f"{text.percent(facts['scaling_efficiency'])}  (one GPU alone, no noise: {text.seconds(alone)})",
        ),
        (
            "throughput",
            _throughput(facts),
        ),
    ]


def _breakdown(facts: dict[str, Any], explained: Sequence[Counterfactual] | None, page: Page) -> list[str]:
    """The ten parts; with ``explained``, what each would save when its cause is removed."""
    parts, whole = facts["breakdown_s"], facts["step_time_s"]["mean"]
    header, align = ["where it goes", "time", "share", ""], "lrrl"
    bars: tuple[int, ...] = (_BAR_CELLS,)
    beside: dict[str, list[str]] = {}
    if explained is not None:
        beside = _beside(explained, facts, page)
        header, align = [*header, "without", "saves", "node-h", "kWh"], align + "rrrr"
        bars = _SHORT_BAR_CELLS
    for cells in bars:
        rows = [header]
        for name, value in parts.items():
            share = value / whole
            mark, *right = beside.get(name, [""] * 5) if explained is not None else [""]
            bar = f"{page.bar(share, cells):<{cells}} {mark}".rstrip() if cells else mark
            rows.append([name.replace("_", " "), text.seconds(value), text.percent(share), bar, *right])
        lines = tables.columns(rows, align, indent=2)
        if max(map(len, lines)) <= page.width:
            break
    legend = [] if explained is None else ["  without: simulated again without it; node-h, kWh: saved in 1,000 steps"]
    return [page.dim(lines[0]), *lines[1:], *map(page.dim, legend)]


def _beside(explained: Sequence[Counterfactual], facts: dict[str, Any], page: Page) -> dict[str, list[str]]:
    """Part -> a bracket and the four cells to its right; a cause of several parts is bracketed."""
    node_hours = facts["allocation"]["node_hours_per_1000_steps"]
    cells = {}
    for cause in explained:
        parts, kwh = PARTS_OF[cause.cause], cause.saves_kwh_per_1000_steps
        saved = ["-" if each is None else _saved(each) for each in (cause.saves * node_hours, kwh)]
        values = [text.seconds(cause.step_time_s), text.percent(cause.saves), *saved]
        marks = ["┐", "├", "┘"] if page.unicode else ["\\", "+", "/"]
        for place, part in enumerate(parts):
            told = place == len(parts) // 2
            mark = marks[place] if len(parts) > 1 else ""
            cells[part] = [mark, *(values if told else [""] * 4)]
    return cells


def _saved(amount: float) -> str:
    """What no table has room for is nothing."""
    return text.number(amount) if abs(amount) >= _SMALLEST_SAVING else "0"


def late_ranks(simulation: Simulation) -> str:
    """Who was last to have its gradients, and how often."""
    scenario = simulation.scenario
    if scenario.ranks == 1:
        return "nobody: there is one GPU"
    if scenario.noise.silent:
        return "nobody: every GPU takes exactly the median time (no noise)"
    ranks, times = np.unique(simulation.trace.steps["ready_last_rank"][1:], return_counts=True)
    most = int(np.argmax(times))
    rank, waited = int(ranks[most]), simulation.breakdown()["straggler_wait"]
    node = rank // scenario.cluster.machine.ranks_per_node
    others = "" if ranks.size == 1 else f" ({ranks.size} different ranks were last)"
    return (
        f"rank {rank:,} (node {node:,}) in {int(times[most]):,} of {text.plural(scenario.steps, 'step')}{others}; "
        f"the median rank waits {text.seconds(waited)} for the last"
    )


def control_line(facts: dict[str, Any]) -> str:
    """What the control plane did in a step."""
    if not facts["control"]["exchanges_per_step"]:
        return "no messages: nothing is negotiated"
    counted = {name: text.number(value) for name, value in facts["control"].items()}
    received = text.size(facts["control"]["coordinator_bytes_per_step"])
    return (
        f"{counted['cycles_per_step']} cycles a step, {counted['slow_cycles_per_step']} of them slow; "
        f"{counted['exchanges_per_step']} exchanges, {counted['requests_per_step']} requests "
        f"({received} to rank 0), {counted['responses_per_step']} responses"
    )


def cost_line(facts: dict[str, Any]) -> str:
    """What the allocation pays."""
    paid = facts["allocation"]
    used = "energy not known"
    if paid["kwh_per_1000_steps"] is not None:
        used = f"{text.number(paid['kwh_per_1000_steps'])} kWh"
    return (
        f"{text.number(paid['node_hours_per_1000_steps'])} node-hours and {used} for 1,000 steps; "
        f"{text.number(paid['node_hours_per_million_samples'])} node-hours a million samples"
    )


def energy_line(facts: dict[str, Any]) -> str:
    """Mean draw, and in which phases it goes; nothing when the power is not known, or nothing is drawn."""
    paid = facts["allocation"]
    used, by_phase = paid["kwh_per_1000_steps"], paid["kwh_by_phase_per_1000_steps"]
    if not used:
        return ""
    told = {"compute": "computing", "wait": "waiting", "idle": "without input"}
    shares = [f"{text.percent(by_phase[phase] / used)} {words}" for phase, words in told.items() if by_phase[phase]]
    return f"{text.si(paid['mean_power_kw'] * 1000, 'W')} at the meter; {', '.join(shares)}"


def staging_line(scenario: Scenario, facts: dict[str, Any]) -> str:
    """What comes before the first step; nothing when it is not counted, or nothing is staged."""
    paid, machine = facts["allocation"], scenario.cluster.machine
    size = text.si(paid["staged_bytes_per_node"] or 0, "B")
    if paid["staging_fits"] is False:
        return f"not possible: {size} a node, whose storage holds {text.si(machine.node_storage_bytes, 'B')}"
    if not paid["staging_s"]:
        return ""
    return (
        f"{size} a node in {text.seconds(paid['staging_s'])} before the first step: "
        f"{text.number(paid['staging_node_hours'])} node-hours"
    )


def recommendation(
    changes: Sequence[Change], explained: Sequence[Counterfactual], facts: dict[str, Any], worth: float = 0.005
) -> str:
    """One sentence: the change that saves most, or that none does and what is left."""
    left = max(explained, key=lambda cause: cause.saves, default=None)
    rest = ""
    if left is not None and left.saves >= worth:
        rest = f"; the largest cause is {left.cause.replace('_', ' ')} ({text.percent(left.saves)})"
    if not changes:
        return f"nothing to try on this control plane{rest}"
    best, node_hours = changes[0], facts["allocation"]["node_hours_per_1000_steps"]
    if best.saves < worth:
        tried = f"none of the {len(changes)} tried saves {text.percent(worth)}"
        return f"{tried} (best: {best.flags}, {text.percent(best.saves)}){rest}"
    return (
        f"{best.flags} brings the step to {text.seconds(best.step_time_s)} and saves {text.percent(best.saves)} "
        f"= {text.number(best.saves * node_hours)} node-hours for 1,000 steps"
    )


def _assumptions(assumptions: Sequence[str], page: Page) -> list[str]:
    shown, more = assumptions[:SHOWN_ASSUMPTIONS], len(assumptions) - SHOWN_ASSUMPTIONS
    lines = ["assumes"]
    for sentence in shown:
        lines += page.wrap(sentence, "  - ")
    if more > 0:
        lines.append(f"  + {more} more with --json")
    return [page.dim(line) for line in lines]


def _throughput(facts: dict[str, Any]) -> str:
    """Samples, and FLOPs where the workload says how many a sample takes."""
    samples = f"{text.number(facts['samples_per_s'])} samples/s"
    flops = facts["sustained_flops"]
    return f"{samples}, {text.si(flops, 'FLOP/s')} sustained" if flops else samples
