"""From ranks' records to a verdict: first hosts, then ranks, each found one taken out before the next is looked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from coordsim.analyse.stragglers import judge, words
from coordsim.analyse.stragglers.chain import Chain, beyond_sharing, chain_of, starved
from coordsim.analyse.stragglers.judge import Late
from coordsim.analyse.stragglers.onset import between_gathers, onset, parts_onset
from coordsim.analyse.stragglers.readiness import Readiness, readiness
from coordsim.record.ranks import RankRecord
from coordsim.record.ranks.facts import NOT_NEGOTIATED, control_plane, gathers
from coordsim.record.ranks.hosts import machines, torch_threads
from coordsim.record.ranks.own import ends_known, own_steps
from coordsim.record.trace import Int64

SCHEMA = "coordsim.stragglers/1"
NAMED = 5
"""Late ranks or hosts named at most."""
MINOR = 0.2
"""Share of the first one's lateness below which nobody else is named beside it."""
CLOCK, OWN, WORK = "rank 0's clock", "each rank's own clock", "each rank's own work between gathers"


@dataclass(frozen=True)
class _Measure:
    """Arrival times to be judged, and what is known of their error."""

    name: str
    arrive_SR: Int64
    steps: Int64
    """Places of its steps among those of the readiness, shape [step]."""
    margin_R: Int64


def stragglers(records: Sequence[RankRecord], within: range | None = None) -> dict[str, Any]:
    """The JSON object of schema :data:`SCHEMA`: who was late in a run, or in its steps ``within``.

    ``records``: those of :func:`coordsim.record.ranks.read_folder`, at least one. Times are seconds; what is not
    known is None. The cold step is not looked at.
    """
    found = readiness(records, within)
    step_ns = _step_ns(found)
    numbers = found.steps.tolist()
    tied = all(gathers(record) for record in records)
    timed = control_plane(records[0]) != NOT_NEGOTIATED or ends_known(records, numbers)
    threads = [torch_threads(record) for record in records]
    chain = chain_of([own_steps(record, timed) for record in records], numbers, threads)
    judged = _Judged(found, chain, _shared(records, chain), step_ns)
    seen_any = control_plane(records[0]) != NOT_NEGOTIATED or any(record.responses for record in records)
    if not seen_any:
        measure, late, unsure = None, list[_Unit](), None
    else:
        measure, late, unsure = _search_tied(judged, timed) if tied else _search(judged)
    left = _without(len(found.ranks), [_places(found, each) for each in late])
    seen = None
    if measure is not None:
        seen = judge.smallest_seen(measure.arrive_SR[:, left], measure.margin_R[left], step_ns)
    named = [_described(judged, records, measure, each, left) for each in late] if measure is not None else []
    error = found.clock_error_ns
    facts: dict[str, Any] = {
        "schema": SCHEMA, "verdict": "", "ranks": len(found.ranks), "steps": int(found.steps.size),
        "first_step": int(found.steps[0]) if found.steps.size else None, "step_time_s": step_ns / 1e9 or None,
        "measure": measure.name if measure is not None else None,
        "clock_error_s": None if error is None else error / 1e9, "chance_of_false_alarm": judge.CHANCE, "late": named,
        "costs_together_s": _together(measure, left) if measure is not None and named else None,
        "smallest_seen_s": None if seen is None else seen / 1e9, "shared_cores": judged.shared,
    }  # fmt: skip
    if named:
        facts["verdict"] = words.late(named, int(found.steps[-1]))
    elif judged.sharing is not None:
        facts["verdict"] = words.shared(found.ranks[judged.sharing.unit], judged.sharing)
    elif not seen_any and len(found.ranks) > 1:
        facts["verdict"] = words.UNSEEN
    else:
        facts["verdict"] = words.nobody(facts, tied, None if unsure is None else found.ranks[unsure.unit], unsure)
    return facts


@dataclass
class _Judged:
    """What the search looks at."""

    found: Readiness
    chain: Chain
    shared: bool
    """Whether ranks may be slowed by what else runs on their cores."""
    step_ns: float
    sharing: Late | None = None
    """Who would be named, did shared cores not explain it."""


def _shared(records: Sequence[RankRecord], chain: Chain) -> bool:
    return any(machine.crowded for machine in machines(records)) or starved(chain)


