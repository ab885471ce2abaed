"""The recorded run at its own number of ranks on its own machine: predicted, measured, and the difference by part.

A prediction for other numbers of ranks starts here. Two levels are set by the record, so that the same model is right
where it was measured: how much CPU time the backend's threads take (their CPU time is recorded), and how long its
collectives take beyond that (waits are recorded). What a step takes beyond the model all the same is *unexplained*: a
part of its own, which every prediction carries along.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from coordsim.analyse.predict.collectives import WORKERS, Costs, collective, cpu_ns
from coordsim.analyse.predict.typical import TypicalStep
from coordsim.record.ranks.own import OWN_PARTS
from coordsim.simulate.shared_cores import (
    Collective,
    Host,
    Program,
    Segment,
    SegmentKind,
    SharedProblem,
    SharedRun,
    run,
)

Float = npt.NDArray[np.float64]
SLICE_NS = 3_000_000
"""How long a thread keeps a core that others wait for (Linux: some milliseconds)."""
STEPS, SKIPPED = 18, 2
"""Steps of a simulation, and how many of them come before those that count."""
REPRODUCED = 0.03
"""Share of the step up to which a record counts as reproduced without its unexplained part."""
BEYOND = 0.15
"""Share from which a record is said to be impossible to reproduce."""
_FEWEST, _MOST = 0.05, 100.0
"""Of a level, against the costs that were timed alone."""
_HALVINGS = 9
_USUAL = (10, 90)
"""Percentiles of ranks' and steps' differences beyond which one counts as the nearer of them: typical steps are
replayed, not the worst."""


class Setting(NamedTuple):
    """How the model is run: what is not certain, and differs between draws."""

    costs: Costs
    """Timed alone, or assumed: their proportions count."""
    slice_ns: int = SLICE_NS
    compute: float = 1.0
    """Factor on a rank's own CPU time."""
    seed: int = 0


class Levels(NamedTuple):
    """Set by the record."""

    cpu: float
    """CPU time of collectives, over what :attr:`Setting.costs` says."""
    latency: float
    """Their latencies, likewise."""
    beside: float = 0.0
    """Time that a training thread waits for a core because of something else on the machine, over its CPU time."""


@dataclass(frozen=True)
class Step:
    """One simulated step at one number of ranks, ns: the mean of the middle half, as of a recorded one."""

    step_ns: float
    parts_ns: Mapping[str, float]
    cpu_ns: float
    """Of all ranks on the busiest host, a step."""
    cores: int
    """Of that host."""
    host_ranks: int


@dataclass(frozen=True)
class Anchor:
    """A record, replayed."""

    typical: TypicalStep
    setting: Setting
    levels: Levels
    replayed: Step

    @property
    def unexplained_ns(self) -> float:
        """Measured less predicted."""
        return self.typical.step_ns - self.replayed.step_ns

    @property
    def off(self) -> float:
        """The replay's error, as a share of the measured step."""
        return -self.unexplained_ns / self.typical.step_ns

    @property
    def by_part_ns(self) -> dict[str, float]:
        """Measured less predicted, by part."""
        return {part: ns - self.replayed.parts_ns.get(part, 0.0) for part, ns in self.typical.parts_ns.items()}

    @property
    def law(self) -> str:
        """How the unexplained part is carried to other numbers of ranks: with the hops of the collectives where it
        stands in the waits, else as it is."""
        waits = self.by_part_ns.get("waits", 0.0)
        rest = self.unexplained_ns - waits
        return "per collective" if abs(waits) > abs(rest) and self.typical.calls else "constant"


def reproduced_words(off: float) -> str:
    """How well a record was replayed."""
    if abs(off) > BEYOND:
        return "cannot be reproduced"
    return "reproduced" if abs(off) <= REPRODUCED else "reproduced in part"


def anchor(typical: TypicalStep, setting: Setting) -> Anchor:
    """Replay the record at its own number of ranks, its levels set by what it measured."""
    levels = fit_levels(typical, setting)
    return Anchor(typical, setting, levels, replayed(typical, setting, levels))


def replayed(typical: TypicalStep, setting: Setting, levels: Levels) -> Step:
    """The record at its own number of ranks, with its straggler if it has one."""
    late = typical.late_rank is not None
    return simulated(typical, setting, levels, typical.ranks, recorded_hosts(typical), late)


