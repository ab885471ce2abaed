"""What one rank did in each of its steps, on its own clock: its main thread's time, split without a gap.

A step of a rank runs from the end of its step before to its own end. Its spans (:class:`SpanKind`) say what the main
thread was inside of; where spans nest, the innermost counts, so nothing is counted twice. Time outside of any span goes
to a part by what stands around it (:func:`_between`). From that the rank's waits for others are cut out: its gathers,
and its *tail*, from its last gradient (or from when it began to wait, if that is later) to the end of its last
collective. What is left is the rank's own work. Other ranks' clocks are not needed for any of it.

Records without spans (schemas 1 and 2) have the marks of one pass; those are taken as spans (:func:`_marked`).
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from coordsim.record.ranks.facts import gathers
from coordsim.record.ranks.format import NULL
from coordsim.record.ranks.reader import RankRecord, Span, SpanKind, StepRecord

_ALLGATHER = 1
"""Of :class:`coordsim.protocol.messages.Op`, which this room does not know."""


class Work(NamedTuple):
    """A rank's own work by part, ns: its waits for other ranks are not in it."""

    between_steps: int = 0
    """Neither of the others: logging, evaluation, checkpoints, what is done between passes."""
    input_stall: int = 0
    forward: int = 0
    backward: int = 0
    before_optimizer: int = 0
    """From the end of the last backward pass to the optimizer: clipping, unscaling."""
    optimizer: int = 0

    @property
    def total(self) -> int:
        return sum(self)


OWN_PARTS = Work._fields


class Wait(NamedTuple):
    """The main thread waits for a collective; ns of the rank's clock."""

    begin_ns: int
    end_ns: int
    place: int
    """Of the response in its step; -1: the tail."""
    gather: bool = False
    """Whether parameters are gathered, not gradients reduced."""


class Piece(NamedTuple):
    """A stretch of a step that belongs to one part; ns of the rank's clock."""

    part: str
    kind: int
    """Of the span; 0 outside of all."""
    begin_ns: int
    end_ns: int


@dataclass(frozen=True)
class OwnStep:
    """One step of one rank; times are ns of its own clock."""

    record: StepRecord
    begin_ns: int
    end_ns: int
    before: Work
    """Up to the end of the tail: what other ranks may have to wait for in this step."""
    after: Work
    """From there on: what delays the next step."""
    tail: tuple[int, int] | None
    """From the last gradient, or from when the main thread began to wait, to the end of the last collective; None where
    that end is not known or nothing was waited for."""
    waits: tuple[Wait, ...]
    """In collectives before the tail, where gathers tie ranks together; in order and not overlapping."""
    evaluation_ns: int
    checkpoint_ns: int
    passes: int
    """Backward passes."""
    pieces: tuple[Piece, ...]
    """The main thread's time in order, waits not cut out."""

    @property
    def work(self) -> Work:
        """Its own work of the whole step."""
        return add(self.before, self.after)

    @property
    def tail_ns(self) -> int:
        return self.tail[1] - self.tail[0] if self.tail is not None else 0

    @property
    def gathers_ns(self) -> int:
        return sum(each.end_ns - each.begin_ns for each in self.waits if each.gather)

    @property
    def collectives_ns(self) -> int:
        """Its waits in all other collectives."""
        return self.tail_ns + sum(each.end_ns - each.begin_ns for each in self.waits if not each.gather)


def add(one: Work, other: Work) -> Work:
    """The parts of both together."""
    return Work(*(left + right for left, right in zip(one, other, strict=True)))


def shown_pieces(step: OwnStep) -> Iterator[tuple[str, int, int]]:
    """(name, begin, end) of a rank's own work and its waits, in order and without a gap; ns of its clock."""
    cut = sorted([*step.waits, *([Wait(*step.tail, -1)] if step.tail is not None else [])])
    found = [(wait.begin_ns, wait.end_ns, "wait in a gather" if wait.gather else "wait") for wait in cut]
    for piece in step.pieces:
        name = piece.part.replace("_", " ")
        found += [(since, until, name) for since, until in _without(piece.begin_ns, piece.end_ns, cut)]
    for begin, end, name in sorted(found):
        yield name, begin, end


def last_ready(step: OwnStep) -> int:
    """When its last gradient was there; where nobody saw one, the end of its last backward pass or of the step."""
    if step.record.last_submit_ns != NULL:
        return step.record.last_submit_ns
    return max((span.end_ns for span in step.record.spans if span.kind == SpanKind.BACKWARD), default=step.end_ns)


def ends_known(records: Sequence[RankRecord], steps: Collection[int]) -> bool:
    """Whether every one of ``steps`` has collectives, and every rank with details saw the end of each of them."""
    seen: set[int] = set()
    for record in records:
        for each in record.responses if record.detailed else ():
            if each.step in steps:
                seen.add(each.step)
                if each.end_ns == NULL:
                    return False
    return seen >= set(steps)


