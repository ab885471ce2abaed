"""Runs that ranks recorded, as measurements: readiness by rank, exchanges, the coordinator's work, collectives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import real_backend as rb
from coordsim.analyse.calibrate import Estimate, calibrate
from coordsim.analyse.calibrate.runs import read_runs
from coordsim.errors import InputError
from coordsim.record.ranks import merge
from coordsim.record.store import write_run
from coordsim.scenario.loading import load_scenario
from tests.real_backend.processes import run as on_ranks
from tests.real_backend.test_recorder import steps

BASE = load_scenario(cluster="localhost", workload="resnet50").cluster
STEPS = 40


def large() -> None:
    """Steps of two tensors that are reduced apart, beside the bit vector."""
    rb.init()
    for _ in range(STEPS):
        for index, elements in enumerate((1 << 15, 1 << 19)):
            rb.allreduce_async(torch.ones(elements), f"t{index}").wait()
    rb.shutdown()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two ranks: with the cache, with a coordinator alone, and with tensors of two sizes."""
    found = {}
    for name, function, arguments, more in (
        ("cached", steps, (STEPS, 3.0), {}),
        ("coordinator", steps, (STEPS, 0.0), {"COORDSIM_CONTROL_PLANE": "coordinator"}),
        ("large", large, (), {}),
    ):
        found[name] = tmp_path_factory.mktemp(name)
        facts = {"COORDSIM_RECORD": str(found[name]), "COORDSIM_RECORD_FIRST_STEPS": str(STEPS), **more}
        on_ranks(2, function, *arguments, env=facts)  # type: ignore[arg-type]
    return found


def keys(paths: list[Path]) -> dict[str, Estimate]:
    return calibrate(read_runs(paths), BASE).by_key


def test_each_ranks_readiness_is_a_series(folders: dict[str, Path]) -> None:
    measured = read_runs([folders["cached"]])
    assert measured.source == "RECORDED"
    assert measured.host["name"]
    assert measured.taken["date"] is not None
    ready = {each.rank: float(np.median(each.samples_ns)) for each in measured.of("step")}
    assert set(ready) == {0, 1}
    assert ready[1] > ready[0] + 2e6  # rank 1 sleeps for 3 ms


def test_a_coordinators_run_tells_what_a_request_costs(folders: dict[str, Path]) -> None:
    measured = read_runs([folders["coordinator"]])
    assert {each.count for each in measured.of("work")} >= {40}
    assert all(each.ranks == 2 and min(each.samples_ns) > 0 for each in measured.of("work"))


def test_collectives_over_bytes_give_a_bandwidth(folders: dict[str, Path]) -> None:
    found = keys([folders["large"]])
    assert found["data.bus_bandwidth"].value > 1e7
    assert found["data.bus_bandwidth"].holds == "128 KiB to 2 MiB, 2 ranks"


def test_several_runs_are_taken_together(folders: dict[str, Path]) -> None:
    found = keys([folders["cached"], folders["large"]])
    assert {"data.bus_bandwidth", "noise.step", "control.local_latency"} <= set(found)
    assert "steps up to the last submission" in found["noise.step"].holds


def test_a_run_directory_knows_no_ranks(folders: dict[str, Path], tmp_path: Path) -> None:
    merged = merge(folders["large"])
    write_run(tmp_path / "run", merged.trace, merged.facts)
    found = calibrate(read_runs([tmp_path / "run"]), BASE)
    assert "keeps no rank's own times" in dict(found.not_fitted)["noise of compute"]
    assert "data.bus_bandwidth" in found.by_key


def test_ranks_without_a_record_are_named(folders: dict[str, Path], tmp_path: Path) -> None:
    for each in folders["large"].glob("*.rank"):
        if "1" not in each.stem[-1:]:
            (tmp_path / each.name).write_bytes(each.read_bytes())
    found = calibrate(read_runs([tmp_path]), BASE)
    assert "ranks 1 left no record" in dict(found.not_fitted)["noise of compute"]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder with ranks' records"):
        read_runs([tmp_path])
