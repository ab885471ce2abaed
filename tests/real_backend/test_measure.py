"""Real processes are timed; what they leave is fitted, kept, and fitted again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from coordsim.cli import app
from coordsim.errors import EnvironmentProblem
from coordsim.protocol.wire import list_bytes
from coordsim.record.measurement import read_measurement
from real_backend.measure import host
from real_backend.measure.control import Stamped, request_list, response_list
from real_backend.measure.counting import counting
from real_backend.measure.plan import PATHS, Plan


def run(*arguments: str | int | Path) -> Result:
    """The command line, in this process."""
    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_two_ranks_end_to_end(tmp_path: Path) -> None:
    """Also on a machine whose cores other tests use: nothing here is about how long anything took."""
    out = tmp_path / "cluster.toml"
    result = run("calibrate", "here", "--quick", "--ranks", "2", "--out", out, "--json")
    assert result.exit_code == 0, result.stderr
    first: dict[str, Any] = json.loads(result.stdout)
    kept = read_measurement(tmp_path / "cluster.measurement.json")
    found = {(each.what, each.path) for each in kept.series}
    assert {what for what, _ in found} == {
        "ping", "and", "round", "allreduce", "sleep", "compute", "copy", "coordinator", "hits",
    }  # fmt: skip
    assert {path for what, path in found if what == "allreduce"} >= set(PATHS) - {"memory"}
    assert sorted(each.rank for each in kept.of("compute", crowded=True)) == [0, 1]
    assert kept.host["cores"] >= 1
    assert kept.taken["quick"] is True
    again = run("calibrate", "here", "--from", tmp_path / "cluster.measurement.json", "--out", out, "--json")
    assert json.loads(again.stdout) == first
    simulated = run("simulate", "--cluster", out, "--workload", "resnet50", "--ranks", 2, "--steps", 2, "--json")
    assert simulated.exit_code == 0, simulated.stderr


def test_a_rank_that_fails_is_named_and_the_others_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "DEADLINE_S", 20.0)
    monkeypatch.setenv("PYTHONPATH", "/nonexistent")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(EnvironmentProblem, match="rank 0 failed: exit code 1"):
        host.measure([2], quick=True)


def test_a_rank_that_does_not_end_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sleeper = tmp_path / "sleeper"
    sleeper.write_text("#!/bin/sh\nexec sleep 60\n")
    sleeper.chmod(0o755)
    monkeypatch.setattr(host, "DEADLINE_S", 0.2)
    monkeypatch.setattr(sys, "executable", str(sleeper))
    with pytest.raises(EnvironmentProblem, match=r"rank 0 had not ended after 0\.2 s"):
        host.measure([2], quick=True)


def test_an_exchange_lasts_from_the_last_entrance_to_the_last_exit() -> None:
    one = [Stamped("and", 8, 1, "", [0, 100], [50, 190]), Stamped("sleep", 0, 1, "", [0], [7])]
    other = [Stamped("and", 8, 1, "", [10, 90], [40, 200]), Stamped("sleep", 0, 1, "", [0], [9])]
    found = {(each.what, each.rank): each.samples_ns for each in host.merged([one, other], "n")}
    assert found == {("and", -1): (40.0, 100.0), ("sleep", 0): (7.0,), ("sleep", 1): (9.0,)}


def test_counting_needs_neither_network_nor_torch() -> None:
    code = "import sys, real_backend.measure.rank, real_backend.measure.counting; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    found = counting(Plan(quick=True))
    costs = {(each.what, each.ranks, each.count): min(each.samples_ns) for each in found}
    assert costs["coordinator", 8, 256] > costs["coordinator", 2, 16] > 0
    assert costs["hits", 2, 256] > costs["hits", 2, 16] > 0


@pytest.mark.parametrize("wanted", [8, 1000, 65_536])
def test_lists_are_about_as_long_as_they_are_wanted(wanted: int) -> None:
    for made in (request_list(1, wanted), response_list(wanted)):
        assert abs(list_bytes(made) - max(wanted, 17)) <= 60
