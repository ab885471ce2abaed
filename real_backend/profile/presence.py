"""Where a rank is now, in a file of a few bytes that outlives it, since a killed or hanging rank cannot report it."""

from __future__ import annotations

import mmap
import os
import struct
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

SUFFIX = ".now"
_NOW = struct.Struct("<qqB")


class Stage(IntEnum):
    """What the training thread is doing."""

    BETWEEN = 0
    INPUT = 1
    FORWARD = 2
    BACKWARD = 3
    OPTIMIZER = 4
    EVALUATION = 6
    CHECKPOINT = 7
    AFTER_BACKWARD = 9
    STARTED = 8
    """In a process group, before the first step."""
    OVER = 10
    """The record is over, so the rank's place is no longer known."""


WORDS = {
    Stage.BETWEEN: "between steps", Stage.INPUT: "input", Stage.FORWARD: "forward", Stage.BACKWARD: "backward",
    Stage.OPTIMIZER: "optimizer", Stage.EVALUATION: "evaluation", Stage.CHECKPOINT: "checkpoint",
    Stage.AFTER_BACKWARD: "between backward and optimizer",
}  # fmt: skip


class Seen(NamedTuple):
    """The content of a rank's file."""

    step: int
    since_ns: int
    """Time on the host's monotonic clock."""
    stage: Stage

    @property
    def words(self) -> str:
        if self.stage is Stage.STARTED:
            return "the time before its first step"
        if self.stage is Stage.OVER:
            return f"a step after the {self.step} that were recorded"
        return f"step {self.step}, {WORDS[self.stage]}"


class Presence:
    """The file of one rank, written by that rank; before :meth:`open` nothing is written."""

    def __init__(self) -> None:
        self._map: mmap.mmap | None = None

    def open(self, record: Path) -> None:
        """Create the file beside the rank's ``record``. Raises OSError."""
        file = os.open(record.with_suffix(SUFFIX), os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.ftruncate(file, _NOW.size)
            self._map = mmap.mmap(file, _NOW.size)
        finally:
            os.close(file)

    def put(self, step: int, stage: Stage, now_ns: int) -> None:
        if self._map is not None:
            _NOW.pack_into(self._map, 0, step, now_ns, stage)


def seen(folder: Path, rank: int) -> Seen | None:
    """Return where ``rank`` is, or was last; None if it has not come to a step."""
    try:
        data = (folder / f"rank-{rank:05d}{SUFFIX}").read_bytes()
        step, since_ns, stage = _NOW.unpack(data)
        return Seen(step, since_ns, Stage(stage)) if since_ns else None
    except (OSError, ValueError, struct.error):
        return None
