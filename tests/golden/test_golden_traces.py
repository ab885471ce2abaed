"""The same scenarios give the same nanoseconds as when they were written down, on any machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from coordsim.record.trace import difference
from coordsim.simulate import event, vector
from coordsim.simulate.problem import Problem
from tests.golden.traces import FILE, facts, scenarios

GOLDEN = json.loads(FILE.read_text())


@pytest.mark.parametrize("name", scenarios())
def test_trace_is_as_written_down(name: str) -> None:
    assert facts(vector.run(Problem(scenarios()[name]))) == GOLDEN[name]


@pytest.mark.long
def test_event_engine_gives_the_golden_trace_too() -> None:
    """The cheapest of those with a background loop; the others are checked when the file is written."""
    described = scenarios()["coordinator-4096"]
    trace = event.run(Problem(described))
    assert difference(trace, vector.run(Problem(described))) is None
    assert facts(trace) == GOLDEN["coordinator-4096"]


VARIABLES = [
    {"PYTHONHASHSEED": "1"},
    {"PYTHONHASHSEED": "77", "NUMBA_NUM_THREADS": "2"},
    {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
]


@pytest.mark.long
@pytest.mark.parametrize("variables", VARIABLES)
def test_same_bytes_in_other_processes(variables: dict[str, str]) -> None:
    """Hash seeds and thread counts do not reach the trace."""
    code = (
        "from tests.golden.traces import *\n"
        "print(vector.run(Problem(scenarios()['cached-4096'])).digest())\n"
        "print(event.run(Problem(scenarios()['ddp-4096'])).digest())"
    )
    root, environment = Path(__file__).parents[2], {**os.environ, **variables}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [GOLDEN["cached-4096"]["digest"], GOLDEN["ddp-4096"]["digest"]]
