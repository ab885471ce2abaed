"""A simulated job's timeline, imported, says what the simulation's own trace says, as far as a timeline can."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coordsim.formats.horovod.run import import_timeline
from coordsim.record.breakdown import breakdown, step_times
from coordsim.scenario.model import Noise, Spread
from coordsim.simulate.event import run
from coordsim.simulate.problem import Problem
from coordsim.simulate.timeline import export_timeline
from tests.scenarios import PLANE, scenario, tensors, workload

US = 1000


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("data_plane", ["blocking", "async"])
@pytest.mark.parametrize("plane", ["coordinator", "cached", "point-to-point"])
def test_an_imported_timeline_is_the_simulated_run(plane: str, data_plane: str, seed: int, tmp_path: Path) -> None:
    control = replace(PLANE, name=plane, data_plane=data_plane, fusion_threshold_bytes=6 << 10)
    uneven = replace(workload(8), tensors=tensors([400_000] * 8, [1000, 500] * 4))
    noise = Noise(tensor=Spread("normal", 200_000), step=Spread("exponential", 500_000))
    given = scenario(5, 4, seed, workload=uneven, control_plane=control, noise=noise)
    export_timeline(given, tmp_path / "t.json")
    truth = run(Problem(given))
    found = import_timeline(tmp_path / "t.json")
    trace = found.trace
    assert trace is not None
    for column in ("units", "bytes"):
        assert trace.responses[column].tolist() == truth.responses[column].tolist()
    assert trace.steps["step"].size == truth.steps["step"].size
    later = truth.responses["end_ns"] - trace.responses["end_ns"]
    assert int(later.max() - later.min()) < 2 * US
    np.testing.assert_array_equal(sum(breakdown(trace).values()), step_times(trace))
    # A rank that is told to be last is last by the simulation's own reckoning.
    told = trace.steps["ready_last_rank"]
    assert (told[told >= 0] == truth.steps["ready_last_rank"][told >= 0]).all()
    assert plane == "cached" or (told >= 0).any()
    ours, theirs = breakdown(trace), breakdown(truth)
    if plane != "cached":
        one_cycle = given.control_plane.cycle_time_ns + 100 * US
        assert np.abs(ours["straggler_wait"] - theirs["straggler_wait"]).max() <= one_cycle
    # What comes after the last submission: the cycle's exchange with all its work, copies, collectives.
    tail = ("control_exchange", "control_work", "fusion_copy", "exposed_collective")
    for step in range(1, trace.steps["step"].size):
        mine = sum(int(ours[name][step]) for name in tail if name in ours)
        other = sum(int(theirs[name][step]) for name in tail)
        assert mine == pytest.approx(other, abs=60 * US)
