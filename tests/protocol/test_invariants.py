"""The watch itself: what it must notice, and whom it must name."""

from __future__ import annotations

import pytest

from coordsim.protocol.invariants import InvariantBroken, InvariantWatch
from coordsim.protocol.messages import Op, Request, Response, join_request, respond_to
from coordsim.protocol.negotiator import CoordinatorNegotiator, Schedule, Settings
from coordsim.protocol.queue import TensorQueue


def watched(ranks: int) -> tuple[InvariantWatch, list[TensorQueue]]:
    queues = [TensorQueue() for _ in range(ranks)]
    settings = Settings(ranks, 0)
    return InvariantWatch([CoordinatorNegotiator(rank, settings) for rank in range(ranks)], queues), queues


X = Request("x", shape=(1,))
SCHEDULE = Schedule((respond_to(X),), slow=True)


def test_i4_submitted_is_not_asked_for():
    """A submission made while the exchange runs does not hide that the rank never asked."""
    watch, queues = watched(2)
    for queue in queues:
        queue.submit([X])
    queues[0].pop()
    watch.leaving(0, SCHEDULE)
    with pytest.raises(InvariantBroken, match="I4 broken in cycle 0 at rank 1"):
        watch.leaving(1, SCHEDULE)
    queues[1].pop()
    watch.cycle_done([SCHEDULE, SCHEDULE])


def test_i2_names_the_rank_that_differs():
    watch, queues = watched(3)
    for queue in queues:
        queue.submit([X])
        queue.pop()
    with pytest.raises(InvariantBroken, match="I2 broken in cycle 0 at rank 2"):
        watch.cycle_done([SCHEDULE, SCHEDULE, Schedule((), slow=True)])


def joined(*, popped: bool = True) -> tuple[InvariantWatch, TensorQueue]:
    """Rank 1 of two has joined."""
    watch, queues = watched(2)
    queues[0].submit([X])
    queues[1].submit([join_request()])
    queues[0].pop()
    if popped:
        queues[1].pop()
    return watch, queues[1]


@pytest.mark.parametrize("op", [Op.ALLREDUCE, Op.BARRIER, Op.ERROR])
def test_i4_a_rank_that_has_joined_need_not_have_asked(op):
    watch, _ = joined()
    watch.cycle_done([Schedule((Response(op, ("x",), (4,)),), slow=True)] * 2)


@pytest.mark.parametrize("op", [Op.ALLGATHER, Op.BROADCAST, Op.REDUCESCATTER])
def test_i4_but_nobody_can_do_without_its_rows(op):
    watch, _ = joined()
    with pytest.raises(InvariantBroken, match="I4 broken in cycle 0 at rank 1"):
        watch.cycle_done([Schedule((Response(op, ("x",), (4,)),), slow=True)] * 2)


def test_i4_a_join_counts_when_it_was_popped_and_until_it_ends():
    watch, _ = joined(popped=False)
    with pytest.raises(InvariantBroken, match="I4 broken"):
        watch.leaving(1, SCHEDULE)
    watch, queue = joined()
    watch.leaving(1, SCHEDULE)
    queue.finish("join.noname")
    with pytest.raises(InvariantBroken, match="I4 broken"):
        watch.leaving(1, SCHEDULE)


def test_i5_there_is_no_cycle_after_a_shutdown():
    watch, _ = watched(2)
    watch.cycle_done([Schedule((), slow=True, shutdown=True)] * 2)
    with pytest.raises(InvariantBroken, match="I5 broken in cycle 1 at rank 0: a cycle after"):
        watch.cycle_done([Schedule((), slow=True)] * 2)


def test_i2_all_ranks_shut_down_together():
    watch, _ = watched(2)
    with pytest.raises(InvariantBroken, match="I2 broken in cycle 0 at rank 1"):
        watch.cycle_done([Schedule((), slow=True, shutdown=True), Schedule((), slow=True)])
