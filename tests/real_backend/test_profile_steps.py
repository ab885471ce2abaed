"""Records without cycles: whatever the moments, parts sum exactly, control is 0; a replay ends when the step did."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coordsim.analyse.advice import advice
from coordsim.analyse.findings import find_out
from coordsim.analyse.replay import like_the_others, played, replay_of, without
from coordsim.analyse.stragglers import stragglers
from coordsim.formats.horovod import TimelineReader
from coordsim.protocol.messages import Op
from coordsim.record.breakdown import CONTROL_PARTS, breakdown, step_times
from coordsim.record.ranks import RankRecord, merge, read_folder, read_rank
from coordsim.record.ranks.merge import merge_records
from coordsim.record.store import write_run
from coordsim.report.answer import answer_screen
from coordsim.report.export import export_run
from coordsim.report.tables import Page
from real_backend.life.clocks import Offset
from real_backend.profile import marks
from real_backend.profile.launch import environment
from real_backend.profile.session import Session
from real_backend.profile.steps import StepRecorder
from real_backend.stream import Parameter, StepDetails
from tests.budget import examples
from tests.formats.chakra.chakra_schema import attributes, read_et
from tests.told import answered, told

MS = 1_000_000
TENSORS = [Parameter(name, "float32", (4,), 16) for name in ("a", "b", "c")]


def recorder(folder: Path, rank: int, ranks: int, clock: Offset | None = None, steps: int = 100) -> StepRecorder:
    return StepRecorder(
        folder, rank, ranks, job="j", settings={"control_plane": "ddp"}, steps=steps, clock=clock, clock_ns=lambda: 0
    )


def write(folder: Path, ranks: int, count: int, delay_ns: dict[tuple[int, int], int], **more: Any) -> list[RankRecord]:
    """Steps of 10 ms; ``delay_ns``: (rank, step) -> how much later its gradients are."""
    for rank in range(ranks):
        written = recorder(folder, rank, ranks, **more)
        for step in range(count):
            zero, late = step * 10 * MS, delay_ns.get((rank, step), 0)
            written.mark("forward", zero + MS)
            written.mark("backward", zero + 2 * MS)
            for index, tensor in enumerate(TENSORS):
                written.ready(tensor, zero + (3 + index) * MS + late)
            first = written.collective(Op.ALLREDUCE, TENSORS[:2], 32, zero + 4 * MS + late + 1000)
            second = written.collective(Op.ALLREDUCE, TENSORS[2:], 16, zero + 5 * MS + late + 1000)
            first.called_ns, second.called_ns = first.asked_ns + 500, second.asked_ns + 500
            last = max(delay_ns.get((each, step), 0) for each in range(ranks))
            first.end_ns, second.end_ns = zero + 5 * MS + last, zero + 7 * MS + last
            written.mark("step", zero + 8 * MS + last)
        written.close()
    return roomy(folder)


def roomy(folder: Path) -> list[RankRecord]:
    """The records as of a machine with cores to spare, whatever this one has."""
    records = read_folder(folder)
    for record in records:
        record.head["cores"] = None
    return records


def test_the_parts_of_a_step_are_what_was_written(tmp_path: Path) -> None:
    write(tmp_path, 2, 3, {(1, 2): MS})
    found = merge(tmp_path)
    parts = {name: int(column[2]) for name, column in breakdown(found.trace).items()}
    assert parts == {
        "input_stall": 3 * MS, "forward": MS, "backward": 3 * MS, "straggler_wait": MS, "cycle_wait": 0,
        "control_exchange": 0, "control_work": 0, "fusion_copy": 1500, "exposed_collective": 2 * MS - 1500,
        "optimizer": MS,
    }  # fmt: skip
    assert found.facts.last_tensors == {0: (("c", 1),), 1: (("c", 1),)}
    assert "nobody negotiates" in str(found.facts.control)


@pytest.mark.parametrize("stored", [False, True], ids=["records", "run"])
def test_a_run_that_negotiates_nothing_can_be_looked_at_with_each_collective_in_its_step(
    tmp_path: Path, stored: bool
) -> None:
    write(tmp_path / "run", 2, 3, {})
    if stored:
        merged = merge(tmp_path / "run")
        write_run(tmp_path / "stored", merged.trace, merged.facts, streams=tmp_path / "run")
    export_run(tmp_path / ("stored" if stored else "run"), "chrome", tmp_path / "run.json", range(1, 2), 1000)
    events = json.loads((tmp_path / "run.json").read_text())["traceEvents"]
    seen = [each["args"]["bytes"] for each in events if each.get("cat") == "responses"]
    assert seen == [32, 16]


@pytest.mark.parametrize("tied", [False, True], ids=["ddp", "fsdp"])
@pytest.mark.parametrize("to", ["chakra", "horovod", "perfetto", "chrome"])
def test_a_run_that_negotiates_nothing_is_exported_to_every_format(to: str, tied: bool, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    if tied:
        write_tied(tmp_path / "run", lambda rank, step: (1 + rank) * MS)
    else:
        write(tmp_path / "run", 2, 3, {(1, 2): MS})
    done = export_run(tmp_path / "run", to, tmp_path / "file", range(1, 3), 10_000)
    if to == "chakra":
        nodes = [read_et(tmp_path / f"file.{rank}.et")[1] for rank in range(2)]
        kinds = [attributes(node)["comm_type"] for node in nodes[1] if "comm_type" in attributes(node)]
        assert kinds == ([2, 2, 2, 7] if tied else [0, 0]) * 2
    elif to == "horovod":
        text = (tmp_path / "file").read_text()
        asked = ("NEGOTIATE_ALLGATHER", "NEGOTIATE_REDUCESCATTER") if tied else ("NEGOTIATE_ALLREDUCE",)
        assert all(each in text for each in asked)
        assert list(TimelineReader(tmp_path / "file"))
        assert any("nobody negotiates" in sentence for sentence in done.left_out)
    else:
        assert (tmp_path / "file").stat().st_size > 1000


def test_a_ranks_lane_shows_what_it_did_and_its_buckets(tmp_path: Path) -> None:
    write(tmp_path / "run", 2, 3, {(1, 2): MS})
    export_run(tmp_path / "run", "chrome", tmp_path / "file", range(1, 3), 10_000)
    events = json.loads((tmp_path / "file").read_text())["traceEvents"]
    (rank,) = (each["pid"] for each in events if each["name"] == "process_name" and each["args"]["name"] == "rank 0")
    tracks = {
        each["tid"]: each["args"]["name"] for each in events if each["name"] == "thread_name" and each["pid"] == rank
    }
    lanes: dict[str, list[str]] = {}
    for each in events:
        if each["ph"] == "X" and each["pid"] == rank:
            lanes.setdefault(tracks[each["tid"]], []).append(each["name"])
    assert lanes["work and wait"][:5] == ["input stall", "forward", "backward", "wait", "optimizer"]
    assert lanes["collectives"][:2] == ["bucket 0", "bucket 1"]


def test_a_rank_that_is_late_in_the_second_half_is_what_is_recommended(tmp_path: Path) -> None:
    delays = {(0, step): (step * 3 % 7 + 1) * MS // 100 for step in range(26)}
    delays |= {(1, step): 4 * MS + (step * 7 % 5) * MS // 100 for step in range(13, 26)}
    records = write(tmp_path, 2, 26, delays, clock=Offset(0, 5))
    found = find_out(merge_records(records))
    assert [unit.ranks for unit in found.stragglers.late] == [(1,)]
    assert "bring rank 1" in str(found.recommendation.change)


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_parts_sum_exactly_and_control_is_0(data: st.DataObject) -> None:
    ranks, steps = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))
    moment = st.integers(0, 9 * MS)
    with tempfile.TemporaryDirectory() as name:
        for rank in range(ranks):
            skew = data.draw(st.integers(-50 * MS, 50 * MS))
            written = recorder(Path(name), rank, ranks, Offset(skew, 5))
            for step in range(steps):
                zero = step * 10 * MS + 100 * MS
                for what in ("forward", "backward"):
                    if data.draw(st.booleans()):
                        written.mark(what, zero + data.draw(moment))
                for tensor in TENSORS:
                    written.ready(tensor, zero + data.draw(moment))
                for tensors in (TENSORS[:2], TENSORS[2:]):
                    op = data.draw(st.sampled_from([Op.ALLREDUCE, Op.ALLGATHER]))
                    each = written.collective(op, tensors, 16, zero + data.draw(moment))
                    each.known = data.draw(st.integers(0, 19)) > 0
                    each.called_ns, each.end_ns = zero + data.draw(moment), zero + data.draw(moment)
                written.mark("step", zero + 10 * MS)
            written.close()
        found = merge(Path(name))
    parts = breakdown(found.trace)
    assert (sum(parts.values()) == step_times(found.trace)).all()
    assert all((column >= 0).all() for column in parts.values())
    assert not any(parts[each].any() for each in CONTROL_PARTS)


def test_every_cut_is_read_up_to_where_it_is_whole(tmp_path: Path) -> None:
    (whole,) = write(tmp_path, 1, 4, {})
    data = whole.path.read_bytes()
    seen = set()
    for cut in range(data.index(b'"kinds"') + 60, len(data)):
        whole.path.write_bytes(data[:cut])
        found = read_rank(whole.path)
        assert found.ready == whole.ready[: len(found.ready)]
        assert found.responses == whole.responses[: len(found.responses)]
        seen.add(len(found.ready))
    assert seen == set(range(5))


def test_a_step_is_written_once_its_last_collective_is_known_to_be_over(tmp_path: Path) -> None:
    written = recorder(tmp_path, 0, 1)
    written.ready(TENSORS[0], 1)
    late = written.collective(Op.ALLREDUCE, TENSORS[:1], 16, 2)
    written.mark("step", 3)
    assert not read_folder(tmp_path)[0].steps
    late.end_ns = 4
    written.mark("forward", 5)
    assert len(read_folder(tmp_path)[0].steps) == 1


def test_the_record_ends_after_so_many_steps(tmp_path: Path) -> None:
    (record,) = write(tmp_path, 1, 9, {}, steps=4)
    assert [step.step for step in record.steps] == [0, 1, 2, 3]
    assert record.end == {"error": "", "left_out_steps": 0}


def test_on_a_gpu_ends_are_null_and_said_to_be(tmp_path: Path) -> None:
    written = recorder(tmp_path, 0, 1)
    for step in range(8):
        written.mark("forward", step * MS)
        written.mark("backward", step * MS + 1)
        written.ready(TENSORS[0], step * MS + 10)
        written.collective(Op.ALLREDUCE, TENSORS[:1], 16, step * MS + 20).known = False
        written.mark("step", step * MS + 100)
    written.close()
    trace = merge(tmp_path).trace
    assert trace.missing == {"straggler_wait", "fusion_copy", "exposed_collective"}
    assert (sum(breakdown(trace).values()) == step_times(trace)).all()
    summary = told(read_folder(tmp_path))
    assert summary["breakdown_s"]["exposed_collective"] is None
    assert summary["messages"]["bytes_median"] == 16
    assert summary["recommendation"]["change"] is None
    assert "does not say when" in summary["recommendation"]["why"]
    assert "not measured apart" in answer_screen(answered(read_folder(tmp_path)), "run", Page())


# Replays.


def test_a_replay_without_a_change_ends_when_the_step_did(tmp_path: Path) -> None:
    late = {(rank, step): (rank * 7 + step * 3) % 5 * MS // 2 for rank in range(3) for step in range(10)}
    merged = merge_records(write(tmp_path, 3, 10, late))
    replay = replay_of(merged)
    assert replay is not None
    assert played(replay).tolist() == step_times(merged.trace)[1:].tolist()


def test_a_late_rank_is_recommended_with_what_it_costs(tmp_path: Path) -> None:
    merged = merge_records(write(tmp_path, 3, 12, {(2, step): 2 * MS for step in range(12)}))
    replay = replay_of(merged)
    assert replay is not None
    before = played(replay)
    parts = ("input_stall", "forward", "backward")
    assert (before - played(replay, like_the_others(2, parts))).tolist() == [2 * MS] * 11
    assert (before - played(replay, like_the_others(1, parts))).tolist() == [0] * 11
    assert (before - played(replay, without("input_stall"))).tolist() == [MS] * 11
    found = advice(merged, stragglers(merged.records))
    assert found.saves_low <= found.saves <= found.saves_high
    assert str(found.change).startswith("bring rank 2")


def test_few_steps_predict_nothing(tmp_path: Path) -> None:
    records = write(tmp_path, 2, 5, {})
    found = advice(merge_records(records), stragglers(records))
    assert found.change is None
    assert "too few" in found.why


def test_gathers_name_who_was_waited_for_and_predict_nothing(tmp_path: Path) -> None:
    for rank in range(2):
        written = recorder(tmp_path, rank, 2)
        for step in range(8):
            zero = step * 10 * MS
            gather = written.collective(Op.ALLGATHER, TENSORS, 48, zero + rank * MS)
            gather.called_ns, gather.end_ns = zero + rank * MS, zero + 2 * MS
            for tensor in TENSORS:
                written.ready(tensor, zero + 3 * MS)
            reduce = written.collective(Op.REDUCESCATTER, TENSORS, 48, zero + 3 * MS)
            reduce.called_ns, reduce.end_ns = zero + 3 * MS, zero + 4 * MS
            written.mark("step", zero + 5 * MS)
        written.close()
    merged = merge(tmp_path)
    assert merged.facts.waited_for == ((1, 7, MS),)
    assert "gathers" in find_out(merged).recommendation.why


# The session.


def write_tied(folder: Path, work_ns: Callable[[int, int], int], ended: bool = True) -> list[RankRecord]:
    """12 steps of two ranks, each of three gathers and a reduction that end together 0.1 ms after the last call;
    ``work_ns(rank, step)`` lies before each."""
    written = [recorder(folder, rank, 2) for rank in range(2)]
    at = 0
    for step in range(12):
        for each in written:
            each.mark("forward", at)
        for place in range(4):
            called = [at + work_ns(rank, step) for rank in range(2)]
            at = max(called) + MS // 10
            for each, called_ns in zip(written, called, strict=True):
                if place == 3:
                    each.ready(TENSORS[0], called_ns)
                op = Op.REDUCESCATTER if place == 3 else Op.ALLGATHER
                one = each.collective(op, TENSORS[:1], 16, called_ns)
                one.called_ns, one.known = called_ns, ended
                one.end_ns = at if ended else one.end_ns
            if place == 1:
                for each in written:
                    each.mark("backward", at)
        for each in written:
            each.mark("step", at)
    for each in written:
        each.close()
    return roomy(folder)


def test_who_works_longest_between_gathers_is_late_although_all_gradients_come_together(tmp_path: Path) -> None:
    records = write_tied(tmp_path, lambda rank, step: (2 + rank) * MS + (step * 7 + rank * 5) % 3 * MS // 10)
    (late,) = stragglers(records).late
    assert late.ranks == (1,)
    assert late.late_s == pytest.approx(4e-3, rel=0.15)
    assert late.onset.origin == "work"


def test_ranks_alike_between_gathers_are_nobody(tmp_path: Path) -> None:
    records = write_tied(tmp_path, lambda rank, step: 2 * MS + (step * 7 + rank * 5) % 3 * MS // 10)
    found = stragglers(records)
    assert not found.late
    assert found.smallest_seen_s is not None


def test_where_ends_of_gathers_are_unknown_nobody_is_called_seen(tmp_path: Path) -> None:
    records = write_tied(tmp_path, lambda rank, _: (2 + rank) * MS, ended=False)
    wanted = "nobody: ranks wait for each other in gathers, and the end of these gathers is not known"
    assert stragglers(records).verdict == wanted


class Marks:
    def __init__(self) -> None:
        self.found: list[str] = []
        self.times_ns: list[int] = []
        self.details: list[StepDetails | None] = []

    def mark(self, what: str, now_ns: int, details: StepDetails | None = None) -> None:
        self.found.append(what)
        if what == "step":
            self.details.append(details)
        self.times_ns.append(now_ns)

    def ready(self, parameter: Parameter, now_ns: int) -> None:
        self.found.append(parameter.name)


def step_of(session: Session, optimizers: int = 1) -> None:
    """One forward pass, one backward pass, and so many optimizers."""
    model = session
    session.called(model, gradients=True)
    session.called(model, gradients=True)
    session.returned()
    session.returned()
    session.backward()
    session.backward_over()
    for number in range(optimizers):
        session.optimizer(number)
        session.optimizer_over(number)


def test_marks_count_once_a_step_and_hooks_go(tmp_path: Path) -> None:
    session, sink, removed = Session(tmp_path, 2), Marks(), []
    session.at_start(lambda: lambda: removed.append("hooks"))
    session.attach(sink)
    session.optimizer(0)
    session.optimizer_over(0)
    for _ in range(4):
        step_of(session)
    assert sink.found == ["forward", "backward", "step"] * 4
    assert removed == ["hooks"]
    session.called(session, gradients=True)
    session.stamper(TENSORS[0])(None)
    assert len(sink.found) == 12


def test_the_last_of_several_optimizers_ends_a_step(tmp_path: Path) -> None:
    at = iter(range(1000))
    session, sink = Session(tmp_path, 2, clock_ns=lambda: next(at)), Marks()
    session.attach(sink)
    for _ in range(3):
        step_of(session, optimizers=3)
    session.release()
    assert sink.found == ["forward", "backward", "step"] * 3
    kinds = [details.kind for details in sink.details if details is not None]
    assert kinds == ["optimizer 0", "optimizer 0+1+2", "optimizer 0+1+2"]
    ends, begins = sink.times_ns[2::3], sink.times_ns[3::3]
    assert [begin - end for end, begin in zip(ends, begins, strict=False)] == [5, 1]


def test_a_forward_pass_that_began_before_the_record_is_told_to_it(tmp_path: Path) -> None:
    session, sink = Session(tmp_path, 2, clock_ns=lambda: 7), Marks()
    session.without_sink = lambda: session.attach(sink)
    step_of(session)
    assert (sink.found, sink.times_ns) == (["forward", "backward", "step"], [7, 7, 7])


def test_an_engine_that_begins_later_takes_the_record_over(tmp_path: Path) -> None:
    """Both write to the file of the same rank: what was begun before must not write into it any more."""
    session, before, sink = Session(tmp_path, 9), recorder(tmp_path, 0, 1), Marks()
    session.attach(before)
    step_of(session)
    recorder(tmp_path, 0, 1).close("the engine's")
    session.attach(sink)
    step_of(session)
    before.close("too late")
    assert sink.found == ["forward", "backward", "step"]
    assert read_folder(tmp_path)[0].end == {"error": "the engine's", "left_out_steps": 0}


def test_only_the_thread_that_trains_is_listened_to(tmp_path: Path) -> None:
    session, sink = Session(tmp_path, 2), Marks()
    session.attach(sink)
    session.called(session, gradients=True)
    other = threading.Thread(target=lambda: (session.backward(), session.backward_over()))
    other.start()
    other.join()
    assert sink.found == ["forward"]


class Outer(torch.optim.SGD):
    """Has one of its own, as ZeroRedundancyOptimizer has, and something to do when that has stepped."""

    fails = False

    def __init__(self, parameters: list[torch.Tensor], after: Callable[[], None]) -> None:
        super().__init__(parameters, lr=0.1)
        self.own, self.after = torch.optim.SGD(parameters, lr=0.1), after

    def step(self, closure: Any = None) -> None:
        if self.fails:
            raise ValueError("planted")
        self.own.step()
        self.after()


def test_a_step_ends_with_the_outermost_optimizers(tmp_path: Path) -> None:
    session, sink = Session(tmp_path, 9), Marks()
    session.at_start(lambda: marks.install(session))
    weight = torch.ones(2, requires_grad=True)
    outer = Outer([weight], lambda: sink.found.append("after"))
    session.attach(sink)
    try:
        for step in range(3):
            weight.sum().backward()
            outer.fails = step == 1
            if outer.fails:
                with pytest.raises(ValueError, match="planted"):
                    outer.step()
            else:
                outer.step()
        session.release()
    finally:
        session.stop()
    assert sink.found == ["backward", "after", "step", "backward", "after", "step"]


def test_a_fault_is_told_once_and_ends_the_record(tmp_path: Path) -> None:
    messages: list[str] = []
    session = Session(tmp_path, 2, tell=messages.append)
    session.attach(Marks())

    def broken() -> None:
        raise KeyError("planted")

    assert session.quietly(broken) is None
    assert session.quietly(broken) is None
    assert session.over
    assert len(messages) == 1
    assert "KeyError" in messages[0]


def test_a_process_without_torch_loads_next_to_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; ours = [each for each in sys.modules if each.startswith('real_backend')];"
        "print('real_backend.profile.install' in ours, [each for each in ('torch', 'numpy') if each in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(tmp_path, 3), capture_output=True, text=True, check=True
    )
    assert done.stdout == "True []\n"
