"""Ranks, counts and numbers in words, for findings."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from coordsim.formats.flight_recorder.job import Job

MOST_LISTED = 8


def names_of(job: Job, ranks: Iterable[int]) -> str:
    """Ranks in words; a dump without a rank by its file's name."""
    ranks = sorted(set(ranks))
    unnamed = [job.ranks[rank].label for rank in ranks if rank < 0]
    named = ranks_in_words([rank for rank in ranks if rank >= 0])
    more = [f"{len(unnamed) - MOST_LISTED} more files"] if len(unnamed) > MOST_LISTED else []
    return ", ".join([*([named] if named else []), *unnamed[:MOST_LISTED], *more])


def ranks_in_words(ranks: Iterable[int]) -> str:
    """Ranks as spans, at most eight of them: rank 3; ranks 0 to 5, 9; ranks 1, 9, ..., 505."""
    spans: list[list[int]] = []
    ordered = sorted({rank for rank in ranks if rank >= 0})
    steps = {after - before for before, after in pairwise(ordered)}
    if len(ordered) > 4 and len(steps) == 1 and (step := steps.pop()) > 1:
        return f"ranks {ordered[0]}, {ordered[1]}, ..., {ordered[-1]} ({len(ordered):,}, in steps of {step})"
    for rank in ordered:
        if spans and rank == spans[-1][1] + 1:
            spans[-1][1] = rank
        else:
            spans.append([rank, rank])
    words = [
        f"{first}" if first == last else f"{first}, {last}" if last == first + 1 else f"{first} to {last}"
        for first, last in spans[:MOST_LISTED]
    ]  # fmt: skip
    left = sum(last - first + 1 for first, last in spans[MOST_LISTED:])
    more = f" and {left:,} more" if left else ""
    return f"rank{'s' if len(ordered) > 1 else ''} {', '.join(words)}{more}" if words else ""


def plural(count: int, one: str, many: str = "") -> str:
    """A count with its noun."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def listed(numbers: Iterable[int]) -> str:
    """The first eight numbers."""
    numbers = list(numbers)
    return ", ".join(map(str, numbers[:MOST_LISTED])) + (", ..." if len(numbers) > MOST_LISTED else "")


def verb(ranks: tuple[int, ...], one: str, many: str) -> str:
    """The form of a verb that goes with this many ranks."""
    return one if len(ranks) == 1 else many
