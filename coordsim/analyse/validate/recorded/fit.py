"""Costs of one controller from its fitted cases, and how far the data pins them down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coordsim.analyse.validate.recorded.cases import SKIPPED_STEPS, Case
from coordsim.analyse.validate.recorded.costs import CONTROLLERS, Measured, Parameter, loop_costs, parameters
from coordsim.record.horovod_runs import Primitive, Sleep
from coordsim.simulate.closed_loop import run

Float = npt.NDArray[np.float64]

QUANTILES = (10, 50, 90)
_QUANTILE_WEIGHTS = (0.5, 1.0, 0.3)
_METRIC_WEIGHTS = (1.0, 0.5)  # step, tail
_SOFT = 0.1
"""Log errors beyond it count linearly, not squared: one disturbed launch must not decide."""
FIT_SEEDS = 6
"""Launches simulated of each case, with seeds of its own, for lots are drawn once a launch."""
_EXPLORED, _SEARCHED, _RESTARTS = 128, 120, 2
TRIED = _EXPLORED + _SEARCHED * _RESTARTS
_FARTHEST = 4.0
"""Standard deviations from what is expected that a parameter may move."""
_EXPECTED_WEIGHT = 0.03
"""Of what is expected of the parameters against what the cases say: one standard deviation is worth as much as an
error of 1.7 % in every quantile of every case."""
_FLAT = 1.05
"""Parameter sets within 5 % of the smallest loss are as good as the best: the scatter between launches is larger."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Range:
    """What the data says about one parameter, in its unit."""

    parameter: Parameter
    value: float
    low: float
    high: float

    @property
    def pinned(self) -> bool:
        """Whether the data narrows it to within a factor of 2 (or 10 us where it may be negative)."""
        if self.parameter.positive:
            return self.high <= 2 * self.low
        return self.high - self.low <= 10


@dataclass(frozen=True)
class Fit:
    """Costs of one controller."""

    controller: str
    files: tuple[str, ...]
    ranges: tuple[Range, ...]
    ridges: tuple[tuple[str, str], ...]
    """Pairs of parameters that the data moves together."""
    crowded: bool
    measured: Measured
    loss: float
    tried: int
    """Parameter sets evaluated."""

    @property
    def values(self) -> dict[str, float]:
        """By parameter name, in its unit."""
        return {each.parameter.name: each.value for each in self.ranges}


class _Objective:
    """Loss of a point, with what speaks against the point itself; keeps every point it was asked for."""

    def __init__(
        self, cases: Sequence[Case], measured: Measured, of: Sequence[Parameter], progress: Progress | None
    ) -> None:
        self.cases = cases
        self.measured = measured
        self.parameters = of
        self.crowded = False
        self.points: list[Float] = []
        self.losses: list[float] = []
        self._progress = progress
        self._targets = [
            [_log_quantiles(np.concatenate([metric(each) for each in case.recorded])) for metric in METRICS]
            for case in cases
        ]

    @property
    def best(self) -> Float:
        """The best point yet."""
        return self.points[int(np.argmin(self.losses))]

    def __call__(self, point: Float, crowded: bool | None = None) -> float:
        point = np.clip(point, -_FARTHEST, _FARTHEST)
        values = values_of(point, self.parameters)
        crowd = self.crowded if crowded is None else crowded
        total = weight = 0.0
        for place, (case, targets) in enumerate(zip(self.cases, self._targets, strict=True)):
            costs = loop_costs(values, crowd, self.measured, case.controller, case.ranks, case.delay_ns)
            seeds = range(place * FIT_SEEDS, (place + 1) * FIT_SEEDS)
            runs = [run(problem, costs, seed) for problem in case.problems for seed in seeds]
            for metric, target, metric_weight in zip(METRICS, targets, _METRIC_WEIGHTS, strict=True):
                found = _log_quantiles(np.concatenate([metric(each) for each in runs]))
                error = (found - target) / _SOFT
                soft = 2 * (np.sqrt(1 + error**2) - 1)
                total += metric_weight * float(np.dot(soft, _QUANTILE_WEIGHTS))
                weight += metric_weight * sum(_QUANTILE_WEIGHTS)
        loss = total / weight + _EXPECTED_WEIGHT * float(np.dot(point, point))
        if crowded is None:
            self.points.append(point)
            self.losses.append(loss)
            if self._progress is not None:
                self._progress(min(len(self.losses), TRIED), TRIED)
        return loss


