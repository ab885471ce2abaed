"""SimPy's environment in integer nanoseconds."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeAlias, cast

import simpy
from simpy.events import EventPriority

Wait: TypeAlias = Generator[simpy.Event, Any, Any]
"""A process, or a part of one."""

_LATE = cast(EventPriority, 2)
"""After everything else in its tick, so that "ready at W" counts as in (docs/semantics.md 3.2)."""


class Clock(simpy.Environment):
    """Starts at 0; every delay is an int."""

    @property
    def ns(self) -> int:
        """Now."""
        return cast(int, self.now)

    def late(self, delay_ns: int = 0) -> simpy.Event:
        """An event behind all others of its tick."""
        event = simpy.Event(self)
        event._ok, event._value = True, None
        self.schedule(event, priority=_LATE, delay=delay_ns)
        return event
