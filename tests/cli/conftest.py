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

ROOT = Path(__file__).parents[2]

TENSORS = """name,shape,dtype,layer,registration,ready
fc.bias,10,float32,fc,3,1000000ns
fc.weight,10x64,float32,fc,2,2000000ns
conv.bias,64,float32,conv,1,3500000ns
conv.weight,64x3x7x7,float32,conv,0,5000000ns
"""
SCENARIO = """ranks = 12
steps = 3
cluster = "summit"

[workload]
name = "small"
tensors = "small.csv"
forward = "3ms"
optimizer = "0.5ms"
batch = 32

[control_plane]
name = "cached"
"""

Run = Callable[..., Result]
Fresh = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A scenario of four tensors on two Summit nodes."""
    (tmp_path / "small.csv").write_text(TENSORS.replace("ns\n", "\n"))
    path = tmp_path / "small.toml"
    path.write_text(SCENARIO)
    return path


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
