"""Launches of the backend that are recorded as real Horovod's were: made, read, fitted, predicted; and resumed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from coordsim.record.horovod_runs import read_folder
from real_backend.launches.network import unavailable
from real_backend.launches.plan import WORKLOADS, plans


def test_plans_name_their_launches_apart() -> None:
    for quick in (False, True):
        made = plans([2, 4], quick, True)
        assert len({plan.case for plan in made}) == len(made)
        assert {plan.ranks for plan in made} == {2, 4}
        assert {"here_n2_cache", "here_n2_cache0"} <= {plan.case for plan in made}
        assert all(set(plan.specs()) <= set(WORKLOADS) for plan in made)


@pytest.mark.long
def test_here_from_the_first_launch_to_the_verdict(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "coordsim", "validate", "here", "--ranks", "2", "--quick", "--json",
        "--out", str(tmp_path / "here"),
    ]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode in (0, 1), ended.stderr
    found = json.loads(ended.stdout)
    assert found["schema"] == "coordsim.validation.here/1"
    predicted = [row for row in found["rows"] if not row["fitted"] and row["predicted"] is not None]
    cases = [plan.case for plan in plans([2], True, unavailable() is None)]
    assert {row["case"] for row in predicted} == set(cases) - {"here_n2_cache", "here_n2_cache0"}
    assert ended.returncode == bool(found["missed"])
    assert [line for line in ended.stderr.splitlines() if "/" in line[:3]] == [
        f"{number}/{len(cases)} {case}" for number, case in enumerate(cases, 1)
    ]
    runs = read_folder(tmp_path / "here")
    assert {launch.controller for launch in runs.launches} == {"coordsim"}
    assert {launch.cache_capacity for launch in runs.launches} == {0, 1024}
    assert runs.sleep is not None
    made = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "here").iterdir()}
    (tmp_path / "here" / "here_n2_cache_cyc5.json").unlink()
    again = subprocess.run(
        [sys.executable, "-m", "real_backend.launches", str(tmp_path / "here"), "--ranks", "2", "--quick"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert again.stderr.splitlines()[-1] == f"2/{len(cases)} here_n2_cache_cyc5"
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "here").iterdir()}
    assert {name for name in made if kept[name] != made[name]} == {"here_n2_cache_cyc5.json"}
