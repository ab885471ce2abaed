"""How large a function may be, and what no function may ask: read from the sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from coordsim.protocol.planes import PLANES

ROOT = Path(__file__).resolve().parents[1]
MOST_LINES = 60
MOST_PARAMETERS = 8
"""Without ``self`` and ``cls``."""

ALLOWED = {
    "coordsim/cli/simulate.py simulate": "a verb's parameters are its options",
    "real_backend/optimizer/distributed.py DistributedOptimizer": "its keywords are those of Horovod's",
    "coordsim/analyse/predict/intervals.py predict": "its keywords are what the verb's options change",
    "coordsim/cli/predict.py predict": "a verb's parameters are its options",
    "coordsim/simulate/shared_cores/kernel.py shared_cores": "one loop over events, still to be split into steps",
    "coordsim/simulate/shared_cores/kernel.py _may_begin": "as shared_cores: its arrays are to become named tuples",
}
"""Functions beyond the limits, each with the reason. The list may only shrink."""
NAMESAKES = {
    "coordsim/cost/collectives.py", "coordsim/scenario/checks.py",  # an allreduce that is hierarchical
    "coordsim/record/measurement.py",  # kinds of measurements
}  # fmt: skip
"""Modules that compare with a string that is a control plane's name as well, and means something else there."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources() -> Iterator[tuple[str, ast.Module]]:
    """(path from the root, syntax tree) of every module of the product."""
    for package in ("coordsim", "real_backend"):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


def parameters(function: Function) -> int:
    """How many arguments there are to know about before calling it."""
    said = function.args
    named = [each.arg for each in (*said.posonlyargs, *said.args, *said.kwonlyargs) if each.arg not in ("self", "cls")]
    return len(named) + bool(said.vararg) + bool(said.kwarg)


def lines(function: Function) -> int:
    """From its ``def`` to its last line, docstring and comments included."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def test_no_function_is_longer_than_a_screen_or_takes_more_than_eight_parameters() -> None:
    beyond = {
        f"{path} {node.name}": f"{lines(node)} lines, {parameters(node)} parameters"
        for path, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, Function) and (lines(node) > MOST_LINES or parameters(node) > MOST_PARAMETERS)
    }
    assert {where: size for where, size in beyond.items() if where not in ALLOWED} == {}
    assert sorted(set(ALLOWED) - set(beyond)) == [], "these are within the limits now: take them off the list"


def strings(node: ast.expr) -> set[str]:
    """Constants that one side of a comparison is, or lists."""
    parts = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
    return {each.value for each in parts if isinstance(each, ast.Constant) and isinstance(each.value, str)}


def test_nobody_asks_for_a_control_planes_name() -> None:
    """What differs between planes is a trait of theirs, or stands in an engine's table (docs/architecture.md)."""
    asked = [
        f"{path}:{node.lineno}"
        for path, tree in sources()
        for node in ast.walk(tree)
        if path not in NAMESAKES
        and isinstance(node, ast.Compare)
        and any(strings(side) & set(PLANES) for side in (node.left, *node.comparators))
    ]
    assert asked == []
