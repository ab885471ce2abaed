"""The watch itself: what it must notice, and whom it must name."""

from __future__ import annotations

import pytest

from coordsim.protocol.invariants import InvariantBroken, InvariantWatch
from coordsim.protocol.messages import Request, respond_to
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
