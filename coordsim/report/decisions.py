"""A recorded timeline against the protocol's own decisions, for people and for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from statistics import median_low
from typing import Any

from coordsim.analyse.validate.decisions import (
    SAME_COUNT,
    SAME_KIND,
    Decisions,
    Mismatch,
    StepDecisions,
    compare_decisions,
    quantile,
)
from coordsim.report import tables, text
from coordsim.report.tables import Page
from coordsim.report.text import printable

SCHEMA = "coordsim.decisions/1"
_LABEL = 15
_SHOWN_MISMATCHES = 5
_SHOWN_NAMES = 3
_NAME_WIDTH, _LABEL_WIDTH = 36, 26

ASSUMED = (
    "when a cache hit became common is taken from the recording: rank 0's timeline does not say when others popped it",
    "scale, reduction and device of a tensor are the same on all ranks and in all steps; an allgather's rows are "
    "spread evenly; all ranks sit on one node (it rounds the fusion threshold)",
)


def timeline_facts(
    path: Path | str,
    *,
    ranks: int | None = None,
    cache_capacity: int | None = None,
    fusion_threshold_bytes: int | None = None,
    disable_group_fusion: bool | None = None,
) -> dict[str, Any]:
    """Recorded and predicted decisions (schema ``coordsim.decisions/1``); ``missed`` lists tolerances not kept.

    What is None is read from the recording's description, or Horovod's default, as ``settings`` says. A step's
    ``messages`` and the ``tensor_sets`` are lists of places in ``tensors``; ``messages`` is null beyond the first
    1,000 steps. Times in microseconds. Raises InputError for a file that is no timeline, or nothing to compare.
    """
    decisions = compare_decisions(
        Path(path),
        ranks=ranks,
        cache_capacity=cache_capacity,
        fusion_threshold_bytes=fusion_threshold_bytes,
        disable_group_fusion=disable_group_fusion,
    )
    sets = {names: index for index, names in enumerate(dict.fromkeys(step.tensors for step in decisions.steps))}
    place = {name: index for index, name in enumerate(dict.fromkeys(name for names in sets for name in names))}
    return {
        "schema": SCHEMA,
        "file": str(path),
        "missed": decisions.missed,
        "settings": {each.name: asdict(getattr(decisions.settings, each.name)) for each in fields(decisions.settings)},
        "recording": _recording(decisions),
        "cycle_period_us": {
            "recorded": _spread(decisions.periods_us),
            "rule": _spread(decisions.rule_periods_us),
            "idle": _spread(decisions.idle_periods_us),
        },
        "cycles": decisions.kinds,
        "agreement": _agreement(decisions),
        "tolerance": {"same_count_share": SAME_COUNT, "same_kind_share": SAME_KIND, "same_composition_share": 1.0,
                      "same_order_share": 1.0},
        "tensors": list(place),
        "tensor_sets": [[place[name] for name in names] for names in sets],
        "steps": [_step(step, sets[step.tensors], place) for step in decisions.steps],
        "mismatched_cycles": decisions.mismatched_cycles,
        "mismatches": [_mismatch(each) for each in decisions.mismatches],
        "notes": _notes(decisions),
        "assumptions": list(ASSUMED),
    }  # fmt: skip


def _recording(decisions: Decisions) -> dict[str, Any]:
    return {
        "events": decisions.events,
        "start_epoch_us": decisions.start_epoch_us,
        "lost": decisions.lost,
        "steps": len(decisions.steps),
        "cycles": sum(decisions.kinds["recorded"].values()),
        "assumed_cached": decisions.assumed_cached,
        "without_ticks": decisions.without_ticks,
        "stalled": decisions.stalled,
        "stray_ends": decisions.stray_ends,
    }


def _agreement(decisions: Decisions) -> dict[str, Any]:
    compared = len(decisions.compared)
    return {
        "steps": compared,
        "same_count": decisions.same_count,
        "same_count_share": decisions.same_count / compared,
        "active_cycles": decisions.active_cycles,
        "same_kind": decisions.same_kind,
        "comparable_cycles": decisions.comparable_cycles,
        "same_composition": decisions.same_composition,
        "same_order": decisions.same_order,
    }


def _spread(values: Sequence[int]) -> dict[str, int | None]:
    return {"median": quantile(values, 0.5), "p10": quantile(values, 0.1), "p90": quantile(values, 0.9)}


def _step(step: StepDecisions, tensor_set: int, place: dict[str, int]) -> dict[str, Any]:
    messages = None
    if step.messages is not None:
        messages = [[place[name] for name in names] for names in step.messages]
    return {
        "step": step.step,
        "tensor_set": tensor_set,
        "cut": step.cut,
        "messages_recorded": step.recorded,
        "messages_predicted": step.predicted,
        "slow_cycles_recorded": step.slow_recorded,
        "slow_cycles_predicted": step.slow_predicted,
        "fast_cycles_recorded": step.fast_recorded,
        "fast_cycles_predicted": step.fast_predicted,
        "same_composition": step.composition,
        "same_order": step.order,
        "messages": messages,
    }


def _mismatch(each: Mismatch) -> dict[str, Any]:
    found = asdict(each)
    return {**found, **{side: [list(names) for names in found[side]] for side in ("recorded", "predicted")}}


def _notes(decisions: Decisions) -> list[str]:
    """What limits the comparison, or may explain its failure, in sentences."""
    notes = []
    if decisions.lost is not None:
        notes.append(f"the file is cut off; lost: {decisions.lost}")
    cut = len(decisions.steps) - len(decisions.compared)
    if cut:
        notes.append(f"{text.plural(cut, 'step')} not executed to the end within the file: not compared")
    if decisions.assumed_cached:
        notes.append(f"{text.plural(decisions.assumed_cached, 'tensor')} cached before recording began; their bits are "
                     "guessed from the order of their first hits")  # fmt: skip
    if decisions.without_ticks:
        ended = text.plural(decisions.without_ticks, "negotiation")
        ranks = decisions.settings.ranks.value
        notes.append(f"{ended} ended without a request from each of {ranks} ranks: some had joined, or there were "
                     "fewer; left out")  # fmt: skip
    if decisions.stalled:
        notes.append(f"{text.plural(decisions.stalled, 'request')} taken for reports of stalled cache hits")
    if decisions.stray_ends:
        notes.append(f"{text.plural(decisions.stray_ends, 'end')} without a beginning ignored")
    kinds = decisions.kinds
    if kinds["predicted"]["fast"] and not kinds["recorded"]["fast"]:
        notes.append("no cycle was fast in the recording: was it made with HOROVOD_CACHE_CAPACITY=0?")
    return notes


def timeline_table(facts: dict[str, Any], page: Page) -> str:
    """One screen: what was recorded, what the protocol decides, where they differ."""
    settings, recording, agreement = facts["settings"], facts["recording"], facts["agreement"]
    title = f"{printable(facts['file'])}: decisions of real Horovod against the protocol's, fed the same pops"
    lines = [page.bold(line) for line in page.wrap(title)]
    cycles = facts["cycles"]["recorded"]
    recorded = (
        f"{text.plural(recording['steps'], 'step')} in {text.plural(recording['cycles'], 'cycle')} "
        f"({cycles['slow']:,} slow, {cycles['fast']:,} fast), {text.plural(recording['events'], 'event')}"
    )
    lines += ["", *tables.facts([("recorded", recorded), *_set_to(settings), *_periods(facts)], page, label=_LABEL)]
    lines += ["", *_steps(facts, page)]
    rows = [
        ("same count", f"{agreement['same_count']:,} of {text.plural(agreement['steps'], 'step')} "
                       f"(at least {text.percent(facts['tolerance']['same_count_share'])})"),
        ("same messages", f"members in {agreement['same_composition']:,}, order in {agreement['same_order']:,} of "
                          f"{text.plural(agreement['comparable_cycles'], 'cycle')} in which the same tensors became "
                          "common (all)"),
        ("slow or fast", f"{agreement['same_kind']:,} of {text.plural(agreement['active_cycles'], 'cycle')} with "
                         f"something to do (at least {text.percent(facts['tolerance']['same_kind_share'])})"),
    ]  # fmt: skip
    lines += ["", *tables.facts(rows, page, label=_LABEL)]
    for missed in facts["missed"]:
        lines += [page.bold(line) for line in page.wrap(f"MISSED {missed}", rest="  ")]
    if facts["mismatches"]:
        lines += ["", *_mismatches(facts, page)]
    for note in (*facts["notes"], *facts["assumptions"]):
        lines += [page.dim(line) for line in page.wrap(note, "  - ")]
    return "\n".join(lines)


def _set_to(settings: dict[str, Any]) -> list[tuple[str, str]]:
    shown = {
        "ranks": f"{settings['ranks']['value']:,}",
        "cache": f"{settings['cache_capacity']['value']:,} tensors" if settings["cache_capacity"]["value"] else "none",
        "fusion up to": text.size(settings["fusion_threshold_bytes"]["value"]),
    }
    keys = ("ranks", "cache_capacity", "fusion_threshold_bytes")
    rows = [(name, f"{value}  ({printable(settings[key]['source'])})")
            for (name, value), key in zip(shown.items(), keys, strict=True)]  # fmt: skip
    if settings["disable_group_fusion"]["value"]:
        rows.append(("groups", f"fuse with nothing else  ({printable(settings['disable_group_fusion']['source'])})"))
    return rows


def _periods(facts: dict[str, Any]) -> list[tuple[str, str]]:
    spread = {
        name: ", ".join(f"{key} {text.seconds(value / 1e6)}" for key, value in each.items() if value is not None)
        for name, each in facts["cycle_period_us"].items()
    }
    if not spread["recorded"]:
        return []
    rule = f"{spread['rule']} by the rule: the cycle time, or what rank 0 did if longer"
    rows = [("cycle period", f"{spread['recorded']}; {rule}")]
    return rows + [("when idle", spread["idle"])] * bool(spread["idle"])


def _steps(facts: dict[str, Any], page: Page) -> list[str]:
    """A row for each set of tensors that made up a step; medians over its steps."""
    rows = [["a step of", "steps", "messages", "predicted", "slow", "predicted"]]
    for index, names in enumerate(facts["tensor_sets"]):
        steps = [step for step in facts["steps"] if step["tensor_set"] == index and not step["cut"]]
        if not steps:
            continue
        first = shorten(facts["tensors"][names[0]], _LABEL_WIDTH)
        label = first if len(names) == 1 else f"{first} + {len(names) - 1:,}"
        values = [
            median_low(step[key] for step in steps)
            for key in ("messages_recorded", "messages_predicted", "slow_cycles_recorded", "slow_cycles_predicted")
        ]
        rows.append([label, f"{len(steps):,}", *(f"{value:,}" for value in values)])
    head, *rest = tables.columns(rows, "lrrrrr", indent=2)
    return [page.dim(head), *rest, page.dim("  slow: cycles in which rank 0 was asked; medians over steps")]


def _mismatches(facts: dict[str, Any], page: Page) -> list[str]:
    total, shown = facts["mismatched_cycles"], facts["mismatches"][:_SHOWN_MISMATCHES]
    differ = "cycle differs" if total == 1 else "cycles differ"
    lines = [f"{total:,} {differ}{', the first' * (total > len(shown))}:"]
    for each in shown:
        where = f"  cycle {each['cycle']:,} at {text.seconds(each['at_us'] / 1e6)}, {each['what']}: "
        told = (
            f"recorded {each['recorded_kind']}, {_told(each['recorded'])}; "
            f"predicted {each['predicted_kind']}, {_told(each['predicted'])}"
        )
        lines += page.wrap(told, where, "    ")
    return lines


def _told(messages: Sequence[Sequence[str]]) -> str:
    if not messages:
        return "no message"
    told = [_names(names) for names in messages[:_SHOWN_NAMES]]
    more = len(messages) - len(told)
    return f"{text.plural(len(messages), 'message')} {' '.join(told)}" + (f" + {more:,} more" if more else "")


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(shorten(name, _NAME_WIDTH) for name in names[:_SHOWN_NAMES])
    more = len(names) - _SHOWN_NAMES
    return f"[{shown}{f' + {more:,} more' if more > 0 else ''}]"


def shorten(name: str, width: int) -> str:
    """A tensor's name for a table: nothing that a terminal would act on, the middle left out when it is long."""
    clean = printable(name)
    if len(clean) <= width:
        return clean
    return f"{clean[: width - width // 2 - 3]}...{clean[-(width // 2) :]}"
