"""The data plane's one stream in closed form (docs/semantics.md 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coordsim.cost.data_plane import ResponseCost


@dataclass(frozen=True, slots=True)
class Execution:
    """One response on the stream; times in ns since the start of the run."""

    launch_ns: int
    launch_shadow_ns: int
    begin_ns: int
    end_ns: int


def execute(
    costs: Sequence[ResponseCost], leave_ns: int, leave_shadow_ns: int, stream_free_ns: int, blocking: bool
) -> list[Execution]:
    """Run a schedule's responses from the moment the exchange is over on all ranks (max T_r).

    ``stream_free_ns`` is the end of the last response before. The vector engine's closed form; the event
    engine reaches the same numbers by events.
    """
    runs = []
    clock, shadow, free = leave_ns, leave_shadow_ns, stream_free_ns
    for cost in costs:
        clock += cost.local_ns + cost.launch_ns
        begin = max(free, clock)
        free = begin + cost.stream_ns
        runs.append(Execution(clock, shadow, begin, free))
        if blocking:
            clock = shadow = free
    return runs
