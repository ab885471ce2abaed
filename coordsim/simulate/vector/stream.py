"""The data plane's one stream in closed form (docs/semantics.md 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from coordsim.cost.data_plane import ResponseCost


@dataclass(frozen=True, slots=True)
class Execution:
    """One response on the stream; times in ns since the start of the run."""

    launch_ns: int
    launch_shadow_ns: int
    begin_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class DataWait:
    """Who waits for a schedule's data, and for how long; times in ns since the start of the run."""

    who: Literal["host", "stream"]
    exist_ns: Sequence[int]
    """By response: its data exists on all ranks."""
    enter_ns: int
    """A of the cycle: the shadow of a launch that the wait has made later."""


def execute(
    costs: Sequence[ResponseCost],
    leave_ns: int,
    leave_shadow_ns: int,
    stream_free_ns: int,
    blocking: bool,
    wait: DataWait | None = None,
) -> list[Execution]:
    """Run a schedule's responses from the moment the exchange is over on all ranks (max T_r).

    ``stream_free_ns`` is the end of the last response before. The vector engine's closed form; the event
    engine reaches the same numbers by events.
    """
    runs = []
    clock, shadow, free = leave_ns, leave_shadow_ns, stream_free_ns
    for index, cost in enumerate(costs):
        clock += cost.local_ns
        begin = 0
        if wait is not None:
            exist = wait.exist_ns[index]
            if wait.who == "stream":
                begin = exist
            elif exist > clock:
                clock, shadow = exist, wait.enter_ns
        clock += cost.launch_ns
        begin = max(begin, free, clock)
        free = begin + cost.stream_ns
        runs.append(Execution(clock, shadow, begin, free))
        if blocking:
            clock = shadow = free
    return runs
