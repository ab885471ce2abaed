"""What one rank's record holds, read back: whole ones, and those of processes that were killed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

SUFFIX = ".rank"
"""Of the file of a stream."""


class Sent(NamedTuple):
    """What a rank sent over its control links, for agreement alone."""

    messages: int
    nbytes: int
    """Their payloads."""
    rings: int
    """Neighbours woken, by a message without payload each."""


class CycleRecord(NamedTuple):
    """One cycle on one rank; fields as in :data:`coordsim.record.ranks.format.CYCLE`."""

    cycle: int
    step: int
    kind: int
    entered_ns: int
    left_ns: int
    work_ns: int
    finished_ns: int
    requests: int
    request_bytes: int
    hits_common: int
    responses: int
    schedule_hash: int
    digest: int
    popped: tuple[int, ...]
    """Tensor ids, in order of submission."""
    stamps_ns: tuple[int, ...]
    """When each was submitted."""
    sent: Sent | None = None
    """None where the record does not say: in old ones, and where another library sent."""


class ResponseRecord(NamedTuple):
    """One executed response on one rank."""

    cycle: int
    step: int
    place: int
    """Position in the cycle's schedule."""
    nbytes: int
    op: int
    launch_ns: int
    begin_ns: int
    copied_in_ns: int
    reduced_ns: int
    end_ns: int
    tensors: tuple[int, ...]


class SpanKind(IntEnum):
    """What the training thread was in. A number that is not listed comes from a later version."""

    INPUT = 1
    """``next`` of a DataLoader; place: passes of the step that were over by then."""
    FORWARD = 2
    """From the model's call with gradients on to the call of backward, the loss included; place: the pass."""
    BACKWARD = 3
    """``torch.autograd.backward``, with what it waits for; place: the pass."""
    OPTIMIZER = 4
    """``optimizer.step``, the script's hooks on it included; place: index in ``head["kinds"]["optimizers"]``. One that
    evaluates a closure has a span before, between and after the evaluations."""
    OPTIMIZER_SKIPPED = 5
    """``GradScaler.step`` that did not call the optimizer; place: as of OPTIMIZER."""
    EVALUATION = 6
    """A model called with gradients off; consecutive calls are one span; place: index in
    ``head["kinds"]["models"]``."""
    CHECKPOINT = 7
    """``torch.save`` or ``torch.distributed.checkpoint.save``; place: 0."""
    CLOSURE = 8
    """One evaluation of an optimizer's closure (LBFGS, Lightning); FORWARD and BACKWARD lie inside; place: its
    number in the step."""


class Span(NamedTuple):
    """One stretch of the training thread's time in a step; ns of the rank's own clock.

    Spans do not overlap, except that a CLOSURE contains others. A FORWARD that something else interrupts (input,
    evaluation) is two spans with the same place: the passes of a step are its distinct places.
    """

    kind: int
    """A :class:`SpanKind`."""
    place: int
    begin_ns: int
    end_ns: int


class CpuTimes(NamedTuple):
    """CPU time from the end of the step before to the end of the step, ns."""

    main_ns: int
    """The thread that trains."""
    loop_ns: int
    """Our engine's background thread; 0 where there is none."""
    process_ns: int
    """The whole process, with autograd's and libraries' threads."""
    core_wait_ns: int | None = None
    """Time for which the thread that trains was ready to run and no core was free for it; None where the kernel does
    not say."""


class StepRecord(NamedTuple):
    """One step on one rank; times are :data:`coordsim.record.ranks.format.NULL` where they were not measured."""

    step: int
    start_ns: int
    forward_end_ns: int
    first_submit_ns: int
    last_submit_ns: int
    end_collective_ns: int
    end_ns: int
    cycles: int
    tensors: int
    slow_cycles: int
    detailed: int
    spans: tuple[Span, ...] = ()
    """All that happened since the end of the step before, in order; empty where that was not recorded."""
    cpu: CpuTimes | None = None
    """None where it was not recorded."""
    step_kind: str = ""
    """Steps of one kind do the same work: "optimizer 0", "optimizer 1", "optimizer 0+1" (several, one after the other),
    "skipped" (GradScaler did not step), "closures 4"; empty where that was not recorded."""


