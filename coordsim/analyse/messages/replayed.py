"""Sizes of a recorded run's control messages, by replaying its ranks' submissions through the protocol.

Records do not keep the sizes. They follow from what every rank popped in each cycle, because the replay decides with
the same code as the run did. What the record does keep is compared in every cycle: schedules, kinds of cycles, hits,
what rank 0 received and, except in old records, how many messages and bytes each rank sent. The replay ends at the
first difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from coordsim.analyse.messages.job import Job, Sweep, request_of, settings_of
from coordsim.errors import InputError
from coordsim.protocol.messages import Request
from coordsim.protocol.negotiator import Schedule, tree_children, tree_parent
from coordsim.protocol.queue import DuplicateName
from coordsim.record.ranks import RankRecord
from coordsim.record.ranks.facts import clock_offset
from coordsim.record.ranks.reader import CycleRecord, IdleRecord
from coordsim.record.trace import Kind, schedule_hash

MOST_CYCLES = 20_000_000
"""Largest number of cycles of one rank: five hours at a cycle time of 1 ms, and some gigabytes."""


class Passage(NamedTuple):
    """One rank in one cycle; times are ns on rank 0's clock."""

    entered_ns: int
    left_ns: int
    """End of the agreement."""
    work_ns: int
    """Share of the time from entering to leaving that was spent in the protocol's own code."""
    finished_ns: int
    """End of what was agreed on."""
    rings: int | None
    """Neighbours that the rank woke; None where it was not recorded. For a run of idle cycles the first has all."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One cycle of all ranks."""

    cycle: int
    step: int
    sweeps: tuple[Sweep, ...]
    """The messages, in order."""
    passages: tuple[Passage, ...]
    """What each rank did, by rank."""


@dataclass(frozen=True)
class Replayed:
    """A recorded run's cycles, up to the first that the protocol decides differently."""

    ranks: int
    radix: int
    """Radix of the tree of links."""
    turns: list[Turn]
    stopped: str
    """Why the replay ended before the last cycle; empty if it did not."""
    stopped_in: int | None
    """The step in which the replay ended."""
    counted: bool
    """Whether the record has the ranks' own counts of messages and bytes.

    They then agree, and reductions that travelled with a bit vector are part of the sizes. Otherwise they are not.
    """


class _Seen(NamedTuple):
    """One rank's record of one cycle."""

    record: CycleRecord | IdleRecord
    place: int
    """Place of the cycle in a run of idle cycles; 0 for a cycle recorded by itself."""


def replayed(records: Sequence[RankRecord]) -> Replayed:
    """Replay the cycles that all of ``records`` have, from the first on.

    Steps that all ranks left out of their records (those that were not among the slowest) are skipped; a cache that has
    changed in them shows as a difference. Raises InputError for a run whose messages cannot be known.
    """
    plane, settings = settings_of(records)
    try:
        requests = [[_request(facts) for facts in record.tensors] for record in records]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError.one(str(records[0].path.parent), "", None, f"damaged: {error!r}") from error
    replay = _Replay(Job(plane, settings), records, requests)
    turns = list(_with_steps(replay.turns()))
    counts = _Counts(settings.ranks, settings.radix, records)
    turns, differs = counts.compare(turns, replay.seen)
    stopped_in = counts.stopped_in if differs else replay.stopped_in
    return Replayed(settings.ranks, settings.radix, turns, differs or replay.stopped, stopped_in, counts.known)


def _request(facts: dict[str, object]) -> Request | None:
    """Return the request of a recorded tensor; None for a parameter, which is not submitted under that name."""
    return None if facts.get("kind") == "parameter" else request_of(facts)


