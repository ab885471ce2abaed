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

from typing import Final

import numpy as np
import numpy.typing as npt

from coordsim.formats.horovod.events import EventKind
from coordsim.formats.horovod.scan import Bytes, Int8, Int32, Int64
from coordsim.formats.shared.compiled import compiled

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
(PHASE, STEP, BEGUN, AGREED_ROW, TICKS, LAUNCH, MESSAGE, MEMBER, SEQUENCE, CLASS, DEPTH, NUMEL, DTYPE, OPERATION) = (
    range(14)
)
TENSOR_COLUMNS = 14
NOTHING, ASKED, AGREED, LAUNCHED, RUNNING = range(5)
"""Values of PHASE."""

Rows = npt.NDArray[np.void]
"""A table of records: narrow, for a large timeline makes millions of rows."""


def _record(times: str, counts: str) -> np.dtype[np.void]:
    return np.dtype([*((name, np.int64) for name in times.split()), *((name, np.int32) for name in counts.split())])


CYCLES = _record("enter leave launch", "index ticks hits step messages unused")
MESSAGES_KEPT = _record("launch begin copied out end bytes", "step row units executed")
"""Times in us; -1: not in the file."""
STEPS_KEPT = _record(
    "end negotiated",
    "row outstanding tensors ticks_least ticks_most last_rank last_row median_row ranks set",
)
"""``negotiated``: how long the last tensor was, us."""

# Scalars.
(CYCLE, ENTER, ROW, MARKED, UNMARKED, ROWS, MESSAGES, STEPS, OUTSTANDING, DIGEST, COUNT, BLOCK, BLOCK_WHAT, OPEN,
 ASYNCHRONOUS, LAST_US, LAST_RANK, AFTER_OPERATION, SEQUENCES, KNOWN, STEP_OPEN, UNTOLD, TURNS,
 BEGAN) = range(24)  # fmt: skip
SCALARS = 24

OTHER, COPY_IN, COPY_OUT, WAIT = range(4)
"""What an activity is."""
NOBODY: Final = (1 << 31) - 1
"""In the place of a rank, and more than any count of requests."""
DONE, NEW_SET, CONTRADICTION, BACKWARDS = range(4)
"""Why the grouping returned."""

_CYCLE, _NEGOTIATE, _TICK, _AGREED = (
    EventKind.CYCLE.value, EventKind.NEGOTIATE.value, EventKind.TICK.value, EventKind.AGREED.value
)  # fmt: skip
_OPERATION, _ACTIVITY, _ACTIVITY_END = (
    EventKind.OPERATION.value, EventKind.ACTIVITY.value, EventKind.ACTIVITY_END.value
)  # fmt: skip
_OPERATION_END, _STRAY_END = EventKind.OPERATION_END.value, EventKind.STRAY_END.value


@compiled
def _mixed(value: int) -> int:
    z = np.uint64(value + 1) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return int(np.int64(z ^ (z >> np.uint64(31))))


@compiled
def _find(known: Int64, scalars: Int64) -> int:
    """Number of the open step's set of tensors; -1: a new one."""
    for index in range(scalars[KNOWN]):
        if known[index, 0] == scalars[COUNT] and known[index, 1] == scalars[DIGEST]:
            return index
    return -1


@compiled
def _settle(step: int, steps: Rows, ring: Rings, owner: Int64) -> None:
    """The step is over: who was counted last, and when the median rank was."""
    place = step % RING
    if owner[place, 0] != step:
        return
    many = owner[place, 1]
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


@compiled
def _count(step: int, rank: int, row: int, ring: Rings, owner: Int64) -> None:
    """A request of ``rank`` was counted in the cycle of ``row``."""
    place = step % RING
    if owner[place, 0] != step:
        return
    if ring[place, rank, 0] < 0:
        ring[place, owner[place, 1], 1] = rank
        owner[place, 1] += 1
    ring[place, rank, 0] = row


@compiled
def _watch(step: int, ring: Rings, owner: Int64) -> None:
    """Count for ``step`` from here on, in the place of an earlier one."""
    place = step % RING
    for index in range(owner[place, 1]):
        ring[place, ring[place, index, 1], 0] = -1
    owner[place, 0], owner[place, 1] = step, 0


