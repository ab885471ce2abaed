"""One request of ``coordsim predict``: which machine it is about, what is known of it, and its answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from coordsim.analyse.predict.anchor import Anchor, Setting, anchor
from coordsim.analyse.predict.backends import BackendCosts, backend_costs
from coordsim.analyse.predict.changes import Changes, changed_step, changed_workload
from coordsim.analyse.predict.collectives import CollectiveCosts, known
from coordsim.analyse.predict.facts import cluster_facts, here_facts, late_facts, recorded_facts
from coordsim.analyse.predict.here import Target, predict_here
from coordsim.analyse.predict.intervals import Beside, predict
from coordsim.analyse.predict.measured import MeasuredWorkload, measured_workload
from coordsim.analyse.predict.typical import TypicalStep, typical_step
from coordsim.analyse.predict.validated import validated
from coordsim.dtypes import ELEMENT_BYTES
from coordsim.errors import InputError
from coordsim.record.ranks import RankRecord
from coordsim.scenario.loading import load_scenario
from coordsim.scenario.model import Cluster
from coordsim.simulate.shared_cores import Host

HERE = "here"
"""The recorded machine, as ``--cluster`` names it."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Asked:
    """A request."""

    name: str
    """Of the workload."""
    source: str
    """Where it was measured."""
    changes: Changes
    cluster: str | None
    """None or :data:`HERE`: the recorded machine."""
    steps: int = 20
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """Facts (:mod:`coordsim.analyse.predict.facts`), and the workload of a described cluster."""

    facts: dict[str, Any]
    workload: MeasuredWorkload | None
    plane: str


def answer(records: Sequence[RankRecord], asked: Asked, progress: Progress | None = None) -> Answer:
    """Raises InputError for what the records cannot tell, and what makes no scenario."""
    described = None
    if asked.cluster not in (None, HERE):
        described = load_scenario(cluster=asked.cluster, workload="resnet50", ranks=asked.changes.ranks).cluster
    if described is None or described.collectives or _is_here(described, records):
        return _here(records, asked, described, progress)
    return _elsewhere(records, asked, described, progress)


def _is_here(described: Cluster, records: Sequence[RankRecord]) -> bool:
    """Whether a cluster file was measured on the very host of the record."""
    hosts = {str(record.head.get("host") or "") for record in records} - {""}
    return any(
        source.startswith("MEASURED") and f"host {host}" in source.split(", ")
        for source in described.sources.values() for host in hosts
    )


def _here(
    records: Sequence[RankRecord], asked: Asked, described: Cluster | None, progress: Progress | None
) -> Answer:
    """On the recorded machine, or a host that a calibrated file describes as one whose cores are shared."""
    if asked.overrides:
        raise InputError.one(
            "--set", "", asked.overrides[0], "goes with --cluster NAME: the recorded machine has no scenario's keys"
        )
    typical = typical_step(records)
    calibrated = _calibrated(described, asked)
    costs = backend_costs(typical.backend, calibrated)
    hosts = None
    note = _mismatch(typical, asked, described)
    if calibrated is not None and [host.cores for host in typical.hosts] != [calibrated.cores]:
        hosts = (Host(calibrated.cores, asked.changes.ranks),)
    does = changed_step(typical, asked.changes)
    other = backend_costs(does.backend, calibrated).costs if does.backend != typical.backend else None
    found = predict_here(
        typical, costs.costs, costs.doubt, asked.changes.ranks, hosts, Target(does, other), progress
    )
    where = None if hosts is None else f"{described.name if described else ''}, {found.step.cores} cores"
    checked = validated(
        typical.backend, typical.framework, asked.changes.ranks, found.step.cores,
        sum(call.nbytes for call in does.calls), where,
    )  # fmt: skip
    facts = here_facts(found, costs, checked, _changes(asked.changes))
    facts["recorded"]["note"] = note
    return Answer({**facts, "name": asked.name}, None, does.plane)


def _calibrated(described: Cluster | None, asked: Asked) -> CollectiveCosts | None:
    """What a cluster file says of a backend's collectives."""
    if described is None or not described.collectives:
        return None
    return CollectiveCosts.read(described.collectives, str(asked.cluster))


