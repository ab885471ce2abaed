"""Compiled grouping of a timeline's events: cycles, steps, messages, and who was counted last.

File order decides, not time stamps: rank 0's background thread reports in order. Tables, one row each:

- *tensor*: where its current negotiation stands;
- *cycle*: a turn of the loop in which rank 0 counted a request or something was agreed. Without marks a turn is told
  by what cannot happen within one: a lower rank counted after a higher one, a negotiation after an operation, or a
  pause of :data:`GAP_US`;
- *message*: tensors whose first activity is reported in one block, agreed together; without activities, one tensor;
- *step*: opened by a tensor that is negotiated again, or, with nothing outstanding, when all tensors of an earlier step
  have been seen and another one is negotiated.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from coordsim.formats.horovod.events import EventKind
from coordsim.formats.horovod.scan import Bytes, Int32, Int64
from coordsim.formats.shared.compiled import compiled, inlined

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


class Events(NamedTuple):
    """The columns of a batch; shape [event] each."""

    kinds: Bytes
    ts: Int64
    slots: Int32
    whats: Int32
    numels: Int64


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


_CYCLE, _NEGOTIATE, _TICK, _AGREED = (
    EventKind.CYCLE.value, EventKind.NEGOTIATE.value, EventKind.TICK.value, EventKind.AGREED.value
)  # fmt: skip
_OPERATION, _ACTIVITY, _ACTIVITY_END = (
    EventKind.OPERATION.value, EventKind.ACTIVITY.value, EventKind.ACTIVITY_END.value
)  # fmt: skip
_OPERATION_END, _STRAY_END = EventKind.OPERATION_END.value, EventKind.STRAY_END.value


@inlined
def _mixed(value: int) -> int:
    z = np.uint64(value + 1) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return int(np.int64(z ^ (z >> np.uint64(31))))


@compiled
def _find(scalars: Int64) -> int:
    """Number of the open step's set of tensors; -1: a new one."""
    for index in range(scalars[KNOWN]):
        at = SETS_KNOWN + 2 * index
        if scalars[at] == scalars[COUNT] and scalars[at + 1] == scalars[DIGEST]:
            return index
    return -1


