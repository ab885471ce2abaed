"""Timings that need no other rank: a fixed computation that is repeated, sleeps, and copies in memory."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

import numpy as np

from real_backend.measure.control import Stamped, timed
from real_backend.measure.plan import COMPUTE_NS, SLEEP_NS, Plan

_VALUES = 1 << 14
"""128 KiB of float64, which stay in a core's own cache, so that the core is what is timed."""


class Computation:
    """About :data:`COMPUTE_NS` of arithmetic; the same for all ranks that use the same ``passes``."""

    def __init__(self, passes: int) -> None:
        self.passes = passes
        self._values = np.linspace(0.5, 1.5, _VALUES)

    def __call__(self) -> None:
        values = self._values
        for _ in range(self.passes):
            np.multiply(values, 1.0000001, out=values)
            np.subtract(values, 1e-7, out=values)


def passes_here() -> int:
    """Return how many passes take :data:`COMPUTE_NS` on this rank's core now (the smallest of a few tries)."""
    probe = Computation(200)
    took = []
    for _ in range(7):
        began = time.perf_counter_ns()
        probe()
        took.append(time.perf_counter_ns() - began)
    return max(1, round(200 * COMPUTE_NS / min(took)))


def computations(passes: int, plan: Plan) -> Stamped:
    """Time one rank's computations; all ranks call this at the same time."""
    return timed("compute", plan.computations, Computation(passes), count=passes)


def sleeps(plan: Plan) -> Stamped:
    """Time by how much a sleep exceeds the requested time."""
    stamped = timed("sleep", plan.sleeps, lambda: time.sleep(SLEEP_NS / 1e9))
    overslept = [max(left - SLEEP_NS, at) for at, left in zip(stamped.entered_ns, stamped.left_ns, strict=True)]
    return replace(stamped, left_ns=overslept)


def copies(plan: Plan) -> list[Stamped]:
    """Time copies from memory that is not in use to memory that has been touched before."""
    stamped = []
    for nbytes in plan.copies:
        source, target = np.ones(nbytes, np.uint8), np.zeros(nbytes, np.uint8)
        stamped.append(timed("copy", 20, partial(np.copyto, target, source), nbytes))
    return stamped
