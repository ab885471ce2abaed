"""The same cause reads alike in a simulated and in a recorded run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordsim.record.breakdown import breakdown
from coordsim.record.ranks import merge_records
from coordsim.scenario.model import Noise, Spread
from coordsim.simulate.engine import simulate
from tests.record.ddp_job import BASE_MS, LAYERS, Causes, Job
from tests.scenarios import PLANE, scenario, tensors, workload

MS = 1_000_000
COMMON = ("input_stall", "forward", "backward", "straggler_wait", "optimizer")


def simulated(forward_ms: float = BASE_MS["forward"], noise: Noise | None = None) -> dict[str, float]:
    """Parts of a job like that of :class:`Job`, ms."""
    layers = tensors([round(BASE_MS["backward"] * MS / LAYERS)] * LAYERS, [65536] * LAYERS)
    job = replace(workload(), tensors=layers, forward_ns=round(forward_ms * MS))
    plane = replace(PLANE, name="ddp")
    found = simulate(scenario(2, steps=12, workload=job, control_plane=plane, noise=noise or Noise()))
    return {name: 1e3 * value for name, value in found.breakdown().items()}


def recorded(causes: Causes) -> dict[str, float]:
    """The same of a recorded one, without noise."""
    trace = merge_records(Job(ranks=2, steps=13, causes=causes, noise=0.0).records()).trace
    return {name: float(column[1:].mean()) / MS for name, column in breakdown(trace).items()}


def changes(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {name: after[name] - before[name] for name in COMMON if abs(after[name] - before[name]) > 0.05}


def test_more_forward_on_all_ranks_is_forward_in_both() -> None:
    assert changes(simulated(), simulated(BASE_MS["forward"] + 20)) == pytest.approx({"forward": 20}, abs=0.05)
    assert changes(recorded(Causes()), recorded(Causes(FWD_ALL=20))) == pytest.approx({"forward": 20}, abs=0.05)


def test_one_late_rank_is_straggler_wait_in_both() -> None:
    noisy = simulated(20, Noise(rank=Spread("normal", 200_000)))
    late_ms = noisy["straggler_wait"]
    assert late_ms > 1
    assert noisy["forward"] + noisy["backward"] < 22 * 1.2  # of the median rank, not of the late one
    after = changes(recorded(Causes()), recorded(Causes(FWD=late_ms)))
    assert after == pytest.approx({"straggler_wait": late_ms}, abs=0.05)
