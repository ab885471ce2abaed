"""Scenarios of this study, simulated once each and remembered."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from coordsim.analyse.control import control_share, counters
from coordsim.analyse.scaling import baseline_step_s
from coordsim.analyse.validate.published.ranges import SUMMIT
from coordsim.analyse.validate.published.summit import FULL_MACHINE, IMAGES_PER_S, PER_NODE, at_batch
from coordsim.record.breakdown import CONTROL_PARTS
from coordsim.scenario.loading import load_scenario
from coordsim.scenario.model import CONTROL_PLANES, Scenario
from coordsim.simulate.engine import simulate

__all__ = [
    "FULL_MACHINE", "GROUPS", "IMAGES_PER_S", "PER_NODE", "PLANES", "WORKLOADS", "Outcome", "Parameter", "Point",
    "Runs", "all_at", "at_batch", "parameters",
]  # fmt: skip
HERE = Path(__file__).resolve().parent
PLANES = CONTROL_PLANES
WORKLOADS = ("stemdl", "resnet50")
GROUPS = ("none", "layer", "1")


@dataclass(frozen=True)
class Point:
    """One simulation of this study."""

    workload: str
    """``stemdl``, ``resnet50``, or ``resnet50@32`` for another batch."""
    ranks: int
    plane: str
    groups: str
    overrides: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What this study looks at. Seconds."""

    step_s: float
    baseline_s: float
    control_share: float
    messages: float
    """Allreduces a step."""
    message_bytes: float
    parts: dict[str, float]
    samples_per_s: float
    flops: float
    wall_s: float

    @property
    def efficiency(self) -> float:
        return self.baseline_s / self.step_s

    @property
    def control_s(self) -> float:
        return sum(self.parts[name] for name in CONTROL_PARTS)


@dataclass
class Runs:
    """Simulates points, each once."""

    steps: int | None = None
    """Steps per run; None: the scenario files', twice as many on small jobs, 1 where a run takes long."""
    count: int = 0
    _known: dict[Point, Outcome] = field(default_factory=dict)
    _baselines: dict[tuple[int, ...], float] = field(default_factory=dict)

    def __call__(
        self, workload: str, ranks: int, plane: str, groups: str, overrides: tuple[str, ...] = (), seed: int = 0
    ) -> Outcome:
        point = Point(workload, ranks, plane, groups, tuple(overrides), seed)
        if point not in self._known:
            self._known[point] = self._run(self.scenario(point))
            self.count += 1
        return self._known[point]

    def scenario(self, point: Point) -> Scenario:
        name, _, batch = point.workload.partition("@")
        scenario = load_scenario(
            HERE / "scenarios" / f"{name}.toml", ranks=point.ranks, control_plane=point.plane,
            groups=point.groups, seed=point.seed, overrides=point.overrides,
        )  # fmt: skip
        if batch:
            scenario = replace(scenario, workload=at_batch(scenario.workload, int(batch)))
        return replace(scenario, steps=self.steps or _steps(point, scenario.steps))

    def _run(self, scenario: Scenario) -> Outcome:
        found = simulate(scenario)
        work = scenario.workload
        key = (work.forward_ns, work.backward_ns, work.optimizer_ns, work.sample_bytes, work.batch)
        if key not in self._baselines:
            self._baselines[key] = baseline_step_s(scenario)
        step_s, messages = found.step_time_s, counters(found).responses_per_step or 0.0
        rate = scenario.ranks * work.batch / step_s
        return Outcome(
            step_s, self._baselines[key], control_share(found), messages, work.gradient_bytes / max(messages, 1),
            found.breakdown(), rate, rate * work.flops_per_sample, found.wall_s,
        )  # fmt: skip


def _steps(point: Point, usual: int) -> int:
    """Steps that count. Noise here is persistent, so steps differ only in where cycles fall."""
    if point.plane == "hierarchical" and point.ranks > FULL_MACHINE:
        return 1
    return 2 * usual if point.ranks <= 1536 else usual


@dataclass(frozen=True)
class Parameter:
    """One uncertain number."""

    name: str
    label: str
    key: str
    values: tuple[Any, Any, Any]
    costly: str
    source: str
    only: str = ""
    also: tuple[str, ...] = ()
    alone: bool = False
    """A further value of another parameter: looked at on its own, not part of bands."""

    def at(self, index: int) -> tuple[str, ...]:
        """Overrides for the low (0) or high (2) value; none at the median, which is the catalog's."""
        changed = self.values[index] != self.values[1]
        return (f"{self.key}={self.values[index]}", *self.also) if changed else ()

    @property
    def ends(self) -> tuple[int, int]:
        """Indices of the costly and the cheap value."""
        return (2, 0) if self.costly == "high" else (0, 2)


def parameters(workload: str = "") -> list[Parameter]:
    """The parameters that matter to ``workload`` (all of them without one): the product's, and STEMDL's own."""
    found = [Parameter(each.name, each.label, each.key, each.values, each.costly, each.source) for each in SUMMIT]
    with (HERE / "parameters.toml").open("rb") as file:
        tables = tomllib.load(file)
    found += [
        Parameter(name, **{key: tuple(v) if isinstance(v, list) else v for key, v in table.items()})
        for name, table in tables.items()
    ]
    return [each for each in found if not workload or each.only in ("", workload)]


def all_at(workload: str, costly: bool, growth: bool = False) -> tuple[str, ...]:
    """Overrides with every uncertain parameter at its costly (or cheap) end; STEMDL's growth only if asked."""
    found: list[str] = []
    for each in parameters(workload):
        if not each.alone and (growth or not each.only):
            found += each.at(each.ends[0 if costly else 1])
    return tuple(found)
