"""A measured workload as a scenario's files: what it is predicted from, to be read, changed and simulated by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from coordsim.analyse.predict.measured import MeasuredWorkload
from coordsim.record.files import whole_file

TENSORS = "tensors.csv"
SCENARIO = "scenario.toml"


def write_scenario(folder: Path, found: MeasuredWorkload, name: str, source: str) -> Path:
    """``scenario.toml`` and ``tensors.csv`` in ``folder``, which exists; returns the former. ``source``: where from."""
    with whole_file(folder / TENSORS) as path, path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("name", "shape", "dtype", "ready"))
        for each in found.gradients:
            rows.writerow((each.name, "x".join(map(str, each.shape)), each.dtype, each.ready_ns))
    with whole_file(folder / SCENARIO) as path:
        path.write_text(_toml(found, name, source), encoding="utf-8")
    return folder / SCENARIO


def _toml(found: MeasuredWorkload, name: str, source: str) -> str:
    ranks = f"{found.ranks} ranks, {found.steps} steps"
    forward = "nobody marked it: it is in the gradients' ready times" if found.forward_ns is None else "median"
    optimizer = "nobody marked the end of a step" if found.optimizer_ns is None else "median"
    return "\n".join((
        f"# Measured: {source}; {ranks} after the first.",
        "[workload]",
        f"name = {json.dumps(name)}",
        f"description = {json.dumps(f'measured on {ranks}')}",
        f"tensors = {json.dumps(TENSORS)}",
        f'forward = "{max(found.forward_ns or 0, 1)}ns"  # {forward}',
        f'optimizer = "{max(found.optimizer_ns or 0, 1)}ns"  # {optimizer}',
        "batch = 1  # not known to a record; changes no time",
        "",
        "[noise]",
        f'rank = {{ sigma = "{_percent(found.rank_sigma.value)}" }}  # {_range(found.rank_sigma)}',
        f'step = {{ sigma = "{_percent(found.step_sigma.value)}" }}  # {_range(found.step_sigma)}',
        "",
    ))  # fmt: skip


def _percent(share: float) -> str:
    return f"{100 * share:.4f}%"


def _range(each: object) -> str:
    low, high = (getattr(each, key) for key in ("low", "high"))
    return f"{_percent(low)} to {_percent(high)}, resampling ranks and steps"
