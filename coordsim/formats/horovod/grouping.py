"""Compiled grouping of a timeline's events into cycles, steps and messages (:mod:`coordsim.formats.horovod.tables`).

File order decides, not time stamps: rank 0's background thread reports in order. One function for each kind of event
says what it changes; :func:`group` passes events on to them until one has something to be told.
"""

from __future__ import annotations

from coordsim.compiling import borrowing, inlined
from coordsim.formats.horovod.events import EventKind
from coordsim.formats.horovod.open_steps import close_step, count_rank, end_tensor, find_set, mix, open_step
from coordsim.formats.horovod.scan import Columns
from coordsim.formats.horovod.tables import (
    ABANDONED,
    ACTIVITY,
    ACTIVITY_SINCE,
    AFTER_OPERATION,
    AGREED,
    AGREED_ROW,
    ASKED,
    ASKED_BY,
    ASKED_FREE,
    ASKED_USED,
    ASYNCHRONOUS,
    BACKWARDS,
    BARRIER_WORD,
    BLOCK,
    BLOCK_WHAT,
    COLLECTIVE,
    COPY_IN,
    COPY_OUT,
    COUNT,
    COUNTED,
    CYCLE,
    DATA_WAIT,
    DEPTH,
    DIGEST,
    DONE,
    DTYPE,
    END_US,
    ENTER,
    ERROR_WORD,
    FAILED,
    GAP_US,
    LAST_RANK,
    LAST_US,
    LAUNCHED,
    LEADING,
    MARKED,
    MEMBER,
    MESSAGE,
    MESSAGES,
    NEW_SET,
    NOBODY,
    NOTHING,
    NUMEL,
    OPEN,
    OPERATION,
    OUTSTANDING,
    PHASE,
    ROW,
    ROWS,
    RUNNING,
    SEQUENCE,
    SEQUENCES,
    SINCE,
    STEP,
    STEP_OPEN,
    STEPS,
    TICKS,
    TICKS_MOST,
    TIMES,
    TOTAL_US,
    TURNS,
    UNATTRIBUTED,
    UNMARKED,
    UNTOLD,
    VALUE_BYTES,
    WORD_KIND,
    Tables,
)

_CYCLE, _NEGOTIATE, _TICK, _AGREED = (
    EventKind.CYCLE.value, EventKind.NEGOTIATE.value, EventKind.TICK.value, EventKind.AGREED.value
)  # fmt: skip
_OPERATION, _ACTIVITY, _ACTIVITY_END = (
    EventKind.OPERATION.value, EventKind.ACTIVITY.value, EventKind.ACTIVITY_END.value
)  # fmt: skip
_OPERATION_END, _STRAY_END = EventKind.OPERATION_END.value, EventKind.STRAY_END.value


def group(begin: int, events: Columns, tables: Tables) -> tuple[int, int]:
    """Events from ``begin`` on; returns the event at which it stopped, and why.

    After NEW_SET the members of the step before are those with MEMBER of it; go on with the same event.
    """
    at, why = _group(begin, events, tables)
    return at, why


@borrowing
def _group(begin: int, events: Columns, tables: Tables) -> tuple[int, int]:
    """As :func:`group`."""
    kinds, ts, slots, whats = events.kind, events.ts_us, events.slot, events.what
    scalars = tables.scalars
    for index in range(begin, kinds.size):
        kind, when, tensor, what = kinds[index], ts[index], slots[index], whats[index]
        block, scalars[BLOCK] = scalars[BLOCK], -1  # a message's first activities are reported without a break
        status = DONE
        if kind == _CYCLE:
            status = _on_cycle(tables, when)
        elif kind == _NEGOTIATE:
            status = _on_negotiate(tables, tensor, when, what)
        elif kind == _TICK:
            _on_tick(tables, tensor, when, what)
        elif kind == _AGREED:
            status = _on_agreed(tables, tensor, when)
        elif kind == _OPERATION:
            _on_operation(tables, tensor, when, what)
        elif kind == _ACTIVITY:
            _on_activity(tables, tensor, when, what, block)
        elif kind == _ACTIVITY_END:
            status = _on_activity_end(tables, tensor, when)
        elif kind == _OPERATION_END:
            status = _on_operation_end(tables, tensor, when, what, events.numel[index])
        elif kind == _STRAY_END:
            _on_stray_end(tables, tensor, when)
        if status != DONE:
            return index, status
        scalars[END_US] = max(scalars[END_US], when)
    return kinds.size, DONE


