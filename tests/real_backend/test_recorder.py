"""What a real run leaves behind: readable after a kill, bounded, merged into a trace whose parts sum exactly."""

from __future__ import annotations

import json
import resource
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import real_backend as rb
from coordsim.errors import InputError
from coordsim.protocol.messages import Request
from coordsim.record.breakdown import PARTS, breakdown, step_times
from coordsim.record.manifest import manifest_of
from coordsim.record.ranks import merge, read_folder, read_rank
from coordsim.record.ranks.format import MAGIC, SENT, Block, block, blocks
from coordsim.record.store import read_run, write_run
from coordsim.record.trace import Kind
from real_backend.control.stores import FolderStore
from real_backend.engine.assembly import assemble
from real_backend.engine.engine import Engine
from real_backend.engine.settings import EngineSettings
from tests.real_backend.processes import Job, run


def steps(count: int, late_ms: float = 0.0, marks: bool = False) -> list[float]:
    """A static model; the last rank is ``late_ms`` late. Wall clock of each step, s."""
    rb.init()
    engine = rb.default_engine()
    took = []
    for _ in range(count):
        began = time.perf_counter()
        if marks:
            engine.mark("forward")
            time.sleep(0.004)
            engine.mark("backward")
        if rb.rank() == rb.size() - 1:
            time.sleep(late_ms / 1000)
        handles = [rb.allreduce_async(torch.ones(64), f"t{index}") for index in range(20)]
        for handle in handles:
            handle.wait()
        if marks:
            time.sleep(0.003)
            engine.mark("step")
        took.append(time.perf_counter() - began)
    rb.shutdown()
    return took


def test_parts_sum_exactly_and_the_late_rank_is_named(tmp_path: Path) -> None:
    run(3, steps, 15, 20.0, env={"COORDSIM_RECORD": str(tmp_path)})
    found = merge(tmp_path)
    parts = breakdown(found.trace)
    assert (sum(parts.values()) == step_times(found.trace)).all()
    assert all((column >= 0).all() for column in parts.values())
    assert found.first_step == 0
    assert found.trace.steps["step"].size == 15
    assert (found.trace.steps["ready_last_rank"][1:] == 2).all()
    assert np.median(parts["straggler_wait"][1:]) >= 14e6  # the others come late as well, on a busy machine
    assert (found.trace.responses["bytes"].sum()) == 15 * 20 * 64 * 4


def test_what_nobody_measured_is_missing_not_zero(tmp_path: Path) -> None:
    run(2, steps, 6, env={"COORDSIM_RECORD": str(tmp_path)})
    found = merge(tmp_path)
    assert found.trace.missing == {"input_stall", "forward"}
    assert set(breakdown(found.trace)) == set(PARTS) - found.trace.missing
    assert "nobody marked" in found.facts.missing["forward"]


def test_marks_tell_forward_and_optimizer_apart(tmp_path: Path) -> None:
    run(2, steps, 8, 0.0, True, env={"COORDSIM_RECORD": str(tmp_path)})
    found = merge(tmp_path)
    parts = breakdown(found.trace)
    assert not found.trace.missing
    assert (sum(parts.values()) == step_times(found.trace)).all()
    assert np.median(parts["forward"]) >= 4e6
    assert np.median(parts["optimizer"]) >= 3e6


def test_a_merged_run_is_stored_and_read_like_a_simulated_one(tmp_path: Path) -> None:
    run(2, steps, 5, env={"COORDSIM_RECORD": str(tmp_path / "ranks")})
    found = merge(tmp_path / "ranks")
    write_run(tmp_path / "run", found.trace, found.facts)
    trace, facts, _ = read_run(tmp_path / "run")
    assert trace.digest() == found.trace.digest()
    assert trace.missing == found.trace.missing
    assert facts == found.facts
    assert facts.clocks[1].error_ns > 0


def test_a_killed_process_leaves_what_it_had_written(tmp_path: Path) -> None:
    job = Job(2, steps, 10_000, env={"COORDSIM_RECORD": str(tmp_path), "COORDSIM_PEER_TIMEOUT": "3s"})
    written = tmp_path / "rank-00001.rank"
    while time.monotonic() < job.began + 30 and (not written.exists() or written.stat().st_size < 60_000):
        time.sleep(0.05)
    job.kill(1, signal.SIGKILL)
    outcomes = job.outcomes()
    assert "rank 1 was lost" in outcomes[0].error
    alive, dead = read_folder(tmp_path)
    assert dead.end is None
    assert "rank 1 was lost" in (alive.end or {})["error"]
    assert len(dead.steps) > 20
    assert abs(len(dead.steps) - len(alive.steps)) <= 2
    found = merge(tmp_path)
    assert found.facts.ended_early == (1,)
    assert (sum(breakdown(found.trace).values()) == step_times(found.trace)).all()


