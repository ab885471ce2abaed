"""Behaviours 8, 11 and 23: from init to shutdown, and again."""

from __future__ import annotations

import pytest

from coordsim.protocol.queue import SHUT_DOWN, NotRunning, TensorQueue
from coordsim.protocol.session import Session
from tests.protocol.data import DataJob, Failed
from tests.protocol.drive import KINDS, Ended, Job, settings, tensor

every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
@pytest.mark.parametrize("leaver", range(4))
def test_b11_one_rank_shuts_down_and_what_is_pending_fails_on_every_rank(kind: str, leaver: int) -> None:
    job = Job(kind, settings(4), through_wire=True)
    job.step(tensor("cached"))
    job.everybody(tensor("cached"), tensor("new"), but=[1])
    job.cycle()
    job.everybody(tensor("last"))
    schedule = job.cycle(shutdown=[leaver])
    assert schedule.shutdown
    assert job.ended[-1] == Ended(2, "last"), "what is agreed in that cycle is still executed"
    assert job.drained == [() if rank == 1 else ("cached", "new") for rank in job.ranks]
    job.watch.job_done()


@every_kind
def test_b11_handles_fail_with_the_shut_down_error(kind: str) -> None:
    """Also a join, for which not all have come."""
    job = DataJob(kind, settings(3), through_wire=True)
    done, *_ = [job.put(rank, (tensor("done"), [1] * 4))[0] for rank in job.ranks]
    pending = [job.put(rank, (tensor("pending"), [1] * 4))[0] for rank in (0, 2)]
    job.join(2)
    job.sessions[1].shut_down()
    schedule = job.turn(0)
    assert schedule.shutdown
    assert [each.names for each in schedule.responses] == [("done",)]
    assert done.wait() == [1.0] * 4
    for handle in pending:
        with pytest.raises(Failed, match="shut down"):
            handle.wait()
    assert job.drained == [("pending",), (), ("pending", "join.noname")]
    assert {handle.error for handle in pending} == {SHUT_DOWN}


@every_kind
def test_b08_shutdown_then_init_works_again(kind: str) -> None:
    """Nothing is left of the job before: no name, no bit, no join."""
    for _ in range(3):
        job = Job(kind, settings(3), through_wire=True)
        assert job.step(tensor("x"), tensor("y")).slow
        job.everybody(tensor("x"), but=[0])
        job.join(2)
        job.cycle()
        job.sessions[0].shut_down()
        assert job.turn(1).shutdown
        job.watch.job_done()


def test_b08_operations_before_init_and_after_shutdown_raise() -> None:
    session = Session("cached", 0, settings(1))
    with pytest.raises(NotRunning, match="initialize first"):
        session.submit([tensor("x")])
    with pytest.raises(NotRunning, match="initialize first"):
        session.join()
    job = Job("cached", settings(2))
    job.sessions[1].shut_down()
    job.turn(0)
    for rank in job.ranks:
        with pytest.raises(NotRunning, match="has been shut down"):
            job.submit(rank, tensor("x"))
        with pytest.raises(NotRunning, match="has been shut down"):
            job.join(rank)
        assert len(job.queues[rank]) == 0


def test_b11_a_queue_that_is_drained_gives_up_what_was_never_popped_too() -> None:
    queue = TensorQueue()
    queue.submit([tensor("popped")])
    queue.pop()
    queue.submit([tensor("waiting")])
    assert queue.drain() == ("popped", "waiting")
    assert (len(queue), queue.pop()) == (0, ())
    with pytest.raises(NotRunning, match="has been shut down"):
        queue.submit([tensor("late")])


@every_kind
def test_b11_a_shutdown_of_every_rank_at_once_is_one_shutdown(kind: str) -> None:
    job = Job(kind, settings(3))
    assert not job.cycle().shutdown
    assert job.cycle(shutdown=job.ranks).shutdown


def test_b23_a_shutdown_costs_no_coordinator() -> None:
    """It travels in the vector of an otherwise idle cycle, and of one with hits, from any rank."""
    for leaver in range(3):
        for hits in (False, True):
            job = Job("cached", settings(3))
            job.step(tensor("x"))
            if hits:
                job.everybody(tensor("x"))
            job.sessions[leaver].shut_down()
            schedule = job.turn(0)
            assert (schedule.shutdown, schedule.slow, schedule.hits_common) == (True, False, hits)
            assert job.exchanges[-1] == ["AndReduce"]
