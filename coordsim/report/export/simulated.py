"""Exports for which a simulated run's scenario is needed: it is read back from the manifest and run again.

Equal scenarios give equal runs, bit for bit; the scenario's hash in the manifest makes sure that it is equal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from coordsim.errors import InputError
from coordsim.record.files import whole_file
from coordsim.record.trace import Trace
from coordsim.scenario.model import Scenario
from coordsim.scenario.restored import restored
from coordsim.simulate.goal import goal_of, goal_text
from coordsim.simulate.timeline import export_timeline

EVENTS_A_TENSOR = 14
"""Of a timeline, for each tensor and step: begins and ends of negotiation, operation and its five parts, at most."""
NAMES_A_TENSOR = 2
SLOW = 1_000
"""Ranks times steps from which the event engine takes seconds."""
OPERATIONS_A_RANK = 4
"""Of a cycle, at least."""


def timeline(
    run: Path, facts: dict[str, Any], trace: Trace, wanted: range, path: Path, limit: int,
    warn: Callable[[str], None],
) -> tuple[str, list[str]]:  # fmt: skip
    """Write rank 0's timeline of the run's steps up to the last wanted one. Returns what, and what is not in it."""
    scenario = _scenario(run, facts)
    if wanted.start:
        raise InputError.one("--steps", "", wanted.start, "a simulated timeline begins with the run: use 0:B")
    if len(wanted) < 2:
        raise InputError.one("--steps", "", len(wanted), "a simulated timeline has the first step and another at least")
    tensors = len(scenario.workload.tensors)
    cycles = np.bincount(trace.cycles["step"], trace.cycles["repeat"], len(wanted))[: len(wanted)]
    events = np.cumsum(cycles + EVENTS_A_TENSOR * tensors).astype(int)
    events += tensors * (scenario.ranks + NAMES_A_TENSOR) + NAMES_A_TENSOR
    fitting = int(np.searchsorted(events, limit, side="right"))
    if fitting < 2:
        raise InputError.one("--max-events", "", limit, f"the first two steps have up to {events[1]:,} events")
    if scenario.ranks * fitting > SLOW:
        warn(f"{fitting:,} steps of {scenario.ranks:,} ranks are run again by events: slow; fewer --steps take less")
    export_timeline(replace(scenario, steps=fitting - 1), path)
    told = [f"left out for size: {len(wanted) - fitting:,} steps"] if fitting < len(wanted) else []
    return f"{fitting:,} steps, up to {events[fitting - 1]:,} events", told


def goal(run: Path, facts: dict[str, Any], path: Path, limit: int) -> tuple[str, list[str]]:
    """Write one control cycle of the run as GOAL text: the steady one. Returns what, and what is not in it."""
    scenario = _scenario(run, facts)
    least = OPERATIONS_A_RANK * scenario.ranks
    if least > limit:
        raise InputError.one("--max-events", "", limit, f"{scenario.ranks:,} ranks take {least:,} operations or more")
    warm = scenario.control_plane.name == "cached"
    operations = sum(map(len, goal_of(scenario, warm=warm).ranks))
    if operations > limit:
        raise InputError.one("--max-events", "", limit, f"the cycle has {operations:,} operations")
    told = [
        "left out: all but one control cycle, in which every rank has all tensors and enters at once",
        "left out: gradients' collectives; GOAL has the control plane's messages alone",
    ]
    if warm:
        told.append("left out: the first step's slow cycle; this one has a warm cache")
    text = goal_text(scenario, warm=warm)
    with whole_file(path) as fresh:
        fresh.write_text("".join(f"// {each}\n" for each in told) + text, encoding="utf-8")
    return f"{operations:,} operations of {scenario.ranks:,} ranks", told


def _scenario(run: Path, facts: dict[str, Any]) -> Scenario:
    if "scenario" not in facts:
        message = "keeps neither ranks' records nor a scenario; export the folder of records it was made from"
        raise InputError.one(str(run), "", None, message)
    return restored(facts["scenario"], str(run / "manifest.json"), facts.get("scenario_sha256"))
