"""Rank 0's timeline in Horovod's format, written while the job runs (docs/horovod.md 6).

A tensor's negotiation begins when rank 0 counts its first request or, on the fast path, when rank 0 itself first offers
its bit, since other ranks' hits are not visible there. (Horovod makes the vector twice as long to see them, at a cost
for every rank.)
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path

from coordsim.formats.horovod import TimelineWriter
from coordsim.protocol import execution
from coordsim.protocol.messages import JOIN_NAME, Op, Request, Response
from coordsim.protocol.negotiator import COORDINATOR
from real_backend.engine.observer import CycleDetails, Observer, Performed

COPY_IN, COPY_OUT, REDUCE = "MEMCPY_IN_FUSION_BUFFER", "MEMCPY_OUT_FUSION_BUFFER", "GLOO_"
_SHORT = {"BROADCAST": "BCAST"}
"""Operations that Horovod names differently where gloo performs them."""


class TimelineObserver(Observer):
    """Writes the timeline; times are microseconds since it was made.

    It may be stopped, and started with another file, at any time. A fault of the file system ends the timeline, never
    the job.
    """

    def __init__(self, path: Path | None, mark_cycles: bool, clock_ns: Callable[[], int]) -> None:
        """Raises OSError if ``path`` cannot be written."""
        self._clock_ns = clock_ns
        self._zero_ns = clock_ns()
        self._epoch_us = time.time_ns() // 1000
        self._last_us = 0
        self._ranks = 1
        self._wanted: deque[tuple[Path | None, bool]] = deque()
        self._writer = TimelineWriter(path, mark_cycles, start_epoch_us=self._epoch_us)

    def start(self, path: Path, mark_cycles: bool = False) -> None:
        """Write to ``path`` from the next cycle on; from any thread. Raises OSError if it cannot be written."""
        with path.open("ab"):
            pass
        self._wanted.append((path, mark_cycles))

    def stop(self) -> None:
        """Write nothing from the next cycle on; from any thread."""
        self._wanted.append((None, False))

    def cycle_begins(self, cycle: int) -> None:
        if self._writer.path is None and not self._wanted:
            return
        with self._or_no_timeline():
            while self._wanted:
                path, mark_cycles = self._wanted.popleft()
                if path is None:
                    self._writer.stop()
                else:
                    self._writer.start(path, mark_cycles, start_epoch_us=self._epoch_us)
            self._writer.cycle_start(self._us(self._clock_ns()))

    def cycle(self, details: CycleDetails) -> None:
        if self._writer.path is None:
            return
        self._ranks = details.negotiator.settings.ranks
        now_us = self._us(details.left_ns)
        asked = {request.name for each in details.received for request in each.requests}
        with self._or_no_timeline():
            for request in details.popped:
                if request.name != JOIN_NAME and request.name not in asked:
                    self._writer.negotiate_start(request.name, request.op.name, now_us)
            for received in details.received:
                for request in received.requests:
                    self._writer.negotiate_start(request.name, request.op.name, now_us)
                    self._writer.tick(request.name, received.rank, now_us)
            for response in details.schedule.responses:
                for name in response.names:
                    self._writer.negotiate_end(name, now_us)

    def response(self, response: Response, performed: Performed, tasks: Sequence[Request | None]) -> None:
        if response.op is Op.JOIN or self._writer.path is None:
            return
        with self._or_no_timeline():
            for name in response.names:
                self._writer.start_operation(name, response.op.name, self._us(performed.launch_ns))
            if response.op not in (Op.ERROR, Op.BARRIER):
                self._activities(response, performed)
            end_us = self._us(self._clock_ns() if performed.end_ns is None else performed.end_ns)
            for index, (name, request) in enumerate(zip(response.names, tasks, strict=True)):
                if response.op is Op.ERROR:
                    self._writer.end_operation(name, end_us)
                else:
                    shape = self._output_shape(response, index, request)
                    self._writer.end_operation(name, end_us, response.dtype.name.lower(), shape)

    def _output_shape(self, response: Response, index: int, request: Request | None) -> tuple[int, ...]:
        """Return a result's shape on this rank. A rank that has joined knows the number of elements, not the shape."""
        elements = execution.elements(response, index)
        if request is None:
            return (elements,)
        if response.op is Op.ALLGATHER:
            width = prod(request.shape[1:])
            return (elements // width if width else request.shape[0], *request.shape[1:])
        if response.op is Op.REDUCESCATTER:
            return (execution.shard_rows(request.shape[0], self._ranks)[COORDINATOR].elements, *request.shape[1:])
        return request.shape

    def _activities(self, response: Response, performed: Performed) -> None:
        begin, copied, reduced, end = performed.begin_ns, performed.copied_in_ns, performed.reduced_ns, performed.end_ns
        if copied is None or reduced is None or end is None:
            return
        parts = [(REDUCE + _SHORT.get(response.op.name, response.op.name), copied, reduced)]
        if len(response.names) > 1:
            parts = [(COPY_IN, begin, copied), *parts, (COPY_OUT, reduced, end)]
        for activity, from_ns, to_ns in parts:
            self._writer.start_activity(response.names, activity, self._us(from_ns))
            self._writer.end_activity(response.names, self._us(to_ns))

    def ended(self, error: BaseException | None) -> None:
        with self._or_no_timeline():
            self._writer.stop()

    @contextmanager
    def _or_no_timeline(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            print(f"coordsim: the timeline ends here: {error}", file=sys.stderr, flush=True)
            self._writer = TimelineWriter()

    def _us(self, ns: int) -> int:
        """Return microseconds that do not decrease, as a timeline's times must not."""
        self._last_us = max(self._last_us, (ns - self._zero_ns) // 1000)
        return self._last_us


__all__ = ["TimelineObserver"]
