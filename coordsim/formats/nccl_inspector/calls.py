"""Calls of collectives, assembled from the records of their ranks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordsim.formats.nccl_inspector.records import GPU, HOST, Records, bus_bytes

Whole = NDArray[np.int64]
SYNCHRONISING = frozenset({"AllReduce", "AllGather", "ReduceScatter", "AlltoAll", "AllToAll"})
"""Operations that no rank ends before every rank has begun."""
MOST_ROWS = 2000
_MOST_DIFFERENCES = 20


@dataclass(frozen=True)
class Columns:
    """The records as arrays of one length, sorted by communicator, operation, number, rank."""

    communicator: Whole
    operation: Whole
    """Place in :attr:`names`."""
    number: Whole
    rank: Whole
    nbytes: Whole
    time_us: NDArray[np.float64]
    """Duration; 0 if none of the collective itself was measured."""
    start_us: Whole
    stop_us: Whole
    gpu: NDArray[np.bool_]
    """Whether the GPU's clock measured the duration."""
    names: list[str]
    first: Whole
    """Index of the first record of each call."""

    @property
    def ends(self) -> Whole:
        """Index behind the last record of each call."""
        return np.append(self.first[1:], len(self.number))


def collective_columns(records: Records) -> Columns:
    """Return the collectives of ``records``; sends and receives have no numbers that ranks share, and are left out."""
    names = sorted({series.operation for series in records.series if not series.point_to_point})
    place = {name: index for index, name in enumerate(names)}
    of = np.asarray(records.of_series, dtype=np.int64)
    kept = np.asarray([not series.point_to_point for series in records.series], dtype=bool)[of]
    of = of[kept]
    communicator = np.asarray([series.communicator for series in records.series], dtype=np.int64)[of]
    rank = np.asarray([series.rank for series in records.series], dtype=np.int64)[of]
    operation = np.asarray([place.get(series.operation, -1) for series in records.series], dtype=np.int64)[of]
    number = np.asarray(records.number, dtype=np.int64)[kept]
    order = np.lexsort((rank, number, operation, communicator))
    source = np.asarray(records.source, dtype=np.int8)[kept]
    time_us = np.where(source == HOST, 0.0, np.asarray(records.time_us, dtype=np.float64)[kept])
    keys = [column[order] for column in (communicator, operation, number)]
    changed = np.any([np.diff(column) != 0 for column in keys], axis=0)
    first = np.concatenate(([0], np.flatnonzero(changed) + 1)) if len(order) else np.empty(0, dtype=np.int64)
    return Columns(
        keys[0], keys[1], keys[2], rank[order], np.asarray(records.nbytes, dtype=np.int64)[kept][order],
        time_us[order], np.asarray(records.start_us, dtype=np.int64)[kept][order],
        np.asarray(records.stop_us, dtype=np.int64)[kept][order], (source == GPU)[order], names, first.astype(np.int64),
    )  # fmt: skip


@dataclass(frozen=True)
class SizeRow:
    """One operation with messages of one size in one communicator. Times in s, None where not measured."""

    communicator: int
    operation: str
    nbytes: int
    calls: int
    records: int
    """Number of records of all ranks together."""
    median_s: float | None
    p99_s: float | None
    bus_Bps: float | None
    """Bus bandwidth at the median time, which includes waiting for late ranks."""
    last_median_s: float | None
    """Median, over the calls that all ranks recorded, of the shortest rank's time, which is that of the rank that came
    last."""
    last_bus_Bps: float | None
    all_gpu: bool
    whole_calls: int
    """Number of calls that all ranks of the communicator recorded with a duration."""


