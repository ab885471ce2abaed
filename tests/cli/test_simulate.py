"""``coordsim simulate``: what is printed where, and what is kept."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from coordsim import load_scenario
from coordsim.cli.request import Request
from coordsim.record.breakdown import PARTS
from coordsim.record.run import open_run
from coordsim.record.store import read_run
from coordsim.scenario.resolved import scenario_hash


def test_the_report_is_on_stdout_and_the_next_command_ends_stderr(run, small):
    result = run("simulate", small)
    assert result.exit_code == 0
    assert result.stdout.startswith("small on summit: 12 GPUs (2 nodes), cached; 3 steps, seed 0\n")
    for name in PARTS:
        assert f"\n  {name.replace('_', ' ')} " in result.stdout
    assert result.stderr == f"next: coordsim simulate {small} --explain\n"


def test_the_next_command_runs(run, small):
    command = run("simulate", small, "--set", "noise.rank.sigma=3%", "--seed", "4").stderr.splitlines()[-1]
    words = shlex.split(command.removeprefix("next: coordsim "))
    result = run(*words)
    assert result.exit_code == 0
    assert "without it" in result.stdout
    assert "seed 4" in result.stdout
    assert "change: " in result.stdout


def test_without_a_file_it_says_what_it_takes(run):
    result = run("simulate", "--ranks", "12", "--steps", "1")
    assert result.stderr.splitlines()[0] == "note: no scenario file; stemdl on summit, 12 GPUs, control plane cached"
    assert result.stdout.startswith("stemdl on summit: 12 GPUs")


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--explain"],
        ["--control-plane", "coordinator", "--explain", "--set", "noise.step.sigma=20%"],
        ["--control-plane", "ideal", "--explain"],
        ["--control-plane", "hierarchical", "--explain", "--set", "noise.rank.sigma=0"],
        ["--ranks", "1", "--explain"],
        ["--ranks", "27600", "--control-plane", "point-to-point", "--workload", "resnet50", "--explain"],
        ["--groups", "layer", "--steps", "1"],
        ["--set", 'control_plane.groups=[["fc.bias","fc.weight"]]'],
    ],
)
def test_a_report_never_passes_80_columns_nor_40_lines(run, small, flags):
    result = run("simulate", small, *flags)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 40
    assert "\x1b" not in result.stdout


def test_json_and_nothing_else_on_stdout(run, small):
    result = run("simulate", small, "--json", "--explain")
    assert json.loads(result.stdout)["ranks"] == 12
    assert result.stdout == json.dumps(json.loads(result.stdout), indent=2) + "\n"


def test_same_command_same_bytes_in_any_process(fresh, small):
    first, second = (
        fresh("simulate", small, "--json", "--explain", "--set", "noise.step.sigma=3%", PYTHONHASHSEED=seed)
        for seed in ("1", "2")
    )
    assert first.returncode == second.returncode == 0

    def clean(text: str) -> str:
        return "\n".join(line for line in text.splitlines() if '"engine_wall_s"' not in line)

    assert clean(first.stdout) == clean(second.stdout)
    assert first.stderr == second.stderr


def test_a_kept_run_reads_back_and_never_differs(run, small, tmp_path):
    kept = [tmp_path / name for name in ("one", "two")]
    for path in kept:
        result = run("simulate", small, "--out", path)
        assert result.exit_code == 0
        assert f"kept in {path}\n" in result.stderr
    for name in ("manifest.json", "trace.npz"):
        assert (kept[0] / name).read_bytes() == (kept[1] / name).read_bytes()
    trace = read_run(kept[0]).trace
    manifest = json.loads((kept[0] / "manifest.json").read_text())
    assert trace.steps["step"].tolist() == [0, 1, 2, 3]
    assert manifest["scenario_sha256"] == scenario_hash(load_scenario(small))
    assert manifest["scenario"]["ranks"] == 12
    assert set(manifest) == {"scenario", "scenario_sha256", "engine", "version", "schema", "blocking", "trace_sha256"}


def test_an_earlier_run_is_replaced(run, small, tmp_path):
    for seed in ("1", "2"):
        assert run("simulate", small, "--seed", seed, "--out", tmp_path / "run").exit_code == 0
    assert open_run(tmp_path / "run").facts.simulated.scenario["seed"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "small.csv", "small.toml"]


def test_both_engines_print_the_same(run, small):
    event, vector = (
        json.loads(run("simulate", small, "--json", "--engine", engine).stdout) for engine in ("event", "vector")
    )
    for facts in (event, vector):
        del facts["engine_wall_s"], facts["engine"]
    assert event == vector


def test_a_recommended_change_is_a_command_with_that_very_effect(run):
    job = ["--workload", "resnet50", "--ranks", "6000", "--steps", "2"]
    result = run("simulate", *job, "--control-plane", "coordinator", "--explain")
    command = result.stderr.splitlines()[-1].removeprefix("next: coordsim ")
    after = json.loads(run(*shlex.split(command), "--json").stdout)
    assert "--control-plane cached" in command
    told = " ".join(result.stdout.split())
    assert f"brings the step to {after['step_time_s']['mean'] * 1e3:.4g} ms" in told


def test_a_request_prints_as_the_command_that_asks_for_it():
    asked = Request(Path("my job.toml"), ranks=6, overrides=("a.b=1 s",)).changed(groups="layer", override="steps=2")
    assert asked.command("--explain") == (
        "coordsim simulate 'my job.toml' --ranks 6 --groups layer --set 'a.b=1 s' --set steps=2 --explain"
    )


def test_a_list_of_tensors_is_a_workload_in_one_line(run, tmp_path):
    (tmp_path / "mine.csv").write_text("name,shape\nconv.weight,64x3x7x7\nfc.weight,1000x2048\nfc.bias,1000\n")
    result = run("simulate", "--workload", tmp_path / "mine.csv", "--ranks", "12", "--steps", "1")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("mine on summit: 12 GPUs (2 nodes), cached; 1 step")
    assert "mine says no backward time; assumed: 100 ms" in " ".join(result.stdout.split())
    command = shlex.split(result.stderr.splitlines()[-1].removeprefix("next: coordsim "))
    assert run(*command).exit_code == 0


def test_a_global_batch_is_a_strong_scaling_question(run):
    """The same 1,024 samples on four times the GPUs: a quarter of them each."""
    arguments = ["simulate", "--workload", "resnet50", "--cluster", "dgx-1", "--steps", "2", "--json", "--global-batch",
                 "1024", "--ranks"]  # fmt: skip
    few, many = (json.loads(run(*arguments, ranks).stdout) for ranks in ("8", "32"))
    assert (few["scenario"]["workload"]["batch"], many["scenario"]["workload"]["batch"]) == (128, 32)
    assert many["step_time_s"]["mean"] < few["step_time_s"]["mean"]
