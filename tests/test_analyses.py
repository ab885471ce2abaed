"""The studies under ``analyses/``: their scripts run, their committed tables and texts belong together."""

from __future__ import annotations

import csv
import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from coordsim.scenario.loading import load_scenario
from coordsim.scenario.resolved import scenario_hash

STUDY = Path(__file__).resolve().parents[1] / "analyses" / "summit_scaling"
sys.path.append(str(STUDY))

import readme  # noqa: E402
import runs  # noqa: E402
import sensitivity  # noqa: E402
from conclusions import conclusions  # noqa: E402
from curves import crossing  # noqa: E402
from published import bisect  # noqa: E402

TABLES = ("efficiency", "thresholds", "sensitivity", "grouping", "win_back", "request_cost", "ridge", "published")
HOLD = {
    "coordinator_invisible_when_small",
    "fast_control_plane_makes_small_messages",
    "grouping_wins_back_ring",
    "one_group_hides_nothing_stemdl",
    "one_group_hides_nothing_resnet50",
    "jitter_dominates_fast_planes",
    "request_cost_dominates_coordinator",
}
FAIL = {"grouping_wins_back_nccl"}


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    folder = tmp_path_factory.mktemp("summit_scaling")
    done = subprocess.run(
        [sys.executable, str(STUDY / "run.py"), "--quick", "--out", str(folder)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", [*TABLES, "conclusions"])
def test_a_quick_run_writes_the_tables_that_are_committed(quick, name):
    fresh, committed = table(quick, name), table(STUDY, name)
    assert fresh
    assert list(fresh[0]) == list(committed[0])


def test_a_quick_run_draws_and_tells(quick):
    assert (quick / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (quick / "figure.svg").read_text(encoding="utf-8")[:1000]
    assert "$" not in (quick / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("committed", [False, True], ids=["quick", "committed"])
def test_the_conclusions_hold_or_do_not(quick, committed):
    rows = table(STUDY if committed else quick, "conclusions")
    assert {row["id"] for row in rows if row["holds"] == "yes"} == HOLD
    assert {row["id"] for row in rows if row["holds"] == "no"} == FAIL


def test_efficiency_lies_in_its_band_and_the_parts_sum_to_the_step():
    for row in table(STUDY, "efficiency"):
        assert float(row["efficiency_low"]) <= float(row["efficiency"]) <= float(row["efficiency_high"])
        parts = [float(value) for key, value in row.items() if key.endswith("_s") and key != "step_s"]
        assert len(parts) == 10
        assert sum(parts) == pytest.approx(float(row["step_s"]), abs=2e-5)


def test_the_committed_text_and_conclusions_follow_from_the_committed_tables():
    tables = {name: table(STUDY, name) for name in TABLES}
    found = table(STUDY, "conclusions")
    assert conclusions(tables) == found
    assert readme.render(tables, found) == (STUDY / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("workload", runs.WORKLOADS)
def test_medians_are_the_catalog_s(workload):
    path = STUDY / "scenarios" / f"{workload}.toml"
    for each in runs.parameters(workload):
        at_median = load_scenario(path, overrides=(f"{each.key}={each.values[1]}",))
        assert scenario_hash(at_median) == scenario_hash(load_scenario(path)), each.name


def test_the_hypercube_spans_the_same_ranges():
    for each in runs.parameters():
        if each.name in sensitivity.RANGES:
            low, high, _, unit = sensitivity.RANGES[each.name]
            ends = [float(str(each.values[index]).removesuffix(unit)) for index in (0, 2)]
            assert ends == [low, high], each.name


@pytest.mark.parametrize("count", [1, 2, 7, 100, 5000])
def test_a_crossing_is_found_to_one_percent(count):
    found = crossing(lambda nodes: nodes >= count, 16_667)
    assert found is not None
    assert count <= found <= count * 1.02 + 1


def test_no_crossing_is_said():
    assert crossing(lambda nodes: False, 16_667) is None
    assert bisect(lambda x: -1.0, 0, 1) is None
    assert bisect(lambda x: 1.0, 0, 1) is None


def test_bisection_finds_the_root():
    assert bisect(lambda x: x - 0.3, 0, 1) == pytest.approx(0.3, abs=0.002)


@pytest.mark.parametrize("batch", [32, 64, 128])
def test_resnet50_at_another_batch_has_the_published_rate(batch):
    workload = runs.at_batch(load_scenario(STUDY / "scenarios" / "resnet50.toml").workload, batch)
    step_ns = workload.forward_ns + workload.backward_ns + workload.optimizer_ns
    assert batch * 1e9 / step_ns == pytest.approx(runs.IMAGES_PER_S[batch], rel=1e-3)
    ready = [tensor.ready_ns for tensor in workload.tensors]
    assert all(before < after for before, after in itertools.pairwise(ready))
