"""Sets of ranks as ranges, so that what concerns thousands of ranks can be sent and read."""

from __future__ import annotations

from collections.abc import Iterable

from coordsim.protocol.messages import Ranges


def ranges(ranks: Iterable[int]) -> Ranges:
    """``ranks`` in any order as (first, last) ranges."""
    return united((rank, rank) for rank in ranks)


def united(parts: Iterable[tuple[int, int]]) -> Ranges:
    """Ranges in any order, overlapping or not, as ascending ones that do not touch."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(parts):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return tuple(found)


def size(of: Ranges) -> int:
    """How many ranks."""
    return sum(last - first + 1 for first, last in of)


def spelled(of: Ranges, limit: int = 12) -> str:
    """As "ranks 3-7,12" or "rank 5"; of more than ``limit`` ranges the first ones and how many ranks follow."""
    shown = ",".join(str(first) if first == last else f"{first}-{last}" for first, last in of[:limit])
    rest = size(of[limit:])
    return f"rank{'s' * (size(of) != 1)} {shown}" + (f" and {rest:,} more" if rest else "")