@compiled
def close(scalars: Int64, steps: Rows, ring: Rings, owner: Int64, known: Int64) -> int:
    """End the open step; NEW_SET when its set of tensors was not known."""
    if scalars[STEP_OPEN] == 0:
        return DONE
    step = scalars[STEPS] - 1
    found = _find(known, scalars)
    status = DONE
    if found < 0 and scalars[KNOWN] < known.shape[0]:
        found = scalars[KNOWN]
        known[found, 0], known[found, 1] = scalars[COUNT], scalars[DIGEST]
        scalars[KNOWN] += 1
        status = NEW_SET
    steps[step].set = found
    scalars[STEP_OPEN], scalars[COUNT], scalars[DIGEST] = 0, 0, 0
    if steps[step].outstanding == 0:
        _settle(step, steps, ring, owner)
    return status


@compiled
def _turn(scalars: Int64, when: int) -> None:
    scalars[CYCLE] += 1
    scalars[ENTER], scalars[ROW], scalars[LAST_RANK] = when, -1, -1


@compiled
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


@compiled
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


@compiled
def _message(
    scalars: Int64, cycles: Rows, messages: Rows, tensors: Table, tensor: int, launch: int
) -> int:
    index = scalars[MESSAGES]
    scalars[MESSAGES] += 1
    row = tensors[tensor, AGREED_ROW]
    fresh = messages[index]
    fresh.step, fresh.row, fresh.executed = tensors[tensor, STEP], row, tensors[tensor, OPERATION]
    fresh.launch, fresh.begin, fresh.end, fresh.copied, fresh.out = launch, launch, launch, -1, -1
    fresh.units, fresh.bytes = 0, 0
    if row >= 0:
        cycles[row].messages += 1
        if cycles[row].launch < 0 or launch < cycles[row].launch:
            cycles[row].launch = launch
    return int(index)


@compiled
def _over(
    scalars: Int64, steps: Rows, ring: Rings, owner: Int64, tensors: Table, tensor: int, when: int
) -> None:
    """A tensor was executed."""
    step = tensors[tensor, STEP]
    tensors[tensor, PHASE] = NOTHING
    if step < 0:
        return
    scalars[OUTSTANDING] -= 1
    steps[step].outstanding -= 1
    steps[step].end = max(steps[step].end, when)
    if steps[step].outstanding == 0 and (step < scalars[STEPS] - 1 or scalars[STEP_OPEN] == 0):
        _settle(step, steps, ring, owner)


