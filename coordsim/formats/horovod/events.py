"""The events of a timeline, one at a time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

CYCLE_START = "CYCLE_START"
NEGOTIATE = "NEGOTIATE_"
EPOCH = "start_time_since_epoch_in_micros"
UNFINISHED = "unfinished"
"""Argument of the ends that this project's writer adds when it stops; Horovod leaves such events open."""


class EventKind(Enum):
    """What happened; the first four concern rank 0's background thread, the others an operation."""

    CYCLE = auto()
    """A turn of the background loop begins."""
    NEGOTIATE = auto()
    """The first request for a tensor, or the first cycle in which any rank hits its cache entry."""
    TICK = auto()
    """Rank 0 has counted one rank's request; on the slow path only."""
    AGREED = auto()
    """Every rank has requested the tensor."""
    OPERATION = auto()
    ACTIVITY = auto()
    """A part of an operation, such as MEMCPY_IN_FUSION_BUFFER; of all members of a fused response at once."""
    ACTIVITY_END = auto()
    OPERATION_END = auto()
    STRAY_END = auto()
    """An end without a beginning, as Horovod writes for barriers and joins."""
    UNFINISHED = auto()
    """The writer stopped while something was open."""


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    kind: EventKind
    ts_us: int
    """Microseconds since the timeline's start."""
    tensor: str = ""
    """Name; empty for CYCLE."""
    what: str = ""
    """NEGOTIATE, OPERATION: the operation, such as ALLREDUCE; ACTIVITY: its name."""
    rank: int = -1
    """TICK: the rank whose request was counted."""
    dtype: str = ""
    """OPERATION_END of a success: the type as Horovod spells it, float32."""
    shape: tuple[int, ...] | None = None
    """OPERATION_END of a success: shape of the output, so for an allgather the gathered rows."""