def test_every_cut_of_a_stream_is_read_up_to_where_it_is_whole(tmp_path: Path) -> None:
    run(1, steps, 2, env={"COORDSIM_RECORD": str(tmp_path)})
    path = next(tmp_path.glob("*.rank"))
    data = path.read_bytes()
    whole = read_rank(path)
    head = data.index(b"}}", data.index(b'"kinds"')) + 2
    seen = set()
    for cut in range(head, len(data), 7):
        path.write_bytes(data[:cut])
        found = read_rank(path)
        seen.add(len(found.cycles))
        assert found.cycles == whole.cycles[: len(found.cycles)]
        assert found.steps == whole.steps[: len(found.steps)]
    assert seen == set(range(len(whole.cycles) + 1))
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 0xFF
    path.write_bytes(damaged)
    assert read_rank(path).lost_bytes > 0


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "no rank's record"), (b"[1, 2", "no rank's record"), (b"coordsim rank record 1\n", "without a head")],
)
def test_what_is_no_record_is_said_to_be_none(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "rank-00000.rank").write_bytes(data)
    with pytest.raises(InputError, match=message):
        merge(tmp_path)


def test_a_folder_without_records_and_one_of_two_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder with ranks' records"):
        merge(tmp_path)
    run(1, steps, 2, env={"COORDSIM_RECORD": str(tmp_path)})
    (tmp_path / "rank-00000.rank").rename(tmp_path / "rank-00009.rank")
    run(2, steps, 2, env={"COORDSIM_RECORD": str(tmp_path)})
    with pytest.raises(InputError, match="record of another run"):
        merge(tmp_path)


def test_only_first_and_worst_steps_and_sampled_ranks_have_details(tmp_path: Path) -> None:
    run(4, steps, 60, env={
        "COORDSIM_RECORD": str(tmp_path), "COORDSIM_RECORD_FIRST_STEPS": "5", "COORDSIM_RECORD_WORST_STEPS": "2",
        "COORDSIM_RECORD_SAMPLED_RANKS": "2",
    })  # fmt: skip
    records = read_folder(tmp_path)
    assert [record.rank for record in records if record.head["detailed"]] == [0, 2]
    for record in records:
        assert [step.step for step in record.steps] == list(range(60))
        detailed = [step.step for step in record.steps if step.detailed]
        if record.head["detailed"]:
            assert detailed[:5] == [0, 1, 2, 3, 4]
            assert 7 <= len(detailed) <= 5 + 20
            assert {cycle.step for cycle in record.cycles} == set(detailed)
            assert record.end is not None
            assert record.end["left_out_steps"] == 60 - len(detailed)
        else:
            assert not detailed
            assert not record.cycles
    found = merge(tmp_path, range(5))
    assert found.facts.ranks_with_details == (0, 2)
    assert found.trace.steps["step"].size == 5
    assert (sum(breakdown(found.trace).values()) == step_times(found.trace)).all()


def test_a_stream_stops_growing_at_its_limit(tmp_path: Path) -> None:
    env = {"COORDSIM_RECORD": str(tmp_path), "COORDSIM_RECORD_MAX": "20kB", "COORDSIM_RECORD_FIRST_STEPS": "1000"}
    run(1, steps, 200, env=env)
    path = next(tmp_path.glob("*.rank"))
    assert path.stat().st_size <= 20_000
    assert 0 < len(read_rank(path).steps) < 200


def steps_on_a_small_disk(count: int) -> int:
    resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, 6_000))
    return len(steps(count))


def test_a_full_disk_ends_the_record_and_not_the_job(tmp_path: Path) -> None:
    assert run(2, steps_on_a_small_disk, 30, env={"COORDSIM_RECORD": str(tmp_path)}) == [30, 30]
    for path in tmp_path.glob("*.rank"):
        assert path.stat().st_size <= 6_000
        assert read_rank(path).end is None


def test_a_record_that_cannot_be_begun_is_an_error_before_the_job(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AssertionError, match="NotADirectoryError"):
        run(1, steps, 5, env={"COORDSIM_RECORD": str(tmp_path / "file" / "x")})


# Clocks, without processes: engines in threads, each with a clock of its own.


