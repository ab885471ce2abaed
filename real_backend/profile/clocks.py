"""Offset of rank 0's clock, from round trips over the job's store (:mod:`real_backend.life.clocks`)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from real_backend.life.clocks import Offset, OffsetEstimate, offset

ROUND_TRIPS = 8
PATIENCE = timedelta(seconds=20)
"""Longest wait for another rank, which may have no hooks."""


def offset_from_rank_0(store: Any, rank: int, ranks: int, clock_ns: Callable[[], int]) -> Offset:
    """Measure how far rank 0's clock is ahead of this rank's. All ranks call this at the same time.

    Rank 0 answers the others one after the other. A rank's error is half of its shortest round trip, some tens of
    microseconds on one host. Raises DistStoreError when a rank does not come within :data:`PATIENCE`.
    """
    import torch.distributed as dist

    own = dist.PrefixStore("coordsim/profile/clocks", store)
    if rank == 0:
        for other in range(1, ranks):
            _answer(own, other, clock_ns)
        return Offset(0, 0)
    estimate = OffsetEstimate()
    _wait(own, f"{rank}/turn")
    for trip in range(ROUND_TRIPS):
        sent_ns = clock_ns()
        own.set(f"{rank}/{trip}/asked", "")
        received, answered = _wait(own, f"{rank}/{trip}/answer").split()
        back_ns = clock_ns()
        estimate.add(offset(sent_ns, int(received), int(answered), back_ns), back_ns)
    best = estimate.at(clock_ns())
    assert best is not None
    return best


def _answer(store: Any, rank: int, clock_ns: Callable[[], int]) -> None:
    store.set(f"{rank}/turn", "")
    for trip in range(ROUND_TRIPS):
        _wait(store, f"{rank}/{trip}/asked")
        received_ns = clock_ns()
        store.set(f"{rank}/{trip}/answer", f"{received_ns} {clock_ns()}")


def _wait(store: Any, key: str) -> bytes:
    store.wait([key], PATIENCE)
    return bytes(store.get(key))
