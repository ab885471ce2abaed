"""A rank that keeps others waiting is named, and only that one (docs/horovod.md 13.36)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

import real_backend as rb
from tests.real_backend.processes import run, tell, wait_until
from tests.real_backend.shared_jobs import once
from tests.real_backend.watch import ones, together, watched

WARNING_NS = 500_000_000
every_size = pytest.mark.parametrize("ranks", [2, 4])


def keep_waiting() -> dict[str, Any]:
    """By phase: what this rank was told while the last one was late, and what the cache counted."""
    engine, watch = watched(stall_warning_ns=WARNING_NS)
    told: list[str] = []
    engine.tell = told.append
    last = engine.rank == engine.ranks - 1

    def late(is_late: bool, *names: str) -> Callable[[], None]:
        def submit() -> None:
            while last and is_late and not told:  # who keeps the others waiting is told so, too
                time.sleep(0.01)
            for found in together(engine, ones(*names)).wait():
                assert found.tolist() == [1.0, 1.0]

        return submit

    found: dict[str, Any] = {}
    for phase, is_late in (("new", True), ("cached", True), ("recovered", False), ("in time", False)):
        told.clear()
        found[phase] = watch.during(late(is_late, "x", "y"))
        found[f"{phase}, told"] = list(told)
    engine.shut_down()
    return found


@every_size
def test_b36_a_warning_names_only_who_is_missing_and_is_given_once(ranks: int) -> None:
    """Whether the tensors are new or cached; every rank is told."""
    for found in once(ranks, keep_waiting):
        for phase in ("new, told", "cached, told"):
            (text,) = found[phase]
            first, second = text.splitlines()
            assert first.startswith("stall: 2 tensors waited for ")
            assert second == f"  rank {ranks - 1}: x, y"
        assert found["in time, told"] == []


@every_size
def test_b36_a_stalled_hit_is_invalidated_and_cached_again(ranks: int) -> None:
    for found in once(ranks, keep_waiting):
        assert found["new"]["invalidated"] == 0
        assert found["cached"]["invalidated"] == 1
        assert found["cached"]["slow_cycles"] >= 1
        assert (found["recovered"]["invalidated"], found["recovered"]["slow_cycles"]) == (0, 0)
        assert found["recovered"]["hits"] == 2


def never_come() -> str:
    """Rank 1 comes when rank 0 has given up; what ended it."""
    rb.init()
    told: list[str] = []
    rb.default_engine().tell = told.append
    if rb.rank() == 1:
        wait_until("rank 0 has given up")
    try:
        rb.allreduce(torch.ones(2), "x")
    except (rb.ShutDown, rb.NotRunning) as error:
        ended = type(error).__name__
    if rb.rank() == 0:
        tell("rank 0 has given up")
    rb.shutdown()
    if rb.is_initialized() or (told and "shutting down" not in told[-1]):
        return f"{ended}, but told {told}"
    return ended


def test_a_stall_may_end_the_job() -> None:
    found = run(2, never_come, env={"COORDSIM_STALL_WARNING": "200ms", "COORDSIM_STALL_SHUTDOWN": "500ms"})
    assert found == ["ShutDown", "NotRunning"]
