"""Compiled grouping of a timeline's events: cycles, steps, messages, and who was counted last.

File order decides, not time stamps: rank 0's background thread reports in order. Tables of int64, one row each:

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

from coordsim.record.compiled import compiled
from coordsim.record.timeline.events import EventKind
from coordsim.record.timeline.scan import Bytes, Int8, Int32, Int64

Table = npt.NDArray[np.int64]

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

# Columns of the cycle table.
C_INDEX, C_ENTER, C_LEAVE, C_TICKS, C_HITS, C_STEP, C_MESSAGES, C_LAUNCH = range(8)
CYCLE_TABLE_COLUMNS = 8

# Columns of the message table; times in us, -1: not in the file.
M_STEP, M_ROW, M_LAUNCH, M_BEGIN, M_COPIED, M_OUT, M_END, M_UNITS, M_BYTES, M_OPEN, M_EXECUTED = range(11)
MESSAGE_COLUMNS = 11

# Columns of the step table.
(S_BEGUN, S_ROW, S_ASKED, S_AGREED, S_END, S_OUTSTANDING, S_TENSORS, S_TICKS_LEAST, S_TICKS_MOST, S_LAST_RANK,
 S_LAST_ROW, S_MEDIAN_ROW, S_RANKS, S_SET) = range(14)  # fmt: skip
STEP_TABLE_COLUMNS = 14

# Scalars.
(CYCLE, ENTER, ROW, MARKED, UNMARKED, ROWS, MESSAGES, STEPS, OUTSTANDING, DIGEST, COUNT, BLOCK, BLOCK_WHAT, OPEN,
 ASYNCHRONOUS, LAST_US, LAST_RANK, AFTER_OPERATION, SEQUENCES, KNOWN, STEP_OPEN, UNTOLD, TURNS) = range(23)  # fmt: skip
SCALARS = 23

OTHER, COPY_IN, COPY_OUT, WAIT = range(4)
"""What an activity is."""
NOBODY: Final = 1 << 40
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
def _settle(step: int, steps: Table, ring: Table, owner: Int64) -> None:
    """The step is over: who was counted last, and when the median rank was."""
    row = step % RING
    if owner[row] != step:
        return
    counted = np.sort(ring[row][ring[row] >= 0])
    steps[step, S_RANKS] = counted.size
    if counted.size == 0:
        return
    last = counted[-1]
    steps[step, S_LAST_ROW], steps[step, S_MEDIAN_ROW] = last, counted[(counted.size - 1) // 2]
    if counted.size == 1 or counted[-2] != last:
        steps[step, S_LAST_RANK] = np.argmax(ring[row])


@compiled
def close(scalars: Int64, steps: Table, ring: Table, owner: Int64, known: Int64) -> int:
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
    steps[step, S_SET] = found
    scalars[STEP_OPEN], scalars[COUNT], scalars[DIGEST] = 0, 0, 0
    if steps[step, S_OUTSTANDING] == 0:
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
def _row(scalars: Int64, cycles: Table, when: int) -> int:
    """The row of this turn, made when it is the first time that anything is counted or agreed in it."""
    row = scalars[ROW]
    if row < 0:
        row = scalars[ROWS]
        scalars[ROW], scalars[ROWS] = row, row + 1
        if scalars[MARKED] == 0:
            scalars[UNMARKED] += 1
        cycles[row] = 0
        cycles[row, C_INDEX], cycles[row, C_ENTER] = scalars[CYCLE], scalars[ENTER]
        cycles[row, C_LAUNCH] = -1
    cycles[row, C_LEAVE] = when
    return int(row)


@compiled
def _message(
    scalars: Int64, cycles: Table, messages: Table, tensors: Table, tensor: int, launch: int
) -> int:
    index = scalars[MESSAGES]
    scalars[MESSAGES] += 1
    row = tensors[tensor, AGREED_ROW]
    messages[index] = -1
    messages[index, M_STEP], messages[index, M_ROW] = tensors[tensor, STEP], row
    messages[index, M_LAUNCH], messages[index, M_BEGIN], messages[index, M_END] = launch, launch, launch
    messages[index, M_UNITS], messages[index, M_BYTES], messages[index, M_OPEN] = 0, 0, 0
    messages[index, M_EXECUTED] = tensors[tensor, OPERATION]
    if row >= 0:
        cycles[row, C_MESSAGES] += 1
        if cycles[row, C_LAUNCH] < 0 or launch < cycles[row, C_LAUNCH]:
            cycles[row, C_LAUNCH] = launch
    return int(index)


@compiled
def _over(
    scalars: Int64, steps: Table, ring: Table, owner: Int64, tensors: Table, tensor: int, when: int
) -> None:
    """A tensor was executed."""
    step = tensors[tensor, STEP]
    tensors[tensor, PHASE] = NOTHING
    if step < 0:
        return
    scalars[OUTSTANDING] -= 1
    steps[step, S_OUTSTANDING] -= 1
    steps[step, S_END] = max(steps[step, S_END], when)
    if steps[step, S_OUTSTANDING] == 0 and (step < scalars[STEPS] - 1 or scalars[STEP_OPEN] == 0):
        _settle(step, steps, ring, owner)


@compiled
def group(
    begin: int, kinds: Bytes, ts: Int64, slots: Int32, whats: Int32, numels: Int64, classes: Int8, sizes: Int8,
    barrier: int, scalars: Int64, tensors: Table, cycles: Table, messages: Table, steps: Table, ring: Table,
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
                steps[step] = -1
                steps[step, S_BEGUN], steps[step, S_OUTSTANDING], steps[step, S_TENSORS] = when, 0, 0
                steps[step, S_TICKS_LEAST], steps[step, S_TICKS_MOST] = NOBODY, 0
                ring[step % RING, :] = -1
                owner[step % RING] = step
            step = scalars[STEPS] - 1
            tensors[tensor, PHASE], tensors[tensor, STEP], tensors[tensor, BEGUN] = ASKED, step, when
            tensors[tensor, AGREED_ROW], tensors[tensor, TICKS], tensors[tensor, MEMBER] = -1, 0, step
            tensors[tensor, SEQUENCE], tensors[tensor, OPERATION] = scalars[SEQUENCES], what
            tensors[tensor, DEPTH] = 0
            scalars[SEQUENCES] += 1
            scalars[OUTSTANDING] += 1
            scalars[COUNT] += 1
            scalars[DIGEST] ^= _mixed(tensor)
            steps[step, S_OUTSTANDING] += 1
            steps[step, S_TENSORS] += 1
        elif kind == _TICK:
            _background(scalars, when, what)
            row = _row(scalars, cycles, when)
            step = tensors[tensor, STEP]
            cycles[row, C_TICKS] += 1
            cycles[row, C_STEP] = max(cycles[row, C_STEP], step)
            tensors[tensor, TICKS] += 1
            if owner[step % RING] == step:
                ring[step % RING, what] = row
        elif kind == _AGREED:
            _background(scalars, when, NOBODY)
            row = _row(scalars, cycles, when)
            step = tensors[tensor, STEP]
            cycles[row, C_STEP] = max(cycles[row, C_STEP], step)
            ticks = tensors[tensor, TICKS]
            if ticks == 0:
                cycles[row, C_HITS] += 1
            tensors[tensor, PHASE], tensors[tensor, AGREED_ROW] = AGREED, row
            steps[step, S_ROW], steps[step, S_AGREED], steps[step, S_ASKED] = row, when, tensors[tensor, BEGUN]
            steps[step, S_TICKS_LEAST] = min(steps[step, S_TICKS_LEAST], ticks)
            steps[step, S_TICKS_MOST] = max(steps[step, S_TICKS_MOST], ticks)
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
                    same = messages[block, M_ROW] == tensors[tensor, AGREED_ROW]
                    if same and messages[block, M_EXECUTED] == tensors[tensor, OPERATION]:
                        joined = block
                if joined < 0:
                    joined = _message(scalars, cycles, messages, tensors, tensor, tensors[tensor, LAUNCH])
                scalars[BLOCK], scalars[BLOCK_WHAT] = joined, what
                messages[joined, M_UNITS] += 1
                messages[joined, M_OPEN] += 1
                tensors[tensor, PHASE], tensors[tensor, MESSAGE] = RUNNING, joined
            if tensors[tensor, DEPTH] == 0:
                tensors[tensor, CLASS] = classes[what]
                message = tensors[tensor, MESSAGE]
                if classes[what] == COPY_OUT and messages[message, M_OUT] < 0:
                    messages[message, M_OUT] = when
            tensors[tensor, DEPTH] += 1
        elif kind == _ACTIVITY_END:
            tensors[tensor, DEPTH] -= 1
            if phase == RUNNING and tensors[tensor, DEPTH] == 0:
                message, activity = tensors[tensor, MESSAGE], tensors[tensor, CLASS]
                if activity == COPY_IN:
                    messages[message, M_COPIED] = max(messages[message, M_COPIED], when)
                elif activity == WAIT and messages[message, M_COPIED] < 0:
                    messages[message, M_BEGIN] = max(messages[message, M_BEGIN], when)
        elif kind == _OPERATION_END:
            scalars[AFTER_OPERATION] = 1
            scalars[OPEN] = max(scalars[OPEN] - 1, 0)
            if phase == LAUNCHED:
                message = _message(scalars, cycles, messages, tensors, tensor, tensors[tensor, LAUNCH])
                messages[message, M_UNITS] += 1
                messages[message, M_OPEN] += 1
                tensors[tensor, MESSAGE] = message
            message = tensors[tensor, MESSAGE]
            messages[message, M_OPEN] -= 1
            messages[message, M_END] = max(messages[message, M_END], when)
            if numels[index] >= 0:
                if sizes[what] == 0:
                    scalars[UNTOLD] += 1
                messages[message, M_BYTES] += numels[index] * sizes[what]
                tensors[tensor, NUMEL], tensors[tensor, DTYPE] = numels[index], what
            _over(scalars, steps, ring, owner, tensors, tensor, when)
        elif kind == _STRAY_END and phase == AGREED and tensors[tensor, OPERATION] == barrier:
            message = _message(scalars, cycles, messages, tensors, tensor, when)
            messages[message, M_UNITS], messages[message, M_OPEN] = 1, 0
            _over(scalars, steps, ring, owner, tensors, tensor, when)
    return kinds.size, DONE
