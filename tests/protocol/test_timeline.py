"""Behaviours 37 to 39: rank 0's timeline of the protocol's own runs."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordsim.formats.horovod import TimelineReader, TimelineWriter
from coordsim.protocol.messages import JOIN_NAME, Op, Request, join_request
from tests.protocol.drive import settings, tensor
from tests.timelines import Event, events, names, run, write

EPOCH = "start_time_since_epoch_in_micros"
A, B, C = (tensor(f"allreduce.{name}") for name in "abc")


def everywhere(ranks: int, *requests: Request) -> dict[int, list[Request]]:
    return {rank: list(requests) for rank in range(ranks)}


def by_tensor(found: list[Event]) -> dict[str, list[Event]]:
    """Events other than metadata and marks, by tensor, in file order."""
    name = names(found)
    told: dict[str, list[Event]] = defaultdict(list)
    for each in found:
        if each["ph"] in "BEX":
            told[name[each["pid"]]].append(each)
    return told


def check(found: list[Event]) -> None:
    """What must hold of every timeline that was stopped."""
    assert found[0]["args"].keys() == {EPOCH}
    assert all("tid" not in each for each in found)
    pids = list(names(found))
    assert pids == list(range(1, len(pids) + 1)), "numbered as they appear"
    for told in by_tensor(found).values():
        depth = 0
        for each in told:
            depth += {"B": 1, "E": -1, "X": 0}[each["ph"]]
            assert depth >= 0, "an end without a beginning"
        assert depth == 0, "a beginning without an end"
        times = [each["ts"] for each in told]
        assert times == sorted(times)
        assert all(type(ts) is int for ts in times)


def ticks(told: list[Event]) -> list[list[int]]:
    """By negotiation: the ranks whose requests were counted."""
    found: list[list[int]] = []
    for each in told:
        if each["ph"] == "B" and each["name"].startswith("NEGOTIATE_"):
            found.append([])
        elif each["ph"] == "X":
            found[-1].append(int(each["name"]))
    return found


def test_b37_the_file_has_the_tensor_its_negotiation_its_operation_and_marks(tmp_path: Path) -> None:
    path = write(tmp_path / "t.json", "cached", settings(2), [everywhere(2, A, B), {}, everywhere(2, A, B)])
    found = events(path)
    check(found)
    assert [each["name"] for each in found if each["ph"] == "i"] == ["CYCLE_START"] * 3
    assert all(each.keys() == {"ph", "name", "ts", "s"} for each in found if each["ph"] == "i")
    told = by_tensor(found)
    assert list(told) == ["allreduce.a", "allreduce.b"]
    slow = ["NEGOTIATE_ALLREDUCE", "0", "1", "", "ALLREDUCE", "MEMCPY_IN_FUSION_BUFFER", "", "MPI_ALLREDUCE", "",
            "MEMCPY_OUT_FUSION_BUFFER", "", ""]  # fmt: skip
    fast = [slow[0], *slow[3:]]
    for each in told.values():
        assert [event.get("name", "") for event in each] == [*slow, *fast]
        ends = [event["args"] for event in each if "args" in event]
        assert ends == [{"dtype": "float32", "shape": "[4]"}] * 2


def test_b37_without_marks_there_is_no_cycle(tmp_path: Path) -> None:
    with TimelineWriter(tmp_path / "t.json") as writer:
        run(writer, "cached", settings(2), [everywhere(2, A)])
    assert not [each for each in events(tmp_path / "t.json") if each["ph"] == "i"]


def test_b37_an_error_has_no_type_and_no_shape(tmp_path: Path) -> None:
    other = tensor("allreduce.a", 5)
    path = write(tmp_path / "t.json", "coordinator", settings(2), [{0: [A], 1: [other]}, everywhere(2, A)])
    told = by_tensor(events(path))["allreduce.a"]
    names_of = [each.get("name") for each in told]
    assert names_of.index("ERROR") < names_of.index("ALLREDUCE")
    assert [each["args"]["shape"] for each in told if "args" in each] == ["[4]"], "of the second attempt only"


def test_b37_what_is_fused_is_told_of_all_members_in_one_go(tmp_path: Path) -> None:
    path = write(tmp_path / "t.json", "coordinator", settings(2, threshold=32), [everywhere(2, A, B, C)])
    found = events(path)
    name = names(found)
    begun = [(name[each["pid"]][-1], each["name"]) for each in found if each["ph"] == "B"][3:]
    fused = [(member, part) for part in ("ALLREDUCE", "MEMCPY_IN_FUSION_BUFFER", "MPI_ALLREDUCE",
             "MEMCPY_OUT_FUSION_BUFFER") for member in "ab"]  # fmt: skip
    assert begun == [*fused, ("c", "ALLREDUCE"), ("c", "MPI_ALLREDUCE")]


def test_b38_stopped_and_started_anew_each_file_is_valid(tmp_path: Path) -> None:
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    writer = TimelineWriter()
    turns = [everywhere(2, A), everywhere(2, B), {0: [A]}, {1: [A]}, everywhere(2, C)]

    def played() -> Iterator[dict[int, list[Request]]]:
        for index, turn in enumerate(turns):
            if index == 1:
                writer.start(first, mark_cycles=True, start_epoch_us=7)
            if index == 3:  # in the middle of a negotiation
                writer.start(second)
            yield turn

    run(writer, "cached", settings(2), played())
    writer.stop()
    writer.stop()
    before, after = events(first), events(second)
    for found in (before, after):
        check(found)
    assert before[0]["args"] == {EPOCH: 7}
    assert list(by_tensor(before)) == ["allreduce.b", "allreduce.a"], "nothing from before the start"
    assert by_tensor(before)["allreduce.a"][-1]["args"] == {"unfinished": True}
    assert [each["ph"] for each in before].count("i") == 2
    assert [each["ph"] for each in after].count("i") == 0, "marks were asked for in the first file only"
    assert names(after) == {1: "allreduce.a", 2: "allreduce.c"}, "numbered anew"
    assert by_tensor(after)["allreduce.c"][0]["name"] == "NEGOTIATE_ALLREDUCE"


def test_b38_starting_the_same_file_twice_is_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    writer = TimelineWriter(tmp_path / "t.json", mark_cycles=True)
    run(writer, "cached", settings(2), [everywhere(2, A)])
    writer.start(Path("t.json"))
    run(writer, "cached", settings(2), [{}])
    writer.stop()
    assert [each["ph"] for each in events(tmp_path / "t.json")].count("i") == 2


def test_b38_a_file_is_valid_before_its_first_event_and_after_every_one(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    writer = TimelineWriter(path, mark_cycles=True)
    assert events(path)[0]["args"] == {EPOCH: 0}
    sizes = []
    for event in range(3):
        writer.cycle_start(event)
        sizes.append(len(events(path)))
    assert sizes == [3, 4, 5]
    writer.stop()
    writer.cycle_start(9)
    assert len(events(path)) == 5, "what comes after a stop is dropped"


@pytest.mark.parametrize("plane", ["point-to-point", "coordinator", "cached"])
@pytest.mark.parametrize("ranks", [2, 5])
def test_b39_balanced_ordered_and_a_tick_a_rank(tmp_path: Path, plane: str, ranks: int) -> None:
    """Ranks submit in orders and at cycles of their own."""
    dice = random.Random(ranks)
    requests = [tensor(f"allreduce.{index}") for index in range(9)]
    turns: list[dict[int, list[Request]]] = []
    for _ in range(4):
        step = [{rank: [] for rank in range(ranks)} for _ in range(6)]
        for rank in range(ranks):
            for request in dice.sample(requests, len(requests)):
                step[dice.randrange(6)][rank].append(request)
        turns += step
    path = write(tmp_path / "t.json", plane, settings(ranks), turns)
    check(events(path))
    for told in by_tensor(events(path)).values():
        found = ticks(told)
        assert len(found) == 4
        slow = 4 if plane != "cached" else 1
        assert [sorted(each) for each in found] == [list(range(ranks))] * slow + [[]] * (4 - slow)


def test_b39_an_invalidated_hit_is_counted_once_a_rank(tmp_path: Path) -> None:
    wider = tensor("allreduce.a", 5)
    turns = [everywhere(3, A), everywhere(3, wider), everywhere(3, wider)]
    path = write(tmp_path / "t.json", "cached", settings(3), turns)
    check(events(path))
    assert ticks(by_tensor(events(path))["allreduce.a"]) == [[0, 1, 2], [0, 1, 2], []]


def test_b39_a_barrier_balances(tmp_path: Path) -> None:
    barrier = Request("barrier.noname", op=Op.BARRIER)
    path = write(tmp_path / "t.json", "cached", settings(2), [{0: [barrier]}, {1: [barrier]}, everywhere(2, barrier)])
    found = events(path)
    check(found)
    told = by_tensor(found)["barrier.noname"]
    assert [each.get("name") for each in told if each["ph"] == "B"] == ["NEGOTIATE_BARRIER", "BARRIER"] * 2


def test_b39_a_join_balances_and_counts_the_others(tmp_path: Path) -> None:
    join = join_request()
    turns = [everywhere(3, A), {2: [join]}, {0: [A, B], 1: [B]}, {1: [A]}, {0: [join], 1: [join]}]
    path = write(tmp_path / "t.json", "cached", settings(3), turns)
    check(events(path))
    told = by_tensor(events(path))
    assert ticks(told["allreduce.b"]) == [[0, 1]], "rank 2 takes part with zeros and asks for nothing"
    assert [each["ph"] for each in told[JOIN_NAME]] == ["B", "E"]


def test_b39_a_writer_refuses_time_that_runs_backwards(tmp_path: Path) -> None:
    with TimelineWriter(tmp_path / "t.json") as writer:
        writer.negotiate_start("a", "ALLREDUCE", 5)
        writer.negotiate_start("b", "ALLREDUCE", 4)  # another tensor's time is its own
        with pytest.raises(ValueError, match="before 5 us"):
            writer.tick("a", 0, 4)
    check(events(tmp_path / "t.json"))


def test_b39_an_operation_cannot_begin_while_it_is_negotiated(tmp_path: Path) -> None:
    with TimelineWriter(tmp_path / "t.json") as writer:
        writer.negotiate_start("a", "ALLREDUCE", 1)
        with pytest.raises(ValueError, match="while NEGOTIATE_ALLREDUCE"):
            writer.start_operation("a", "ALLREDUCE", 2)
        writer.tick("a", 0, 2)
        writer.negotiate_end("a", 3)
        writer.start_operation("a", "ALLREDUCE", 4)
        with pytest.raises(ValueError, match="while ALLREDUCE"):
            writer.negotiate_start("a", "ALLREDUCE", 5)
    check(events(tmp_path / "t.json"))


VICTIM = """
import sys
from pathlib import Path
from coordsim.formats.horovod import TimelineWriter
from tests.protocol.drive import settings, tensor
from tests.timelines import run

def turns():
    requests = [tensor(f"allreduce.{index}") for index in range(50)]
    for step in range(100_000):
        yield {0: requests, 1: requests}
        if step == 5:
            print("going", flush=True)

run(TimelineWriter(Path(sys.argv[1]), mark_cycles=True), "coordinator", settings(2), turns())
"""


def test_b39_a_killed_process_leaves_a_file_that_parses(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(
        [sys.executable, "-c", VICTIM, str(path)], stdout=subprocess.PIPE, env=environment, cwd=root
    ) as victim:  # fmt: skip
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"going\n"
        victim.send_signal(signal.SIGKILL)
    assert victim.returncode == -signal.SIGKILL
    reader = TimelineReader(path)
    told = list(reader)
    assert len(told) > 5 * 50 * 10, "five whole steps were written before"
    assert {each.kind.name for each in told} >= {"CYCLE", "NEGOTIATE", "TICK", "AGREED", "OPERATION", "OPERATION_END"}
    if reader.lost is None:  # unless the kernel was stopped inside a write, it is even whole
        assert len(json.loads(path.read_bytes())) == reader.events
