"""The answer of a run that was opened: where its steps went, who was last, what the control plane did, what would pay.

Everything is read off the trace and off what is known beside it; nothing is simulated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from coordsim.analyse.answer.model import Answer, AnswerKind, Basis, Candidate, LastRank, Lateness, Messages, Quantity
from coordsim.analyse.answer.statistics import messages_of, part_of, quantile, step_time
from coordsim.analyse.control import Control, control_of
from coordsim.analyse.step_kinds import outlying
from coordsim.errors import InputError
from coordsim.record.breakdown import PARTS, RECORDED_PARTS, breakdown, step_times
from coordsim.record.findings import Findings
from coordsim.record.run import Run
from coordsim.record.run_facts import RunFacts, RunKind
from coordsim.record.store import Stored
from coordsim.record.trace import Int64, Trace

LAST_RANKS = 5
"""Ranks named among those that came last."""
_LEVEL = 0.9
Figures = TypeVar("Figures", Control, Messages)


def answer_run(run: Run) -> Answer:
    """Raises InputError for a run without a step, and as the properties of :class:`Run` do."""
    return answer_of(Stored(run.trace, run.facts, findings_of(run)))


def findings_of(run: Run) -> Findings | None:
    """What the run directory keeps, or what there is to find out from ranks' records; None where no rank recorded."""
    merged = run.merged
    if merged is None or run.streams is None:
        return run.findings
    from coordsim.analyse.findings import find_out

    return find_out(merged, run.streams.steps)


def answer_of(stored: Stored) -> Answer:
    """Of a trace, what is known beside it, and what was found out about the same steps."""
    trace, facts, findings = stored
    if not trace.steps["step"].size:
        raise InputError.one("run", "steps", 0, "no rank of this run ended a step: there is nothing to say of it")
    cold = facts.first_step == 0 and trace.steps["step"].size > 1 and facts.first_step_is_cold
    counted = slice(1, None) if cold else slice(None)
    all_times = step_times(trace)
    parts = {name: column[counted] for name, column in breakdown(trace).items()}
    basis = Basis.SIMULATED if facts.kind is RunKind.SIMULATED else Basis.MEASURED
    steps = int(all_times[counted].size)
    return Answer(
        kind=AnswerKind(facts.kind.value), basis=basis, ranks=facts.ranks, control_plane=facts.control_plane,
        steps=steps, first_step=facts.first_step + cold,
        step_time=step_time(all_times[counted], int(all_times[0]) if cold else None, basis),
        split=tuple(
            part_of(name, float(parts[name].mean()) / 1e9 if name in parts else None, basis) for name in _names(trace)
        ),
        lateness=_lateness(trace, counted, facts, parts.get("straggler_wait")),
        outliers=outlying(trace, facts.first_step, counted) if basis is Basis.MEASURED else None,
        control=_known(control_of(trace, 1 if cold else 0, steps, facts.control_plane), facts.unknown),
        messages=_known(messages_of(trace, cold, steps), facts.unknown), candidates=_candidates(findings),
        missing=facts.missing, unknown=facts.unknown, facts=facts, findings=findings,
    )  # fmt: skip


def _names(trace: Trace) -> tuple[str, ...]:
    """Parts that are told of a run: of a recorded one those that a simulated one does not have, where it has them."""
    if not trace.own:
        return PARTS
    return tuple(name for name in RECORDED_PARTS if name in PARTS or name in trace.own)


def _lateness(trace: Trace, counted: slice, facts: RunFacts, waits_ns: Int64 | None) -> Lateness:
    """Who came last, with the tensors that came last there. Steps of which nobody knows who did (-1) are left out."""
    last = trace.steps["ready_last_rank"][counted]
    ranks, times = np.unique(last[last >= 0], return_counts=True)
    order = np.argsort(-times, kind="stable")[:LAST_RANKS]
    named = tuple(
        LastRank(
            int(ranks[place]), int(times[place]), facts.hosts.get(int(ranks[place])),
            facts.last_tensors.get(int(ranks[place])),
        )
        for place in order
    )  # fmt: skip
    if waits_ns is None:
        return Lateness(named, int(ranks.size), None, None)
    median = quantile(np.sort(waits_ns).tolist(), 0.5)
    return Lateness(named, int(ranks.size), median / 1e9, float(waits_ns.mean()) / 1e9)


def _known(figures: Figures, unknown: Mapping[str, str]) -> Figures:
    """None for what the run's source could not tell."""
    changes: dict[str, Any] = {name: None for name in vars(figures) if name in unknown}
    return replace(figures, **changes)


def _candidates(findings: Findings | None) -> tuple[Candidate, ...] | None:
    """The change that a replay of the run's own steps recommends; None where nothing was replayed."""
    advice = None if findings is None else findings.recommendation
    if advice is None or advice.change is None or advice.saves is None or advice.step_time_s is None:
        return None
    saves = Quantity(advice.saves, "1", Basis.REPLAYED, advice.saves_low, advice.saves_high, _LEVEL)
    return (Candidate(advice.change, advice.about, Quantity(advice.step_time_s, "s", Basis.REPLAYED), saves),)
