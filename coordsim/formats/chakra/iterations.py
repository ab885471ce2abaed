"""Iterations of an execution trace, by the marks that PyTorch leaves in it.

A trace has no times; its nodes are numbered in the order in which they began, on all threads. So an iteration is a
range of numbers: that of a ``ProfilerStep#N``, else the range between two optimizer steps, else between two
``zero_grad``.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from coordsim.formats.chakra.node import Node

_STEP = re.compile(r"ProfilerStep\s*#?\s*[0-9]{0,12}")
_OPTIMIZER = re.compile(r"Optimizer\.step#.*", re.DOTALL)
_ZERO = re.compile(r"Optimizer\.zero_grad#.*", re.DOTALL)
_END = (1 << 64) - 1


class Window(NamedTuple):
    """Nodes numbered from ``begin`` up to, but not including, ``end``."""

    begin: int
    end: int


@dataclass(frozen=True)
class Iterations:
    """The windows, and the marks that define them."""

    windows: list[Window]
    told_by: str | None
    """``ProfilerStep``, ``Optimizer.step``, ``Optimizer.zero_grad`` or ``backward passes``; None if there is no
    mark."""


@dataclass
class Marks:
    """The marks of iterations in a file, collected node by node."""

    steps: list[tuple[int, int]] = field(default_factory=list)
    """(number, thread) of each ``ProfilerStep``."""
    optimizers: list[tuple[int, str]] = field(default_factory=list)
    zeroed: list[tuple[int, str]] = field(default_factory=list)
    _numbers: array[int] = field(default_factory=lambda: array("Q"))
    _parents: array[int] = field(default_factory=lambda: array("Q"))
    _threads: array[int] = field(default_factory=lambda: array("q"))

    def add(self, node: Node) -> None:
        """Take note of a node."""
        self._numbers.append(node.number)
        self._parents.append(node.parent)
        thread = _thread(node.thread)
        self._threads.append(thread)
        name = node.name
        if name[:1] in "PO":
            if _STEP.fullmatch(name):
                self.steps.append((node.number, thread))
            elif _OPTIMIZER.fullmatch(name):
                self.optimizers.append((node.number, name[:80]))
            elif _ZERO.fullmatch(name):
                self.zeroed.append((node.number, name[:80]))

    def __len__(self) -> int:
        return len(self.steps) + len(self.optimizers) + len(self.zeroed)

    def iterations(self, gradients: Sequence[int]) -> Iterations:
        """Return the iterations with gradients in them; without gradients, all that are marked.

        ``gradients`` holds the numbers of the nodes that accumulate them, sorted.
        """
        for told_by, windows in (
            ("ProfilerStep", self._by_steps()),
            ("Optimizer.step", _after_each(self.optimizers)),
            ("Optimizer.zero_grad", _before_each(self.zeroed)),
        ):
            full = [window for window in windows if not gradients or _has(gradients, window)]
            if full:
                return Iterations(full, told_by)
        return Iterations([Window(0, _END)], None)

    def _by_steps(self) -> list[Window]:
        steps = sorted(self.steps)
        if not steps:
            return []
        ends = [number for number, _ in steps[1:]] + [self._end_of(*steps[-1])]
        return [Window(begin, end) for (begin, _), end in zip(steps, ends, strict=True)]

    def _end_of(self, number: int, thread: int) -> int:
        """Return where the last step ends: at its thread's first later node that is not within it.

        Nodes of one thread are nested, so such a node's parent began before the step. A node that is still open when
        recording stops, as a step that is not over, is not written; it appears as a parent of others.
        """
        numbers = np.frombuffer(self._numbers, dtype=np.uint64)
        parents = np.frombuffer(self._parents, dtype=np.uint64)
        if not (parents == number).any():
            return _END  # a flat trace, whose nodes do not say what they are within
        later = (numbers > number) & (np.frombuffer(self._threads, dtype=np.int64) == thread)
        behind = numbers[later & (parents < number) & (parents > 0)]
        still_open = np.setdiff1d(parents[later & (parents > number)], numbers)
        return min((int(each.min()) for each in (behind, still_open) if each.size), default=_END)

    @cached_property
    def _cuts(self) -> list[int]:
        return sorted(number for number, _ in (*self.optimizers, *self.zeroed))

    def sections(self, window: Window) -> list[Window]:
        """Divide ``window`` at each optimizer step and ``zero_grad`` in it, between which gradients are kept.

        Call it when everything has been added.
        """
        cuts = self._cuts[bisect_left(self._cuts, window.begin + 1) : bisect_left(self._cuts, window.end)]
        return [Window(begin, end) for begin, end in pairwise([window.begin, *cuts, window.end])]


def _thread(value: Any) -> int:
    return value if type(value) is int and 0 <= value < 1 << 62 else -1


def _has(numbers: Sequence[int], window: Window) -> bool:
    place = bisect_left(numbers, window.begin)
    return place < len(numbers) and numbers[place] < window.end


def _after_each(marks: Sequence[tuple[int, str]]) -> list[Window]:
    """Return windows that end with a mark; with several optimizers, when the first one seen has come again."""
    ends = _first_of_each_round(marks, last=True)
    return [Window(begin, end) for begin, end in zip([0, *ends], ends, strict=False)]


def _before_each(marks: Sequence[tuple[int, str]]) -> list[Window]:
    """Return windows that begin with a mark."""
    begins = _first_of_each_round(marks, last=False)
    return [Window(begin, end) for begin, end in zip(begins, [*begins[1:], _END], strict=False)]


def _first_of_each_round(marks: Sequence[tuple[int, str]], *, last: bool) -> list[int]:
    """Return the number of the first (or the last) mark of each round; a round is over when a name comes again."""
    rounds: list[list[int]] = []
    seen: set[str] = set()
    for number, name in sorted(marks):
        if name in seen or not rounds:
            rounds.append([])
            seen = set()
        seen.add(name)
        rounds[-1].append(number)
    return [numbers[-1 if last else 0] for numbers in rounds]
