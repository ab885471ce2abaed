"""Forward and backward passes of a step, and their gradients.

A pass begins with ``DistributedDataParallel.forward`` or FSDP's root if those are recorded. Otherwise a pass begins
each time the first node of backward, which is the loss's, begins again, and after an optimizer's step. A gradient is
one parameter however often it is accumulated: the gradients of a step are those of its last pass, and those of earlier
passes that this one does not have.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from coordsim.formats.kineto.raw import Gradient, Process, Span


class Pass(NamedTuple):
    """One forward pass and its backward pass; None where not recorded."""

    forward: Span | None
    backward: Span | None


class Backward:
    """A process's nodes of backward in order of time."""

    def __init__(self, process: Process) -> None:
        nodes = process.nodes
        begins = np.frombuffer(nodes.begin_ns, np.int64) if nodes.begin_ns else np.zeros(0, np.int64)
        order = np.argsort(begins, kind="stable")
        self.begin_ns = begins[order]
        ends = np.frombuffer(nodes.end_ns, np.int64) if nodes.end_ns else np.zeros(0, np.int64)
        self.end_ns = ends[order]
        names = np.frombuffer(nodes.name, np.int32) if nodes.name else np.zeros(0, np.int32)
        self._name = names[order]
        self._latest_ns: npt.NDArray[np.int64] | None = None

    def between(self, begin_ns: int, until_ns: int) -> Span | None:
        """Return the span from the first node that begins in an interval to the end of the last."""
        first, last = np.searchsorted(self.begin_ns, (begin_ns, until_ns)).tolist()
        return Span(int(self.begin_ns[first]), int(self.end_ns[first:last].max())) if last > first else None

    def running_until(self, at_ns: int) -> int | None:
        """Return when the nodes that are running at a time have all ended; None if none is running."""
        if self._latest_ns is None:
            self._latest_ns = np.maximum.accumulate(self.end_ns)
        before = int(np.searchsorted(self.begin_ns, at_ns))
        latest = int(self._latest_ns[before - 1]) if before else at_ns
        return latest if latest > at_ns else None

    def roots(self, begin_ns: int, until_ns: int) -> list[int]:
        """Return when the node that comes first in an interval begins, each time that nothing else is running."""
        first, last = np.searchsorted(self.begin_ns, (begin_ns, until_ns)).tolist()
        if last == first:
            return []
        name, ended, begins = self._name[first], 0, []
        for place in range(first, last):
            if self._name[place] == name and self.begin_ns[place] >= ended:
                begins.append(int(self.begin_ns[place]))
            ended = max(ended, int(self.end_ns[place]))
        return begins


def outermost(spans: Sequence[Span]) -> list[Span]:
    """Return spans that lie in no other, in order."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.begin_ns, -span.end_ns)):
        if not kept or span.begin_ns >= kept[-1].end_ns:
            kept.append(span)
    return kept


def _apart(begins: Sequence[int], until_ns: int) -> list[tuple[int, int]]:
    """Yield (begin, end) of intervals that follow each other."""
    return list(zip(begins, [*begins[1:], until_ns], strict=False))


class Passes:
    """A process's passes by step."""

    def __init__(self, process: Process) -> None:
        self._backward = Backward(process)
        self._forwards = outermost(process.forwards)
        self._roots = sorted(process.roots)
        marks = (*process.optimizers, *process.zero_grads)
        self._cuts = sorted(mark.begin_ns for mark in marks if self._backward.running_until(mark.begin_ns) is None)
        """When optimizers step or clear gradients between nodes of backward; a pass does not continue behind that."""
        self._gradients = sorted(process.gradients, key=attrgetter("at_ns"))
        self._at_ns = [gradient.at_ns for gradient in self._gradients]

    def of(self, begin_ns: int, until_ns: int) -> list[Pass]:
        """Return the passes that begin in a step."""
        first = bisect_left(self._forwards, (begin_ns,))
        forwards = self._forwards[first : bisect_left(self._forwards, (until_ns,))]
        if forwards:
            ends = [span.begin_ns for span in forwards[1:]] + [until_ns]
            passes = [
                Pass(span, self._backward.between(span.begin_ns, end)) for span, end in zip(forwards, ends, strict=True)
            ]
            before = self._backward.between(begin_ns, forwards[0].begin_ns)
            return [Pass(None, before), *passes] if before else passes
        roots = self._roots[bisect_left(self._roots, begin_ns) : bisect_left(self._roots, until_ns)]
        if roots:
            backwards = [(begin, self._backward.between(begin, end)) for begin, end in _apart(roots, until_ns)]
            return [Pass(Span(begin, span.begin_ns) if span else None, span) for begin, span in backwards]
        first = bisect_left(self._cuts, begin_ns)
        cuts = [begin_ns, *self._cuts[first : bisect_left(self._cuts, until_ns)]]
        return [one for begin, end in _apart(cuts, until_ns) for one in self._unmarked(begin, end)]

    def _unmarked(self, begin_ns: int, until_ns: int) -> list[Pass]:
        """Return passes of an interval in which neither forward is marked nor an optimizer steps."""
        begins = self._backward.roots(begin_ns, until_ns)
        if len(begins) > 1 and not self._repeats(begins, until_ns):
            begins = begins[:1]
        return [Pass(None, self._backward.between(begin, end)) for begin, end in _apart(begins, until_ns)]

    def _repeats(self, begins: Sequence[int], until_ns: int) -> bool:
        """Return whether after every further begin of the first node gradients follow that were there before."""
        gradients = [Counter(gradient[1:] for gradient in self.within(begin, end))
                for begin, end in _apart(begins, until_ns)]  # fmt: skip
        return all(gradients) and all(one == gradients[0] for one in gradients)

    def within(self, begin_ns: int, until_ns: int) -> list[Gradient]:
        """Return gradients that are ready in an interval."""
        return self._gradients[bisect_left(self._at_ns, begin_ns) : bisect_left(self._at_ns, until_ns)]

    def gradients(self, passes: Sequence[Pass], until_ns: int) -> list[Gradient]:
        """Return a step's gradients, each once: those of its last pass, and those that only earlier passes have."""
        ends = [one.backward.begin_ns for one in passes[1:] if one.backward] + [until_ns]
        begins = [one.backward.begin_ns for one in passes if one.backward]
        chosen: list[Gradient] = []
        have: Counter[tuple[tuple[int, ...], str]] = Counter()
        for begin, end in zip(begins[::-1], ends[::-1], strict=False):
            here: Counter[tuple[tuple[int, ...], str]] = Counter()
            for gradient in self.within(begin, end):
                kind = (gradient.shape, gradient.dtype)
                here[kind] += 1
                if here[kind] > have[kind]:
                    chosen.append(gradient)
            have |= here
        return sorted(chosen, key=attrgetter("at_ns"))
