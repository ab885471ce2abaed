"""Parts that events of a trace share: time, duration, process, thread; and whether there is room for one more.

``ts`` is in us since 1970, since boot, or since ``baseTimeNanoseconds``; a number or text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

from coordsim.errors import InputError
from coordsim.formats.kineto.fields import LONGEST_US, decimal_ns, whole_of
from coordsim.formats.kineto.raw import SINCE_1970_NS, Mark, Process, RawTrace, Span

MOST_KEPT = 1 << 20
"""Largest number of collectives, gradients and marks of one file, and of collectives of all files. A longer recording
has to be split."""
_MOST_PROCESSES = 1 << 12
_MOST_THREADS = 1 << 16
_MOST_NAMES = 1000


class EventParts:
    """Reads parts of events into a :class:`RawTrace`, and knows the processes seen so far."""

    def __init__(self, path: Path, room: int) -> None:
        self.trace = RawTrace(path.name)
        self.where = str(path)
        self.base_ns = 0
        """Origin of times that are not counted from 1970."""
        self.processes: dict[Any, Process] = {}
        """Processes by rank, or by pid if an event names no rank."""
        self.process: Process | None = None
        """The process of the last event."""
        self._room = room

    def owner(self, event: dict[str, Any]) -> Process:
        """Return the event's process, a new one at first sight."""
        args = event.get("args")
        rank = whole_of(args.get("rank")) if isinstance(args, dict) and "rank" in args else None
        key: Any = ("rank", rank) if rank is not None else event.get("pid")
        try:
            process = self.processes.get(key)
        except TypeError:  # a list as a pid
            key = str(key)[:40]
            process = self.processes.get(key)
        if process is None:
            if len(self.processes) >= _MOST_PROCESSES:
                self.refuse(key, f"is of one more process than {_MOST_PROCESSES:,}")
            process = self.processes[key] = Process(str(event.get("pid"))[:40], rank)
        self.process = process
        return process

    def thread(self, event: dict[str, Any]) -> int:
        """Return the number of the event's thread; -1 beyond the largest number of threads that are distinguished."""
        key = (str(event.get("pid"))[:40], str(event.get("tid"))[:40])
        threads = self.trace.threads
        if len(threads) >= _MOST_THREADS:
            return threads.get(key, -1)
        return threads.setdefault(key, len(threads))

    def mark(self, event: dict[str, Any], name: str, number: int) -> Mark:
        """Return a step, the one event without whose times nothing can be stated."""
        begin = self.ns(event.get("ts"))
        if begin is None:
            self.refuse(event.get("ts"), 'has no time as "ts"')
        length = self.length(event.get("dur"))
        if length is None:
            self.refuse(event.get("dur"), 'has no time as "dur"')
        return Mark(begin, begin + length, name, number)

    def span(self, event: dict[str, Any]) -> Span | None:
        """Return begin and end of an event; None, and counted as left out, without a time."""
        begin, length = self.ns(event.get("ts")), self.length(event.get("dur"))
        if begin is None or length is None:
            self.leave_out('events without a time as "ts" or "dur"')
            return None
        return Span(begin, begin + length)

    def ns(self, value: Any) -> int | None:
        """Return a time in us, a number or text, as ns on the file's clock."""
        kind = type(value)
        ns: int | None = None
        if (kind is float or kind is int) and -LONGEST_US < value < LONGEST_US:
            ns = round(value * 1000)
        elif kind is str and len(value) < 40:
            ns = decimal_ns(value)
        return ns if ns is None or ns >= SINCE_1970_NS else ns + self.base_ns

    def length(self, value: Any) -> int | None:
        """Return a duration in us as ns; a negative one, as old versions write, is 0."""
        kind = type(value)
        ns: int | None = None
        if (kind is float or kind is int) and -LONGEST_US < value < LONGEST_US:
            ns = round(value * 1000)
        elif kind is str and len(value) < 40:
            ns = decimal_ns(value)
        if ns is not None and ns < 0:
            self.leave_out("durations below 0, read as 0")
            return 0
        return ns

    def leave_out(self, what: str) -> None:
        """Count one more event that is not read."""
        known = self.trace.not_read
        known[what if what in known or len(known) < _MOST_NAMES else "under further names"] += 1

    def keep(self, into: list[Any], what: Any) -> None:
        """Append ``what``. Raises InputError when there is no room."""
        self.use_room()
        into.append(what)

    def use_room(self) -> None:
        """Count one more thing that is kept. Raises InputError when there is no room."""
        if not self._room:
            self.refuse("", f"is beyond {MOST_KEPT:,} collectives, gradients and marks; record fewer steps")
        self._room -= 1

    def refuse(self, value: Any, message: str) -> NoReturn:
        """Raise InputError for ``value`` in the current event."""
        place = f"traceEvents[{self.trace.events - 1}]"
        raise InputError.one(self.where, place, str(value)[:80], message)