class _Replay:
    """The protocol, fed with the submissions of a record."""

    def __init__(
        self, job: Job, records: Sequence[RankRecord], requests: Sequence[Sequence[Request | None]]
    ) -> None:
        self.seen = [_index_cycles(record) for record in records]
        self.stopped = ""
        self.stopped_in: int | None = None
        self._job = job
        self._records = records
        self._requests = requests
        self._offsets = [clock_offset(record) for record in records]

    def turns(self) -> Iterator[Turn]:
        """Yield one turn a cycle; a cycle that is idle on all ranks has step -1."""
        quiet: tuple[int, tuple[Sweep, ...]] = (-2, ())
        """The last cycle if all ranks were idle in it, and its messages, which the next idle cycle repeats."""
        for cycle in sorted(set.intersection(*map(set, self.seen))):
            together = [seen[cycle] for seen in self.seen]
            records = [each.record for each in together]
            step = max((each.step for each in records if isinstance(each, CycleRecord)), default=-1)
            popped = [self._popped(rank, each) for rank, each in enumerate(records)]
            idle = all(isinstance(each, IdleRecord) for each in records)
            if idle and quiet[0] == cycle - 1:
                sweeps = quiet[1]
            else:
                try:
                    schedule, sweeps = self._job.run_cycle(popped)
                except (DuplicateName, AssertionError) as error:
                    differs = str(error)
                else:
                    differs = next(self._differences(records, schedule), "")
                if differs:
                    self.stopped, self.stopped_in = f"cycle {cycle} in step {step}: {differs}", step
                    return
            quiet = (cycle, sweeps) if idle else (-2, ())
            passages = (_locate(each, offset) for each, offset in zip(together, self._offsets, strict=True))
            yield Turn(cycle, step, sweeps, tuple(passages))

    def _popped(self, rank: int, record: CycleRecord | IdleRecord) -> list[Request]:
        """Return the requests that a rank popped in one cycle."""
        if isinstance(record, IdleRecord):
            return []
        requests = [self._requests[rank][tensor] for tensor in record.popped]
        return [request for request in requests if request is not None]

    def _differences(self, records: Sequence[CycleRecord | IdleRecord], schedule: Schedule) -> Iterator[str]:
        """Yield a sentence for each way in which the records differ from the replayed cycle."""
        names = [response.names for response in schedule.responses]
        for rank, record in enumerate(records):
            if isinstance(record, IdleRecord):
                if names:
                    yield f"rank {rank} executed nothing, but {len(names)} responses are agreed on"
                continue
            slow = record.kind in (Kind.SLOW, Kind.INVALIDATE)
            recorded = record.schedule_hash, slow, record.kind == Kind.INVALIDATE, record.hits_common
            if recorded != (schedule_hash(names), schedule.slow, schedule.invalidated, schedule.hits_common):
                yield f"rank {rank} agreed on something else"
            took_in = record.requests, record.request_bytes
            if rank == 0 and took_in != (self._job.requests, self._job.request_bytes):
                yield f"rank 0 took in {took_in[0]} requests ({took_in[1]} bytes), not {self._job.requests}"


def _index_cycles(record: RankRecord) -> dict[int, _Seen]:
    """Return a rank's cycles by number, idle ones included. Raises InputError for too many to replay."""
    cycles = len(record.cycles) + sum(idle.cycles for idle in record.idle)
    if cycles > MOST_CYCLES:
        message = f"has {cycles:,} cycles; {MOST_CYCLES:,} at most can be replayed"
        raise InputError.one(str(record.path), "", cycles, message)
    by_cycle = {each.cycle: _Seen(each, 0) for each in record.cycles}
    for idle in record.idle:
        by_cycle |= {idle.cycle + place: _Seen(idle, place) for place in range(idle.cycles)}
    return by_cycle


def _locate(seen: _Seen, offset_ns: int) -> Passage:
    """Return when a rank passed through a cycle.

    Of a run of idle cycles only the first and the last are recorded; the others are assumed to be evenly spaced and as
    long as the last one.
    """
    record = seen.record
    rings = None if record.sent is None else 0 if seen.place else record.sent.rings
    if isinstance(record, CycleRecord):
        return Passage(
            record.entered_ns + offset_ns, record.left_ns + offset_ns, record.work_ns, record.finished_ns + offset_ns,
            rings,
        )  # fmt: skip
    span = record.entered_last_ns - record.entered_first_ns
    entered = record.entered_first_ns + span * seen.place // max(record.cycles - 1, 1) + offset_ns
    left = entered + record.left_last_ns - record.entered_last_ns
    return Passage(entered, left, 0, left, rings)


def _with_steps(turns: Iterator[Turn]) -> Iterator[Turn]:
    """Assign cycles that were idle on all ranks to the step that follows. Those after the last step are dropped."""
    waiting: list[Turn] = []
    for turn in turns:
        if turn.step < 0:
            waiting.append(turn)
            continue
        yield from (replace(each, step=turn.step) for each in waiting)
        waiting = []
        yield turn