# -- one kind of event each ------------------------------------------------------------------------


@inlined
def _on_cycle(tables: Tables, when: int) -> int:
    """A mark: the loop turns."""
    scalars = tables.scalars
    if scalars[MARKED] and when < scalars[ENTER]:
        return BACKWARDS
    if scalars[OPEN] > 0:
        scalars[ASYNCHRONOUS] = 1
    scalars[MARKED] = 1
    scalars[TURNS] += 1
    _turn(tables, when)
    return DONE


@inlined
def _on_negotiate(tables: Tables, tensor: int, when: int, what: int) -> int:
    """A tensor is asked for. NEW_SET: the step before is over; come back with the same event."""
    scalars = tables.scalars
    own = tables.tensors[tensor]
    if own[PHASE] != NOTHING:
        _abandon(tables, tensor)
    opened = scalars[STEP_OPEN]
    again = own[MEMBER] == scalars[STEPS] - 1
    if opened and (again or (scalars[OUTSTANDING] == 0 and find_set(tables) >= 0)):
        if close_step(tables) == NEW_SET:
            return NEW_SET
        opened = 0
    _background(tables, when, NOBODY)
    if not opened:
        open_step(tables, when)
    step = scalars[STEPS] - 1
    own[PHASE], own[STEP], own[SINCE] = ASKED, step, when
    own[AGREED_ROW], own[TICKS], own[MEMBER] = -1, 0, step
    own[SEQUENCE], own[OPERATION], own[DEPTH] = scalars[SEQUENCES], what, 0
    scalars[SEQUENCES] += 1
    scalars[OUTSTANDING] += 1
    scalars[COUNT] += 1
    # A name that is broadcast in one step and reduced in another makes two sets.
    scalars[DIGEST] ^= mix(tensor + what * (1 << 32))
    tables.steps[step].outstanding += 1
    tables.steps[step].tensors += 1
    return DONE


@inlined
def _on_tick(tables: Tables, tensor: int, when: int, rank: int) -> None:
    """Rank 0 counts a request."""
    _background(tables, when, rank)
    row = _row(tables, when)
    step = tables.tensors[tensor, STEP]
    tables.cycles[row].ticks += 1
    tables.cycles[row].step = max(tables.cycles[row].step, step)
    tables.tensors[tensor, TICKS] += 1
    _remember_request(tables, tensor, rank)
    count_rank(tables, step, rank, row)


@inlined
def _on_agreed(tables: Tables, tensor: int, when: int) -> int:
    """Every rank has asked for the tensor, or the cache knew it."""
    own = tables.tensors[tensor]
    if when < own[SINCE]:
        return BACKWARDS
    _background(tables, when, NOBODY)
    row = _row(tables, when)
    step = own[STEP]
    tables.cycles[row].step = max(tables.cycles[row].step, step)
    ticks = own[TICKS]
    current = tables.steps[step]
    current.row, current.negotiated = row, when - own[SINCE]
    if ticks == 0:
        tables.cycles[row].hits += 1
        current.cached += 1
    else:
        if ticks < own[TICKS_MOST]:
            current.joined += 1
        own[TICKS_MOST] = max(own[TICKS_MOST], ticks)
        current.ticks_least, current.ticks_most = min(current.ticks_least, ticks), max(current.ticks_most, ticks)
        tables.scalars[COUNTED] = 1
        _forget_requests(tables, tensor)
    own[PHASE], own[AGREED_ROW], own[SINCE] = AGREED, row, when
    return DONE


