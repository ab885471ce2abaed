"""Rank 0's timeline in Horovod's format, written while the job runs (docs/horovod.md 6).

A tensor's negotiation begins when rank 0 counts its first request; on the fast path when rank 0 itself first offers its
bit, for other ranks' hits are not visible there. (Horovod makes the vector twice as long to see them, which every rank
then pays for.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from coordsim.protocol.messages import JOIN_NAME, Op, Request, Response
from coordsim.record.timeline import TimelineWriter
from real_backend.engine.observer import CycleTold, Observer, Performed

COPY_IN, COPY_OUT, REDUCE = "MEMCPY_IN_FUSION_BUFFER", "MEMCPY_OUT_FUSION_BUFFER", "GLOO_"


class TimelineObserver(Observer):
    """Times are microseconds since it was made. May be stopped and started with another file at any time."""

    def __init__(self, path: Path | None, mark_cycles: bool, clock_ns: Callable[[], int]) -> None:
        """Raises OSError when ``path`` cannot be written."""
        self._clock_ns = clock_ns
        self._zero_ns = clock_ns()
        self._epoch_us = time.time_ns() // 1000
        self._last_us = 0
        self._wanted: tuple[Path | None, bool] | None = None
        self._writer = TimelineWriter(path, mark_cycles, start_epoch_us=self._epoch_us)
        self._requests: dict[str, Request] = {}

    def start(self, path: Path, mark_cycles: bool = False) -> None:
        """Write to ``path`` from the next cycle on; from any thread."""
        self._wanted = path, mark_cycles

    def stop(self) -> None:
        """Write nothing from the next cycle on; from any thread."""
        self._wanted = None, False

    def cycle_begins(self, cycle: int) -> None:
        if self._wanted is not None:
            (path, mark_cycles), self._wanted = self._wanted, None
            if path is None:
                self._writer.stop()
            else:
                self._writer.start(path, mark_cycles, start_epoch_us=self._epoch_us)
        self._writer.cycle_start(self._us(self._clock_ns()))

    def cycle(self, told: CycleTold) -> None:
        now_us = self._us(told.left_ns)
        asked = {request.name for each in told.received for request in each.requests}
        for request in told.popped:
            if request.name != JOIN_NAME:
                self._requests[request.name] = request
                if request.name not in asked:
                    self._writer.negotiate_start(request.name, request.op.name, now_us)
        for each in told.received:
            for request in each.requests:
                self._requests.setdefault(request.name, request)
                self._writer.negotiate_start(request.name, request.op.name, now_us)
                self._writer.tick(request.name, each.rank, now_us)
        for response in told.schedule.responses:
            for name in response.names:
                self._writer.negotiate_end(name, now_us)

    def response(self, response: Response, performed: Performed, tasks: Sequence[Request | None]) -> None:
        if response.op is Op.JOIN:
            return
        for name in response.names:
            self._writer.start_operation(name, response.op.name, self._us(performed.launch_ns))
        if response.op not in (Op.ERROR, Op.BARRIER):
            self._activities(response, performed)
        end_us = self._us(self._clock_ns() if performed.end_ns is None else performed.end_ns)
        for name in response.names:
            request = self._requests.pop(name, None)
            failed = response.op is Op.ERROR or request is None
            if failed or request is None:
                self._writer.end_operation(name, end_us)
            else:
                self._writer.end_operation(name, end_us, request.dtype.name.lower(), request.shape)

    def _activities(self, response: Response, performed: Performed) -> None:
        begin, copied, reduced, end = performed.begin_ns, performed.copied_in_ns, performed.reduced_ns, performed.end_ns
        if copied is None or reduced is None or end is None:
            return
        parts = [(REDUCE + response.op.name, copied, reduced)]
        if len(response.names) > 1:
            parts = [(COPY_IN, begin, copied), *parts, (COPY_OUT, reduced, end)]
        for activity, from_ns, to_ns in parts:
            self._writer.start_activity(response.names, activity, self._us(from_ns))
            self._writer.end_activity(response.names, self._us(to_ns))

    def ended(self, error: BaseException | None) -> None:
        self._writer.stop()

    def _us(self, ns: int) -> int:
        """Not decreasing, as a timeline's times must be."""
        self._last_us = max(self._last_us, (ns - self._zero_ns) // 1000)
        return self._last_us


__all__ = ["TimelineObserver"]
