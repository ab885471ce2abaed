"""The command line in this process (quick), and in a fresh one (isolated)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from coordsim.cli import app
from tests.small import write_small

ROOT = Path(__file__).parents[2]

Run = Callable[..., Result]
Fresh = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A scenario of four tensors on two Summit nodes."""
    return write_small(tmp_path, "steps = 3")


@pytest.fixture
def run() -> Run:
    """Run the command line here; ``stdout``, ``stderr`` and ``exit_code`` of the result are apart."""

    def invoke(*arguments: str | Path) -> Result:
        return CliRunner().invoke(app, [str(each) for each in arguments], prog_name="coordsim")

    return invoke


@pytest.fixture
def fresh() -> Fresh:
    """Run the command line in its own process."""

    def start(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "coordsim", *map(str, arguments)]
        surroundings = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        return subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", env=surroundings, timeout=300, check=False
        )

    return start
