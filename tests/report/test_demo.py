"""The demo's footnote: steps that snap to whole cycles, told where it shows and only there."""

from __future__ import annotations

import pytest

from coordsim.report.demo import Case, Demo, demo_text
from coordsim.report.tables import Page

FOOTNOTE = "* steps snap to whole cycles"
IDEAL_S = {6: 0.0951, 96: 0.0972}


def case(plane: str, ranks: int, step_s: float, cycle_s: float, groups: str = "none") -> Case:
    return Case("toy", plane, groups, ranks, step_s, 0.093, 0.093 / step_s, 0.01, 1.0, cycle_s)


def shown(steps_s: dict[int, float], cycle_s: float = 0.005, steady: bool = True, grows: bool = True) -> str:
    """The demo with ``steps_s`` for the coordinator, by ranks."""
    cases = [case("ideal", ranks, step_s if grows else 0.0951, 0.0) for ranks, step_s in IDEAL_S.items()]
    cases += [case("coordinator", ranks, step_s, cycle_s) for ranks, step_s in steps_s.items()]
    for groups in ("none", "layer"):
        cases += [case("cached", ranks, step_s + 0.0003, 0.001, groups) for ranks, step_s in IDEAL_S.items()]
    return demo_text(Demo("summit", 2, 0, tuple(cases), steady), Page())


def test_equal_steps_are_explained() -> None:
    """0.1 s at 6 and at 96 GPUs is 20 cycles, though jitter takes 2 ms more."""
    text = shown({6: 0.09999, 96: 0.10001})
    assert "  * steps snap to whole cycles (5 ms): all jitter here is persistent" in text.splitlines()
    marked = [line for line in text.splitlines() if " * " in line and FOOTNOTE not in line]
    assert [line.split()[0] for line in marked] == ["coordinator"]
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    "changes",
    [
        {"steps_s": {6: 0.09999, 96: 0.105}},  # another number of cycles
        {"steps_s": {6: 0.0977, 96: 0.0977}},  # between two cycles
        {"steps_s": {6: 0.1, 96: 0.1}, "steady": False},
        {"steps_s": {6: 0.1, 96: 0.1}, "grows": False},  # equal anyway
        {"steps_s": {6: 0.1, 96: 0.1}, "cycle_s": 0.0},
    ],
)
def test_nothing_is_explained_where_nothing_shows(changes: dict[str, object]) -> None:
    assert FOOTNOTE not in shown(**changes)  # type: ignore[arg-type]
