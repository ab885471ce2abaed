"""``coordsim predict``: a run in, a prediction out, and what is refused."""

from __future__ import annotations

import json

import pytest

from coordsim.analyse.calibrate.result import Calibration
from coordsim.analyse.calibrate.toml import cluster_toml
from coordsim.analyse.predict.collectives import CollectiveCosts, Costs
from coordsim.record.run_facts import RunFacts, RunKind
from coordsim.record.store import write_run
from coordsim.scenario import catalog
from tests.analyse.predict.played import SLEEPING
from tests.analyse.test_predict import records
from tests.record.hand_made import two_cycles


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A folder whose records are made up."""
    folder = tmp_path / "job"
    folder.mkdir()
    made = records(4, 20, rank_sigma=0.01, step_sigma=0.01)
    monkeypatch.setattr("coordsim.record.run.read_folder", lambda path: made)
    return folder


def test_json_is_one_object(run, recorded):
    result = run("predict", recorded, "--ranks", "60", "--cluster", "summit", "--steps", "3", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert (found["schema"], found["ranks"], found["cluster"]) == ("coordsim.prediction/2", 60, "summit")
    assert result.stderr.splitlines()[-1].startswith(f"next: coordsim predict {recorded} --ranks 60")


def test_what_is_kept_can_be_simulated(run, recorded, tmp_path):
    asked = ("--ranks", "12", "--cluster", "summit", "--steps", "3")
    result = run("predict", recorded, *asked, "--out", tmp_path / "kept")
    assert result.exit_code == 0
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["scenario.toml", "tensors.csv"]
    command = result.stderr.splitlines()[-1].removeprefix("next: coordsim ").split()
    again = run(*command[:-1], "--steps", "3", "--json")
    assert again.exit_code == 0
    assert json.loads(again.stdout)["scenario"]["workload"]["name"] == "job"


def test_a_profiled_run_is_read_from_its_ranks(run, recorded):
    write_run(recorded.parent / "run", two_cycles(), RunFacts(kind=RunKind.RECORDED, ranks=4), streams=recorded)
    asked = ("--ranks", "12", "--cluster", "summit", "--steps", "2")
    assert run("predict", recorded.parent / "run", *asked).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--ranks", "12", "--cluster", "sumit"), "did you mean 'summit'?"),
        (("--ranks", "12", "--cluster", "summit", "--set", "noise.rnak.sigma=1%"), "noise.rnak"),
        (("--ranks", "12", "--cluster", "summit", "--out", "nowhere/kept"), "needs a folder"),
        (("--ranks", "12", "--out", "kept"), "goes with --cluster NAME"),
        (("--ranks", "12", "--set", "noise.rank.sigma=1%"), "goes with --cluster NAME"),
        (("--ranks", "12"), "no CPU times"),
        (("--ranks", "12", "--batch", "0"), "--batch"),
        (("--ranks", "12", "--batch", "4"), "say --recorded-batch"),
        (("--ranks", "12", "--global-batch", "25", "--recorded-batch", "4"), "nearest: 24 and 36"),
        (("--ranks", "12", "--recorded-batch", "4"), "goes with --batch or --global-batch"),
        (("--ranks", "12", "--input-law", "linear"), "is not a law of input"),
        (("--ranks", "0"), "--ranks"),
        ((), "--ranks"),
    ],
)
def test_bad_arguments_are_one_error(run, recorded, arguments, told):
    result = run("predict", recorded, *arguments)
    assert result.exit_code == 2
    assert told in result.stderr
    assert result.stdout == ""


@pytest.fixture
def played(tmp_path, monkeypatch):
    """A folder whose records are of a job on two shared cores."""
    folder = tmp_path / "job"
    folder.mkdir()
    made = SLEEPING.records(2)
    monkeypatch.setattr("coordsim.record.run.read_folder", lambda path: made)
    return folder


def test_without_a_cluster_it_is_about_the_recorded_machine(run, played):
    result = run("predict", played, "--ranks", "8")
    assert result.exit_code == 0
    first, second = result.stdout.splitlines()[:2]
    assert first.startswith("recorded: 2 ranks on vm, 2 cores, gloo: ")
    assert "measured" in f"{first} {second}"
    screen = " ".join(result.stdout.split())
    assert "with 8 ranks on its own machine" in screen
    assert "8 ranks want" in screen
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_json_of_the_recorded_machine_has_the_recorded_run_and_one_interval(run, played):
    found = json.loads(run("predict", played, "--ranks", "4", "--cluster", "here", "--json").stdout)
    assert found["cluster"] is None
    assert found["recorded"]["reproduced"] is True
    assert set(found["recorded"]["parts"]) >= {"forward", "backward", "waits"}
    interval = found["interval"]
    assert interval["low_s"] < found["step_time_s"] < interval["high_s"]
    assert sum(found["breakdown_s"].values()) == pytest.approx(found["step_time_s"], rel=1e-6)


def calibrated(tmp_path, backend: str) -> str:
    """A cluster file that describes a backend on two cores, as ``calibrate here --backend`` writes it."""
    costs = CollectiveCosts(
        backend, "vm", 2, (2, 8), 4096, 1 << 21, "2026-11-29", Costs(100_000, 200_000, 500, 50_000, 50_000)
    )  # fmt: skip
    found = Calibration("MEASURED", {"name": "vm"}, {"date": "2026-11-29"}, "localhost", (), collectives=costs)
    path = tmp_path / f"{backend}.toml"
    path.write_text(cluster_toml(found, catalog.read("cluster", "localhost")))
    return str(path)


def test_a_file_that_describes_the_runs_backend_is_used(run, played, tmp_path):
    found = json.loads(
        run("predict", played, "--ranks", "8", "--cluster", calibrated(tmp_path, "gloo"), "--json").stdout
    )
    assert found["cluster"] is None
    assert found["recorded"]["note"] is None
    assert found["costs"] == "gloo timed alone at 2, 8 ranks on 2026-11-29"
    assert found["step_time_s"] == pytest.approx(SLEEPING.step_ms(8) / 1e3, rel=0.06)


def test_a_file_of_another_backend_is_said_on_the_first_line(run, played, tmp_path):
    result = run("predict", played, "--ranks", "8", "--cluster", calibrated(tmp_path, "coord"))
    first = " ".join(result.stdout.split("\n\n")[0].split())
    assert "describes coord, the run reduced over gloo: its collectives are not used" in first


def test_a_cluster_of_another_data_plane_is_said_on_the_first_line(run, played):
    result = run("predict", played, "--ranks", "12", "--cluster", "summit", "--steps", "2")
    first = " ".join(result.stdout.split("\n\n")[0].split())
    assert first.startswith("recorded: 2 ranks on vm")
    assert "summit describes NCCL" in first


def test_another_batch_is_in_the_title(run, played):
    result = run("predict", played, "--ranks", "4", "--global-batch", "128", "--recorded-batch", "16")
    assert "batch 32 (recorded 16)" in " ".join(result.stdout.split())


def test_a_run_without_its_ranks_is_refused(run, tmp_path):
    write_run(tmp_path / "run", two_cycles(), RunFacts(kind=RunKind.RECORDED, ranks=4))
    result = run("predict", tmp_path / "run", "--ranks", "12")
    assert result.exit_code == 2
    assert "without its ranks' records" in result.stderr


def test_a_folder_without_records_is_refused(run, tmp_path):
    result = run("predict", tmp_path, "--ranks", "12")
    assert result.exit_code == 2
    assert "no folder with ranks' records" in result.stderr
