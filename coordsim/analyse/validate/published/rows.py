"""One published number and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Use: TypeAlias = Literal["predicted", "fitted", "check", "curve", "not modelled"]
"""``fitted``: a parameter was set from this very figure. ``check``: arithmetic, consistency or plausibility."""
Verdict: TypeAlias = Literal["hit", "miss", "in part", "curve", "no verdict", "not modelled"]

OVER = "all parameters, or any one, at their ends"
""":attr:`Row.interval_over` where :func:`~.runs.interval` found it."""


@dataclass(frozen=True, slots=True)
class Spread:
    """What one parameter alone does to a figure, from the low to the high end of its range."""

    name: str
    key: str
    """Scenario key, as for ``--set``."""
    low: str
    high: str
    at_low: float
    """The figure with the parameter at ``low`` and all others at their medians."""
    at_high: float
    size: float
    """Largest less smallest of ``at_low``, the median and ``at_high``."""
    source: str


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a curve."""

    request_cost_us: float
    value: float


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison."""

    id: str
    """As in docs/published.md 1: ``V13``."""
    what: str
    published: str
    use: Use
    gpus: int | None = None
    target: float | None = None
    """``published`` as a number, where it is one."""
    low: float | None = None
    """The least with every parameter, or any one, at an end of its range, or of what the row varies; None: none."""
    predicted: float | None = None
    high: float | None = None
    tolerance: str = ""
    """What a hit is; empty: nothing was promised."""
    verdict: Verdict = "no verdict"
    interval_over: str = ""
    spreads: tuple[Spread, ...] = ()
    """Parameters by how much they move the figure, the largest first."""
    curve: tuple[Point, ...] = ()
    cost_that_gives_us: float | None = None
    """Request cost at which a curve passes the published value; None: none up to :attr:`cost_tried_us`."""
    cost_tried_us: float | None = None
    without_fit: float | None = None
    """The same figure before anything but the catalog's own values was fitted."""
    era: str = ""
    """Software and hardware of the published number."""
    fitted: tuple[str, ...] = ()
    """Every parameter of this prediction that was set from some published figure, and from which."""
    source: str = ""
    status: str = ""
    """READ, DERIVED or FIG, as docs/published.md has it."""
    note: str = ""
