"""Predictions as one JSON object, schema :data:`SCHEMA` (docs/predict.md)."""

from __future__ import annotations

from typing import Any

from coordsim.analyse.jitter import Interval
from coordsim.analyse.predict.anchor import BEYOND, REPRODUCED, Anchor
from coordsim.analyse.predict.backends import BackendCosts
from coordsim.analyse.predict.here import HerePrediction
from coordsim.analyse.predict.intervals import Prediction
from coordsim.analyse.predict.measured import MeasuredWorkload
from coordsim.analyse.predict.typical import TypicalStep
from coordsim.analyse.predict.validated import Validated

SCHEMA = "coordsim.prediction/2"
_NS = 1e-9


def recorded_facts(base: Anchor | None, why_not: str | None) -> dict[str, Any]:
    """The recorded run at its own number of ranks on its own machine; ``why_not``: why it cannot be replayed."""
    if base is None:
        return {"replayed": False, "reason": why_not}
    typical = base.typical
    parts = {
        part: {"measured_s": measured * _NS, "predicted_s": base.replayed.parts_ns.get(part, 0.0) * _NS,
               "difference_s": base.by_part_ns[part] * _NS}
        for part, measured in typical.parts_ns.items()
    }  # fmt: skip
    return {
        "replayed": True, "reason": None, "ranks": typical.ranks, "backend": typical.backend,
        "framework": typical.framework, "control_plane": typical.plane,
        "hosts": [{"host": host.host, "ranks": host.ranks, "cores": host.cores} for host in typical.hosts],
        "steps": typical.steps,
        "measured_s": typical.step_ns * _NS, "predicted_s": base.replayed.step_ns * _NS, "off": base.off,
        "parts": parts, "unexplained_s": base.unexplained_ns * _NS, "unexplained_law": base.law,
        "reproduced": abs(base.off) <= REPRODUCED, "cannot_be_reproduced": abs(base.off) > BEYOND,
        "cpu_s": {"training_thread": typical.main_cpu_ns * _NS, "other_threads": typical.other_cpu_ns * _NS,
                  "waits_for_a_core": None if typical.core_wait_ns is None else typical.core_wait_ns * _NS},
    }  # fmt: skip


def here_facts(
    found: HerePrediction, costs: BackendCosts, checked: Validated, changes: dict[str, Any]
) -> dict[str, Any]:
    """Of a prediction on the recorded machine; ``changes``: what differs from the record but the ranks."""
    typical = found.anchor.typical
    parts = dict(found.step.parts_ns)
    shares = found.step.step_ns / max(sum(parts.values()), 1.0)
    breakdown = {part: ns * shares * _NS for part, ns in parts.items()} | {"unexplained": found.unexplained_ns * _NS}
    occasional = typical.occasional_ns
    return {
        "schema": SCHEMA, "recorded": recorded_facts(found.anchor, None), "ranks": found.ranks, "cluster": None,
        "machine": [host._asdict() for host in found.hosts],
        "control_plane": changes.get("control_plane", typical.plane),
        "backend": typical.backend, "costs": costs.source, "changes": changes,
        "step_time_s": found.step_ns * _NS, "mean_step_time_s": (found.step_ns + occasional) * _NS,
        "occasional_s": occasional * _NS, "interval": _interval_facts(found.interval_ns, found.components_ns, _NS),
        "breakdown_s": breakdown,
        "cores": {"wanted": found.wanted_cores, "has": found.step.cores, "ranks": found.step.host_ranks,
                  "crowded": found.crowded, "says": cores_say(found)},
        "late": late_facts(typical, found.late_ns, found.step_ns), "validated": checked.facts(),
    }  # fmt: skip


def cores_say(found: HerePrediction) -> str:
    """Whether ranks stretch each other."""
    ranks, has = found.step.host_ranks, found.step.cores
    if not found.crowded:
        return "each rank has a core: nothing is stretched"
    wants = f"{ranks} ranks want {found.wanted_cores:.1f} of {has} cores"
    if found.wanted_cores > has:
        return f"{wants}: their work is stretched"
    return f"{wants}, more of them at times: they wait for each other's slices"


def late_facts(typical: TypicalStep | None, with_it_ns: float | None, without_ns: float) -> dict[str, Any] | None:
    """A known straggler, kept apart from jitter; None where nobody was late."""
    if typical is None or typical.late_rank is None or with_it_ns is None:
        return None
    return {
        "rank": typical.late_rank, "says": typical.late_says, "as_it_is_s": with_it_ns * _NS,
        "like_the_others_s": without_ns * _NS,
    }


def _interval_facts(
    whole: tuple[float, float], components: dict[str, tuple[float, float]], scale: float
) -> dict[str, Any]:
    return {
        "level": 0.9, "low_s": whole[0] * scale, "high_s": whole[1] * scale,
        "components_s": {
            name.replace(" ", "_"): [low * scale, high * scale] for name, (low, high) in components.items()
        },
    }  # fmt: skip


def cluster_facts(found: Prediction, recorded: dict[str, Any], checked: Validated, changes: dict[str, Any],
                  late: dict[str, Any] | None) -> dict[str, Any]:  # fmt: skip
    """Of a prediction on a described cluster."""
    measured = found.measured
    return {
        "schema": SCHEMA, "recorded": recorded, "ranks": found.scenario.ranks, "cluster": found.scenario.cluster.name,
        "control_plane": found.scenario.control_plane.name, "backend": found.data_plane, "changes": changes,
        "step_time_s": found.step_s, "mean_step_time_s": found.step_s + found.occasional_s,
        "occasional_s": found.occasional_s, "alone_s": found.alone_s,
        "scaling_efficiency": found.alone_s / found.step_s,
        "interval": _interval_facts(found.interval, found.components, 1.0),
        "breakdown_s": found.breakdown_s,
        "effects": [
            {"name": each.name, "low_s": each.low_s, "high_s": each.high_s, "range": each.says, "source": each.source,
             "form": each.form}
            for each in found.effects
        ],
        "dominates": found.effects[0].name if found.effects else None,
        "cores": None, "late": late, "validated": checked.facts(), "measured": _measured(measured),
    }  # fmt: skip


def _measured(measured: MeasuredWorkload) -> dict[str, Any]:
    return {
        "ranks": measured.ranks, "hosts": measured.hosts, "steps": measured.steps,
        "tensors": len(measured.gradients), "backward_s": _interval(measured.backward, _NS),
        "forward_s": None if measured.forward_ns is None else measured.forward_ns * _NS,
        "optimizer_s": None if measured.optimizer_ns is None else measured.optimizer_ns * _NS,
        "input_s": None if measured.input_ns is None else measured.input_ns * _NS,
        "between_steps_s": None if measured.between_ns is None else measured.between_ns * _NS,
        "rank_sigma": _interval(measured.jitter.rank), "step_sigma": _interval(measured.jitter.step),
        "step_correlation": _interval(measured.jitter.step_correlation),
        "common_sigma": _interval(measured.jitter.common),
        "common_correlation": _interval(measured.jitter.common_correlation),
    }  # fmt: skip


def _interval(each: Interval, scale: float = 1.0) -> dict[str, float]:
    return {key: getattr(each, key) * scale for key in ("value", "low", "high")}
