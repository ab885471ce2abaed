"""A simulation whose trace was written by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from coordsim.record.breakdown import breakdown
from coordsim.record.trace import Kind, TraceWriter
from coordsim.simulate.engine import Simulation
from tests.record.hand_made import response, row
from tests.scenarios import PLANE, scenario


def by_hand(plane: str = "cached", **changes: Any) -> Simulation:
    """A cold step of 1,000 ns, then steps of 1,000, 3,000 and 2,000 ns; 7 idle cycles in 2 rows; 4 that launch."""
    writer, end = TraceWriter(), 0
    kinds = (Kind.INVALIDATE, Kind.FAST, Kind.SLOW, Kind.INVALIDATE)
    for step, (length, idle, kind) in enumerate(zip((1000, 1000, 3000, 2000), (2, 0, 5, 0), kinds, strict=True)):
        start = end
        if idle:
            writer.cycle(row(start + 50, start, start, Kind.IDLE, step=step, request_bytes=11), idle, 100)
        last = start + length - 100
        cycle = writer.next_cycle
        finish = start + 50 + 100 * (idle - 1) + 30 if idle else start
        asked = {"requests": 10 * step, "request_bytes": 100 * step}
        writer.cycle(row(last, finish, finish, kind, step=step, responses=1, **asked))
        finished = response(writer, cycle, last + 40, last + 25, last + 40, 0, 50, 0)
        end = start + length
        writer.step(step, start, 20, 30, last - 60, 0, finished, end)
    trace = writer.finish()
    described = scenario(4, steps=3, control_plane=replace(PLANE, name=plane))
    return Simulation(replace(described, **changes), "vector", trace, 0.0, breakdown(trace))
