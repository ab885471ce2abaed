"""What would a change save? Counterfactuals: the same seed again, with one cause taken out.

Never a difference of parts: parts say where time went, and removing one cause often uncovers another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from coordsim.scenario.model import Noise, Scenario
from coordsim.simulate.engine import Simulation, simulate


@dataclass(frozen=True)
class Counterfactual:
    """One cause taken out."""

    cause: str
    what: str
    """The change in words."""
    step_time_s: float
    saves: float
    """Share of the step time that goes with the cause, 0..1; negative when it gets slower without."""


def counterfactuals(scenario: Scenario) -> Iterator[tuple[str, str, Scenario]]:
    """(cause, the change in words, the scenario without it) for every cause that the scenario has."""
    plane, cluster = scenario.control_plane, scenario.cluster
    if plane.name != "ideal" and scenario.ranks > 1:
        ideal = replace(scenario, control_plane=replace(plane, name="ideal", data_plane="async"))
        yield "control_plane", "everybody knows at once (control plane 'ideal')", ideal
    if not scenario.noise.silent:
        yield "jitter", "every GPU a median GPU, no noise", replace(scenario, noise=Noise())
    if scenario.ranks > 1:
        free = replace(cluster, data=replace(cluster.data, allreduce="free"))
        yield "collectives", "collectives take 1 ns", replace(scenario, cluster=free)
        free = replace(cluster, data=replace(cluster.data, copy_bandwidth_Bps=0))
        yield "fusion_copies", "no copies into and out of the fusion buffer", replace(scenario, cluster=free)
    if scenario.workload.sample_bytes and cluster.machine.node_read_Bps:
        unfed = replace(scenario.workload, sample_bytes=0)
        yield "input", "samples are always there", replace(scenario, workload=unfed)


def explain(
    simulation: Simulation, progress: Callable[[int, int], None] | None = None
) -> list[Counterfactual]:
    """Run every counterfactual of ``simulation``'s scenario with the same seed."""
    measured = simulation.step_time_s
    cases = list(counterfactuals(simulation.scenario))
    found = []
    for index, (cause, what, scenario) in enumerate(cases):
        without = simulate(scenario).step_time_s
        found.append(Counterfactual(cause, what, without, (measured - without) / measured))
        if progress is not None:
            progress(index + 1, len(cases))
    return found
