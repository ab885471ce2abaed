"""Reads ranks' streams: whole ones, and those of processes that were killed."""

from __future__ import annotations

import json
import struct
from collections.abc import Generator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

from coordsim.errors import InputError
from coordsim.record.ranks.format import (
    CLOCK,
    CPU,
    CPU_WITHOUT_WAIT,
    CYCLE,
    IDLE,
    MAGIC,
    NULL,
    READY,
    RESPONSE,
    SCHEMA,
    SCHEMAS,
    SENT,
    SPAN,
    SPANS,
    STEP,
    Block,
    blocks,
)

SUFFIX = ".rank"


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
    """Bytes of a torn block at the end."""

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
        return int(self.head["ranks"])

    def name(self, tensor: int) -> str:
        return str(self.tensors[tensor]["name"])

    @property
    def clock(self) -> ClockRecord | None:
        """The best estimate of how far rank 0's clock is ahead; None when there is none (rank 0 has one of 0)."""
        return min(self.clocks, key=lambda each: each.error_ns, default=None)


def folder_of(run: Path) -> Path | None:
    """Where ranks' records of ``run`` are: in ``ranks`` of one that was profiled, else in the folder itself; None of a
    run directory that keeps none."""
    inside = run / "ranks"
    if inside.is_dir():
        return inside
    return None if (run / "manifest.json").is_file() else run


def read_folder(folder: Path) -> list[RankRecord]:
    """All ranks' records in ``folder``, by rank. Raises InputError when there are none, or those of two runs."""
    paths = sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []
    if not paths:
        raise InputError.one(str(folder), "", str(folder), f"no folder with ranks' records (*{SUFFIX})")
    found = sorted((read_rank(path) for path in paths), key=lambda each: each.rank)
    first = found[0]
    for other in found[1:]:
        for key in ("ranks", "job"):
            if other.head.get(key) != first.head.get(key):
                message = f"record of another run: {first.path.name} has {first.head.get(key)!r}"
                raise InputError.one(str(other.path), key, other.head.get(key), message)
    numbers = [each.rank for each in found]
    if len(set(numbers)) < len(numbers):
        raise InputError.one(str(folder), "rank", numbers, "a rank has two records")
    return found


def read_rank(path: Path) -> RankRecord:
    """One rank's record, up to where it is whole. Raises InputError for a file that is none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError.one(str(path), "", None, f"cannot be read: {error}") from error
    if not data.startswith(MAGIC):
        raise InputError.one(str(path), "", None, "no rank's record (it does not begin like one)")
    stream = blocks(memoryview(data)[len(MAGIC) :])
    first = next(stream, None)
    if first is None or first[0] is not Block.HEAD:
        raise InputError.one(str(path), "", None, "a rank's record without a head")
    try:
        head = json.loads(bytes(first[1]))
        if not isinstance(head, dict):
            raise ValueError("its head is no object")
        record = RankRecord(path, head)
        if head.get("schema") not in SCHEMAS:
            raise InputError.one(str(path), "schema", head.get("schema"), _unknown(head.get("schema")), SCHEMAS)
        record.lost_bytes = _fill(record, stream)
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise InputError.one(str(path), "", None, f"damaged: {error}") from error
    return record


def _fill(record: RankRecord, stream: Generator[tuple[Block, memoryview], None, int]) -> int:
    spans: dict[int, tuple[tuple[Span, ...], str]] = {}
    cpu: dict[int, CpuTimes] = {}
    while True:
        try:
            kind, payload = next(stream)
        except StopIteration as stop:
            return int(stop.value or 0)
        if kind is Block.TENSOR:
            record.tensors.append(json.loads(bytes(payload[4:])))
        elif kind is Block.CYCLE:
            *values, popped = CYCLE.unpack_from(payload)
            ids = struct.unpack_from(f"<{popped}I", payload, CYCLE.size)
            stamps = struct.unpack_from(f"<{popped}q", payload, CYCLE.size + 4 * popped)
            sent = _sent(payload, CYCLE.size + 12 * popped)
            record.cycles.append(CycleRecord._make((*values, ids, stamps, sent)))
        elif kind is Block.RESPONSE:
            *values, count = RESPONSE.unpack_from(payload)
            ids = struct.unpack_from(f"<{count}I", payload, RESPONSE.size)
            record.responses.append(ResponseRecord._make((*values, ids)))
        elif kind is Block.STEP:
            step, *moments = STEP.unpack(payload)
            of_step, step_kind = spans.pop(step, ((), ""))
            record.steps.append(StepRecord._make((step, *moments, of_step, cpu.pop(step, None), step_kind)))
        elif kind is Block.SPANS:
            step, count = SPANS.unpack_from(payload)
            end = SPANS.size + SPAN.size * count
            if end > len(payload):
                raise ValueError(f"step {step}: {count} spans do not fit into a block of {len(payload)} bytes")
            parts = tuple(map(Span._make, SPAN.iter_unpack(payload[SPANS.size : end])))
            spans[step] = (parts, bytes(payload[end:]).decode())
        elif kind is Block.CPU:
            if len(payload) == CPU_WITHOUT_WAIT.size:
                step, main_ns, loop_ns, process_ns = CPU_WITHOUT_WAIT.unpack(payload)
                core_wait_ns = NULL
            else:
                step, main_ns, loop_ns, process_ns, core_wait_ns = CPU.unpack(payload)
            cpu[step] = CpuTimes(main_ns, loop_ns, process_ns, None if core_wait_ns == NULL else core_wait_ns)
        elif kind is Block.NAME:
            said = json.loads(bytes(payload))
            record.head.setdefault("kinds", {}).setdefault(said["of"], []).append(str(said["name"]))
        elif kind is Block.READY:
            step, count = READY.unpack_from(payload)
            ids = struct.unpack_from(f"<{count}I", payload, READY.size)
            stamps = struct.unpack_from(f"<{count}q", payload, READY.size + 4 * count)
            record.ready.append(ReadyRecord(step, ids, stamps))
        elif kind is Block.IDLE:
            record.idle.append(IdleRecord._make((*IDLE.unpack_from(payload), _sent(payload, IDLE.size))))
        elif kind is Block.CLOCK:
            record.clocks.append(ClockRecord(*CLOCK.unpack(payload)))
        elif kind is Block.END:
            record.end = (record.end or {}) | json.loads(bytes(payload))


def _unknown(schema: object) -> str:
    """Why a schema cannot be read: it is a later version, or none of ours."""
    family, _, number = str(schema).rpartition("/")
    if family == SCHEMA.rpartition("/")[0] and number.isdecimal():
        return f"{schema} is written by a later coordsim; this one reads up to {SCHEMA}"
    return "unknown schema"


def _sent(payload: memoryview, at: int) -> Sent | None:
    """What stands at the end of a block, if it does."""
    return Sent._make(SENT.unpack_from(payload, at)) if len(payload) > at else None
