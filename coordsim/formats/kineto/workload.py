"""The gradients of a profiled model as a workload, in the order in which backward makes them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from math import prod

from coordsim.formats.kineto.sizes import bytes_of_type
from coordsim.formats.kineto.steps import StepGradient

_DTYPES = ("float16", "bfloat16", "float32", "float64")


def gradients_csv(gradients: Sequence[StepGradient]) -> str | None:
    """Return shapes and ready times as a workload; None if no shapes were recorded.

    Profilers do not know the names of parameters, so a gradient is called by its place: ``gradient.0`` is ready first.
    """
    chosen = [one for one in gradients if one.dtype in _DTYPES and prod(one.shape) > 0]
    if not chosen:
        return None
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "shape", "dtype", "ready"])
    for place, one in enumerate(chosen):
        writer.writerow([f"gradient.{place}", "x".join(map(str, one.shape)) or "1", one.dtype, one.ready_ns])
    return text.getvalue()


def gradient_bytes(gradients: Sequence[StepGradient]) -> int | None:
    """Return the bytes of all gradients; None without shapes."""
    sizes = [prod(one.shape) * (bytes_of_type(one.dtype) or 0) for one in gradients]
    return sum(sizes) if sizes else None