def timed_at_all(step: StepRecord) -> bool:
    """Whether anything is known of when a step ended."""
    return (step.end_ns, step.end_collective_ns, step.last_submit_ns) != (NULL, NULL, NULL)


def own_steps(record: RankRecord, timed: bool = True) -> dict[int, OwnStep]:
    """Number -> the rank's step, of all steps in which it had a last gradient or an end.

    ``timed``: whether ends of collectives are known; if not (on a GPU), no wait is cut out.
    """
    found: dict[int, OwnStep] = {}
    calls = _calls_by_step(record) if timed else {}
    ends: dict[int, int] = {}
    for step in record.steps:
        if not timed_at_all(step):
            continue
        known = [at for at in (step.end_ns, step.end_collective_ns, step.last_submit_ns) if at != NULL]
        end = known[0] if step.end_ns != NULL else max(known)
        begin = ends.get(step.step - 1, min(_first(step), end))
        ends[step.step] = end = max(end, begin)
        found[step.step] = _own(step, begin, end, calls.get(step.step, ()), timed)
    return found


def _first(step: StepRecord) -> int:
    """The first thing that is known of a step."""
    known = [at for at in (step.start_ns, step.forward_end_ns, step.first_submit_ns) if at != NULL]
    return min([*known, *(span.begin_ns for span in step.spans), step.last_submit_ns if not known else known[0]])


def _calls_by_step(record: RankRecord) -> dict[int, list[Wait]]:
    """From the call to the end of each collective, where parameters are gathered: the training thread waits in those.
    (DDP's reductions run beside backward; only the tail is waited for.) What runs beside a gather that was called
    early is not seen."""
    found: dict[int, list[Wait]] = {}
    if gathers(record):
        for each in record.responses:
            if NULL not in (each.copied_in_ns, each.end_ns):
                wait = Wait(each.copied_in_ns, each.end_ns, each.place, each.op == _ALLGATHER)
                found.setdefault(each.step, []).append(wait)
    return found


def _own(step: StepRecord, begin: int, end: int, calls: Sequence[Wait], timed: bool) -> OwnStep:
    spans = step.spans or _marked(step, begin, end, timed)
    pieces = list(_pieces(spans, begin, end))
    tail = _tail(step, pieces, begin, end) if timed else None
    waits = tuple(_apart(sorted(calls), begin, end, tail))
    cut = sorted([*waits, *([Wait(*tail, -1)] if tail is not None else [])])
    split = tail[1] if tail is not None else min(max(step.last_submit_ns, begin), end)
    sums = {True: dict.fromkeys(OWN_PARTS, 0), False: dict.fromkeys(OWN_PARTS, 0)}
    details = {SpanKind.EVALUATION: 0, SpanKind.CHECKPOINT: 0}
    for piece in pieces:
        for since, until in _without(piece.begin_ns, piece.end_ns, cut):
            sums[True][piece.part] += max(min(until, split) - since, 0)
            sums[False][piece.part] += max(until - max(since, split), 0)
            if piece.kind in details:
                details[SpanKind(piece.kind)] += until - since
    passes = len({span.place for span in step.spans if span.kind == SpanKind.BACKWARD}) or 1
    return OwnStep(
        step, begin, end, Work(**sums[True]), Work(**sums[False]), tail, waits, details[SpanKind.EVALUATION],
        details[SpanKind.CHECKPOINT], passes, tuple(pieces),
    )  # fmt: skip


def _marked(step: StepRecord, begin: int, end: int, timed: bool) -> tuple[Span, ...]:
    """The marks of a record without spans as spans, each clipped to the one before."""
    marks = (step.last_submit_ns, step.end_collective_ns if timed else NULL)
    over = max([at for at in marks if at != NULL], default=end)
    at, found = begin, []
    for kind, mark in (
        (SpanKind.INPUT, step.start_ns),
        (SpanKind.FORWARD, step.forward_end_ns if step.start_ns != NULL else NULL),
        (SpanKind.BACKWARD, over), (SpanKind.OPTIMIZER, end),
    ):  # fmt: skip
        if mark != NULL:
            until = min(max(mark, at), end)
            found.append(Span(kind, 0, at, until))
            at = until
    return tuple(found)


