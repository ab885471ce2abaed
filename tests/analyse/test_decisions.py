"""Real Horovod's decisions against the protocol's; and that the comparison finds what is planted."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterable
from functools import cache as remembered
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from coordsim.analyse.validate.decisions import Decisions, compare_decisions
from coordsim.errors import InputError
from coordsim.formats.horovod import TimelineWriter
from coordsim.protocol.groups import GroupTable
from coordsim.protocol.lockstep import LockStep
from coordsim.protocol.messages import DType, Op, Request
from coordsim.protocol.negotiator import Settings, agree, cached
from coordsim.simulate.timeline import CountingClock, TimelineRecorder
from tests.protocol.drive import settings, tensor
from tests.timelines import RECORDED, Event, Turn, doctored, names, real_events, run, write

MPI, MPI_UNCACHED, GLOO = (
    RECORDED / f"tl_{case}.timeline.json.gz" for case in ("mpi_n2_cache", "mpi_n2_cache0", "gloo_n4_cache")
)


decided = remembered(compare_decisions)
"""Of the recordings as they are."""


def whats(decisions: Decisions) -> list[str]:
    return [each.what for each in decisions.mismatches]


def alike(decisions: Decisions) -> bool:
    """Whether nothing at all differs."""
    return not decisions.missed and decisions.mismatched_cycles == 0 and decisions.same_kind == decisions.active_cycles


# Real recordings.


@pytest.mark.parametrize(
    ("path", "steps", "compared", "active", "messages", "slow", "fast"),
    [(MPI, 22, 22, 370, 328, 48, 286), (MPI_UNCACHED, 22, 22, 221, 187, 221, 0), (GLOO, 22, 21, 104, 74, 10, 67)],
)
def test_real_horovod_decides_as_the_protocol_does(
    path: Path, steps: int, compared: int, active: int, messages: int, slow: int, fast: int
) -> None:
    """Every message, its members, their order, and every slow and fast cycle of three recordings."""
    decisions = decided(path)
    assert alike(decisions)
    assert (len(decisions.steps), len(decisions.compared), decisions.same_count) == (steps, compared, compared)
    assert decisions.active_cycles == active
    assert decisions.comparable_cycles == decisions.same_composition == decisions.same_order == messages
    assert decisions.kinds["recorded"] == decisions.kinds["predicted"]
    assert (decisions.kinds["recorded"]["slow"], decisions.kinds["recorded"]["fast"]) == (slow, fast)
    assert (decisions.without_ticks, decisions.stray_ends, decisions.assumed_cached, decisions.lost) == (0, 0, 0, None)


@pytest.mark.parametrize("path", [MPI, MPI_UNCACHED, GLOO], ids=lambda path: path.name)
def test_recorded_messages_and_steps_are_what_the_events_and_the_description_say(path: Path) -> None:
    """Counted anew: a message is one unbroken run of beginnings of the collective itself."""
    runs, before = [], ("", 0)
    library = "GLOO_ALLREDUCE" if path == GLOO else "MPI_ALLREDUCE"
    name = names(real_events(path))
    for event in real_events(path):
        if event["ph"] == "B" and event["name"] == library:
            if before[0] != library:
                runs.append([])
            runs[-1].append(name[event["pid"]])
        before = event.get("name", ""), event["ph"]
    if path == GLOO:
        runs.pop()  # the last barrier is cut off
    decisions = decided(path)
    found = [list(names) for step in decisions.steps for names in step.messages or ()]
    assert found == runs
    description = json.loads((RECORDED / path.name.replace("timeline.json.gz", "json")).read_text())
    steps = [len(step.tensors) for step in decisions.steps if len(step.tensors) > 1]
    said = sum(each["spec"]["steps"] for each in description["workloads"].values())
    assert steps == [161] * said


def test_settings_come_from_the_description_and_say_so() -> None:
    found = decided(MPI_UNCACHED).settings
    assert (found.ranks.value, found.ranks.source) == (2, "n in tl_mpi_n2_cache0.json")
    assert (found.cache_capacity.value, found.cache_capacity.source) == (
        0, "HOROVOD_CACHE_CAPACITY in tl_mpi_n2_cache0.json",
    )  # fmt: skip
    assert (found.fusion_threshold_bytes.value, found.cycle_time_us.value) == (64 << 20, 1000)
    assert found.disable_group_fusion.source == "Horovod's default"


def test_cycle_periods_are_the_sleep_and_what_comes_after() -> None:
    decisions = decided(MPI)
    marks = [each["ts"] for each in real_events(MPI) if each["ph"] == "i"]
    assert list(decisions.periods_us) == [after - before for before, after in pairwise(marks)]
    assert min(decisions.rule_periods_us) == 1000
    assert all(rule <= max(period, 1000) for rule, period in
               zip(decisions.rule_periods_us, decisions.periods_us, strict=True))  # fmt: skip
    said = [each for each in real_events(MPI) if each["ph"] != "M"]
    nothing = [after["ts"] - before["ts"] for before, after in pairwise(said) if before["ph"] == after["ph"] == "i"]
    assert list(decisions.idle_periods_us) == nothing


@pytest.mark.parametrize("path", [MPI_UNCACHED, GLOO], ids=lambda path: path.name)
def test_a_recording_cut_anywhere_agrees_as_far_as_it_goes(path: Path, tmp_path: Path) -> None:
    text = gzip.decompress(path.read_bytes()).decode()
    target = tmp_path / path.name.removesuffix(".gz")
    (tmp_path / path.name.replace("timeline.json.gz", "json")).write_bytes(
        (RECORDED / path.name.replace("timeline.json.gz", "json")).read_bytes()
    )
    dice = random.Random(3)
    for _ in range(5):
        target.write_text(text[: dice.randrange(4000, 160_000)])
        decisions = compare_decisions(target)
        assert decisions.lost is not None
        assert alike(decisions)


# Planted: in the settings, and in the recording.


@pytest.mark.parametrize(
    ("path", "given", "what"),
    [
        (MPI, {"fusion_threshold_bytes": 1024}, "count"),
        (MPI_UNCACHED, {"cache_capacity": 1024}, "kind"),
        (GLOO, {"cache_capacity": 0}, "kind"),
        (GLOO, {"cache_capacity": 300}, "kind"),
        (GLOO, {"disable_group_fusion": True}, "count"),
    ],
)
def test_another_setting_than_the_recorded_one_is_found(path: Path, given: dict[str, Any], what: str) -> None:
    decisions = compare_decisions(path, **given)
    assert decisions.missed
    assert what in whats(decisions)
    assert decisions.mismatched_cycles > 20


def _swap_two_requests_of_the_last_rank(found: list[Event]) -> list[Event]:
    """Ranks complete tensors in another order than Horovod counted."""
    last = [index for index, each in enumerate(found) if each["ph"] == "X" and each["name"] == "1"
            and found[index + 1]["ph"] == "E"]  # fmt: skip
    one, other = next((a, b) for a, b in pairwise(last) if b == a + 2)
    found[one : one + 2], found[other : other + 2] = found[other : other + 2], found[one : one + 2]
    return found


def _reduce_one_member_alone(found: list[Event]) -> list[Event]:
    """The last member of the first fused message goes into a message of its own."""
    first = next(index for index, each in enumerate(found) if each.get("name") == "MPI_ALLREDUCE"
                 and found[index + 1].get("name") == "MPI_ALLREDUCE")  # fmt: skip
    begin = next(index for index in range(first, -1, -1) if found[index]["ph"] == "i")
    end = next(index for index in range(first, len(found)) if found[index]["ph"] == "i")
    begin += next(index for index, each in enumerate(found[begin:end]) if each.get("name") == "ALLREDUCE")
    alone = [each["pid"] for each in found[begin:end] if each.get("name") == "ALLREDUCE"][-1]
    moved = [each for each in found[begin:end] if each.get("pid") == alone]
    return found[:begin] + [each for each in found[begin:end] if each.get("pid") != alone] + moved + found[end:]


@pytest.mark.parametrize(
    ("change", "what"),
    [(_swap_two_requests_of_the_last_rank, "order"), (_reduce_one_member_alone, "count")],
)
def test_a_decision_that_horovod_did_not_take_is_found(
    change: Callable[[list[Event]], list[Event]], what: str, tmp_path: Path
) -> None:
    path = doctored(MPI_UNCACHED, tmp_path / "x.timeline.json", change)
    decisions = compare_decisions(path)
    assert whats(decisions) == [what]
    assert decisions.missed, "where pops are equal all messages must be"
    assert decisions.same_count == len(decisions.compared) - (what == "count")


def test_a_fault_in_the_protocols_own_code_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hits in descending order of their bits: on the fast path, where members are known and their order is not."""
    monkeypatch.setattr(cached, "agree", lambda hits, ready, settings: agree(list(hits)[::-1], ready, settings))
    decisions = compare_decisions(GLOO)
    assert set(whats(decisions)) == {"order"}
    assert decisions.missed == ["messages of 59 of 74 cycles are in another order"]


