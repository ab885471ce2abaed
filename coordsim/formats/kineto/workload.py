"""The gradients of a profiled model, in the order in which backward makes them."""

from __future__ import annotations

import csv
import io
from bisect import bisect_left
from math import prod
from operator import attrgetter

from coordsim.formats.kineto.reader import RankTrace
from coordsim.formats.kineto.steps import steps_of

_DTYPES = ("float16", "bfloat16", "float32", "float64")


def gradients_csv(trace: RankTrace, numbers: range) -> str | None:
    """Shapes and ready times of the step with the median backward; None when no shapes were recorded.

    Profilers know no names of parameters, so a gradient is called by its place: ``gradient.0`` is the first one ready.
    """
    gradients = sorted(trace.gradients, key=attrgetter("at_ns"))
    starts = [each.at_ns for each in gradients]
    found = []
    for step in steps_of(trace, numbers):
        backward = step.backward_ns
        if backward is None:
            continue
        inside = gradients[bisect_left(starts, backward) : bisect_left(starts, step.end_ns)]
        inside = [each for each in inside if each.dtype in _DTYPES and prod(each.shape) > 0]
        if inside:
            found.append((inside[-1].at_ns - backward, backward, inside))
    if not found:
        return None
    found.sort(key=lambda each: each[0])
    _, backward, chosen = found[(len(found) - 1) // 2]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "shape", "dtype", "ready"])
    for place, each in enumerate(chosen):
        shape = "x".join(map(str, each.shape)) or "1"
        writer.writerow([f"gradient.{place}", shape, each.dtype, each.at_ns - backward])
    return text.getvalue()