def fit_levels(typical: TypicalStep, setting: Setting) -> Levels:
    """CPU by the CPU time of the recorded threads, then latencies by the recorded waits. What ranks waited for a core
    beyond what they cost each other was something else's work: it is taken to go on."""
    ranks = typical.ranks
    alone = sum(
        cpu_ns(collective(typical.backend, call.operation, call.nbytes, ranks, setting.costs), ranks)
        for call in typical.calls
    )
    cpu = min(max(typical.other_cpu_ns / alone, _FEWEST), _MOST) if alone and typical.other_cpu_ns else 1.0
    latency = _latency(typical, setting, Levels(cpu, 1.0))
    if not typical.core_wait_ns:
        return Levels(cpu, latency)
    found = replayed(typical, setting, Levels(cpu, latency))
    own, recorded = (sum(ns for part, ns in parts.items() if part != "waits")
                     for parts in (found.parts_ns, typical.parts_ns))  # fmt: skip
    beside = min(max(recorded - own, 0.0), typical.core_wait_ns) / max(typical.main_cpu_ns, 1.0)
    return Levels(cpu, _latency(typical, setting, Levels(cpu, latency, beside)), beside)


def _latency(typical: TypicalStep, setting: Setting, levels: Levels) -> float:
    """The level at which the replay's waits are the recorded ones, as near as it gets."""
    wanted = typical.parts_ns["waits"]
    if typical.ranks < 2 or not typical.calls:
        return 1.0

    def waits_ns(latency: float) -> float:
        return replayed(typical, setting, levels._replace(latency=latency)).parts_ns["waits"]

    low, high = _FEWEST, _MOST
    if waits_ns(low) >= wanted:
        return low
    if waits_ns(high) <= wanted:
        return high
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if waits_ns(middle) < wanted else (low, middle)
    return float((low * high) ** 0.5)


def recorded_hosts(typical: TypicalStep) -> tuple[Host, ...]:
    """As the run was placed; a host whose cores are not known has one for each thread."""
    return tuple(Host(host.cores or 2 * host.ranks, host.ranks) for host in typical.hosts)


