"""A recorded run's typical step: what a rank's thread does in which order, what it asks of cores, what it waits for.

Everything is a mean over the middle half of the steps by length, of the commonest kind and without the run's first one:
so parts sum up to the step, which medians of parts do not. Times are a rank's own: its waits for other ranks are cut
out (:mod:`coordsim.record.ranks.own`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from statistics import fmean, median
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coordsim.analyse.stragglers import stragglers
from coordsim.dtypes import ELEMENT_BYTES
from coordsim.errors import InputError
from coordsim.protocol.messages import Op
from coordsim.record.ranks import RankRecord
from coordsim.record.ranks.facts import clock_offset, control_plane, gathers, negotiated, readiness
from coordsim.record.ranks.format import NULL
from coordsim.record.ranks.hosts import machines
from coordsim.record.ranks.own import OWN_PARTS, OwnStep, ends_known, last_ready, own_steps
from coordsim.record.ranks.reader import CpuTimes, ResponseRecord
from coordsim.record.run_facts import Machine

Float = npt.NDArray[np.float64]
FEWEST_STEPS = 5
_MIDDLE = (25, 75)
"""Percentiles of the steps' lengths between which a step is typical."""
_MOVES_DATA = (Op.ALLREDUCE, Op.ALLGATHER, Op.REDUCESCATTER)


class Piece(NamedTuple):
    """A stretch of a step's own work, ns."""

    part: str
    cpu_ns: float
    """On a core."""
    sleep_ns: float
    """Neither on a core nor waiting for one: it slept, or waited for a disk or a device."""


class Call(NamedTuple):
    """A collective of the typical step."""

    operation: int
    nbytes: int
    after: int
    """It is handed over when so many pieces of the step are done."""
    waited: bool
    """Whether the training thread waits for it at once (FSDP)."""
    took_ns: float
    """From when it could begin (the last rank's call, and the end of the one before) to its end on the last rank."""
    agreed: bool = True
    """Whether ranks agree on it before it begins, where the backend negotiates."""
    requests: int = 0
    """Of each rank at the coordinator, where one is asked."""


class Ready(NamedTuple):
    """A gradient of the typical step."""

    name: str
    nbytes: int
    after: int
    """It is there when so many pieces of the step are done."""


@dataclass(frozen=True)
class TypicalStep:
    """Of a recorded run."""

    pieces: tuple[Piece, ...]
    """In order; waits for reductions come before piece number :attr:`tail`."""
    tail: int
    calls: tuple[Call, ...]
    gradients: tuple[Ready, ...]
    """In ready order."""
    ranks: int
    steps: int
    hosts: tuple[Machine, ...]
    backend: str
    framework: str
    plane: str
    """The control plane; ``ddp``: nobody negotiates."""
    main_cpu_ns: float
    """CPU time of the training thread."""
    other_cpu_ns: float
    """Of all other threads of the process, and of the training thread while it waits for collectives."""
    core_wait_ns: float | None
    """Inside its own work the training thread was ready and no core was free; None where the record does not say."""
    step_ns: float
    """The typical step; near the median one."""
    step_noise: Float
    """Each recorded step over the median, in order; shape [step]."""
    parts_ns: Mapping[str, float]
    """Each part of a step, ``waits`` among them."""
    spread: Float
    """How much longer than typical each rank and step took for its own work, as a share; shape [rank, step]."""
    occasional_ns: float
    """Evaluation and checkpoints: what they add to the mean step beyond the median one."""
    late_rank: int | None
    late_ns: float
    """What a known straggler's own work takes longer than the others'."""
    late_says: str | None

    @property
    def own_ns(self) -> float:
        """Own work where each thread has a core."""
        return sum(piece.cpu_ns + piece.sleep_ns for piece in self.pieces)


