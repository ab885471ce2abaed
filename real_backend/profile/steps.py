"""The record of a rank whose framework does not negotiate: steps, readiness of parameters, collectives."""

from __future__ import annotations

import struct
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coordsim.protocol.messages import Op
from coordsim.record.ranks.format import NULL, RESPONSE, STEP, Block, block
from coordsim.record.ranks.reader import SpanKind
from real_backend.life.clocks import Offset
from real_backend.stream import Parameter, RankStream, StepDetails, Writer

MAX_BYTES = 256 << 20


@dataclass(eq=False)
class Collective:
    """One collective of one step. Times are ns and are filled in as they become known."""

    op: Op
    parameters: Sequence[Parameter]
    nbytes: int
    asked_ns: int
    """When the framework began to prepare the collective."""
    called_ns: int = NULL
    """When the collective was called, after its buffer was filled."""
    end_ns: int = NULL
    known: bool = True
    """Whether its end will be known, which is not so on a GPU."""

    @property
    def open(self) -> bool:
        return self.known and self.end_ns == NULL


@dataclass
class _Step:
    number: int
    start_ns: int = NULL
    forward_end_ns: int = NULL
    end_ns: int = NULL
    details: StepDetails | None = None
    ready: dict[Parameter, int] = field(default_factory=dict)
    collectives: list[Collective] = field(default_factory=list)


class StepRecorder:
    """One rank's stream without cycles.

    Methods except :meth:`close` take times of the same clock, and may be called from any thread.
    """

    def __init__(
        self, folder: Path, rank: int, ranks: int, *, job: str, settings: dict[str, Any], steps: int,
        clock: Offset | None, clock_ns: Callable[[], int],
    ) -> None:  # fmt: skip
        """Open the stream of ``rank`` in ``folder``. Raises OSError.

        ``clock`` is how far rank 0's clock is ahead; ``steps`` is the number of steps to record.
        """
        self._steps = steps
        self.framework = ""
        """The framework whose collectives are recorded."""
        self.unranked = False
        """Whether the process is in no process group."""
        self.steps_ended = 0
        writer = Writer(rank, ranks, job, settings, {"steps": steps}, detailed=True)
        self._stream = RankStream(folder, writer, max_bytes=MAX_BYTES, clock_ns=clock_ns)
        if clock is not None:
            self._stream.clock(clock_ns(), clock)
            self._stream.flush()
        self._lock = threading.Lock()
        self._step = _Step(0)
        self._ended: deque[_Step] = deque()
        """Ended steps that still wait for the end of a collective."""
        self._over = False

    @property
    def path(self) -> Path:
        """Path of the stream."""
        return self._stream.path

    def mark(self, what: str, now_ns: int, details: StepDetails | None = None) -> None:
        """Note that "forward" or "backward" begins, or that a "step" ends, then with its ``details``."""
        with self._lock:
            if self._over:
                return
            step = self._step
            if what == "forward":
                step.start_ns = now_ns
            elif what == "backward":
                step.forward_end_ns = now_ns
            elif step.ready or details is not None:
                self.steps_ended += 1
                step.end_ns, step.details = now_ns, details
                self._ended.append(step)
                self._step = _Step(step.number + 1)
            self._settle()

    def ready(self, parameter: Parameter, now_ns: int) -> None:
        """Note that a gradient is ready. If it is noted several times in a step, the last time counts."""
        self._step.ready[parameter] = now_ns

    def collective(self, op: Op, parameters: Sequence[Parameter], nbytes: int, now_ns: int) -> Collective:
        """Begin a collective. Gradients without a time of their own become ready now."""
        collective = Collective(op, parameters, nbytes, now_ns)
        step = self._step
        if op is not Op.ALLGATHER:
            for parameter in parameters:
                step.ready.setdefault(parameter, now_ns)
        step.collectives.append(collective)
        return collective

    def close(self, error: str = "") -> None:
        """Write the complete steps and the end. Does nothing if that was done."""
        with self._lock:
            if not self._over:
                self._settle(wait=False)
                self._end(error)

    def discard(self) -> None:
        """Delete the record, because it is of no use."""
        self.close()
        self._stream.path.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Stop, because an engine records into the same file from now on."""
        with self._lock:
            self._over = True
            self._stream.abandon()

    def _end(self, error: str = "") -> None:
        self._over = True
        self._stream.end(error=error, left_out_steps=self._stream.refused)

    def _settle(self, wait: bool = True) -> None:
        while self._ended and not (wait and any(each.open for each in self._ended[0].collectives)):
            step = self._ended.popleft()
            self._write(step)
            if step.number + 1 == self._steps:
                self._end()
                return

    def _write(self, step: _Step) -> None:
        stream = self._stream
        stream.ready(step.number, list(step.ready.items()))
        if step.details is not None:
            stream.step_details(step.number, step.details)
        for place, collective in enumerate(step.collectives):
            ids = [stream.parameter(parameter) for parameter in collective.parameters]
            begin_ns = collective.asked_ns
            if collective.op is not Op.ALLGATHER:
                begin_ns = max((step.ready[one] for one in collective.parameters), default=begin_ns)
            begin_ns = min(begin_ns, collective.asked_ns)
            stream.add(block(Block.RESPONSE, RESPONSE.pack(
                step.number, step.number, place, collective.nbytes, collective.op, begin_ns, begin_ns,
                collective.called_ns, collective.end_ns, collective.end_ns, len(ids),
            ) + struct.pack(f"<{len(ids)}I", *ids)))  # fmt: skip
        stamps = list(step.ready.values()) or _backward_ends(step.details)
        stream.add(block(Block.STEP, STEP.pack(
            step.number, step.start_ns, step.forward_end_ns, min(stamps), max(stamps),
            max((each.end_ns for each in step.collectives), default=NULL), step.end_ns, 0, len(step.ready), 0, 1,
        )))  # fmt: skip
        stream.flush()


def _backward_ends(details: StepDetails | None) -> list[int]:
    """Return the latest time at which gradients can have become ready, if none was stamped.

    It is the end of the last backward pass.
    """
    spans = () if details is None else details.spans
    return [max((span.end_ns for span in spans if span.kind == SpanKind.BACKWARD), default=NULL)]
