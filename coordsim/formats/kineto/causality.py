"""Calls, and which kernels each of them launched.

1. A call is an operator of c10d with all that is recorded inside it: ``record_param_comms``, the backend's annotation.
   Versions without such operators have one of the inner records instead.
2. A backend that works on the CPU (gloo) annotates the transfer on a thread of its own: it belongs to the call before
   it that is of its operation and has none yet.
3. A kernel belongs to the call during which it was launched: by correlation, by a flow event, else by the id of the
   operator that launched it. One launched behind calls that launched nothing is theirs together (coalesced calls).
   One that nobody called is a call of its own, asked for when it was launched.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from coordsim.formats.kineto.names import BARRIER, COALESCED, times_on_cpu
from coordsim.formats.kineto.raw import (
    METADATA,
    OPERATOR,
    TITLE,
    UNGROUPED,
    Group,
    Kernel,
    Mark,
    Process,
    Record,
    Span,
)
from coordsim.formats.kineto.sizes import NOTHING, Elements, size_of

_ALIKE = {("all_reduce", "reduce_scatter"), ("all_reduce", "all_gather"), ("broadcast", "all_gather")}
"""Pairs of (what gloo states that it does, what was requested)."""


class Call(NamedTuple):
    """One collective, or send or receive, of one rank; times in ns on the file's clock, None where not recorded."""

    asked_ns: int
    begin_ns: int | None
    end_ns: int | None
    operation: str | None
    nbytes: int | None
    why: str | None
    """Why the size is not known."""
    group: tuple[str, int]
    """Its name, and a hash of its ranks: groups of several ranks may share a name."""
    group_size: int | None
    group_ranks: tuple[int, ...] | None
    sequence: int | None
    on_device: bool
    step_mark: int | None = None
    """The number of the step that the device itself marks, for a kernel whose launch is not recorded."""


@dataclass
class Calls:
    """The result of :func:`calls_of`."""

    calls: list[Call] = field(default_factory=list)
    """Calls in the order in which they were requested."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Activities that were not counted -> how often."""
    notes: dict[str, str] = field(default_factory=dict)


@dataclass
class _Open:
    """A call that is being assembled."""

    thread: int
    begin_ns: int
    end_ns: int
    kind: int
    operation: str | None
    named_by: int
    backend: str = ""
    known: Elements = NOTHING
    group: Group = UNGROUPED
    externals: set[int] = field(default_factory=set)
    transfer: Span | None = None
    kernels: list[Kernel] = field(default_factory=list)
    step_mark: int | None = None

    @classmethod
    def of(cls, record: Record) -> _Open:
        call = cls(record.thread, record.begin_ns, record.end_ns, record.kind, record.operation, record.kind)
        call.take(record)
        return call

    def take(self, record: Record) -> None:
        """Add what an inner record states. The outer record's operation stays, as gloo may do one by another."""
        if self.operation is None and record.operation is not None:
            self.operation = record.operation
        if record.operation == BARRIER:
            self.operation = BARRIER
        self.backend = self.backend or record.backend
        same = record.operation in (None, self.operation)
        known = record.known if same else Elements(None, None, *record.known[2:])
        self.known = known.or_else(self.known) if record.kind == METADATA else self.known.or_else(known)
        if record.group is not UNGROUPED and not self.group.name:
            self.group = record.group
        if record.external is not None:
            self.externals.add(record.external)
        if record.kind == TITLE and times_on_cpu(record.backend):
            self.transfer = Span(record.begin_ns, record.end_ns)

    def finished(self, groups: dict[str, tuple[int, ...]] | None, world: int | None) -> Call:
        """Return the call as it is known at the end."""
        known, group = self.known, self.group
        for kernel in self.kernels:
            known = kernel.known.or_else(known) if kernel.known is not NOTHING else known
            group = kernel.group if not group.name and kernel.group is not UNGROUPED else group
        ranks = group.ranks or (groups or {}).get(group.name)
        size = group.size or (len(ranks) if ranks else None)
        if size is None and not group.name and groups is not None and len(groups) <= 1:
            size = world
        operation = self.operation or next((kernel.operation for kernel in self.kernels if kernel.operation), None)
        nbytes, why = size_of(operation, known, size)
        begin = min((kernel.begin_ns for kernel in self.kernels), default=None)
        end = max((kernel.end_ns for kernel in self.kernels), default=None)
        if begin is None and self.transfer is not None:
            begin, end = self.transfer
        return Call(
            self.begin_ns, begin, end, operation, nbytes, why, (group.name, hash(ranks) if ranks else 0), size, ranks,
            group.sequence, bool(self.kernels), self.step_mark,
        )  # fmt: skip