class _Counts:
    """The ranks' own counts of messages and bytes, against those of the protocol."""

    def __init__(self, ranks: int, radix: int, records: Sequence[RankRecord]) -> None:
        sent = [each.sent for record in records for each in record.cycles]
        sent += [each.sent for record in records for each in record.idle]
        self.known = bool(sent) and None not in sent
        self.stopped_in: int | None = None
        self._children = [len(tree_children(rank, ranks, radix)) for rank in range(ranks)]
        self._parents = [0, *(tree_parent(rank, radix) for rank in range(1, ranks))]

    def compare(self, turns: list[Turn], seen: Sequence[dict[int, _Seen]]) -> tuple[list[Turn], str]:
        """Return the turns up to the first that a rank counted differently, and a sentence on this difference.

        The turns returned include the data that travelled along with their bit vectors.
        """
        if not self.known:
            return turns, ""
        more = [self._surplus(rank, turns, seen[rank]) for rank in range(len(seen))]
        agreeing: list[Turn] = []
        for place, turn in enumerate(turns):
            extra = [of_rank[place] for of_rank in more]
            sweeps = self._add_data(turn.sweeps, [each or 0 for each in extra]) if any(extra) else turn.sweeps
            if None in extra or sweeps is None:
                self.stopped_in = turn.step
                rank = extra.index(None) if None in extra else next(rank for rank, each in enumerate(extra) if each)
                return agreeing, f"cycle {turn.cycle} in step {turn.step}: rank {rank} counted other messages or bytes"
            agreeing.append(turn if sweeps is turn.sweeps else replace(turn, sweeps=sweeps))
        return agreeing, ""

    def _surplus(self, rank: int, turns: Sequence[Turn], seen: dict[int, _Seen]) -> list[int | None]:
        """Return by turn the bytes that ``rank`` sent beyond what the protocol says.

        A run of idle cycles has all its bytes at its first cycle. The value is None where the rank sent another number
        of messages, or fewer bytes.
        """
        surplus: list[int | None] = [0] * len(turns)
        totals: dict[int, tuple[int, int]] = {}
        """Messages and bytes of the rank by the sweeps' id, since idle cycles share their sweeps."""
        place = 0
        while place < len(turns):
            record = seen[turns[place].cycle].record
            first, sent = place, record.sent
            messages = nbytes = 0
            while place < len(turns) and seen[turns[place].cycle].record is record:
                sweeps = turns[place].sweeps
                if id(sweeps) not in totals:
                    totals[id(sweeps)] = self._count_sent(rank, sweeps)
                messages, nbytes = messages + totals[id(sweeps)][0], nbytes + totals[id(sweeps)][1]
                place += 1
            whole = isinstance(record, CycleRecord) or place - first == record.cycles
            if whole and sent is not None:
                right = sent.messages == messages and sent.nbytes >= nbytes
                surplus[first] = sent.nbytes - nbytes if right else None
        return surplus

    def _count_sent(self, rank: int, sweeps: Sequence[Sweep]) -> tuple[int, int]:
        """Count the messages and the bytes that ``rank`` sends."""
        up = [sweep.nbytes_R[rank] for sweep in sweeps if sweep.up and rank]
        down = [
            nbytes for sweep in sweeps if not sweep.up
            for nbytes, parent in zip(sweep.nbytes_R[1:], self._parents[1:], strict=True) if parent == rank
        ]  # fmt: skip
        return len(up) + len(down), sum(up) + sum(down)

    def _add_data(self, sweeps: tuple[Sweep, ...], more: Sequence[int]) -> tuple[Sweep, ...] | None:
        """Add the data that travelled with the bit vectors; ``more`` is each rank's bytes beyond the vectors.

        A result that carries data carries it over every link. A vector on its way up carries data only if all ranks
        below agree, so that what is left of a rank's bytes is that. The result is None if the bytes do not fit this.
        """
        if len(sweeps) < 2 or not sweeps[0].vector:
            return None
        down, odd = divmod(more[0], self._children[0])
        up = [0, *(more[rank] - down * self._children[rank] for rank in range(1, len(more)))]
        if odd or min(up) < 0 or (down and any(each != down for each in up[1:])):
            return None
        bigger = (
            replace(sweep, nbytes_R=(0, *(a + b for a, b in zip(sweep.nbytes_R[1:], along, strict=True))))
            for sweep, along in ((sweeps[0], up[1:]), (sweeps[1], [down] * (len(more) - 1)))
        )
        return (*bigger, *sweeps[2:])
