"""Who is waited for: named only by evidence that is printed, on one clock and on several."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from coordsim.formats.imported import Imported
from coordsim.formats.kineto import import_traces
from tests.formats.kineto.traces import DATA, STEP_US, Event, event, nccl_call, step, trace, write
from tests.told import told_of

FSDP2 = sorted((DATA / "fsdp2").iterdir())


def test_fsdp2_names_the_rank_that_sleeps_and_for_how_long() -> None:
    found = import_traces(FSDP2)
    (late,) = found.summary["waited_for"]
    assert (late["rank"], late["steps"]) == (1, 5)
    assert late["wait_s"] == pytest.approx(0.022, abs=0.003)
    assert late["least_s"] > 5 * late["others_s"]
    assert "gathers tie ranks together" in found.unknown["gathers"]
    assert found.trace is not None
    report = told_of(found.trace, found.facts)
    assert report["straggler_wait_s"] == pytest.approx(0.0205, abs=0.001)
    assert report["waited_for"] == [{"rank": 1, "steps": 5, "wait_s": late["wait_s"]}]


def test_fsdp2s_messages_are_as_large_as_profile_says() -> None:
    found = import_traces(FSDP2)
    assert found.summary["operations"] == {"all_gather": 8, "reduce_scatter": 4}
    assert found.summary["bytes_per_step"] == 12 * 16_640
    assert found.trace is not None
    assert set(found.trace.responses["bytes"].tolist()) == {16_640}


def ranks_of(
    folder: Path, late_us: dict[int, float], *, ranks: int = 4, steps: int = 6, hosts: bool = False,
    jitter_us: float = 50.0, sequence: bool = True,
) -> list[Path]:  # fmt: skip
    """Ranks whose kernels begin when they come and end together; some are late in every step."""
    chance = random.Random(5)
    paths = []
    for rank in range(ranks):
        events: list[Event] = []
        for number in range(steps):
            at = 1_000_000.0 + number * STEP_US
            ends = at + 5000
            come = at + 1000 + late_us.get(rank, 0.0) + chance.random() * jitter_us
            events += [step(number + 3, at), *nccl_call(
                at + 500, 1000, 10 * number + 1, kernel_at=come, lasts=ends - come, group=ranks,
                sequence=number if sequence else None,
            )]  # fmt: skip
        found = trace(events, rank, ranks, baseTimeNanoseconds=10**18 + (rank * 10**12 if hosts else 0))
        found["host_name"] = f"host{rank}" if hosts else "host"
        paths.append(write(folder / f"rank{rank}.json", found))
    return paths


def named(found: Imported) -> list[int]:
    return [late["rank"] for late in found.summary["waited_for"]]


@pytest.mark.parametrize("hosts", [False, True])
@pytest.mark.parametrize("sequence", [False, True])
@pytest.mark.parametrize("late", [0, 2, 3])
def test_a_late_rank_is_named_with_its_wait(hosts: bool, sequence: bool, late: int, tmp_path: Path) -> None:
    found = import_traces(ranks_of(tmp_path, {late: 2000.0}, hosts=hosts, sequence=sequence))
    assert named(found) == [late]
    assert found.summary["waited_for"][0]["wait_s"] == pytest.approx(0.002, rel=0.05)
    assert ("durations" in found.unknown.get("waited_for", "")) == hosts


@pytest.mark.parametrize("hosts", [False, True])
@pytest.mark.parametrize("ranks", [2, 4, 8])
@pytest.mark.parametrize("jitter_us", [50.0, 2000.0])
def test_of_equal_ranks_nobody_is_named(hosts: bool, ranks: int, jitter_us: float, tmp_path: Path) -> None:
    found = import_traces(ranks_of(tmp_path, {}, ranks=ranks, hosts=hosts, jitter_us=jitter_us))
    assert found.summary["waited_for"] == []
    assert found.facts.waited_for is None
    assert "no rank is waited for" in found.unknown["waited_for"]


def test_ranks_that_take_turns_are_nobody(tmp_path: Path) -> None:
    paths = []
    for rank in range(2):
        events: list[Event] = []
        for number in range(6):
            at = 1_000_000.0 + number * STEP_US
            come = at + 1000 + (3000.0 if number % 2 == rank else 0.0)
            events += [step(number, at), *nccl_call(at + 500, 10, 10 * number + 1, kernel_at=come, group=2)]
        paths.append(write(tmp_path / f"rank{rank}.json", trace(events, rank, 2)))
    found = import_traces(paths)
    assert found.summary["waited_for"] == []
    assert [row["waited_for_s"] for row in found.summary["by_rank"]] == [pytest.approx(0.0015)] * 2


def test_too_few_steps_name_nobody(tmp_path: Path) -> None:
    found = import_traces(ranks_of(tmp_path, {1: 3000.0}, steps=3))
    assert found.summary["waited_for"] == []
    assert "with 3 steps chance alone" in found.unknown["waited_for"]
    assert found.summary["by_rank"][1]["waited_for_s"] == pytest.approx(0.003, rel=0.05)


def test_an_absent_rank_may_be_the_last_so_nobody_is_named(tmp_path: Path) -> None:
    found = import_traces(ranks_of(tmp_path, {1: 3000.0})[:3])
    assert found.summary["waited_for"] is None
    assert "not all ranks of any group have a trace" in found.unknown["waited_for"]


def grouped(rank: int, late_us: float) -> dict[str, Any]:
    """Two groups that share a name, {0, 1} and {2, 3}, each with its own gather."""
    ranks = [rank // 2 * 2, rank // 2 * 2 + 1]
    events: list[Event] = []
    for number in range(6):
        at = number * STEP_US
        come = at + 500 + (late_us if rank == 3 else 0.0)
        events += [step(number, at), event("cpu_op", "c10d::_allgather_base_", come, 30.0, External_id=number),
                   event("cpu_op", "record_param_comms", come + 5, 20.0, Collective_name="_allgather_base", Seq=number,
                         In_msg_nelems=5, Out_msg_nelems=10, dtype="Float", Process_Group_Name="tp", Group_size=2,
                         Process_Group_Ranks=str(ranks))]  # fmt: skip
    return trace(events, rank, 4, baseTimeNanoseconds=10**18)


def test_groups_that_share_a_name_are_not_mixed(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"rank{rank}.json", grouped(rank, 4000.0)) for rank in range(4)]
    found = import_traces(paths)
    assert named(found) == [3]
    assert [row["waited_for_s"] for row in found.summary["by_rank"]] == [0.0, 0.0, 0.0, pytest.approx(0.004)]


def test_sends_and_receives_accuse_nobody(tmp_path: Path) -> None:
    paths = []
    for rank in range(2):
        events: list[Event] = []
        for number in range(6):
            at = number * STEP_US
            title = "nccl:send 0->1" if rank == 0 else "nccl:recv 1<-0"
            events += [step(number, at), event("user_annotation", title, at + 100 + 4000 * rank, 30.0, Input_Dims=[[9]],
                                               Input_type=["float"])]  # fmt: skip
        paths.append(write(tmp_path / f"rank{rank}.json", trace(events, rank, 2)))
    found = import_traces(paths)
    assert found.summary["waited_for"] is None
    assert found.summary["bytes_per_step"] == 36


@pytest.mark.parametrize("hosts", [False, True])
def test_several_collectives_that_wait_for_one_rank_at_once_wait_once(hosts: bool, tmp_path: Path) -> None:
    """Four buckets, 0.1 ms apart, all asked for before rank 1 comes, 4 ms late: it is waited for 4.3 ms, not 16."""
    paths = []
    for rank in range(2):
        events: list[Event] = []
        for number in range(5):
            at = 1_000_000.0 + number * STEP_US
            events.append(step(number, at))
            for bucket in range(4):
                asked = at + 1000 + 100 * bucket + 4000 * rank
                ends = at + 5300 + 100 * bucket
                events.append(event("user_annotation", "gloo:all_reduce", asked, ends - asked, tid=9 + bucket,
                                    Input_Dims=[[10 + bucket]], Input_type=["float"]))  # fmt: skip
        found = trace(events, rank, 2, baseTimeNanoseconds=10**18 + (rank * 10**12 if hosts else 0))
        found["host_name"] = f"host{rank}" if hosts else "host"
        paths.append(write(tmp_path / f"rank{rank}.json", found))
    (late,) = import_traces(paths).summary["waited_for"]
    assert late["rank"] == 1
    assert late["wait_s"] == pytest.approx(0.0043, abs=1e-5)


def test_of_one_rank_of_an_unknown_number_nobody_is_last(tmp_path: Path) -> None:
    events = [event("user_annotation", "gloo:all_reduce", 500.0 + number * STEP_US, tid=9, Input_Dims=[[9]],
                    Input_type=["float"]) for number in range(3)]  # fmt: skip
    events += [step(number, number * STEP_US) for number in range(3)]
    found = import_traces([write(tmp_path / "t.json", trace(events, None))])
    assert "how many ranks" in found.unknown["straggler_wait"]
    assert found.trace is not None
    report = told_of(found.trace, found.facts)
    assert report["straggler_wait_s"] is None
    assert "how many ranks the job has is not recorded" in found.unknown["last"]
