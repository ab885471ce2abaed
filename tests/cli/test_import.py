"""``coordsim import``: other tools' recordings as runs, workloads and clusters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.timelines import REAL


def test_one_screen(run: Run) -> None:
    result = run("import", REAL[0])
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "what this source cannot tell" in result.stdout
    assert result.stderr.splitlines()[-1].startswith("next: coordsim import")


def test_a_timeline_becomes_a_run_that_report_reads(run: Run, tmp_path: Path) -> None:
    made = run("import", REAL[2], "--out", tmp_path / "run")
    assert made.exit_code == 0
    assert made.stderr.splitlines()[-1] == f"next: coordsim report {tmp_path / 'run'}"
    screen = run("report", tmp_path / "run").stdout
    assert "real run, 2 ranks, 21 steps from number 1 on" in screen
    assert "not measured apart" in screen
    assert max(map(len, screen.splitlines())) <= 80
    found = json.loads(run("report", tmp_path / "run", "--json").stdout)
    known = sum(value for value in found["breakdown_s"].values() if value is not None)
    assert known == pytest.approx(found["step_time_s"]["mean"], rel=1e-9)
    assert found["control"]["coordinator_bytes_per_step"] is None
    assert found["breakdown_s"]["optimizer"] is None
    assert {each["rank"] for each in found["last"]} <= {0, 1}


def test_a_run_of_which_nobody_knows_who_was_last(run: Run, tmp_path: Path) -> None:
    run("import", REAL[1], "--out", tmp_path / "run")
    found = json.loads(run("report", tmp_path / "run", "--json").stdout)
    assert found["breakdown_s"]["straggler_wait"] is None
    assert found["straggler_wait_s"] is None
    assert sum(each["steps"] for each in found["last"]) < found["steps"]


def test_a_timeline_becomes_a_workload_that_simulate_reads(run: Run, tmp_path: Path) -> None:
    assert run("import", REAL[0], "--out", tmp_path / "mine.csv").exit_code == 0
    simulated = run("simulate", "--workload", tmp_path / "mine.csv", "--ranks", 12, "--steps", 2, "--json")
    assert simulated.exit_code == 0
    assert json.loads(simulated.stdout)["scenario"]["workload"]["name"] == "mine"


def test_json(run: Run) -> None:
    found = json.loads(run("import", REAL[0], "--json").stdout)
    assert set(found) == {"schema", "format", "files", "found", "unknown", "gives", "out"}
    assert (found["schema"], found["format"], found["out"]) == ("coordsim.import/1", "horovod", None)
    assert found["gives"] == {"run": True, "workload": True, "cluster": False}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/nothing"], "no such file or folder"),
        (["{tmp}/empty"], "an empty folder"),
        (["{tmp}/a.json"], "is empty"),
        (["{real}", "--format", "horovd"], "did you mean 'horovod'?"),
        (["{real}", "--out", "{tmp}/a.json"], "exists and is not a run directory"),
        (["{real}", "--out", "{tmp}/no/where.csv"], "does not exist"),
        (["{real}", "--out", "{tmp}/x.toml"], "gives no cluster; it gives a run (--out FOLDER) and a workload"),
    ],
)
def test_bad_input_is_one_error(run: Run, arguments: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("")
    (tmp_path / "empty").mkdir()
    result = run("import", *(each.format(tmp=tmp_path, real=REAL[0]) for each in arguments))
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""