def calls_of(
    process: Process, groups: dict[str, tuple[int, ...]] | None = None, world: int | None = None,
    flows: dict[int, tuple[int, int]] | None = None,
) -> Calls:  # fmt: skip
    """Return a process's calls.

    ``flows`` maps the index of a kernel to (ns, thread) of its launch, where flow events state it.
    """
    result = Calls()
    opened, nameless = _opened(process.records)
    if nameless:
        result.left_out["record_param_comms that name no operation, as waits and old versions' do"] += nameless
    opened = _with_transfers(opened)
    _Kernels(process, opened, flows or {}, result).assign()
    for call in opened:
        if call.operation == BARRIER:
            result.left_out["barriers, which move no data"] += 1
        elif call.operation != COALESCED and (call.operation is not None or call.kernels):
            result.calls.append(call.finished(groups, world))
    result.calls.sort(key=attrgetter("asked_ns"))
    return result


def _opened(records: Iterable[Record]) -> tuple[list[_Open], int]:
    """Join records to calls, by nesting on their thread; also return how many remain that do not state what they
    are."""
    calls: list[_Open] = []
    current: dict[int, _Open] = {}
    for record in sorted(records, key=lambda record: (record.thread, record.begin_ns, record.kind, -record.end_ns)):
        outer = current.get(record.thread)
        if outer is not None and record.begin_ns <= outer.end_ns and _holds(outer, record):
            outer.take(record)
            continue
        call = _Open.of(record)
        current[record.thread] = call
        calls.append(call)
    # record_param_comms that is in nothing, says no operation and holds no annotation is a "wait" of an old version
    named = [call for call in calls if not (call.kind == METADATA and call.operation is None)]
    return named, len(calls) - len(named)


def _holds(outer: _Open, record: Record) -> bool:
    """Return whether a record that begins inside ``outer`` is of the same call.

    An annotation may continue behind its call, so it contains nothing but metadata of its own submission.
    """
    if outer.kind != TITLE:
        return True
    return record.kind == METADATA and record.end_ns <= outer.end_ns and record.operation in (None, outer.operation)


def _with_transfers(calls: list[_Open]) -> list[_Open]:
    """Join annotations of the CPU's backends that stand alone to the calls that they carry out."""
    alone = sorted(
        (call for call in calls if call.kind == TITLE and call.transfer is not None), key=attrgetter("begin_ns")
    )  # fmt: skip
    waiting = sorted(
        (call for call in calls if call.kind != TITLE and call.transfer is None), key=attrgetter("begin_ns")
    )
    if not alone or not waiting:
        return calls
    taken: set[int] = set()
    first = 0
    for title in alone:
        while first < len(waiting) and waiting[first].transfer is not None:
            first += 1
        for call in waiting[first : first + 256]:
            if call.begin_ns > title.begin_ns:
                break
            if call.transfer is None and call.backend in ("", title.backend) and _carries_out(title, call):
                call.transfer, call.backend = title.transfer, title.backend
                call.known = call.known.or_else(Elements(None, None, *title.known[2:]))
                if title.operation == call.operation:
                    call.known = call.known.or_else(title.known)
                taken.add(id(title))
                break
    return [call for call in calls if id(call) not in taken]


def _carries_out(title: _Open, call: _Open) -> bool:
    if title.operation != call.operation and (title.operation, call.operation) not in _ALIKE:
        return False
    mine, theirs = title.known.put_in, {call.known.put_in, call.known.got_out} - {None}
    return mine is None or not theirs or mine in theirs


