"""What a stored run says, simulated or real: where its steps went, who was last, what the control plane did.

The one JSON object of ``coordsim report --json`` (schema ``coordsim.run/1``). A part that nobody measured is null.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from coordsim.analyse.step_kinds import outlying
from coordsim.analyse.summary import quantile
from coordsim.errors import InputError
from coordsim.protocol.planes import PLANES
from coordsim.record.breakdown import PARTS, RECORDED_PARTS, breakdown, step_times
from coordsim.record.findings import Findings
from coordsim.record.manifest import as_json, findings_json
from coordsim.record.run_facts import RunFacts, RunKind
from coordsim.record.trace import Kind, Trace

SCHEMA = "coordsim.run/1"
LAST_RANKS = 5
"""Ranks named among those that came last."""


def run_summary(trace: Trace, facts: RunFacts, findings: Findings | None = None) -> dict[str, Any]:
    """``findings``: what was found out about the same steps. Raises InputError for a run without a step."""
    if not trace.steps["step"].size:
        raise InputError.one("run", "steps", 0, "no rank of this run ended a step: there is nothing to say of it")
    cold = facts.first_step == 0 and trace.steps["step"].size > 1 and facts.first_step_is_cold
    counted = slice(1, None) if cold else slice(None)
    times = step_times(trace)[counted]
    parts = {name: column[counted] for name, column in breakdown(trace).items()}
    ordered = np.sort(times).tolist()
    named = {"median": 0.5, "p05": 0.05, "p95": 0.95, "min": 0.0, "max": 1.0}
    real = facts.kind is not RunKind.SIMULATED
    plane = facts.control_plane
    kept = {} if findings is None else findings_json(findings)
    return {
        "schema": SCHEMA,
        "source": "real run" if real else "simulation",
        "ranks": facts.ranks,
        "control_plane": plane,
        "steps": int(times.size),
        "first_step": facts.first_step + cold,
        "cold_step_s": float(step_times(trace)[0]) / 1e9 if cold else None,
        "step_time_s": {"mean": float(times.mean()) / 1e9}
        | {name: quantile(ordered, share) / 1e9 for name, share in named.items()},
        "breakdown_s": {name: float(parts[name].mean()) / 1e9 if name in parts else None for name in _names(trace)},
        "missing": dict(facts.missing),
        "unknown": dict(facts.unknown),
        "last": _last(trace, counted, facts),
        "waited_for": [
            {"rank": each.rank, "steps": each.steps, "wait_s": each.wait_ns / 1e9} for each in facts.waited_for or ()
        ],
        "straggler_wait_s": quantile(np.sort(parts["straggler_wait"]).tolist(), 0.5) / 1e9
        if "straggler_wait" in parts
        else None,
        "control": _known(_control(trace, cold, int(times.size), plane), facts.unknown),
        "messages": _known(_messages(trace, cold, int(times.size)), facts.unknown),
        "recommendation": kept.get("recommendation"),
        "ranks_with_details": facts.ranks_with_details if real else None,
        "ranks_absent": facts.ranks_absent or (),
        "ranks_without_steps": facts.ranks_without_steps,
        "exit_code": None if facts.command is None else facts.command.exit_code,
        "ended_with_error": {str(rank): error for rank, error in facts.ended_with_error.items()},
        "ended_early": facts.ended_early,
        "clock_error_s": _clock_error(facts),
        "stragglers": kept.get("stragglers"),
        **(_of_ranks(trace, facts, kept, counted) if real else {}),
    }


def _names(trace: Trace) -> tuple[str, ...]:
    """Parts that are told of a run: of a recorded one those that a simulated one does not have, where it has them."""
    if not trace.own:
        return PARTS
    return tuple(name for name in RECORDED_PARTS if name in PARTS or name in trace.own)


def _of_ranks(trace: Trace, facts: RunFacts, kept: dict[str, Any], counted: slice) -> dict[str, Any]:
    """What only a recorded run has: whose parts are shown, the table of ranks, kinds of steps, and outlying steps."""
    end = None if facts.command is None else facts.command.end
    return {
        "shown_rank": facts.shown_rank, "rank_table": kept.get("rank_table"),
        "kinds": kept.get("kinds", []), "machines": kept.get("machines", []),
        "outlying_steps": outlying(trace, facts.first_step, counted),
        **({} if end is None else {"failure": end.failure, "fate": end.fate, "endings": as_json(end)["endings"]}),
    }  # fmt: skip


def _known(found: dict[str, float | None], unknown: Mapping[str, str]) -> dict[str, float | None]:
    """Null for what the run's source could not tell."""
    return {name: None if name in unknown else value for name, value in found.items()}


