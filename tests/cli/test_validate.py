"""``coordsim validate`` as people and scripts meet it."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.data import HOROVOD_RUNS


@pytest.fixture
def short(tmp_path):
    """One recorded launch with little in it, so that fitting it is quick."""
    launch = json.loads((HOROVOD_RUNS / "mpi_n2_cache0_cyc5.json").read_text())
    launch["workloads"] = {"seq_nodelay": launch["workloads"]["seq_nodelay"]}
    folder = tmp_path / "runs"
    folder.mkdir()
    (folder / "mpi_n2_x.json").write_text(json.dumps(launch))
    shutil.copy(HOROVOD_RUNS / "primitives_sleep.json", folder)
    return folder


def test_recorded_as_json(run, short):
    result = run("validate", "recorded", short, "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["schema"] == "coordsim.validation/1"
    assert [(row["workload"], row["metric"], row["fitted"]) for row in facts["rows"]] == [
        ("seq_nodelay", "step_ms", True), ("seq_nodelay", "tail_ms", True)
    ]  # fmt: skip
    assert facts["median_abs_relative_error"]["fitted"] < 0.05
    assert facts["median_abs_relative_error"]["predicted"] is None
    assert result.stderr.splitlines()[-1].startswith("next: coordsim ")


def test_recorded_without_a_fit_says_why_and_what_to_fit(run, short):
    (short / "mpi_n2_x.json").rename(short / "mpi_n3_x.json")
    result = run("validate", "recorded", short)
    assert result.exit_code == 0
    assert "no fitted file has controller mpi (--fit mpi_n2_*)" in " ".join(result.stdout.split())
    assert result.stderr.splitlines()[-1] == "next: coordsim validate published"


def test_a_glob_that_matches_nothing(run, short):
    result = run("validate", "recorded", short, "--fit", "mpi_n2_y*")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "'mpi_n2_y*' matches no launch" in result.stderr
    assert "mpi_n2_x" in result.stderr


def test_a_missed_promise_is_exit_code_one(run, short, monkeypatch):
    monkeypatch.setattr("coordsim.analyse.validate.recorded.judge.TOLERANCE", {"step_ms": -1.0, "tail_ms": -1.0})
    launch = json.loads((short / "mpi_n2_x.json").read_text())
    launch["case"] = "other"
    (short / "mpi_n3_y.json").write_text(json.dumps(launch))
    result = run("validate", "recorded", short)
    assert result.exit_code == 1
    assert "MISSED" in result.stdout


@pytest.mark.parametrize(("damage", "words"), [
    (lambda text: text[: len(text) // 2], "is not complete JSON"),
    (lambda text: text.replace('"n": 2', '"n": 3'), "a rank is missing"),
    (lambda text: "[]", "holds no recorded launch"),
])  # fmt: skip
def test_recorded_bad_input(run, short, damage, words):
    path = short / "mpi_n2_x.json"
    path.write_text(damage(path.read_text()))
    result = run("validate", "recorded", short, "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


def test_timeline(run):
    result = run("validate", "timeline", HOROVOD_RUNS / "tl_mpi_n2_cache.timeline.json.gz")
    assert result.exit_code == 0, result.stderr
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_a_timeline_with_another_threshold_disagrees(run):
    path = HOROVOD_RUNS / "tl_mpi_n2_cache.timeline.json.gz"
    result = run("validate", "timeline", path, "--fusion-threshold", "300B", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["missed"]


@pytest.mark.parametrize(("text", "words"), [
    ("not json", "error:"), ("", "error:"), ('{"a": 1}', "error:"), ("[1, 2]", "error:"),
])  # fmt: skip
def test_a_file_that_is_no_timeline(run, tmp_path, text, words):
    path = tmp_path / "timeline.json"
    path.write_text(text)
    result = run("validate", "timeline", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert str(path) in result.stderr


def test_ranks_that_the_recording_contradicts(run):
    result = run("validate", "timeline", HOROVOD_RUNS / "tl_mpi_n2_cache.timeline.json.gz", "--ranks", "7")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "7 ranks, but n in tl_mpi_n2_cache.json says 2" in result.stderr


def test_a_threshold_without_a_unit(run):
    result = run("validate", "timeline", HOROVOD_RUNS / "tl_mpi_n2_cache.timeline.json.gz", "--fusion-threshold", "64")
    assert result.exit_code == 2
    assert "--fusion-threshold" in result.stderr
