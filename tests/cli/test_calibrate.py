"""``coordsim calibrate``: a cluster file that ``simulate`` takes, from this machine, a measurement, or runs."""

from __future__ import annotations

import json
import re
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from coordsim.record.measurement import Measurement, as_json, write_measurement
from coordsim.scenario.loading import load_scenario
from coordsim.units import parse_rate, parse_time
from tests.analyse.measured import allreduces, computing, counting, machine, measurement
from tests.cli.conftest import Run


@pytest.fixture
def made() -> Measurement:
    """16 ranks on 4 nodes."""
    return measurement([
        *machine(10_000, 1_000, 0.2, 1), *allreduces(1e5, 1e9, 2), *counting(1e4, 500, 900, 3),
        *computing(16, 120, 0.02, 4, persistent=0.03),
    ])  # fmt: skip


@pytest.fixture
def file(made: Measurement, tmp_path: Path) -> Path:
    write_measurement(tmp_path / "earlier.json", made)
    return tmp_path / "earlier.json"


def test_one_screen(run: Run, file: Path) -> None:
    result = run("calibrate", "here", "--from", file)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "calibration, measured, host made, 64 cores (load unknown before), 2026-11-25"
    assert re.search(r"overhead o +\d[\d.]* (us|ns)  \(.* to .*\)", result.stdout)
    assert "control.and_reduce = ring" in result.stdout
    assert "not fitted: the value of localhost stands" in result.stdout
    assert result.stderr.splitlines()[-1] == f"next: coordsim calibrate here --from {file} --out cluster.toml"


def test_the_cluster_file_says_of_every_key_where_it_comes_from_and_simulates(
    run: Run, file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "cluster.toml"
    found = json.loads(run("calibrate", "here", "--from", file, "--out", out, "--json").stdout)
    assert found["schema"] == "coordsim.calibration/1"
    assert found["files"] == {"cluster": str(out), "measurement": str(tmp_path / "cluster.measurement.json")}
    estimates = {each["key"]: each for each in found["estimates"] if each["key"]}
    text = out.read_text()
    lines = text[: text.index("[sources]")].splitlines()
    for before, line in pairwise(lines):
        if " = " in line and not line.startswith(("#", "description", "default_ranks")):
            assert before.startswith(("# MEASURED", "# from base localhost")), line
    tree = tomllib.loads(text)
    assert parse_time(tree["control"]["overhead"]) == pytest.approx(estimates["control.overhead"]["value"], rel=1e-3)
    bandwidth = estimates["data.bus_bandwidth"]["value"]
    assert parse_rate(tree["data"]["bus_bandwidth"]) == pytest.approx(bandwidth, rel=1e-3)
    assert tree["control"]["latency"] == "126us"
    assert tree["sources"]["control.latency"].startswith("from base localhost: DERIVED")
    scenario = load_scenario(cluster=str(out), workload="resnet50", ranks=4)
    assert scenario.cluster.name == "cluster"
    ranges = {each.key: each for each in scenario.cluster.ranges}
    overhead = ranges["cluster.control.overhead"]
    for end, text in (("low", overhead.low), ("high", overhead.high)):
        assert parse_time(text) == pytest.approx(estimates["control.overhead"][end], rel=1e-3, abs=1)
    assert ranges["cluster.data.bus_bandwidth"].costly == "low"
    assert overhead.source.startswith("MEASURED: 95 % interval")
    assert scenario.cluster.control.overhead_ns == parse_time(tree["control"]["overhead"])
    assert scenario.noise.step.sigma_ppm == pytest.approx(20_000, rel=0.1)
    assert scenario.noise.rank.sigma_ppm > 10_000
    simulated = json.loads(run("simulate", "--cluster", out, "--workload", "resnet50", "--steps", "2", "--json").stdout)
    assert simulated["scenario"]["cluster"]["name"] == "cluster"


def test_fitting_again_what_was_kept_gives_the_same(run: Run, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "cluster.toml"
    first = json.loads(run("calibrate", "here", "--from", file, "--out", out, "--json").stdout)
    text = out.read_text()
    again = json.loads(run("calibrate", "here", "--from", first["files"]["measurement"], "--out", out, "--json").stdout)
    assert again == first
    assert out.read_text() == text


def test_it_says_what_is_not_known(run: Run, made: Measurement, tmp_path: Path) -> None:
    crowded = {**as_json(made), "host": {"name": "made", "cores": 1}}
    (tmp_path / "m.json").write_text(json.dumps(crowded))
    found = json.loads(run("calibrate", "here", "--from", tmp_path / "m.json", "--json").stdout)
    assert {each["key"] for each in found["estimates"]} == {"host.per_message", "host.per_request", "host.per_response"}
    assert "core each" in found["not_fitted"]["control network"]
    assert any("2 ranks on 1 cores are in no fit" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["here", "--from", "{tmp}/none.json"], "cannot be read"),
        (["here", "--from", "{tmp}/empty.json"], "not JSON"),
        (["here", "--from", "{tmp}/wrong.json"], "schema 'coordsim.run/1' is no measurement's"),
        (["here", "--ranks", "1"], "needs numbers of processes from 2 to"),
        (["here", "--ranks", "two"], "needs numbers of processes from 2 to"),
        (["here", "--ranks", "2,99999"], "needs numbers of processes from 2 to"),
        (["here", "--ranks", "2", "--from", "{tmp}/m.json"], "--from measures nothing"),
        (["here", "{tmp}"], "either 'here' or runs"),
        (["{tmp}", "--quick"], "goes with 'calibrate here'"),
        (["{tmp}"], "no folder with ranks' records"),
        (["here", "--out", "{tmp}/cluster.json"], "ends in .toml"),
        (["here", "--out", "{tmp}/no/cluster.toml"], "no folder"),
        (["here", "--out", "{tmp}/mine.toml"], "no calibrated cluster"),
        (["here", "--base", "sumit", "--from", "{tmp}/m.json"], "did you mean 'summit'?"),
    ],
)
def test_bad_input_is_one_error_before_anything_is_measured(
    run: Run, arguments: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "empty.json").write_text("")
    (tmp_path / "wrong.json").write_text('{"schema": "coordsim.run/1"}')
    (tmp_path / "mine.toml").write_text("precious = 1\n")
    result = run("calibrate", *(each.format(tmp=tmp_path) for each in arguments))
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""
    assert (tmp_path / "mine.toml").read_text() == "precious = 1\n"


def test_a_simulation_is_called_one(run: Run, tmp_path: Path) -> None:
    scenario = ("--cluster", "summit", "--workload", "resnet50", "--ranks", "6", "--steps", "20")
    assert run("simulate", *scenario, "--out", tmp_path / "run").exit_code == 0
    out = tmp_path / "cluster.toml"
    result = run("calibrate", tmp_path / "run", "--base", "summit", "--out", out)
    assert result.exit_code == 0, result.stderr
    assert "nothing was measured" in result.stderr
    assert "SIMULATED runs" in result.stdout
    text = out.read_text()
    assert "MEASURED" not in text[: text.index("[sources]")].replace("from base summit: MEASURED", "")
    assert "# SIMULATED" in text
