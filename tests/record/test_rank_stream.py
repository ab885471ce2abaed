"""A rank's stream, written and read back: spans, CPU time, names, how the process ended; and other versions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coordsim.errors import InputError
from coordsim.record.ranks import read_rank
from coordsim.record.ranks.format import CPU_WITHOUT_WAIT, MAGIC, SPANS, STEP, Block, block, blocks
from coordsim.record.ranks.reader import CpuTimes, Ended, RankRecord, Span, SpanKind
from real_backend.stream import RankStream, StepDetails, Writer

SPANS_OF_STEP_0 = (
    Span(SpanKind.INPUT, 0, 10, 20), Span(SpanKind.FORWARD, 0, 20, 50), Span(SpanKind.BACKWARD, 0, 50, 90),
    Span(SpanKind.OPTIMIZER, 0, 95, 99),
)  # fmt: skip
CPU_OF_STEP_0 = CpuTimes(60, 5, 130, 17)


def step_block(number: int) -> bytes:
    return block(Block.STEP, STEP.pack(number, 20, 50, 60, 90, 92, 99, 0, 1, 0, 1))


def write(folder: Path) -> Path:
    stream = RankStream(folder, Writer(0, 1, "j", {}, {}, True), max_bytes=1 << 20, clock_ns=lambda: 7)
    names = [("optimizers", "SGD"), ("models", "Sequential")]
    stream.step_details(0, StepDetails("optimizer 0", SPANS_OF_STEP_0, CPU_OF_STEP_0, names))
    stream.add(step_block(0))
    stream.step_details(1, StepDetails("optimizer 1", (), None, [("optimizers", "Adam")]))
    stream.add(step_block(1))
    stream.add(step_block(2))
    stream.end(error="", left_out_steps=0)
    stream.ended("sys.exit", code=5)
    return stream.path


def edited_head(path: Path, **changes: object) -> None:
    data = bytearray(MAGIC)
    for kind, payload in blocks(memoryview(path.read_bytes())[len(MAGIC) :]):
        own = bytes(payload)
        data += block(kind, json.dumps(json.loads(own) | changes).encode() if kind is Block.HEAD else own)
    path.write_bytes(data)


def read(folder: Path) -> RankRecord:
    return read_rank(write(folder))


def test_spans_cpu_times_and_kinds_of_steps_are_read_as_they_were_written(tmp_path: Path) -> None:
    first, second, third = read(tmp_path).steps
    assert (first.spans, first.cpu, first.step_kind) == (SPANS_OF_STEP_0, CPU_OF_STEP_0, "optimizer 0")
    assert (second.spans, second.cpu, second.step_kind) == ((), None, "optimizer 1")
    assert (third.spans, third.cpu, third.step_kind) == ((), None, "")


def test_a_wait_for_a_core_that_is_not_known_stays_unknown(tmp_path: Path) -> None:
    stream = RankStream(tmp_path, Writer(0, 1, "j", {}, {}, True), max_bytes=1 << 20, clock_ns=lambda: 7)
    stream.step_details(0, StepDetails("optimizer 0", (), CpuTimes(60, 5, 130, None), []))
    stream.add(step_block(0))
    stream.add(block(Block.CPU, CPU_WITHOUT_WAIT.pack(1, 61, 6, 131)))  # as early records of version 3 have it
    stream.add(step_block(1))
    stream.end(error="", left_out_steps=0)
    assert [step.cpu for step in read_rank(stream.path).steps] == [CpuTimes(60, 5, 130), CpuTimes(61, 6, 131)]


def test_names_are_listed_in_order_of_first_sight(tmp_path: Path) -> None:
    assert read(tmp_path).head["kinds"] == {"optimizers": ["SGD", "Adam"], "models": ["Sequential"]}


def test_how_the_process_ended_is_added_to_the_end_of_the_record(tmp_path: Path) -> None:
    record = read(tmp_path)
    assert record.end is not None
    assert (record.end["error"], record.end["left_out_steps"]) == ("", 0)
    assert record.ended is not None
    assert record.ended == Ended("sys.exit", 5, None, "", record.ended.unix_ns)
    assert record.ended.unix_ns is not None
    assert record.ended.unix_ns > 0


def test_the_head_says_which_cores_and_threads_the_rank_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 1})
    head = read(tmp_path).head
    assert (head["cores"], head["local_ranks"]) == ([1, 3], 4)
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert read(tmp_path).head["local_ranks"] is None


def test_a_torn_stream_keeps_every_step_whose_block_is_whole(tmp_path: Path) -> None:
    path = write(tmp_path)
    data = path.read_bytes()
    whole = read_rank(path)
    lengths = set()
    for cut in range(data.index(b'"kinds"') + 60, len(data)):
        path.write_bytes(data[:cut])
        steps = read_rank(path).steps
        assert steps == whole.steps[: len(steps)]
        lengths.add(len(steps))
    assert lengths == {0, 1, 2, 3}


def test_a_count_of_spans_that_cannot_be_true_is_damage(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_bytes(path.read_bytes() + block(Block.SPANS, SPANS.pack(3, 1 << 31)))
    record = read_rank(path)
    assert len(record.steps) == 3
    assert "(SPANS) is damaged: step 3: 2147483648 spans do not fit into a block of 12 bytes" in str(record.damage)


def test_a_record_of_the_second_schema_is_read(tmp_path: Path) -> None:
    path = write(tmp_path)
    data = bytearray(MAGIC)
    for kind, payload in blocks(memoryview(path.read_bytes())[len(MAGIC) :]):
        own = bytes(payload)
        if kind is Block.HEAD:
            head = json.loads(own) | {"schema": "coordsim.rank/2"}
            for key in ("cores", "threads", "local_ranks", "kinds"):
                del head[key]
            own = json.dumps(head).encode()
        if kind not in (Block.SPANS, Block.CPU, Block.NAME):
            data += block(kind, own)
    path.write_bytes(data)
    steps = read_rank(path).steps
    assert [(step.step, step.spans, step.cpu) for step in steps] == [(0, (), None), (1, (), None), (2, (), None)]


def test_a_later_schema_is_refused_by_its_name(tmp_path: Path) -> None:
    path = write(tmp_path)
    edited_head(path, schema="coordsim.rank/4")
    with pytest.raises(InputError, match=r"coordsim\.rank/4 is written by a later coordsim"):
        read_rank(path)
    edited_head(path, schema="other/1")
    with pytest.raises(InputError, match="unknown schema"):
        read_rank(path)