def _step_ms(found: Any) -> Float:
    return np.asarray(found.step_ms(SKIPPED_STEPS))


def _tail_ms(found: Any) -> Float:
    return np.asarray(found.tail_ms(SKIPPED_STEPS))


METRICS: tuple[Callable[[Any], Float], ...] = (_step_ms, _tail_ms)
"""Of a recorded workload or a simulated launch: ms, shape [step]."""
METRIC_NAMES = ("step_ms", "tail_ms")


def _log_quantiles(times_ms: Float) -> Float:
    return np.log(np.maximum(np.percentile(times_ms, QUANTILES), 1e-3))


def values_of(point: Float, of: Sequence[Parameter]) -> dict[str, float]:
    """Parameters at a point in standard deviations from what is expected, shape [parameter]."""
    return {each.name: float(each.at(z)) for each, z in zip(of, point, strict=True)}


def fit(
    cases: Sequence[Case], primitives: Sequence[Primitive], sleep: Sleep | None, progress: Progress | None = None
) -> Fit:
    """Fit the costs of one controller to ``cases`` (all of one controller, all simulable). Deterministic.

    Points spread over what is expected (a Sobol sequence), then the simplex of Nelder and Mead from the best of
    them. ``progress`` is called with (parameter sets tried, in all).
    """
    from scipy.optimize import minimize
    from scipy.stats import norm, qmc

    controller = cases[0].controller
    used = [case for case in cases if not case.single] or list(cases)
    ranks = {case.ranks for case in used}
    notices = [each.notice_ns for case in used for each in case.recorded if each.notice_ns is not None]
    measured = Measured.of(sleep, float(np.median(notices)) if notices else None)
    of = parameters(controller, ranks, primitives)
    objective = _Objective(used, measured, of, progress)
    middle = np.zeros(len(of))
    if CONTROLLERS[controller].spins:
        objective.crowded = bool(np.argmin([objective(middle, crowded) for crowded in (False, True)]))
    for row in norm.ppf(qmc.Sobol(len(of), scramble=True, seed=0).random(_EXPLORED)):
        objective(row)
    for _ in range(_RESTARTS):  # a simplex that has collapsed starts again around the best point
        origin = objective.best
        simplex = np.vstack([origin, origin + 0.7 * np.eye(origin.size) * np.where(origin > 0, -1, 1)])
        options = {"initial_simplex": simplex, "maxfev": _SEARCHED, "xatol": 1e-2, "fatol": 1e-4, "adaptive": True}
        minimize(objective, origin, method="Nelder-Mead", options=options)
    return _result(objective, controller, used)


def _result(objective: _Objective, controller: str, used: Sequence[Case]) -> Fit:
    losses, points = np.array(objective.losses), np.array(objective.points)
    at = int(np.argmin(losses))
    good = points[losses <= losses[at] * _FLAT]
    ranges = tuple(
        Range(each, *(float(each.at(z)) for z in (points[at, i], good[:, i].min(), good[:, i].max())))
        for i, each in enumerate(objective.parameters)
    )
    files = dict.fromkeys(launch.file.stem for case in used for launch in case.launches)
    return Fit(
        controller, tuple(files), ranges, tuple(_ridges(good, objective.parameters)), objective.crowded,
        objective.measured, float(losses[at]), len(losses),
    )  # fmt: skip


def _ridges(good: Float, of: Sequence[Parameter]) -> list[tuple[str, str]]:
    """Pairs whose good values are strongly correlated."""
    if len(good) < 2 * len(of):
        return []
    varied = good.std(axis=0) > 1e-6
    found = []
    for i, first in enumerate(of):
        for j in range(i + 1, len(of)):
            if varied[i] and varied[j] and abs(np.corrcoef(good[:, i], good[:, j])[0, 1]) > 0.8:
                found.append((first.name, of[j].name))
    return found