def test_members_that_trade_places_are_found(tmp_path: Path) -> None:
    """As many messages, each of two tensors, but others than the threshold makes of that order."""
    path = tmp_path / "t.json"
    with TimelineWriter(path, mark_cycles=True) as writer:
        writer.cycle_start(1)
        for name in "abcd":
            writer.negotiate_start(name, "ALLREDUCE", 2)
            writer.tick(name, 0, 2)
            writer.tick(name, 1, 2)
            writer.negotiate_end(name, 2)
        for members in ("ac", "bd"):
            for name in members:
                writer.start_operation(name, "ALLREDUCE", 3)
            writer.start_activity(members, "MPI_ALLREDUCE", 3)
            writer.end_activity(members, 4)
            for name in members:
                writer.end_operation(name, 4, "float32", (256,))
        writer.cycle_start(5)
    decisions = compare_decisions(path, fusion_threshold_bytes=2048)
    assert whats(decisions) == ["composition"]
    assert decisions.mismatches[0].predicted == (("a", "b"), ("c", "d"))
    assert decisions.missed == ["messages of 1 of 1 cycles have other members"]


# Our own protocol's runs, in corners that the recordings do not reach.

MIXED = [
    tensor("a", 4), tensor("b", 3, dtype=DType.FLOAT16), tensor("c", 2), tensor("d", 900), tensor("e", 2),
    tensor("f", 1, dtype=DType.FLOAT16), tensor("g", 6), tensor("h", 1),
]  # fmt: skip


