"""GOAL of real runs: message for message what the backend's links carried; replayed to an end; says what it lacks."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import real_backend as rb
from coordsim.analyse.messages import replayed, request_of
from coordsim.cost.goal import Goal, parse
from coordsim.cost.network import LogGP
from coordsim.errors import InputError
from coordsim.protocol.links import FRAME, PART
from coordsim.protocol.messages import RequestList, ResponseList, respond_to
from coordsim.protocol.wire import list_bytes
from coordsim.record.ranks import RankRecord, read_folder
from coordsim.record.ranks.format import NULL
from coordsim.record.ranks.reader import ClockRecord, CycleRecord, StepRecord
from coordsim.record.trace import Kind as CycleKind
from coordsim.record.trace import schedule_hash
from coordsim.report.export import export_run
from coordsim.report.export.recorded import goal
from real_backend.control.links import Kind, Link
from tests.oracles.replay import replay
from tests.real_backend.processes import run
from tests.scenarios import CLUSTER

STEPS = 6
CONTROL = {Kind.AND, Kind.OR, Kind.GATHER, Kind.BROADCAST, Kind.TO_PARENT, Kind.DOWN_TREE}
Sent = list[tuple[int, int, int, int]]
"""(cycle, kind, to, bytes on the connection) of one rank, in order."""


def counted(kind: str) -> Sent:
    """A small job on one rank; what its links sent, seen where a link sends."""
    sent: Sent = []
    send = Link.send

    def seen(self: Link, what: Kind, cycle: int, payload: Any = b"") -> None:
        send(self, what, cycle, payload)
        sent.append((cycle, int(what), self.peer, FRAME.size + len(payload)))

    Link.send = seen  # type: ignore[method-assign]
    rb.init()
    for step in range(STEPS):
        for mark in ("forward", "backward"):
            rb.default_engine().mark(mark)
        STEP[kind](step)
        rb.default_engine().mark("step")
    rb.shutdown()
    return sent


def static(step: int) -> None:
    for handle in [rb.allreduce_async(torch.ones(place + 1), f"t{place}") for place in range(8)]:
        handle.wait()


def changing(step: int) -> None:
    """Orders, lateness and shapes that differ, a new name in each step, other operations."""
    dice = random.Random(100 * step + rb.rank())
    handles = []
    for place in dice.sample(range(8), 8):
        handles.append(rb.allreduce_async(torch.ones(9 if (step, place) == (3, 4) else place + 1), f"t{place}"))
        time.sleep(dice.random() / 500)
    handles.append(rb.allgather_async(torch.ones(rb.rank() + 1), "gathered"))
    handles.append(rb.broadcast_async(torch.ones(2), step % rb.size(), f"tensor ü of step {step}"))
    for handle in handles:
        handle.wait()


def grouped(step: int) -> None:
    for handle in [rb.grouped_allreduce_async([torch.ones(5)] * 3, f"g{group}") for group in range(3)]:
        handle.wait()


STEP: dict[str, Callable[[int], None]] = {"static": static, "changing": changing, "grouped": grouped}


def record(folder: Path, ranks: int, kind: str, **env: str) -> list[Sent]:
    """Writes the folder's records; by rank what was sent meanwhile."""
    return run(ranks, counted, kind, env={"COORDSIM_RECORD": str(folder), **env})


def really(sent: list[Sent], cycles: range) -> list[list[tuple[int, int]]]:
    """By rank: (to, bytes) of what was sent for agreement in ``cycles``, of the record; a frame's is one more."""
    return [
        [(to, nbytes) for cycle, what, to, nbytes in of_rank if cycle - 1 in cycles and what in CONTROL]
        for of_rank in sent
    ]


def messages(found: Goal) -> list[list[tuple[int, int]]]:
    """By rank: (to, bytes) of its sends, in order."""
    return [[(op.peer, op.size) for op in ops if op.kind == "send"] for ops in found.ranks]


def last_cycle(records: Sequence[RankRecord], step: int) -> int:
    """A cycle belongs to the latest step that any rank was in."""
    steps: dict[int, int] = {}
    for cycle in (cycle for each in records for cycle in each.cycles):
        steps[cycle.cycle] = max(cycle.step, steps.get(cycle.cycle, 0))
    return max(cycle for cycle, latest in steps.items() if latest <= step)


