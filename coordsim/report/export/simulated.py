"""Exports for which a simulated run's scenario is needed: it is read back from the manifest and run again.

Equal scenarios give equal runs, bit for bit; the scenario's hash in the manifest makes sure that it is equal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt

from coordsim.errors import InputError
from coordsim.record.files import whole_file
from coordsim.record.run_facts import RunFacts
from coordsim.record.trace import Kind, Trace
from coordsim.scenario.model import Scenario
from coordsim.scenario.restored import restored
from coordsim.simulate.goal import commented_text, goal_of
from coordsim.simulate.problem import Progress
from coordsim.simulate.timeline import export_timeline

EVENTS_A_TENSOR = 14
"""Of a timeline, for each tensor and step: begins and ends of negotiation, operation and its five parts, at most."""
NAMES_A_TENSOR = 2
MESSAGES_A_S = 15_000
"""Of control, that the event engine handles on one core: for estimates."""
PATIENT_S = 150
"""Steps are left out beyond, unless they were asked for."""
WORTH_SAYING_S = 10
OPERATIONS_A_RANK = 4
"""Of a cycle, at least."""


class Watch(Protocol):
    """Who is told how far something is that takes long."""

    def begin(self, title: str) -> None:
        """The next part begins."""
        ...

    def update(self, done: int, total: int) -> None:
        """So much of it is done."""
        ...


class Bounds(NamedTuple):
    """How much of a run is written."""

    wanted: range
    """Steps."""
    asked: bool
    """Whether these steps were asked for, so that none is left out because it takes long."""
    limit: int
    """Events at most."""


def timeline(
    run: Path, facts: RunFacts, trace: Trace, bounds: Bounds, path: Path, warn: Callable[[str], None], watch: Watch
) -> tuple[str, list[str]]:
    """Write rank 0's timeline of the run's steps up to the last wanted one. Returns what, and what is not in it.

    ``warn`` is told how long it will take, when it takes long.
    """
    wanted, asked, limit = bounds
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
    told = [f"left out for size: {len(wanted) - fitting:,} steps"] if fitting < len(wanted) else []
    takes_s = np.cumsum(_messages(scenario, trace, fitting)) / MESSAGES_A_S
    taken = fitting if asked else max(int(np.searchsorted(takes_s, PATIENT_S, side="right")), 2)
    if taken < fitting:
        told.append(
            f"left out for time: {fitting - taken:,} steps; --steps 0:{fitting} takes them, in some "
            f"{_spelled(takes_s[fitting - 1])}"
        )
    if takes_s[taken - 1] > WORTH_SAYING_S:
        warn(f"{taken:,} steps of {scenario.ranks:,} ranks are run again by events, in some "
             f"{_spelled(takes_s[taken - 1])}; fewer --steps take less")  # fmt: skip
    watch.begin("simulating by events")
    export_timeline(
        replace(scenario, steps=taken - 1), path, progress=watch.update, writing=_begun(watch, "writing")
    )
    return f"{taken:,} steps, up to {events[taken - 1]:,} events", told


def _messages(scenario: Scenario, trace: Trace, steps: int) -> npt.NDArray[np.float64]:
    """Control messages of the first ``steps`` steps, about, shape [step]; what the event engine's time goes with."""
    cycles, kind = trace.cycles, trace.cycles["kind"]
    plane = scenario.control_plane.kind
    slow = float(plane.exchanges.get("slow", 0) - plane.exchanges.get("fast", 0))  # lists, responses, lengths of both
    doubling = float(scenario.ranks.bit_length())
    fast = {"ring": 2.0, "in-network": 1.0}.get(scenario.cluster.control.and_reduce, doubling)
    asks = np.isin(kind, (Kind.SLOW, Kind.INVALIDATE))
    of_cycle = fast + slow * asks if plane.cache else np.full(kind.size, slow)
    found = np.bincount(cycles["step"], of_cycle * cycles["repeat"], steps)[:steps] * scenario.ranks
    return cast("npt.NDArray[np.float64]", found)


def _begun(watch: Watch, title: str) -> Progress:
    """Tells ``watch`` the title with the first news."""

    def update(done: int, total: int) -> None:
        if not done:
            watch.begin(title)
        watch.update(done, total)

    return update


def _spelled(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def goal(run: Path, facts: RunFacts, path: Path, limit: int) -> tuple[str, list[str]]:
    """Write one control cycle of the run as GOAL text: the steady one. Returns what, and what is not in it."""
    scenario = _scenario(run, facts)
    least = OPERATIONS_A_RANK * scenario.ranks
    if least > limit:
        raise InputError.one("--max-events", "", limit, f"{scenario.ranks:,} ranks take {least:,} operations or more")
    warm = scenario.control_plane.kind.cache
    cycle = goal_of(scenario, warm=warm)
    operations = sum(map(len, cycle.ranks))
    if operations > limit:
        raise InputError.one("--max-events", "", limit, f"the cycle has {operations:,} operations")
    told = [
        "left out: all but one control cycle, whatever --steps says; every rank has all tensors and enters at once",
        "left out: gradients' collectives; GOAL has the control plane's messages alone",
    ]
    if warm:
        told.append("left out: the first step's slow cycle; this one has a warm cache")
    text = commented_text(scenario, cycle)
    with whole_file(path) as fresh:
        fresh.write_text("".join(f"// {each}\n" for each in told) + text, encoding="utf-8")
    return f"{operations:,} operations of {scenario.ranks:,} ranks", told


def _scenario(run: Path, facts: RunFacts) -> Scenario:
    if facts.imported is not None:
        message = f"was imported ({facts.imported.get('format')}): it has neither ranks' records nor a scenario"
        raise InputError.one(str(run), "", None, message)
    if facts.simulated is None:
        message = "keeps neither ranks' records nor a scenario; export the folder of records it was made from"
        raise InputError.one(str(run), "", None, message)
    return restored(facts.simulated.scenario, str(run / "manifest.json"), facts.simulated.scenario_sha256)
