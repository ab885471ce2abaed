"""``coordsim export``: one line about the file, notes about what is not in it, one line about a mistake."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.formats.conftest import recorded, simulated

__all__ = ["recorded", "simulated"]


@pytest.mark.parametrize("to", ["perfetto", "chrome", "goal", "chakra", "horovod"])
def test_one_line_and_a_next_command(to: str, run: Run, simulated: Path, tmp_path: Path) -> None:
    result = run("export", simulated, "--to", to, "--out", tmp_path / "file")
    assert result.exit_code == 0, result.stderr
    assert len(result.stdout.splitlines()) == 1
    assert result.stdout.startswith(f"{tmp_path / 'file'}: ")
    assert result.stderr.splitlines()[-1].startswith("next: coordsim ")
    assert all(line.startswith(("note: ", "next: ")) for line in result.stderr.splitlines())
    assert list(tmp_path.iterdir())


def test_named_after_the_run(run: Run, simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("export", simulated, "--to", "chrome")
    run("export", simulated, "--to", "chakra")
    assert sorted(os.listdir(tmp_path)) == ["run.0.et", "run.1.et", "run.2.et", "run.3.et", "run.chrome.json"]


def test_size_limits_are_said(run: Run, recorded: Path, tmp_path: Path) -> None:
    result = run("export", recorded, "--to", "chrome", "--out", tmp_path / "t", "--max-events", "20")
    assert "note: left out for size: " in result.stderr
    assert result.stdout.startswith(f"{tmp_path / 't'}: 20 events")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/none", "--to", "chrome"], "no folder with ranks' records"),
        (["{run}", "--to", "chrome", "--steps", "4"], 'needs the form "A:B"'),
        (["{run}", "--to", "chrome", "--steps", "50:60"], "has none of these steps; it has 0:4"),
        (["{run}", "--to", "chrome", "--out", "{tmp}/no/file"], "does not exist"),
        (["{run}", "--to", "chrome", "--out", "{tmp}"], "is a folder; name a file"),
        (["{run}", "--to", "goal", "--max-events", "3"], "operations or more"),
        (["{run}", "--to", "horovod", "--steps", "1:3"], "begins with the run: use 0:B"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    run: Run, simulated: Path, tmp_path: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("export", *(each.format(run=simulated, tmp=tmp_path) for each in arguments))
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""
    assert not list(tmp_path.iterdir())


def test_a_format_that_there_is_not(run: Run, simulated: Path) -> None:
    result = run("export", simulated, "--to", "vampir")
    assert result.exit_code == 2
    assert "perfetto" in result.stderr
