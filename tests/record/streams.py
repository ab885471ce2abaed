"""Records as the streams that ranks would have written: for tests of what reads them."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path

from coordsim.record.ranks.format import (
    CLOCK,
    CPU,
    CYCLE,
    IDLE,
    MAGIC,
    NULL,
    READY,
    RESPONSE,
    SENT,
    SPAN,
    SPANS,
    STEP,
    Block,
    block,
)
from coordsim.record.ranks.reader import RankRecord, Sent


def write_records(folder: Path, records: Sequence[RankRecord]) -> Path:
    """One stream a rank in ``folder``, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for record in records:
        (folder / f"rank-{record.rank:05d}.rank").write_bytes(stream_of(record))
    return folder


def stream_of(record: RankRecord) -> bytes:
    """The bytes of one rank's stream; a cycle, a response and a gradient's time stand before their step."""
    return MAGIC + b"".join(block(kind, payload) for kind, payload in stream_blocks(record))


def stream_blocks(record: RankRecord) -> list[tuple[Block, bytes]]:
    """(kind, payload) in the order in which they are written."""
    made = [(Block.HEAD, json.dumps(record.head).encode())]
    made += [
        (Block.TENSOR, struct.pack("<I", place) + json.dumps(tensor).encode())
        for place, tensor in enumerate(record.tensors)
    ]
    made += [(Block.CLOCK, CLOCK.pack(*clock)) for clock in record.clocks]
    for cycle in record.cycles:
        popped = len(cycle.popped)
        made.append((Block.CYCLE, CYCLE.pack(*cycle[:13], popped) + struct.pack(f"<{popped}I", *cycle.popped)
                     + struct.pack(f"<{popped}q", *cycle.stamps_ns) + _sent(cycle.sent)))  # fmt: skip
    made += [(Block.IDLE, IDLE.pack(*idle[:5]) + _sent(idle.sent)) for idle in record.idle]
    for response in record.responses:
        count = len(response.tensors)
        ids = struct.pack(f"<{count}I", *response.tensors)
        made.append((Block.RESPONSE, RESPONSE.pack(*response[:10], count) + ids))
    for ready in record.ready:
        count = len(ready.tensors)
        made.append((Block.READY, READY.pack(ready.step, count) + struct.pack(f"<{count}I", *ready.tensors)
                     + struct.pack(f"<{count}q", *ready.stamps_ns)))  # fmt: skip
    for step in record.steps:
        spans = b"".join(SPAN.pack(*span) for span in step.spans)
        made.append((Block.SPANS, SPANS.pack(step.step, len(step.spans)) + spans + step.step_kind.encode()))
        if step.cpu is not None:
            waited = NULL if step.cpu.core_wait_ns is None else step.cpu.core_wait_ns
            made.append((Block.CPU, CPU.pack(step.step, *step.cpu[:3], waited)))
        made.append((Block.STEP, STEP.pack(*step[:11])))
    return [*made, *([] if record.end is None else [(Block.END, json.dumps(record.end).encode())])]


def _sent(sent: Sent | None) -> bytes:
    return b"" if sent is None else SENT.pack(*sent)
