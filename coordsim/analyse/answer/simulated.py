"""The answer of a simulation that was just made: beside the split, how it scales and what it costs its owner."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coordsim.analyse.allocation import allocation
from coordsim.analyse.answer.model import (
    Answer,
    AnswerKind,
    Basis,
    Candidate,
    LastRank,
    Lateness,
    Scaling,
    Subject,
)
from coordsim.analyse.answer.statistics import messages_of, part_of, quantile, step_time
from coordsim.analyse.assumptions import assumptions
from coordsim.analyse.control import counters
from coordsim.analyse.explain import Counterfactual
from coordsim.analyse.scaling import BASELINE_RANKS, scaling
from coordsim.record.run_facts import RunFacts, RunKind, SimulatedFrom
from coordsim.scenario.model import ControlPlane, Scenario
from coordsim.scenario.resolved import resolved, scenario_hash
from coordsim.simulate.engine import Simulation


def answer_simulation(
    simulation: Simulation, explained: Sequence[Counterfactual] | None = None,
    candidates: Sequence[Candidate] | None = None,
) -> Answer:  # fmt: skip
    """``explained``: its causes taken out one by one; ``candidates``: changes that were simulated."""
    scenario, scaled = simulation.scenario, scaling(simulation)
    basis = Basis.SIMULATED
    return Answer(
        kind=AnswerKind.SIMULATED, basis=basis, ranks=scenario.ranks, control_plane=scenario.control_plane.name,
        steps=scenario.steps, first_step=1,
        step_time=step_time(simulation.step_ns, simulation.first_step_ns, basis),
        split=tuple(part_of(name, seconds, basis) for name, seconds in simulation.breakdown().items()),
        lateness=_lateness(simulation), control=counters(simulation),
        messages=messages_of(simulation.trace, True, scenario.steps),
        scaling=Scaling(
            scaled.efficiency, scaled.samples_per_s, scaled.sustained_flops, BASELINE_RANKS, scaled.baseline_step_s
        ),
        costs=allocation(simulation), explained=None if explained is None else tuple(explained),
        candidates=None if candidates is None else tuple(candidates), missing={}, unknown={},
        assumptions=tuple(assumptions(scenario)), subject=subject_of(scenario), engine_wall_s=simulation.wall_s,
        facts=RunFacts(
            kind=RunKind.SIMULATED, ranks=scenario.ranks, control_plane=scenario.control_plane.name,
            simulated=SimulatedFrom(resolved(scenario), scenario_hash(scenario), simulation.engine),
        ),
    )  # fmt: skip


def subject_of(scenario: Scenario) -> Subject:
    """A scenario in words and numbers."""
    machine = scenario.cluster.machine
    return Subject(
        scenario.workload.name, scenario.cluster.name, scenario.ranks, -(-scenario.ranks // machine.ranks_per_node),
        scenario.control_plane.name, describe_groups(scenario.control_plane), scenario.steps, scenario.seed,
        machine.node_storage_bytes or 0,
    )  # fmt: skip


def describe_groups(plane: ControlPlane) -> str:
    """How tensors are grouped, to follow the control plane's name; nothing for no groups, nor for buckets."""
    groups = plane.groups
    if plane.kind.buckets is not None:
        return ""
    strict = " (strict)" if groups.strict else ""
    if groups.mode == "layer":
        return f", a group per layer{strict}"
    count = groups.count if groups.mode == "count" else len(groups.members)
    counted = f", {count:,} group{'' if count == 1 else 's'}"
    if groups.mode == "count":
        return f"{counted}{strict}"
    return f"{counted} by name{strict}" if groups.mode == "explicit" else ""


def _lateness(simulation: Simulation) -> Lateness:
    """Who was last to have its gradients, and how often."""
    scenario = simulation.scenario
    waits_ns = np.sort(simulation.parts["straggler_wait"][1:]).tolist()
    ranks, times = np.unique(simulation.trace.steps["ready_last_rank"][1:], return_counts=True)
    most = int(np.argmax(times))
    rank = int(ranks[most])
    last = LastRank(rank, int(times[most]), None, None, rank // scenario.cluster.machine.ranks_per_node)
    explained = None
    if scenario.ranks == 1:
        explained = "nobody: there is one GPU"
    elif scenario.noise.silent:
        explained = "nobody: every GPU takes exactly the median time (no noise)"
    mean_s = simulation.breakdown()["straggler_wait"]
    return Lateness((last,), int(ranks.size), quantile(waits_ns, 0.5) / 1e9, mean_s, explained)