def everywhere(*requests: Request, ranks: int = 2) -> Turn:
    """Every rank submits the same."""
    return dict.fromkeys(range(ranks), requests)


def _steps(seed: int, ranks: int, requests: list[Request], steps: int = 5) -> list[Turn]:
    """Every rank in an order and with a lateness of its own."""
    dice = random.Random(seed)
    turns: list[Turn] = []
    for _ in range(steps):
        step: list[dict[int, list[Request]]] = [{rank: [] for rank in range(ranks)} for _ in range(5)]
        for rank in range(ranks):
            for request in dice.sample(requests, len(requests)):
                step[dice.choice([0, 1, 1, 2])][rank].append(request)
        turns += step
    return turns


@pytest.mark.parametrize("plane", ["coordinator", "cached"])
@pytest.mark.parametrize(("threshold", "capacity"), [(0, 64), (2048, 64), (24, 64), (24, 5), (2048, 1)])
@pytest.mark.parametrize("ranks", [2, 3, 6])
def test_our_own_runs_agree_entirely(plane: str, threshold: int, capacity: int, ranks: int, tmp_path: Path) -> None:
    """Types that differ, look-ahead, messages over the threshold, a cache that thrashes; ranks are counted."""
    step = 512 * ranks
    rounded = -(-threshold // step) * step
    chosen = settings(ranks, threshold=rounded, capacity=capacity)
    path = write(tmp_path / "t.json", plane, chosen, _steps(ranks + threshold, ranks, MIXED))
    decisions = compare_decisions(
        path, cache_capacity=capacity if plane == "cached" else 0, fusion_threshold_bytes=threshold
    )
    assert alike(decisions)
    assert len(decisions.compared) == 5
    assert decisions.settings.ranks.value == ranks
    assert decisions.settings.ranks.source == "requests counted in the file"


def test_the_order_of_cache_bits_is_predicted_not_taken_over(tmp_path: Path) -> None:
    """Names learnt in one order and asked for in another run in the first, as the recording says too."""
    learnt, asked = (everywhere(*map(tensor, names)) for names in ("cab", "abc"))
    path = write(tmp_path / "t.json", "cached", settings(2), [learnt, asked])
    assert compare_decisions(path).steps[1].messages == [("c", "a", "b")]
    assert alike(compare_decisions(path))


def test_a_changed_shape_is_slow_again(tmp_path: Path) -> None:
    wide = [tensor("a", 8), *MIXED[1:]]
    turns = [*_steps(1, 3, MIXED, 2), *_steps(2, 3, wide, 2), *_steps(3, 3, MIXED, 1)]
    path = write(tmp_path / "t.json", "cached", settings(3, capacity=64), turns)
    decisions = compare_decisions(path, fusion_threshold_bytes=1 << 20)
    assert alike(decisions)
    assert [step.slow_recorded > 0 for step in decisions.steps] == [True, False, True, False, True]


def test_errors_barriers_and_gathers_are_decided_alike(tmp_path: Path) -> None:
    gather = Request("gather", op=Op.ALLGATHER, shape=(2, 5))
    barrier, root = Request("barrier.noname", op=Op.BARRIER), Request("root", op=Op.BROADCAST, shape=(4,), root_rank=0)
    everybody = [tensor("a"), gather, barrier, root, tensor("b")]
    turns: list[Turn] = [
        everywhere(*everybody), {0: [tensor("a"), tensor("bad", 4)], 1: [tensor("bad", 5), tensor("a")]},
        everywhere(tensor("bad", 4), *everybody), {0: everybody}, {1: everybody},
    ]  # fmt: skip
    path = write(tmp_path / "t.json", "cached", settings(2), turns)
    decisions = compare_decisions(path)
    assert alike(decisions)
    found = [names for step in decisions.steps for names in step.messages or ()]
    assert found[:4] == [("a", "b"), ("gather",), ("barrier.noname",), ("root",)]
    assert ("bad",) in found


def test_a_barrier_as_horovod_writes_it(tmp_path: Path) -> None:
    """Its execution is nothing but an end without a beginning."""
    barrier = Request("barrier.noname", op=Op.BARRIER)
    turns: list[Turn] = [everywhere(tensor("a"), barrier)] * 3
    path = write(tmp_path / "t.json", "cached", settings(2), turns)
    found = [each for each in json.loads(path.read_text()) if each.get("name") != "BARRIER"]
    join = {"name": "process_name", "ph": "M", "pid": 9, "args": {"name": "join.noname"}}
    path.write_text(json.dumps([*found, join, {"ph": "E", "ts": 99_999, "pid": 9}]))
    decisions = compare_decisions(path)
    assert alike(decisions)
    assert decisions.steps[0].messages == [("a",), ("barrier.noname",)]
    assert decisions.stray_ends == 1


def _grouped(count: int, base: str) -> list[Request]:
    return [tensor(f"grouped_allreduce.{base}_{index}of{count}") for index in range(1, count + 1)]


def test_groups_that_fuse_with_nothing_else_are_known_by_their_names(tmp_path: Path) -> None:
    first, second, single = _grouped(3, "x"), _grouped(2, "y"), tensor("allreduce.z")
    groups = tuple(tuple(each.name for each in part) for part in (first, second))
    table = GroupTable(groups, strict=True)
    requests = [
        Request(each.name, shape=each.shape, group=table.digest(each.name)) for each in (*second, single, *first)
    ]
    turns: list[Turn] = [everywhere(*requests)] * 3
    path = write(tmp_path / "t.json", "cached", Settings(2, 1 << 20, table), turns)
    decisions = compare_decisions(path, disable_group_fusion=True)
    assert alike(decisions)
    assert decisions.steps[2].messages == [groups[1], ("allreduce.z",), groups[0]]
    ignored = compare_decisions(path)
    assert ignored.missed
    assert set(whats(ignored)) == {"count"}


def test_recording_that_began_in_the_middle(tmp_path: Path) -> None:
    """What is a hit the first time was cached before; and an operation may have been under way."""
    path = tmp_path / "t.json"
    turns = [everywhere(*MIXED)] * 5
    with TimelineWriter() as writer:

        def later() -> Iterable[Turn]:
            for index, turn in enumerate(turns):
                if index == 2:
                    writer.start(path, mark_cycles=True)
                yield turn

        run(writer, "cached", settings(2, threshold=1024), later())
    decisions = compare_decisions(path, fusion_threshold_bytes=1024)
    assert alike(decisions)
    assert (decisions.assumed_cached, len(decisions.steps)) == (len(MIXED), 3)
    assert "any number will do" in decisions.settings.ranks.source
    assert decisions.kinds["recorded"]["slow"] == 0


def test_a_stalled_hit_is_told_from_a_miss(tmp_path: Path) -> None:
    """Rank 0 gives up on a hit after two seconds; the entry is erased, asked for, and cached again."""
    clock, path, x, y = CountingClock(), tmp_path / "t.json", tensor("x"), tensor("y")
    with TimelineWriter(path, mark_cycles=True) as writer:
        job = LockStep("cached", settings(2), TimelineRecorder(writer, 2, clock))

        def turn(first: list[Request], second: list[Request], stalled: Iterable[str] = ()) -> None:
            for rank, requests in enumerate((first, second)):
                for request in requests:
                    job.submit(rank, request)
            job.cycle(stalled={0: set(stalled)})

        turn([x, y], [x, y])
        turn([x, y], [y])
        clock.advance(2_000_000_000)
        turn([], [], ["x"])
        turn([], [x])
        turn([x, y], [x, y])
    decisions = compare_decisions(path)
    assert alike(decisions)
    assert decisions.stalled == 1
    assert [step.messages for step in decisions.steps] == [[("x", "y")], [("y",), ("x",)], [("y", "x")]], "renumbered"


def test_negotiations_without_a_request_of_every_rank_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "t.json", "coordinator", settings(2), [everywhere(*MIXED)] * 3)
    decisions = compare_decisions(path, ranks=3, cache_capacity=0)
    assert (decisions.without_ticks, decisions.comparable_cycles) == (3 * len(MIXED), 0)
    assert decisions.missed, "nothing was compared"


