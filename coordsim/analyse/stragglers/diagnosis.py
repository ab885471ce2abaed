"""The straggler verdict of a run: late hosts first, then late ranks.

Each late host or rank is removed from the comparison before the next one is looked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from coordsim.analyse.medians import median_interval
from coordsim.analyse.stragglers import judge, words
from coordsim.analyse.stragglers.chain import Chain, build_chain, exceeds_sharing, lacks_cores
from coordsim.analyse.stragglers.judge import Late
from coordsim.analyse.stragglers.onset import locate_between_gathers, locate_by_marks, locate_by_parts
from coordsim.analyse.stragglers.readiness import Readiness, readiness
from coordsim.record.findings import LateUnit, Onset, Stragglers
from coordsim.record.ranks import RankRecord
from coordsim.record.ranks.facts import gathers, negotiated
from coordsim.record.ranks.hosts import machines, torch_threads
from coordsim.record.ranks.own import ends_known, own_steps
from coordsim.record.trace import Int64

NAMED = 5
"""Largest number of late ranks or hosts that are named."""
MINOR = 0.2
"""A further rank or host is named only if its lateness is at least this share of the first one's."""
CLOCK, OWN, WORK = "rank 0's clock", "each rank's own clock", "each rank's own work between gathers"


@dataclass(frozen=True)
class _Measure:
    """Arrival times to be judged, ns, and their error."""

    name: str
    arrive_SR: Int64
    steps: Int64
    """Place of each of its steps among the steps of the readiness, shape [step]."""
    margin_R: Int64
    """Largest error of each rank's times against any other rank's, ns, shape [rank]."""


def stragglers(records: Sequence[RankRecord], within: range | None = None) -> Stragglers:
    """Find the late ranks and hosts of a run, or of its steps ``within``.

    ``records`` are those of :func:`coordsim.record.ranks.read_folder`, at least one. The cold
    step is not judged.
    """
    ready = readiness(records, within)
    step_ns = _step_ns(ready)
    numbers = ready.steps.tolist()
    tied = all(gathers(record) for record in records)
    timed = negotiated(records[0]) or ends_known(records, numbers)
    threads = [torch_threads(record) for record in records]
    chain = build_chain([own_steps(record, timed) for record in records], numbers, threads)
    judged = _Judged(ready, chain, _cores_are_shared(records, chain), step_ns)
    collectives_known = negotiated(records[0]) or any(record.responses for record in records)
    if not collectives_known:
        measure, late, unsure = None, list[_Unit](), None
    else:
        measure, late, unsure = _search_tied(judged, timed) if tied else _search(judged)
    left = _places_left(len(ready.ranks), [_places_of(ready, unit) for unit in late])
    seen = None
    if measure is not None:
        seen = judge.smallest_detectable_ns(measure.arrive_SR[:, left], measure.margin_R[left], step_ns)
    named = tuple(_describe(judged, records, measure, unit, left) for unit in late) if measure is not None else ()
    error = ready.clock_error_ns
    diagnosis = Stragglers(
        verdict="", ranks=len(ready.ranks), steps=int(ready.steps.size),
        first_step=int(ready.steps[0]) if ready.steps.size else None, step_time_s=step_ns / 1e9 or None,
        measure=measure.name if measure is not None else None,
        clock_error_s=None if error is None else error / 1e9, chance_of_false_alarm=judge.CHANCE, late=named,
        costs_together_s=_joint_cost_s(measure, left) if measure is not None and named else None,
        smallest_seen_s=None if seen is None else seen / 1e9, shared_cores=judged.shared,
    )  # fmt: skip
    if named:
        verdict = words.describe_late(named, int(ready.steps[-1]))
    elif judged.sharing is not None:
        verdict = words.explain_shared_cores(ready.ranks[judged.sharing.unit], judged.sharing)
    elif not collectives_known and len(ready.ranks) > 1:
        verdict = words.UNSEEN
    else:
        unsure_rank = None if unsure is None else ready.ranks[unsure.unit]
        verdict = words.explain_nobody(diagnosis, tied, unsure_rank, unsure)
    return replace(diagnosis, verdict=verdict)


@dataclass
class _Judged:
    """The data that the search judges, and its by-product ``sharing``."""

    ready: Readiness
    chain: Chain
    shared: bool
    """Whether other work on the ranks' cores may slow them."""
    step_ns: float
    sharing: Late | None = None
    """The rank that would be named if shared cores did not explain its lateness."""


def _cores_are_shared(records: Sequence[RankRecord], chain: Chain) -> bool:
    return any(machine.crowded for machine in machines(records)) or lacks_cores(chain)


@dataclass(frozen=True)
class _Unit:
    """A late host, or a late rank if ``host`` is None; ``late.unit`` is then the rank's place."""

    late: Late
    host: str | None = None


