"""One rank's steps: which of its events lie in which."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter

from coordsim.formats.kineto.reader import RankTrace, Span, Transfer


@dataclass(frozen=True)
class RankStep:
    """Times in ns on the rank's clock; None: not recorded."""

    begin_ns: int
    end_ns: int
    loaded_ns: int | None
    """The batch is there."""
    forward_ns: int | None
    """Forward has ended."""
    backward_ns: int | None
    """Backward has begun."""
    asked_ns: list[int]
    """When each collective was asked for, in order."""
    transfers: list[Transfer]
    """In order of their beginning."""

    def asked_of(self, place: int) -> int:
        """When the collective at ``place`` was asked for; its beginning where that was not recorded."""
        begin = self.transfers[place].begin_ns
        return min(self.asked_ns[place], begin) if place < len(self.asked_ns) else begin


def steps_of(trace: RankTrace, numbers: range) -> list[RankStep]:
    """The steps ``numbers`` of one rank. What begins after the last of them is left out."""
    return list(_steps_of(_Key(trace), numbers))


class _Key:
    """A trace by identity, so that its steps are worked out once."""

    def __init__(self, trace: RankTrace) -> None:
        self.trace = trace

    def __hash__(self) -> int:
        return id(self.trace)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and other.trace is self.trace


@lru_cache(maxsize=4096)
def _steps_of(key: _Key, numbers: range) -> tuple[RankStep, ...]:
    trace = key.trace
    transfers = sorted(trace.transfers, key=attrgetter("begin_ns"))
    starts = [each.begin_ns for each in transfers]
    asked, backwards = sorted(trace.submissions), sorted(trace.backwards)
    forwards, loaders = sorted(trace.forwards), sorted(trace.loaders)
    found = []
    for number in numbers:
        begin, end = trace.steps[number]
        following = trace.steps.get(number + 1)
        until = following.begin_ns if following else end
        first = bisect_left(backwards, begin)
        backward = backwards[first] if first < len(backwards) and backwards[first] < until else None
        forward = _last_end(forwards, begin, until)
        found.append(RankStep(
            begin, end, _last_end(loaders, begin, backward or until), forward if forward is not None else backward,
            backward, asked[bisect_left(asked, begin) : bisect_left(asked, until)],
            _inside(transfers[bisect_left(starts, begin) : bisect_left(starts, until)], end, bool(trace.on_gpu)),
        ))  # fmt: skip
    return tuple(found)


def _inside(transfers: Sequence[Transfer], end: int, on_gpu: bool) -> list[Transfer]:
    """On a CPU a step ends after its collectives; a thread that notes the end of one late is not the collective."""
    if on_gpu:
        return list(transfers)
    return [each._replace(end_ns=min(each.end_ns, max(end, each.begin_ns))) for each in transfers]


def _last_end(spans: Sequence[Span], begin: int, until: int) -> int | None:
    inside = spans[bisect_left(spans, (begin,)) : bisect_left(spans, (until,))]
    return inside[-1].end_ns if inside else None
