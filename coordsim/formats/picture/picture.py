"""A run as tracks with slices, instants, counters and arrows on them: what trace viewers show.

Bounded: events are taken step by step until there are enough, within a step the most telling first, and what is left
out is counted by kind. Times are ns since the trace's begin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

MAX_EVENTS = 200_000
"""Events written unless another number is asked for: what a browser shows without trouble."""

Args = Mapping[str, int | float | str]


class Track(NamedTuple):
    """A row of a viewer; rows of one ``group`` stand together."""

    group: str
    name: str


class What(Enum):
    """Kinds of event."""

    SLICE = "slice"
    INSTANT = "instant"
    COUNTER = "counter"
    ARROW = "arrow"


class Event(NamedTuple):
    """One thing on a track. Slices on one track follow one another or nest, and come in order of their begin."""

    what: What
    kind: str
    """For people: what is counted when it is left out."""
    track: Track
    name: str
    begin_ns: int
    end_ns: int
    """Of a slice its end; of an arrow the time at its head; else as ``begin_ns``."""
    args: Args
    """Of a counter one value."""
    head: Track | None = None
    """Of an arrow, where it ends."""


def slice_of(kind: str, track: Track, name: str, begin_ns: int, end_ns: int, **args: int | float | str) -> Event:
    """From ``begin_ns`` to ``end_ns``."""
    return Event(What.SLICE, kind, track, name, begin_ns, max(end_ns, begin_ns), args)


def instant(kind: str, track: Track, name: str, at_ns: int, **args: int | float | str) -> Event:
    """At one moment."""
    return Event(What.INSTANT, kind, track, name, at_ns, at_ns, args)


def counter(kind: str, track: Track, name: str, at_ns: int, value: float) -> Event:
    """From ``at_ns`` on the value is this."""
    return Event(What.COUNTER, kind, track, name, at_ns, at_ns, {name: value})


def arrow(kind: str, tail: Track, tail_ns: int, head: Track, head_ns: int) -> Event:
    """From a slice that covers ``tail_ns`` to one that covers ``head_ns``."""
    return Event(What.ARROW, kind, tail, kind, tail_ns, head_ns, {}, head)


@dataclass
class Picture:
    """What is written, and what is not."""

    tracks: list[Track] = field(default_factory=list)
    """In the order in which they are shown."""
    events: list[Event] = field(default_factory=list)
    """In order of time."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Kind -> events that there was no room for."""
    notes: list[str] = field(default_factory=list)
    """What the run cannot show, in sentences."""
    facts: dict[str, Any] = field(default_factory=dict)
    """About the run: source, ranks, steps."""

    def metadata(self) -> dict[str, Any]:
        """For the file: facts, and what is not in it."""
        return {**self.facts, "left_out": dict(self.left_out), "notes": list(self.notes)}

    def told(self) -> list[str]:
        """What is not in it, in sentences."""
        missing = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.left_out.items()))
        return ([f"left out for size: {missing}"] if missing else []) + self.notes


def bounded(steps: Iterable[Sequence[Event]], limit: int) -> tuple[list[Event], dict[str, int]]:
    """As many whole steps as fit, from the first on; of the first one that does not, its first events.

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


def _order(each: Event) -> tuple[int, int]:
    return each.begin_ns, -each.end_ns


def tracks_of(events: Iterable[Event], order: Sequence[str]) -> list[Track]:
    """The tracks that events are on, by group (those in ``order`` first), else in order of first sight."""
    seen: dict[Track, int] = {}
    for each in _tracks(events):
        seen.setdefault(each, len(seen))
    groups: dict[str, int] = {name: place for place, name in enumerate(order)}
    for track in seen:
        groups.setdefault(track.group, len(groups))
    return sorted(seen, key=lambda track: (groups[track.group], seen[track]))


def _tracks(events: Iterable[Event]) -> Iterator[Track]:
    for each in events:
        yield each.track
        if each.head is not None:
            yield each.head
