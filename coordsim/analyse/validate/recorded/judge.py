"""Measured against predicted: quantiles, relative errors, Kolmogorov-Smirnov distances, and how sure each is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from statistics import median

import numpy as np
import numpy.typing as npt

from coordsim.analyse.validate.recorded.cases import Case, cases, controllers
from coordsim.analyse.validate.recorded.costs import CONTROLLERS, loop_costs
from coordsim.analyse.validate.recorded.fit import METRIC_NAMES, METRICS, Fit, fit
from coordsim.errors import InputError
from coordsim.record.horovod_runs import RecordedRuns
from coordsim.simulate.closed_loop import LoopRun, run

Float = npt.NDArray[np.float64]
Progress = Callable[[str, int, int], None]
"""Called with (what, done, in all)."""

DEFAULT_FIT = ("mpi_n2_*",)
TOLERANCE = {"step_ms": 0.10, "tail_ms": 0.20}
"""Median absolute relative error of predicted rows that is promised."""
SEEDS = range(10_000, 10_016)
"""Launches simulated for a prediction; other seeds than those of the fit."""
_RESAMPLES, _BLOCK = 400, 5
_INTERVAL = (5, 95)


@dataclass(frozen=True)
class Quantiles:
    """Of one sample, ms."""

    p10: float
    median: float
    p90: float
    low: float
    """5th and 95th percentile of the median: over launches where there are several, else over blocks of steps
    (measured), or over simulated launches (predicted)."""
    high: float


@dataclass(frozen=True)
class Row:
    """One metric of one case."""

    case: Case
    metric: str
    measured: Quantiles
    predicted: Quantiles | None
    ks: float | None
    """Kolmogorov-Smirnov distance; of a phase lottery the smallest over the phases tried."""
    reason: str
    """Why nothing was predicted."""

    @property
    def relative_error(self) -> float | None:
        """Of the medians."""
        return None if self.predicted is None else self.predicted.median / self.measured.median - 1

    @property
    def judged_by(self) -> str:
        """``median``, or ``ks`` for a lottery over phases that no model can foresee."""
        return "ks" if self.case.single else "median"


@dataclass(frozen=True)
class Validation:
    """All rows, and what they rest on."""

    runs: RecordedRuns
    globs: tuple[str, ...]
    fits: tuple[Fit, ...]
    rows: tuple[Row, ...]

    def median_error(self, fitted: bool, metric: str | None = None) -> float | None:
        """Median absolute relative error over rows judged by medians; None without any."""
        errors = [
            abs(row.relative_error)
            for row in self.rows
            if row.relative_error is not None
            and row.case.fitted is fitted
            and row.judged_by == "median"
            and metric in (None, row.metric)
        ]
        return median(errors) if errors else None

    @property
    def missed(self) -> list[str]:
        """Promised tolerances that the predicted rows miss."""
        found = []
        for metric, tolerance in TOLERANCE.items():
            error = self.median_error(False, metric)
            if error is not None and error > tolerance:
                found.append(f"{metric}: median absolute error {error:.1%}, promised {tolerance:.0%}")
        return found


def validate(
    runs: RecordedRuns, globs: Iterable[str] = DEFAULT_FIT, cores: int | None = None, progress: Progress | None = None
) -> Validation:
    """Fit what ``globs`` name, controller by controller, and predict everything else of the same controller.

    Raises InputError for a glob, other than the default, that matches no launch.
    """
    globs = tuple(globs)
    stems = tuple(launch.file.stem for launch in runs.launches)
    for glob in globs:
        if globs != DEFAULT_FIT and not any(fnmatchcase(stem, glob) for stem in stems):
            raise InputError.one("--fit", "", glob, f"{glob!r} matches no launch of {runs.folder}", stems)
    found = cases(runs, globs, cores)
    fits: dict[str, Fit] = {}
    for controller in controllers(found):
        used = [case for case in found if case.controller == controller and case.fitted and not case.refused]
        if used and controller in CONTROLLERS:
            tick = _named(progress, f"fitting {controller} on {len(used)} cases")
            fits[controller] = fit(used, runs.primitives, runs.sleep, tick)
    tick = _named(progress, "predicting")
    rows: list[Row] = []
    for done, case in enumerate(found):
        rows += _rows(case, fits.get(case.controller), globs)
        if tick is not None:
            tick(done + 1, len(found))
    return Validation(runs, globs, tuple(fits.values()), tuple(rows))


def _named(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(what, done, total)


def _rows(case: Case, costs: Fit | None, globs: Sequence[str]) -> Iterable[Row]:
    reason = case.refused or _no_costs(case, costs, globs)
    simulated = [] if reason or costs is None else simulate_launches(case, costs)
    for name, metric in zip(METRIC_NAMES, METRICS, strict=True):
        launches = [metric(each) for each in case.recorded]
        measured = _measured(launches)
        if not simulated:
            yield Row(case, name, measured, None, None, reason)
            continue
        samples = [metric(each) for each in simulated]
        medians = [float(np.median(each)) for each in samples]
        p10, middle, p90 = np.percentile(np.concatenate(samples), (10, 50, 90))
        low, high = np.percentile(medians, _INTERVAL)
        predicted = Quantiles(float(p10), float(middle), float(p90), float(low), float(high))
        yield Row(case, name, measured, predicted, _ks(case, launches, samples), "")


def _no_costs(case: Case, costs: Fit | None, globs: Sequence[str]) -> str:
    if case.controller not in CONTROLLERS:
        return f"no model of controller {case.controller!r} (known: {', '.join(sorted(CONTROLLERS))})"
    if costs is None:
        fitted = " ".join(globs)
        return f"no fitted file has controller {case.controller} (--fit {fitted}): costs are never carried across"
    return ""


def simulate_launches(case: Case, costs: Fit) -> list[LoopRun]:
    """Simulated launches of one case; of a lottery over phases each starts at another one."""
    found = []
    loop = loop_costs(
        costs.values, costs.crowded, costs.measured, case.controller, case.ranks, case.delay_ns
    )
    for index, seed in enumerate(SEEDS):
        if case.single:
            loop = loop._replace(phase_ppm=index * 1_000_000 // (len(SEEDS) - 1))
        found += [run(problem, loop, seed) for problem in case.problems]
    return found


def _measured(launches: Sequence[Float]) -> Quantiles:
    together = np.concatenate(launches)
    p10, middle, p90 = (float(value) for value in np.percentile(together, (10, 50, 90)))
    rng = np.random.default_rng(0)
    if len(launches) > 1:
        resampled = [
            np.median(np.concatenate([launches[i] for i in rng.integers(len(launches), size=len(launches))]))
            for _ in range(_RESAMPLES)
        ]
    else:
        block = min(_BLOCK, together.size)
        count = -(-together.size // block)
        starts = rng.integers(together.size - block + 1, size=(_RESAMPLES, count))
        picked = starts[:, :, None] + np.arange(block)
        resampled = list(np.median(together[picked.reshape(_RESAMPLES, -1)], axis=1))
    low, high = (float(value) for value in np.percentile(np.array(resampled), _INTERVAL))
    return Quantiles(p10, middle, p90, low, high)


def _ks(case: Case, launches: Sequence[Float], samples: Sequence[Float]) -> float:
    together = np.concatenate(launches)
    if case.single:
        return min(distance(together, sample) for sample in samples)
    return distance(together, np.concatenate(samples))


def distance(first: Float, second: Float) -> float:
    """Largest difference between two empirical distribution functions (Kolmogorov-Smirnov)."""
    from scipy.stats import ks_2samp

    return float(ks_2samp(first, second, method="asymp").statistic)