def _search(judged: _Judged) -> tuple[_Measure | None, list[_Unit], Late | None]:
    """Return the measure used, the late units, and the rank that would be late if clocks were known exactly."""
    ready = judged.ready
    common, own = _measure_common_clock(ready), _measure_own_clock(ready)
    if common is None:
        return own, _find_all(judged, own) if own is not None else [], None
    late = _find_all(judged, common)
    unsure = None
    if not late and common.margin_R.any() and judged.sharing is None:
        unsure = judge.find_latest(common.arrive_SR, np.zeros_like(common.margin_R), judged.step_ns)
        alone = _find_all(judged, own) if own is not None and unsure is not None else []
        if unsure is not None and any(unsure.unit in _places_of(ready, unit) for unit in alone):
            return own, alone, None
    return common, late, unsure


def _search_tied(judged: _Judged, timed: bool) -> tuple[_Measure | None, list[_Unit], Late | None]:
    """Search for late ranks by own work between gathers, where ranks wait for each other all through the step.

    ``timed`` says whether the ends of the gathers are known. The result is that of :func:`_search`.
    """
    chain = judged.chain
    if not timed or not chain.steps.size:
        return None, [], None
    places = np.flatnonzero(np.isin(judged.ready.steps, chain.steps))
    margin = np.zeros(len(judged.ready.ranks), dtype=np.int64)
    measure = _Measure(WORK, chain.parts_SRP.sum(axis=2), places, margin)
    return measure, _find_all(judged, measure), None


def _measure_common_clock(ready: Readiness) -> _Measure | None:
    """Return arrivals on rank 0's clock; None when the offset of some rank's clock is not known."""
    errors = [error for error in ready.error_ns if error is not None]
    if len(errors) < len(ready.error_ns) or not ready.steps.size:
        return None
    mine = np.array(errors, dtype=np.int64)
    others = [max([*errors[:place], *errors[place + 1 :]], default=0) for place in range(len(errors))]
    return _Measure(CLOCK, ready.last_SR, np.arange(ready.steps.size), mine + np.array(others, dtype=np.int64))


def _measure_own_clock(ready: Readiness) -> _Measure | None:
    """Return the times from the end of the preceding step to the last submission, each on the rank's own clock.

    The result is None when there are no steps whose predecessor every rank has recorded.
    """
    if not ready.chained.any():
        return None
    steps = np.flatnonzero(ready.chained)
    work = ready.last_SR[steps] - ready.begun_SR[steps]
    return _Measure(OWN, work, steps, np.zeros(len(ready.ranks), dtype=np.int64))


def _find_all(judged: _Judged, measure: _Measure) -> list[_Unit]:
    """Find all late units by ``measure``, the latest first.

    The search ends at a unit whose lateness shared cores explain; ``judged.sharing`` is set if it is the first one.
    """
    ready, late = judged.ready, list[_Unit]()
    while len(late) < NAMED:
        left = _places_left(len(ready.ranks), [_places_of(ready, unit) for unit in late])
        latest = _find_host(ready, measure, left, judged.step_ns) or _find_rank(measure, left, judged.step_ns)
        if latest is None or (late and latest.late.median_ns < MINOR * late[0].late.median_ns):
            break
        if judged.shared and not _exceeds_sharing(judged, latest, left):
            judged.sharing = None if late else replace(latest.late, unit=_places_of(ready, latest)[0])
            break
        late.append(latest)
    return late


def _exceeds_sharing(judged: _Judged, unit: _Unit, left: list[int]) -> bool:
    """Return whether shared cores do not explain the lateness of ``unit`` against the other ranks of ``left``."""
    chain = judged.chain.select_steps(judged.ready.steps[unit.late.begin : unit.late.end]).select_ranks(left)
    places = [left.index(place) for place in _places_of(judged.ready, unit) if place in left]
    return exceeds_sharing(chain, places, unit.late.median_ns)


def _find_rank(measure: _Measure, left: list[int], step_ns: float) -> _Unit | None:
    late = judge.find_latest(measure.arrive_SR[:, left], measure.margin_R[left], step_ns)
    return None if late is None else _Unit(_in_readiness(late, left[late.unit], measure))


