"""What a step is: the kinds of steps of a recorded run, and the steps that took much longer than the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coordsim.record.breakdown import breakdown, step_times
from coordsim.record.findings import StepKind
from coordsim.record.ranks.merge import Merged
from coordsim.record.trace import Trace


@dataclass(frozen=True)
class Outlier:
    """A step that took much longer than the others, and the part that most of that is in."""

    step: int
    time_s: float
    part: str
    beyond_s: float
    """How much longer that part is than in the median step."""


@dataclass(frozen=True)
class Outliers:
    """The longest of them first."""

    named: tuple[Outlier, ...]
    count: int
    mean_without_s: float


SKIPPED = "skipped"
NAMED = 5
"""Outlying steps named at most."""
FAR = 10.0
"""How many times further off the median than half of all steps are an outlying step must be."""
LONGER = 0.5
"""Share of the median step by which it must be longer, too."""
FEWEST = 5
"""Steps needed before one of them can stand out."""


def step_kinds(merged: Merged) -> tuple[StepKind, ...]:
    """Each kind of step on the shown rank, the one that takes most of the time first. The cold step is not counted. One
    entry where all steps are alike."""
    cold = merged.first_step == 0 and len(merged.steps) > 1
    rows = range(1 if cold else 0, len(merged.steps))
    shown = next(
        (own for record, own in zip(merged.records, merged.own, strict=True)
         if record.rank == merged.facts.shown_rank), None,
    )  # fmt: skip
    if shown is None or not len(rows):
        return ()
    names = [_name(shown[merged.steps[row]].record.step_kind, merged.records[0].optimizers) for row in rows]
    passes = [shown[merged.steps[row]].passes for row in rows]
    times, parts = step_times(merged.trace), breakdown(merged.trace)
    found = []
    for kind in dict.fromkeys(names):
        mine = [row for row, name in zip(rows, names, strict=True) if name == kind]
        usual = Counter(count for count, name in zip(passes, names, strict=True) if name == kind).most_common(1)[0][0]
        found.append(StepKind(
            kind=kind, steps=len(mine), mean_s=float(times[mine].mean()) / 1e9, backward_passes=usual,
            breakdown_s={part: float(column[mine].mean()) / 1e9 for part, column in parts.items()},
        ))  # fmt: skip
    return tuple(sorted(found, key=lambda each: -each.mean_s * each.steps))


def _name(kind: str, optimizers: Sequence[str]) -> str:
    """Of a kind in words: optimizers by name where the record has names."""
    label, _, places = kind.partition(" ")
    numbers = places.split("+")
    if label != "optimizer" or not all(number.isdecimal() and int(number) < len(optimizers) for number in numbers):
        return kind
    chosen = [str(optimizers[int(number)])[:40] for number in numbers]
    alike = len(set(optimizers)) < len(optimizers)
    return " + ".join(f"{name} {number}" if alike else name for name, number in zip(chosen, numbers, strict=True))


def outlying(trace: Trace, first_step: int, counted: slice) -> Outliers | None:
    """Steps that took much longer than the median, the longest first; None where none did."""
    times = step_times(trace)[counted].astype(np.float64)
    if times.size < FEWEST:
        return None
    middle = float(np.median(times))
    spread = float(np.median(np.abs(times - middle)))
    far = np.flatnonzero(times > middle + max(FAR * spread, LONGER * middle))
    if not far.size or far.size > times.size // 4:
        return None
    parts = {name: column[counted].astype(np.float64) for name, column in breakdown(trace).items()}
    named = []
    for row in sorted(far.tolist(), key=lambda row: -times[row])[:NAMED]:
        beyond = {name: float(column[row] - np.median(column)) for name, column in parts.items()}
        part = max(beyond, key=beyond.__getitem__)
        number = first_step + (counted.start or 0) + row
        named.append(Outlier(number, float(times[row]) / 1e9, part, beyond[part] / 1e9))
    return Outliers(tuple(named), int(far.size), float(np.delete(times, far).mean()) / 1e9)