class IdleRecord(NamedTuple):
    """A run of cycles in which nothing happened."""

    cycle: int
    cycles: int
    entered_first_ns: int
    entered_last_ns: int
    left_last_ns: int
    sent: Sent | None = None
    """In all of them, as of a :class:`CycleRecord`."""


class ClockRecord(NamedTuple):
    """Rank 0's clock is ``offset_ns`` ahead of this rank's, give or take ``error_ns``."""

    at_ns: int
    offset_ns: int
    error_ns: int


class ReadyRecord(NamedTuple):
    """When gradients of parameters were there in one step on one rank."""

    step: int
    tensors: tuple[int, ...]
    """Tensor ids."""
    stamps_ns: tuple[int, ...]


class Ended(NamedTuple):
    """How a rank's process ended."""

    how: str
    """One of :data:`coordsim.record.ranks.format.HOWS`."""
    code: int | None
    """Exit code; None of a signal or where it is not known."""
    signal: int | None
    text: str
    """Of an exception: type and first line of the message."""
    unix_ns: int | None
    """When, by the host's clock."""


@dataclass
class RankRecord:
    """What one rank wrote."""

    path: Path
    head: dict[str, Any]
    tensors: list[dict[str, Any]] = field(default_factory=list)
    """By id: a request's fields."""
    cycles: list[CycleRecord] = field(default_factory=list)
    responses: list[ResponseRecord] = field(default_factory=list)
    steps: list[StepRecord] = field(default_factory=list)
    ready: list[ReadyRecord] = field(default_factory=list)
    idle: list[IdleRecord] = field(default_factory=list)
    clocks: list[ClockRecord] = field(default_factory=list)
    end: dict[str, Any] | None = None
    """How the stream ended; None when the process did not come to that."""
    lost_bytes: int = 0
    """Bytes of a torn block at the end, or from a damaged block on."""
    damage: str | None = None
    """Which block is damaged and why; what came after it is not read. None of a record that is whole or cut short."""

    @property
    def closed(self) -> bool:
        """Whether the stream came to its own end, rather than being cut short with the process."""
        return "error" in (self.end or {})

    @property
    def ended(self) -> Ended | None:
        """How the process ended; None where nobody knows."""
        said = (self.end or {}).get("ended")
        if not isinstance(said, dict):
            return None
        return Ended(
            str(said.get("how", "")), said.get("code"), said.get("signal"), str(said.get("text", "")),
            said.get("unix_ns"),
        )  # fmt: skip

    @property
    def rank(self) -> int:
        return int(self.head["rank"])

    @property
    def ranks(self) -> int:
        """Of the whole job."""
        return int(self.head["ranks"])

    @property
    def host(self) -> str:
        """Empty where the record does not say."""
        return str(self.head.get("host") or "")

    @property
    def detailed(self) -> bool:
        """Whether cycles and responses were recorded, not steps alone."""
        return bool(self.head.get("detailed"))

    @property
    def settings(self) -> Mapping[str, Any]:
        """The backend's; empty where the record does not say."""
        return self.head.get("settings") or {}

    @property
    def started_unix_ns(self) -> int:
        """By the host's clock; 0 where the record does not say."""
        return int(self.head.get("started_unix_ns") or 0)

    @property
    def optimizers(self) -> Sequence[str]:
        """Names of the script's optimizers, by index."""
        return (self.head.get("kinds") or {}).get("optimizers") or ()

    def name(self, tensor: int) -> str:
        return str(self.tensors[tensor]["name"])

    @property
    def clock(self) -> ClockRecord | None:
        """The best estimate of how far rank 0's clock is ahead; None when there is none (rank 0 has one of 0)."""
        return min(self.clocks, key=lambda each: each.error_ns, default=None)