@dataclass(frozen=True)
class _Unit:
    """Somebody late: a rank's place, or a host's."""

    late: Late
    host: str | None = None


def _search(judged: _Judged) -> tuple[_Measure | None, list[_Unit], Late | None]:
    """How it was measured, who is late, and who may be if clocks were better known."""
    found = judged.found
    common, own = _by_clock(found), _by_own_clock(found)
    if common is None:
        return own, _all_late(judged, own) if own is not None else [], None
    late = _all_late(judged, common)
    unsure = None
    if not late and common.margin_R.any() and judged.sharing is None:
        unsure = judge.find(common.arrive_SR, np.zeros_like(common.margin_R), judged.step_ns)
        alone = _all_late(judged, own) if own is not None and unsure is not None else []
        if unsure is not None and any(unsure.unit in _places(found, each) for each in alone):
            return own, alone, None
    return common, late, unsure


def _search_tied(judged: _Judged, timed: bool) -> tuple[_Measure | None, list[_Unit], Late | None]:
    """Where ranks wait for each other in gathers all through the step: who has most to do in between."""
    chain = judged.chain
    if not timed or not chain.steps.size:
        return None, [], None
    places = np.flatnonzero(np.isin(judged.found.steps, chain.steps))
    margin = np.zeros(len(judged.found.ranks), dtype=np.int64)
    measure = _Measure(WORK, chain.parts_SRP.sum(axis=2), places, margin)
    return measure, _all_late(judged, measure), None


def _by_clock(found: Readiness) -> _Measure | None:
    """Arrivals on rank 0's clock; None when somebody's clock is not known."""
    errors = [each for each in found.error_ns if each is not None]
    if len(errors) < len(found.error_ns) or not found.steps.size:
        return None
    mine = np.array(errors, dtype=np.int64)
    others = [max([*errors[:place], *errors[place + 1 :]], default=0) for place in range(len(errors))]
    return _Measure(CLOCK, found.last_SR, np.arange(found.steps.size), mine + np.array(others, dtype=np.int64))


def _by_own_clock(found: Readiness) -> _Measure | None:
    """From the end of the step before to the last submission, on one clock each; None when nobody has such steps."""
    if not found.chained.any():
        return None
    steps = np.flatnonzero(found.chained)
    work = found.last_SR[steps] - found.begun_SR[steps]
    return _Measure(OWN, work, steps, np.zeros(len(found.ranks), dtype=np.int64))


def _all_late(judged: _Judged, measure: _Measure) -> list[_Unit]:
    found, late = judged.found, list[_Unit]()
    while len(late) < NAMED:
        left = _without(len(found.ranks), [_places(found, each) for each in late])
        one = _latest_host(found, measure, left, judged.step_ns) or _latest_rank(measure, left, judged.step_ns)
        if one is None or (late and one.late.median_ns < MINOR * late[0].late.median_ns):
            break
        if judged.shared and not _beyond(judged, one, left):
            judged.sharing = None if late else _of_place(one, _places(found, one)[0])
            break
        late.append(one)
    return late


def _beyond(judged: _Judged, unit: _Unit, left: list[int]) -> bool:
    """Whether shared cores do not explain it, against those of the ``left`` ranks (places) that are not meant."""
    chain = judged.chain.of(judged.found.steps[unit.late.begin : unit.late.end]).among(left)
    places = [left.index(place) for place in _places(judged.found, unit) if place in left]
    return beyond_sharing(chain, places, unit.late.median_ns)


def _of_place(unit: _Unit, place: int) -> Late:
    return replace(unit.late, unit=place)


def _latest_rank(measure: _Measure, left: list[int], step_ns: float) -> _Unit | None:
    late = judge.find(measure.arrive_SR[:, left], measure.margin_R[left], step_ns)
    return None if late is None else _Unit(_moved(late, left[late.unit], measure))


