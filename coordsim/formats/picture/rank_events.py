"""Events from ranks' own records: each rank's work and waits, passes, collectives, submissions, and tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from coordsim.formats.picture.picture import Event, Track, instant, slice_of
from coordsim.record.ranks import RankRecord
from coordsim.record.ranks.format import NULL
from coordsim.record.ranks.own import own_steps, shown_pieces
from coordsim.record.ranks.reader import CycleRecord, ResponseRecord, SpanKind

TENSORS = "tensors"
_NAMED = frozenset(int(kind) for kind in SpanKind)
_GATHER = 1
"""The gather of :class:`coordsim.protocol.messages.Op`."""
_Row = TypeVar("_Row", CycleRecord, ResponseRecord)


class RankEvents:
    """Events of one step; none where there are no records."""

    def __init__(self, records: Sequence[RankRecord], base_ns: int) -> None:
        self._records = {record.rank: record for record in records}
        self._moved = {
            record.rank: (0 if record.clock is None else record.clock.offset_ns) - base_ns for record in records
        }
        self._steps = {record.rank: {step.step: step for step in record.steps} for record in records}
        self._own = {record.rank: own_steps(record) for record in records}
        self._cycles = {record.rank: _by_step(record.cycles) for record in records}
        self._until: dict[Track, int] = {}
        self._responses = {record.rank: _by_step(record.responses) for record in records}

    def has(self, rank: int) -> bool:
        """Return whether ``rank`` has a record."""
        return rank in self._records

    def track(self, rank: int) -> Track:
        """Return the track of a rank's own work and its waits."""
        return Track(f"rank {rank}", "work and wait")

    def ready_ns(self, rank: int, step: int) -> int:
        """Return when a rank submitted its last tensor of a step, since the trace's begin."""
        return self._steps[rank][step].last_submit_ns + self._moved[rank]

    def step(self, number: int) -> list[Event]:
        """Return all ranks' and tensors' events of a step."""
        events: list[Event] = []
        for rank in self._records:
            events += self._work(rank, number)
            events += self._passes(rank, number)
            events += self._collectives(rank, number)
        for rank in self._records:
            events += self._submissions(rank, number)
        return events + self._tensors(number)

    def _work(self, rank: int, number: int) -> list[Event]:
        """Return the rank's own work by part, and its waits: a row without a gap."""
        own = self._own[rank].get(number)
        if own is None:
            return []
        moved, track = self._moved[rank], self.track(rank)
        return [
            self._behind("ranks' work and waits", track, name, begin + moved, end + moved, number)
            for name, begin, end in shown_pieces(own) if end > begin
        ]  # fmt: skip

    def _passes(self, rank: int, number: int) -> list[Event]:
        """Return the spans of the main thread as recorded: one slice a span, with its pass."""
        own = self._own[rank].get(number)
        moved, track = self._moved[rank], Track(f"rank {rank}", "passes")
        return [
            self._behind("passes", track, f"{SpanKind(span.kind).name.lower().replace('_', ' ')} {span.place}",
                         span.begin_ns + moved, span.end_ns + moved, number)
            for span in (own.record.spans if own is not None else ())
            if span.kind in _NAMED and span.kind != SpanKind.CLOSURE
        ]  # fmt: skip

    def _collectives(self, rank: int, number: int) -> list[Event]:
        """Return each collective from its call to its end, where there is no negotiation: buckets, gathers."""
        record, moved = self._records[rank], self._moved[rank]
        if record.cycles:
            return []
        track = Track(f"rank {rank}", "collectives")
        calls = sorted(
            (each.copied_in_ns, each.end_ns, each) for each in self._responses[rank].get(number, ())
            if NULL not in (each.copied_in_ns, each.end_ns)
        )  # fmt: skip
        return [
            self._behind("collectives", track, _collective(record, each), called + moved, end + moved, number)
            for called, end, each in calls
        ]

    def _submissions(self, rank: int, number: int) -> list[Event]:
        record, moved = self._records[rank], self._moved[rank]
        track = Track(f"rank {rank}", "submissions")
        return [
            instant("submissions", track, record.name(tensor), stamp + moved, cycle=cycle.cycle)
            for cycle in self._cycles[rank].get(number, ())
            for tensor, stamp in zip(cycle.popped, cycle.stamps_ns, strict=True)
        ]

    def _tensors(self, number: int) -> list[Event]:
        """Return slices from a tensor's first submission on any rank to the end of its reduction on all."""
        begun: dict[str, int] = {}
        ended: dict[str, int] = {}
        for rank, record in self._records.items():
            moved = self._moved[rank]
            for cycle in self._cycles[rank].get(number, ()):
                for tensor, stamp in zip(cycle.popped, cycle.stamps_ns, strict=True):
                    name = record.name(tensor)
                    begun[name] = min(begun.get(name, stamp + moved), stamp + moved)
            for response in self._responses[rank].get(number, ()):
                if response.end_ns != NULL:
                    for tensor in response.tensors:
                        name = record.name(tensor)
                        ended[name] = max(ended.get(name, 0), response.end_ns + moved)
        return [
            self._behind("tensors", Track(TENSORS, name), f"step {number}", at, ended[name], number)
            for name, at in sorted(begun.items(), key=lambda one: one[1])
            if name in ended
        ]

    def _behind(self, kind: str, track: Track, name: str, begin_ns: int, end_ns: int, step: int) -> Event:
        """Return a slice that begins no earlier than the end of the last one on its track, nor than the trace.

        This is needed because a fast rank may be a step ahead.
        """
        begin = max(begin_ns, self._until.get(track, 0))
        self._until[track] = max(begin, end_ns)
        return slice_of(kind, track, name, begin, end_ns, step=step)


def _by_step(rows: Sequence[_Row]) -> dict[int, list[_Row]]:
    by_step: dict[int, list[_Row]] = {}
    for entry in rows:
        by_step.setdefault(entry.step, []).append(entry)
    return by_step


def _collective(record: RankRecord, response: ResponseRecord) -> str:
    """Return ``bucket 2`` or ``gather layers.0``: what a collective is, and of what."""
    if response.op == _GATHER:
        return f"gather {record.name(response.tensors[0])}" if response.tensors else "gather"
    return f"bucket {response.place}"
