"""Ranges in words."""

from __future__ import annotations

from collections.abc import Iterable

from coordsim.record.measurement import Series
from coordsim.units import format_bytes


def sizes_of(series: Iterable[Series]) -> str:
    """``8 B to 64 KiB``."""
    return _span(sorted({each.nbytes for each in series}), format_bytes)


def ranks_of(series: Iterable[Series]) -> str:
    """``2 ranks``, ``2 to 8 ranks``."""
    found = sorted({each.ranks for each in series})
    return f"{_span(found, str)} rank{'s' if found[-1] > 1 else ''}"


def counts_of(series: Iterable[Series], what: str) -> str:
    """``16 to 1000 tensors``."""
    return f"{_span(sorted({each.count for each in series}), str)} {what}"


def _span(found: list[int], told: object) -> str:
    assert callable(told)
    first, last = told(found[0]), told(found[-1])
    return str(first) if first == last else f"{first} to {last}"