def _latest_host(found: Readiness, measure: _Measure, left: list[int], step_ns: float) -> _Unit | None:
    """Where several hosts have several ranks each: a host arrives when the (lower) middle one of its ranks does."""
    hosts = sorted({found.hosts[place] for place in left})
    members = [[place for place in left if found.hosts[place] == host] for host in hosts]
    if len(hosts) < 2 or min(map(len, members)) < 2:
        return None
    columns = [np.sort(measure.arrive_SR[:, each], axis=1)[:, (len(each) - 1) // 2] for each in members]
    margins = np.array([measure.margin_R[each].max() for each in members], dtype=np.int64)
    late = judge.find(np.stack(columns, axis=1), margins, step_ns)
    return None if late is None else _Unit(_moved(late, -1, measure), hosts[late.unit])


def _moved(late: Late, unit: int, measure: _Measure) -> Late:
    """With the rank's place and the places of steps that the readiness gives them."""
    begin, end = int(measure.steps[late.begin]), int(measure.steps[late.end - 1]) + 1
    return replace(late, unit=unit, begin=begin, end=end)


def _places(found: Readiness, each: _Unit) -> list[int]:
    if each.host is None:
        return [each.late.unit]
    return [place for place, host in enumerate(found.hosts) if host == each.host]


def _without(count: int, taken: list[list[int]]) -> list[int]:
    gone = {place for places in taken for place in places}
    return [place for place in range(count) if place not in gone]


def _described(
    judged: _Judged, records: Sequence[RankRecord], measure: _Measure, each: _Unit, left: list[int]
) -> dict[str, Any]:
    """``left``: places of the ranks that are not late: what the others are compared with, if there are any."""
    found = judged.found
    late, places = each.late, _places(found, each)
    within = slice(late.begin, late.end)
    steps = found.steps[within]
    counted = (measure.steps >= late.begin) & (measure.steps < late.end)
    behind = {place: _behind(measure, counted, place, left) for place in places}
    worst = max(places, key=lambda place: float(np.median(behind[place])))
    middle, low, high = late.median_ns, late.low_ns, late.high_ns
    if each.host is None and left:  # others that are late, too, are no measure
        middle, low, high = judge.median_interval(behind[worst])
        low, high = low - int(measure.margin_R[worst]), high + int(measure.margin_R[worst])
    return {
        "what": "rank" if each.host is None else "host", "host": found.hosts[places[0]],
        "ranks": [found.ranks[place] for place in places], "late_s": middle / 1e9,
        "late_low_s": low / 1e9, "late_high_s": high / 1e9, "last_in": late.last,
        "of_steps": int(counted.sum()), "chance": late.chance,
        "from_step": int(steps[0]), "to_step": int(steps[-1]), "changed": bool(steps.size < found.steps.size),
        "costs_s": late.cost_ns / 1e9, "costs_mean_s": late.cost_mean_ns / 1e9,
        "onset": _onset(judged, records, measure, worst, within, left),
    }  # fmt: skip


def _behind(measure: _Measure, counted: Any, place: int, left: list[int]) -> judge.Numbers:
    """How much later than the median of those who are not late a rank comes, ns, shape [step]."""
    among = [place, *(other for other in left if other != place)] if left else list(range(measure.arrive_SR.shape[1]))
    return judge.behind_median(measure.arrive_SR[counted][:, among])[:, among.index(place)]


def _onset(
    judged: _Judged, records: Sequence[RankRecord], measure: _Measure, place: int, within: slice, left: list[int]
) -> dict[str, Any]:
    """Where the rank at ``place`` gets late: from its own durations where they were recorded, else from its marks."""
    tied = measure.name == WORK
    counted = (measure.steps >= within.start) & (measure.steps < within.stop)
    marked = (
        between_gathers(measure.arrive_SR[counted], place) if tied
        else onset(judged.found, records, place, within, measure.name == OWN)
    )  # fmt: skip
    chain = judged.chain.of(judged.found.steps[within])
    if not chain.spanned or not chain.steps.size:
        return marked | {"parts": None}
    among = sorted({place, *left}) if left else list(range(len(records)))
    return parts_onset(
        chain.among(among), among.index(place), marked, [records[other] for other in among], measure.name == OWN
    )


def _together(measure: _Measure, left: list[int]) -> float | None:
    """Seconds that all others wait, median over steps, for those who are named."""
    if not left:
        return None
    arrive = measure.arrive_SR
    return float(np.median(arrive.max(axis=1) - np.minimum(arrive[:, left].max(axis=1), arrive.max(axis=1)))) / 1e9


def _step_ns(found: Readiness) -> float:
    """Median time from one step's last submission to the next one's, on any clock: the shortest of all ranks'."""
    if found.steps.size < 2:
        return 0.0
    apart = np.diff(found.steps)
    return float(np.median(np.diff(found.last_SR, axis=0) / apart[:, np.newaxis], axis=0).min())
