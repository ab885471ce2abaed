"""What one change would have saved in a recorded run: its own steps again, with one cause taken out.

Every rank is played from what it recorded. From its end of a step on it does its own work until each gradient is there;
a reduction begins when its last gradient is there on the last rank and the one before has ended, and takes what it
took, negotiation included; with the last reduction each rank is released, and does the rest of its step (the optimizer)
by itself. So work that a late rank does *after* the reductions of one step delays those of the next, and can be taken
out like any other. Without a change every step ends when it ended; a saving is the difference of two replays, never a
part of the breakdown.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import numpy.typing as npt

from coordsim.protocol.messages import Op
from coordsim.record.ranks.facts import clock_offset, negotiated, submissions
from coordsim.record.ranks.format import NULL
from coordsim.record.ranks.merge import Merged
from coordsim.record.ranks.own import OwnStep, Work
from coordsim.record.ranks.reader import RankRecord, ResponseRecord

Float = npt.NDArray[np.float64]
_REDUCE = (Op.ALLREDUCE, Op.REDUCESCATTER)
BEFORE_BACKWARD = ("between_steps", "input_stall", "forward")
"""Parts that delay all gradients of a step alike."""


@dataclass(frozen=True)
class Turn:
    """One step of one rank, ns of its own work."""

    before: Work
    """Until its last reduction was over, by part."""
    ready: tuple[int, ...]
    """From its end of the step before to when the last gradient of each reduction was there, by reduction."""
    lag_ns: int
    """From the end of the last reduction to its release: when the rank had the results."""
    after: Work
    """From its release to its end of the step, by part."""
    rest_ns: int
    """The same time in all: its waits are in it, too."""

    @property
    def head_ns(self) -> int:
        """What comes before any gradient."""
        return sum(getattr(self.before, part) for part in BEFORE_BACKWARD)


@dataclass(frozen=True)
class Step:
    """One step of the replay."""

    ranks: tuple[Turn, ...]
    waits_ns: tuple[int, ...]
    """By reduction: from when it could have begun to its begin: negotiation."""
    takes_ns: tuple[int, ...]
    """By reduction: from its begin to its end."""


@dataclass(frozen=True)
class Replay:
    """Consecutive steps of a run."""

    released_ns: tuple[int, ...]
    """By rank: its release in the step before the first."""
    lead: Step
    """That step, without reductions: what ranks did after their release delays the first one."""
    steps: tuple[Step, ...]
    shown: int
    """Place of the rank whose steps are timed."""
    ranks: tuple[int, ...]
    """Numbers of the ranks, by place."""


Change = Callable[[Step], Step]


def played(replay: Replay, change: Change | None = None) -> Float:
    """How long each step takes on the shown rank, ns, shape [step]."""
    changed = change if change is not None else _unchanged
    lead = changed(replay.lead)
    ends = [at + turn.rest_ns for at, turn in zip(replay.released_ns, lead.ranks, strict=True)]
    took = []
    for step in map(changed, replay.steps):
        at = min(ends)
        for number, (waits, takes) in enumerate(zip(step.waits_ns, step.takes_ns, strict=True)):
            at = max(at, *(end + turn.ready[number] for end, turn in zip(ends, step.ranks, strict=True)))
            at += waits + takes
        before = ends[replay.shown]
        ends = [at + turn.lag_ns + turn.rest_ns for turn in step.ranks]
        took.append(ends[replay.shown] - before)
    return np.array(took, dtype=np.float64)


def _unchanged(step: Step) -> Step:
    return step


def without(part: str) -> Change:
    """Nobody spends time in ``part``, one of those before backward."""

    def changed(step: Step) -> Step:
        return replace(step, ranks=tuple(_earlier(turn, getattr(turn.before, part)) for turn in step.ranks))

    return changed


def without_control(step: Step) -> Step:
    """Nobody waits for an agreement."""
    return replace(step, waits_ns=(0,) * len(step.waits_ns))


def like_the_others(place: int, parts: Collection[str], late: Collection[int] = ()) -> Change:
    """The rank at ``place`` takes as long for each of ``parts`` as the median of the others, step by step; those that
    are ``late`` themselves (places) are no measure."""

    def changed(step: Step) -> Step:
        others = [turn for number, turn in enumerate(step.ranks) if number != place and number not in late]
        mine = step.ranks[place]
        if "backward" in parts:
            gained = [
                mine.ready[number] - mine.head_ns - round(median(turn.ready[number] - turn.head_ns for turn in others))
                for number in range(len(mine.ready))
            ]
            mine = replace(mine, ready=tuple(at - each for at, each in zip(mine.ready, gained, strict=True)))
        head = sum(_excess(mine.before, [turn.before for turn in others], part)
                   for part in BEFORE_BACKWARD if part in parts)  # fmt: skip
        rest = sum(_excess(mine.after, [turn.after for turn in others], part) for part in mine.after._fields
                   if part in parts)  # fmt: skip
        mine = replace(_earlier(mine, head), rest_ns=max(mine.rest_ns - rest, 0))
        return replace(step, ranks=(*step.ranks[:place], mine, *step.ranks[place + 1 :]))

    return changed


def together(changes: Sequence[Change]) -> Change:
    """All of ``changes``, one after the other."""

    def changed(step: Step) -> Step:
        for change in changes:
            step = change(step)
        return step

    return changed


def _earlier(turn: Turn, by_ns: int) -> Turn:
    return replace(turn, ready=tuple(max(at - by_ns, 0) for at in turn.ready))


def _excess(mine: Work, others: Sequence[Work], part: str) -> int:
    usual: float = median(getattr(each, part) for each in others)
    return int(getattr(mine, part)) - round(usual)


def replay_of(merged: Merged) -> Replay | None:
    """The steps of a merged run but the first, of ranks with details.

    None where the record cannot carry a replay: ends of reductions are not known, or who was ready when.
    """
    ranks = [
        _Rank(record, own) for record, own in zip(merged.records, merged.own, strict=True)
        if record.detailed
    ]  # fmt: skip
    numbers = merged.steps[1:]
    if not ranks or not numbers:
        return None
    steps = [_step(ranks, number) for number in numbers]
    known = tuple(step for step in steps if step is not None)
    if len(known) < len(steps):
        return None
    places = [rank.number for rank in ranks]
    shown = merged.facts.shown_rank
    released, turns = [], []
    for rank in ranks:
        step = rank.own[merged.steps.start]
        end = step.end_ns + rank.offset_ns
        released.append(_released(step, rank, end - step.after.total))
        turns.append(Turn(step.before, (), 0, step.after, end - released[-1]))
    lead = Step(tuple(turns), (), ())
    return Replay(tuple(released), lead, known, places.index(shown) if shown in places else 0, tuple(places))


class _Rank:
    """One rank's record by step, on rank 0's clock."""

    def __init__(self, record: RankRecord, own: Mapping[int, OwnStep]) -> None:
        self.number, self.own = record.rank, own
        self.offset_ns = clock_offset(record)
        self.reductions: dict[int, dict[tuple[int, int], ResponseRecord]] = {}
        for each in record.responses:
            if each.op in _REDUCE:
                self.reductions.setdefault(each.step, {})[each.cycle, each.place] = each
        self._record = record
        self._stamps = submissions(record)
        self._negotiated = negotiated(record)

    def ready(self, number: int, response: ResponseRecord) -> int | None:
        """When the last gradient of ``response`` was there."""
        if not self._negotiated:
            return response.launch_ns + self.offset_ns
        stamps = self._stamps.get(number, {})
        known = [stamps[name] for name in map(self._record.name, response.tensors) if name in stamps]
        return max(known) + self.offset_ns if known and len(known) == len(response.tensors) else None


def _step(ranks: Sequence[_Rank], number: int) -> Step | None:
    own = [rank.own.get(number) for rank in ranks]
    keys = sorted(ranks[0].reductions.get(number, {}))
    known = [step for step in own if step is not None]
    if len(known) < len(ranks) or (not keys and len(ranks) > 1):
        return None
    begins = [step.begin_ns + rank.offset_ns for rank, step in zip(ranks, known, strict=True)]
    ends = [step.end_ns + rank.offset_ns for rank, step in zip(ranks, known, strict=True)]
    by_reduction: list[list[int]] = []
    waits, takes, over = [], [], None
    for key in keys:
        responses = [rank.reductions.get(number, {}).get(key) for rank in ranks]
        seen = [(rank, one) for rank, one in zip(ranks, responses, strict=True) if one is not None]
        if len(seen) < len(ranks) or any(one.end_ns == NULL for _, one in seen):
            return None
        times = [rank.ready(number, one) for rank, one in seen]
        ready = [at for at in times if at is not None]
        if len(ready) < len(ranks):
            return None
        can_begin = max(ready) if over is None else max(*ready, over)
        negotiated = max(one.begin_ns + rank.offset_ns for rank, one in seen)
        end = max(max(one.end_ns + rank.offset_ns for rank, one in seen), can_begin)
        waits.append(min(max(negotiated - can_begin, 0), end - can_begin))
        takes.append(end - can_begin - waits[-1])
        by_reduction.append([at - begin for at, begin in zip(ready, begins, strict=True)])
        over = end
    if not keys:  # one rank that reduces nothing: its own work, and nothing to wait for
        by_reduction, waits, takes, over = [[known[0].before.total]], [0], [0], begins[0] + known[0].before.total
    turns = []
    for place, step in enumerate(known):
        released = _released(step, ranks[place], over if over is not None else ends[place])
        ready_ns = tuple(of_rank[place] for of_rank in by_reduction)
        turns.append(Turn(step.before, ready_ns, released - (over or 0), step.after, ends[place] - released))
    return Step(tuple(turns), tuple(waits), tuple(takes))


def _released(step: OwnStep, rank: _Rank, over: int) -> int:
    """When the rank had the results of the step's reductions; not after its end."""
    at = step.tail[1] + rank.offset_ns if step.tail is not None else over
    return min(at, step.end_ns + rank.offset_ns)
