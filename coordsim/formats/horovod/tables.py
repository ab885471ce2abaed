"""The tables that a timeline is grouped into, and what their columns and numbers mean.

One row each:

- *tensor*: where its current negotiation stands;
- *cycle*: a turn of the loop in which rank 0 counted a request or something was agreed. Without marks a turn is told
  by what cannot happen within one: a lower rank counted after a higher one, a negotiation after an operation, or a
  pause of :data:`GAP_US`;
- *message*: tensors whose first activity is reported in one block, agreed together; without activities, one tensor;
- *step*: opened by a tensor that is negotiated again, or, with nothing outstanding, when all tensors of an earlier step
  have been seen and another one is negotiated.

The numbers below are compiled into :mod:`.open_steps` and :mod:`.grouping` (:mod:`coordsim.compiling`: caches).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from coordsim.formats.horovod.scan import Int32, Int64

Table = npt.NDArray[np.int64]
Rings = npt.NDArray[np.int32]
"""Shape [RING, rank, 2]: the row in which a rank was counted last (-1: not yet); ranks in the order of their first."""

GAP_US: Final = 500
"""No loop pauses that long between two requests that it counts."""
RING: Final = 4
"""Steps that may be open at once and still tell who was counted last."""
SETS: Final = 512
"""Different sets of tensors that are remembered as steps."""

# Columns of the tensor table.
(PHASE, STEP, SINCE, AGREED_ROW, TICKS, TICKS_MOST, ASKED_BY, MESSAGE, MEMBER, SEQUENCE, ACTIVITY, ACTIVITY_SINCE,
 DEPTH, NUMEL, DTYPE, OPERATION) = range(16)  # fmt: skip
"""SINCE: when the phase began, us. TICKS_MOST: the most requests with which it was agreed. ASKED_BY: the last entry of
its list in :attr:`Tables.asked`, -1 for none. ACTIVITY: the number of the outermost open activity's name."""
TENSOR_COLUMNS = 16
NOTHING, ASKED, AGREED, LAUNCHED, RUNNING, LEADING = range(6)
"""Values of PHASE. The LEADING tensor of a message is the one whose activities are measured: the others report the
same ones."""

Rows = npt.NDArray[np.void]
"""A table of records: narrow, for a large timeline makes millions of rows."""


def _record(times: str, counts: str) -> np.dtype[np.void]:
    return np.dtype([*((name, np.int64) for name in times.split()), *((name, np.int32) for name in counts.split())])


CYCLES = _record("enter leave launch", "index ticks hits step messages unused")
MESSAGES_KEPT = _record("launch end bytes copy_in copy_out collective", "step row units executed")
"""Times in us. ``end``: of the last activity, or of the operation when none of its activities is a collective.
``bytes``: of the outputs; -1 when the file does not say the size of every member. ``copy_in``, ``copy_out`` and
``collective``: sums over activities of that kind, so waits, allocations and pauses are in none of them; ``collective``
is -1 when the file has no such activity of the message."""
STEPS_KEPT = _record(
    "end negotiated awaited",
    "row outstanding tensors ticks_least ticks_most cached joined last_rank last_row median_row ranks set",
)
"""``negotiated``: how long the last tensor was, us. ``awaited``: end of the last wait for a gradient's data, us; -1:
none. ``ticks_least``, ``ticks_most``: requests with which tensors were agreed, those of the cache not counted.
``cached``: tensors that were agreed without a request. ``joined``: tensors that were agreed with fewer requests than
the same tensor was before."""

# Scalars.
(CYCLE, ENTER, ROW, MARKED, UNMARKED, ROWS, MESSAGES, STEPS, OUTSTANDING, DIGEST, COUNT, BLOCK, BLOCK_WHAT, OPEN,
 ASYNCHRONOUS, LAST_US, LAST_RANK, AFTER_OPERATION, SEQUENCES, KNOWN, STEP_OPEN, UNTOLD, TURNS, BEGAN, END_US,
 ASKED_USED, ASKED_FREE, ABANDONED, UNATTRIBUTED, FAILED, BARRIER_WORD, ERROR_WORD, COUNTED) = range(33)  # fmt: skip
OWNERS: Final = 33
"""From here on, two for each ring: the step that it is of, and how many ranks were counted."""
SETS_KNOWN: Final = OWNERS + 2 * RING
"""From here on, two for each set of tensors: how many it has, and the mix of their numbers and operations."""
SCALARS = SETS_KNOWN + 2 * SETS
"""ABANDONED: negotiations that began again before an operation was recorded. UNATTRIBUTED: operations whose negotiation
is not in the file. FAILED: operations called ERROR. COUNTED: whether a tensor was agreed of which requests are
counted."""

WORD_KIND, VALUE_BYTES, TIMES, TOTAL_US = range(4)
WORD_COLUMNS = 4
"""Of a word: what activity it is; bytes of a value of that type, 0: not known; how often the activity ran, once for
each message, and for how long altogether."""
COPY_IN, COPY_OUT, WAIT, DATA_WAIT, SETUP, COLLECTIVE, OTHER = range(7)
"""What an activity is. WAIT: for the stream. DATA_WAIT: for a gradient that is not computed yet. SETUP: allocations,
communicators. OTHER: a name that no version of Horovod writes; counted as COLLECTIVE."""
NOBODY: Final = (1 << 31) - 1
"""In the place of a rank, and more than any count of requests."""
DONE, NEW_SET, BACKWARDS = range(3)
"""Why the grouping returned."""


class Tables(NamedTuple):
    """All that the grouping knows; every array is written in place."""

    scalars: Int64
    tensors: Table
    cycles: Rows
    messages: Rows
    steps: Rows
    ring: Rings
    asked: Int32
    """Shape [entry, 2]: a rank that asked for a tensor not agreed yet, and the entry before it. Entries that are free
    are a list too."""
    words: Int64
    """Shape [word, WORD_COLUMNS]."""
