"""Verbs, options and JSON keys are frozen: changing one breaks somebody's script, and this test."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib

import pytest
import typer

from coordsim import __version__
from coordsim.cli import app
from coordsim.cli.doctor import REQUIRED
from coordsim.cli.guard import VERBS
from coordsim.formats.table import FORMATS
from tests.cli.conftest import ROOT

OPTIONS = {
    "demo": {"--out", "--steps", "--json", "--quick"},
    "simulate": {
        "scenario", "--cluster", "--workload", "--ranks", "--control-plane", "--groups", "--steps", "--seed",
        "--batch", "--global-batch", "--rate",
        "--engine", "--explain", "--set", "--json", "--out",
    },
    "calibrate": {"run", "--ranks", "--quick", "--backend", "--from", "--base", "--out", "--json"},
    "validate": set(),
    "validate recorded": {"dir", "--fit", "--cores", "--json"},
    "validate timeline": {"file", "--ranks", "--cache-capacity", "--fusion-threshold", "--json"},
    "validate published": {"--json"},
    "profile": {"command", "--steps", "--out", "--then-stop", "--json"},
    "report": {"run", "--steps", "--ranks", "--json", "--out"},
    "predict": {
        "run", "--ranks", "--cluster", "--control-plane", "--groups", "--batch", "--global-batch", "--recorded-batch",
        "--fixed", "--input-law", "--steps", "--set", "--json", "--out",
    },
    "validate here": {"--ranks", "--out", "--quick", "--json"},
    "validate scale": {"--out", "--quick", "--json"},
    "export": {"run", "--to", "--out", "--steps", "--max-events"},
    "import": {"source", "--format", "--out", "--table", "--json"},
    "catalog": {"--json", "--schema"},
    "catalog show": {"name", "--json"},
    "doctor": {"--json"},
}  # fmt: skip
HEAVY = ("torch", "scipy", "pandas", "matplotlib", "numba", "numpy", "simpy")


def _command(words):
    command = typer.main.get_command(app)
    for word in words.split():
        command = command.commands[word]
    return command


def test_verbs_are_frozen():
    root = _command("")
    verbs = {
        "demo", "simulate", "profile", "import", "report", "calibrate", "predict", "validate", "export", "catalog",
        "doctor",
    }  # fmt: skip
    assert set(root.commands) == set(VERBS) == verbs
    assert set(_command("validate").commands) == {"here", "scale", "recorded", "timeline", "published"}
    assert set(_command("catalog").commands) == {"show"}
    assert {flag for each in root.params for flag in each.opts} == {"--version"}


@pytest.mark.parametrize("words", OPTIONS)
def test_options_are_frozen(words):
    assert {flag for each in _command(words).params for flag in each.opts} == OPTIONS[words]


@pytest.mark.parametrize("words", ["", *OPTIONS])
def test_help_fits_a_terminal_and_names_every_option(run, words):
    result = run(*words.split(), "--help")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "..." not in re.sub(r"(\[ARGS\]|\[COMMAND\]|\{?RUN\}?)\.\.\.", "", result.stdout), "a summary was cut short"
    for flag in OPTIONS.get(words, ()):
        assert flag in result.stdout or flag.upper() in result.stdout.upper()


def test_the_help_of_import_and_its_page_name_every_format(run):
    """The help is written by hand: the table of formats imports numpy, which no page of help may."""
    shown = " ".join(run("import", "--help").stdout.split())
    page = (ROOT / "docs" / "import.md").read_text()
    for name in FORMATS:
        assert re.search(rf"[ ,]{re.escape(name)}[,;]", shown), name
        assert f"[`{name}`](formats/{name}.md)" in page


@pytest.mark.parametrize("words", ["--help", "--version", *(f"{words} --help" for words in OPTIONS)])
def test_help_is_light(words):
    """None of the heavy packages is imported to print a page of text."""
    code = (
        "import sys\n"
        "from coordsim.cli import main\n"
        "sys.argv[1:] = sys.argv[1].split()\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "print(loaded, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, words], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_version(run):
    assert run("--version").stdout == f"coordsim {__version__}\n"


def test_doctor_asks_for_what_the_project_file_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = dict(each.split(",")[0].split(">=") for each in project["dependencies"])
    assert wanted == REQUIRED


PLAIN = {
    "schema", "scenario", "ranks", "steps", "seed", "engine", "first_step_s", "step_time_s", "scaling_efficiency",
    "baseline_ranks", "samples_per_s", "sustained_flops", "breakdown_s", "explain", "assumptions", "control",
    "allocation", "engine_wall_s",
}  # fmt: skip
NESTED = {
    "step_time_s": {"mean", "median", "p05", "p95", "min", "max"},
    "breakdown_s": {
        "input_stall", "forward", "backward", "straggler_wait", "cycle_wait", "control_exchange", "control_work",
        "fusion_copy", "exposed_collective", "optimizer",
    },
    "control": {
        "cycles_per_step", "slow_cycles_per_step", "requests_per_step", "coordinator_bytes_per_step",
        "exchanges_per_step", "responses_per_step",
    },
    "allocation": {
        "node_hours_per_1000_steps", "node_hours_per_million_samples", "kwh_per_1000_steps",
        "kwh_by_phase_per_1000_steps", "kwh_by_component_per_1000_steps", "mean_power_kw", "staging_s",
        "staged_bytes_per_node", "staging_fits", "staging_node_hours", "staging_kwh",
        "node_hours_of_1000_steps_and_staging",
    },
}  # fmt: skip


def test_simulate_json_has_the_keys_of_the_design(run, small):
    found = json.loads(run("simulate", small, "--json").stdout)
    assert set(found) == PLAIN
    assert found["schema"] == "coordsim.simulation/1"
    assert found["explain"] is None
    assert {key: set(found[key]) for key in NESTED} == NESTED
    assert list(found["breakdown_s"]) == [
        "input_stall", "forward", "backward", "straggler_wait", "cycle_wait", "control_exchange", "control_work",
        "fusion_copy", "exposed_collective", "optimizer",
    ]  # fmt: skip
    assert sum(found["breakdown_s"].values()) == pytest.approx(found["step_time_s"]["mean"])


def test_explain_json_tells_step_and_saving_of_each_cause(run, small):
    found = json.loads(run("simulate", small, "--json", "--explain").stdout)["explain"]
    assert set(found) == {"control_plane", "jitter", "collectives", "fusion_copies"}
    assert all(set(each) == {"step_time_s", "saves", "saves_kwh_per_1000_steps"} for each in found.values())
