"""Simulator and backend are one protocol: what real ranks popped, replayed by cycle, makes the same schedules.

The record says what each rank popped in each cycle. The simulator's negotiators are given just that, in lock-step, and
must come to the same schedules, slow and fast cycles and response caches as the real ranks did. Times are judged
elsewhere.
"""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import real_backend as rb
from coordsim.analyse.messages import request_of
from coordsim.protocol.fusion import rounded_threshold
from coordsim.protocol.groups import GroupTable
from coordsim.protocol.lockstep import LockStep
from coordsim.protocol.negotiator import Settings
from coordsim.record.ranks import RankRecord, read_folder
from coordsim.record.trace import Kind, schedule_hash
from tests.real_backend.processes import run

STEPS = 12


def work(kind: str) -> None:
    """``STEPS`` steps, with what a real job may do: stragglers, orders that differ, new names, other shapes, groups."""
    rb.init()
    rank = rb.rank()
    dice = random.Random(rank if kind == "random" else 0)
    for step in range(STEPS):
        if kind == "random":
            time.sleep(dice.random() * 0.01)
        names = list(range(12))
        if kind == "random":
            dice.shuffle(names)
        handles = []
        if kind == "groups":
            for group in range(4):
                members = [torch.ones(3 + group) for _ in range(3)]
                handles.append(rb.grouped_allreduce_async(members, f"g{group}"))
                time.sleep(0.0005 * rank)
        else:
            for name in names:
                size = 9 if kind == "shapes" and step == 6 and name == 4 else name + 1
                handles.append(rb.allreduce_async(torch.ones(size), f"t{name}"))
                if kind == "random" and dice.random() < 0.2:
                    time.sleep(0.002)
        if kind == "mixed":
            handles.append(rb.broadcast_async(torch.ones(2), step % rb.size(), "b"))
            handles.append(rb.allgather_async(torch.ones(rank + 1), "g"))
            handles.append(rb.allreduce_async(torch.ones(2, dtype=torch.float64), f"only in step {step}"))
        for handle in handles:
            handle.wait()
    rb.shutdown()


def replay(records: list[RankRecord], plane: str, settings: Settings) -> list[str]:
    """Drive the negotiators with the recorded pops; what differs, in words."""
    job = LockStep(plane, settings)
    by_rank = [{cycle.cycle: cycle for cycle in record.cycles} for record in records]
    different = []
    for number in sorted(set().union(*by_rank)):
        for rank, cycles in enumerate(by_rank):
            if number in cycles:
                for tensor in cycles[number].popped:
                    request = request_of(records[rank].tensors[tensor])
                    if request.name in job.queues[rank]:
                        return [*different, f"cycle {number}, rank {rank}: {request.name} has not ended here"]
                    job.submit(rank, request)
        schedule = job.cycle()
        for rank, cycles in enumerate(by_rank):
            real = cycles.get(number)
            where = f"cycle {number}, rank {rank}"
            if real is None:
                if schedule.responses:
                    different.append(f"{where}: idle, but {schedule.responses} is scheduled")
                continue
            names = [response.names for response in schedule.responses]
            if real.schedule_hash != schedule_hash(names):
                different.append(f"{where}: another schedule than {names}")
            if (real.kind in (Kind.SLOW, Kind.INVALIDATE)) != schedule.slow:
                different.append(f"{where}: {Kind(real.kind).name}, slow here: {schedule.slow}")
            if (real.kind == Kind.INVALIDATE) != schedule.invalidated:
                different.append(f"{where}: {Kind(real.kind).name}, invalidated here: {schedule.invalidated}")
            if real.hits_common != schedule.hits_common:
                different.append(f"{where}: {real.hits_common} common hits, {schedule.hits_common} here")
            if plane == "cached" and real.digest != job.negotiators[rank].cache.digest():
                different.append(f"{where}: another cache")
    return different


def recorded(folder: Path, ranks: int, kind: str, **env: str) -> list[RankRecord]:
    run(ranks, work, kind, env={
        "COORDSIM_RECORD": str(folder), "COORDSIM_RECORD_DIGESTS": "on", "COORDSIM_RECORD_FIRST_STEPS": "1000", **env,
    })  # fmt: skip
    records = read_folder(folder)
    assert [record.rank for record in records] == list(range(ranks))
    assert all(record.end == {"error": "", "left_out_steps": 0} for record in records)
    return records


CASES = [
    ("static", "cached", {}),
    ("random", "cached", {}),
    ("random", "cached", {"COORDSIM_CACHE_CAPACITY": "7"}),
    ("random", "cached", {"COORDSIM_CYCLE_TIME": "1ms"}),
    ("random", "cached", {"COORDSIM_FUSION_THRESHOLD": "100B"}),
    ("shapes", "cached", {}),
    ("mixed", "cached", {}),
    ("groups", "cached", {}),
    ("groups", "cached", {"COORDSIM_STRICT_GROUPS": "on"}),
    ("random", "coordinator", {}),
    ("random", "hierarchical", {"COORDSIM_RADIX": "2"}),
]


@pytest.mark.parametrize(("kind", "plane", "env"), CASES)
@pytest.mark.parametrize("ranks", [2, 4])
def test_replayed_pops_make_the_same_schedules(
    ranks: int, kind: str, plane: str, env: dict[str, str], tmp_path: Path
) -> None:
    records = recorded(tmp_path, ranks, kind, COORDSIM_CONTROL_PLANE=plane, **env)
    facts = records[0].head["settings"]
    groups = GroupTable(strict=facts["strict_groups"])
    if kind == "groups" and facts["strict_groups"]:
        groups = GroupTable(
            tuple(tuple(f"grouped_allreduce.g{group}_{member}of3" for member in (1, 2, 3)) for group in range(4)), True
        )
    threshold = rounded_threshold(facts["fusion_threshold_bytes"], facts["ranks_per_node"])
    radix = facts["radix"] or ranks - 1
    settings = Settings(ranks, threshold, groups, facts["cache_capacity"], radix)
    assert replay(records, plane, settings) == []
    popped = sum(len(cycle.popped) for cycle in records[0].cycles)
    assert popped == STEPS * {"groups": 12, "mixed": 15}.get(kind, 12)


def test_the_replay_can_fail(tmp_path: Path) -> None:
    """Other settings, or a cycle that popped something else, are found out."""
    records = recorded(tmp_path, 2, "static")
    settings = Settings(2, 1 << 27)
    assert replay(records, "cached", settings) == []
    assert replay(records, "cached", replace(settings, fusion_threshold_bytes=0))
    assert replay(records, "cached", replace(settings, cache_capacity=3))
    busiest = max(records[1].cycles, key=lambda each: len(each.popped))
    records[1].cycles[records[1].cycles.index(busiest)] = busiest._replace(popped=busiest.popped[1:])
    assert replay(records, "cached", settings)
