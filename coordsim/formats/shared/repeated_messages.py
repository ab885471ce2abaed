"""A list of collectives without steps, as a workload: the shortest pattern that it repeats."""

from __future__ import annotations

from collections.abc import Sequence

from coordsim.formats.imported import Gradient

LONGEST_PATTERN = 10_000
LARGEST_BYTES = 9_200_000_000


def repeated(sizes: Sequence[int]) -> list[int] | None:
    """Return the shortest list that the end of ``sizes`` repeats, at least twice and over half of it; None if none.

    Sizes before it (a broadcast of parameters, a shape check) do not count.
    """
    backwards = list(sizes)[::-1]
    for period in range(1, min(len(backwards) // 2, LONGEST_PATTERN) + 1):
        alike = 0
        for index in range(len(backwards) - period):
            if backwards[index] != backwards[index + period]:
                break
            alike += 1
        length = alike + period
        if length >= 2 * period and 2 * length >= len(backwards):
            whole = length // period * period
            first = len(sizes) - whole
            return list(sizes[first : first + period])
    return None


def buckets(sizes: Sequence[int] | None) -> list[Gradient]:
    """Return one gradient for each message, since the content of the messages is not known."""
    if sizes is None or not all(0 < size <= LARGEST_BYTES for size in sizes):
        return []
    return [Gradient(f"bucket.{place}", 0, "", size) for place, size in enumerate(sizes)]