def _last(trace: Trace, counted: slice, facts: RunFacts) -> list[dict[str, Any]]:
    """Who came last, most often first, with the tensors that came last there; host and tensors null if unknown.

    Steps of which nobody knows who did (-1) are left out.
    """
    last = trace.steps["ready_last_rank"][counted]
    ranks, times = np.unique(last[last >= 0], return_counts=True)
    order = np.argsort(-times, kind="stable")[:LAST_RANKS]
    tensors = {rank: [list(tensor) for tensor in named] for rank, named in facts.last_tensors.items()}
    return [
        {
            "rank": int(ranks[each]), "steps": int(times[each]), "host": facts.hosts.get(int(ranks[each])),
            "tensors": tensors.get(int(ranks[each])),
        }
        for each in order
    ]  # fmt: skip


def _control(trace: Trace, cold: bool, steps: int, plane: str | None) -> dict[str, float | None]:
    """Means over the steps that count; null where nobody negotiates in cycles."""
    cycles = trace.cycles
    counted = cycles["step"] >= (1 if cold else 0)
    repeat = cycles["repeat"][counted]
    slow = np.isin(cycles["kind"][counted], (Kind.SLOW, Kind.INVALIDATE))
    known = bool(cycles["cycle"].size)

    def mean(column: str) -> float | None:
        return float((cycles[column][counted] * repeat).sum()) / steps if known else None

    return {
        "cycles_per_step": float(repeat.sum()) / steps if known else None,
        "slow_cycles_per_step": float(repeat[slow].sum()) / steps if known else None,
        "requests_per_step": mean("requests"),
        "coordinator_bytes_per_step": mean("request_bytes"),
        "cache_hits_per_step": mean("hits_common") if plane in PLANES and PLANES[plane].cache else None,
        "responses_per_step": mean("responses"),
    }


def _messages(trace: Trace, cold: bool, steps: int) -> dict[str, float | None]:
    """What travelled in the steps that count: collectives, their bytes and tensors; sizes null if none is known.

    A size of -1 is not known. One of 0 is of a barrier, which moves nothing: it is no smallest message.
    """
    end = trace.steps["end_ns"]
    within = trace.responses["end_ns"] > (end[0] if cold else -1)
    nbytes = trace.responses["bytes"][within]
    moved = np.sort(nbytes[nbytes > 0]).tolist() or np.sort(nbytes[nbytes == 0]).tolist()
    sizes = {name: float(quantile(moved, share)) if moved else None for name, share in _SIZES.items()}
    return {
        "per_step": nbytes.size / steps, "bytes_per_step": None if (nbytes < 0).any() else sum(nbytes.tolist()) / steps,
        "tensors_per_step": float(trace.responses["units"][within].sum()) / steps, **sizes,
    }  # fmt: skip


_SIZES = {"bytes_min": 0.0, "bytes_median": 0.5, "bytes_max": 1.0}


def _clock_error(facts: RunFacts) -> float | None:
    """The largest error of a rank's clock, s; None when some rank's is not known, or there is one clock."""
    errors = [clock.error_ns for clock in facts.clocks.values()]
    known = [error for error in errors if error is not None]
    return max(known) / 1e9 if known and len(known) == len(errors) else None