@inlined
def _on_operation(tables: Tables, tensor: int, when: int, what: int) -> None:
    """The tensor's operation begins."""
    own = tables.tensors[tensor]
    tables.scalars[AFTER_OPERATION] = 1
    tables.scalars[OPEN] += 1
    if own[PHASE] != AGREED:
        # Recording began in between, or two process sets use one name.
        tables.scalars[UNATTRIBUTED] += 1
        own[STEP], own[AGREED_ROW] = -1, -1
    own[PHASE], own[SINCE] = LAUNCHED, when
    own[OPERATION], own[DEPTH] = what, 0


@inlined
def _on_activity(tables: Tables, tensor: int, when: int, what: int, block: int) -> None:
    """Part of an operation begins. ``block``: the message whose member the event before belonged to; -1: it was no
    activity's beginning."""
    scalars, messages = tables.scalars, tables.messages
    own = tables.tensors[tensor]
    scalars[AFTER_OPERATION] = 1
    if own[PHASE] == LAUNCHED:
        if (
            block >= 0
            and scalars[BLOCK_WHAT] == what
            and messages[block].row == own[AGREED_ROW]
            and messages[block].executed == own[OPERATION]
        ):
            messages[block].units += 1
            own[MESSAGE], own[PHASE] = block, RUNNING
        else:
            _begin_message(tables, tensor, own[SINCE])
            own[PHASE] = LEADING
        scalars[BLOCK], scalars[BLOCK_WHAT] = own[MESSAGE], what
    if own[DEPTH] == 0:
        own[ACTIVITY], own[ACTIVITY_SINCE] = what, when
    own[DEPTH] += 1


@inlined
def _on_activity_end(tables: Tables, tensor: int, when: int) -> int:
    """Part of an operation ends; the outermost part's time is the message's."""
    words = tables.words
    own = tables.tensors[tensor]
    own[DEPTH] -= 1
    phase = own[PHASE]
    if phase < RUNNING or own[DEPTH] != 0:
        return DONE
    lasted = when - own[ACTIVITY_SINCE]
    if lasted < 0:
        return BACKWARDS
    activity, message, step = own[ACTIVITY], tables.messages[own[MESSAGE]], own[STEP]
    kind = words[activity, WORD_KIND]
    message.end = max(message.end, when)
    if kind == DATA_WAIT and step >= 0:
        tables.steps[step].awaited = max(tables.steps[step].awaited, when)
    if phase == LEADING:
        words[activity, TIMES] += 1
        words[activity, TOTAL_US] += lasted
        if kind == COPY_IN:
            message.copy_in += lasted
        elif kind == COPY_OUT:
            message.copy_out += lasted
        elif kind >= COLLECTIVE:
            message.collective = max(message.collective, 0) + lasted
    return DONE


@inlined
def _on_operation_end(tables: Tables, tensor: int, when: int, what: int, numel: int) -> int:
    """The tensor was executed: its message learns its size and its end, unless the end is before the beginning."""
    scalars = tables.scalars
    own = tables.tensors[tensor]
    if own[PHASE] == LAUNCHED:  # no activity was recorded: a message of its own
        _begin_message(tables, tensor, own[SINCE])
    scalars[AFTER_OPERATION] = 1
    scalars[OPEN] = max(scalars[OPEN] - 1, 0)
    if when < own[SINCE]:
        return BACKWARDS
    message = tables.messages[own[MESSAGE]]
    if message.collective < 0:  # nothing says where in the operation the data moved
        message.end = max(message.end, when)
    if own[OPERATION] == scalars[ERROR_WORD]:
        scalars[FAILED] += 1
    if numel < 0:
        message.bytes = -1
    else:
        own[NUMEL], own[DTYPE] = numel, what
        value_bytes = tables.words[what, VALUE_BYTES]
        if value_bytes == 0:
            message.bytes = -1
            scalars[UNTOLD] += 1
        elif message.bytes >= 0:
            message.bytes += numel * value_bytes
    end_tensor(tables, tensor, message.end)
    return DONE


