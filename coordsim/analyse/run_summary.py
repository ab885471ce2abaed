"""What a stored run says, simulated or real: where its steps went, who was last, what the control plane did.

The one JSON object of ``coordsim report --json`` (schema ``coordsim.run/1``). A part that nobody measured is null.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from coordsim.analyse.step_kinds import outlying
from coordsim.analyse.summary import quantile
from coordsim.errors import InputError
from coordsim.record.breakdown import PARTS, RECORDED_PARTS, breakdown, step_times
from coordsim.record.trace import Kind, Trace

SCHEMA = "coordsim.run/1"
LAST_RANKS = 5
"""Ranks named among those that came last."""


def run_summary(trace: Trace, manifest: dict[str, Any]) -> dict[str, Any]:
    """``manifest``: of the run directory, or :attr:`coordsim.record.ranks.merge.Merged.facts`."""
    if not trace.steps["step"].size:
        raise InputError.one("run", "steps", 0, "no rank of this run ended a step: there is nothing to say of it")
    cold = int(manifest.get("first_step", 0)) == 0 and trace.steps["step"].size > 1
    cold = cold and bool(manifest.get("first_step_is_cold", True))  # a profiler's step 0 is where it began to watch
    counted = slice(1, None) if cold else slice(None)
    times = step_times(trace)[counted]
    parts = {name: column[counted] for name, column in breakdown(trace).items()}
    ordered = np.sort(times).tolist()
    named = {"median": 0.5, "p05": 0.05, "p95": 0.95, "min": 0.0, "max": 1.0}
    real = manifest.get("source") == "real run"
    unknown: dict[str, str] = manifest.get("unknown", {})
    plane = manifest.get("control_plane", manifest.get("scenario", {}).get("control_plane", {}).get("name"))
    return {
        "schema": SCHEMA,
        "source": "real run" if real else "simulation",
        "ranks": manifest.get("ranks", manifest.get("scenario", {}).get("ranks")),
        "control_plane": plane,
        "steps": int(times.size),
        "first_step": int(manifest.get("first_step", 0)) + cold,
        "cold_step_s": float(step_times(trace)[0]) / 1e9 if cold else None,
        "step_time_s": {"mean": float(times.mean()) / 1e9}
        | {name: quantile(ordered, share) / 1e9 for name, share in named.items()},
        "breakdown_s": {name: float(parts[name].mean()) / 1e9 if name in parts else None for name in _names(trace)},
        "missing": dict(manifest.get("missing", {})),
        "unknown": dict(unknown),
        "last": _last(trace, counted, manifest),
        "waited_for": [
            {"rank": rank, "steps": times, "wait_s": wait_ns / 1e9}
            for rank, times, wait_ns in manifest.get("waited_for") or ()
        ],
        "straggler_wait_s": quantile(np.sort(parts["straggler_wait"]).tolist(), 0.5) / 1e9
        if "straggler_wait" in parts
        else None,
        "control": _known(_control(trace, cold, int(times.size), plane), unknown),
        "messages": _known(_messages(trace, cold, int(times.size)), unknown),
        "recommendation": manifest.get("recommendation"),
        "ranks_with_details": manifest.get("ranks_with_details") if real else None,
        "ranks_absent": manifest.get("ranks_absent", []),
        "ranks_without_steps": manifest.get("ranks_without_steps", []),
        "exit_code": manifest.get("exit_code"),
        "ended_with_error": manifest.get("ended_with_error", {}),
        "ended_early": manifest.get("ended_early", []),
        "clock_error_s": _clock_error(manifest),
        "stragglers": manifest.get("stragglers"),
        **(_of_ranks(trace, manifest, counted) if real else {}),
    }


def _names(trace: Trace) -> tuple[str, ...]:
    """Parts that are told of a run: of a recorded one those that a simulated one does not have, where it has them."""
    if not trace.own:
        return PARTS
    return tuple(name for name in RECORDED_PARTS if name in PARTS or name in trace.own)


def _of_ranks(trace: Trace, manifest: dict[str, Any], counted: slice) -> dict[str, Any]:
    """What only a recorded run has: whose parts are shown, the table of ranks, kinds of steps, and outlying steps."""
    return {
        "shown_rank": manifest.get("shown_rank"), "rank_table": manifest.get("rank_table"),
        "kinds": manifest.get("kinds", []), "machines": manifest.get("machines", []),
        "outlying_steps": outlying(trace, int(manifest.get("first_step", 0)), counted),
        **{key: manifest[key] for key in ("failure", "fate", "endings") if key in manifest},
    }  # fmt: skip


def _known(found: dict[str, float | None], unknown: dict[str, str]) -> dict[str, float | None]:
    """Null for what the run's source could not tell."""
    return {name: None if name in unknown else value for name, value in found.items()}


def _last(trace: Trace, counted: slice, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Who came last, most often first, with the tensors that came last there; host and tensors null if unknown.

    Steps of which nobody knows who did (-1) are left out.
    """
    last = trace.steps["ready_last_rank"][counted]
    ranks, times = np.unique(last[last >= 0], return_counts=True)
    order = np.argsort(-times, kind="stable")[:LAST_RANKS]
    hosts, tensors = manifest.get("hosts", {}), manifest.get("last_tensors", {})
    return [
        {
            "rank": int(ranks[each]), "steps": int(times[each]), "host": hosts.get(str(ranks[each])),
            "tensors": tensors.get(str(ranks[each])),
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
        "cache_hits_per_step": mean("hits_common") if plane == "cached" else None,
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


def _clock_error(manifest: dict[str, Any]) -> float | None:
    """The largest error of a rank's clock, s; None when some rank's is not known, or there is one clock."""
    clocks = manifest.get("clocks")
    if not clocks:
        return None
    errors = [clock.get("error_ns") for clock in clocks.values()]
    return None if any(error is None for error in errors) else max(errors) / 1e9