def typical_step(records: Sequence[RankRecord]) -> TypicalStep:
    """Raises InputError where too few steps are recorded, CPU times are missing, or ends of collectives are not known.
    """
    where = str(records[0].path.parent)
    useful = [record for record in records if record.steps and record.head.get("detailed")]
    agreed = negotiated(records[0])
    numbers = _numbers(useful, where)
    if not all(step.cpu is not None for record in useful for step in record.steps if step.step in numbers):
        message = (
            "the record has no CPU times (an older version): how ranks share cores cannot be known from it. Record "
            "again with this coordsim, or say --cluster NAME"
        )
        raise InputError.one(where, "", None, message)
    if not (agreed or ends_known(useful, numbers)):
        message = (
            "ends of collectives are not in the record (on a GPU nobody saw them): the recorded machine cannot be "
            "replayed. Say --cluster NAME"
        )
        raise InputError.one(where, "", None, message)
    return _Typical(useful, numbers, records).build()


def _numbers(records: Sequence[RankRecord], where: str) -> tuple[int, ...]:
    """Steps of the commonest kind that all ranks with details have, without the first of the run."""
    common = set.intersection(*({step.step for step in record.steps} for record in records)) if records else set()
    kinds = {
        step.step: step.step_kind for step in records[0].steps if step.step in common and step.step > 0
    } if records else {}  # fmt: skip
    usual = Counter(kinds.values()).most_common(1)
    found = tuple(sorted(number for number, kind in kinds.items() if kind == usual[0][0])) if usual else ()
    if len(found) < FEWEST_STEPS:
        message = f"{len(found)} steps that every rank with details has; at least {FEWEST_STEPS} are needed"
        raise InputError.one(where, "", None, message)
    return found


