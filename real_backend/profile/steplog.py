"""The training thread's work, step by step, as spans. The module is pure: every time is given, none is looked up.

A step ends with the optimizer's outermost ``step`` after at least one backward pass, or with a ``GradScaler.step`` that
skips it. Where several optimizers step one after the other without a backward pass between them, the last one ends the
step. The first step shows whether this is so; from then on each end is held until something else begins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from coordsim.record.ranks.reader import CpuTimes, Span, SpanKind
from real_backend.profile.cpu import Clocks
from real_backend.stream import StepDetails

MOST_SPANS = 2000
"""Largest number of spans in a step. Beyond it, neighbours of one kind become one span, since a script may skip a
million batches in one step."""

class EndedStep(NamedTuple):
    """A step that is over."""

    end_ns: int
    details: StepDetails


@dataclass
class _Work:
    """Work since the end of the preceding step."""

    spans: list[Span] = field(default_factory=list)
    passes: int = 0
    closures: int = 0
    stepped: set[int] = field(default_factory=set)
    skipped: set[int] = field(default_factory=set)
    models: set[int] = field(default_factory=set)
    names: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class _Call:
    """A model's call that has not returned."""

    begin_ns: int
    model: int
    kind: SpanKind | None
    """None if the call is part of another span."""


class StepLog:
    """The steps of one process. Methods take ns of one clock and are called from the thread that trains."""

    def __init__(self, cpu: Callable[[], Clocks]) -> None:
        self._cpu = cpu
        self._cpu_before = cpu()
        self._work = _Work()
        self._held: tuple[int, _Work, CpuTimes] | None = None
        self._several = False
        self._ended_one = False
        self._indices: dict[str, dict[object, int]] = {"optimizers": {}, "models": {}}
        self._names: list[tuple[str, str]] = []
        """All names, in order of first sight."""
        self._first_models: dict[tuple[int, ...], frozenset[int]] = {}
        self._forward_ns: int | None = None
        self._maybe: _Call | None = None
        """A call in evaluation mode with gradients on: it is forward if backward follows, else evaluation."""
        self._maybe_over_ns = 0
        self._calls: list[_Call] = []
        self._backward_ns: int | None = None
        self._backwards = 0
        self._running: list[object] = []
        """Optimizers whose step runs, each called by the one before; ZeroRedundancyOptimizer contains another one."""
        self._optimizer_ns = 0
        self._optimizer = 0
        self._closure_ns: list[int] = []

    @property
    def first_forward_ns(self) -> int | None:
        """Begin of the running step's first forward pass; None before it."""
        begins = [span.begin_ns for span in self._work.spans if span.kind == SpanKind.FORWARD]
        return min(begins, default=self._forward_ns)

    @property
    def passes(self) -> int:
        """Number of backward passes of the running step that are over."""
        return self._work.passes

    def index(self, of: str, key: object, name: str) -> int:
        """Return the place of an optimizer or a model (``of``) in the order of first sight."""
        known = self._indices[of]
        if key not in known:
            known[key] = len(known)
            self._names.append((of, name))
            self._work.names.append((of, name))
        return known[key]

    def announce(self) -> None:
        """Repeat all names in the next step, because a new record begins."""
        self._work.names = list(self._names)

    # Models.

    def called(self, model: int, now_ns: int, gradients: bool, training: bool) -> bool:
        """Note that a model is called; return whether the step's first forward pass begins with this call."""
        begins = False
        if self._calls or self._backwards or (gradients and self._forward_ns is not None):
            kind = None
            if gradients and not self._backwards:
                self._work.models.add(model)
        elif not gradients:
            self._settle_maybe()
            kind = SpanKind.EVALUATION
        else:
            self._settle_maybe()
            kind = SpanKind.FORWARD
            if training:
                begins = self._begin_forward(model, now_ns)
        self._calls.append(_Call(now_ns, model, kind))
        if kind is SpanKind.FORWARD and not training:
            self._maybe = self._calls[-1]
        return begins

    def _begin_forward(self, model: int, now_ns: int) -> bool:
        begins = self.first_forward_ns is None
        self._forward_ns = now_ns
        self._work.models.add(model)
        return begins

    def returned(self, now_ns: int) -> None:
        """Note that the last call has returned."""
        if not self._calls:
            return
        call = self._calls.pop()
        if call is self._maybe:
            self._maybe_over_ns = now_ns
        elif call.kind is SpanKind.EVALUATION:
            self._evaluated(call.model, call.begin_ns, now_ns)

    def _settle_maybe(self) -> None:
        """Decide that the pending call in evaluation mode was no forward pass."""
        call, self._maybe = self._maybe, None
        if call is not None and self._maybe_over_ns >= call.begin_ns:
            self._evaluated(call.model, call.begin_ns, self._maybe_over_ns)

    def _evaluated(self, model: int, begin_ns: int, end_ns: int) -> None:
        """Add an evaluation. Consecutive evaluations are one span, together with the input that they are fed from."""
        self._interrupt(begin_ns, end_ns)
        spans = self._work.spans
        if len(spans) > 1 and spans[-1].kind == SpanKind.INPUT and spans[-2].kind == SpanKind.EVALUATION:
            begin_ns = spans[-2].begin_ns
            del spans[-2:]
            if spans and spans[-1].kind == SpanKind.INPUT:
                begin_ns = spans.pop().begin_ns
        elif spans and spans[-1].kind == SpanKind.EVALUATION:
            begin_ns = spans.pop().begin_ns
        self._add(SpanKind.EVALUATION, model, begin_ns, end_ns)

    def _interrupt(self, begin_ns: int, end_ns: int) -> None:
        """Cut forward where something else goes on between forward and backward."""
        if self._forward_ns is not None and self._backward_ns is None:
            if begin_ns > self._forward_ns:
                self._add(SpanKind.FORWARD, self._work.passes, self._forward_ns, begin_ns)
            self._forward_ns = end_ns

    # What else the thread does.

    def spent(self, kind: SpanKind, begin_ns: int, end_ns: int) -> None:
        """Add input or a checkpoint, unless it is part of a model's call, of backward or of an optimizer."""
        if self._calls or self._backwards or (self._running and not self._closure_ns):
            return
        self._settle_maybe()
        self._interrupt(begin_ns, end_ns)
        self._add(kind, self._work.passes if kind is SpanKind.INPUT else 0, begin_ns, end_ns)

    # Passes.

    def backward(self, now_ns: int) -> bool:
        """Note that a backward pass begins; return whether it is the step's first."""
        self._backwards += 1
        if self._backwards > 1:
            return False
        self._calls.clear()
        maybe, self._maybe = self._maybe, None
        if maybe is not None and self._forward_ns is None:
            self._begin_forward(maybe.model, maybe.begin_ns)
        if self._forward_ns is not None:
            cut = any(span.kind == SpanKind.FORWARD and span.place == self._work.passes for span in self._work.spans)
            if now_ns > self._forward_ns or not cut:
                self._add(SpanKind.FORWARD, self._work.passes, self._forward_ns, now_ns)
            self._forward_ns = None
        self._backward_ns = now_ns
        return self._work.passes == 0

    def backward_over(self, now_ns: int) -> None:
        self._backwards = max(self._backwards - 1, 0)
        if not self._backwards and self._backward_ns is not None:
            self._add(SpanKind.BACKWARD, self._work.passes, self._backward_ns, now_ns)
            self._work.passes += 1
            self._backward_ns = None

    # Optimizers.

    def optimizer(self, optimizer: object, place: int, now_ns: int) -> None:
        """Note that the optimizer's ``step`` begins."""
        if optimizer in self._running:  # Its last step raised, so its end was not seen.
            del self._running[self._running.index(optimizer) :]
        self._running.append(optimizer)
        if len(self._running) == 1:
            self._calls.clear()
            self._backwards, self._backward_ns = 0, None
            self._closure_ns.clear()
            self._optimizer, self._optimizer_ns = place, now_ns

    def closure(self, now_ns: int) -> None:
        """Note that the outermost optimizer evaluates its closure."""
        if not self._closure_ns:
            self._add(SpanKind.OPTIMIZER, self._optimizer, self._optimizer_ns, now_ns)
        self._closure_ns.append(now_ns)

    def closure_over(self, now_ns: int) -> None:
        if self._closure_ns:
            begin_ns = self._closure_ns.pop()
            if not self._closure_ns:
                self._add(SpanKind.CLOSURE, self._work.closures, begin_ns, now_ns)
                self._work.closures += 1
                self._optimizer_ns = now_ns

    def optimizer_over(self, optimizer: object, now_ns: int) -> EndedStep | None:
        """Note that the optimizer's ``step`` is over; return the step that this ends, unless its end is held."""
        if optimizer in self._running:
            del self._running[self._running.index(optimizer) :]
        if self._running:
            return None
        span = Span(SpanKind.OPTIMIZER, self._optimizer, self._optimizer_ns, now_ns)
        return self._step_over(span, now_ns)

    def skipped(self, place: int, begin_ns: int, now_ns: int) -> EndedStep | None:
        """Note that ``GradScaler.step`` did not call the optimizer; return as :meth:`optimizer_over` does."""
        return self._step_over(Span(SpanKind.OPTIMIZER_SKIPPED, place, begin_ns, now_ns), now_ns)

    def _step_over(self, span: Span, now_ns: int) -> EndedStep | None:
        work = self._work
        if not work.passes:
            self._another(span, now_ns)
            return None
        self._close_forward(span.begin_ns)
        self._count(work, span)
        self._work = _Work()
        self._ended_one = True
        if self._several:
            self._held = (now_ns, work, self._cpu_spent())
            return None
        return EndedStep(now_ns, self._make_details(work, self._cpu_spent()))

    def _another(self, span: Span, now_ns: int) -> None:
        """Take note of an optimizer that steps without a backward pass of its own, after one that ended the step."""
        if not self._ended_one or self._forward_ns is not None:
            return
        self._several = True
        if self._held is not None:
            _, work, before = self._held
            self._count(work, span)
            work.names += self._work.names
            self._work.names = []
            more = self._cpu_spent()
            self._held = (now_ns, work, _add_times(before, more))

    def _close_forward(self, now_ns: int) -> None:
        """End a forward pass that no backward pass follows."""
        self._settle_maybe()
        if self._forward_ns is not None:
            if now_ns > self._forward_ns:  # Otherwise an interruption has already ended all of it.
                self._add(SpanKind.FORWARD, self._work.passes, self._forward_ns, now_ns)
            self._forward_ns = None

    @staticmethod
    def _count(work: _Work, span: Span) -> None:
        work.spans.append(span)
        (work.stepped if span.kind == SpanKind.OPTIMIZER else work.skipped).add(span.place)

    def release(self) -> EndedStep | None:
        """Return the step whose end was held, if there is one, because something else begins."""
        held, self._held = self._held, None
        return None if held is None else EndedStep(held[0], self._make_details(held[1], held[2]))

    def _make_details(self, work: _Work, cpu: CpuTimes) -> StepDetails:
        spans = sorted(work.spans, key=lambda span: (span.begin_ns, -span.end_ns))
        return StepDetails(self._kind(work), spans, cpu, work.names)

    def _kind(self, work: _Work) -> str:
        """Return a name for the kind of a step's work, by which unlike steps are distinguished."""
        optimizers = tuple(sorted(work.stepped | work.skipped))
        parts = [f"optimizer {'+'.join(map(str, optimizers))}"]
        if work.closures > 1:
            parts.append(f"closures {work.closures}")
        if work.skipped:
            parts.append("skipped" if not work.stepped else f"skipped {'+'.join(map(str, sorted(work.skipped)))}")
        if len(parts) > 1 and optimizers == (0,):
            del parts[0]
        usual = self._first_models.setdefault(optimizers, frozenset(work.models))
        if work.models != usual and work.models:
            parts.append(f"model {'+'.join(map(str, sorted(work.models)))}")
        return ", ".join(parts)

    def _cpu_spent(self) -> CpuTimes:
        now, before = self._cpu(), self._cpu_before
        self._cpu_before = now
        waits = now.core_wait_ns, before.core_wait_ns
        core_wait_ns = None if waits[0] is None or waits[1] is None else waits[0] - waits[1]
        return CpuTimes(now.thread_ns - before.thread_ns, 0, now.process_ns - before.process_ns, core_wait_ns)

    def _add(self, kind: SpanKind, place: int, begin_ns: int, end_ns: int) -> None:
        spans = self._work.spans
        if len(spans) >= MOST_SPANS and spans[-1].kind == kind:
            begin_ns = spans.pop().begin_ns
        spans.append(Span(kind, place, begin_ns, end_ns))


def _add_times(one: CpuTimes, other: CpuTimes) -> CpuTimes:
    waits = one.core_wait_ns, other.core_wait_ns
    return CpuTimes(
        one.main_ns + other.main_ns, one.loop_ns + other.loop_ns, one.process_ns + other.process_ns,
        None if waits[0] is None or waits[1] is None else waits[0] + waits[1],
    )  # fmt: skip
