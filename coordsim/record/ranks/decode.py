"""From a stream's blocks to a rank's record; nothing in them is believed before it was checked.

A block that cannot be what its kind says (ids of tensors that nobody named, times outside of centuries, JSON that is
none) is damaged: the record ends before it, and :attr:`RankRecord.damage` says where and why. Its checksum was right,
so that is a fault of what wrote it or a forged file, not of a disk. A damaged head is an error, as nothing says then
whose record it is.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Generator, Sequence
from typing import Any

from coordsim.errors import InputError
from coordsim.record.ranks.format import (
    CLOCK,
    CPU,
    CPU_WITHOUT_WAIT,
    CYCLE,
    HEAD_BYTES,
    IDLE,
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
)
from coordsim.record.ranks.reader import (
    ClockRecord,
    CpuTimes,
    CycleRecord,
    IdleRecord,
    RankRecord,
    ReadyRecord,
    ResponseRecord,
    Sent,
    Span,
    StepRecord,
)
from coordsim.record.trace import Kind

MOST_RANKS = 1 << 22
_CENTURY_NS = 1 << 61
"""Times and offsets are below it, so that sums and differences of them fit into 64 bits."""
_MANY = 1 << 53
"""Numbers of steps and cycles, and bytes, are below it."""
_FEW_CYCLES = 1000
"""Of an idle run that says no time between its first and its last cycle."""
_DAMAGED = (ValueError, KeyError, TypeError, IndexError, RecursionError, struct.error)
_HEAD_TYPES: dict[str, tuple[type, ...]] = {
    "job": (str, int, type(None)), "host": (str, type(None)), "settings": (dict, type(None)),
    "cores": (list, type(None)), "threads": (dict, type(None)), "local_ranks": (int, type(None)),
    "started_unix_ns": (int, type(None)), "kinds": (dict, type(None)),
}  # fmt: skip
_KINDS = ("optimizers", "models")


def decode_head(payload: bytes, where: str) -> dict[str, Any]:
    """The head's JSON object. Raises InputError for one that is damaged or of another version."""
    try:
        head = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise InputError.one(where, "", None, f"damaged: its head is no JSON ({str(error)[:80]})") from error
    if not isinstance(head, dict):
        raise InputError.one(where, "", None, "damaged: its head is no object")
    if head.get("schema") not in SCHEMAS:
        raise InputError.one(where, "schema", head.get("schema"), _unknown(head.get("schema")), SCHEMAS)
    for key in ("rank", "ranks"):
        if not _whole(head.get(key)) or not 0 <= head[key] <= MOST_RANKS:
            message = f"damaged: {head.get(key)!r}"[:80] + " is no number of ranks"
            raise InputError.one(where, key, head.get(key), message)
    if head["rank"] >= head["ranks"]:
        raise InputError.one(where, "rank", head["rank"], f"damaged: rank {head['rank']} of {head['ranks']}")
    for key, types in _HEAD_TYPES.items():
        value = head.get(key)
        if not isinstance(value, types) or isinstance(value, bool) or (isinstance(value, int) and abs(value) >> 62):
            raise InputError.one(where, key, value, f"damaged: {value!r}"[:80] + f" is no {types[0].__name__}")
    kinds = head.get("kinds") or {}
    if not all(isinstance(kinds.get(of) or [], list) for of in _KINDS):
        raise InputError.one(where, "kinds", kinds, "damaged: kinds of optimizers and models are no lists")
    return head


def _unknown(schema: object) -> str:
    """Why a schema cannot be read: it is a later version, or none of ours."""
    family, _, number = str(schema)[:80].rpartition("/")
    if family == SCHEMA.rpartition("/")[0] and number.isdecimal():
        return f"{family}/{number} is written by a later coordsim; this one reads up to {SCHEMA}"
    return "unknown schema"


def decode_blocks(record: RankRecord, stream: Generator[tuple[Block, memoryview], None, int], nbytes: int) -> None:
    """Fill ``record`` from the blocks behind its head, which take ``nbytes`` bytes, up to a torn or damaged one."""
    decoder, left, number = _Decoder(record), nbytes, 1
    for kind, payload in stream:
        number += 1
        try:
            decoder.add(kind, payload)
        except _DAMAGED as error:
            record.damage = f"block {number:,} ({kind.name}) is damaged: {_shown(error)}"
            break
        left -= HEAD_BYTES + len(payload)
    record.lost_bytes = left


def _shown(error: Exception) -> str:
    return " ".join(str(error).split())[:80] or type(error).__name__