class _Typical:
    def __init__(
        self, records: Sequence[RankRecord], numbers: Sequence[int], everybody: Sequence[RankRecord]
    ) -> None:
        self._records, self._numbers, self._everybody = records, numbers, everybody
        self._own = [own_steps(record) for record in records]
        self._blocking = any(gathers(record) for record in records)
        self._responses = [_by_step(record) for record in records]
        lengths = self._lengths().mean(axis=0)
        low, high = np.percentile(lengths, _MIDDLE)
        self._middle = [number for number, ns in zip(numbers, lengths, strict=True) if low <= ns <= high]
        late = stragglers(everybody)
        self._late: int | None = None
        self._says: str | None = None
        if late.late:
            ranks = [rank for one in late.late for rank in one.ranks]
            places = [place for place, record in enumerate(records) if record.rank in ranks]
            if places and len(places) < len(records):
                self._late, self._says = places[0], late.verdict

    @property
    def _others(self) -> list[int]:
        """Places of ranks that are alike."""
        return [place for place in range(len(self._records)) if place != self._late]

    def build(self) -> TypicalStep:
        before, after = self._work("before"), self._work("after")
        gradients = self._gradients(sum(before))
        calls, at_calls = self._calls(sum(before))
        ready_at = [at for at, _, _ in gradients]
        pieces, places = _cut(before, sorted({*ready_at, *at_calls}), [*at_calls, *ready_at])
        tail = len(pieces)
        walls = [*pieces, *((part, ns) for part, ns in zip(OWN_PARTS, after, strict=True) if ns > 0)]
        lengths_ns = [ns for _, ns in walls]
        cpu, (asleep, core_wait) = self._cpu(), self._idle()
        own_cpu = max(sum(lengths_ns) - asleep - (core_wait or 0.0), 0.0)
        lengths, totals = self._lengths(), self._totals()
        step_ns = fmean(step.end_ns - step.begin_ns for step in self._typical_steps())
        settings = self._everybody[0].settings
        late_ns = 0.0
        if self._late is not None:
            late_ns = float(np.median(totals[self._late]) - np.median(totals[self._others]))
        usual = np.median(totals[self._others], axis=None)
        level = np.median(totals, axis=1, keepdims=True)
        return TypicalStep(
            pieces=tuple(
                Piece(part, *split)
                for (part, _), split in zip(walls, _split(lengths_ns, own_cpu, asleep), strict=True)
            ),
            tail=tail, calls=tuple(call._replace(after=place) for call, place in zip(calls, places, strict=False)),
            gradients=tuple(
                Ready(name, nbytes, place)
                for (_, name, nbytes), place in zip(gradients, places[len(calls) :], strict=True)
            ),
            ranks=self._everybody[0].ranks, steps=len(self._numbers), hosts=tuple(machines(self._everybody)),
            backend=_backend(self._everybody[0]), framework=str(settings.get("framework") or ""),
            plane=control_plane(self._everybody[0]), main_cpu_ns=cpu[0],
            other_cpu_ns=cpu[1] + max(cpu[0] - own_cpu, 0.0), core_wait_ns=core_wait,
            step_ns=step_ns, step_noise=np.median(lengths, axis=0) / float(np.median(lengths)),
            parts_ns=self._parts(before, after), spread=np.asarray((totals - level) / usual),
            occasional_ns=self._occasional(), late_rank=None if self._late is None else self._records[self._late].rank,
            late_ns=late_ns, late_says=self._says,
        )  # fmt: skip

    def _steps(self, place: int) -> list[OwnStep]:
        return [self._own[place][number] for number in self._numbers]

    def _typical_steps(self) -> list[OwnStep]:
        """Of the ranks that are alike."""
        return [self._own[place][number] for place in self._others for number in self._middle]

    def _work(self, which: str) -> list[float]:
        """Each part, before or after the tail."""
        steps = self._typical_steps()
        return [fmean(getattr(getattr(step, which), part) for step in steps) for part in OWN_PARTS]

    def _parts(self, before: Sequence[float], after: Sequence[float]) -> dict[str, float]:
        found = {part: one + other for part, one, other in zip(OWN_PARTS, before, after, strict=True)}
        waits = [step.end_ns - step.begin_ns - step.work.total for step in self._typical_steps()]
        return found | {"waits": fmean(waits)}

    def _lengths(self) -> Float:
        return np.array([
            [step.end_ns - step.begin_ns for step in self._steps(place)] for place in range(len(self._records))
        ], dtype=np.float64)  # fmt: skip

    def _totals(self) -> Float:
        """Own work without evaluation and checkpoints, shape [rank, step]."""
        return np.array([
            [step.work.total - step.evaluation_ns - step.checkpoint_ns for step in self._steps(place)]
            for place in range(len(self._records))
        ], dtype=np.float64)  # fmt: skip

    def _occasional(self) -> float:
        spent = np.array([
            [step.evaluation_ns + step.checkpoint_ns for step in self._steps(place)] for place in self._others
        ], dtype=np.float64)  # fmt: skip
        return max(float(np.mean(spent) - np.median(spent)), 0.0)

    def _cpu(self) -> tuple[float, float]:
        """CPU time of the training thread and of all others."""
        times: list[CpuTimes] = [step.record.cpu for step in self._typical_steps() if step.record.cpu is not None]
        return (
            fmean(each.main_ns for each in times), fmean(max(each.process_ns - each.main_ns, 0) for each in times)
        )

    def _idle(self) -> tuple[float, float | None]:
        """(asleep, waiting for a core) within the own work of a step, ns.

        What is not CPU time of a rank's own work is sleep and waits for a core. Sleeps are the same in every step,
        while waits for a core come and go, and some of them fall into waits for collectives: the slope of the one over
        the other, from step to step, tells how many do not (Theil and Sen's, between 0 and 1).
        """
        rows = [
            (step.record.cpu.core_wait_ns, step.work.total - step.evaluation_ns - step.checkpoint_ns
             - step.record.cpu.main_ns)
            for place in self._others for step in self._steps(place) if step.record.cpu is not None
        ]  # fmt: skip
        idle = np.array([row[1] for row in rows], dtype=np.float64)
        known = [waited for waited, _ in rows if waited is not None]
        if len(known) < len(rows):
            return max(float(np.median(idle)), 0.0), None
        waited = np.array(known, dtype=np.float64)
        slope = float(np.clip(_slope(waited, idle), 0.0, 1.0))
        return max(float(np.median(idle - slope * waited)), 0.0), slope * float(np.median(waited))

    def _gradients(self, total: float) -> list[tuple[float, str, int]]:
        """(when it is there in own time after the step's begin, name, bytes) of each gradient: medians, in order."""
        stamps: dict[str, list[float]] = {}
        sizes: dict[str, int] = {}
        for place in self._others:
            of_steps = readiness(self._records[place])
            for tensor in self._records[place].tensors:
                sizes[str(tensor["name"])] = _bytes_of(tensor)
            for step in self._steps(place):
                for name, at in of_steps.get(step.record.step, {}).items():
                    stamps.setdefault(name, []).append(_own_time(step, at))
        enough = len(self._numbers) * len(self._others) / 2
        return sorted(
            (min(max(float(median(at)), 0.0), total), name, sizes[name])
            for name, at in stamps.items() if len(at) >= enough
        )

    def _calls(self, total: float) -> tuple[list[Call], list[float]]:
        """The collectives of a typical step, and when they are handed over in own time."""
        usual = self._usual_shape()
        if not usual:
            return [], []
        shaped = [number for number in self._numbers if self._shape(number) == usual]
        took = np.median(np.array([self._took(number) for number in shaped]), axis=0)
        moments = np.median(np.array([
            [_own_time(self._own[place][number], at) for at in self._handed_over(place, number)]
            for number in shaped for place in self._others
        ]), axis=0)  # fmt: skip
        moments = np.minimum(np.maximum.accumulate(np.maximum(moments, 0.0)), total)
        calls = [
            Call(operation, nbytes, 0, self._blocking, float(ns))
            for (operation, nbytes), ns in zip(usual, took, strict=True)
        ]
        return calls, [float(at) for at in moments]

    def _shape(self, number: int) -> tuple[tuple[int, int], ...]:
        return tuple((each.op, each.nbytes) for each in self._responses[0].get(number, ()))

    def _usual_shape(self) -> tuple[tuple[int, int], ...]:
        """The commonest list of collectives; where no two steps have the same one, that of the step whose length is the
        median."""
        shapes = [self._shape(number) for number in self._numbers if self._whole(number)]
        if not shapes:
            return ()
        (shape, times), *_ = Counter(shapes).most_common(1)
        if times > 1:
            return shape
        lengths = self._lengths().mean(axis=0)
        order = np.argsort(np.abs(lengths - np.median(lengths)))
        return next(self._shape(self._numbers[at]) for at in order if self._whole(self._numbers[at]))

    def _whole(self, number: int) -> bool:
        """Whether all ranks have the same collectives in the step, with ends."""
        shape = self._shape(number)
        return all(
            tuple((each.op, each.nbytes) for each in of_rank.get(number, ())) == shape
            and all(each.end_ns != NULL for each in of_rank.get(number, ()))
            for of_rank in self._responses
        )

    def _handed_over(self, place: int, number: int) -> list[int]:
        """When a rank handed each collective over: its call, or its last submission."""
        responses = self._responses[place][number]
        record = self._records[place]
        if not negotiated(record):
            return [each.copied_in_ns for each in responses]
        stamps = readiness(record).get(number, {})
        submitted = _submitted(record, number)
        moments = []
        for each in responses:
            names = [record.name(tensor) for tensor in each.tensors]
            known = [submitted.get(name, stamps.get(name)) for name in names]
            moments.append(max([at for at in known if at is not None], default=each.launch_ns))
        return moments

    def _took(self, number: int) -> list[float]:
        over, found = 0.0, []
        handed = [self._handed_over(place, number) for place in range(len(self._records))]
        for index in range(len(self._responses[0][number])):
            offsets = [clock_offset(record) for record in self._records]
            called = max(of_rank[index] + offset for of_rank, offset in zip(handed, offsets, strict=True))
            end = max(
                of_rank[number][index].end_ns + offset
                for of_rank, offset in zip(self._responses, offsets, strict=True)
            )
            found.append(max(end - max(called, over), 0.0))
            over = max(over, end)
        return found


