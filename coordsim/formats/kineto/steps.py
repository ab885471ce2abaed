"""One rank's recording as steps: the steps that the source marks, and the calls and passes in each."""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from coordsim.errors import InputError
from coordsim.formats.kineto.causality import Call, Calls, calls_of
from coordsim.formats.kineto.passes import Backward, Pass, Passes
from coordsim.formats.kineto.raw import Gradient, Mark, Process, RawTrace, Span

PROFILER, OPTIMIZER, ZERO_GRAD, DEVICE, NONE = (
    "ProfilerStep", "Optimizer.step", "Optimizer.zero_grad", "ProfilerStep on the device", "nothing",
)  # fmt: skip
SOURCES = (PROFILER, OPTIMIZER, ZERO_GRAD, DEVICE, NONE)
"""What marks steps, the best first."""


class StepGradient(NamedTuple):
    ready_ns: int
    """Time since the pass's backward began."""
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class RankStep:
    """One step of one rank; times in ns on the rank's clock, None where not recorded."""

    number: int
    begin_ns: int
    end_ns: int
    calls: tuple[Call, ...]
    """Calls in the order in which they were requested."""
    ready_ns: int
    """When the last call of backward was requested; without calls, when backward ended."""
    forward_ns: int | None
    """Sum over passes."""
    backward_ns: int | None
    """Sum over passes; the last one until :attr:`ready_ns`."""
    loading_ns: int | None
    """Sum of the DataLoader's events."""
    begins_known: bool
    """Whether the begins of forward are recorded, so that the time before them is known, too."""
    passes: int
    """Number of backward passes."""


@dataclass
class RankRecord:
    """One rank, from one file or several."""

    files: list[str]
    rank: int | None
    world_size: int | None
    backend: str | None
    host: str | None
    group_count: int | None
    source: str
    steps: list[RankStep]
    gradients: list[StepGradient]
    """Gradients of the step with the median backward, each parameter once, first ready first."""
    outside: tuple[Call, ...]
    """Calls in no step: all of them if the file marks no steps."""
    events: int
    characters: int
    window: Span
    left_out: Counter[str] = field(default_factory=Counter)
    notes: dict[str, str] = field(default_factory=dict)
    lost: str | None = None
    sources: tuple[str, ...] = (NONE,)
    """All that could mark its steps."""


def sources_of(process: Process) -> tuple[str, ...]:
    """Return what could mark a process's steps, the best first."""
    present = (process.steps, process.optimizers, process.zero_grads, process.device_steps, True)
    return tuple(source for source, there in zip(SOURCES, present, strict=True) if there)


def record_of(
    trace: RawTrace, process: Process, source: str | None = None, flows: dict[int, tuple[int, int]] | None = None
) -> RankRecord:
    """Return one process's record.

    ``source`` is one of :data:`SOURCES`, by default the best. Raises InputError for steps that overlap.
    """
    sources = sources_of(process)
    source = source if source in sources else sources[0]
    calls = calls_of(process, trace.groups, trace.world_size, flows)
    window = _window(trace, process, calls)
    spans = _spans(trace, process, source, window)
    passes = Passes(process)
    steps, outside, chosen = _steps(process, spans, calls.calls, passes)
    if trace.lost and len(steps) > 1 and _less(steps[-1], steps[-2]):
        calls.notes["cut_step"] = f"step {steps[-1].number} lies at the cut and is left out"
        outside += steps.pop().calls
    left_out = calls.left_out + trace.not_read
    if process.launches.left_out:
        left_out["launches beyond the first that are kept"] += process.launches.left_out
    return RankRecord(
        [trace.file], process.rank if process.rank is not None else trace.rank, trace.world_size, trace.backend,
        trace.host, trace.group_count, source, steps, _chosen(chosen), outside, trace.events, trace.characters, window,
        left_out, calls.notes, trace.lost, sources,
    )  # fmt: skip


def _less(last: RankStep, before: RankStep) -> bool:
    """Return whether a step lacks what the one before has."""
    return len(last.calls) < len(before.calls) or last.passes < before.passes


def _window(trace: RawTrace, process: Process, calls: Calls) -> Span:
    """Return from when to when the process was recorded, as far as its events show."""
    begins = [mark.begin_ns for marks in (process.steps, process.optimizers, process.zero_grads) for mark in marks]
    ends = [mark.end_ns for marks in (process.steps, process.optimizers, process.zero_grads) for mark in marks]
    begins += [span.begin_ns for span in (*process.forwards, *process.loaders)] + list(process.nodes.begin_ns)
    ends += [span.end_ns for span in (*process.forwards, *process.loaders)] + list(process.nodes.end_ns)
    begins += [call.asked_ns for call in calls.calls]
    ends += [call.asked_ns for call in calls.calls]
    begins += [mark.begin_ns for mark in process.device_steps]
    ends += [mark.end_ns for mark in process.device_steps]
    if trace.window is not None and len(trace.processes) == 1:
        begins.append(trace.window.begin_ns)
        ends.append(trace.window.end_ns)
    return Span(min(begins, default=0), max(ends, default=0))