class _Decoder:
    """Adds one block after the other to a record; raises one of :data:`_DAMAGED` for a damaged one."""

    def __init__(self, record: RankRecord) -> None:
        self._record = record
        self._spans: dict[int, tuple[tuple[Span, ...], str]] = {}
        self._cpu: dict[int, CpuTimes] = {}
        self._by_kind: dict[Block, Callable[[memoryview], None]] = {
            Block.HEAD: self._head, Block.TENSOR: self._tensor, Block.CYCLE: self._cycle,
            Block.RESPONSE: self._response, Block.STEP: self._step, Block.SPANS: self._spans_of_step,
            Block.CPU: self._cpu_times, Block.NAME: self._name, Block.READY: self._ready, Block.IDLE: self._idle,
            Block.CLOCK: self._clock, Block.END: self._end,
        }  # fmt: skip

    def add(self, kind: Block, payload: memoryview) -> None:
        self._by_kind[kind](payload)

    def _head(self, payload: memoryview) -> None:
        raise ValueError("a second head")

    def _tensor(self, payload: memoryview) -> None:
        facts = _json_object(payload[4:])
        for key in ("name", "dtype", *(() if facts.get("kind") == "parameter" else ("op",))):
            if not isinstance(facts.get(key), str):
                raise ValueError(f"a tensor's {key} is no text")
        shape = facts.get("shape")
        if not isinstance(shape, list) or not all(_whole(extent) and 0 <= extent < _MANY for extent in shape):
            raise ValueError("a tensor's shape is no list of whole numbers")
        self._record.tensors.append(facts)

    def _cycle(self, payload: memoryview) -> None:
        *values, popped = CYCLE.unpack_from(payload)
        ids = struct.unpack_from(f"<{popped}I", payload, CYCLE.size)
        stamps = struct.unpack_from(f"<{popped}q", payload, CYCLE.size + 4 * popped)
        sent = _sent(payload, CYCLE.size + 12 * popped)
        cycle = CycleRecord._make((*values, ids, stamps, sent))
        _count(cycle.cycle, cycle.step, cycle.request_bytes)
        _moments(cycle.entered_ns, cycle.left_ns, cycle.work_ns, cycle.finished_ns, *stamps)
        self._known(ids)
        Kind(cycle.kind)
        self._record.cycles.append(cycle)

    def _response(self, payload: memoryview) -> None:
        *values, count = RESPONSE.unpack_from(payload)
        ids = struct.unpack_from(f"<{count}I", payload, RESPONSE.size)
        response = ResponseRecord._make((*values, ids))
        _count(response.cycle, response.step, response.nbytes)
        _moments(response.launch_ns, response.begin_ns)
        _moments_or_null(response.copied_in_ns, response.reduced_ns, response.end_ns)
        self._known(ids)
        self._record.responses.append(response)

    def _step(self, payload: memoryview) -> None:
        step, *values = STEP.unpack(payload)
        _count(step)
        _moments_or_null(*values[:6])
        spans, kind = self._spans.pop(step, ((), ""))
        self._record.steps.append(StepRecord._make((step, *values, spans, self._cpu.pop(step, None), kind)))

    def _spans_of_step(self, payload: memoryview) -> None:
        step, count = SPANS.unpack_from(payload)
        end = SPANS.size + SPAN.size * count
        if end > len(payload):
            raise ValueError(f"step {step}: {count} spans do not fit into a block of {len(payload)} bytes")
        spans = tuple(map(Span._make, SPAN.iter_unpack(payload[SPANS.size : end])))
        for span in spans:
            _moments(span.begin_ns, span.end_ns)
        self._spans[step] = (spans, bytes(payload[end:]).decode())

    def _cpu_times(self, payload: memoryview) -> None:
        if len(payload) == CPU_WITHOUT_WAIT.size:
            step, main_ns, loop_ns, process_ns = CPU_WITHOUT_WAIT.unpack(payload)
            core_wait_ns = NULL
        else:
            step, main_ns, loop_ns, process_ns, core_wait_ns = CPU.unpack(payload)
        _moments(main_ns, loop_ns, process_ns)
        _moments_or_null(core_wait_ns)
        self._cpu[step] = CpuTimes(main_ns, loop_ns, process_ns, None if core_wait_ns == NULL else core_wait_ns)

    def _name(self, payload: memoryview) -> None:
        facts = _json_object(payload)
        if facts.get("of") not in _KINDS:
            raise ValueError(f"names of {facts.get('of')!r}")
        kinds = self._record.head.get("kinds") or {}
        self._record.head["kinds"] = kinds
        kinds.setdefault(facts["of"], []).append(str(facts["name"]))

    def _ready(self, payload: memoryview) -> None:
        step, count = READY.unpack_from(payload)
        ids = struct.unpack_from(f"<{count}I", payload, READY.size)
        stamps = struct.unpack_from(f"<{count}q", payload, READY.size + 4 * count)
        _count(step)
        _moments(*stamps)
        self._known(ids)
        self._record.ready.append(ReadyRecord(step, ids, stamps))

    def _idle(self, payload: memoryview) -> None:
        idle = IdleRecord._make((*IDLE.unpack_from(payload), _sent(payload, IDLE.size)))
        _count(idle.cycle, idle.cycles)
        _moments(*idle[2:5])
        if idle.cycles > max(idle.entered_last_ns - idle.entered_first_ns, _FEW_CYCLES):
            raise ValueError(f"{idle.cycles:,} idle cycles within {idle.entered_last_ns - idle.entered_first_ns} ns")
        self._record.idle.append(idle)

    def _clock(self, payload: memoryview) -> None:
        clock = ClockRecord(*CLOCK.unpack(payload))
        _moments(*clock)
        self._record.clocks.append(clock)

    def _end(self, payload: memoryview) -> None:
        facts = _json_object(payload)
        if not isinstance(facts.get("error", ""), str) or not isinstance(facts.get("ended", {}), dict):
            raise ValueError("how it ended is no text")
        self._record.end = (self._record.end or {}) | facts

    def _known(self, ids: Sequence[int]) -> None:
        if ids and max(ids) >= len(self._record.tensors):
            raise ValueError(f"tensor {max(ids)} was never named")


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _json_object(payload: memoryview) -> dict[str, Any]:
    facts = json.loads(bytes(payload))
    if not isinstance(facts, dict):
        raise ValueError("no JSON object")
    return facts


def _count(*numbers: int) -> None:
    for number in numbers:
        if not -1 <= number < _MANY:
            raise ValueError(f"{number} is no count")


def _moments(*times_ns: int) -> None:
    for at in times_ns:
        if not -_CENTURY_NS < at < _CENTURY_NS:
            raise ValueError(f"{at} ns is no time")


def _moments_or_null(*times_ns: int) -> None:
    _moments(*(at for at in times_ns if at != NULL))


def _sent(payload: memoryview, at: int) -> Sent | None:
    """What stands at the end of a block, if it does."""
    return Sent._make(SENT.unpack_from(payload, at)) if len(payload) > at else None
