"""Wake patterns: how far apart the ranks' loops are, and what an exchange does from there.

Exchanges are (max, +): shift all wakes by d and everything shifts by d. So an exchange is evaluated once per
*pattern* (wakes relative to rank 0) and re-used wherever that pattern returns; and once an idle cycle leads
from a pattern to itself, all further idle cycles are the same cycle, later (docs/semantics.md 9).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from weakref import ReferenceType

import numpy as np
import numpy.typing as npt

from coordsim.record.trace import as_signed
from coordsim.simulate.vector.kernels.readiness import wake_hash_kernel

Int64 = npt.NDArray[np.int64]


_MEMORY_BYTES = 32 << 20
"""For the offsets of remembered patterns."""


@dataclass(slots=True, eq=False)
class Outcome:
    """When each rank has left an exchange; relative to rank 0's wake, arrays of shape [rank]."""

    leave: Int64
    leave_shadow: Int64
    """The same without serial work; may be the same array."""
    last: int
    """max over ranks of leave, ns."""
    shadow_last: int
    slack: int
    """ns; max over ranks of leave - wake: up to this cycle time nobody sleeps less than fully."""
    following: tuple[ReferenceType[Pattern], int] | None = None
    """The pattern after an idle cycle with this outcome, and rank 0's wake in it relative to this one's: a
    saturated loop often goes round a few patterns for ever."""

    @classmethod
    def of(cls, pattern: Pattern, leave: Int64, leave_shadow: Int64) -> Outcome:
        shadow_last = int(leave_shadow.max())
        last = shadow_last if leave is leave_shadow else int(leave.max())
        return cls(leave, leave_shadow, last, shadow_last, int((leave - pattern.offset).max()))


@dataclass(slots=True, eq=False, weakref_slot=True)
class Pattern:
    """Wakes of all ranks relative to rank 0 (shape [rank])."""

    offset: Int64
    first: int
    last: int
    last_rank: int
    """Lowest rank that wakes last."""
    wake_hash: int
    outcomes: dict[Hashable, Outcome] = field(default_factory=dict)
    """Exchanges that depend on nothing but the pattern, by what they are."""
    _lags: dict[int, int] = field(default_factory=dict)
    _step: int = -1

    def lags_of(self, step: int) -> dict[int, int]:
        """By unit of ``step``: rank 0's wake, after the step's start, from which on every rank has popped it."""
        if self._step != step:
            self._step, self._lags = step, {}
        return self._lags


class Patterns:
    """Interned patterns of one run: equal offsets, one object; the oldest make room for new ones."""

    def __init__(self, ranks: int) -> None:
        self._known: dict[int, Pattern] = {}
        self._keep = max(4, min(64, _MEMORY_BYTES // (8 * ranks)))
        self.uniform = self.of(np.zeros(ranks, dtype=np.int64))

    def of(self, wake: Int64) -> Pattern:
        """The pattern of these wakes (any common shift)."""
        last_rank = int(wake.argmax())
        identity = as_signed(int(wake_hash_kernel(wake - wake[last_rank])))
        offset = wake - wake[0]
        known = self._known.get(identity)
        if known is not None and np.array_equal(known.offset, offset):
            return known
        pattern = Pattern(offset, int(offset.min()), int(offset[last_rank]), last_rank, identity)
        if len(self._known) >= self._keep:
            self._known.pop(next(iter(self._known)))
        self._known[identity] = pattern
        return pattern
