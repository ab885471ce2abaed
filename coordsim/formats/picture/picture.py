"""A run as tracks with slices, instants, counters and arrows on them, as trace viewers show it.

The number of events is bounded: they are taken step by step until there are enough, within a step the most informative
first. Events that are left out are counted by kind. Times are ns since the trace's begin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

MAX_EVENTS = 200_000
"""Default number of events written, which a browser shows without trouble."""

Args = Mapping[str, int | float | str]


class Track(NamedTuple):
    """A row of a viewer; rows of one ``group`` stand together."""

    group: str
    name: str


class What(Enum):
    """Kinds of events."""

    SLICE = "slice"
    INSTANT = "instant"
    COUNTER = "counter"
    ARROW = "arrow"


class Event(NamedTuple):
    """One event on a track. Slices on one track follow one another or nest, and come in order of their begin."""

    what: What
    kind: str
    """Kind for people, by which events that are left out are counted."""
    track: Track
    name: str
    begin_ns: int
    end_ns: int
    """End of a slice; time at the head of an arrow; else equal to ``begin_ns``."""
    args: Args
    """Arguments; one value for a counter."""
    head: Track | None = None
    """Track on which an arrow ends."""


def slice_of(kind: str, track: Track, name: str, begin_ns: int, end_ns: int, **args: int | float | str) -> Event:
    """Return a slice from ``begin_ns`` to ``end_ns``."""
    return Event(What.SLICE, kind, track, name, begin_ns, max(end_ns, begin_ns), args)


def instant(kind: str, track: Track, name: str, at_ns: int, **args: int | float | str) -> Event:
    """Return an event at one time."""
    return Event(What.INSTANT, kind, track, name, at_ns, at_ns, args)


def counter(kind: str, track: Track, name: str, at_ns: int, value: float) -> Event:
    """Return an event from which on a counter has this value."""
    return Event(What.COUNTER, kind, track, name, at_ns, at_ns, {name: value})


def arrow(kind: str, tail: Track, tail_ns: int, head: Track, head_ns: int) -> Event:
    """Return an arrow from a slice that covers ``tail_ns`` to one that covers ``head_ns``."""
    return Event(What.ARROW, kind, tail, kind, tail_ns, head_ns, {}, head)


@dataclass
class Picture:
    """What is written, and what is not."""

    tracks: list[Track] = field(default_factory=list)
    """Tracks in the order in which they are shown."""
    events: list[Event] = field(default_factory=list)
    """Events in order of time."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Kind -> number of events for which there was no room."""
    notes: list[str] = field(default_factory=list)
    """What the run cannot show, in sentences."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Facts of the run: source, ranks, steps."""

    def metadata(self) -> dict[str, Any]:
        """Return facts for the file, and what is not in it."""
        return {**self.facts, "left_out": dict(self.left_out), "notes": list(self.notes)}

    def told(self) -> list[str]:
        """Return what is not in the picture, in sentences."""
        missing = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.left_out.items()))
        return ([f"left out for size: {missing}"] if missing else []) + self.notes


def bounded(steps: Iterable[Sequence[Event]], limit: int) -> tuple[list[Event], dict[str, int]]:
    """Return as many whole steps as fit, from the first on; of the first one that does not fit, its first events.

    Returns events in order of time (enclosing slices first) and a count by kind of the others.
    """
    kept: list[Event] = []
    left_out: Counter[str] = Counter()
    full = False
    for events in steps:
        room = 0 if full else limit - len(kept)
        full = full or len(events) > room
        kept += events[:room]
        left_out.update(each.kind for each in events[room:])
    return sorted(kept, key=_order), dict(left_out)


def _order(event: Event) -> tuple[int, int]:
    return event.begin_ns, -event.end_ns


def tracks_of(events: Iterable[Event], order: Sequence[str]) -> list[Track]:
    """Return the tracks that events are on, by group (those in ``order`` first), else in order of first sight."""
    seen: dict[Track, int] = {}
    for event in _tracks(events):
        seen.setdefault(event, len(seen))
    groups: dict[str, int] = {name: place for place, name in enumerate(order)}
    for track in seen:
        groups.setdefault(track.group, len(groups))
    return sorted(seen, key=lambda track: (groups[track.group], seen[track]))


def _tracks(events: Iterable[Event]) -> Iterator[Track]:
    for event in events:
        yield event.track
        if event.head is not None:
            yield event.head
