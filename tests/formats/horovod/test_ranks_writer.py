"""Horovod's format: read back by our reader of real timelines, and judged as those are."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from coordsim.analyse.validate.decisions import compare_decisions
from coordsim.cost.network import LogGP
from coordsim.errors import InputError
from coordsim.formats.horovod import EventKind, TimelineReader
from coordsim.record.ranks import read_folder
from coordsim.report.export import export_run
from coordsim.report.export import simulated as slow
from coordsim.simulate.engine import simulate
from tests.formats.runs import NAMES, store
from tests.scenarios import PLANE, scenario


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


class Heard:
    """What a watch was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int, int]] = []
        self.title = ""

    def begin(self, title: str) -> None:
        self.title = title

    def update(self, done: int, total: int) -> None:
        self.told.append((self.title, done, total))


def test_steps_that_would_take_long_are_left_out_unless_asked_for(
    simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow, "PATIENT_S", 1)
    monkeypatch.setattr(slow, "MESSAGES_A_S", 0.001)
    said: list[str] = []
    done = export_run(simulated, "horovod", tmp_path / "t.json", None, 100_000, said.append)
    assert done.what.startswith("2 steps")
    (left_out,) = done.left_out
    assert re.fullmatch(r"left out for time: 2 steps; --steps 0:4 takes them, in some [\d,]+ min", left_out)
    assert re.fullmatch(r"2 steps of 4 ranks are run again by events, in some [\d,]+ min; .*", said[0])
    heard = Heard()
    done = export_run(simulated, "horovod", tmp_path / "t.json", range(4), 100_000, said.append, heard)
    assert (done.what[:7], done.left_out) == ("4 steps", [])
    assert said[1].startswith("4 steps of 4 ranks are run again by events")
    assert [each for each in heard.told if each[0] == "simulating by events"] == [
        ("simulating by events", step, 4) for step in (1, 2, 3, 4)
    ]
    written = [each for each in heard.told if each[0] == "writing"]
    assert [done for _, done, _ in written] == list(range(len(written)))
    assert written[0][2] >= len(written) > 4


@pytest.mark.parametrize("plane", ["cached", "coordinator", "point-to-point"])
def test_the_estimate_is_the_number_of_messages(plane: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the event engine sends them, within a third."""
    described = scenario(ranks=8, control_plane=replace(PLANE, name=plane))
    sent = 0
    flight_ns = LogGP.flight_ns

    def counted(self: LogGP, source: int, target: int, nbytes: int) -> int:
        nonlocal sent
        sent += 1
        return flight_ns(self, source, target, nbytes)

    monkeypatch.setattr(LogGP, "flight_ns", counted)
    trace = simulate(described, "event").trace
    assert slow._messages(described, trace, described.steps + 1).sum() == pytest.approx(sent, rel=0.34)