def spread_over(hosts: Sequence[Host], ranks: int) -> tuple[Host, ...]:
    """``ranks`` dealt to the same hosts, as equally as they go."""
    count = min(len(hosts), ranks)
    return tuple(
        Host(host.cores, ranks // count + (index < ranks % count)) for index, host in enumerate(hosts[:count])
    )


def simulated(
    typical: TypicalStep, setting: Setting, levels: Levels, ranks: int, hosts: Sequence[Host], late: bool = False
) -> Step:
    """The typical step on ``ranks`` ranks; ``late``: with the recorded straggler among them."""
    costs = setting.costs.times(levels.cpu, levels.latency)
    collectives = tuple(
        collective(typical.backend, call.operation, call.nbytes, ranks, costs, call.agreed, call.requests)
        for call in typical.calls
    )
    found = run(problem_of(typical, setting, collectives, ranks, hosts, late, levels.beside))
    stragglers = 1 if late and typical.late_rank is not None and ranks > 1 else 0
    return _measured(typical, found, hosts, ranks - stragglers)


def problem_of(
    typical: TypicalStep, setting: Setting, collectives: tuple[Collective, ...], ranks: int, hosts: Sequence[Host],
    late: bool, beside: float = 0.0,
) -> SharedProblem:  # fmt: skip
    """What the shared cores are run on."""
    segments, base = _segments(typical, beside)
    times = base[None, None, :] * _factors(typical, segments, ranks, setting.seed)
    computes = np.array([segment.kind == SegmentKind.COMPUTE for segment in segments])
    times[:, :, computes] *= setting.compute
    if late and typical.late_rank is not None:
        longest = int(np.argmax(base))
        times[-1, :, longest] += typical.late_ns
    program = Program(tuple(segments), np.maximum(np.round(times), 0).astype(np.int64))
    return SharedProblem(
        tuple(hosts), program, collectives, WORKERS.get(typical.backend, 1), setting.slice_ns
    )  # fmt: skip


def _segments(typical: TypicalStep, beside: float = 0.0) -> tuple[list[Segment], Float]:
    """A rank's program, and its typical times; the waits for reductions stand before piece number ``tail``."""
    segments: list[Segment] = []
    times: list[float] = []

    def add(segment: Segment, ns: float = 0.0) -> None:
        segments.append(segment)
        times.append(ns)

    def hand_over(done: int) -> None:
        for index, call in enumerate(typical.calls):
            if call.after == done:
                add(Segment(SegmentKind.SUBMIT, index))
                if call.waited:
                    add(Segment(SegmentKind.WAIT, index))

    for number, piece in enumerate(typical.pieces):
        hand_over(number)
        if number == typical.tail:
            _wait_for_all(typical, add)
        add(Segment(SegmentKind.COMPUTE), piece.cpu_ns)
        add(Segment(SegmentKind.SLEEP), piece.sleep_ns + beside * piece.cpu_ns)
    if typical.tail == len(typical.pieces):
        hand_over(typical.tail)
        _wait_for_all(typical, add)
    return segments, np.array(times)


def _wait_for_all(typical: TypicalStep, add: Callable[[Segment], None]) -> None:
    for index, call in enumerate(typical.calls):
        if not call.waited:
            add(Segment(SegmentKind.WAIT, index))


def _factors(typical: TypicalStep, segments: Sequence[Segment], ranks: int, seed: int) -> Float:
    """How long each rank takes for its own work in each step, over the typical; shape [rank, step, segment].

    Drawn from what the recorded ranks and steps differed by; ranks have as much together as the recorded ones had.
    Where ranks wait for each other within a step (FSDP), each stretch between two waits has a draw of its own, so much
    wider that the whole step varies as it did.
    """
    pool = typical.spread
    rng = np.random.default_rng(seed)
    together = _correlation(pool)
    flat = np.clip(pool, *np.percentile(pool, _USUAL)).ravel()
    flat = flat - flat.mean()  # a typical step is to come out as it was put in
    stretch = np.cumsum([segment.kind == SegmentKind.WAIT for segment in segments])
    stretch = stretch if any(call.waited for call in typical.calls) else np.zeros_like(stretch)
    count = int(stretch[-1]) + 1
    own = rng.choice(flat, (ranks, STEPS, count)) * count**0.5
    common = rng.choice(flat, STEPS)
    factors = 1 + together**0.5 * common[None, :, None] + (1 - together) ** 0.5 * own
    return np.asarray(np.clip(factors, 0.3, 4.0)[:, :, stretch])


def _correlation(pool: Float) -> float:
    """Of two ranks' times in the same step; 0 where one rank alone is known."""
    if pool.shape[0] < 2 or not (pool.std(axis=1) > 0).all():
        return 0.0
    matrix = np.atleast_2d(np.corrcoef(pool))
    return float(np.clip(np.mean(matrix[np.triu_indices(len(matrix), 1)]), 0.0, 1.0))


def _measured(typical: TypicalStep, found: SharedRun, hosts: Sequence[Host], alike: int) -> Step:
    """``alike``: so many of the ranks, the first ones, are no stragglers; parts are theirs."""
    lengths = np.diff(found.end_ns, axis=1)[:alike, SKIPPED - 1 :]
    low, high = np.percentile(lengths.mean(axis=0), (25, 75))
    middle = (low <= lengths.mean(axis=0)) & (lengths.mean(axis=0) <= high)
    step_ns = float(lengths[:, middle].mean())
    segments, _ = _segments(typical)
    parts = dict.fromkeys((*OWN_PARTS, "waits"), 0.0)
    took = found.took_ns[:alike, SKIPPED:][:, middle]
    piece = iter([each.part for each in typical.pieces for _ in range(2)])
    by_part: dict[str, Float] = {}
    for place, segment in enumerate(segments):
        part = "waits" if segment.kind in (SegmentKind.SUBMIT, SegmentKind.WAIT) else next(piece)
        by_part[part] = by_part.get(part, np.zeros(took.shape[:2])) + took[:, :, place]
    parts |= {part: float(ns.mean()) for part, ns in by_part.items()}
    busiest = int(np.argmax(found.busy_ns / np.array([host.cores for host in hosts])))
    return Step(step_ns, parts, float(found.busy_ns[busiest]) / STEPS, hosts[busiest].cores, hosts[busiest].ranks)
