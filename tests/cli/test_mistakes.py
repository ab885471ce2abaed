"""Whatever a user gets wrong: one line each on stderr, exit 2, nothing on stdout, no traceback, no file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from coordsim.cli import guard
from coordsim.errors import EnvironmentProblem
from tests.cli.conftest import ROOT


def _refused(result, *words, code=2):
    assert result.exit_code == code
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr
    return result.stderr.splitlines()


FILE_MISTAKES = {
    "unknown key": ("rankz = 3\n", ["rankz", "did you mean 'ranks'?"]),
    "missing unit": ("cycle_time = 5\n", ["control_plane.cycle_time", "has no unit"]),
    "negative size": ('fusion_threshold = "-64MiB"\n', ["control_plane.fusion_threshold", "is negative"]),
    "capacity 0": ("cache_capacity = 0\n", ["control_plane.cache_capacity", "at least 1 for cached"]),
    "unknown tensor": ('groups = [["fc.bais"]]\n', ["control_plane.groups", "did you mean 'fc.bias'?"]),
}


@pytest.mark.parametrize("mistake", FILE_MISTAKES)
def test_a_mistake_in_a_file_names_file_and_key(run, small, mistake):
    line, words = FILE_MISTAKES[mistake]
    text = small.read_text()
    small.write_text(line + text if mistake == "unknown key" else text + line)
    (error,) = _refused(run("simulate", small, "--json"), *words)
    assert error.startswith(f"error: {small}: ")


FLAG_MISTAKES = {
    "zero ranks": (["--ranks", "0"], ["--ranks: ranks", "at least 1"]),
    "a billion ranks": (["--ranks", str(10**9)], ["--ranks: ranks", "out of this version's reach"]),
    "unknown control plane": (["--control-plane", "cachd"], ["did you mean 'cached'?"]),
    "planned control plane": (["--control-plane", "static"], ["is not modelled yet"]),
    "unknown workload": (["--workload", "resnet"], ["did you mean 'resnet50'?"]),
    "unknown engine": (["--engine", "vectr"], ["--engine", "did you mean 'vector'?"]),
    "partial nodes": (
        ["--ranks", "13", "--set", "cluster.data.allreduce=hierarchical"],
        ["not a multiple of 6", "12 and 18"],
    ),
    "capacity 0": (["--set", "control_plane.cache_capacity=0"], ["at least 1 for cached"]),
    "no key": (["--set", "steps"], ["is not key=value"]),
    "missing folder": (["--out", "nowhere/at/all/run"], ["--out", "does not exist"]),
    "event engine too small": (["--ranks", "16000000", "--engine", "event"], ["use the vector engine"]),
}


@pytest.mark.parametrize("mistake", FLAG_MISTAKES)
def test_a_mistake_on_the_command_line_names_its_flag(run, small, mistake):
    flags, words = FLAG_MISTAKES[mistake]
    (error,) = _refused(run("simulate", small, *flags), *words)
    assert error.startswith("error: ")


def test_every_mistake_has_its_own_line(run, small):
    errors = _refused(run("simulate", small, "--ranks", "0", "--steps", "-1", "--control-plane", "x"))
    assert len(errors) == 3
    assert all(error.startswith("error: ") for error in errors)


@pytest.mark.parametrize(
    "arguments",
    [
        ["simulat"],
        ["simulate", "--rank", "6"],
        ["simulate", "--ranks", "six"],
        ["catalog", "sow"],
        ["simulate", "a", "b"],
    ],
)
def test_usage_errors_exit_with_2(run, arguments):
    _refused(run(*arguments))


def test_an_unknown_catalog_entry_names_the_nearest(run):
    _refused(run("catalog", "show", "sumit"), "did you mean 'summit'?")


def test_a_foreign_directory_is_left_alone(run, small, tmp_path):
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter1.tex").write_text("years of work")
    _refused(run("simulate", small, "--out", foreign), "is not a run directory")
    assert [path.name for path in foreign.iterdir()] == ["chapter1.tex"]





def test_the_demo_makes_a_folder_but_not_its_parents(run, tmp_path):
    _refused(run("demo", "--out", tmp_path / "none" / "at all"), "--out", "cannot become one")
    (tmp_path / "file").write_text("")
    _refused(run("demo", "--out", tmp_path / "file"), "--out", "is no folder")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_zero_steps_in_the_demo_are_refused(run, tmp_path):
    _refused(run("demo", "--quick", "--steps", "0", "--out", tmp_path), "at least 1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("trouble", "code", "words"),
    [
        (EnvironmentProblem("torch is missing"), 3, "error: torch is missing"),
        (PermissionError(13, "Permission denied", "/root/x"), 3, "error: /root/x: Permission denied"),
        (MemoryError(), 3, "error: not enough memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_other_trouble_has_its_exit_code(run, small, monkeypatch, trouble, code, words):
    def fail(*_, **__):
        raise trouble

    monkeypatch.setattr("coordsim.record.store.write_run", fail)
    _refused(run("simulate", small, "--out", small.parent / "run"), words, code=code)


@pytest.mark.parametrize("delay_s", [0.05, 0.35, 0.6, 1.0])
def test_an_interrupted_run_leaves_nothing_behind(tmp_path, delay_s):
    """While it imports, compiles and simulates: numba crashes when an exception unwinds through it."""
    command = [sys.executable, "-m", "coordsim", "simulate", "--workload", "resnet50", "--control-plane",
               "coordinator", "--steps", "20000", "--out", str(tmp_path / "run")]  # fmt: skip
    surroundings = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=surroundings
    )
    assert process.stderr is not None
    first = process.stderr.readline()  # the note comes just before the engine starts
    assert first.startswith("note: ")
    interrupted(process, delay_s)
    assert list(tmp_path.iterdir()) == []


def interrupted(process, delay_s):
    """Ctrl-C after ``delay_s``: one word, and the exit code of an interrupt."""
    time.sleep(delay_s)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=300)
    assert (process.returncode, stdout) == (guard.INTERRUPTED, ""), stderr
    assert stderr.splitlines() == ["interrupted"]


@pytest.mark.parametrize("delay_s", [0.0, 2.0])
def test_an_interrupted_export_leaves_nothing_behind(tmp_path, run, delay_s):
    """While it simulates by events: it says so before, and no file is there after."""
    made = run("simulate", "--workload", "resnet50", "--ranks", "1000", "--steps", "3", "--out", tmp_path / "run")
    assert made.exit_code == 0, made.stderr
    command = [sys.executable, "-m", "coordsim", "export", str(tmp_path / "run"), "--to", "horovod", "--out",
               str(tmp_path / "t.json"), "--steps", "0:4"]  # fmt: skip
    surroundings = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=surroundings)
    assert process.stderr is not None
    first = process.stderr.readline()
    assert first.startswith("note: 4 steps of 1,000 ranks are run again by events, in some ")
    interrupted(process, delay_s)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_interrupted_while_a_file_is_written(tmp_path):
    """The handler ends the process without unwinding: half a file goes all the same."""
    script = (
        "import os, signal, pathlib, coordsim.cli.interrupt as interrupt\n"
        "from coordsim.record.files import whole_file\n"
        "interrupt.install()\n"
        "with whole_file(pathlib.Path('whole.json')) as fresh:\n"
        "    fresh.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (guard.INTERRUPTED, "interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_a_closed_pipe_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)  # the reader has gone before the first byte
    command = [sys.executable, "-m", "coordsim", "catalog", "show", "summit"]
    done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (guard.PIPE_CLOSED, "")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("name,bytes\na,-4\n", ["mine.csv: line 2.bytes: -4 must be at least 1"]),
        ("name,shape\na,4\na,4\n", ["mine.csv: line 3: tensor 'a' is already described in line 2"]),
        ("nmae,shape\na,4\n", ["line 1: 'nmae' is not a known column", "did you mean 'name'?"]),
        ("", ["mine.csv: line 1: is empty"]),
    ],
)
def test_a_mistake_in_a_list_of_tensors_names_file_and_line(run, tmp_path, rows, words):
    path = tmp_path / "mine.csv"
    path.write_text(rows)
    _refused(run("simulate", "--workload", path, "--out", tmp_path / "run"), *words)
    assert [each.name for each in tmp_path.iterdir()] == ["mine.csv"]