def _slope(over: Float, of: Float) -> float:
    """Median slope of all pairs; 1 where nothing varies."""
    from scipy.stats import theilslopes

    return float(theilslopes(of, over)[0]) if np.ptp(over) > 0 else 1.0


def _bytes_of(tensor: Mapping[str, Any]) -> int:
    """Of a recorded tensor; 0 where its type is not known."""
    if isinstance(tensor.get("bytes"), int):
        return int(tensor["bytes"])
    size = ELEMENT_BYTES.get(str(tensor.get("dtype", "")).lower().removeprefix("torch."), 0)
    return size * prod(int(extent) for extent in tensor.get("shape") or (1,))


def _submitted(record: RankRecord, number: int) -> dict[str, int]:
    return {
        record.name(tensor): at
        for cycle in record.cycles if cycle.step == number
        for tensor, at in zip(cycle.popped, cycle.stamps_ns, strict=True)
    }  # fmt: skip


def _by_step(record: RankRecord) -> dict[int, list[ResponseRecord]]:
    found: dict[int, list[ResponseRecord]] = {}
    for each in record.responses:
        if each.op in _MOVES_DATA and each.nbytes:
            found.setdefault(each.step, []).append(each)
    for responses in found.values():
        responses.sort(key=lambda each: (each.cycle, each.place))
    return found


