"""Simulate a scenario: choose the engine, run it, keep the trace."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from coordsim.errors import InputError, Refused
from coordsim.errors import Problem as Mistake
from coordsim.record.breakdown import breakdown, step_times
from coordsim.record.trace import Int64, Trace
from coordsim.scenario.model import Scenario
from coordsim.simulate.problem import Problem, Progress
from coordsim.simulate.vector.refusals import vector_refusals

if TYPE_CHECKING:
    import pandas as pd

EngineName: TypeAlias = Literal["auto", "event", "vector"]
ENGINES: tuple[EngineName, ...] = ("auto", "event", "vector")

EVENT_LIMIT = 200_000_000
"""Gradients (ranks x tensors x steps) beyond which the event engine would take days."""
EVENT_BYTES_LIMIT = 8 << 30
"""Memory for the event engine's processes, queues and messages: some 16 KiB a rank and 64 bytes a gradient."""
VECTOR_BYTES_LIMIT = 16 << 30
"""Memory for one step's readiness beyond which the vector engine refuses."""
VECTOR_LIMIT = 10**13
"""Gradients (ranks x tensors x steps) beyond which the vector engine would take more than some three hours."""


@dataclass(frozen=True)
class Simulation:
    """One scenario, simulated."""

    scenario: Scenario = field(repr=False)
    engine: str
    trace: Trace = field(repr=False)
    wall_s: float
    parts: dict[str, Int64] = field(repr=False)
    """The breakdown in integer ns, shape [step]; row 0 is the cold step."""

    @property
    def step_ns(self) -> Int64:
        """Times of the steps that count, ns, shape [step]; without the cold one."""
        return step_times(self.trace)[1:]

    @property
    def first_step_ns(self) -> int:
        """The cold step, ns."""
        return int(step_times(self.trace)[0])

    @property
    def steps(self) -> pd.DataFrame:
        """One row per step that counts: ``step_time_ns`` and the ten parts in ns."""
        import pandas as pd

        columns = {"step_time_ns": self.step_ns, **{f"{name}_ns": part[1:] for name, part in self.parts.items()}}
        return pd.DataFrame(columns, index=pd.RangeIndex(1, self.step_ns.size + 1, name="step"))

    def breakdown(self) -> dict[str, float]:
        """Mean seconds per step by part; sums to the mean step time up to float rounding."""
        return {name: float(np.mean(part[1:])) / 1e9 for name, part in self.parts.items()}

    @property
    def step_time_s(self) -> float:
        """Mean step time, seconds."""
        return float(np.mean(self.step_ns)) / 1e9


def simulate(
    scenario: Scenario,
    engine: EngineName = "auto",
    *,
    debug: bool = False,
    progress: Progress | None = None,
) -> Simulation:
    """Simulate ``scenario``.

    ``engine``: "vector" (arrays, exact), "event" (SimPy, the oracle) or "auto": vector, unless it refuses the
    scenario (:mod:`coordsim.simulate.vector.refusals`) or ``debug`` asks for the protocol's invariants to be
    checked in each cycle, which only the event engine can. ``progress`` is called with (steps done, steps in all).
    Raises InputError for an unknown engine, or vector with ``debug``, and Refused, with the reason, when a
    run would not end or not fit, or when the vector engine was asked for what it cannot do.
    """
    if not isinstance(scenario, Scenario):
        message = f"a {type(scenario).__name__} is no scenario; Scenario.load reads one from a file"
        raise InputError.one("simulate", "", scenario, message)
    for key in ("ranks", "steps"):
        if getattr(scenario, key) < 1:
            raise InputError.one("scenario", key, getattr(scenario, key), "must be at least 1")
    if engine not in ENGINES:
        raise InputError.one("--engine", "", engine, f"no engine {engine!r}", ENGINES)
    if engine == "vector" and debug:
        raise InputError.one("--engine", "", engine, "the vector engine has no debug mode", ("auto", "event"))
    refusals = vector_refusals(scenario)
    if engine == "vector" and refusals:
        raise Refused([Mistake("--engine", each.key, each.value, each.because) for each in refusals])
    chosen = "event" if engine == "event" or debug or refusals else "vector"
    _within_reach(scenario, chosen)
    began = time.perf_counter()
    problem = Problem(scenario)
    if chosen == "event":
        from coordsim.simulate import event

        trace = event.run(problem, debug, progress)
    else:
        from coordsim.simulate import vector

        trace = vector.run(problem, progress)
    return Simulation(scenario, chosen, trace, time.perf_counter() - began, breakdown(trace))


def _within_reach(scenario: Scenario, engine: str) -> None:
    """Raise Refused when a run would not end or not fit."""
    tensors, ranks = len(scenario.workload.tensors), scenario.ranks
    size = ranks * tensors * (scenario.steps + 1)
    if engine == "event":
        where, value, limit = "--engine", "event", EVENT_LIMIT
        each = 64 if scenario.control_plane.wait_for_data == "none" else 256  # hooks too, and sets of what exists
        needed, memory_limit = ranks * ((16 << 10) + each * tensors), EVENT_BYTES_LIMIT
    else:
        where, value, limit = "--ranks", str(ranks), VECTOR_LIMIT
        compute_ns = scenario.workload.forward_ns + scenario.workload.backward_ns
        offset_bytes = 4 if 2 * compute_ns < 1 << 32 else 8
        matrices = 1 if scenario.control_plane.wait_for_data == "none" else 2
        if scenario.workload.order != "same":
            matrices = 2 * matrices + 2
        needed, memory_limit = matrices * offset_bytes * ranks * tensors, VECTOR_BYTES_LIMIT
    if size > limit:
        simpler = engine == "vector" or vector_refusals(scenario)
        hint = "; simulate fewer steps" if simpler else "; use the vector engine"
        message = f"{ranks:,} ranks x {tensors} tensors x {scenario.steps + 1:,} steps are {size:.1e} gradients, "
        raise Refused.one(where, "", value, f"{message}beyond the {engine} engine's {limit:.0e}{hint}")
    if needed > memory_limit:
        gib = f"{needed / 2**30:.0f} GiB (limit {memory_limit >> 30} GiB)"
        raise Refused.one(where, "", value, f"{ranks:,} ranks x {tensors} tensors would take the {engine} engine {gib}")
