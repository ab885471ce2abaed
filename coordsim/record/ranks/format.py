"""The stream's bytes: a magic line, then blocks ``length u32 | crc32 u32 | kind u8 | payload``, little-endian.

A block is written by one call, so a killed process leaves whole blocks and at most one torn one at the end, which the
reader tells by length or checksum and drops. Times are ns of the rank's own clock; :data:`NULL` is "not measured".

Where nobody negotiates (``settings.control_plane`` is ``ddp``) a stream has no CYCLE. A RESPONSE is then a collective:
its cycle is the step, its launch and begin are when its last gradient was there, "copied in" is when it was called.

=========  ==========================================================================================================
kind       payload
=========  ==========================================================================================================
HEAD       JSON: schema, rank, ranks, host, pid, start time, settings, limits
TENSOR     ``id u32`` and JSON of a request: name, op, dtype, shape, ... , or of a parameter (``"kind": "parameter"``):
           name, dtype, shape, bytes; ids are given in order of first sight
CYCLE      :data:`CYCLE`, then ``popped`` ids u32 and as many submission times i64; then :data:`SENT`, where known
RESPONSE   :data:`RESPONSE`, then ids u32
STEP       :data:`STEP`: every step of every rank has one, whatever else was left out
SPANS      :data:`SPANS`, then as many :data:`SPAN`, then the step's kind (UTF-8, to the end): what the training thread
           did in the step, in order; stands before the step's STEP
CPU        :data:`CPU`: CPU time over the step; stands before the step's STEP
NAME       JSON: ``of`` ("optimizers" or "models") and ``name``; the reader appends it to ``head["kinds"][of]``, so that
           places of spans and kinds of steps are indices into those lists
IDLE       :data:`IDLE`: cycles in which nothing was popped and nothing agreed, together; then :data:`SENT`, where known
READY      :data:`READY`, then ids u32 and as many times i64: when gradients of parameters were there, one block a step
CLOCK      :data:`CLOCK`: how far rank 0's clock is ahead
END        JSON: why the stream ends, what was left out. There may be several: a stream ends when the wanted steps are
           recorded, and how the process ended is appended later; keys of later blocks win
=========  ==========================================================================================================

Keys of the head beside those: ``cores`` (list of the CPU cores that the process may use), ``threads`` (``{"torch": n,
"interop": n}``; null without torch), ``local_ranks`` (ranks on this host as the launcher says; null where it does not),
``kinds`` (filled by NAME blocks). Keys of the end: ``error``, ``left_out_steps``, and ``ended``: ``{"how", "code",
"signal", "text", "unix_ns"}`` where ``how`` is one of :data:`HOWS`.

Version 2 added :data:`SENT`. Version 3 added SPANS, CPU and NAME, the head's keys above, and ``ended``. A reader of
version 2 stops at the first block of a kind that it does not know, so version 3 has a schema of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from enum import IntEnum
from zlib import crc32

SCHEMA = "coordsim.rank/3"
SCHEMAS = ("coordsim.rank/1", "coordsim.rank/2", SCHEMA)
"""What can be read; what each version added stands above."""
HOWS = ("exit", "exception", "sys.exit", "os._exit", "signal", "unknown")
"""How a process ended: by itself, by an uncaught exception (``text``: type and first line), by ``sys.exit`` or
``os._exit`` (``code``), by a signal (``signal``: its number; written by ``coordsim profile``, which watches), or
without a word to anybody ("unknown"; written by ``coordsim profile`` as well)."""
MAGIC = b"coordsim rank record 1\n"
NULL = -(1 << 63)
"""Of a time that was not measured."""
LARGEST_BLOCK = 1 << 26
LARGEST_HEAD = 1 << 20
"""Bytes within which a stream's first block ends."""

_BLOCK = struct.Struct("<IIB")
HEAD_BYTES = _BLOCK.size
"""Of a block, before its payload."""
CYCLE = struct.Struct("<QqBqqqqIQIIqQI")
"""cycle, step, kind (:class:`coordsim.record.trace.Kind`), entered, left, work, finished (ns), requests and bytes that
rank 0 took in, common hits, responses, schedule hash, cache digest (0: not taken), popped."""
RESPONSE = struct.Struct("<QqIQBqqqqqI")
"""cycle, step, index, bytes, operation (:class:`coordsim.protocol.messages.Op`), launch, begin, copied in, reduced,
end (ns), tensors."""
STEP = struct.Struct("<qqqqqqqqIIB")
"""step, start, forward end, first and last submission, end of the last collective, end of the step (ns), cycles,
tensors, slow cycles, 1 when cycles and responses of it are in the stream."""
IDLE = struct.Struct("<QQqqq")
"""first cycle, cycles, entered first, entered last, left last (ns)."""
SENT = struct.Struct("<IQI")
"""messages, bytes of their payloads, neighbours woken: what the rank sent over its control links, cycles together."""
READY = struct.Struct("<qI")
"""step, parameters."""
SPANS = struct.Struct("<qI")
"""step, spans."""
SPAN = struct.Struct("<BIqq")
"""kind (:class:`coordsim.record.ranks.reader.SpanKind`), place, begin, end (ns)."""
CPU = struct.Struct("<qqqqq")
"""step; CPU time (ns) of the training thread, of the engine's background thread, of the whole process; time (ns) that
the training thread was ready to run while no core was free (:data:`NULL` where the kernel does not say; early records
of version 3 end before it)."""
CPU_WITHOUT_WAIT = struct.Struct("<qqqq")
"""The same of early records of version 3."""
CLOCK = struct.Struct("<qqq")
"""when, offset, error (ns)."""


class Block(IntEnum):
    """Kinds of block."""

    HEAD = 1
    TENSOR = 2
    CYCLE = 3
    RESPONSE = 4
    STEP = 5
    IDLE = 6
    CLOCK = 7
    END = 8
    READY = 9
    SPANS = 10
    CPU = 11
    NAME = 12


def block(kind: Block, payload: bytes) -> bytes:
    """One block, ready to be written."""
    return _BLOCK.pack(len(payload), crc32(payload), kind) + payload


def blocks(data: memoryview) -> Generator[tuple[Block, memoryview], None, int]:
    """The whole blocks at the start of ``data`` (behind the magic); stops at the first torn one.

    Its generator's return value (``StopIteration.value``) is the number of bytes that were not used.
    """
    at = 0
    while at + _BLOCK.size <= len(data):
        length, checksum, kind = _BLOCK.unpack_from(data, at)
        payload = data[at + _BLOCK.size : at + _BLOCK.size + length]
        if length > LARGEST_BLOCK or len(payload) < length or crc32(payload) != checksum:
            break
        if kind not in _KINDS:
            break
        at += _BLOCK.size + length
        yield Block(kind), payload
    return len(data) - at


_KINDS = frozenset(int(kind) for kind in Block)