CASES = [
    ("static", {}),
    ("static", {"COORDSIM_SMALL": "0"}),
    ("static", {"COORDSIM_CONTROL_PLANE": "coordinator"}),
    ("changing", {}),
    ("changing", {"COORDSIM_RADIX": "1"}),
    ("changing", {"COORDSIM_CACHE_CAPACITY": "5", "COORDSIM_RADIX": "2"}),
    ("changing", {"COORDSIM_CYCLE_TIME": "1ms"}),
    ("changing", {"COORDSIM_CONTROL_PLANE": "hierarchical", "COORDSIM_RADIX": "2"}),
    ("grouped", {"COORDSIM_STRICT_GROUPS": "on"}),
]


@pytest.mark.parametrize(("kind", "env"), CASES)
@pytest.mark.parametrize("ranks", [2, 4])
def test_every_message_of_the_links_is_in_it(ranks: int, kind: str, env: dict[str, str], tmp_path: Path) -> None:
    sent = record(tmp_path / "job", ranks, kind, **env)
    export_run(tmp_path / "job", "goal", tmp_path / "t.goal", None, 100_000)
    found = parse((tmp_path / "t.goal").read_text())
    links = really(sent, range(last_cycle(read_folder(tmp_path / "job"), STEPS) + 1))
    assert messages(found) == links
    assert sum(map(len, links)) >= 2 * (ranks - 1) * STEPS
    for rank, ops in enumerate(found.ranks):
        takes = sorted((op.peer, op.size) for op in ops if op.kind == "recv")
        assert takes == sorted((of, nbytes) for of, each in enumerate(links) for to, nbytes in each if to == rank)
    assert all(end > 0 for end in replay(found, LogGP.of(CLUSTER)))
    if kind == "static" and not env:
        vectors = [nbytes for of_rank in sent for _, what, _, nbytes in of_rank if what == Kind.AND]
        assert max(vectors) > 4 * 36, "a reduction travels with the vector"


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Sent]]:
    folder = tmp_path_factory.mktemp("goal") / "job"
    return folder, record(folder, 4, "changing", COORDSIM_RADIX="2")


def test_between_messages_a_rank_calculates_as_its_record_says(tmp_path: Path) -> None:
    """By hand: two ranks, one tensor, one slow cycle; rank 1's clock is 1,000 ns behind rank 0's."""
    request = {
        "name": "t", "op": "ALLREDUCE", "dtype": "FLOAT32", "shape": [3], "reduce_op": "SUM", "root_rank": -1,
        "device": -1, "prescale": 1.0, "postscale": 1.0, "group": 0,
    }  # fmt: skip
    settings = {
        "control_plane": "cached", "control": "tcp", "radix": 0, "fusion_threshold_bytes": 1 << 20, "ranks_per_node": 1,
        "cache_capacity": 8, "strict_groups": False,
    }  # fmt: skip
    asked = list_bytes(RequestList(1, (request_of(request),)))
    answer = list_bytes(ResponseList((respond_to(request_of(request)),)))
    records = []
    for rank, (entered, left, work, finished, end) in enumerate([(500, 900, 60, 1100, 1150), (-300, 0, 7, 120, 200)]):
        head = {"rank": rank, "ranks": 2, "detailed": True, "settings": settings}
        cycle = CycleRecord(
            0, 0, CycleKind.SLOW, entered, left, work, finished, 0 if rank else 2, 0 if rank else asked, 0, 1,
            schedule_hash([("t",)]), 0, (0,), (entered - 10,),
        )  # fmt: skip
        start = 100 if rank == 0 else NULL
        step = StepRecord(0, start, NULL, entered - 10, entered - 10, finished, end, 1, 1, 1, 1)
        clocks = [ClockRecord(0, 1000 * rank, 1)]
        records.append(RankRecord(Path(f"job/{rank}"), head, [request], [cycle], [], [step], clocks=clocks))
    goal(records, range(1), tmp_path / "t.goal", 100)
    vector, lists = 8 + FRAME.size, asked + PART.size + FRAME.size
    zero = [
        ("calc", 400), ("recv", vector), ("send", vector), ("recv", lists), ("calc", 60), ("send", answer + FRAME.size),
        ("calc", 250),
    ]  # fmt: skip
    one = [
        ("calc", 600), ("send", vector), ("recv", vector), ("send", lists), ("recv", answer + FRAME.size), ("calc", 207)
    ]  # fmt: skip
    ranks = parse((tmp_path / "t.goal").read_text()).ranks
    assert [[(op.kind, op.size) for op in ops] for ops in ranks] == [zero, one]
    assert all(op.requires == ((place - 1,) if place else ()) for ops in ranks for place, op in enumerate(ops))


