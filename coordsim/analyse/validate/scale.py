"""``validate scale``: control alone at a few ranks, fitted; at many ranks of the same machine, predicted.

Per step, rank 0 spends ``a + w W + b (N - 1) + c K + d (N - 1) K`` of CPU for N ranks and K tensors, another rank
``e + f K``, each at least 0, for each control plane. W is how often rank 0 wakes. It is measured where jobs are fitted.
Messages that arrive while rank 0 is awake share a wake, so that wakes stop growing once it is hardly asleep: more ranks
than were fitted are predicted with the wakes of the fitted jobs that have the most.

Ranks share cores, so a step takes the CPU time of all, over the cores, times what the fitted job with the most ranks
took longer than that.

Jobs that compete with others for cores take longer, and not evenly. Whether they do is told by how long ranks of jobs
with a core each waited for one: what is promised depends on it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from coordsim.errors import EnvironmentProblem, InputError
from coordsim.record.files import whole_file

SCHEMA = "coordsim.validation.scale/1"
PLANES = ("coordinator", "cached")
FITTED, PREDICTED = (2, 4, 8, 16), (32, 64)
TENSORS = (16, 64, 160)
TOLERANCE: dict[str, dict[str, float | None]] = {
    "quiet": {"cpu": 0.15, "wall": 0.30}, "busy": {"cpu": 0.60, "wall": None},
}  # fmt: skip
"""Promised median absolute relative error of predicted rows, on a machine that does nothing else, or does.

None: nothing is promised.
"""
BUSY = 0.25
"""Time that ranks with a core each may wait for one, against their CPU time, on a machine that is quiet."""

Progress = Callable[[int, int], None]
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Job:
    """What one job took, medians, us a step."""

    plane: str
    ranks: int
    tensors: int
    cores: int
    root_us: float
    """CPU time of rank 0."""
    other_us: float
    """CPU time of the median other rank."""
    wall_us: float
    wakes: float
    """Of rank 0: how often one of its threads had slept."""
    queued_us: float
    """How long threads waited for a core while they could have run, all ranks together."""
    cpu_us: float
    """CPU time of all ranks together."""


def measure(folder: Path, quick: bool = False, progress: Progress | None = None) -> list[Job]:
    """All jobs, from ``folder`` where they are there already, else made now and kept there.

    Raises EnvironmentProblem when a job fails, InputError for a file that is none of ours.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found, plan = [], _plan(quick)
    for done, (plane, ranks, tensors) in enumerate(plan):
        path = folder / f"rounds_{plane}_n{ranks}_t{tensors}.json"
        if not path.exists():
            steps = 40 if ranks <= max(FITTED) else 10
            command = ["-m", "real_backend.launches.rounds", str(ranks), str(tensors), str(steps), plane]
            ended = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, text=True, check=False)
            if ended.returncode:
                raise EnvironmentProblem(f"a job of {ranks} ranks failed (above); {folder} keeps those that were made")
            with whole_file(path) as fresh:
                fresh.write_text(ended.stdout)
        found.append(read_job(path))
        if progress is not None:
            progress(done + 1, len(plan))
    return found


def _plan(quick: bool) -> list[tuple[str, int, int]]:
    ranks = (*FITTED, *(PREDICTED[:1] if quick else PREDICTED))
    tensors = TENSORS[:2] if quick else TENSORS
    return [(plane, n, k) for plane in PLANES for n in ranks for k in tensors]


