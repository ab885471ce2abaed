"""What a recorded timeline says about each cycle: who asked, what became common, what was executed together.

File order decides, not time stamps: rank 0's background thread reports in order, so what stands between two cycle
marks happened in that cycle (time stamps of one microsecond cannot tell).

- *Fused together*: an operation's parts (activities) are reported for all members of a response at once, so a
  message is the tensors whose first activity begins in one uninterrupted block; an operation without activities
  (an error, a barrier) is a message of its own.
- *Steps*: a step ends when a tensor executed in it is negotiated again, or, with nothing outstanding, when its
  tensors are exactly those of an earlier step and another one is negotiated (a barrier between workloads).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from coordsim.errors import InputError
from coordsim.formats.horovod import EventKind, TimelineEvent

MARKS = "record with HOROVOD_TIMELINE_MARK_CYCLES=1 (or start_timeline(..., mark_cycles=True))"
UNNEGOTIATED = "BARRIER"
"""The operation whose execution Horovod reports by nothing but an end without a beginning."""


@dataclass(slots=True, eq=False)
class Negotiation:
    """One tensor's way through one step."""

    tensor: str
    operation: str
    step: int
    begun: int
    """Cycle in which it was first asked for, or first hit by any rank."""
    begun_us: int
    ticks: list[tuple[int, int]] = field(default_factory=list)
    """(cycle, rank) of every request that rank 0 counted."""
    agreed: int = -1
    """Cycle in which every rank had asked; -1: not in the file."""
    executed: str = ""
    """The operation that ran: ``operation``, or ERROR; empty: not in the file."""
    done: bool = False
    dtype: str = ""
    shape: tuple[int, ...] | None = None

    @property
    def asked_first(self) -> int:
        """Cycle of the first request that rank 0 counted; -1 when the cache alone agreed."""
        return self.ticks[0][0] if self.ticks else -1

    def asked_by_all(self, ranks: int) -> bool:
        """Whether rank 0 counted a request of each of ``ranks``."""
        return len({rank for _, rank in self.ticks}) == ranks


@dataclass(slots=True, eq=False)
class Message:
    """What was reduced together, members in order."""

    members: list[Negotiation]
    place: int
    """Of the first member among all operations of the file."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(member.tensor for member in self.members)


@dataclass(slots=True, eq=False)
class RecordedCycle:
    index: int
    start_us: int
    marked: bool
    """Whether a mark opened it; only what precedes the first mark is in an unmarked one."""
    last_us: int
    """Time of the last event of the background thread in it."""
    begun: list[Negotiation] = field(default_factory=list)
    ticks: list[tuple[Negotiation, int]] = field(default_factory=list)
    """(negotiation, rank), as rank 0 counted them."""
    agreed: list[Negotiation] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    """In order of execution."""
    final: bool = False
    """The file's last one: it may be cut off."""

    @property
    def cut(self) -> bool:
        """Whether something that was agreed in it was not executed within the file."""
        return any(not each.done for each in self.agreed)

    @property
    def kind(self) -> str:
        """``slow``: rank 0 counted requests; ``fast``: agreed without; ``idle``: neither."""
        return "slow" if self.ticks else "fast" if self.agreed else "idle"