def test_the_steps_asked_for(job: tuple[Path, list[Sent]], tmp_path: Path) -> None:
    folder, sent = job
    done = export_run(folder, "goal", tmp_path / "t.goal", range(2, 4), 100_000)
    found = parse((tmp_path / "t.goal").read_text())
    records = read_folder(folder)
    assert messages(found) == really(sent, range(last_cycle(records, 1) + 1, last_cycle(records, 3) + 1))
    assert done.what.endswith("of 4 ranks in 2 steps")


def test_whole_steps_that_fit(job: tuple[Path, list[Sent]], tmp_path: Path) -> None:
    folder, _ = job
    everything = export_run(folder, "goal", tmp_path / "all.goal", None, 100_000)
    whole = sum(map(len, parse((tmp_path / "all.goal").read_text()).ranks))
    limit = whole * 2 // 3
    done = export_run(folder, "goal", tmp_path / "some.goal", None, limit)
    assert 0 < sum(map(len, parse((tmp_path / "some.goal").read_text()).ranks)) <= limit
    assert [each for each in done.left_out if each.startswith("left out for size: ")]
    assert not [each for each in everything.left_out if each.startswith("left out for size: ")]
    with pytest.raises(InputError, match="not even one step fits"):
        export_run(folder, "goal", tmp_path / "none.goal", None, 9)
    assert not (tmp_path / "none.goal").exists()


def test_says_what_is_left_out(job: tuple[Path, list[Sent]], tmp_path: Path) -> None:
    folder, sent = job
    done = export_run(folder, "goal", tmp_path / "t.goal", None, 100_000)
    last = last_cycle(read_folder(folder), STEPS)
    rings = [cycle - 1 <= last for of_rank in sent for cycle, what, _, _ in of_rank if what == Kind.RING]
    (told,) = [each for each in done.left_out if f" messages of {FRAME.size} bytes that woke" in each]
    assert sum(rings) <= int(told.split()[2].replace(",", "")) <= len(rings)
    assert sum(rings) > 0
    text = (tmp_path / "t.goal").read_text()
    assert all(f"// {each}\n" in text for each in done.left_out)


def test_a_record_without_counts_has_the_same_messages_but_for_what_travelled_along(tmp_path: Path) -> None:
    sent = record(tmp_path / "job", 3, "static")
    records = [_without_counts(each) for each in read_folder(tmp_path / "job")]
    _, told = goal(records, range(STEPS), tmp_path / "t.goal", 100_000)
    found = parse((tmp_path / "t.goal").read_text())
    links = really(sent, range(last_cycle(records, STEPS) + 1))
    assert [len(each) for each in messages(found)] == [len(each) for each in links]
    assert any("which this record does not count" in each for each in told)
    sizes = [sum(nbytes for of_rank in each for _, nbytes in of_rank) for each in (messages(found), links)]
    assert sizes[0] < sizes[1]


def _without_counts(record: RankRecord) -> RankRecord:
    cycles = [each._replace(sent=None) for each in record.cycles]
    return replace(record, cycles=cycles, idle=[each._replace(sent=None) for each in record.idle])


