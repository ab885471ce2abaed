"""Candidates for a change: each is simulated with the same seed and is printed as a command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from coordsim.cli.request import Request
from coordsim.errors import Refused

if TYPE_CHECKING:
    from coordsim.analyse.answer import Candidate
    from coordsim.simulate.engine import Simulation

_FUSION_STEP = 4
"""The candidate for the fusion threshold is smaller by this factor."""


def candidates(request: Request, simulation: Simulation) -> Iterator[tuple[str, Request]]:
    """Yield (flags, request with them) for changes that a user of Horovod can make with little work."""
    scenario = simulation.scenario
    plane, workload = scenario.control_plane, scenario.workload
    if not plane.kind.negotiates or scenario.ranks == 1:
        return
    if not plane.kind.cache:
        yield "--control-plane cached", request.changed(control_plane="cached")
        if plane.groups.mode == "none":
            both = request.changed(control_plane="cached", groups="layer")
            yield "--control-plane cached --groups layer", both
    elif plane.cache_capacity < len(workload.tensors):
        enough = f"control_plane.cache_capacity={len(workload.tensors)}"
        yield f"--set {enough}", request.changed(override=enough)
    groups = "layer" if plane.groups.mode == "none" else "none"
    yield f"--groups {groups}", request.changed(groups=groups)
    settings = []
    if plane.cycle_time_ns >= 2:
        settings.append(f"control_plane.cycle_time={plane.cycle_time_ns // 2}ns")
    if plane.fusion_threshold_bytes >= _FUSION_STEP:
        settings.append(f"control_plane.fusion_threshold={plane.fusion_threshold_bytes // _FUSION_STEP}B")
    for setting in settings:
        readable = _readable(setting)
        yield f"--set {readable}", request.changed(override=readable)


def try_changes(request: Request, simulation: Simulation, progress: Callable[[int, int], None]) -> list[Candidate]:
    """Every candidate, simulated; the one that saves most first."""
    from coordsim.analyse.answer import Basis, Candidate, Quantity
    from coordsim.simulate.engine import simulate

    found, measured = [], simulation.step_time_s
    cases = list(candidates(request, simulation))
    for number, (flags, changed) in enumerate(cases, start=1):
        try:
            step_time_s = simulate(changed.load()).step_time_s
        except Refused:
            continue
        step_time = Quantity(step_time_s, "s", Basis.SIMULATED)
        saves = Quantity(1 - step_time_s / measured, "1", Basis.SIMULATED)
        found.append(Candidate(flags, None, step_time, saves, changed.command("--explain")))
        progress(number, len(cases))
    return sorted(found, key=lambda change: -change.saves.value)


def _readable(setting: str) -> str:
    """Rewrite ``cycle_time=2500000ns`` as ``cycle_time=2.5ms`` where this is exact."""
    from coordsim.units import format_bytes, format_time, parse_bytes, parse_time

    key, _, value = setting.partition("=")
    number = int(value.rstrip("nsB"))
    is_time = value.endswith("ns")
    text = (format_time(number) if is_time else format_bytes(number)).replace(" ", "")
    return f"{key}={text}" if (parse_time if is_time else parse_bytes)(text) == number else setting
