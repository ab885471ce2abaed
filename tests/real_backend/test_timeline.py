"""Rank 0's timeline of a real job: what Horovod's would hold, valid whenever one looks."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import real_backend as rb
from coordsim.analyse.validate.decisions import compare_decisions
from tests.real_backend.processes import Job, run

STEPS, TENSORS = 4, 3


def train(steps: int = STEPS) -> None:
    rb.init()
    for step in range(steps):
        handles = [rb.allreduce_async(torch.ones(2, 3), f"t{index}") for index in range(TENSORS)]
        for handle in handles:
            handle.wait()
        if step == 0:
            with pytest.raises(rb.CollectiveFailed):
                rb.allreduce(torch.ones(1 + rb.rank()), "wrong")
            rb.broadcast(torch.ones(2), 0, "b")
            rb.barrier("here")
    rb.shutdown()


def traced(folder: Path, ranks: int = 2, **env: str) -> list[dict[str, Any]]:
    path = folder / "t.json"
    run(ranks, train, env={"COORDSIM_TIMELINE": str(path), "COORDSIM_TIMELINE_MARK_CYCLES": "on", **env})
    found: list[dict[str, Any]] = json.loads(path.read_text())
    return found


def named(events: list[dict[str, Any]]) -> dict[int, str]:
    """Tensor by pid."""
    return {
        each["pid"]: each["args"]["name"]
        for each in events if each["ph"] == "M" and each["name"] == "process_name" and each["pid"]
    }  # fmt: skip


def test_b37_negotiation_operation_and_cycle_marks(tmp_path: Path) -> None:
    events = traced(tmp_path)
    assert {f"allreduce.t{index}" for index in range(TENSORS)} <= set(named(events).values())
    names = Counter(each.get("name") for each in events)
    assert names["NEGOTIATE_ALLREDUCE"] == STEPS * TENSORS + 1
    assert names["ALLREDUCE"] == STEPS * TENSORS
    assert names["ERROR"] == 1
    assert names["BROADCAST"] == names["NEGOTIATE_BARRIER"] == 1
    assert names["CYCLE_START"] >= STEPS
    header = events[0]["args"]["start_time_since_epoch_in_micros"]
    assert abs(header / 1e6 - time.time()) < 600


def test_b39_events_balance_and_ticks_are_one_a_rank_in_slow_negotiations_only(tmp_path: Path) -> None:
    events = traced(tmp_path, ranks=4)
    open_events: dict[int, list[str]] = {}
    last: dict[int, int] = {}
    ticks: Counter[int] = Counter()
    for each in events:
        pid = each.get("pid")
        if each["ph"] in "BEX":
            assert isinstance(pid, int)
            assert pid >= 1
            assert "tid" not in each
            assert each["ts"] >= last.get(pid, 0)
            last[pid] = each["ts"]
        if each["ph"] == "B":
            open_events.setdefault(pid, []).append(each["name"])  # type: ignore[arg-type]
        elif each["ph"] == "E":
            open_events[pid].pop()  # type: ignore[index]
        elif each["ph"] == "X":
            ticks[pid] += 1  # type: ignore[index]
    assert not any(open_events.values())
    assert set(ticks.values()) == {4}, "each tensor is negotiated slowly once"


@pytest.mark.parametrize(
    "env", [{}, {"COORDSIM_CYCLE_TIME": "1ms"}, {"COORDSIM_CONTROL_PLANE": "coordinator"}], ids=str
)
def test_the_protocol_makes_the_same_messages_of_it(env: dict[str, str], tmp_path: Path) -> None:
    traced(tmp_path, 3, **env)
    capacity = 0 if "COORDSIM_CONTROL_PLANE" in env else 1024
    found = compare_decisions(tmp_path / "t.json", cache_capacity=capacity, fusion_threshold_bytes=128 << 20)
    assert found.missed == []
    assert found.mismatched_cycles == 0
    assert found.same_kind == found.active_cycles


def test_b39_a_killed_process_leaves_a_file_that_parses(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    job = Job(2, train, 100_000, env={"COORDSIM_TIMELINE": str(path), "COORDSIM_PEER_TIMEOUT": "3s"})
    while not path.exists() or path.stat().st_size < 20_000:
        time.sleep(0.05)
    job.kill(0, signal.SIGKILL)
    job.outcomes()
    assert len(json.loads(path.read_text())) > 100


def start_and_stop(folder: Path) -> None:
    rb.init()
    for name in ("one.json", "one.json", "two.json"):
        rb.start_timeline(folder / name, mark_cycles=name == "two.json")
        for _ in range(2):
            rb.allreduce(torch.ones(2), "t")
        if name == "two.json":
            rb.stop_timeline()
            rb.barrier("so that a cycle begins after it")
    rb.allreduce(torch.ones(2), "unseen")
    if rb.rank() == 0:
        with pytest.raises(OSError, match="nowhere"):
            rb.start_timeline(folder / "nowhere" / "t.json")
    rb.shutdown()


def test_b38_it_may_be_started_and_stopped_while_the_job_runs(tmp_path: Path) -> None:
    run(2, start_and_stop, tmp_path)
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("one.json", "two.json"))
    assert Counter(each.get("name") for each in one)["ALLREDUCE"] == 4
    assert Counter(each.get("name") for each in two)["ALLREDUCE"] == 2
    assert any(each.get("name") == "CYCLE_START" for each in two)
    assert not any(each.get("name") == "CYCLE_START" for each in one)
    assert "allreduce.unseen" not in named(two).values()


def test_only_rank_0_writes_one(tmp_path: Path) -> None:
    traced(tmp_path, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["t.json"]
