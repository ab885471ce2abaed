"""Numbers for people, in one place."""

from __future__ import annotations

from coordsim.units import format_bytes, format_time

_SI = (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))


def seconds(value: float) -> str:
    """``1.341 s``, ``415.2 ms``: four significant digits; ``0`` for nothing at all."""
    nanoseconds = round(value * 1e9)
    return format_time(nanoseconds) if nanoseconds else "0"


def percent(share: float) -> str:
    """``0.9555`` as ``95.6 %``."""
    text = f"{100 * share:.1f} %"
    return "0.0 %" if text == "-0.0 %" else text


def number(value: float) -> str:
    """``27,600``, ``1.5``, ``0.02``: about three significant digits, no exponent for what people count."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2g}" if abs(value) < 1 else f"{value:.2f}"


def size(nbytes: float) -> str:
    """Bytes in powers of 1024."""
    return format_bytes(round(nbytes))


def si(value: float, unit: str) -> str:
    """``1.537 EFLOP/s``: four significant digits in powers of 1000."""
    for prefix, scale in _SI:
        if abs(value) >= scale:
            return f"{value / scale:.4g} {prefix}{unit}"
    return f"{value:.4g} {unit}"


def plural(count: int, word: str) -> str:
    """``1 step``, ``20 steps``."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"