@inlined
def _on_stray_end(tables: Tables, tensor: int, when: int) -> None:
    """An end of nothing that began: of a barrier Horovod writes the end alone."""
    own = tables.tensors[tensor]
    if own[PHASE] == AGREED and own[OPERATION] == tables.scalars[BARRIER_WORD]:
        _begin_message(tables, tensor, when)
        end_tensor(tables, tensor, when)


# -- cycles ----------------------------------------------------------------------------------------


@inlined
def _turn(tables: Tables, when: int) -> None:
    """A new turn of the loop begins."""
    scalars = tables.scalars
    scalars[CYCLE] += 1
    scalars[ENTER], scalars[ROW], scalars[LAST_RANK] = when, -1, -1


@inlined
def _background(tables: Tables, when: int, rank: int) -> None:
    """Rank 0's background thread reports; without marks this may be a new turn."""
    scalars = tables.scalars
    if scalars[OPEN] > 0:
        scalars[ASYNCHRONOUS] = 1
    if scalars[MARKED] == 0 and (
        scalars[CYCLE] < 0 or scalars[AFTER_OPERATION] or when - scalars[LAST_US] > GAP_US or rank < scalars[LAST_RANK]
    ):
        _turn(tables, when)
    scalars[LAST_US], scalars[AFTER_OPERATION] = when, 0
    if rank < NOBODY:
        scalars[LAST_RANK] = rank


@inlined
def _row(tables: Tables, when: int) -> int:
    """The row of this turn, made when it is the first time that anything is counted or agreed in it."""
    scalars, cycles = tables.scalars, tables.cycles
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


# -- messages and requests -------------------------------------------------------------------------


@inlined
def _begin_message(tables: Tables, tensor: int, launch: int) -> None:
    """A new message, whose first member is ``tensor``."""
    cycles = tables.cycles
    own = tables.tensors[tensor]
    index = tables.scalars[MESSAGES]
    tables.scalars[MESSAGES] += 1
    row = own[AGREED_ROW]
    fresh = tables.messages[index]
    fresh.step, fresh.row, fresh.executed = own[STEP], row, own[OPERATION]
    fresh.launch, fresh.end, fresh.units, fresh.bytes = launch, launch, 1, 0
    fresh.copy_in, fresh.copy_out, fresh.collective = 0, 0, -1
    own[MESSAGE] = index
    if row >= 0:
        cycles[row].messages += 1
        if cycles[row].launch < 0 or launch < cycles[row].launch:
            cycles[row].launch = launch


@inlined
def _remember_request(tables: Tables, tensor: int, rank: int) -> None:
    """Until the tensor is agreed: who has asked is what a stalled job's owner wants to know."""
    scalars, asked = tables.scalars, tables.asked
    entry = scalars[ASKED_FREE]
    if entry >= 0:
        scalars[ASKED_FREE] = asked[entry, 1]
    else:
        entry = scalars[ASKED_USED]
        scalars[ASKED_USED] += 1
    asked[entry, 0], asked[entry, 1] = rank, tables.tensors[tensor, ASKED_BY]
    tables.tensors[tensor, ASKED_BY] = entry


@inlined
def _forget_requests(tables: Tables, tensor: int) -> None:
    """Give the entries of the tensor's requests back to the free list."""
    scalars, asked = tables.scalars, tables.asked
    entry = tables.tensors[tensor, ASKED_BY]
    while entry >= 0:
        before = asked[entry, 1]
        asked[entry, 1] = scalars[ASKED_FREE]
        scalars[ASKED_FREE] = entry
        entry = before
    tables.tensors[tensor, ASKED_BY] = -1


@inlined
def _abandon(tables: Tables, tensor: int) -> None:
    """The tensor is negotiated again, though nothing of its last negotiation was executed: its step goes on without."""
    scalars = tables.scalars
    step = tables.tensors[tensor, STEP]
    scalars[ABANDONED] += 1
    _forget_requests(tables, tensor)
    if tables.tensors[tensor, PHASE] >= LAUNCHED:
        scalars[OPEN] = max(scalars[OPEN] - 1, 0)
    end_tensor(tables, tensor, tables.steps[step].end if step >= 0 else 0)
