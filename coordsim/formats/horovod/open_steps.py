"""Steps while they are open: their tensors, how many are outstanding, and which rank was counted last."""

from __future__ import annotations

import numpy as np

from coordsim.compiling import compiled, inlined
from coordsim.formats.horovod.tables import (
    BEGAN,
    COUNT,
    DIGEST,
    DONE,
    KNOWN,
    NEW_SET,
    NOBODY,
    NOTHING,
    OUTSTANDING,
    OWNERS,
    PHASE,
    RING,
    SETS,
    SETS_KNOWN,
    STEP,
    STEP_OPEN,
    STEPS,
    Tables,
)
from coordsim.mixing import GOLDEN, mixed

_mixed = inlined(mixed)


@inlined
def mix(value: int) -> int:
    """A 64-bit hash (SplitMix64) of ``value``; the exclusive or of many stands for their set."""
    return int(np.int64(_mixed(np.uint64(value + 1) * GOLDEN)))


@inlined
def find_set(tables: Tables) -> int:
    """Number of the open step's set of tensors; -1: a new one."""
    scalars = tables.scalars
    for index in range(scalars[KNOWN]):
        at = SETS_KNOWN + 2 * index
        if scalars[at] == scalars[COUNT] and scalars[at + 1] == scalars[DIGEST]:
            return index
    return -1


@inlined
def open_step(tables: Tables, when: int) -> None:
    """Begin the next step: nothing of it is known yet."""
    scalars = tables.scalars
    step = scalars[STEPS]
    scalars[STEPS], scalars[STEP_OPEN] = step + 1, 1
    fresh = tables.steps[step]
    fresh.end, fresh.negotiated, fresh.awaited, fresh.row, fresh.outstanding, fresh.tensors = -1, 0, -1, -1, 0, 0
    fresh.ticks_least, fresh.ticks_most, fresh.ranks, fresh.set = NOBODY, 0, -1, -1
    fresh.cached, fresh.joined = 0, 0
    fresh.last_rank, fresh.last_row, fresh.median_row = -1, -1, -1
    if step == 0:
        scalars[BEGAN] = when
    _watch_ranks(tables, step)


@compiled
def close_step(tables: Tables) -> int:
    """End the open step; NEW_SET when its set of tensors was not known."""
    scalars = tables.scalars
    if scalars[STEP_OPEN] == 0:
        return DONE
    step = scalars[STEPS] - 1
    number = find_set(tables)
    status = DONE
    if number < 0 and scalars[KNOWN] < SETS:
        number = scalars[KNOWN]
        at = SETS_KNOWN + 2 * number
        scalars[at], scalars[at + 1] = scalars[COUNT], scalars[DIGEST]
        scalars[KNOWN] += 1
        status = NEW_SET
    tables.steps[step].set = number
    scalars[STEP_OPEN], scalars[COUNT], scalars[DIGEST] = 0, 0, 0
    if tables.steps[step].outstanding == 0:
        _settle_ranks(tables, step)
    return status


@inlined
def end_tensor(tables: Tables, tensor: int, when: int) -> None:
    """The tensor was executed, until ``when``; with the last one its step is over, unless more may be asked for."""
    scalars, steps = tables.scalars, tables.steps
    step = tables.tensors[tensor, STEP]
    tables.tensors[tensor, PHASE] = NOTHING
    if step < 0:
        return
    scalars[OUTSTANDING] -= 1
    steps[step].outstanding -= 1
    steps[step].end = max(steps[step].end, when)
    if steps[step].outstanding == 0 and (step < scalars[STEPS] - 1 or scalars[STEP_OPEN] == 0):
        _settle_ranks(tables, step)


@inlined
def count_rank(tables: Tables, step: int, rank: int, row: int) -> None:
    """A request of ``rank`` was counted in the cycle of ``row``."""
    scalars, ring = tables.scalars, tables.ring
    place = step % RING
    if scalars[OWNERS + 2 * place] != step:  # so many steps are open that its place was given to a later one
        return
    if ring[place, rank, 0] < 0:
        ring[place, scalars[OWNERS + 2 * place + 1], 1] = rank
        scalars[OWNERS + 2 * place + 1] += 1
    ring[place, rank, 0] = row


@inlined
def _watch_ranks(tables: Tables, step: int) -> None:
    """Count for ``step`` from here on, in the place of an earlier one."""
    scalars, ring = tables.scalars, tables.ring
    place = step % RING
    for index in range(scalars[OWNERS + 2 * place + 1]):
        ring[place, ring[place, index, 1], 0] = -1
    scalars[OWNERS + 2 * place], scalars[OWNERS + 2 * place + 1] = step, 0


@compiled
def _settle_ranks(tables: Tables, step: int) -> None:
    """The step is over: who was counted last, and when the median rank was."""
    scalars, ring, fresh = tables.scalars, tables.ring, tables.steps[step]
    place = step % RING
    if scalars[OWNERS + 2 * place] != step:
        return
    many = scalars[OWNERS + 2 * place + 1]
    fresh.ranks = many
    if many == 0:
        return
    counted = np.empty(many, np.int64)
    for index in range(many):
        counted[index] = ring[place, ring[place, index, 1], 0]
    counted.sort()
    last = counted[-1]
    fresh.last_row, fresh.median_row = last, counted[(many - 1) // 2]
    if many == 1 or counted[-2] != last:
        for index in range(many):
            if ring[place, ring[place, index, 1], 0] == last:
                fresh.last_rank = ring[place, index, 1]
