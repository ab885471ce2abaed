"""Runs to export: one that three real ranks recorded, one that was simulated."""

from __future__ import annotations

from pathlib import Path

import torch

import real_backend as rb
from coordsim.record.run_facts import RunFacts, RunKind, SimulatedFrom
from coordsim.record.store import write_run
from coordsim.scenario.resolved import resolved, scenario_hash
from coordsim.simulate.engine import simulate
from tests.real_backend.processes import run
from tests.scenarios import scenario

NAMES = ('allreduce."/../t<b>', "allreduce.t1", "allreduce.t2")
"""Names that would do harm as a path or as markup."""


def train(steps: int) -> None:
    """Three reductions a step, and a broadcast and a barrier at the end; marks make an optimizer's time."""
    rb.init()
    for _ in range(steps):
        rb.default_engine().mark("forward")
        rb.default_engine().mark("backward")
        handles = [rb.allreduce_async(torch.ones(8 + place), name.removeprefix("allreduce."))
                   for place, name in enumerate(NAMES)]  # fmt: skip
        for handle in handles:
            handle.wait()
        rb.default_engine().mark("step")
    rb.broadcast(torch.ones(2), 0, "b")
    rb.shutdown()


def record(folder: Path, ranks: int = 3, steps: int = 5, **env: str) -> Path:
    """A folder of ranks' records."""
    run(ranks, train, steps, env={"COORDSIM_RECORD": str(folder), **env})
    return folder


def store(folder: Path, ranks: int = 4, **changes: object) -> Path:
    """A run directory, as ``coordsim simulate --out`` writes it."""
    described = scenario(ranks=ranks, **changes)
    plane = described.control_plane.name
    facts = RunFacts(
        kind=RunKind.SIMULATED, ranks=ranks, control_plane=plane,
        simulated=SimulatedFrom(resolved(described), scenario_hash(described), "vector"),
    )  # fmt: skip
    write_run(folder, simulate(described).trace, facts)
    return folder