def _mismatch(typical: TypicalStep, asked: Asked, described: Cluster | None) -> str | None:
    """Said on the first line: the file is of another backend than the run."""
    if described is None:
        return None
    calibrated = _calibrated(described, asked)
    if calibrated is not None and calibrated.backend == typical.backend:
        return None
    what = calibrated.backend if calibrated is not None else "coord's own transports, each rank with a core of its own"
    return (
        f"{asked.cluster} describes {what}, the run reduced over {typical.backend}: its collectives are "
        f"not used (coordsim calibrate here --backend {typical.backend})"
    )


def _elsewhere(
    records: Sequence[RankRecord], asked: Asked, described: Cluster, progress: Progress | None
) -> Answer:
    """On a described cluster, whose GPUs each have a rank of their own."""
    base, why_not = _replayed(records)
    late = base.typical.late_rank if base is not None else None
    alike = [record for record in records if record.rank != late] or list(records)
    measured = changed_workload(measured_workload(alike), asked.changes)
    plane = asked.changes.control_plane or measured.control_plane
    overrides = asked.overrides
    if asked.changes.groups is not None:
        overrides = (*overrides, f"control_plane.groups={asked.changes.groups}")
    beside = _beside(measured, base)
    found = predict(
        measured, asked.name, asked.source, ranks=asked.changes.ranks, cluster=str(asked.cluster),
        control_plane=plane, steps=asked.steps, overrides=overrides, beside=beside, progress=progress,
    )  # fmt: skip
    recorded = recorded_facts(base, why_not)
    backend = _backend(base, records)
    recorded["note"] = _planes(backend, described, found.data_plane, base)
    checked = validated(
        backend, base.typical.framework if base else "", asked.changes.ranks, None, _bytes(measured), described.name
    )
    step_ns = found.step_s * 1e9
    stragglers = None
    if base is not None and base.typical.late_rank is not None:
        stragglers = late_facts(base.typical, step_ns + max(base.typical.late_ns, 0.0), step_ns)
    facts = cluster_facts(found, recorded, checked, _changes(asked.changes), stragglers)
    return Answer({**facts, "name": asked.name}, measured, plane)


def _replayed(records: Sequence[RankRecord]) -> tuple[Anchor | None, str | None]:
    """The record on its own machine, or why it cannot be replayed."""
    try:
        typical = typical_step(records)
        if not known(typical.backend):
            return None, f"how collectives of {typical.backend} share cores is not known"
        costs: BackendCosts = backend_costs(typical.backend, None)
    except InputError as error:
        return None, error.problems[0].message
    return anchor(typical, Setting(costs.costs)), None


def _beside(measured: MeasuredWorkload, base: Anchor | None) -> Beside:
    """What no scenario's simulation has, and what the record leaves unexplained: the latter only where it stands in a
    rank's own work, since waits in collectives are the recorded backend's."""
    parts = {}
    if measured.input_ns:
        parts["input_stall"] = float(measured.input_ns)
    if measured.between_ns:
        parts["between_steps"] = float(measured.between_ns)
    unexplained = base.unexplained_ns if base is not None and base.law == "constant" else 0.0
    return Beside(parts, unexplained)


def _backend(base: Anchor | None, records: Sequence[RankRecord]) -> str:
    if base is not None:
        return base.typical.backend
    settings = records[0].head.get("settings") or {}
    return str(settings.get("backend") or settings.get("data") or "a backend that the record does not name")


def _planes(backend: str, described: Cluster, plane: str, base: Anchor | None) -> str | None:
    """Said on the first line: collectives are another backend's there."""
    if backend == "nccl":
        return None
    dropped = ""
    if base is not None and base.law != "constant":
        dropped = ", and what the record leaves unexplained in waits is not carried there"
    name = described.name
    return f"the run reduced over {backend}, {name} describes {plane}: collectives are {name}'s{dropped}"


def _bytes(measured: MeasuredWorkload) -> int:
    return sum(prod(each.shape) * ELEMENT_BYTES.get(each.dtype, 4) for each in measured.gradients)


def _changes(changes: Changes) -> dict[str, Any]:
    """What is otherwise than recorded."""
    found: dict[str, Any] = {}
    if changes.batch is not None:
        found["batch"] = changes.batch._asdict() | {
            "law": "forward and backward in proportion to the batch" + (
                f", less {changes.batch.fixed_ns / 1e6:g} ms fixed" if changes.batch.fixed_ns else ""
            )
        }  # fmt: skip
    if changes.input_law != "constant":
        found["input_law"] = changes.input_law
    for name in ("control_plane", "groups"):
        if getattr(changes, name) is not None:
            found[name] = getattr(changes, name)
    return found
