"""Horovod's format: read back by our reader of real timelines, and judged as those are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from coordsim.analyse.validate.decisions import compare_decisions
from coordsim.errors import InputError
from coordsim.record.ranks import read_folder
from coordsim.record.timeline import EventKind, TimelineReader
from coordsim.report.export import export_run
from tests.record.export.runs import NAMES, store


def test_a_real_run_round_trips(recorded: Path, tmp_path: Path) -> None:
    done = export_run(recorded, "horovod", tmp_path / "t.json", None, 100_000)
    reader = TimelineReader(tmp_path / "t.json")
    events = list(reader)
    assert reader.lost is None
    assert done.what.startswith("6 steps")
    kinds = Counter((each.kind, each.tensor) for each in events)
    for name in NAMES:
        assert kinds[EventKind.NEGOTIATE, name] == kinds[EventKind.AGREED, name] == 5
        assert kinds[EventKind.OPERATION, name] == kinds[EventKind.OPERATION_END, name] == 5
        assert kinds[EventKind.TICK, name] == 3, "a tick a rank, of the slow cycle"
    ended = {each.tensor: (each.dtype, each.shape) for each in events if each.kind is EventKind.OPERATION_END}
    assert ended[NAMES[1]] == ("float32", (9,))
    assert kinds[EventKind.CYCLE, ""] == len({cycle.cycle for each in read_folder(recorded) for cycle in each.cycles})


def test_the_protocol_decides_as_the_exported_timeline_says(recorded: Path, tmp_path: Path) -> None:
    export_run(recorded, "horovod", tmp_path / "t.json", None, 100_000)
    found = compare_decisions(tmp_path / "t.json")
    assert found.settings.ranks.value == 3
    assert all(step.recorded == step.predicted for step in found.steps)


def test_a_simulated_run_is_run_again(simulated: Path, tmp_path: Path) -> None:
    done = export_run(simulated, "horovod", tmp_path / "t.json", None, 100_000)
    assert done.what.startswith("4 steps")
    found = compare_decisions(tmp_path / "t.json")
    assert all(step.recorded == step.predicted for step in found.steps)


@pytest.mark.parametrize("limit", [100, 200, 300, 900])
@pytest.mark.parametrize("which", ["recorded", "simulated"])
def test_bounded(which: str, limit: int, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    run = request.getfixturevalue(which)
    if which == "simulated" and limit < 290:
        with pytest.raises(InputError, match="--max-events"):
            export_run(run, "horovod", tmp_path / "t.json", None, limit)
        return
    done = export_run(run, "horovod", tmp_path / "t.json", None, limit)
    reader = TimelineReader(tmp_path / "t.json")
    for _ in reader:
        pass
    assert reader.events <= limit
    assert bool(done.left_out) is (limit < (300 if which == "recorded" else 900))


def test_what_has_no_timeline_says_so(tmp_path: Path) -> None:
    run = store(tmp_path / "run", ranks=1)
    with pytest.raises(InputError, match="a timeline is for 2 to 4,096 ranks"):
        export_run(run, "horovod", tmp_path / "t.json", None, 100_000)
