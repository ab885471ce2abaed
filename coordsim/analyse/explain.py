"""What would a change save? Counterfactuals: the same seed again, with one cause taken out.

Never a difference of parts: parts say where time went, and removing one cause often uncovers another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from coordsim.analyse.allocation import energy_of
from coordsim.cost.storage import step_input_ns
from coordsim.protocol.planes import IDEAL
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
    saves_kwh_per_1000_steps: float | None = None
    """Energy at the meter, by the phases of either run; None when the machine's power is not known."""


def counterfactuals(scenario: Scenario) -> Iterator[tuple[str, str, Scenario]]:
    """(cause, the change in words, the scenario without it) for every cause that the scenario has."""
    plane, cluster = scenario.control_plane, scenario.cluster
    if not plane.kind.free and scenario.ranks > 1:
        ideal = replace(scenario, control_plane=replace(plane, name=IDEAL.name, data_plane="async"))
        yield "control_plane", f"everybody knows at once (control plane {IDEAL.name!r})", ideal
    if not scenario.noise.silent:
        quiet = Noise(detour_ppm=scenario.noise.detour_ppm, detour_ns=scenario.noise.detour_ns)  # those of exchanges
        yield "jitter", "every GPU a median GPU, no noise", replace(scenario, noise=quiet)
    if scenario.ranks > 1:
        free = replace(cluster, data=replace(cluster.data, allreduce="free"))
        yield "collectives", "collectives take 1 ns", replace(scenario, cluster=free)
        free = replace(cluster, data=replace(cluster.data, copy_bandwidth_Bps=0))
        yield "fusion_copies", "no copies into and out of the fusion buffer", replace(scenario, cluster=free)
    if step_input_ns(scenario):
        unfed = replace(scenario.workload, sample_bytes=0)
        yield "input", "samples are always there", replace(scenario, workload=unfed)


def explain(
    simulation: Simulation, progress: Callable[[int, int], None] | None = None
) -> list[Counterfactual]:
    """Run every counterfactual of ``simulation``'s scenario with the same seed."""
    measured, used = simulation.step_time_s, energy_of(simulation)
    cases = list(counterfactuals(simulation.scenario))
    found = []
    for index, (cause, what, scenario) in enumerate(cases):
        again = simulate(scenario)
        without, left = again.step_time_s, energy_of(again)
        saves_kwh = None if used is None or left is None else used.kwh - left.kwh
        found.append(Counterfactual(cause, what, without, (measured - without) / measured, saves_kwh))
        if progress is not None:
            progress(index + 1, len(cases))
    return found
