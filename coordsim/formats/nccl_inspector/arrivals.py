"""Which rank comes last to the collectives of a communicator, and how long the others wait.

With verbose dumps each rank states when its kernel began, by its host's clock. Ranks of one host are compared directly.
Clocks of several hosts are aligned by the ends of the collectives, which all ranks see at about the same time. Without
stamps the durations decide: no rank leaves before the last has come, so the last rank's own time is the shortest.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from coordsim.formats.nccl_inspector.calls import SYNCHRONISING, Columns, Whole
from coordsim.formats.nccl_inspector.records import Records

ONE_CLOCK = "starts of kernels by one host's clock"
ALIGNED = "starts of kernels by the clocks of {hosts} hosts, aligned by the ends of the collectives"
DURATIONS = "durations: the rank that comes last has the shortest"
LEAST_CALLS = 5
LEAST_WAIT_US = 20
"""Shorter waits do not count, since the plug-in learns of a kernel's start by polling."""
LEAST_SHARE = 0.05
"""A wait counts only if it is at least this share of the collective's own time."""


@dataclass(frozen=True)
class Lateness:
    """One rank that comes last more often than chance allows."""

    rank: int
    last: int
    """Number of calls with a wait to which it came last."""
    behind_s: float
    """Median time behind the first rank over those calls."""


@dataclass(frozen=True)
class Arrivals:
    """Arrivals at the calls of one communicator that at least two ranks recorded."""

    communicator: int
    source: str
    """How it was determined: ONE_CLOCK, ALIGNED or DURATIONS."""
    ranks: int
    """Ranks that are compared."""
    calls: int
    waits: int
    """Number of calls at which the first rank waits for the last one by LEAST_WAIT_US and LEAST_SHARE."""
    median_s: float
    """Median over calls of the time from the first rank to the last one."""
    p99_s: float
    waited_s: float
    """Sum of those times."""
    late: list[Lateness]
    aligned: bool
    """Whether clocks of several hosts had to be aligned."""
    by_rank: list[tuple[int, int, float]]
    """For each rank: itself, number of calls with a wait to which it came last, median time behind the first rank in
    s."""


def arrivals_of(columns: Columns, records: Records) -> list[Arrivals]:
    """Return arrivals for each communicator of which two ranks recorded the same calls."""
    by_communicator = []
    synchronising = np.asarray([name in SYNCHRONISING for name in columns.names], dtype=bool)
    bounds = [*np.flatnonzero(np.diff(columns.communicator, prepend=-1)).tolist(), len(columns.communicator)]
    for low, high in pairwise(bounds):
        communicator = columns.communicator[low]
        here = low + np.flatnonzero(synchronising[columns.operation[low:high]])
        arrivals = _of_communicator(columns, records, int(communicator), here)
        if arrivals is not None:
            by_communicator.append(arrivals)
    return by_communicator


def _of_communicator(columns: Columns, records: Records, communicator: int, here: Whole) -> Arrivals | None:
    ranks = np.unique(columns.rank[here])
    if len(ranks) < 2:
        return None
    call = np.cumsum(np.concatenate(([True], (np.diff(columns.number[here]) != 0)
                                     | (np.diff(columns.operation[here]) != 0)))) - 1  # fmt: skip
    once = np.concatenate(([True], (np.diff(columns.rank[here]) != 0) | (np.diff(call) != 0)))
    here, call = here[once], call[once]  # a replayed CUDA graph repeats a number
    whole = np.bincount(call) == len(ranks)
    here = here[whole[call]]
    if not len(here):
        return None
    shape = (-1, len(ranks))
    start, stop = columns.start_us[here].reshape(shape), columns.stop_us[here].reshape(shape)
    time = columns.time_us[here].reshape(shape)
    stamped, timed = (start > 0).all(axis=1), (time > 0).all(axis=1)
    hosts = _hosts(records, communicator, ranks)
    if hosts is not None and stamped.any() and 2 * stamped.sum() >= timed.sum():
        begun, source = _starts(start[stamped], stop[stamped], hosts)
        return _arrivals(communicator, source, ranks, begun, time[stamped])
    if not timed.any():
        return None
    return _arrivals(communicator, DURATIONS, ranks, -time[timed], time[timed])


def _hosts(records: Records, communicator: int, ranks: Whole) -> list[str] | None:
    """Return the ranks' hosts; None if that of a rank is not known."""
    hosts_by_rank = [records.processes.get((communicator, int(rank))) for rank in ranks]
    hosts = [process.host for process in hosts_by_rank if process is not None]
    return hosts if len(hosts) == len(hosts_by_rank) else None


def _starts(start: Whole, stop: Whole, hosts: list[str]) -> tuple[NDArray[np.float64], str]:
    """Return starts in us, shape [call, rank], on the clock of the first rank's host."""
    names = list(dict.fromkeys(hosts))
    begun = start.astype(np.float64)
    if len(names) == 1:
        return begun, ONE_CLOCK
    mine = np.asarray([name == names[0] for name in hosts])
    reference = np.median(stop[:, mine], axis=1)
    for name in names[1:]:
        theirs = np.asarray([host == name for host in hosts])
        begun[:, theirs] -= np.median(np.median(stop[:, theirs], axis=1) - reference)
    return begun, ALIGNED.format(hosts=len(names))


def _arrivals(
    communicator: int, source: str, ranks: Whole, begun: NDArray[np.float64], time: NDArray[np.float64]
) -> Arrivals:
    """Return the arrivals of one communicator.

    ``begun`` has shape [call, rank], us, of which only differences count; ``time`` holds durations in the same shape.
    """
    behind = begun - begun.min(axis=1, keepdims=True)
    spread = behind.max(axis=1)
    waits = spread >= np.maximum(LEAST_WAIT_US, LEAST_SHARE * time.min(axis=1))
    last = np.where(waits, behind.argmax(axis=1), -1)
    calls, count = int(waits.sum()), len(ranks)
    # three standard deviations above what each rank would have if all came last equally often
    chance = calls / count + 3 * (calls / count * (1 - 1 / count)) ** 0.5
    late, by_rank = [], []
    for index, rank in enumerate(ranks):
        times = int((last == index).sum())
        by_rank.append((int(rank), times, float(np.median(behind[:, index])) / 1e6))
        if calls >= LEAST_CALLS and 2 * times > calls and (times > chance or times == calls):
            late.append(Lateness(int(rank), times, float(np.median(spread[last == index])) / 1e6))
    return Arrivals(
        communicator, source, count, len(spread), calls, float(np.median(spread)) / 1e6,
        float(np.percentile(spread, 99)) / 1e6, float(spread.sum()) / 1e6, late,
        source not in (ONE_CLOCK, DURATIONS), by_rank,
    )  # fmt: skip