class CycleReader:
    """Groups a timeline's events by cycle.

    A cycle is handed out when all that was begun in it, and before, is over: only an operation's end tells a
    tensor's type and shape. Raises InputError, with the file, for a timeline without cycle marks or with events
    that contradict each other.
    """

    def __init__(self, events: Iterable[TimelineEvent], where: str) -> None:
        self._events = events
        self._where = where
        self._open: dict[str, Negotiation] = {}
        self._waiting: deque[RecordedCycle] = deque()
        self._cycle: RecordedCycle | None = None
        self._steps = _Steps()
        self._launched: dict[str, tuple[RecordedCycle, int]] = {}
        self._block: tuple[str, Message] | None = None
        self._operations = 0
        self._unmarked: set[str] = set()
        self.stray_ends = 0
        """Ends without a beginning that belong to no barrier (Horovod writes one per join)."""
        self.steps: list[tuple[str, ...]] = self._steps.tensors
        """By step: its tensors, in the order in which they were first asked for."""

    def __iter__(self) -> Iterator[RecordedCycle]:
        for event in self._events:
            if event.kind is EventKind.CYCLE:
                self._turn(event.ts_us)
                yield from self._released()
            else:
                self._note(event)
        self._steps.close()
        if self._cycle is None or not self._cycle.marked:
            raise InputError.one(self._where, "", None, f"has no cycle marks; {MARKS}")
        self._cycle.final = True
        for cycle in self._waiting:
            yield _in_order(cycle)

    def _turn(self, ts_us: int, marked: bool = True) -> RecordedCycle:
        before = self._cycle
        if before is not None and ts_us < before.start_us:
            message = f"cycle marks run backwards, from {before.start_us} to {ts_us} us"
            raise InputError.one(self._where, "", ts_us, message)
        self._block = None
        self._cycle = RecordedCycle(before.index + 1 if before else 0, ts_us, marked, ts_us)
        self._waiting.append(self._cycle)
        return self._cycle

    def _released(self) -> Iterator[RecordedCycle]:
        """Cycles that nothing can be added to any more, oldest first; never the one that has just begun."""
        while len(self._waiting) > 1 and all(each.done for each in self._waiting[0].begun):
            yield _in_order(self._waiting.popleft())

    def _note(self, event: TimelineEvent) -> None:
        cycle = self._cycle or self._turn(event.ts_us, marked=False)
        block, self._block = self._block, None
        each = self._open.get(event.tensor)
        match event.kind:
            case EventKind.NEGOTIATE:
                self._begin(event, cycle, each)
            case EventKind.TICK:
                assert each is not None
                each.ticks.append((cycle.index, event.rank))
                cycle.ticks.append((each, event.rank))
            case EventKind.AGREED:
                assert each is not None
                each.agreed = cycle.index
                cycle.agreed.append(each)
            case EventKind.OPERATION:
                self._launch(event, cycle, each)
            case EventKind.ACTIVITY:
                self._part(event, each, block)
            case EventKind.OPERATION_END:
                self._finish(event, each)
            case EventKind.STRAY_END:
                self._stray(each, cycle)
            case _:
                pass
        if event.kind in _BY_BACKGROUND_THREAD or (each is not None and each.agreed == cycle.index):
            cycle.last_us = max(cycle.last_us, event.ts_us)

    def _begin(self, event: TimelineEvent, cycle: RecordedCycle, before: Negotiation | None) -> None:
        if before is not None:
            self._contradiction(event, "is negotiated again before it was executed")
        step = self._steps.of(event.tensor, outstanding=bool(self._open))
        each = Negotiation(event.tensor, event.what, step, cycle.index, event.ts_us)
        if not cycle.marked:
            if event.tensor in self._unmarked:
                raise InputError.one(self._where, "", None, f"has no cycle marks at its beginning; {MARKS}")
            self._unmarked.add(event.tensor)
        self._open[event.tensor] = each
        cycle.begun.append(each)

    def _launch(self, event: TimelineEvent, cycle: RecordedCycle, each: Negotiation | None) -> None:
        if each is None or each.agreed < 0:
            # Recording began in between: it was agreed before the file's first event.
            each = Negotiation(event.tensor, event.what, -1, -1, event.ts_us)
            self._open[event.tensor] = each
        each.executed = event.what
        self._launched[event.tensor] = cycle, self._operations
        self._operations += 1

    def _part(self, event: TimelineEvent, each: Negotiation | None, block: tuple[str, Message] | None) -> None:
        """The first part of an operation tells with whom it was fused."""
        launched = self._launched.pop(event.tensor, None)
        if launched is None or each is None:
            return
        cycle, place = launched
        if block is not None and block[0] == event.what:
            message = block[1]
            first = message.members[0]
            if (first.agreed, first.executed) == (each.agreed, each.executed):
                message.members.append(each)
                self._block = block
                return
        message = Message([each], place)
        cycle.messages.append(message)
        self._block = event.what, message

    def _finish(self, event: TimelineEvent, each: Negotiation | None) -> None:
        launched = self._launched.pop(event.tensor, None)
        if each is None:
            return
        if launched is not None:
            launched[0].messages.append(Message([each], launched[1]))
        each.done, each.dtype, each.shape = True, event.dtype, event.shape
        del self._open[event.tensor]

    def _stray(self, each: Negotiation | None, cycle: RecordedCycle) -> None:
        if each is None or each.agreed < 0 or each.operation != UNNEGOTIATED:
            self.stray_ends += 1
            return
        each.executed, each.done, each.shape = each.operation, True, ()
        cycle.messages.append(Message([each], self._operations))
        self._operations += 1
        del self._open[each.tensor]

    def _contradiction(self, event: TimelineEvent, what: str) -> None:
        raise InputError.one(self._where, "", event.tensor, f"{event.tensor!r} {what}, at {event.ts_us} us")


_BY_BACKGROUND_THREAD = (
    EventKind.NEGOTIATE, EventKind.TICK, EventKind.AGREED, EventKind.OPERATION, EventKind.STRAY_END,
)  # fmt: skip


def _in_order(cycle: RecordedCycle) -> RecordedCycle:
    """With asynchronous operations the first part of a later one may be reported first."""
    cycle.messages.sort(key=lambda message: message.place)
    return cycle


class _Steps:
    """Which step a negotiation belongs to; told as it begins, so that a file of any size can be split."""

    def __init__(self) -> None:
        self.tensors: list[tuple[str, ...]] = []
        self._current: dict[str, None] = {}
        self._digest = 0
        self._known: dict[tuple[int, int], tuple[str, ...]] = {}

    def of(self, tensor: str, outstanding: bool) -> int:
        """The step of a negotiation of ``tensor`` that begins now; ``outstanding``: others are not over."""
        if tensor in self._current or (not outstanding and self._key() in self._known):
            self.close()
        self._current[tensor] = None
        self._digest ^= hash(tensor)
        return len(self.tensors)

    def close(self) -> None:
        """The step is over; equal steps share one tuple."""
        if not self._current:
            return
        self.tensors.append(self._known.setdefault(self._key(), tuple(self._current)))
        self._current, self._digest = {}, 0

    def _key(self) -> tuple[int, int]:
        return len(self._current), self._digest
