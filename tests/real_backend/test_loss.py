"""A rank that dies, stops or leaves: every other one is told so by name, and nobody hangs."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch

import real_backend as rb
from tests.real_backend.processes import Job, Outcome, run, tell

SILENCE = "no sign of life"


def reduce_until_told(elements: int, pause_s: float) -> str:
    """The text of the error that ended it."""
    rb.init()
    values = torch.ones(elements)
    rb.allreduce_(values, "values", rb.Max)
    rb.allreduce_(values, "values", rb.Max)
    tell(f"rank {rb.rank()} runs")
    try:
        while True:
            rb.allreduce_(values, "values", rb.Max)
            time.sleep(pause_s)
    except rb.PeerLost as error:
        return str(error)


def end_of(victim: int, ranks: int, how: int, elements: int = 100, pause_s: float = 0.0, **env: str) -> list[Outcome]:
    job = Job(ranks, reduce_until_told, elements, pause_s, env=env)
    job.wait_for(*(f"rank {rank} runs" for rank in range(ranks)))
    job.kill(victim, how)
    found = job.outcomes(stopped=victim if how == signal.SIGSTOP else None)
    for rank, outcome in enumerate(found):
        assert rank == victim or not outcome.error, outcome.error
    return found


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.long), 2])
@pytest.mark.parametrize(
    ("elements", "pause_s"), [(100, 0.0), (100, 0.5), (1_000_000, 0.0)], ids=["busy", "idle", "in gloo"]
)
def test_a_killed_rank_is_named_by_all_others(victim: int, elements: int, pause_s: float) -> None:
    found = end_of(victim, 3, signal.SIGKILL, elements, pause_s)
    for rank, outcome in enumerate(found):
        if rank != victim:
            assert f"rank {victim} was lost" in outcome.result
            assert SILENCE not in outcome.result


@pytest.mark.parametrize("victim", [0, 3])
def test_in_a_tree_the_loss_goes_round(victim: int) -> None:
    for rank, outcome in enumerate(end_of(victim, 6, signal.SIGKILL, COORDSIM_RADIX="2")):
        if rank != victim:
            assert f"rank {victim} was lost" in outcome.result


@pytest.mark.parametrize("victim", [0, 1])
def test_a_stopped_rank_is_lost_after_the_timeout(victim: int) -> None:
    for rank, outcome in enumerate(end_of(victim, 3, signal.SIGSTOP, COORDSIM_PEER_TIMEOUT="3s")):
        if rank != victim:
            assert f"rank {victim} was lost" in outcome.result
            assert f"{SILENCE} for 3 s" in outcome.result


def be_busy(seconds: float) -> float:
    """The main thread of rank 1 does something else for longer than the others wait for a sign of life."""
    rb.init()
    if rb.rank() == 1:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sum(range(10_000))
    return float(rb.allreduce(torch.ones(1), "late", rb.Sum))


def test_a_busy_main_thread_is_not_death() -> None:
    assert run(3, be_busy, 4.0, env={"COORDSIM_PEER_TIMEOUT": "1s"}) == [3.0, 3.0, 3.0]


def leave_early() -> str:
    rb.init()
    if rb.rank() == 1:
        rb.barrier()
        rb.shutdown()
        return "left"
    pending = rb.allreduce_async(torch.ones(1), "pending")
    rb.barrier()
    with pytest.raises(rb.ShutDown, match="shut down"):
        pending.wait()
    rb.shutdown()
    return "failed"


def test_work_that_is_pending_at_a_shutdown_fails_and_nobody_hangs() -> None:
    assert run(3, leave_early) == ["failed", "left", "failed"]


def submit_after_another_has_left() -> str:
    engine = rb.init()
    if rb.rank() == 1:
        rb.shutdown()
        return "left"
    while engine.running:
        time.sleep(0.01)
    with pytest.raises(rb.NotRunning, match="this rank or another one stopped"):
        rb.allreduce(torch.ones(1), "too late")
    return "told"


def test_work_that_comes_after_another_rank_has_shut_down_is_told_so() -> None:
    assert run(3, submit_after_another_has_left) == ["told", "left", "told"]


def die_of_an_exception() -> str:
    rb.init()
    if rb.rank() == 1:
        os._exit(7)
    with pytest.raises(rb.PeerLost, match="rank 1 was lost"):
        rb.allreduce(torch.ones(1), "pending")
    return "told"


def test_an_exit_is_a_loss() -> None:
    found = Job(2, die_of_an_exception).outcomes()
    assert found[0].result == "told"
    assert found[1].exit_code == 7


def twice() -> list[float]:
    found = []
    for value in (1.0, 2.0):
        with pytest.raises(rb.NotRunning):
            rb.allreduce(torch.ones(1), "x")
        rb.init()
        found.append(float(rb.allreduce(torch.full((1,), value), "x", rb.Sum)))
        rb.shutdown()
        rb.shutdown()
    return found


def test_a_second_init_in_one_process_works() -> None:
    assert run(2, twice) == [[2.0, 4.0]] * 2