def _spans(trace: RawTrace, process: Process, source: str, window: Span) -> list[Mark]:
    """Return the steps' marks in order of time; each number once, or once in each of several recordings."""
    if source == NONE:
        return []
    if source in (PROFILER, DEVICE):
        marks = sorted(process.steps if source == PROFILER else process.device_steps)
        if source == DEVICE:
            marks = _widest(marks)
        for before, mark in itertools.pairwise(marks):
            again = mark.number == before.number
            overlap_ns = before.end_ns - mark.begin_ns
            shorter_ns = min(before.end_ns - before.begin_ns, mark.end_ns - mark.begin_ns)
            if overlap_ns > 0 and (again or 2 * overlap_ns >= shorter_ns):
                why = " a second time: of two recordings?" if again else " inside another"
                where = f"{trace.file}: steps"
                raise InputError.one(where, "", mark.number, f"marks step {mark.number}{why}")
        return _ended_by_the_next(marks)
    if source == OPTIMIZER:
        backward = Backward(process)
        ended = [
            mark._replace(end_ns=max(mark.end_ns, (backward.running_until(mark.begin_ns) or 0) + 1))
            for mark in _rounds(process.optimizers, _work(backward, process, process.optimizers))
        ]
        begins = [window.begin_ns, *(mark.end_ns for mark in ended)]
        return [Mark(begin, mark.end_ns, source, number)
                for number, (begin, mark) in enumerate(zip(begins, ended, strict=False))]  # fmt: skip
    begun = _rounds(process.zero_grads, _work(Backward(process), process, process.zero_grads))
    nodes = sorted(process.nodes.begin_ns)
    if nodes and nodes[0] < begun[0].begin_ns and nodes[-1] < begun[-1].begin_ns:
        # gradients are cleared behind every pass, so that clearing ends an iteration
        edges = [window.begin_ns, *(mark.end_ns for mark in begun)]
    else:
        edges = [*(mark.begin_ns for mark in begun), max(window.end_ns, begun[-1].end_ns)]
    return [Mark(begin, end, source, number) for number, (begin, end) in enumerate(itertools.pairwise(edges))]


def _widest(marks: Sequence[Mark]) -> list[Mark]:
    """Return one mark for each number, since a device marks a step on every stream."""
    by_number: dict[int, Mark] = {}
    for mark in marks:
        known = by_number.get(mark.number, mark)
        by_number[mark.number] = Mark(
            min(known.begin_ns, mark.begin_ns), max(known.end_ns, mark.end_ns), mark.name, mark.number
        )
    return _ended_by_the_next(sorted(by_number.values()))


def _ended_by_the_next(ordered: list[Mark]) -> list[Mark]:
    """Return steps that end at the latest where the next one begins, since rounded or truncated times may overlap."""
    return [
        mark._replace(end_ns=min(mark.end_ns, after.begin_ns))
        for mark, after in itertools.pairwise(ordered)
    ] + ordered[-1:]


def _work(backward: Backward, process: Process, marks: Sequence[Mark]) -> list[int]:
    """Return when the work that separates two iterations begins, ns: nodes of backward, or else calls.

    If optimizers step inside of nodes (one for each parameter, as soon as its gradient is ready), the passes' first
    nodes count.
    """
    if not len(backward.begin_ns):
        return sorted(record.begin_ns for record in process.records)
    if any(backward.running_until(mark.begin_ns) is not None for mark in marks):
        return backward.roots(int(backward.begin_ns[0]), int(backward.begin_ns[-1]) + 1)
    begins: list[int] = backward.begin_ns.tolist()
    return begins


def _rounds(marks: Sequence[Mark], work: Sequence[int]) -> list[Mark]:
    """Return one mark for each iteration: the outermost of nested ones, and the last of several optimizers'.

    Two marks belong to one iteration if no ``work`` (sorted ns) begins between them; of two different optimizers the
    last one counts.
    """
    kept: list[Mark] = []
    for mark in sorted(marks, key=lambda mark: (mark.begin_ns, -mark.end_ns)):
        if kept and mark.begin_ns < kept[-1].end_ns:
            continue
        if kept and work and bisect_left(work, mark.begin_ns) == bisect_left(work, kept[-1].end_ns):
            kept.pop()
        kept.append(mark)
    name = kept[-1].name
    return [mark for mark in kept if mark.name == name]


