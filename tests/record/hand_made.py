"""Traces written by hand, a row at a time."""

from __future__ import annotations

from coordsim.record.trace import CycleRow, Kind, Trace, TraceWriter


def row(
    enter_ns: int, finish_ns: int = 0, finish_shadow_ns: int = 0, kind: int = Kind.SLOW, **changes: int
) -> CycleRow:
    """A cycle that all ranks enter at ``enter_ns``, having finished the one before at ``finish_ns``."""
    values = {
        "step": 0, "kind": kind, "enter_first_ns": enter_ns, "enter_last_ns": enter_ns, "enter_last_rank": 0,
        "leave_last_ns": enter_ns + 20, "leave_last_shadow_ns": enter_ns + 10, "finish_enter_last_ns": finish_ns,
        "finish_enter_last_shadow_ns": finish_shadow_ns, "wake_hash": 0,
    }  # fmt: skip
    return CycleRow(**{**values, **changes})


def response(writer: TraceWriter, cycle: int, launch: int, shadow: int, begin: int, copy_in: int, collective: int,
             copy_out: int, index: int = 0) -> int:  # fmt: skip
    """Write one response of 2 units and 64 bytes; returns its end."""
    end = begin + copy_in + collective + copy_out
    writer.response(cycle, index, 2, 64, launch, shadow, begin, copy_in, collective, copy_out, end)
    return end


def two_cycles() -> Trace:
    """At least two rows in each table, all cells different enough to be told apart."""
    writer = TraceWriter()
    writer.cycle(row(0, requests=4, responses=1, schedule_hash=7))
    writer.cycle(row(1000, 90, 80, Kind.IDLE), 5, 100)
    writer.cycle(row(1500, 1430, 1420, Kind.FAST, step=1, responses=1))
    first = response(writer, 0, 50, 40, 50, 3, 30, 4)
    second = response(writer, 6, 1550, 1540, 1550, 3, 30, 4)
    writer.step(0, 0, 10, 20, 25, 1, first, first + 9)
    writer.step(1, first + 9, 10, 20, 1510, 0, second, second + 9)
    return writer.finish()
