"""``coordsim report``: a run on one screen, whether ranks recorded it or an engine simulated it."""

from __future__ import annotations

import json
import platform
from dataclasses import replace
from pathlib import Path

import pytest

from coordsim.analyse.findings import find_out
from coordsim.record.ranks import merge
from coordsim.record.ranks.format import MAGIC
from coordsim.record.run_facts import Command
from coordsim.record.store import write_run
from tests.cli.conftest import Run
from tests.real_backend.processes import run as on_ranks
from tests.real_backend.test_recorder import steps


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three ranks, ten steps, rank 2 late by 10 ms."""
    folder = tmp_path_factory.mktemp("records")
    on_ranks(3, steps, 10, 10.0, env={"COORDSIM_RECORD": str(folder), "COORDSIM_RECORD_SAMPLED_RANKS": "2"})
    return folder


def test_one_screen(run: Run, recorded: Path) -> None:
    result = run("report", recorded)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 50  # with the rows that only a busy machine has
    assert "real run, 3 ranks, 9 steps from number 1 on" in lines[0]
    said = " ".join(result.stdout.split())
    assert f"rank 2 on {platform.node()} in 9 of 9 steps" in said
    assert "hits a step for 20 tensors (100.0 %)" in said
    assert "recommended" in said
    assert "not measured apart" in result.stdout
    assert "cycles were recorded on 2 of 3 ranks" in result.stdout
    assert result.stderr.splitlines()[-1].startswith("next: coordsim report")


def test_json(run: Run, recorded: Path) -> None:
    found = json.loads(run("report", recorded, "--json").stdout)
    assert found["schema"] == "coordsim.run/1"
    assert found["breakdown_s"]["forward"] is None
    known = sum(value for value in found["breakdown_s"].values() if value is not None)
    assert known == pytest.approx(found["step_time_s"]["mean"], rel=1e-9)
    last = found["last"][0]
    assert (last["rank"], last["steps"], last["host"]) == (2, 9, platform.node())
    assert found["control_plane"] == "cached"
    assert found["messages"]["bytes_per_step"] == 20 * 64 * 4
    assert found["control"]["cache_hits_per_step"] == 20
    assert found["waited_for"] == []
    assert found["control"]["slow_cycles_per_step"] == 0
    assert found["straggler_wait_s"] == pytest.approx(0.010, rel=0.5)


def test_merged_and_stored_it_says_the_same(run: Run, recorded: Path, tmp_path: Path) -> None:
    first = json.loads(run("report", recorded, "--json", "--out", tmp_path / "run").stdout)
    assert json.loads(run("report", tmp_path / "run", "--json").stdout) == first


def test_the_late_rank_is_named_and_where_it_gets_late(run: Run, recorded: Path, tmp_path: Path) -> None:
    assert "rank 2 is late: " in " ".join(run("report", recorded).stdout.split())
    found = json.loads(run("report", recorded, "--json").stdout)["stragglers"]
    assert found["schema"] == "coordsim.stragglers/1"
    assert [each["ranks"] for each in found["late"]] == [[2]]
    assert found["late"][0]["onset"]["from"] == "first gradient"


def test_some_steps_only(run: Run, recorded: Path) -> None:
    found = json.loads(run("report", recorded, "--steps", "3:7", "--json").stdout)
    assert (found["steps"], found["first_step"], found["cold_step_s"]) == (4, 3, None)


def test_some_steps_of_a_run_that_keeps_its_ranks_records(run: Run, recorded: Path, tmp_path: Path) -> None:
    merged = merge(recorded)
    facts = replace(merged.facts, command=Command(exit_code=3))
    write_run(tmp_path / "run", merged.trace, facts, find_out(merged), recorded)
    found = json.loads(run("report", tmp_path / "run", "--steps", "3:7", "--json").stdout)
    assert (found["steps"], found["first_step"], found["exit_code"]) == (4, 3, 3)
    write_run(tmp_path / "bare", merged.trace, merged.facts)
    result = run("report", tmp_path / "bare", "--steps", "3:7")
    assert result.exit_code == 2
    assert "keeps no ranks' records" in result.stderr


def test_the_table_of_ranks_on_request(run: Run, recorded: Path) -> None:
    told = run("report", recorded, "--ranks").stdout
    assert "each rank's own ms" in told
    assert [line.split()[0] for line in told[told.index("rank ba") :].splitlines()[1:4]] == ["0", "1", "2"]


def test_a_simulated_run_too(run: Run, small: Path, tmp_path: Path) -> None:
    simulated = json.loads(run("simulate", small, "--json", "--out", tmp_path / "run").stdout)
    found = json.loads(run("report", tmp_path / "run", "--json").stdout)
    assert found["source"] == "simulation"
    assert found["step_time_s"] == simulated["step_time_s"]
    assert found["breakdown_s"] == pytest.approx(simulated["breakdown_s"])
    assert found["ranks"] == simulated["ranks"]
    assert found["stragglers"] is None
    assert run("report", tmp_path / "run").stdout.startswith("run: simulation")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/nothing"], "no folder with ranks' records"),
        (["{tmp}", "--steps", "7"], 'needs the form "A:B"'),
        (["{tmp}", "--steps", "7:3"], 'needs the form "A:B"'),
        (["{tmp}"], "without a head"),
    ],
)
def test_bad_input_is_one_error(run: Run, arguments: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "rank-00000.rank").write_bytes(MAGIC)
    result = run("report", *(each.format(tmp=tmp_path) for each in arguments))
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_steps_that_nobody_recorded(run: Run, recorded: Path) -> None:
    result = run("report", recorded, "--steps", "50:60")
    assert result.exit_code == 2
    assert "no step that every rank ended and that was recorded in detail" in result.stderr


def test_a_result_is_not_written_over_something_else(run: Run, recorded: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    result = run("report", recorded, "--out", tmp_path / "mine")
    assert result.exit_code == 2
    assert (tmp_path / "mine").read_text() == "precious"
