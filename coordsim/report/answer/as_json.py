"""An answer as the JSON object that scripts read; each kind of answer has its schema."""

from __future__ import annotations

from typing import Any

from coordsim.analyse.answer.model import Answer, StepTime
from coordsim.record.manifest import as_json, findings_json

SIMULATION = "coordsim.simulation/1"
RUN = "coordsim.run/1"


def answer_json(answer: Answer) -> dict[str, Any]:
    """The object of ``--json``: of ``simulate`` where a scenario was simulated just now, of ``report`` else."""
    return _simulation(answer) if answer.subject is not None else _run(answer)


def _simulation(answer: Answer) -> dict[str, Any]:
    subject, simulated, scaling, control = answer.subject, answer.facts.simulated, answer.scaling, answer.control
    assert subject is not None
    assert simulated is not None
    assert scaling is not None
    assert answer.costs is not None
    return {
        "schema": SIMULATION,
        "scenario": simulated.scenario,
        "ranks": answer.ranks,
        "steps": answer.steps,
        "seed": subject.seed,
        "engine": simulated.engine,
        "first_step_s": answer.step_time.cold,
        "step_time_s": _step_time(answer.step_time),
        "scaling_efficiency": scaling.efficiency,
        "baseline_ranks": scaling.baseline_ranks,
        "samples_per_s": scaling.samples_per_s,
        "sustained_flops": scaling.sustained_flops,
        "breakdown_s": _breakdown(answer),
        "explain": None if answer.explained is None else {
            each.cause: {
                "step_time_s": each.step_time_s, "saves": each.saves,
                "saves_kwh_per_1000_steps": each.saves_kwh_per_1000_steps,
            }
            for each in answer.explained
        },
        "assumptions": list(answer.assumptions),
        "control": {
            "cycles_per_step": control.cycles_per_step, "slow_cycles_per_step": control.slow_cycles_per_step,
            "requests_per_step": control.requests_per_step,
            "coordinator_bytes_per_step": control.coordinator_bytes_per_step,
            "exchanges_per_step": control.exchanges_per_step, "responses_per_step": control.responses_per_step,
        },
        "allocation": as_json(answer.costs),
        "engine_wall_s": answer.engine_wall_s,
    }  # fmt: skip


def _run(answer: Answer) -> dict[str, Any]:
    facts, lateness, control = answer.facts, answer.lateness, answer.control
    kept = {} if answer.findings is None else findings_json(answer.findings)
    return {
        "schema": RUN,
        "source": "real run" if answer.real else "simulation",
        "ranks": answer.ranks,
        "control_plane": answer.control_plane,
        "steps": answer.steps,
        "first_step": answer.first_step,
        "cold_step_s": answer.step_time.cold,
        "step_time_s": _step_time(answer.step_time),
        "breakdown_s": _breakdown(answer),
        "missing": dict(answer.missing),
        "unknown": dict(answer.unknown),
        "last": [
            {"rank": each.rank, "steps": each.steps, "host": each.host,
             "tensors": None if each.tensors is None else [list(tensor) for tensor in each.tensors]}
            for each in lateness.last
        ],
        "waited_for": [
            {"rank": each.rank, "steps": each.steps, "wait_s": each.wait_ns / 1e9} for each in facts.waited_for or ()
        ],
        "straggler_wait_s": lateness.wait_median_s,
        "control": {
            "cycles_per_step": control.cycles_per_step, "slow_cycles_per_step": control.slow_cycles_per_step,
            "requests_per_step": control.requests_per_step,
            "coordinator_bytes_per_step": control.coordinator_bytes_per_step,
            "cache_hits_per_step": control.cache_hits_per_step, "responses_per_step": control.responses_per_step,
        },
        "messages": None if answer.messages is None else as_json(answer.messages),
        "recommendation": kept.get("recommendation"),
        "ranks_with_details": _listed(facts.ranks_with_details) if answer.real else None,
        "ranks_absent": list(facts.ranks_absent or ()),
        "ranks_without_steps": list(facts.ranks_without_steps),
        "exit_code": None if facts.command is None else facts.command.exit_code,
        "ended_with_error": {str(rank): error for rank, error in facts.ended_with_error.items()},
        "ended_early": list(facts.ended_early),
        "clock_error_s": facts.clock_error_s,
        "stragglers": kept.get("stragglers"),
        **(_of_ranks(answer, kept) if answer.real else {}),
    }  # fmt: skip


def _of_ranks(answer: Answer, kept: dict[str, Any]) -> dict[str, Any]:
    """What only a recorded run has: whose parts are shown, the table of ranks, kinds of steps, and outlying steps."""
    command, far = answer.facts.command, answer.outliers
    end = None if command is None else command.end
    return {
        "shown_rank": answer.facts.shown_rank, "rank_table": kept.get("rank_table"),
        "kinds": kept.get("kinds", []), "machines": kept.get("machines", []),
        "outlying_steps": [] if far is None else [
            {**vars(each), "outliers": far.count, "mean_without_s": far.mean_without_s} for each in far.named
        ],
        **({} if end is None else {"failure": end.failure, "fate": end.fate, "endings": as_json(end)["endings"]}),
    }  # fmt: skip


def _breakdown(answer: Answer) -> dict[str, float | None]:
    return {part.name: None if part.mean is None else part.mean.value for part in answer.split}


def _step_time(step: StepTime) -> dict[str, float | None]:
    return {
        "mean": step.mean.value, "median": step.median, "p05": step.p05, "p95": step.p95, "min": step.min,
        "max": step.max,
    }  # fmt: skip


def _listed(ranks: tuple[int, ...] | None) -> list[int] | None:
    return None if ranks is None else list(ranks)
