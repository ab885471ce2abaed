"""The public names, and what importing them costs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import coordsim

ROOT = Path(__file__).parents[1]
HEAVY = ("numpy", "numba", "pandas", "simpy", "pydantic", "matplotlib", "scipy", "rich", "typer", "torch")


def python(code: str, cwd: Path = ROOT) -> str:
    """What a fresh interpreter prints; warnings are errors there too."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=cwd, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", coordsim.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(coordsim, name) is not None
    namespace: dict[str, object] = {}
    exec(f"from coordsim import {name}", namespace)
    assert namespace[name] is getattr(coordsim, name)


def test_no_other_names() -> None:
    with pytest.raises(AttributeError, match="'coordsim' has no attribute 'Scenari'"):
        _ = coordsim.Scenari
    assert sorted(coordsim.__all__) == coordsim.__all__
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", coordsim.__version__)


def test_the_names_are_those_of_their_homes() -> None:
    from coordsim.errors import InputError, Refused
    from coordsim.record.trace import Trace
    from coordsim.scenario import Scenario
    from coordsim.simulate.engine import Simulation

    assert (coordsim.InputError, coordsim.Refused) == (InputError, Refused)
    assert (coordsim.Trace, coordsim.Scenario, coordsim.Simulation) == (Trace, Scenario, Simulation)


@pytest.mark.parametrize("first", ["", "import coordsim.simulate.engine", "from coordsim.simulate import event, vector",
                                   "import coordsim.simulate"])  # fmt: skip
def test_simulate_is_the_function_whatever_was_imported_before(first: str) -> None:
    """``coordsim.simulate`` is a package too."""
    code = f"{first}\nfrom coordsim import Scenario, simulate\nprint(callable(simulate), Scenario.__name__)"
    assert python(code) == "True Scenario"


def test_simulate_stays_the_function_whatever_is_imported_after() -> None:
    code = (
        "import coordsim\n"
        "import coordsim.simulate.engine, coordsim.cli, coordsim.analyse.explain\n"
        "from coordsim.simulate import engine, vector\n"
        "print(callable(coordsim.simulate), callable(engine.simulate), coordsim.simulate is engine.simulate)"
    )
    assert python(code) == "True True False"


def test_importing_coordsim_is_light() -> None:
    code = f"import sys, coordsim; print([name for name in {HEAVY} if name in sys.modules])"
    assert python(code) == "[]"


def test_the_list_of_heavy_packages_is_not_out_of_date() -> None:
    """Simulating does load some; else the test above would look for names that nobody uses."""
    code = f"import sys, coordsim.simulate.engine; print([name for name in {HEAVY} if name in sys.modules])"
    assert "numpy" in python(code)


JOB = """\
ranks = 12
steps = 2
workload = "resnet50"
cluster = "summit"

[control_plane]
name = "cached"
cycle_time = "1ms"
"""

FIVE_LINES = """\
from coordsim import Scenario, simulate

result = simulate(Scenario.load("job.toml"))
print(result.steps)
print(result.breakdown())
"""


def test_five_lines(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(JOB)
    printed = python(FIVE_LINES, tmp_path)
    assert "step_time_ns" in printed
    assert "'straggler_wait': " in printed


def test_the_python_page_says_the_same(tmp_path: Path) -> None:
    """Its Python and its scenario run as they stand, but for the number of ranks."""
    page = (ROOT / "docs/reference/python.md").read_text()
    blocks = dict(reversed(re.findall(r"```(python|toml)\n(.*?)```", page, re.DOTALL)))  # the first one of each
    job, replaced = re.subn(r"(?m)^ranks = .*$", "ranks = 12\nsteps = 2", blocks["toml"])
    assert replaced == 1
    (tmp_path / "job.toml").write_text(job)
    assert "'straggler_wait': " in python(blocks["python"], tmp_path)


def test_wrapper_passes_everything_on() -> None:
    from tests.scenarios import scenario

    calls: list[tuple[int, int]] = []
    found = coordsim.simulate(scenario(2, 1), "vector", progress=lambda done, total: calls.append((done, total)))
    assert isinstance(found, coordsim.Simulation)
    assert calls == [(1, 2), (2, 2)]
    assert coordsim.simulate(scenario(2, 1), debug=True).engine == "event"
    with pytest.raises(coordsim.InputError, match="no engine"):
        coordsim.simulate(scenario(2, 1), "fast")
