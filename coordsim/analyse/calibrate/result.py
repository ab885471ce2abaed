"""What a calibration found, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from coordsim.analyse.predict.collectives import CollectiveCosts

Unit = Literal["ns", "B/s", "share", "number"]

SCHEMA = "coordsim.calibration/1"
LOOSE = 0.5
"""Half an interval's width, as a share of the value, beyond which a value is called a range."""


class TooLittle(Exception):
    """There is not enough to fit this from; the text says what is missing."""


@dataclass(frozen=True)
class Estimate:
    """One number."""

    key: str
    """Of a cluster file (``control.local_latency``); empty: told, and used by nothing."""
    name: str
    value: float
    low: float
    """A 95 % interval: what other repeats of the same measurement would give. What the model leaves out is not in it;
    see the errors."""
    high: float
    unit: Unit
    holds: str
    """Sizes and ranks it was fitted on; nothing is known beyond them."""
    error_median: float | None = None
    """Of the fit it comes from: relative, over the series' medians; None where nothing was left to compare."""
    error_worst: float | None = None
    note: str = ""

    @property
    def loose(self) -> bool:
        """Whether it is a range rather than a value."""
        return self.unit != "number" and self.high - self.low > 2 * LOOSE * abs(self.value)


@dataclass(frozen=True)
class Choice:
    """One setting that is no number, and why."""

    key: str
    value: str
    why: str


@dataclass(frozen=True)
class Candidate:
    """A distribution that was tried on the noise of a step."""

    distribution: str
    parameter: float
    """Its scale over its base: ``sigma``."""
    ks: float
    """Kolmogorov-Smirnov distance."""
    p_value: float | None
    """Share of samples of the fitted distribution that are further from their own fit; None: not simulated."""
    sayable: bool
    """Whether a scenario can say it; others are yardsticks."""


@dataclass(frozen=True)
class Calibration:
    """Everything that was found of one measurement."""

    source: str
    host: dict[str, Any]
    taken: dict[str, Any]
    base: str
    """Cluster whose values stand where nothing was found."""
    estimates: tuple[Estimate, ...]
    choices: tuple[Choice, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    critical_ks: float | None = None
    """Distance that samples of the true distribution exceed in 5 % of the cases."""
    not_fitted: tuple[tuple[str, str], ...] = ()
    """What could not be told, and why."""
    notes: tuple[str, ...] = ()
    collectives: CollectiveCosts | None = None
    """Of a torch backend on shared cores; None where none was measured."""

    @property
    def by_key(self) -> dict[str, Estimate]:
        return {each.key: each for each in self.estimates if each.key}

    def as_json(self) -> dict[str, Any]:
        """Schema :data:`SCHEMA`; times in ns, rates in bytes a second, shares of 1."""
        return {
            "schema": SCHEMA, "source": self.source, "base": self.base, "host": self.host, "taken": self.taken,
            "estimates": [{**asdict(each), "range": each.loose} for each in self.estimates],
            "choices": [asdict(each) for each in self.choices],
            "noise_candidates": [asdict(each) for each in self.candidates], "critical_ks": self.critical_ks,
            "collectives": None if self.collectives is None else asdict(self.collectives),
            "not_fitted": dict(self.not_fitted), "notes": list(self.notes),
        }  # fmt: skip