def engines(folder: Path, skews_ns: list[int], **changes: Any) -> list[Engine]:
    settings = EngineSettings(data="none", interface="127.0.0.1", **changes)
    found: list[Any] = [None] * len(skews_ns)

    def start(rank: int, skew_ns: int) -> None:
        mine = replace(settings, record=str(folder / "records"))
        clock = lambda: time.perf_counter_ns() + skew_ns  # noqa: E731
        found[rank] = assemble(mine, FolderStore(folder), rank, len(skews_ns), job=str(folder), clock_ns=clock)
        found[rank].start()

    threads = [threading.Thread(target=start, args=each) for each in enumerate(skews_ns)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def all_of(engines_: list[Engine], call: Any) -> None:
    threads = [threading.Thread(target=call, args=(engine,)) for engine in engines_]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("radix", [0, 1])
def test_clocks_that_differ_are_found_and_corrected(
    radix: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("real_backend.engine.assembly._generations", {str(tmp_path): 0})
    monkeypatch.setattr("real_backend.engine.assembly._generation", lambda job: 1)
    skews = [0, 3_600_000_000_000, -5_000_000_000]
    running = engines(tmp_path, skews, radix=radix)
    deadline = time.monotonic() + 10
    while any(not engine.life.measured for engine in running if engine.life) and time.monotonic() < deadline:
        time.sleep(0.01)

    def work(engine: Engine) -> None:
        for _ in range(5):
            handles = [engine.submit([(Request(f"t{index}", shape=(4,)), 1, None)]) for index in range(3)]
            for handle in handles:
                handle.wait(20)
        engine.shut_down()

    all_of(running, work)
    for engine, skew in zip(running, skews, strict=True):
        assert engine.life is not None
        clock = engine.life.clock
        assert clock is not None
        assert abs(clock.offset_ns + skew) <= clock.error_ns
        assert clock.error_ns < 50_000_000
    found = merge(tmp_path / "records")
    parts = breakdown(found.trace)
    assert (sum(parts.values()) == step_times(found.trace)).all()
    assert step_times(found.trace).max() < 5_000_000_000
    assert found.trace.steps["start_ns"].min() >= 0
    assert json.dumps(manifest_of(found.facts), allow_nan=False)


# What a rank sent.


@pytest.mark.parametrize("ranks", [2, 3])
def test_what_a_rank_sent_is_counted_by_cycle(ranks: int, tmp_path: Path) -> None:
    """A star, reductions over gloo: vectors of 8 bytes, up from each rank and down to it, and lists when it is slow."""
    run(ranks, steps, 4, env={"COORDSIM_RECORD": str(tmp_path), "COORDSIM_SMALL": "0"})
    for record in read_folder(tmp_path):
        messages = 1 if record.rank else ranks - 1
        for each in record.cycles:
            assert each.sent is not None
            slow = each.kind in (Kind.SLOW, Kind.INVALIDATE)
            assert each.sent.messages == messages * (1 + slow)
            assert (each.sent.nbytes == messages * 8) is not slow
        for idle in record.idle:
            assert idle.sent is not None
            assert idle.sent[:2] == (idle.cycles * messages, idle.cycles * messages * 8)


def test_a_library_that_sends_is_not_counted(tmp_path: Path) -> None:
    env = {"COORDSIM_CONTROL": "gloo", "COORDSIM_CYCLE_TIME": "1ms"}
    run(2, steps, 3, env={"COORDSIM_RECORD": str(tmp_path), **env})
    for record in read_folder(tmp_path):
        assert record.cycles
        assert all(each.sent is None for each in (*record.cycles, *record.idle))


def test_a_record_of_the_first_schema_is_read(tmp_path: Path) -> None:
    """It had no counts of what was sent; the rest is the same."""
    run(2, steps, 3, env={"COORDSIM_RECORD": str(tmp_path)})
    for path in tmp_path.glob("*.rank"):
        new = read_rank(path)
        old = bytearray(MAGIC)
        for kind, payload in blocks(memoryview(path.read_bytes())[len(MAGIC) :]):
            data = bytes(payload)
            if kind is Block.HEAD:
                data = json.dumps(json.loads(data) | {"schema": "coordsim.rank/1"}).encode()
            elif kind in (Block.CYCLE, Block.IDLE):
                data = data[: -SENT.size]
            old += block(kind, data)
        path.write_bytes(old)
        read = read_rank(path)
        assert read.head["schema"] != new.head["schema"]
        assert read.cycles == [each._replace(sent=None) for each in new.cycles]
        assert read.idle == [each._replace(sent=None) for each in new.idle]
        assert (read.steps, read.responses, read.lost_bytes) == (new.steps, new.responses, 0)
    assert merge(tmp_path).trace.steps["step"].size == 3
