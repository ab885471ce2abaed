"""A timeline of ranks' records in the form in which rank 0 of a Horovod job would have written it.

All times are the last rank's, on rank 0's clock. A tensor is negotiated from the end of the first cycle in which some
rank popped it, with a tick for each rank that popped it in a slow cycle, since Horovod counts requests only there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from coordsim.formats.horovod import TimelineWriter
from coordsim.record.files import whole_file
from coordsim.record.ranks import RankRecord
from coordsim.record.ranks.format import NULL
from coordsim.record.ranks.reader import ResponseRecord
from coordsim.record.trace import Kind

SUFFIX = ".timeline.json"


class Written(NamedTuple):
    """The number of steps that were written and left out."""

    steps: int
    events: int
    """Upper bound of the number of events, which stays below the limit."""
    left_out: int
    """Number of steps for which there was no room."""


@dataclass
class _Turn:
    """One cycle of all ranks with details."""

    step: int = -1
    entered_ns: int = 0
    left_ns: int = 0
    slow: bool = False
    popped: list[tuple[int, str]] = field(default_factory=list)
    """Pairs of (rank, tensor)."""
    responses: dict[int, list[tuple[RankRecord, ResponseRecord]]] = field(default_factory=dict)


def write_horovod(
    path: Path, records: Sequence[RankRecord], base_ns: int, steps: Sequence[int], limit: int
) -> Written:
    """Write the detailed ``steps`` (numbers) that fit into ``limit`` events. Raises OSError."""
    detailed = [record for record in records if record.detailed]
    turns = _turns(detailed, base_ns)
    chosen, events = _fitting(turns, steps, limit)
    library = "NCCL" if "nccl" in str(dict(records[0].settings)).lower() else "GLOO"
    cycles = any(record.cycles for record in detailed)
    with whole_file(path) as fresh, TimelineWriter(fresh, mark_cycles=cycles) as writer:
        teller = _Teller(writer, library, cycles)
        for number in sorted(turns):
            if turns[number].step in chosen:
                teller.turn(turns[number])
    return Written(len(chosen), events, len(steps) - len(chosen))


def _turns(records: Sequence[RankRecord], base_ns: int) -> dict[int, _Turn]:
    turns: dict[int, _Turn] = {}
    for record in records:
        moved = (0 if record.clock is None else record.clock.offset_ns) - base_ns
        for cycle in record.cycles:
            turn = turns.setdefault(cycle.cycle, _Turn())
            turn.step = max(turn.step, cycle.step)
            turn.entered_ns = max(turn.entered_ns, cycle.entered_ns + moved)
            turn.left_ns = max(turn.left_ns, cycle.left_ns + moved)
            turn.slow = turn.slow or cycle.kind in (Kind.SLOW, Kind.INVALIDATE)
            turn.popped += [(record.rank, record.name(tensor)) for tensor in cycle.popped]
        for response in record.responses:
            turn = turns.setdefault(response.cycle, _Turn(response.step))
            times = {
                key: getattr(response, key) + moved
                for key in ("launch_ns", "begin_ns", "copied_in_ns", "reduced_ns", "end_ns")
                if getattr(response, key) != NULL
            }
            turn.responses.setdefault(response.place, []).append((record, response._replace(**times)))
    return turns


def _fitting(turns: dict[int, _Turn], steps: Sequence[int], limit: int) -> tuple[set[int], int]:
    """Return the first of ``steps`` whose events fit, and the number of events."""
    size = dict.fromkeys(steps, 0)
    for turn in turns.values():
        if turn.step in size:
            tensors = sum(len(each[0][1].tensors) for each in turn.responses.values())
            asked = 0 if turn.popped else sum(
                2 * len(one.tensors) for each in turn.responses.values() for _, one in each
            )
            size[turn.step] += 1 + len(turn.popped) * (2 if turn.slow else 1) + 10 * tensors + asked
    chosen: set[int] = set()
    names = {name for turn in turns.values() for _, name in turn.popped} or {
        record.name(tensor) for turn in turns.values() for each in turn.responses.values() for record, one in each
        for tensor in one.tensors
    }  # fmt: skip
    total = 2 + 2 * len(names)  # which introduce the tensors
    for step in steps:
        if total + size[step] > limit:
            break
        total += size[step]
        chosen.add(step)
    return chosen, total


_OPERATIONS = {0: "ALLREDUCE", 1: "ALLGATHER", 2: "BROADCAST", 6: "BARRIER", 7: "REDUCESCATTER"}
"""Operations by number in a record of collectives (:class:`coordsim.protocol.messages.Op`), whose tensors are
parameters."""


def _operation(record: RankRecord, response: ResponseRecord, tensor: int) -> str:
    """Return the operation on a tensor: as requested or, without requests, as it was called."""
    asked = record.tensors[tensor].get("op")
    return str(asked) if asked is not None else _OPERATIONS.get(response.op, "ALLREDUCE")


class _Teller:
    """Passes cycle after cycle to the writer, with times that do not decrease for any tensor."""

    def __init__(self, writer: TimelineWriter, library: str, cycles: bool) -> None:
        self._writer = writer
        self._library = library
        self._cycles = cycles
        self._last: dict[str, int] = {}

    def turn(self, turn: _Turn) -> None:
        if not self._cycles:
            for place in sorted(turn.responses):
                self._called(turn.responses[place])
                self._response(turn.responses[place])
            return
        self._writer.cycle_start(max(turn.entered_ns, 0) // 1000)
        operation = {
            record.name(tensor): _operation(record, response, tensor)
            for each in turn.responses.values() for record, response in each for tensor in response.tensors
        }  # fmt: skip
        for rank, name in turn.popped:
            at = self._at(name, turn.left_ns)
            self._writer.negotiate_start(name, operation.get(name, "ALLREDUCE"), at)
            if turn.slow:
                self._writer.tick(name, rank, at)
        for place in sorted(turn.responses):
            self._response(turn.responses[place])

    def _called(self, of_ranks: list[tuple[RankRecord, ResponseRecord]]) -> None:
        """Write a collective without negotiation: when it could begin on each rank."""
        for record, response in sorted(of_ranks, key=lambda one: (one[1].launch_ns, one[0].rank)):
            for tensor in response.tensors:
                name = record.name(tensor)
                at = self._at(name, max(response.launch_ns, 0))
                self._writer.negotiate_start(name, _operation(record, response, tensor), at)
                self._writer.tick(name, record.rank, at)

    def _response(self, of_ranks: list[tuple[RankRecord, ResponseRecord]]) -> None:
        record, first = of_ranks[0]
        names = [record.name(tensor) for tensor in first.tensors]
        launch, begin, copied, reduced, end = self._moments([response for _, response in of_ranks])
        at = self._together(names, launch)
        for tensor, name in zip(first.tensors, names, strict=True):
            self._writer.negotiate_end(name, at)
            self._writer.start_operation(name, _operation(record, first, tensor), at)
        operation = _operation(record, first, first.tensors[0]) if names else ""
        parts = [(f"{self._library}_{operation}", copied, reduced)] if names else []
        if len(names) > 1:
            parts = [("MEMCPY_IN_FUSION_BUFFER", begin, copied), *parts, ("MEMCPY_OUT_FUSION_BUFFER", reduced, end)]
        for part, since, until in parts:
            self._writer.start_activity(names, part, self._together(names, since))
            self._writer.end_activity(names, self._together(names, until))
        for tensor, name in zip(first.tensors, names, strict=True):
            facts = record.tensors[tensor]
            shape = tuple(map(int, facts["shape"]))
            self._writer.end_operation(name, self._at(name, end), str(facts["dtype"]).lower(), shape)

    @staticmethod
    def _moments(responses: Sequence[ResponseRecord]) -> tuple[int, int, int, int, int]:
        """Return launch, begin, copied in, reduced, end: the last rank's. A time that was not measured equals the one
        before."""
        moments, at = [], 0
        for key in ("launch_ns", "begin_ns", "copied_in_ns", "reduced_ns", "end_ns"):
            known = [getattr(one, key) for one in responses if getattr(one, key) != NULL]
            at = max([at, *known])
            moments.append(at)
        return moments[0], moments[1], moments[2], moments[3], moments[4]

    def _together(self, names: Sequence[str], ns: int) -> int:
        """Return a time for all members of a response, which is one event for Horovod."""
        at = max((self._at(name, ns) for name in names), default=0)
        self._last.update(dict.fromkeys(names, at))
        return at

    def _at(self, name: str, ns: int) -> int:
        self._last[name] = max(self._last.get(name, 0), ns // 1000)
        return self._last[name]
