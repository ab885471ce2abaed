"""I1 to I5 of docs/horovod.md 12, checked over a whole job by whoever drives all its ranks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from coordsim.protocol.messages import JOIN_NAME, ZERO_FILLED, Op
from coordsim.protocol.negotiator import CachedNegotiator, Negotiator, Schedule
from coordsim.protocol.queue import TensorQueue


class InvariantBroken(AssertionError):
    """A fault in the protocol code itself; carries the story so far."""


class InvariantWatch:
    """Debug mode: call :meth:`cycle_done` after every cycle and :meth:`job_done` at the end.

    Where ranks leave a cycle one after the other, call :meth:`leaving` for each as it leaves, too.
    """

    def __init__(self, negotiators: Sequence[Negotiator], queues: Sequence[TensorQueue]) -> None:
        self._negotiators = negotiators
        self._queues = queues
        self._cycle = 0
        self._over = False

    def cycle_done(self, schedules: Iterable[Schedule]) -> None:
        """Before the schedule is executed; ``schedules`` in rank order. Raises InvariantBroken."""
        first, *others = schedules
        if self._over:
            self._fail("I5", 0, "a cycle after the one that agreed to shut down")
        self._over = first.shutdown
        for rank, schedule in enumerate(others, start=1):
            if schedule != first:
                self._fail("I2", rank, f"schedule {schedule} differs from rank 0's {first}")
        caches = [each.cache for each in self._negotiators if isinstance(each, CachedNegotiator)]
        for rank, cache in enumerate(caches):
            if cache.digest() != caches[0].digest():
                self._fail("I1", rank, f"cache {cache.least_recent_first()} differs from rank 0's")
            if len(cache) > cache.capacity:
                self._fail("I1", rank, f"{len(cache)} entries exceed capacity {cache.capacity}")
        names = [name for response in first.responses for name in response.names]
        if len(names) != len(set(names)):
            self._fail("I3", 0, f"a name is scheduled twice in one cycle: {names}")
        for rank in range(len(self._queues)):
            self.leaving(rank, first)
        self._cycle += 1

    def leaving(self, rank: int, schedule: Schedule) -> None:
        """``rank`` has its schedule and has popped nothing since (I4). Raises InvariantBroken.

        A rank that has joined need not have asked for what zeros can stand in for, nor for an error.
        """
        popped = self._queues[rank].popped
        joined = JOIN_NAME in popped
        needed = {
            name for response in schedule.responses for name in response.names
            if not (joined and (response.op in ZERO_FILLED or response.op is Op.ERROR))
        }  # fmt: skip
        absent = needed - popped
        if absent:
            self._fail("I4", rank, f"{sorted(absent)} scheduled before this rank asked for them")

    def job_done(self) -> None:
        """Raises InvariantBroken when a submission never ended (I5): neither in a schedule nor by a shutdown."""
        for rank, queue in enumerate(self._queues):
            if len(queue):
                self._fail("I5", rank, f"{queue.outstanding} never ended")

    def _fail(self, invariant: str, rank: int, story: str) -> None:
        raise InvariantBroken(f"{invariant} broken in cycle {self._cycle} at rank {rank}: {story}")
