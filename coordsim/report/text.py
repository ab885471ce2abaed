"""Numbers and names for people, in one place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import Any, TypeVar

from coordsim.units import format_bytes, format_time

T = TypeVar("T")

_SI = (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))
_STEERING = re.compile(r"(?!\x1b\[[012]m)[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that steer a terminal, except the escapes that :class:`~coordsim.report.tables.Page` writes itself."""


def printable(untrusted: str) -> str:
    """Text from a file with everything that does not print spelt out, so that it cannot steer a terminal."""
    if untrusted.isprintable():
        return untrusted
    return "".join(c if c.isprintable() else _spelt(c) for c in untrusted)


def printable_all(value: T) -> T:
    """A copy of what a report is made of, with every text in it, keys too, as :func:`printable` gives it."""
    return _printable_all(value)  # type: ignore[no-any-return]


def _printable_all(value: Any) -> Any:
    if isinstance(value, str) and not isinstance(value, Enum):
        return printable(value)
    if isinstance(value, Mapping):
        return {_printable_all(key): _printable_all(held) for key, held in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{each.name: _printable_all(getattr(value, each.name)) for each in fields(value)})
    if isinstance(value, tuple):
        held = map(_printable_all, value)
        return type(value)(*held) if hasattr(value, "_fields") else tuple(held)
    return [_printable_all(held) for held in value] if isinstance(value, list) else value


def words(name: str) -> str:
    """A key as people read it: ``input_stall`` as ``input stall``."""
    return name.replace("_", " ")


def printable_page(page: str, *, colour: bool = False) -> str:
    """A whole page or note: what steers a terminal spelt out, but for ends of lines, and with ``colour`` our own."""
    if not colour:
        page = page.replace("\x1b", "\\x1b")
    return _STEERING.sub(lambda match: _spelt(match[0]), page)


def _spelt(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode()


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