# Bad input.


def _refused(path: Path, said: str, **given: Any) -> None:
    with pytest.raises(InputError) as caught:
        compare_decisions(path, **given)
    assert said in str(caught.value)


def test_a_rank_that_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path / "t.json", "coordinator", settings(3), [everywhere(*MIXED, ranks=3)])
    _refused(path, "counts a request of rank 2, but there are 2 ranks (given)", ranks=2)
    for given in ({"ranks": 0}, {"ranks": 200_000}, {"cache_capacity": -1}, {"fusion_threshold_bytes": -1}):
        _refused(path, f"--{next(iter(given)).replace('_', '-')}: {next(iter(given.values()))} is not between", **given)


def test_a_timeline_without_marks_or_without_a_whole_step(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    with TimelineWriter(path) as writer:
        run(writer, "cached", settings(2), [everywhere(*MIXED)] * 2)
    _refused(path, "no cycle marks at its beginning; record with HOROVOD_TIMELINE_MARK_CYCLES=1")
    with TimelineWriter(path) as writer:
        run(writer, "cached", settings(2), [everywhere(*MIXED)])
    _refused(path, "has no cycle marks; record with HOROVOD_TIMELINE_MARK_CYCLES=1")
    write(path, "cached", settings(2), [{0: MIXED}])
    _refused(path, "holds no step that was executed to its end")
    with TimelineWriter(path, mark_cycles=True) as writer:
        writer.cycle_start(1)
    _refused(path, "holds no step")
    with TimelineWriter(path) as writer:
        pass
    _refused(path, "has no cycle marks")


def test_events_that_contradict_each_other(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    with TimelineWriter(path, mark_cycles=True) as writer:
        writer.cycle_start(10)
        writer.cycle_start(9)
    _refused(path, "cycle marks run backwards, from 10 to 9 us")
    with TimelineWriter(path, mark_cycles=True) as writer:
        for turn in (1, 2):
            writer.cycle_start(turn)
            writer.negotiate_start("a", "ALLREDUCE", turn)
            writer.negotiate_end("a", turn)
    _refused(path, "'a' is negotiated again before it was executed, at 2 us", ranks=2)


@pytest.mark.parametrize(
    ("operation", "dtype", "said"),
    [
        ("ALLTOALL", "float32", "'a': operation ALLTOALL is not modelled"),
        ("ERROR", "float32", "operation ERROR is not modelled"),
        ("ALLREDUCE", "floaty32", "'a' has type 'floaty32'; allowed: uint8"),
    ],
)
def test_what_the_protocol_does_not_know(operation: str, dtype: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    with TimelineWriter(path, mark_cycles=True) as writer:
        writer.cycle_start(1)
        writer.negotiate_start("a", operation, 2)
        for rank in (0, 1):
            writer.tick("a", rank, 2)
        writer.negotiate_end("a", 2)
        writer.start_operation("a", operation, 3)
        writer.end_operation("a", 4, dtype, (4,))
    _refused(path, said)


@pytest.mark.parametrize(
    ("description", "said"),
    [
        ("{", "describes x.timeline.json but is not JSON"),
        ("[1]", "env: expected an object"),
        ('{"env": 3}', "env: expected an object"),
        ('{"n": "two"}', "n: expected a number of ranks"),
        ('{"n": true}', "n: expected a number of ranks"),
        ('{"n": 0}', "n in x.json: 0 is not between 1 and 100,000"),
        ('{"n": 2, "env": {"HOROVOD_CACHE_CAPACITY": "many"}}', "env.HOROVOD_CACHE_CAPACITY: expected a number"),
        ('{"n": 2, "env": {"HOROVOD_CYCLE_TIME": "1e400"}}', "env.HOROVOD_CYCLE_TIME: expected a number"),
    ],
)
def test_a_description_that_is_none(description: str, said: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.timeline.json", "cached", settings(2), [everywhere(*MIXED)])
    (tmp_path / "x.json").write_text(description)
    _refused(path, said)


def test_only_a_timelines_own_description_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", "cached", settings(2), [everywhere(*MIXED)] * 2)
    packed = tmp_path / "x.json.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert alike(compare_decisions(packed))
