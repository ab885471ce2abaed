"""A measured workload as a scenario's files: what it is predicted from, to be read, changed and simulated by hand."""

from __future__ import annotations

import csv
from pathlib import Path

from coordsim.analyse.jitter import Interval
from coordsim.analyse.predict.measured import MeasuredWorkload
from coordsim.fragments import csv_names, one_line, toml_comment, toml_value
from coordsim.record.files import whole_file

TENSORS = "tensors.csv"
SCENARIO = "scenario.toml"


def write_scenario(folder: Path, found: MeasuredWorkload, name: str, source: str) -> Path:
    """``scenario.toml`` and ``tensors.csv`` in ``folder``, which exists; returns the former. ``source``: where from."""
    with whole_file(folder / TENSORS) as path, path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("name", "shape", "dtype", "ready"))
        for cell, gradient in zip(csv_names(one.name for one in found.gradients), found.gradients, strict=True):
            rows.writerow((cell, "x".join(map(str, gradient.shape)), gradient.dtype, gradient.ready_ns))
    with whole_file(folder / SCENARIO) as path:
        path.write_text(_toml(found, name, source), encoding="utf-8")
    return folder / SCENARIO


def _toml(found: MeasuredWorkload, name: str, source: str) -> str:
    ranks, varies = f"{found.ranks} ranks, {found.steps} steps", found.jitter
    forward = "nobody marked it: it is in the gradients' ready times" if found.forward_ns is None else "median"
    optimizer = "nobody marked the end of a step" if found.optimizer_ns is None else "median"
    return "\n".join((
        toml_comment(f"Measured: {source}; {ranks} after the first."),
        "[workload]",
        f"name = {toml_value(one_line(name))}",
        f"description = {toml_value(f'measured on {ranks}')}",
        f"tensors = {toml_value(TENSORS)}",
        f'forward = "{max(found.forward_ns or 0, 1)}ns"  # {forward}',
        f'optimizer = "{max(found.optimizer_ns or 0, 1)}ns"  # {optimizer}',
        "batch = 1  # not known to a record; changes no time",
        "",
        "[noise]",
        f'rank = {{ sigma = "{percent(varies.rank.value)}" }}  # {_range(varies.rank)}',
        *(_passing(axis, getattr(varies, axis), getattr(varies, f"{axis}_correlation")) for axis in ("step", "common")),
        "",
    ))  # fmt: skip


def _passing(axis: str, sigma: Interval, correlation: Interval) -> str:
    goes_on = f"{correlation.low:.2f} to {correlation.high:.2f}"
    table = f'{{ sigma = "{percent(sigma.value)}", correlation = {correlation.value:.4f} }}'
    return f"{axis} = {table}  # {_range(sigma)}; correlation {goes_on}"


def percent(share: float) -> str:
    """As a scenario writes it, to a millionth."""
    return f"{100 * min(share, 1.0):.4f}%"


def _range(each: Interval) -> str:
    return f"{percent(each.low)} to {percent(each.high)} (90 %)"