def read_job(path: Path) -> Job:
    """Raises InputError for what ``real_backend.launches.rounds`` did not write."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        root, *others = cpu = [float(each) for each in found["cpu_us"]]
        return Job(
            str(found["plane"]), int(found["ranks"]), int(found["tensors"]), int(found["cores"]), root, median(others),
            median(float(each) for each in found["step_us"]), float(found["wakes"][0]),
            sum(float(each) for each in found["queued_us"]), sum(cpu),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError.one(str(path), "", None, f"no job of validate scale: {error}") from error


def judge(jobs: Sequence[Job]) -> dict[str, Any]:
    """The one JSON object of ``coordsim validate scale --json``. Raises InputError without a plane's fitted jobs."""
    rows: list[dict[str, Any]] = []
    for plane in dict.fromkeys(job.plane for job in jobs):
        of_plane = [job for job in jobs if job.plane == plane]
        fitted = [job for job in of_plane if job.ranks in FITTED]
        if len(fitted) < 4:
            raise InputError.one("validate scale", plane, len(fitted), "too few jobs to fit on")
        most = max(job.ranks for job in fitted)
        wakes = {job.ranks: median(each.wakes for each in fitted if each.ranks == job.ranks) for job in fitted}
        root = _fit([_root_terms(job, wakes) for job in fitted], [job.root_us for job in fitted])
        other = _fit([_other_terms(job) for job in fitted], [job.other_us for job in fitted])

        def cpu(
            job: Job, root: Numbers = root, other: Numbers = other, wakes: dict[int, float] = wakes
        ) -> tuple[float, float]:
            of_root, of_other = float(_root_terms(job, wakes) @ root), float(_other_terms(job) @ other)
            return of_root, (of_root + (job.ranks - 1) * of_other) / job.cores

        longer = median(job.wall_us / cpu(job)[1] for job in fitted if job.ranks == most)
        for job in of_plane:
            of_root, shared = cpu(job)
            rows.append(_row(job, "cpu", job.root_us, of_root))
            rows.append(_row(job, "wall", job.wall_us, longer * shared))
    load = _load(jobs)
    tolerance = TOLERANCE["quiet" if load is None or load <= BUSY else "busy"]
    errors = {metric: _error(rows, metric) for metric in tolerance}
    promised = {metric: limit for metric, limit in tolerance.items() if limit is not None}
    return {
        "schema": SCHEMA, "rows": rows, "tolerance": tolerance, "median_abs_relative_error": errors,
        "missed": [
            f"{metric}: median absolute error {'not known' if error is None else f'{error:.1%}'}, promised {limit:.0%}"
            for metric, limit in promised.items() if (error := errors[metric]) is None or error > limit
        ],
        "fitted_ranks": sorted({job.ranks for job in jobs if job.ranks in FITTED}), "cores": jobs[0].cores,
        "queued_per_cpu": load, "busy": load is not None and load > BUSY,
    }  # fmt: skip


def _load(jobs: Sequence[Job]) -> float | None:
    """How long ranks that have a core each waited for one, against their CPU time; None where there are none."""
    alone = [job for job in jobs if job.ranks <= job.cores]
    return sum(job.queued_us for job in alone) / sum(job.cpu_us for job in alone) if alone else None


def _root_terms(job: Job, wakes: dict[int, float]) -> Numbers:
    """``wakes``: of the fitted jobs, by ranks."""
    others, tensors = job.ranks - 1, job.tensors
    return np.array([1.0, wakes.get(job.ranks, wakes[max(wakes)]), others, tensors, others * tensors])


def _other_terms(job: Job) -> Numbers:
    return np.array([1.0, job.tensors])


def _fit(terms: Sequence[Numbers], measured: Sequence[float]) -> Numbers:
    """Non-negative least squares of relative errors."""
    from scipy.optimize import nnls

    scale = np.array(measured)[:, None]
    found, _ = nnls(np.stack(terms) / scale, np.ones(len(measured)))
    return np.asarray(found)


def _row(job: Job, metric: str, measured: float, predicted: float) -> dict[str, Any]:
    return {
        "plane": job.plane, "ranks": job.ranks, "tensors": job.tensors, "metric": metric,
        "measured_s": measured / 1e6, "predicted_s": predicted / 1e6, "relative_error": predicted / measured - 1,
        "fitted": job.ranks in FITTED,
    }  # fmt: skip


def _error(rows: Sequence[dict[str, Any]], metric: str) -> float | None:
    errors = [abs(row["relative_error"]) for row in rows if row["metric"] == metric and not row["fitted"]]
    return median(errors) if errors else None
