"""How ranks are linked for control, and what a message is wrapped in there: what a backend and a reader of its records
must know alike."""

from __future__ import annotations

import struct

FRAME = struct.Struct("<IBI")
"""In front of every message: payload bytes, kind, cycle (modulo 2^32)."""
PART = struct.Struct("<I")
"""In front of every list of a gather, which an inner node passes on behind its own: its bytes."""
STAR_UP_TO = 64
"""Ranks up to which ``radix = 0`` means a star."""
WIDE_RADIX = 32
"""Radix of the tree beyond."""


def tree_radix(radix: int, ranks: int) -> int:
    """Radix of the heap-ordered tree that links ``ranks``; ``radix``: as set, 0 for whatever suits their number."""
    if radix:
        return radix
    return max(ranks - 1, 1) if ranks <= STAR_UP_TO else WIDE_RADIX