def _own_time(step: OwnStep, at_ns: int) -> float:
    """How much of its own work the rank had done at a moment of its clock."""
    waited = sum(max(min(wait.end_ns, at_ns) - wait.begin_ns, 0) for wait in step.waits)
    until = min(at_ns, step.tail[0]) if step.tail is not None else min(at_ns, last_ready(step))
    return float(max(until - step.begin_ns - waited, 0))


def _cut(
    before: Sequence[float], moments: Sequence[float], at_calls: Sequence[float]
) -> tuple[list[tuple[str, float]], list[int]]:
    """The parts before the tail, cut at ``moments``; and after how many pieces each call comes."""
    pieces: list[tuple[str, float]] = []
    ends: list[float] = []
    at = 0.0
    for part, ns in zip(OWN_PARTS, before, strict=True):
        begin, at = at, at + ns
        inside = [moment for moment in moments if begin < moment < at]
        for since, until in zip([begin, *inside], [*inside, at], strict=True):
            if until > since:
                pieces.append((part, until - since))
                ends.append(until)
    return pieces, [sum(end <= moment + 0.5 for end in ends) for moment in at_calls]


def _split(walls: Sequence[float], cpu_ns: float, asleep_ns: float) -> list[tuple[float, float]]:
    """(on a core, asleep) of each piece of work.

    Both are known for the whole step only. What sleeps shows as a long piece: sleep is what pieces are longer than a
    level that makes the sum right. Of the rest each piece computes the same share, and waits for a core the others:
    those waits are left out, for they come back where ranks share cores, and do not where they do not.
    """
    total = sum(walls)
    awake = max(total - asleep_ns, 0.0)
    level = _level(sorted(walls), awake) if awake < total else max(walls, default=0.0)
    computes = min(cpu_ns / awake, 1.0) if awake else 0.0
    return [(min(wall, level) * computes, max(wall - level, 0.0)) for wall in walls]


def _level(ascending: Sequence[float], wanted: float) -> float:
    """Where to cut all off so that they sum up to ``wanted``."""
    left = wanted
    for index, wall in enumerate(ascending):
        level = left / (len(ascending) - index)
        if wall >= level:
            return level
        left -= wall
    return ascending[-1]


def _backend(record: RankRecord) -> str:
    """Whose collectives they are: torch's backend, or ours."""
    settings = record.settings
    if negotiated(record):
        return "nccl" if settings.get("data") == "nccl" else "coord"
    return str(settings.get("backend") or "unknown")