def _steps(
    process: Process, marks: Sequence[Mark], calls: Sequence[Call], passes: Passes
) -> tuple[list[RankStep], tuple[Call, ...], list[tuple[int, int, list[Gradient]]]]:
    """Return steps, calls in none of them, and the gradients of each step with backward's length and begin."""
    begins = [mark.begin_ns for mark in marks]
    until = [
        after.begin_ns if after.number == mark.number + 1 else mark.end_ns
        for mark, after in itertools.pairwise(marks)
    ] + [mark.end_ns for mark in marks[-1:]]
    by_step: list[list[Call]] = [[] for _ in marks]
    places = {mark.number: place for place, mark in enumerate(marks)}
    outside: list[Call] = []
    for call in calls:
        place = bisect_right(begins, call.asked_ns) - 1
        if call.step_mark is not None:
            place = places.get(call.step_mark, -1)
        elif place >= 0 and not (call.asked_ns < until[place] or call.asked_ns <= marks[place].end_ns):
            place = -1
        (by_step[place] if place >= 0 else outside).append(call)
    optimizers = sorted(process.optimizers)
    loaders = sorted(process.loaders)
    steps, gradients = [], []
    for mark, end, of_step in zip(marks, until, by_step, strict=True):
        inside = passes.of(mark.begin_ns, end)
        steps.append(_step(mark, end, of_step, inside, optimizers, loaders))
        ready = passes.gradients(inside, end)
        if ready:
            begun = [one.backward.begin_ns for one in inside if one.backward]
            begin = max((at_ns for at_ns in begun if at_ns <= ready[-1].at_ns), default=ready[0].at_ns)
            gradients.append((ready[-1].at_ns - begin, begin, ready))
    return steps, tuple(outside), gradients


def _step(
    mark: Mark, until: int, calls: Sequence[Call], passes: Sequence[Pass], optimizers: Sequence[Mark],
    loaders: Sequence[Span],
) -> RankStep:  # fmt: skip
    backwards = [one.backward for one in passes if one.backward]
    over = max((span.end_ns for span in backwards), default=None)
    stepped = bisect_left(optimizers, (over if over is not None else mark.begin_ns,))
    following = optimizers[stepped].begin_ns if stepped < len(optimizers) else until
    limit = following if following < until else None
    asked = [call.asked_ns for call in calls if limit is None or call.asked_ns < limit] or [
        call.asked_ns for call in calls
    ]
    ready = max(asked, default=over if over is not None else mark.begin_ns)
    loading = [
        span.end_ns - span.begin_ns
        for span in loaders[bisect_left(loaders, (mark.begin_ns,)) : bisect_left(loaders, (until,))]
    ]
    forward, known = _forward(mark, passes, sum(loading), optimizers)
    backward = None
    if backwards:
        lengths = [span.end_ns - span.begin_ns for span in backwards[:-1]]
        backward = sum(lengths) + max(ready - backwards[-1].begin_ns, 0)
    return RankStep(
        mark.number, mark.begin_ns, mark.end_ns, tuple(calls), ready, forward, backward,
        sum(loading) if loading else None, known, len(backwards),
    )  # fmt: skip


def _forward(
    mark: Mark, passes: Sequence[Pass], loading_ns: int, optimizers: Sequence[Mark]
) -> tuple[int | None, bool]:
    """Return forward's time, and whether its begins are known.

    If they are not, it is all time before each backward pass except loading and the time before an optimizer's end.
    """
    forwards = [one.forward for one in passes if one.forward]
    if forwards:
        return sum(span.end_ns - span.begin_ns for span in forwards), True
    before, total = mark.begin_ns, 0
    for one in passes:
        if one.backward:
            stepped = bisect_left(optimizers, (one.backward.begin_ns,))
            if stepped and optimizers[stepped - 1].end_ns < one.backward.begin_ns:
                before = max(before, optimizers[stepped - 1].end_ns)
            total += max(one.backward.begin_ns - before, 0)
            before = one.backward.end_ns
    return (max(total - loading_ns, 0), False) if total or passes else (None, False)


def _chosen(steps: list[tuple[int, int, list[Gradient]]]) -> list[StepGradient]:
    """Return the gradients of the step with the median backward among those that have all parameters."""
    if not steps:
        return []
    most = max(len(ready) for _, _, ready in steps)
    whole = sorted((one for one in steps if len(one[2]) == most), key=lambda one: one[0])
    _, begin, ready = whole[(len(whole) - 1) // 2]
    return [StepGradient(max(one.at_ns - begin, 0), one.shape, one.dtype) for one in ready]
