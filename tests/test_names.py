"""Local variables say what they hold: none is called ``found``, ``told`` or ``each``, except in a comprehension."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
VAGUE = frozenset({"found", "told", "each"})
NOT_YET = frozenset(
    {
        "coordsim/analyse/advice.py",
        "coordsim/analyse/calibrate",
        "coordsim/analyse/explain.py",
        "coordsim/analyse/predict",
        "coordsim/analyse/rank_table.py",
        "coordsim/analyse/replay.py",
        "coordsim/analyse/step_kinds.py",
        "coordsim/analyse/validate",
        "coordsim/cli/advice.py",
        "coordsim/cli/calibrate.py",
        "coordsim/cli/export.py",
        "coordsim/cli/predict.py",
        "coordsim/cli/validate.py",
        "coordsim/errors.py",
        "coordsim/formats/horovod",
        "coordsim/protocol/execution.py",
        "coordsim/protocol/groups.py",
        "coordsim/protocol/negotiator",
        "coordsim/protocol/ranges.py",
        "coordsim/protocol/readiness.py",
        "coordsim/protocol/stall.py",
        "coordsim/protocol/startup.py",
        "coordsim/protocol/wire.py",
        "coordsim/record/breakdown.py",
        "coordsim/record/horovod_runs.py",
        "coordsim/record/manifest.py",
        "coordsim/record/measurement.py",
        "coordsim/record/ranks",
        "coordsim/record/store.py",
        "coordsim/report/answer",
        "coordsim/report/calibration.py",
        "coordsim/report/catalog.py",
        "coordsim/report/decisions.py",
        "coordsim/report/demo.py",
        "coordsim/report/doctor.py",
        "coordsim/report/export",
        "coordsim/report/imported.py",
        "coordsim/report/predict.py",
        "coordsim/report/published.py",
        "coordsim/report/tables.py",
        "coordsim/report/validation.py",
        "coordsim/scenario/catalog",
        "coordsim/scenario/checks.py",
        "coordsim/scenario/generators",
        "coordsim/scenario/layers.py",
        "coordsim/scenario/tables.py",
        "coordsim/scenario/tensors.py",
        "coordsim/scenario/timing.py",
        "coordsim/scenario/workloads.py",
        "coordsim/simulate/engine.py",
        "coordsim/simulate/event",
        "coordsim/simulate/timeline.py",
        "coordsim/simulate/vector",
        "real_backend/launches/rounds.py",
        "real_backend/measure/host.py",
    }
)
"""Files and folders that still have such names. Nothing is added here; a room is removed once it is done."""


def test_local_variables_say_what_they_hold() -> None:
    vague = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in _sources() if _room(path) not in NOT_YET for name, line in _vague_names(path.read_text())
    ]  # fmt: skip
    assert vague == []


def test_rooms_that_are_done_leave_the_list() -> None:
    """The list names only rooms that exist and still have a vague name."""
    waiting = {_room(path) for path in _sources() if any(_vague_names(path.read_text()))}
    assert sorted(NOT_YET - waiting) == []


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("def f(rows):\n    found = rows[0]\n    return found", ["found"]),
        ("def f(told):\n    return told", ["told"]),
        ("def f(rows):\n    for each in rows:\n        print(each)", ["each"]),
        ("f = lambda each: each", ["each"]),
        ("class A:\n    found: int", ["found"]),
        ("def f(rows):\n    return [each.name for each in rows]", []),
        ("def f(rows):\n    return {name: each for name, each in rows}", []),
        ("def f(rows):\n    return max((each for each in rows), key=lambda row: row.found)", []),
    ],
)
def test_only_names_that_are_bound_outside_comprehensions_count(source: str, names: list[str]) -> None:
    assert [name for name, _ in _vague_names(source)] == names


def _sources() -> list[Path]:
    return sorted(path for package in ("coordsim", "real_backend") for path in (ROOT / package).rglob("*.py"))


def _room(path: Path) -> str:
    """Return the folder two levels below the root that holds ``path``, or the file itself if it stands higher."""
    return "/".join(path.relative_to(ROOT).parts[:3])


def _vague_names(source: str) -> Iterator[tuple[str, int]]:
    """Yield each vague name that ``source`` binds outside of a comprehension, with its line."""
    tree = ast.parse(source)
    in_comprehensions = {
        id(node)
        for comprehension in ast.walk(tree) if isinstance(comprehension, ast.comprehension)
        for node in ast.walk(comprehension.target)
    }  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.arg in VAGUE:
            yield node.arg, node.lineno
        bound = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and id(node) not in in_comprehensions
        if bound and node.id in VAGUE:
            yield node.id, node.lineno