@compiled
def group(
    begin: int, kinds: Bytes, ts: Int64, slots: Int32, whats: Int32, numels: Int64, classes: Int8, sizes: Int8,
    barrier: int, scalars: Int64, tensors: Table, cycles: Rows, messages: Rows, steps: Rows, ring: Rings,
    owner: Int64, known: Int64,
) -> tuple[int, int]:  # fmt: skip
    """Events from ``begin`` on; returns the event at which it stopped, and why.

    After NEW_SET the members of the step before are those with MEMBER of it; go on with the same event.
    """
    for index in range(begin, kinds.size):
        kind, when, tensor, what = kinds[index], ts[index], slots[index], whats[index]
        block, scalars[BLOCK] = scalars[BLOCK], -1
        if kind == _CYCLE:
            if scalars[MARKED] and when < scalars[ENTER]:
                return index, BACKWARDS
            if scalars[OPEN] > 0:
                scalars[ASYNCHRONOUS] = 1
            scalars[MARKED] = 1
            scalars[TURNS] += 1
            _turn(scalars, when)
            continue
        phase = tensors[tensor, PHASE]
        if kind == _NEGOTIATE:
            if phase != NOTHING:
                return index, CONTRADICTION
            opened = scalars[STEP_OPEN]
            again = tensors[tensor, MEMBER] == scalars[STEPS] - 1
            if opened and (again or (scalars[OUTSTANDING] == 0 and _find(known, scalars) >= 0)):
                if close(scalars, steps, ring, owner, known) == NEW_SET:
                    return index, NEW_SET
                opened = 0
            _background(scalars, when, NOBODY)
            if not opened:
                step = scalars[STEPS]
                scalars[STEPS], scalars[STEP_OPEN] = step + 1, 1
                fresh = steps[step]
                fresh.end, fresh.negotiated, fresh.row, fresh.outstanding, fresh.tensors = -1, 0, -1, 0, 0
                fresh.ticks_least, fresh.ticks_most, fresh.ranks, fresh.set = NOBODY, 0, -1, -1
                fresh.last_rank, fresh.last_row, fresh.median_row = -1, -1, -1
                if step == 0:
                    scalars[BEGAN] = when
                _watch(step, ring, owner)
            step = scalars[STEPS] - 1
            tensors[tensor, PHASE], tensors[tensor, STEP], tensors[tensor, BEGUN] = ASKED, step, when
            tensors[tensor, AGREED_ROW], tensors[tensor, TICKS], tensors[tensor, MEMBER] = -1, 0, step
            tensors[tensor, SEQUENCE], tensors[tensor, OPERATION] = scalars[SEQUENCES], what
            tensors[tensor, DEPTH] = 0
            scalars[SEQUENCES] += 1
            scalars[OUTSTANDING] += 1
            scalars[COUNT] += 1
            scalars[DIGEST] ^= _mixed(tensor)
            steps[step].outstanding += 1
            steps[step].tensors += 1
        elif kind == _TICK:
            _background(scalars, when, what)
            row = _row(scalars, cycles, when)
            step = tensors[tensor, STEP]
            cycles[row].ticks += 1
            cycles[row].step = max(cycles[row].step, step)
            tensors[tensor, TICKS] += 1
            _count(step, what, row, ring, owner)
        elif kind == _AGREED:
            _background(scalars, when, NOBODY)
            row = _row(scalars, cycles, when)
            step = tensors[tensor, STEP]
            cycles[row].step = max(cycles[row].step, step)
            ticks = tensors[tensor, TICKS]
            if ticks == 0:
                cycles[row].hits += 1
            tensors[tensor, PHASE], tensors[tensor, AGREED_ROW] = AGREED, row
            steps[step].row, steps[step].negotiated = row, when - tensors[tensor, BEGUN]
            steps[step].ticks_least = min(steps[step].ticks_least, ticks)
            steps[step].ticks_most = max(steps[step].ticks_most, ticks)
        elif kind == _OPERATION:
            scalars[AFTER_OPERATION] = 1
            scalars[OPEN] += 1
            if phase != AGREED:  # recording began in between
                tensors[tensor, STEP], tensors[tensor, AGREED_ROW] = -1, -1
            tensors[tensor, PHASE], tensors[tensor, LAUNCH] = LAUNCHED, when
            tensors[tensor, OPERATION], tensors[tensor, DEPTH] = what, 0
        elif kind == _ACTIVITY:
            scalars[AFTER_OPERATION] = 1
            if phase == LAUNCHED:
                joined = -1
                if block >= 0 and scalars[BLOCK_WHAT] == what:
                    same = messages[block].row == tensors[tensor, AGREED_ROW]
                    if same and messages[block].executed == tensors[tensor, OPERATION]:
                        joined = block
                if joined < 0:
                    joined = _message(scalars, cycles, messages, tensors, tensor, tensors[tensor, LAUNCH])
                scalars[BLOCK], scalars[BLOCK_WHAT] = joined, what
                messages[joined].units += 1
                tensors[tensor, PHASE], tensors[tensor, MESSAGE] = RUNNING, joined
            if tensors[tensor, DEPTH] == 0:
                tensors[tensor, CLASS] = classes[what]
                message = tensors[tensor, MESSAGE]
                if classes[what] == COPY_OUT and messages[message].out < 0:
                    messages[message].out = when
            tensors[tensor, DEPTH] += 1
        elif kind == _ACTIVITY_END:
            tensors[tensor, DEPTH] -= 1
            if phase == RUNNING and tensors[tensor, DEPTH] == 0:
                message, activity = tensors[tensor, MESSAGE], tensors[tensor, CLASS]
                if activity == COPY_IN:
                    messages[message].copied = max(messages[message].copied, when)
                elif activity == WAIT and messages[message].copied < 0:
                    messages[message].begin = max(messages[message].begin, when)
        elif kind == _OPERATION_END:
            scalars[AFTER_OPERATION] = 1
            scalars[OPEN] = max(scalars[OPEN] - 1, 0)
            if phase == LAUNCHED:
                message = _message(scalars, cycles, messages, tensors, tensor, tensors[tensor, LAUNCH])
                messages[message].units += 1
                tensors[tensor, MESSAGE] = message
            message = tensors[tensor, MESSAGE]
            messages[message].end = max(messages[message].end, when)
            if numels[index] >= 0:
                if sizes[what] == 0:
                    scalars[UNTOLD] += 1
                messages[message].bytes += numels[index] * sizes[what]
                tensors[tensor, NUMEL], tensors[tensor, DTYPE] = numels[index], what
            _over(scalars, steps, ring, owner, tensors, tensor, when)
        elif kind == _STRAY_END and phase == AGREED and tensors[tensor, OPERATION] == barrier:
            message = _message(scalars, cycles, messages, tensors, tensor, when)
            messages[message].units = 1
            _over(scalars, steps, ring, owner, tensors, tensor, when)
    return kinds.size, DONE
