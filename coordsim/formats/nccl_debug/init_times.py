"""Times that ranks took to initialise communicators, by phase (NCCL 2.22 and later)."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from coordsim.formats.nccl_debug.groups import Group
from coordsim.formats.nccl_debug.lines import Timings
from coordsim.formats.nccl_debug.log import Log

LEAST_LATE_S = 0.1
"""No rank is named for less, since NCCL prints hundredths of a second."""
_ROUNDED_S = 0.015
"""Times that differ by one hundredth may be equal."""


@dataclass(frozen=True)
class InitTimes:
    """Times of the ranks of one communicator whose lines state them."""

    communicator: int | None
    """Place in the list of communicators; None if no line states which it was."""
    function: str | None
    ranks: int
    known_ranks: int
    """Number of ranks whose times are known."""
    median_s: float
    slowest: str
    """Label of the rank with the longest time; "all alike" if times differ by no more than NCCL's rounding."""
    slowest_s: float
    slowest_phase: str | None
    """Longest phase of the slowest rank; None if its phases are torn off."""
    slowest_phase_s: float | None
    phase_median_s: float | None
    phases: dict[str, float]
    """Median of each phase, s."""
    last: str | None
    """The rank for which the others waited in bootstrap, with the evidence."""
    rows: list[tuple[str, float, dict[str, float]]]
    """(label, total, phases) of each rank."""
    torn: int
    """Number of ranks whose phases are torn off."""


def init_times(log: Log, groups: list[Group], labels: dict[int, str]) -> list[InitTimes]:
    """Return the times, the longest first. ``labels`` maps a member's place to its name."""
    rows_of_times = []
    rest = _without(log, groups)
    for place, group in enumerate(groups):
        rows = [(labels[member.index], member.timings) for member in group.members if member.timings is not None] + [
            (f"rank {timings.rank}", timings) for timings in rest.added.get(place, [])
        ]
        if rows:
            function = next((timings.function for _, timings in rows if timings.function), None)
            rows_of_times.append(_of(place, function, group.ranks, rows))
    loose: dict[tuple[str | None, int, int], list[tuple[str, Timings]]] = {}
    turns: dict[tuple[int, str | None, int, int], int] = {}
    for process, timings in rest.loose:
        mine = (process, timings.function, timings.ranks, timings.rank)
        turns[mine] = turns.get(mine, 0) + 1
        key = (timings.function, timings.ranks, turns[mine])
        loose.setdefault(key, []).append((f"rank {timings.rank}", timings))
    for (function, ranks, _), rows in loose.items():
        rows_of_times.append(_of(None, function, ranks, rows))
    return sorted(rows_of_times, key=lambda times: (-times.known_ranks * times.slowest_s, -times.slowest_s))


@dataclass(frozen=True)
class _Rest:
    """Times that no line assigns to a communicator."""

    added: dict[int, list[Timings]]
    """Place of a group -> times of its ranks, if it is the only one with as many ranks and lacks theirs."""
    loose: list[tuple[int, Timings]]


def _without(log: Log, groups: list[Group]) -> _Rest:
    able: dict[int, list[int]] = {}
    for place, group in enumerate(groups):
        able.setdefault(group.ranks, []).append(place)
    stated = {
        (place, member.rank) for place, group in enumerate(groups) for member in group.members
        if member.timings is not None
    }  # fmt: skip
    rest = _Rest({}, [])
    for process, timings in log.loose_timings:
        places = able.get(timings.ranks, [])
        if len(places) == 1 and (places[0], timings.rank) not in stated:
            stated.add((places[0], timings.rank))
            rest.added.setdefault(places[0], []).append(timings)
        else:
            rest.loose.append((process, timings))
    return rest


def _of(place: int | None, function: str | None, ranks: int, rows: list[tuple[str, Timings]]) -> InitTimes:
    whole = [(label, timings) for label, timings in rows if timings.phases]
    names = list(dict.fromkeys(name for _, timings in whole for name in timings.phases))
    medians = {name: median(timings.phases.get(name, 0.0) for _, timings in whole) for name in names}
    slowest, timings = max(rows, key=lambda row: row[1].total)
    if len(rows) > 1 and timings.total - min(row.total for _, row in rows) < _ROUNDED_S:
        slowest = "all alike"
    phase = max(timings.phases, key=lambda name: timings.phases[name]) if timings.phases else None
    return InitTimes(
        place, function, ranks, len(rows), median(timings.total for _, timings in rows), slowest, timings.total,
        phase, None if phase is None else timings.phases[phase], None if phase is None else medians[phase], medians,
        _last(whole, medians), [(label, timings.total, timings.phases) for label, timings in rows],
        len(rows) - len(whole),
    )  # fmt: skip


def _last(rows: list[tuple[str, Timings]], medians: dict[str, float]) -> str | None:
    """Return the rank that comes last, which waits in bootstrap for the shortest time.

    Bootstrap ends when all ranks are there.
    """
    waits = sorted((timings.phases["bootstrap"], label) for label, timings in rows if "bootstrap" in timings.phases)
    if len(waits) < 2:
        return None
    least, label = waits[0]
    others = median(wait for wait, _ in waits[1:])
    if others - least < LEAST_LATE_S or waits[1][0] - least < (others - least) / 2:
        return None
    return f"{label}: {least:.2f} s in bootstrap, where the others spent {others:.2f} s (median)"
