"""A prediction with three intervals that are not mixed: run noise, fitted parameters, and the form of the model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from coordsim.analyse.assumptions import LARGEST_RUN_SEEN
from coordsim.analyse.jitter import Interval
from coordsim.analyse.predict.measured import MeasuredWorkload
from coordsim.analyse.predict.place import write_scenario
from coordsim.analyse.predict.uncertain import Change, Form, Parameter, forms, parameters
from coordsim.analyse.scaling import baseline_step_s
from coordsim.scenario.loading import load_scenario
from coordsim.scenario.model import Scenario
from coordsim.simulate.engine import Simulation, simulate

SCHEMA = "coordsim.prediction/1"
SEEDS = range(12)
DRAWS = 24
_INTERVAL = (5, 95)
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
    effects: tuple[Effect, ...]
    """Of single parameters and forms, the widest first."""

    @property
    def validated_to(self) -> int:
        """Ranks up to which anything of this was compared with a measurement."""
        return max(LARGEST_RUN_SEEN, self.measured.ranks)


def predict(
    found: MeasuredWorkload, name: str, source: str, *, ranks: int, cluster: str, control_plane: str = "cached",
    steps: int = 20, overrides: Sequence[str] = (), progress: Progress | None = None,
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
    effects = sorted((*single, *formed), key=lambda each: -each.width_s)
    parts = [each.breakdown() for each in runs]
    return Prediction(
        found, scenario, runs[0], middle, {name: float(np.mean([each[name] for each in parts])) for name in parts[0]},
        baseline_step_s(scenario), _another(means), _range(drawn, middle),
        (min([each.low_s for each in formed], default=middle), max([each.high_s for each in formed], default=middle)),
        tuple(effects),
    )  # fmt: skip


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


def facts(found: Prediction) -> dict[str, Any]:
    """The one JSON object of ``coordsim predict --json``."""
    measured = found.measured
    return {
        "schema": SCHEMA,
        "ranks": found.scenario.ranks, "cluster": found.scenario.cluster.name,
        "control_plane": found.scenario.control_plane.name,
        "step_time_s": found.step_s, "alone_s": found.alone_s, "scaling_efficiency": found.alone_s / found.step_s,
        "intervals_s": {
            "run_noise": list(found.run_noise), "fitted_parameters": list(found.fitted), "model_form": list(found.form),
        },
        "breakdown_s": found.breakdown_s,
        "effects": [
            {"name": each.name, "low_s": each.low_s, "high_s": each.high_s, "range": each.says, "source": each.source,
             "form": each.form}
            for each in found.effects
        ],
        "dominates": found.effects[0].name if found.effects else None,
        "validated_to_ranks": found.validated_to,
        "extrapolated": found.scenario.ranks > found.validated_to,
        "measured": {
            "ranks": measured.ranks, "hosts": measured.hosts, "steps": measured.steps,
            "tensors": len(measured.gradients), "backward_s": _interval(measured.backward, 1e-9),
            "forward_s": None if measured.forward_ns is None else measured.forward_ns / 1e9,
            "optimizer_s": None if measured.optimizer_ns is None else measured.optimizer_ns / 1e9,
            "rank_sigma": _interval(measured.jitter.rank), "step_sigma": _interval(measured.jitter.step),
            "step_correlation": _interval(measured.jitter.step_correlation),
            "common_sigma": _interval(measured.jitter.common),
            "common_correlation": _interval(measured.jitter.common_correlation),
        },
    }  # fmt: skip


def _interval(each: Interval, scale: float = 1.0) -> dict[str, float]:
    return {key: getattr(each, key) * scale for key in ("value", "low", "high")}
