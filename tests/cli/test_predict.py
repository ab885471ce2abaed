"""``coordsim predict``: a run in, a prediction out, and what is refused."""

from __future__ import annotations

import json

import pytest

from coordsim.record.run_facts import RunFacts, RunKind
from coordsim.record.store import write_run
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
    result = run("predict", recorded, "--ranks", "60", "--steps", "3", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert (found["schema"], found["ranks"], found["cluster"]) == ("coordsim.prediction/1", 60, "summit")
    assert result.stderr.splitlines()[-1].startswith(f"next: coordsim predict {recorded} --ranks 60")


def test_what_is_kept_can_be_simulated(run, recorded, tmp_path):
    result = run("predict", recorded, "--ranks", "12", "--steps", "3", "--out", tmp_path / "kept")
    assert result.exit_code == 0
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["scenario.toml", "tensors.csv"]
    command = result.stderr.splitlines()[-1].removeprefix("next: coordsim ").split()
    again = run(*command[:-1], "--steps", "3", "--json")
    assert again.exit_code == 0
    assert json.loads(again.stdout)["scenario"]["workload"]["name"] == "job"


def test_a_profiled_run_is_read_from_its_ranks(run, recorded):
    write_run(recorded.parent / "run", two_cycles(), RunFacts(kind=RunKind.RECORDED, ranks=4), streams=recorded)
    assert run("predict", recorded.parent / "run", "--ranks", "12", "--steps", "2").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--ranks", "12", "--cluster", "sumit"), "did you mean 'summit'?"),
        (("--ranks", "12", "--set", "noise.rnak.sigma=1%"), "noise.rnak"),
        (("--ranks", "12", "--out", "nowhere/kept"), "needs a folder"),
        (("--ranks", "0"), "--ranks"),
        ((), "--ranks"),
    ],
)
def test_bad_arguments_are_one_error(run, recorded, arguments, told):
    result = run("predict", recorded, *arguments)
    assert result.exit_code == 2
    assert told in result.stderr
    assert result.stdout == ""


def test_a_run_without_its_ranks_is_refused(run, tmp_path):
    write_run(tmp_path / "run", two_cycles(), RunFacts(kind=RunKind.RECORDED, ranks=4))
    result = run("predict", tmp_path / "run", "--ranks", "12")
    assert result.exit_code == 2
    assert "without its ranks' records" in result.stderr


def test_a_folder_without_records_is_refused(run, tmp_path):
    result = run("predict", tmp_path, "--ranks", "12")
    assert result.exit_code == 2
    assert "no folder with ranks' records" in result.stderr