def _find_host(ready: Readiness, measure: _Measure, left: list[int], step_ns: float) -> _Unit | None:
    """Find a late host, where several hosts have several ranks each.

    A host arrives when the middle one of its ranks (the lower one of two) arrives.
    """
    hosts = sorted({ready.hosts[place] for place in left})
    members = [[place for place in left if ready.hosts[place] == host] for host in hosts]
    if len(hosts) < 2 or min(map(len, members)) < 2:
        return None
    columns = [np.sort(measure.arrive_SR[:, places], axis=1)[:, (len(places) - 1) // 2] for places in members]
    margins = np.array([measure.margin_R[places].max() for places in members], dtype=np.int64)
    late = judge.find_latest(np.stack(columns, axis=1), margins, step_ns)
    return None if late is None else _Unit(_in_readiness(late, -1, measure), hosts[late.unit])


def _in_readiness(late: Late, unit: int, measure: _Measure) -> Late:
    """Return ``late`` with the given ``unit``, and with its steps as places in the readiness, not in the measure."""
    begin, end = int(measure.steps[late.begin]), int(measure.steps[late.end - 1]) + 1
    return replace(late, unit=unit, begin=begin, end=end)


def _places_of(ready: Readiness, unit: _Unit) -> list[int]:
    if unit.host is None:
        return [unit.late.unit]
    return [place for place, host in enumerate(ready.hosts) if host == unit.host]


def _places_left(count: int, taken: list[list[int]]) -> list[int]:
    """Return the places of ``count`` ranks that are in none of the lists ``taken``."""
    gone = {place for places in taken for place in places}
    return [place for place in range(count) if place not in gone]


def _describe(
    judged: _Judged, records: Sequence[RankRecord], measure: _Measure, unit: _Unit, left: list[int]
) -> LateUnit:
    """Describe one late unit.

    ``left`` holds the places of the ranks that are not late. Late ranks are compared with these, if there are any.
    """
    ready = judged.ready
    late, places = unit.late, _places_of(ready, unit)
    within = slice(late.begin, late.end)
    steps = ready.steps[within]
    counted = (measure.steps >= late.begin) & (measure.steps < late.end)
    behind = {place: _lateness_ns(measure, counted, place, left) for place in places}
    worst = max(places, key=lambda place: float(np.median(behind[place])))
    middle, low, high = late.median_ns, late.low_ns, late.high_ns
    if unit.host is None and left:  # The interval of the search compared with all others, of which some are late, too.
        middle, low, high = median_interval(behind[worst])
        low, high = low - int(measure.margin_R[worst]), high + int(measure.margin_R[worst])
    return LateUnit(
        what="rank" if unit.host is None else "host", host=ready.hosts[places[0]],
        ranks=tuple(ready.ranks[place] for place in places), late_s=middle / 1e9, late_low_s=low / 1e9,
        late_high_s=high / 1e9, last_in=late.last, of_steps=int(counted.sum()), chance=late.chance,
        from_step=int(steps[0]), to_step=int(steps[-1]), changed=bool(steps.size < ready.steps.size),
        costs_s=late.cost_ns / 1e9, costs_mean_s=late.cost_mean_ns / 1e9,
        onset=_locate_onset(judged, records, measure, worst, within, left),
    )  # fmt: skip


def _lateness_ns(measure: _Measure, counted: Any, place: int, left: list[int]) -> judge.Numbers:
    """Return how much later than the median of the ranks ``left`` a rank arrives, ns, shape [step]."""
    among = [place, *(other for other in left if other != place)] if left else list(range(measure.arrive_SR.shape[1]))
    return judge.behind_median(measure.arrive_SR[counted][:, among])[:, among.index(place)]


def _locate_onset(
    judged: _Judged, records: Sequence[RankRecord], measure: _Measure, place: int, within: slice, left: list[int]
) -> Onset:
    """Locate the onset of the rank at ``place``: by durations if they were recorded on all ranks, else by marks."""
    tied = measure.name == WORK
    counted = (measure.steps >= within.start) & (measure.steps < within.stop)
    marked = (
        locate_between_gathers(measure.arrive_SR[counted], place) if tied
        else locate_by_marks(judged.ready, records, place, within, measure.name == OWN)
    )  # fmt: skip
    chain = judged.chain.select_steps(judged.ready.steps[within])
    if not chain.spanned or not chain.steps.size:
        return marked
    among = sorted({place, *left}) if left else list(range(len(records)))
    compared = [records[other] for other in among]
    return locate_by_parts(chain.select_ranks(among), among.index(place), marked, compared, measure.name == OWN)


def _joint_cost_s(measure: _Measure, left: list[int]) -> float | None:
    """Return the seconds a step for which the ranks ``left`` wait for all late ranks together, median over steps."""
    if not left:
        return None
    arrive = measure.arrive_SR
    return float(np.median(arrive.max(axis=1) - np.minimum(arrive[:, left].max(axis=1), arrive.max(axis=1)))) / 1e9


def _step_ns(ready: Readiness) -> float:
    """Return the shortest of all ranks' median times from one step's last submission to the next step's, ns."""
    if ready.steps.size < 2:
        return 0.0
    apart = np.diff(ready.steps)
    return float(np.median(np.diff(ready.last_SR, axis=0) / apart[:, np.newaxis], axis=0).min())