@compiled
def _settle(scalars: Int64, steps: Rows, ring: Rings, step: int) -> None:
    """The step is over: who was counted last, and when the median rank was."""
    place = step % RING
    if scalars[OWNERS + 2 * place] != step:
        return
    many = scalars[OWNERS + 2 * place + 1]
    steps[step].ranks = many
    if many == 0:
        return
    counted = np.empty(many, np.int64)
    for index in range(many):
        counted[index] = ring[place, ring[place, index, 1], 0]
    counted.sort()
    last = counted[-1]
    steps[step].last_row, steps[step].median_row = last, counted[(many - 1) // 2]
    if many == 1 or counted[-2] != last:
        for index in range(many):
            if ring[place, ring[place, index, 1], 0] == last:
                steps[step].last_rank = ring[place, index, 1]


@inlined
def _count(scalars: Int64, ring: Rings, step: int, rank: int, row: int) -> None:
    """A request of ``rank`` was counted in the cycle of ``row``."""
    place = step % RING
    if scalars[OWNERS + 2 * place] != step:
        return
    if ring[place, rank, 0] < 0:
        ring[place, scalars[OWNERS + 2 * place + 1], 1] = rank
        scalars[OWNERS + 2 * place + 1] += 1
    ring[place, rank, 0] = row


@compiled
def _watch(scalars: Int64, ring: Rings, step: int) -> None:
    """Count for ``step`` from here on, in the place of an earlier one."""
    place = step % RING
    for index in range(scalars[OWNERS + 2 * place + 1]):
        ring[place, ring[place, index, 1], 0] = -1
    scalars[OWNERS + 2 * place], scalars[OWNERS + 2 * place + 1] = step, 0


@compiled
def close(scalars: Int64, steps: Rows, ring: Rings) -> int:
    """End the open step; NEW_SET when its set of tensors was not known."""
    if scalars[STEP_OPEN] == 0:
        return DONE
    step = scalars[STEPS] - 1
    number = _find(scalars)
    status = DONE
    if number < 0 and scalars[KNOWN] < SETS:
        number = scalars[KNOWN]
        at = SETS_KNOWN + 2 * number
        scalars[at], scalars[at + 1] = scalars[COUNT], scalars[DIGEST]
        scalars[KNOWN] += 1
        status = NEW_SET
    steps[step].set = number
    scalars[STEP_OPEN], scalars[COUNT], scalars[DIGEST] = 0, 0, 0
    if steps[step].outstanding == 0:
        _settle(scalars, steps, ring, step)
    return status


@inlined
def _turn(scalars: Int64, when: int) -> None:
    scalars[CYCLE] += 1
    scalars[ENTER], scalars[ROW], scalars[LAST_RANK] = when, -1, -1


@inlined
def _background(scalars: Int64, when: int, rank: int) -> None:
    """Rank 0's background thread reports; without marks this may be a new turn."""
    if scalars[OPEN] > 0:
        scalars[ASYNCHRONOUS] = 1
    if scalars[MARKED] == 0 and (
        scalars[CYCLE] < 0 or scalars[AFTER_OPERATION] or when - scalars[LAST_US] > GAP_US or rank < scalars[LAST_RANK]
    ):
        _turn(scalars, when)
    scalars[LAST_US], scalars[AFTER_OPERATION] = when, 0
    if rank < NOBODY:
        scalars[LAST_RANK] = rank


@inlined
def _row(scalars: Int64, cycles: Rows, when: int) -> int:
    """The row of this turn, made when it is the first time that anything is counted or agreed in it."""
    row = scalars[ROW]
    if row < 0:
        row = scalars[ROWS]
        scalars[ROW], scalars[ROWS] = row, row + 1
        if scalars[MARKED] == 0:
            scalars[UNMARKED] += 1
        fresh = cycles[row]
        fresh.index, fresh.enter, fresh.launch = scalars[CYCLE], scalars[ENTER], -1
        fresh.ticks, fresh.hits, fresh.step, fresh.messages = 0, 0, 0, 0
    cycles[row].leave = when
    return int(row)


@inlined
def _message(
    scalars: Int64, cycles: Rows, messages: Rows, tensors: Table, tensor: int, launch: int
) -> int:
    """A new message, whose first member is ``tensor``."""
    index = scalars[MESSAGES]
    scalars[MESSAGES] += 1
    row = tensors[tensor, AGREED_ROW]
    fresh = messages[index]
    fresh.step, fresh.row, fresh.executed = tensors[tensor, STEP], row, tensors[tensor, OPERATION]
    fresh.launch, fresh.end, fresh.units, fresh.bytes = launch, launch, 1, 0
    fresh.copy_in, fresh.copy_out, fresh.collective = 0, 0, -1
    tensors[tensor, MESSAGE] = index
    if row >= 0:
        cycles[row].messages += 1
        if cycles[row].launch < 0 or launch < cycles[row].launch:
            cycles[row].launch = launch
    return int(index)


@compiled
def _over(scalars: Int64, steps: Rows, ring: Rings, tensors: Table, tensor: int, when: int) -> None:
    """A tensor was executed, until ``when``."""
    step = tensors[tensor, STEP]
    tensors[tensor, PHASE] = NOTHING
    if step < 0:
        return
    scalars[OUTSTANDING] -= 1
    steps[step].outstanding -= 1
    steps[step].end = max(steps[step].end, when)
    if steps[step].outstanding == 0 and (step < scalars[STEPS] - 1 or scalars[STEP_OPEN] == 0):
        _settle(scalars, steps, ring, step)


@compiled
def _open_step(scalars: Int64, steps: Rows, ring: Rings, when: int) -> None:
    step = scalars[STEPS]
    scalars[STEPS], scalars[STEP_OPEN] = step + 1, 1
    fresh = steps[step]
    fresh.end, fresh.negotiated, fresh.awaited, fresh.row, fresh.outstanding, fresh.tensors = -1, 0, -1, -1, 0, 0
    fresh.ticks_least, fresh.ticks_most, fresh.ranks, fresh.set = NOBODY, 0, -1, -1
    fresh.cached, fresh.joined = 0, 0
    fresh.last_rank, fresh.last_row, fresh.median_row = -1, -1, -1
    if step == 0:
        scalars[BEGAN] = when
    _watch(scalars, ring, step)


@inlined
def _remember_request(scalars: Int64, tensors: Table, asked: Int32, tensor: int, rank: int) -> None:
    """Until the tensor is agreed: who has asked is what a stalled job's owner wants to know."""
    entry = scalars[ASKED_FREE]
    if entry >= 0:
        scalars[ASKED_FREE] = asked[entry, 1]
    else:
        entry = scalars[ASKED_USED]
        scalars[ASKED_USED] += 1
    asked[entry, 0], asked[entry, 1] = rank, tensors[tensor, ASKED_BY]
    tensors[tensor, ASKED_BY] = entry


@inlined
def _forget_requests(scalars: Int64, tensors: Table, asked: Int32, tensor: int) -> None:
    """Give the entries of the tensor's requests back to the free list."""
    entry = tensors[tensor, ASKED_BY]
    while entry >= 0:
        before = asked[entry, 1]
        asked[entry, 1] = scalars[ASKED_FREE]
        scalars[ASKED_FREE] = entry
        entry = before
    tensors[tensor, ASKED_BY] = -1


@compiled
def _abandon(scalars: Int64, steps: Rows, ring: Rings, tensors: Table, asked: Int32, tensor: int) -> None:
    """The tensor is negotiated again, though nothing of its last negotiation was executed: its step goes on without."""
    step = tensors[tensor, STEP]
    scalars[ABANDONED] += 1
    _forget_requests(scalars, tensors, asked, tensor)
    if tensors[tensor, PHASE] >= LAUNCHED:
        scalars[OPEN] = max(scalars[OPEN] - 1, 0)
    _over(scalars, steps, ring, tensors, tensor, steps[step].end if step >= 0 else 0)


@compiled
def _on_negotiate(
    scalars: Int64, steps: Rows, ring: Rings, tensors: Table, asked: Int32, tensor: int, when: int, what: int
) -> int:
    """NEW_SET: the step before is over; come back with the same event."""
    if tensors[tensor, PHASE] != NOTHING:
        _abandon(scalars, steps, ring, tensors, asked, tensor)
    opened = scalars[STEP_OPEN]
    again = tensors[tensor, MEMBER] == scalars[STEPS] - 1
    if opened and (again or (scalars[OUTSTANDING] == 0 and _find(scalars) >= 0)):
        if close(scalars, steps, ring) == NEW_SET:
            return NEW_SET
        opened = 0
    _background(scalars, when, NOBODY)
    if not opened:
        _open_step(scalars, steps, ring, when)
    step = scalars[STEPS] - 1
    tensors[tensor, PHASE], tensors[tensor, STEP], tensors[tensor, SINCE] = ASKED, step, when
    tensors[tensor, AGREED_ROW], tensors[tensor, TICKS], tensors[tensor, MEMBER] = -1, 0, step
    tensors[tensor, SEQUENCE], tensors[tensor, OPERATION] = scalars[SEQUENCES], what
    tensors[tensor, DEPTH] = 0
    scalars[SEQUENCES] += 1
    scalars[OUTSTANDING] += 1
    scalars[COUNT] += 1
    # A name that is broadcast in one step and reduced in another makes two sets.
    scalars[DIGEST] ^= _mixed(tensor + what * (1 << 32))
    steps[step].outstanding += 1
    steps[step].tensors += 1
    return DONE


@inlined
def _on_tick(
    scalars: Int64, cycles: Rows, ring: Rings, tensors: Table, asked: Int32, tensor: int, when: int, rank: int
) -> None:
    _background(scalars, when, rank)
    row = _row(scalars, cycles, when)
    step = tensors[tensor, STEP]
    cycles[row].ticks += 1
    cycles[row].step = max(cycles[row].step, step)
    tensors[tensor, TICKS] += 1
    _remember_request(scalars, tensors, asked, tensor, rank)
    _count(scalars, ring, step, rank, row)


@inlined
def _on_agreed(
    scalars: Int64, cycles: Rows, steps: Rows, tensors: Table, asked: Int32, tensor: int, when: int
) -> int:
    if when < tensors[tensor, SINCE]:
        return BACKWARDS
    _background(scalars, when, NOBODY)
    row = _row(scalars, cycles, when)
    step = tensors[tensor, STEP]
    cycles[row].step = max(cycles[row].step, step)
    ticks = tensors[tensor, TICKS]
    current = steps[step]
    current.row, current.negotiated = row, when - tensors[tensor, SINCE]
    if ticks == 0:
        cycles[row].hits += 1
        current.cached += 1
    else:
        if ticks < tensors[tensor, TICKS_MOST]:
            current.joined += 1
        tensors[tensor, TICKS_MOST] = max(tensors[tensor, TICKS_MOST], ticks)
        current.ticks_least, current.ticks_most = min(current.ticks_least, ticks), max(current.ticks_most, ticks)
        scalars[COUNTED] = 1
        _forget_requests(scalars, tensors, asked, tensor)
    tensors[tensor, PHASE], tensors[tensor, AGREED_ROW], tensors[tensor, SINCE] = AGREED, row, when
    return DONE


@inlined
def _on_operation(scalars: Int64, tensors: Table, tensor: int, when: int, what: int) -> None:
    scalars[AFTER_OPERATION] = 1
    scalars[OPEN] += 1
    if tensors[tensor, PHASE] != AGREED:
        # Recording began in between, or two process sets use one name.
        scalars[UNATTRIBUTED] += 1
        tensors[tensor, STEP], tensors[tensor, AGREED_ROW] = -1, -1
    tensors[tensor, PHASE], tensors[tensor, SINCE] = LAUNCHED, when
    tensors[tensor, OPERATION], tensors[tensor, DEPTH] = what, 0


@inlined
def _on_activity(
    scalars: Int64, cycles: Rows, messages: Rows, tensors: Table, tensor: int, when: int, what: int, block: int
) -> None:
    """``block``: the message whose member the event before belonged to; -1: it was no activity's beginning."""
    scalars[AFTER_OPERATION] = 1
    if tensors[tensor, PHASE] == LAUNCHED:
        if (
            block >= 0
            and scalars[BLOCK_WHAT] == what
            and messages[block].row == tensors[tensor, AGREED_ROW]
            and messages[block].executed == tensors[tensor, OPERATION]
        ):
            messages[block].units += 1
            tensors[tensor, MESSAGE], tensors[tensor, PHASE] = block, RUNNING
        else:
            _message(scalars, cycles, messages, tensors, tensor, tensors[tensor, SINCE])
            tensors[tensor, PHASE] = LEADING
        scalars[BLOCK], scalars[BLOCK_WHAT] = tensors[tensor, MESSAGE], what
    if tensors[tensor, DEPTH] == 0:
        tensors[tensor, ACTIVITY], tensors[tensor, ACTIVITY_SINCE] = what, when
    tensors[tensor, DEPTH] += 1


@inlined
def _on_activity_end(
    steps: Rows, messages: Rows, tensors: Table, words: Int64, tensor: int, when: int
) -> int:
    tensors[tensor, DEPTH] -= 1
    phase = tensors[tensor, PHASE]
    if phase < RUNNING or tensors[tensor, DEPTH] != 0:
        return DONE
    lasted = when - tensors[tensor, ACTIVITY_SINCE]
    if lasted < 0:
        return BACKWARDS
    activity, message = tensors[tensor, ACTIVITY], tensors[tensor, MESSAGE]
    kind = words[activity, WORD_KIND]
    messages[message].end = max(messages[message].end, when)
    step = tensors[tensor, STEP]
    if kind == DATA_WAIT and step >= 0:
        steps[step].awaited = max(steps[step].awaited, when)
    if phase == LEADING:
        words[activity, TIMES] += 1
        words[activity, TOTAL_US] += lasted
        if kind == COPY_IN:
            messages[message].copy_in += lasted
        elif kind == COPY_OUT:
            messages[message].copy_out += lasted
        elif kind >= COLLECTIVE:
            messages[message].collective = max(messages[message].collective, 0) + lasted
    return DONE


@inlined
def _on_operation_end(
    scalars: Int64, messages: Rows, tensors: Table, words: Int64, tensor: int, when: int, what: int, numel: int
) -> int:
    """The tensor's message knows its size and its end, unless the end is before the beginning."""
    scalars[AFTER_OPERATION] = 1
    scalars[OPEN] = max(scalars[OPEN] - 1, 0)
    if when < tensors[tensor, SINCE]:
        return BACKWARDS
    message = tensors[tensor, MESSAGE]
    if messages[message].collective < 0:  # nothing says where in the operation the data moved
        messages[message].end = max(messages[message].end, when)
    if tensors[tensor, OPERATION] == scalars[ERROR_WORD]:
        scalars[FAILED] += 1
    if numel < 0:
        messages[message].bytes = -1
        return DONE
    tensors[tensor, NUMEL], tensors[tensor, DTYPE] = numel, what
    value_bytes = words[what, VALUE_BYTES]
    if value_bytes == 0:
        messages[message].bytes = -1
        scalars[UNTOLD] += 1
    elif messages[message].bytes >= 0:
        messages[message].bytes += numel * value_bytes
    return DONE


@inlined
def _on_cycle(scalars: Int64, when: int) -> int:
    if scalars[MARKED] and when < scalars[ENTER]:
        return BACKWARDS
    if scalars[OPEN] > 0:
        scalars[ASYNCHRONOUS] = 1
    scalars[MARKED] = 1
    scalars[TURNS] += 1
    _turn(scalars, when)
    return DONE


def group(begin: int, events: Events, tables: Tables) -> tuple[int, int]:
    """Events from ``begin`` on; returns the event at which it stopped, and why.

    After NEW_SET the members of the step before are those with MEMBER of it; go on with the same event.
    """
    at, why = _group(begin, *events, *tables)  # type: ignore[arg-type]
    return at, why


@compiled
def _group(
    begin: int, kinds: Bytes, ts: Int64, slots: Int32, whats: Int32, numels: Int64, scalars: Int64, tensors: Table,
    cycles: Rows, messages: Rows, steps: Rows, ring: Rings, asked: Int32, words: Int64,
) -> tuple[int, int]:  # fmt: skip
    """As :func:`group`. The tables come one by one: taken out of a tuple here, references to them would be counted at
    every use, which took eight times as long."""
    for index in range(begin, kinds.size):
        kind, when, tensor, what = kinds[index], ts[index], slots[index], whats[index]
        block, scalars[BLOCK] = scalars[BLOCK], -1
        status = DONE
        if kind == _CYCLE:
            status = _on_cycle(scalars, when)
        elif kind == _NEGOTIATE:
            status = _on_negotiate(scalars, steps, ring, tensors, asked, tensor, when, what)
        elif kind == _TICK:
            _on_tick(scalars, cycles, ring, tensors, asked, tensor, when, what)
        elif kind == _AGREED:
            status = _on_agreed(scalars, cycles, steps, tensors, asked, tensor, when)
        elif kind == _OPERATION:
            _on_operation(scalars, tensors, tensor, when, what)
        elif kind == _ACTIVITY:
            _on_activity(scalars, cycles, messages, tensors, tensor, when, what, block)
        elif kind == _ACTIVITY_END:
            status = _on_activity_end(steps, messages, tensors, words, tensor, when)
        elif kind == _OPERATION_END:
            if tensors[tensor, PHASE] == LAUNCHED:  # no activity was recorded: a message of its own
                _message(scalars, cycles, messages, tensors, tensor, tensors[tensor, SINCE])
            status = _on_operation_end(scalars, messages, tensors, words, tensor, when, what, numels[index])
            if status == DONE:
                _over(scalars, steps, ring, tensors, tensor, messages[tensors[tensor, MESSAGE]].end)
        elif (
            kind == _STRAY_END
            and tensors[tensor, PHASE] == AGREED
            and tensors[tensor, OPERATION] == scalars[BARRIER_WORD]
        ):  # of a barrier Horovod writes the end alone
            _message(scalars, cycles, messages, tensors, tensor, when)
            _over(scalars, steps, ring, tensors, tensor, when)
        if status != DONE:
            return index, status
        scalars[END_US] = max(scalars[END_US], when)
    return kinds.size, DONE