class _Kernels:
    """Finds the call of each kernel."""

    def __init__(
        self, process: Process, calls: list[_Open], flows: dict[int, tuple[int, int]], result: Calls
    ) -> None:
        self._process, self._calls, self._flows, self._result = process, calls, flows, result
        self._by_external = {external: call for call in calls for external in call.externals}
        self._by_thread: dict[int, tuple[list[int], list[_Open]]] = {}
        for call in sorted(calls, key=attrgetter("begin_ns")):
            begins, of_thread = self._by_thread.setdefault(call.thread, ([], []))
            begins.append(call.begin_ns)
            of_thread.append(call)
        self._called = bool(calls)

    def assign(self) -> None:
        """Assign every kernel to a call, or to none, which is counted."""
        kernels = self._process.kernels
        order = sorted(range(len(kernels)), key=lambda index: kernels[index].begin_ns)
        launches = self._launches({kernels[index].correlation for index in order} - {None})  # type: ignore[arg-type]
        unlaunched: list[Kernel] = []
        alone: list[tuple[int, int, Kernel]] = []
        for index in order:
            kernel = kernels[index]
            known = kernel.correlation if kernel.correlation is not None else -1
            launch = self._flows.get(index) or launches.get(known)
            call = self._during(*launch) if launch else None
            if call is None and kernel.external is not None and kernel.external != kernel.correlation:
                call = self._by_external.get(kernel.external)
            if call is not None and call.operation != COALESCED:
                call.kernels.append(kernel)
            elif launch:
                alone.append((*launch, kernel))
            else:
                unlaunched.append(kernel)
        self._own(sorted(alone, key=lambda one: (one[1], one[0])))
        self._without_launch(unlaunched)

    def _launches(self, wanted: set[int]) -> dict[int, tuple[int, int]]:
        """Return correlation -> (ns, thread) of a launch."""
        kept = self._process.launches
        if not wanted or not kept.correlation:
            return {}
        correlations = np.frombuffer(kept.correlation, np.int64)
        rows = np.flatnonzero(np.isin(correlations, np.fromiter(wanted, np.int64)))
        return {int(correlations[row]): (kept.at_ns[row], kept.thread[row]) for row in rows.tolist()}

    def _during(self, at_ns: int, thread: int) -> _Open | None:
        """Return the call on a thread during which a time lies."""
        begins, calls = self._by_thread.get(thread, ([], []))
        place = bisect_right(begins, at_ns) - 1
        return calls[place] if place >= 0 and at_ns <= calls[place].end_ns else None

    def _own(self, alone: Sequence[tuple[int, int, Kernel]]) -> None:
        """Assign kernels launched outside of any call: to the coalesced calls before, else to calls of their own."""
        devices: Counter[tuple[str, int]] = Counter()
        by_place: dict[tuple[str | None, int, int], _Open] = {}
        for at_ns, thread, kernel in alone:
            before = self._coalesced(at_ns, thread, kernel.operation)
            if before:
                for call in before:
                    call.kernels.append(kernel)
                continue
            # a process with several devices launches one collective once on each
            place = devices[kernel.device, thread]
            devices[kernel.device, thread] += 1
            key = (kernel.operation, thread, place)
            if key in by_place and all(other.device != kernel.device for other in by_place[key].kernels):
                by_place[key].kernels.append(kernel)
                continue
            call = _Open(thread, at_ns, at_ns, OPERATOR, kernel.operation, OPERATOR, kernels=[kernel])
            by_place[key] = call
            self._calls.append(call)

    def _coalesced(self, at_ns: int, thread: int, operation: str | None) -> list[_Open]:
        """Return the calls without kernels that a launch behind them ends."""
        begins, calls = self._by_thread.get(thread, ([], []))
        place = bisect_right(begins, at_ns) - 1
        ended: list[_Open] = []
        while place >= 0 and len(ended) < 4096:
            call = calls[place]
            place -= 1
            if call.operation == COALESCED and not ended:
                continue
            if call.kernels or call.transfer is not None or call.operation in (COALESCED, BARRIER):
                break
            if operation not in (None, "send_recv", call.operation):
                break
            if call.group.size == 1:
                continue
            ended.append(call)
        return ended if self._process.launches.correlation or self._flows else []

    def _without_launch(self, kernels: Sequence[Kernel]) -> None:
        if not kernels:
            return
        result = self._result
        if self._process.launches.correlation:
            result.left_out["kernels of collectives that were launched before the recording"] += len(kernels)
            return
        calls = [call for call in self._calls if call.operation not in (BARRIER, COALESCED) and not call.kernels]
        calls.sort(key=attrgetter("begin_ns"))
        if calls:
            in_order = len(calls) == len(kernels) and all(
                call.begin_ns <= kernel.begin_ns for call, kernel in zip(calls, kernels, strict=True)
            )
            if in_order:
                for call, kernel in zip(calls, kernels, strict=True):
                    call.kernels.append(kernel)
                result.notes["launches"] = "no launches are recorded: kernels belong to calls by their order"
            else:
                result.left_out["kernels of collectives of which no launch is recorded"] += len(kernels)
            return
        result.notes["launches"] = (
            "no launches and no calls are recorded: a kernel counts in the step that the device marks, "
            "else in the one during which it began"
        )
        steps = sorted(self._process.device_steps)
        for kernel in kernels:
            mark = _within(steps, kernel)
            self._calls.append(_Open(
                -1, kernel.begin_ns, kernel.end_ns, OPERATOR, kernel.operation, OPERATOR, kernels=[kernel],
                step_mark=mark.number if mark else None,
            ))  # fmt: skip


def _within(steps: Sequence[Mark], kernel: Kernel) -> Mark | None:
    place = bisect_right(steps, kernel.begin_ns, key=attrgetter("begin_ns")) - 1
    return steps[place] if place >= 0 and kernel.begin_ns <= steps[place].end_ns else None
