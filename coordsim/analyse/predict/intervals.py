"""A prediction on a described cluster: one interval, and what it is made of (run noise, parameters, the form)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from coordsim.analyse.predict.measured import MeasuredWorkload
from coordsim.analyse.predict.place import write_scenario
from coordsim.analyse.predict.uncertain import Change, Form, Parameter, forms, parameters
from coordsim.analyse.scaling import baseline_step_s
from coordsim.scenario.loading import load_scenario
from coordsim.scenario.model import Scenario
from coordsim.simulate.engine import Simulation, simulate

SEEDS = range(12)
DRAWS = 24
_INTERVAL = (5, 95)
_END = NormalDist().inv_cdf(_INTERVAL[1] / 100)
_MIXED = 4000
"""Draws of everything together."""
_UNEXPLAINED = 1.0
"""Share by which the unexplained part may be off, at the ends of the interval: it was seen at one number of ranks."""
AS_FOUND = Change()

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Effect:
    """Mean step time with one thing otherwise, s."""

    name: str
    low_s: float
    high_s: float
    says: str
    source: str
    form: bool = False
    """Whether it is another form of the model."""

    @property
    def width_s(self) -> float:
        return self.high_s - self.low_s


@dataclass(frozen=True)
class Prediction:
    """Of one scenario."""

    measured: MeasuredWorkload
    scenario: Scenario
    central: Simulation
    """With the first seed."""
    step_s: float
    """Mean step time over all seeds, s."""
    breakdown_s: dict[str, float]
    """So are its parts."""
    alone_s: float
    """Step time of one noise-free median rank alone, s."""
    run_noise: tuple[float, float]
    """5th and 95th percentile of the mean step time of a run of as many steps, s."""
    fitted: tuple[float, float]
    """The same of the expected step time, all parameters drawn together between their ends."""
    form: tuple[float, float]
    """Smallest and largest over forms of the model."""
    interval: tuple[float, float]
    """Where the mean step of a new run is in 90 of 100 cases, s: all of these and what is unexplained, together."""
    beside_s: float
    """What of a step no simulation has (input, between steps) and what the record leaves unexplained, s; it is in all
    times here."""
    unexplained: tuple[float, float]
    """The interval if only the unexplained part were uncertain, s."""
    occasional_s: float
    """What evaluation and checkpoints add to the mean step."""
    effects: tuple[Effect, ...]
    """Of single parameters and forms, the widest first."""

    @property
    def components(self) -> dict[str, tuple[float, float]]:
        """The intervals by name."""
        return {
            "run noise": self.run_noise, "parameters": self.fitted, "form": self.form, "unexplained": self.unexplained,
        }

    @property
    def data_plane(self) -> str:
        """Whose collectives the cluster describes."""
        data = self.scenario.cluster.data
        return f"NCCL {data.nccl}" if data.allreduce != "free" else "nothing: collectives are free"


class Beside(NamedTuple):
    """What is added to each simulated step, ns."""

    parts_ns: Mapping[str, float] = {}
    """By part of the step."""
    unexplained_ns: float = 0.0
    """Of the recorded run, carried along."""


NOTHING_BESIDE = Beside()

def predict(
    found: MeasuredWorkload, name: str, source: str, *, ranks: int, cluster: str, control_plane: str = "cached",
    steps: int = 20, overrides: Sequence[str] = (), beside: Beside = NOTHING_BESIDE, progress: Progress | None = None,
) -> Prediction:  # fmt: skip
    """Place ``found`` on ``ranks`` ranks of ``cluster``, and vary what is not certain.

    ``name``: of the workload; ``source``: where it was measured. Raises InputError for what makes no scenario.
    """
    with tempfile.TemporaryDirectory(prefix="coordsim-predict-") as folder:
        path = write_scenario(Path(folder), found, name, source)

        def load(change: Change = AS_FOUND, seed: int = 0) -> Scenario:
            found = load_scenario(
                path, cluster=cluster, ranks=ranks, control_plane=control_plane, steps=steps, seed=seed,
                overrides=(*overrides, *change.overrides),
            )  # fmt: skip
            return change.of(found)

        scenario = load()
        uncertain, others = list(parameters(found, scenario)), list(forms(found, scenario))
        tick = _Ticks(len(SEEDS) + DRAWS + 2 * len(uncertain) + len(others), progress)
        runs = [tick(simulate(load(seed=seed))) for seed in SEEDS]
        means = np.array([each.step_time_s for each in runs])
        middle = float(means.mean())

        def step_s(change: Change) -> float:
            """Expected with ``change``: what it does to the first seed, on the mean of all."""
            return tick(simulate(load(change))).step_time_s * middle / float(means[0])

        single = [_effect(each, step_s) for each in uncertain]
        drawn = [step_s(change) for change in _draws(uncertain)]
        formed = [_form_effect(each, step_s(each.change), middle) for each in others]
    added = (sum(beside.parts_ns.values()) + beside.unexplained_ns) * 1e-9
    effects = sorted((_moved(each, added) for each in (*single, *formed)), key=lambda each: -each.width_s)
    unexplained = beside.unexplained_ns * 1e-9 * _UNEXPLAINED
    bounds = min([each.low_s for each in formed], default=middle), max([each.high_s for each in formed], default=middle)
    return Prediction(
        measured=found, scenario=scenario, central=runs[0], step_s=middle + added,
        breakdown_s=_parts([each.breakdown() for each in runs], beside), alone_s=baseline_step_s(scenario) + added,
        run_noise=_plus(_another(means), added), fitted=_plus(_range(drawn, middle), added),
        form=_plus(bounds, added), interval=_plus(_together(means, drawn, formed, unexplained), added),
        beside_s=added, unexplained=_plus((middle - abs(unexplained), middle + abs(unexplained)), added),
        occasional_s=found.occasional_ns * 1e-9, effects=tuple(effects),
    )  # fmt: skip


def _together(
    means: npt.NDArray[np.float64], drawn: Sequence[float], formed: Sequence[Effect], unexplained_s: float
) -> tuple[float, float]:
    """5th and 95th percentile of a new run's mean step, without what is beside it.

    Parameters, the noise of a run, one form or another, and the unexplained part off by its share: all drawn
    independently."""
    from scipy.stats import t as student

    rng, middle = np.random.default_rng(2), float(means.mean())
    logs = np.log(np.quantile(np.array(drawn), rng.random(_MIXED), method="weibull") / middle)
    spread = float(np.log(means).std(ddof=1)) * (1 + 1 / means.size) ** 0.5
    logs += student.rvs(means.size - 1, size=_MIXED, random_state=rng) * spread
    forms = [1.0] + [end / middle for each in formed for end in (each.low_s, each.high_s) if end != middle]
    logs += np.log(rng.choice(np.array(forms), _MIXED))
    values = middle * np.exp(logs) + rng.normal(0.0, abs(unexplained_s) / _END, _MIXED)
    low, high = np.percentile(np.maximum(values, 0.1 * middle), _INTERVAL)
    return min(float(low), middle), max(float(high), middle)


def _parts(runs: Sequence[Mapping[str, float]], beside: Beside) -> dict[str, float]:
    """Means over runs, and what is beside them, s."""
    found = {name: float(np.mean([each[name] for each in runs])) for name in runs[0]}
    for name, ns in beside.parts_ns.items():
        found[name] = found.get(name, 0.0) + ns * 1e-9
    return found | {"unexplained": beside.unexplained_ns * 1e-9}


def _plus(ends: tuple[float, float], added: float) -> tuple[float, float]:
    return max(ends[0] + added, 0.0), ends[1] + added


def _moved(each: Effect, added: float) -> Effect:
    return replace(each, low_s=each.low_s + added, high_s=each.high_s + added)


def _effect(each: Parameter, step_s: Callable[[Change], float]) -> Effect:
    ends = step_s(each.at(-1.0)), step_s(each.at(1.0))
    return Effect(each.name, min(ends), max(ends), each.says, each.source)


def _form_effect(each: Form, found_s: float, central_s: float) -> Effect:
    return Effect(each.name, min(found_s, central_s), max(found_s, central_s), each.why, each.why, form=True)


def _draws(uncertain: Sequence[Parameter]) -> Iterator[Change]:
    """Every parameter as a normal law between its ends, each of its layers once (Latin hypercube); the same draws every
    time."""
    rng, law = np.random.default_rng(0), NormalDist()
    end = law.inv_cdf(_INTERVAL[1] / 100)
    layers = [min(max(law.inv_cdf((each + 0.5) / DRAWS) / end, -1.0), 1.0) for each in range(DRAWS)]
    chosen = [rng.permutation(layers) for _ in uncertain]
    for draw in range(DRAWS):
        yield sum((each.at(float(at[draw])) for each, at in zip(uncertain, chosen, strict=True)), AS_FOUND)


def _another(means: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Where the mean of one more run is in 90 of 100 cases: Student's t, since the spread is known from a few runs.

    Of the times themselves; of their logarithms where that would reach below 0, as no step takes less."""
    from scipy.stats import t as student

    count = means.size
    beyond = float(student.ppf(_INTERVAL[1] / 100, count - 1)) * (1 + 1 / count) ** 0.5
    wide = beyond * float(means.std(ddof=1))
    low, high = float(means.mean()) - wide, float(means.mean()) + wide
    if low > 0:
        return low, high
    logs = np.log(means)
    return float(np.exp(logs.mean() - beyond * logs.std(ddof=1))), high


def _range(values: Sequence[float], middle: float) -> tuple[float, float]:
    """Percentiles that a further value is outside of as often as they say (i / (n + 1))."""
    low, high = np.percentile(values, _INTERVAL, method="weibull")
    return min(float(low), middle), max(float(high), middle)


class _Ticks:
    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._progress, self._done = total, progress, 0

    def __call__(self, found: Simulation) -> Simulation:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total)
        return found
