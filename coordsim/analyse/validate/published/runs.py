"""Simulations behind published numbers, each run once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean
from typing import TypeAlias

from coordsim.analyse.scaling import baseline_step_s
from coordsim.analyse.validate.published.ranges import Range
from coordsim.analyse.validate.published.rows import Spread
from coordsim.scenario.model import Scenario
from coordsim.simulate.engine import Simulation, simulate

Overrides: TypeAlias = tuple[str, ...]
Figure: TypeAlias = Callable[[Overrides], float]
"""A figure under overrides such as ``noise.rank.sigma=2%``."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure under all parameters at their ends, and under each alone."""

    low: float
    median: float
    high: float
    spreads: tuple[Spread, ...]
    """The largest first."""


@dataclass
class Efficiencies:
    """Throughput a GPU over that of one noise-free GPU alone, remembered by what was asked for."""

    make: Callable[[int, Overrides], Scenario]
    """A scenario of so many ranks, with these overrides."""
    steps: int
    seeds: Sequence[int] = (0,)
    """Means over these: which GPU is the slowest is drawn."""
    alone_s: dict[tuple[int, Overrides], float] = field(default_factory=dict)
    """The step time of one GPU, by what was asked for."""
    _known: dict[tuple[int, Overrides], float] = field(default_factory=dict)

    def __call__(self, ranks: int, overrides: Overrides = ()) -> float:
        if (ranks, overrides) not in self._known:
            scenario = replace(self.make(ranks, overrides), steps=self.steps)
            self.alone_s[ranks, overrides] = alone_s = baseline_step_s(scenario)
            self._known[ranks, overrides] = mean(
                alone_s / simulate(replace(scenario, seed=seed)).step_time_s for seed in self.seeds
            )
        return self._known[ranks, overrides]


@dataclass
class Steps:
    """Simulations of one seed, remembered by what was asked for."""

    make: Callable[..., Scenario]
    steps: int
    _known: dict[tuple[object, ...], Simulation] = field(default_factory=dict)

    def __call__(self, *asked: object) -> Simulation:
        if asked not in self._known:
            self._known[asked] = simulate(replace(self.make(*asked), steps=self.steps))
        return self._known[asked]


def all_at(ranges: Sequence[Range], costly: bool) -> Overrides:
    """Every parameter at its costly, or cheap, end."""
    return tuple(override for each in ranges for override in each.end(costly))


def interval(figure: Figure, ranges: Sequence[Range]) -> Interval:
    """The figure with all parameters at their costly and at their cheap ends, and with each alone at both.

    Its low and high are the least and the largest of all these.
    """
    median = figure(())
    found = [median, *(figure(all_at(ranges, costly)) for costly in (True, False))]
    spreads = []
    for each in ranges:
        at_low, at_high = figure(each.at(0)), figure(each.at(2))
        found += [at_low, at_high]
        size = max(at_low, at_high, median) - min(at_low, at_high, median)
        spreads.append(Spread(each.label, each.key, each.values[0], each.values[2], at_low, at_high, size, each.source))
    spreads.sort(key=lambda each: -each.size)
    return Interval(min(found), median, max(found), tuple(spreads))


def bisect(excess: Callable[[float], float], low: float, high: float, parts: int = 500) -> float | None:
    """Where ``excess`` turns positive, to 1/``parts`` of the range; None: positive from the start, or never."""
    if excess(low) >= 0 or excess(high) < 0:
        return None
    width = (high - low) / parts
    while high - low > width:
        middle = (low + high) / 2
        low, high = (low, middle) if excess(middle) >= 0 else (middle, high)
    return (low + high) / 2


def value_that_gives(figure: Figure, target: float, parameter: Range) -> str | None:
    """The parameter's value, within its range and to 2 % of it, at which the figure is ``target``; None: none is.

    Takes the figure for monotone in the parameter; where it is not, this is one crossing of several.
    """
    if parameter.between(0) is None:
        return None
    sign = 1 if figure(parameter.at(2)) >= figure(parameter.at(0)) else -1

    def excess(share: float) -> float:
        return sign * (figure((f"{parameter.key}={parameter.between(share)}",)) - target)

    share = bisect(excess, 0, 1, parts=50)
    return None if share is None else parameter.between(share)
