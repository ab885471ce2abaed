"""``coordsim import``: other tools' recordings as runs, workloads and clusters."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.formats.gloo_bench.test_gloo_benchmark import TABLE as GLOO
from tests.formats.nccl_debug.test_nccl_debug import TIMINGS
from tests.formats.nccl_inspector.test_nccl_inspector import RELEASE
from tests.formats.nccl_tests.test_nccl_tests import TABLE
from tests.formats.torch_files import CHAKRA, FLIGHT, KINETO
from tests.timelines import REAL

SOURCES = {
    "horovod": (REAL[2],), "kineto": KINETO, "flight-recorder": FLIGHT, "chakra": CHAKRA, "nccl-tests": (TABLE,),
    "gloo-benchmark": (GLOO,), "nccl-inspector": RELEASE, "nccl-debug": (TIMINGS,),
}  # fmt: skip


def folder(path: Path, *files: Path) -> Path:
    path.mkdir()
    for file in files:
        shutil.copy(file, path)
    return path


@pytest.mark.parametrize("form", SOURCES)
@pytest.mark.parametrize("named", [False, True])
def test_every_source_from_a_folder(run: Run, form: str, named: bool, tmp_path: Path) -> None:
    source = folder(tmp_path / "job", *SOURCES[form])
    result = run("import", source, *(["--format", form] if named else []))
    assert result.exit_code == 0
    assert result.stdout.startswith(f"job: {form}")
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "what this source cannot tell" in result.stdout
    found = json.loads(run("import", source, "--json").stdout)
    assert found["format"] == form
    assert sorted(found["files"]) == sorted(each.name for each in SOURCES[form])
    assert found["unknown"]


@pytest.mark.parametrize("form", ["horovod", "kineto", "flight-recorder", "chakra"])
def test_every_workload_simulates(run: Run, form: str, tmp_path: Path) -> None:
    source = folder(tmp_path / "job", *SOURCES[form])
    assert run("import", source, "--out", tmp_path / "mine.csv").exit_code == 0
    assert run("simulate", "--workload", tmp_path / "mine.csv", "--ranks", 12, "--steps", 1).exit_code == 0


def test_profiled_ranks_become_a_run_that_report_reads(run: Run, tmp_path: Path) -> None:
    made = run("import", folder(tmp_path / "job", *KINETO), "--out", tmp_path / "run")
    assert made.exit_code == 0
    found = json.loads(run("report", tmp_path / "run", "--json").stdout)
    assert (found["ranks"], found["steps"], found["first_step"]) == (2, 5, 3)
    known = sum(value for value in found["breakdown_s"].values() if value is not None)
    assert known == pytest.approx(found["step_time_s"]["mean"], rel=1e-9)
    assert found["control"]["cycles_per_step"] is None
    screen = run("report", tmp_path / "run")
    assert "cycles and requests are not known" in " ".join(screen.stdout.split())
    assert max(map(len, screen.stdout.splitlines())) <= 80


@pytest.mark.parametrize(("table", "bus_Bps"), [(TABLE, 20_400_000_000), (GLOO, round(1.5 * 1.739 * 2**30))])
def test_a_measured_cluster_simulates(run: Run, table: Path, bus_Bps: int, tmp_path: Path) -> None:
    assert run("import", table, "--out", tmp_path / "mine.toml").exit_code == 0
    onto = ("--cluster", "summit", "--workload", "resnet50", "--steps", 1, *(("--ranks", 6) if table == GLOO else ()))
    result = run("simulate", tmp_path / "mine.toml", *onto, "--json")
    found = json.loads(result.stdout)["scenario"]
    assert found["cluster"]["data"]["bus_bandwidth_Bps"] == pytest.approx(bus_Bps, rel=1e-6)
    assert found["ranks"] == (6 if table == GLOO else 4)


def test_a_folder_of_several_kinds_names_the_odd_one(run: Run, tmp_path: Path) -> None:
    result = run("import", folder(tmp_path / "job", REAL[0], KINETO[0]))
    assert result.exit_code == 2
    assert "(kineto: kineto_rank0.json.gz; horovod: tl_gloo_n4_cache.timeline.json.gz)" in result.stderr
    assert "choose one with --format kineto or --format horovod" in result.stderr


def test_two_runs_timelines_in_one_folder(run: Run, tmp_path: Path) -> None:
    result = run("import", folder(tmp_path / "job", REAL[0], REAL[1]))
    assert result.exit_code == 2
    assert "both count requests, as only rank 0's timeline does" in result.stderr


def test_views_of_other_ranks_beside_rank_0s(run: Run, tmp_path: Path) -> None:
    """The same operations without ticks, as a rank that is no coordinator would see them."""
    events = [each for each in json.loads(_whole(REAL[1])) if each["ph"] != "X"]
    source = folder(tmp_path / "job", REAL[1])
    (source / "timeline_1.json").write_text(json.dumps(events))
    found = json.loads(run("import", source, "--json").stdout)
    assert set(found["found"]["collective_s_by_file"]) == {REAL[1].name, "timeline_1.json"}
    assert found["found"]["ranks"] == 2
    assert "not aligned" in found["unknown"]["clocks"]
    (source / "timeline_2.json").write_text(json.dumps(events))
    assert "3 timelines of a job of 2 ranks" in run("import", source).stderr
    (source / "timeline_2.json").write_text(json.dumps(events).replace("small.0", "tall.0"))
    assert "other tensors, or other steps" in run("import", source).stderr


def _whole(path: Path) -> str:
    text = gzip.decompress(path.read_bytes()).decode()
    return text if text.endswith("]") else text + "]"


def test_names_in_a_trace_are_never_paths(run: Run, tmp_path: Path) -> None:
    text = _whole(REAL[2]).replace("allreduce.small.0", f"{tmp_path}/../evil\\n=cmd|x")
    (tmp_path / "t.json").write_text(text)
    before = sorted(tmp_path.parent.rglob("*evil*"))
    assert run("import", tmp_path / "t.json", "--out", tmp_path / "mine.csv").exit_code == 0
    assert sorted(tmp_path.parent.rglob("*evil*")) == before
    assert len((tmp_path / "mine.csv").read_text().splitlines()) == 162


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
    assert set(found) == {"schema", "format", "files", "found", "unknown", "not_read", "gives", "out"}
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
