"""`coordsim profile` with wrong input: one clear line, nothing started or written (real runs: tests/real_backend)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "what is to be recorded? Such as: coordsim profile -- torchrun"),
        (["--"], "what is to be recorded?"),
        (["--", "no-such-program", "x"], "no-such-program is no program that can be run from here"),
        (["--steps", "0", "--", "true"], "0 is too few; at least 1"),
        (["--out", "{tmp}/mine", "--", "true"], "exists and is not a run directory"),
        (["--out", "{tmp}/no/where", "--", "true"], "does not exist"),
    ],
)
def test_bad_input_is_one_error(run: Run, arguments: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    result = run("profile", *(each.format(tmp=tmp_path) for each in arguments))
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""
    assert [each.name for each in tmp_path.iterdir()] == ["mine"]


def test_without_torch_it_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordsim.cli.profile.find_spec", lambda _: None)
    result = run("profile", "--", "true")
    assert result.exit_code == 3
    assert "pip install 'coordsim[torch]'" in result.stderr


def test_a_folder_that_takes_no_files_is_one_error(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(**_: object) -> str:
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr("coordsim.cli.profile.tempfile.mkdtemp", full)
    result = run("profile", "--out", tmp_path / "run", "--", "true")
    assert result.exit_code == 3
    assert "Permission denied" in result.stderr


def test_options_of_the_command_need_no_dashes_before_it(run: Run, tmp_path: Path) -> None:
    result = run("profile", "--out", tmp_path / "run", "sh", "-c", "exit 4")
    assert result.exit_code == 4
    assert "ended with exit code 4 before anything was recorded: sh -c 'exit 4'" in result.stderr
