"""``validate here``: the real backend on this machine, many settings; some are fitted, the others predicted."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coordsim.analyse.validate.recorded.judge import Progress, Row, Validation, validate
from coordsim.analyse.validate.recorded.summary import facts
from coordsim.errors import EnvironmentProblem, InputError
from coordsim.record.horovod_runs import read_folder

SCHEMA = "coordsim.validation.here/1"
FIT = ("here_n2_cache", "here_n2_cache0")
"""Launches whose costs are fitted: two ranks, a cycle of 1 ms."""
TOLERANCE = {"median": 0.05, "p90": 0.15}
"""Promised absolute relative error of predicted step times, where no core is shared."""


def measure(folder: Path, ranks: Sequence[int], quick: bool) -> None:
    """Make the launches that ``folder`` does not hold yet; what is there is kept. Progress goes to stderr.

    Raises EnvironmentProblem when the backend is not installed, or a launch fails.
    """
    if importlib.util.find_spec("torch") is None:
        raise EnvironmentProblem("validate here runs the real backend: pip install 'coordsim[torch]'")
    command = [sys.executable, "-m", "real_backend.launches", str(folder), "--ranks", ",".join(map(str, ranks))]
    ended = subprocess.run([*command, "--quick"] if quick else command, stdout=subprocess.DEVNULL, check=False)
    if ended.returncode:
        raise EnvironmentProblem(f"a launch failed (above); {folder} keeps those that were made: run it again")


def judge(folder: Path, progress: Progress | None = None) -> dict[str, Any]:
    """The JSON object of ``coordsim validate here``. Raises InputError for a folder without the fitted launches."""
    runs = read_folder(folder)
    stems = {launch.file.stem for launch in runs.launches}
    for name in FIT:
        if name not in stems:
            raise InputError.one(str(folder), "", None, f"holds no {name}.json: two ranks are needed for the fit")
    found = validate(runs, FIT, progress=progress)
    errors = [abs(row.relative_error) for row in found.rows if _counts(row) and row.relative_error is not None]
    target = {
        "cases": len(errors),
        "median": float(np.median(errors)) if errors else None,
        "p90": float(np.quantile(errors, 0.9)) if errors else None,
        "tolerance": TOLERANCE,
    }
    return {**facts(found), "schema": SCHEMA, "target": target, "missed": _missed(target), "machine": _machine(found)}


def _counts(row: Row) -> bool:
    """Whether a row is promised anything: a predicted step time of ranks that have a core each."""
    launch = row.case.launches[0]
    return (
        not row.case.fitted and row.metric == "step_ms" and row.judged_by == "median"
        and launch.cores is not None and row.case.ranks <= launch.cores
    )  # fmt: skip


def _missed(target: dict[str, Any]) -> list[str]:
    if not target["cases"]:
        return ["no predicted step time of ranks that have a core each"]
    return [
        f"step time: {name} absolute error {target[name]:.1%} of {target['cases']} cases, promised {promised:.0%}"
        for name, promised in TOLERANCE.items() if target[name] > promised
    ]  # fmt: skip


def _machine(found: Validation) -> dict[str, Any]:
    return {"cores": found.runs.launches[0].cores, "launches": len(found.runs.launches)}
