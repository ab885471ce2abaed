"""GOAL: parsed by our grammar, replayed to an end; says what it leaves out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from coordsim.cost.goal import parse
from coordsim.cost.network import LogGP
from coordsim.errors import InputError
from coordsim.record.ranks import merge
from coordsim.record.run_facts import RunKind
from coordsim.record.store import write_run
from coordsim.report.export import export_run
from coordsim.simulate.goal import goal_of
from tests.formats.runs import store
from tests.oracles.replay import replay
from tests.scenarios import CLUSTER, PLANE, scenario


@pytest.mark.parametrize("plane", ["cached", "coordinator", "hierarchical", "point-to-point"])
def test_the_cycle_of_the_runs_control_plane(plane: str, tmp_path: Path) -> None:
    control = replace(PLANE, name=plane)
    run = store(tmp_path / "run", ranks=5, control_plane=control)
    done = export_run(run, "goal", tmp_path / "t.goal", None, 10_000)
    text = (tmp_path / "t.goal").read_text()
    found = parse(text)
    assert found == goal_of(scenario(ranks=5, control_plane=control), warm=plane == "cached")
    network = LogGP.of(CLUSTER)
    assert all(end > 0 for end in replay(found, network))
    assert text.startswith("// left out: ")
    assert len(done.left_out) >= 2


def test_bounded(simulated: Path, tmp_path: Path) -> None:
    for limit in (3, 16 - 1):
        with pytest.raises(InputError, match="--max-events"):
            export_run(simulated, "goal", tmp_path / "t.goal", None, limit)


def test_a_run_directory_of_a_real_run_is_refused(recorded: Path, tmp_path: Path) -> None:
    """It keeps what was agreed on, not what each rank submitted."""
    found = merge(recorded)
    write_run(tmp_path / "run", found.trace, found.facts)
    with pytest.raises(InputError, match="keeps neither ranks' records nor a scenario; export the folder of records"):
        export_run(tmp_path / "run", "goal", tmp_path / "t.goal", None, 1000)
    imported = replace(found.facts, kind=RunKind.IMPORTED, imported={"format": "kineto"})
    write_run(tmp_path / "imported", found.trace, imported)
    with pytest.raises(InputError, match=r"was imported \(kineto\): it has neither ranks' records nor a scenario"):
        export_run(tmp_path / "imported", "goal", tmp_path / "t.goal", None, 1000)
    assert not (tmp_path / "t.goal").exists()