_PART = {
    SpanKind.INPUT: "input_stall", SpanKind.FORWARD: "forward", SpanKind.BACKWARD: "backward",
    SpanKind.OPTIMIZER: "optimizer", SpanKind.OPTIMIZER_SKIPPED: "optimizer", SpanKind.EVALUATION: "between_steps",
    SpanKind.CHECKPOINT: "between_steps", SpanKind.CLOSURE: "between_steps",
}  # fmt: skip
_OPTIMIZERS = (SpanKind.OPTIMIZER, SpanKind.OPTIMIZER_SKIPPED)
_PASS = (SpanKind.FORWARD, SpanKind.BACKWARD)


def _pieces(spans: Sequence[Span], begin: int, end: int) -> Iterator[Piece]:
    """All of [begin, end], in order: spans where they are the innermost, and the time between them."""
    inner = list(_innermost(spans, begin, end))
    validated = _validated(inner)
    at, before = begin, 0
    for number, (kind, since, until) in enumerate(inner):
        if since > at:
            yield Piece(_between(before, kind), 0, at, since)
        part = "between_steps" if number in validated else _PART[SpanKind(kind)]
        if kind == SpanKind.CLOSURE and before == SpanKind.BACKWARD:  # such as clipping
            part = "before_optimizer"
        yield Piece(part, kind, since, until)
        at, before = until, kind
    if at < end:
        yield Piece(_between(before, 0), 0, at, end)


def _innermost(spans: Sequence[Span], begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(kind, begin, end) in order and without overlap: of spans that cover a moment, the one that began last."""
    known = sorted(
        (max(span.begin_ns, begin), -min(span.end_ns, end), int(span.kind)) for span in spans
        if min(span.end_ns, end) > max(span.begin_ns, begin) and span.kind in _PART
    )  # fmt: skip
    moments = sorted({at for since, until, _ in known for at in (since, -until)})
    active: list[tuple[int, int, int, int]] = []
    waiting = iter([*known, None])
    coming = next(waiting)
    last: tuple[int, int, int] | None = None
    for since, until in pairwise(moments):
        while coming is not None and coming[0] <= since:
            heapq.heappush(active, (-coming[0], -coming[1], coming[2], -coming[1]))
            coming = next(waiting)
        while active and active[0][3] <= since:
            heapq.heappop(active)
        if not active:
            continue
        kind = active[0][2]
        if last is not None and last[0] == kind and last[2] == since:
            last = (kind, last[1], until)
            continue
        if last is not None:
            yield last
        last = (kind, since, until)
    if last is not None:
        yield last


def _validated(inner: Sequence[tuple[int, int, int]]) -> frozenset[int]:
    """Places of INPUT that feeds an evaluation: the next thing is one, and no training pass follows that."""
    found = set()
    after, evaluated = 0, False
    for place in range(len(inner) - 1, -1, -1):
        kind = inner[place][0]
        if kind == SpanKind.EVALUATION:
            evaluated = True
            continue
        if kind == SpanKind.INPUT and evaluated and after not in _PASS:
            found.add(place)
        after, evaluated = kind, False
    return frozenset(found)


def _between(before: int, after: int) -> str:
    """Which part the time between two spans belongs to; 0: the begin or the end of the step."""
    if before == SpanKind.INPUT and after != SpanKind.INPUT:
        return "input_stall"
    if before == SpanKind.FORWARD and after in _PASS:
        return "forward"
    if before in _PASS and after in _OPTIMIZERS:
        return "before_optimizer"
    if before in _OPTIMIZERS and after in (*_OPTIMIZERS, 0):
        return "optimizer"
    return "between_steps"


def _tail(step: StepRecord, pieces: Sequence[Piece], begin: int, end: int) -> tuple[int, int] | None:
    """When the main thread waited for the last collective of the step: in the piece in which that ended, from the last
    gradient on."""
    over = step.end_collective_ns
    if NULL in (over, step.last_submit_ns) or not begin < over <= end:
        return None
    waiting = next(piece for piece in pieces if piece.end_ns >= over)
    since = max(step.last_submit_ns, waiting.begin_ns)
    return (since, over) if since < over else None


def _apart(calls: Iterable[Wait], begin: int, end: int, tail: tuple[int, int] | None) -> Iterator[Wait]:
    """Waits in gathers one behind the other, within the step and outside of its tail."""
    at = begin
    for call in calls:
        for since, until in _without(max(call.begin_ns, at), min(call.end_ns, end), [Wait(*tail, -1)] if tail else []):
            yield call._replace(begin_ns=since, end_ns=until)
            at = max(at, until)


def _without(begin: int, end: int, cut: Iterable[Wait]) -> Iterator[tuple[int, int]]:
    """[begin, end] less the waits ``cut``, which are in order."""
    at = begin
    for wait in cut:
        if wait.end_ns <= at or wait.begin_ns >= end:
            continue
        if wait.begin_ns > at:
            yield at, wait.begin_ns
        at = max(at, wait.end_ns)
    if at < end:
        yield at, end
