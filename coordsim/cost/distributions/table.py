"""The committed quantile tables, read once.

Standard distributions (scale 1): ``half-normal`` = |N(0, 1)|, ``exponential`` with mean 1, ``uniform`` on
[0, 1); ``normal`` is the half-normal with a sign. ``tables.csv`` is made by
:mod:`coordsim.cost.distributions.build` and never at run time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from coordsim.scenario.model import Distribution

NAMES: tuple[Distribution, ...] = ("half-normal", "normal", "exponential", "uniform")

SEGMENTS = 1024
"""Number of equal parts of [0, 1); the last is divided again into as many, for the tail."""


@dataclass(frozen=True, slots=True)
class Table:
    """Quantiles of one standard distribution."""

    name: Distribution
    values: tuple[int, ...]
    """round(quantile * 2**24), 2,049 values: at i/1024 for i = 0..1023, then at 1023/1024 + j/2**20 for j = 0..1024,
    where the last one is at 1 - 2**-32."""
    symmetric: bool
    """Whether a draw takes the sign of its uppermost bit."""


@cache
def load(name: Distribution) -> Table:
    """The table of a named distribution.

    Raises:
        ValueError: an unknown name.
    """
    if name not in NAMES:
        raise ValueError(f"unknown distribution {name!r}; known: {', '.join(NAMES)}")
    column = "half-normal" if name == "normal" else name
    return Table(name, _columns()[column], symmetric=name == "normal")


@cache
def _columns() -> dict[str, tuple[int, ...]]:
    text = files(__package__).joinpath("tables.csv").read_text(encoding="ascii")
    header, *rows = [line.split(",") for line in text.splitlines() if not line.startswith("#")]
    columns = zip(*(map(int, row) for row in rows), strict=True)
    return dict(zip(header, map(tuple, columns), strict=True))