def size_rows(columns: Columns, records: Records) -> list[SizeRow]:
    """Return rows by bytes moved, the most first; at most MOST_ROWS."""
    if not len(columns.first):
        return []
    keys = (columns.nbytes, columns.operation, columns.communicator)
    order = np.lexsort(keys)
    changed = np.any([np.diff(column[order]) != 0 for column in keys], axis=0)
    starts = np.concatenate(([0], np.flatnonzero(changed) + 1))
    ends = np.append(starts[1:], len(order))
    moved = columns.nbytes[order[starts]].astype(np.float64) * (ends - starts)
    shortest = _shortest_of_whole_calls(columns, records)
    rows = [
        _size_row(columns, records, order[starts[place] : ends[place]], shortest)
        for place in np.argsort(-moved, kind="stable")[:MOST_ROWS]
    ]
    return sorted(rows, key=lambda row: (-row.nbytes * row.records, row.communicator, row.operation))


def _size_row(columns: Columns, records: Records, group: Whole, shortest: NDArray[np.float64]) -> SizeRow:
    index = int(group[0])
    communicator, nbytes = int(columns.communicator[index]), int(columns.nbytes[index])
    operation = columns.names[int(columns.operation[index])]
    times = columns.time_us[group]
    times = times[times > 0]
    least = shortest[group]
    least = least[least > 0]
    moved = bus_bytes(operation, nbytes, records.communicators[communicator].ranks)
    median = float(np.median(times)) / 1e6 if len(times) else None
    last = float(np.median(least)) / 1e6 if len(least) else None
    return SizeRow(
        communicator, operation, nbytes, len(np.unique(columns.number[group])), len(group), median,
        float(np.percentile(times, 99)) / 1e6 if len(times) else None,
        moved / median if moved and median else None, last, moved / last if moved and last else None,
        bool(columns.gpu[group].all()), len(least),
    )  # fmt: skip


def _shortest_of_whole_calls(columns: Columns, records: Records) -> NDArray[np.float64]:
    """Return the shortest duration, us, at the first record of each call that all ranks recorded; 0 elsewhere."""
    shortest = np.zeros(len(columns.number))
    ranks = np.asarray([communicator.ranks for communicator in records.communicators])
    whole = (columns.ends - columns.first) == ranks[columns.communicator[columns.first]]
    whole &= np.asarray([columns.names[index] in SYNCHRONISING for index in columns.operation[columns.first]])
    least = np.minimum.reduceat(columns.time_us, columns.first)
    shortest[columns.first[whole]] = least[whole]
    return shortest


def differences(columns: Columns, records: Records) -> list[str]:
    """Describe calls of one number whose messages have different sizes on different ranks."""
    if not len(columns.first):
        return []
    least = np.minimum.reduceat(columns.nbytes, columns.first)
    most = np.maximum.reduceat(columns.nbytes, columns.first)
    differing = []
    for call in np.flatnonzero(least != most)[:_MOST_DIFFERENCES]:
        here = slice(int(columns.first[call]), int(columns.ends[call]))
        sizes, ranks = columns.nbytes[here], columns.rank[here]
        one, other = int(np.argmin(sizes)), int(np.argmax(sizes))
        communicator = records.communicators[int(columns.communicator[here.start])]
        differing.append(
            f"{columns.names[int(columns.operation[here.start])]} {columns.number[here.start]} of {communicator.id}: "
            f"{sizes[one]:,} B on rank {ranks[one]}, {sizes[other]:,} B on rank {ranks[other]}"
        )
    return differing


def missing_numbers(numbers: Whole) -> int:
    """Return how many calls between the first and the last of ``numbers`` have no record."""
    return int(numbers.max() - numbers.min()) + 1 - len(np.unique(numbers)) if len(numbers) else 0


def missing_calls(columns: Columns) -> int:
    """Return the same for each collective of each rank, summed."""
    if not len(columns.number):
        return 0
    keys = (columns.rank, columns.operation, columns.communicator)
    order = np.lexsort((columns.number, *keys))
    number = columns.number[order]
    other = np.any([np.diff(column[order]) != 0 for column in keys], axis=0)
    # within one collective of one rank, what lies between a number and the next one
    return int(np.maximum(np.diff(number) - 1, 0)[~other].sum())
