"""Units at the boundary: text such as ``"3.5us"`` in, exact integers out, and text for people back.

Inside the package every quantity is an ``int`` in one fixed unit (ns, ps, bytes, B/s, FLOP, FLOP/s, mW, ppm,
permille); no float ever enters. Parsing is exact (Decimal, then Fraction); what is
then not a whole number of that unit is **rounded half up** (``"0.5ns"`` is 1 ns, ``"0.4ns"`` is 0 ns).

Every ``parse_*`` function takes text with a unit. A plain 0 (``0`` or ``"0"``) means zero of anything; any
other number without a unit, a negative, infinite or not-a-number value, an unknown unit, or a result beyond
int64 raises :class:`ValueError` with a message fit for users. Units are case-sensitive: ``MB`` is 10^6 bytes,
``MiB`` is 2^20.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from math import floor

INT64_MAX = 2**63 - 1

Quantity = str | int | float | Decimal
"""What a ``parse_*`` function accepts; anything but text is accepted only where the docstring says so."""

_NUMBER = re.compile(r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*(.*)", re.DOTALL)
_LONGEST_TEXT = 64
_LARGEST_EXPONENT = 60

_TIME_PS: Mapping[str, int] = {
    "ps": 1,
    "ns": 10**3,
    "us": 10**6,
    "µs": 10**6,
    "ms": 10**9,
    "s": 10**12,
    "min": 60 * 10**12,
    "h": 3600 * 10**12,
}
_TIME_NS = {unit: scale // 10**3 for unit, scale in _TIME_PS.items() if unit != "ps"}
_BYTES: Mapping[str, int] = {
    "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50,
}  # fmt: skip
_RATE: Mapping[str, Fraction] = {f"{unit}/s": Fraction(scale) for unit, scale in _BYTES.items()} | {
    f"{prefix}bit/s": Fraction(1000**power, 8) for power, prefix in enumerate(("", "k", "M", "G", "T"))
}
_SI = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
_FLOP: Mapping[str, int] = {f"{prefix}FLOP": scale for prefix, scale in _SI.items()}
_FLOPS: Mapping[str, int] = {f"{unit}/s": scale for unit, scale in _FLOP.items()} | {
    f"{prefix}F/s": scale for prefix, scale in _SI.items()
}
_POWER: Mapping[str, int] = {"mW": 1, "W": 10**3, "kW": 10**6, "MW": 10**9}
_SHARE: Mapping[str, int] = {"": 10**6, "%": 10**4, "ppm": 1}

UNITS: Mapping[str, tuple[str, ...]] = {
    "time": tuple(_TIME_NS),
    "short time": tuple(_TIME_PS),
    "size": tuple(_BYTES),
    "rate": tuple(_RATE),
    "FLOP rate": tuple(_FLOPS),
    "number of FLOP": tuple(_FLOP),
    "power": tuple(_POWER),
    "share": tuple(_SHARE),
    "ratio": ("", "%"),
}
"""What each kind of quantity is written in; ``""``: also a bare number."""


def parse_time(value: Quantity) -> int:
    """Nanoseconds from ``"3.5us"``; ns, us (or µs), ms, s, min, h. Rounded half up to whole ns."""
    return _parse(value, _TIME_NS, "time", "5ms")


def parse_picoseconds(value: Quantity) -> int:
    """Picoseconds from ``"4.28ns"``; ps and every unit of :func:`parse_time`."""
    return _parse(value, _TIME_PS, "time", "4.28ns")


def parse_bytes(value: Quantity) -> int:
    """Bytes from ``"64MiB"``; B, kB to PB (powers of 1000), KiB to PiB (powers of 1024)."""
    return _parse(value, _BYTES, "size", "64MiB")


def parse_rate(value: Quantity) -> int:
    """Bytes per second from ``"25GB/s"``; the units of :func:`parse_bytes`, or bit to Tbit, a second."""
    return _parse(value, _RATE, "rate", "25GB/s")


def parse_flops(value: Quantity) -> int:
    """FLOP per second from ``"60TF/s"`` or ``"60TFLOP/s"``."""
    return _parse(value, _FLOPS, "FLOP rate", "60TFLOP/s")


def parse_count_flops(value: Quantity) -> int:
    """A number of FLOP from ``"74.7TFLOP"``."""
    return _parse(value, _FLOP, "number of FLOP", "74.7TFLOP")


def parse_power(value: Quantity) -> int:
    """Milliwatts from ``"300W"``; mW, W, kW, MW."""
    return _parse(value, _POWER, "power", "300W")


def parse_share(value: Quantity) -> int:
    """Parts per million from ``"8%"``, ``"80000ppm"``, or the bare numbers ``"0.08"`` and ``0.08``."""
    return _parse(value, _SHARE, "share", "8%")


def parse_permille(value: Quantity) -> int:
    """Parts per thousand from a bare ratio such as ``1.1`` (a PUE), or from ``"110%"``."""
    return _parse(value, {"": 1000, "%": 10}, "ratio", "1.1")


def parse_percent(value: Quantity) -> int:
    """Whole percent from ``"75%"`` or the bare number ``0.75``."""
    return _parse(value, {"": 100, "%": 1}, "share", "75%")


def format_time(ns: int) -> str:
    """Nanoseconds for people, four significant digits: ``"3.5 us"``, ``"1.25 s"``."""
    return _format(ns, (("s", 10**9), ("ms", 10**6), ("us", 10**3), ("ns", 1)))


def format_bytes(nbytes: int) -> str:
    """Bytes for people, four significant digits, in powers of 1024: ``"64 MiB"``."""
    steps = tuple((unit, 1024**power) for power, unit in enumerate(("B", "KiB", "MiB", "GiB", "TiB", "PiB")))
    return _format(nbytes, steps[::-1])


def format_rate(bytes_per_s: int) -> str:
    """Bytes per second for people, four significant digits, in powers of 1000: ``"25 GB/s"``."""
    steps = tuple(
        (f"{unit}/s", 1000**power) for power, unit in enumerate(("B", "kB", "MB", "GB", "TB", "PB"))
    )
    return _format(bytes_per_s, steps[::-1])


def _parse(value: Quantity, units: Mapping[str, int | Fraction], kind: str, example: str) -> int:
    """``value`` in the base unit of ``units``; a bare number needs the unit ``""``."""
    text = str(value).strip()
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise ValueError(f'{text!r} is not a {kind}; write for example "{example}"')
    if len(text) > _LONGEST_TEXT:
        raise ValueError(f"{text[:20]!r}... is longer than {_LONGEST_TEXT} characters")
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(f'{text!r} is not a {kind}; write for example "{example}"')
    try:
        number = Decimal(match[1])
    except InvalidOperation:  # an exponent that even Decimal refuses
        raise ValueError(f"{text!r} is out of range") from None
    unit = match[2]
    if number < 0:
        raise ValueError(f"{text!r} is negative")
    if unit not in units and (unit or number):
        known = ", ".join(name for name in units if name)
        trouble = f"has the unknown unit {unit!r}" if unit else "has no unit"
        raise ValueError(f'{text!r} {trouble}; write for example "{example}" (units: {known})')
    if number and abs(number.adjusted()) > _LARGEST_EXPONENT:
        raise ValueError(f"{text!r} is out of range")
    result = floor(Fraction(number) * units.get(unit, 1) + Fraction(1, 2))
    if result > INT64_MAX:
        raise ValueError(f"{text!r} is too large to count in 64 bits")
    return result


def _format(value: int, steps: tuple[tuple[str, int], ...]) -> str:
    """``value`` in the largest unit that leaves at least 1, with four significant digits."""
    unit, scale = next((step for step in steps if abs(value) >= step[1]), steps[-1])
    number = Decimal(value) / scale
    whole_digits = max(number.adjusted() + 1, 1) if number else 1
    text = f"{number:.{max(4 - whole_digits, 0)}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} {unit}"
