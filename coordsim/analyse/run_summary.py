"""What a stored run says, simulated or real: where its steps went, who was last, what the control plane did.

The one JSON object of ``coordsim report --json`` (schema ``coordsim.run/1``). A part that nobody measured is null.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from coordsim.analyse.summary import quantile
from coordsim.record.breakdown import PARTS, breakdown, step_times
from coordsim.record.trace import Kind, Trace

SCHEMA = "coordsim.run/1"
LAST_RANKS = 5
"""Ranks named among those that came last."""
CONTROL = (
    "cycles_per_step", "slow_cycles_per_step", "requests_per_step", "coordinator_bytes_per_step",
    "responses_per_step", "response_bytes_median",
)  # fmt: skip
"""What is told of the control plane; null where a run's manifest has it among ``unknown``."""


def run_summary(trace: Trace, manifest: dict[str, Any]) -> dict[str, Any]:
    """``manifest``: of the run directory, or :attr:`coordsim.record.ranks.merge.Merged.facts`."""
    cold = int(manifest.get("first_step", 0)) == 0 and trace.steps["step"].size > 1
    counted = slice(1, None) if cold else slice(None)
    times = step_times(trace)[counted]
    parts = {name: column[counted] for name, column in breakdown(trace).items()}
    ordered = np.sort(times).tolist()
    named = {"median": 0.5, "p05": 0.05, "p95": 0.95, "min": 0.0, "max": 1.0}
    real = manifest.get("source") == "real run"
    return {
        "schema": SCHEMA,
        "source": "real run" if real else "simulation",
        "ranks": manifest.get("ranks", manifest.get("scenario", {}).get("ranks")),
        "steps": int(times.size),
        "first_step": int(manifest.get("first_step", 0)) + cold,
        "cold_step_s": float(step_times(trace)[0]) / 1e9 if cold else None,
        "step_time_s": {"mean": float(times.mean()) / 1e9}
        | {name: quantile(ordered, share) / 1e9 for name, share in named.items()},
        "breakdown_s": {name: float(parts[name].mean()) / 1e9 if name in parts else None for name in PARTS},
        "missing": dict(manifest.get("missing", {})),
        "unknown": dict(manifest.get("unknown", {})),
        "last": _last(trace, counted),
        "straggler_wait_s": quantile(np.sort(parts["straggler_wait"]).tolist(), 0.5) / 1e9
        if "straggler_wait" in parts
        else None,
        "control": _control(trace, cold, int(times.size))
        | {name: None for name in manifest.get("unknown", {}) if name in CONTROL},
        "ranks_with_details": manifest.get("ranks_with_details") if real else None,
        "ranks_absent": manifest.get("ranks_absent", []),
        "ended_early": manifest.get("ended_early", []),
        "clock_error_s": _clock_error(manifest),
        "stragglers": manifest.get("stragglers"),
    }


def _last(trace: Trace, counted: slice) -> list[dict[str, int]]:
    """Ranks by how often they came last; steps of which nobody knows who did (-1) are left out."""
    last = trace.steps["ready_last_rank"][counted]
    ranks, times = np.unique(last[last >= 0], return_counts=True)
    order = np.argsort(-times, kind="stable")[:LAST_RANKS]
    return [{"rank": int(ranks[each]), "steps": int(times[each])} for each in order]


def _control(trace: Trace, cold: bool, steps: int) -> dict[str, float]:
    cycles = trace.cycles
    counted = cycles["step"] >= (1 if cold else 0)
    repeat = cycles["repeat"][counted]
    slow = np.isin(cycles["kind"][counted], (Kind.SLOW, Kind.INVALIDATE))
    within = np.isin(trace.responses["cycle"], cycles["cycle"][counted])
    nbytes = np.sort(trace.responses["bytes"][within]).tolist()

    def mean(column: str) -> float:
        return float((cycles[column][counted] * repeat).sum()) / steps

    return {
        "cycles_per_step": float(repeat.sum()) / steps,
        "slow_cycles_per_step": float(repeat[slow].sum()) / steps,
        "requests_per_step": mean("requests"),
        "coordinator_bytes_per_step": mean("request_bytes"),
        "responses_per_step": mean("responses"),
        "response_bytes_median": float(quantile(nbytes, 0.5)) if nbytes else 0.0,
    }


def _clock_error(manifest: dict[str, Any]) -> float | None:
    """The largest error of a rank's clock, s; None when some rank's is not known, or there is one clock."""
    clocks = manifest.get("clocks")
    if not clocks:
        return None
    errors = [clock.get("error_ns") for clock in clocks.values()]
    return None if any(error is None for error in errors) else max(errors) / 1e9