def test_steps_behind_a_gap_are_there_where_nothing_new_was_cached_in_it(tmp_path: Path) -> None:
    """Steps that were not among the slowest are in no record."""
    sent = record(tmp_path / "job", 2, "static")
    whole = read_folder(tmp_path / "job")
    gap = range(last_cycle(whole, 2) + 1, last_cycle(whole, 3) + 1)
    records = [
        replace(each, cycles=[cycle for cycle in each.cycles if cycle.cycle not in gap],
                idle=[idle for idle in each.idle if idle.cycle not in gap])
        for each in whole
    ]  # fmt: skip
    goal(records, range(4, STEPS), tmp_path / "t.goal", 100_000)
    links = really(sent, range(last_cycle(whole, 3) + 1, last_cycle(whole, STEPS) + 1))
    assert messages(parse((tmp_path / "t.goal").read_text())) == links
    records = [replace(each, cycles=[cycle for cycle in each.cycles if cycle.step]) for each in whole]
    with pytest.raises(InputError, match="the protocol, replayed, differs: cycle"):
        goal(records, range(4, STEPS), tmp_path / "none.goal", 100_000)


# Where the replay and the record do not agree.


def _changed(records: Sequence[RankRecord], rank: int, change: Callable[[CycleRecord], CycleRecord], step: int) -> None:
    """Change rank ``rank``'s first cycle of ``step`` that popped something."""
    cycles = records[rank].cycles
    place = next(place for place, each in enumerate(cycles) if each.step == step and each.popped)
    cycles[place] = change(cycles[place])


@pytest.mark.parametrize(
    "change",
    [
        lambda each: each._replace(popped=each.popped[1:], stamps_ns=each.stamps_ns[1:]),
        lambda each: each._replace(schedule_hash=each.schedule_hash ^ 1),
        lambda each: each._replace(sent=each.sent._replace(messages=each.sent.messages + 1)),
        lambda each: each._replace(sent=each.sent._replace(nbytes=each.sent.nbytes - 1)),
    ],
)
@pytest.mark.parametrize("rank", [0, 3])
def test_it_ends_where_the_protocol_differs_from_the_record(
    change: Callable[[CycleRecord], CycleRecord], rank: int, job: tuple[Path, list[Sent]], tmp_path: Path
) -> None:
    records = read_folder(job[0])
    _changed(records, rank, change, 2)
    stopped = replayed(records)
    assert stopped.stopped_in is not None
    assert stopped.stopped_in >= 2
    what, told = goal(records, range(STEPS), tmp_path / "t.goal", 100_000)
    assert what.endswith(f"in {stopped.stopped_in} steps")
    assert [each for each in told if each.startswith(f"left out: steps {stopped.stopped_in} to {STEPS - 1}, where the")]
    with pytest.raises(InputError, match="the protocol, replayed, differs: cycle"):
        goal(records, range(stopped.stopped_in, STEPS), tmp_path / "none.goal", 100_000)
    assert not (tmp_path / "none.goal").exists()


# What has no messages of ours.


def _with(records: Sequence[RankRecord], **settings: Any) -> list[RankRecord]:
    return [
        replace(each, head=each.head | {"settings": each.head["settings"] | settings}) for each in records
    ]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"control_plane": "ddp"}, "nobody negotiates in it"),
        ({"control": "gloo"}, "control went over gloo, whose messages are its own"),
        ({"control": "mpi"}, "control went over mpi, whose messages are its own"),
        ({"radix": None}, "settings: cannot be read"),
    ],
)
def test_other_runs_are_refused_by_name(
    settings: dict[str, Any], why: str, job: tuple[Path, list[Sent]], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=why):
        goal(_with(read_folder(job[0]), **settings), range(STEPS), tmp_path / "t.goal", 100_000)


def test_details_of_every_rank_are_needed(job: tuple[Path, list[Sent]], tmp_path: Path) -> None:
    records = read_folder(job[0])
    records[2].head["detailed"] = False
    with pytest.raises(InputError, match=r"1 of 4 ranks have none; .*COORDSIM_RECORD_SAMPLED_RANKS"):
        goal(records, range(STEPS), tmp_path / "t.goal", 100_000)
    with pytest.raises(InputError, match="1 of 4 ranks have none"):
        goal(read_folder(job[0])[:3], range(STEPS), tmp_path / "t.goal", 100_000)
