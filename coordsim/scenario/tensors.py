"""A workload's list of gradients: read from a CSV file or from inline rows, and checked as a whole.

CSV columns: ``name,shape,dtype,ready`` and optionally ``layer``, ``registration``, ``submit``. Rows are in
ready order; ``shape`` is ``64x3x7x7``; ``ready`` and ``submit`` are times after the start of backward, a bare
whole number being ns. Without a ``layer`` it is the name up to its last dot; without any ``registration`` the
rows are taken to be in reverse registration order (backward walks the model from its end).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable
from typing import Any

from coordsim.errors import Problem
from coordsim.scenario.layers import Origin, Overlay
from coordsim.scenario.mistakes import validate
from coordsim.scenario.model import Tensor
from coordsim.scenario.schema import TensorTable

LARGEST_GRADIENT_BYTES = 9_200_000_000
"""docs/semantics.md 1.1: bytes x 10^9 must fit int64."""
LONGEST_GAP_NS = 2**32 - 1
"""Backward of one tensor, so that noise (32 fractional bits) stays inside int64."""
MOST_PROBLEMS = 5
COLUMNS = tuple(TensorTable.model_fields)
_REQUIRED = ("name", "shape", "dtype", "ready")
_TIMES = ("ready", "submit")

Place = tuple[str, str]
"""Where one tensor is described: file or object, and key inside it."""


@dataclass(slots=True)
class TensorList:
    """Gradients in ready order, each with the place that describes it, and every mistake found."""

    tensors: list[Tensor] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def read_csv(path: Traversable, label: str) -> TensorList:
    """The tensor list in ``path``, which mistakes call ``label``."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        return TensorList(problems=[Problem(label, "", label, f"cannot be read: {reason}")])
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")), restkey="", strict=True)
    try:
        header = reader.fieldnames or []
        problems = [
            Problem(label, "line 1", column, f"{column!r} is not a known column", COLUMNS)
            for column in header
            if column not in COLUMNS
        ] + [
            Problem(label, "line 1", "", f"column {column!r} is missing")
            for column in _REQUIRED
            if column not in header
        ]
        if problems:
            return TensorList(problems=problems)
        rows = {f"line {reader.line_num}": _cells(row) for row in reader}
    except csv.Error as error:
        return TensorList(
            problems=[Problem(label, f"line {reader.reader.line_num}", "", f"is not CSV: {error}")]
        )
    overlay = Overlay(Origin(label))
    overlay.values = rows
    return _rows(rows, overlay, lambda name: (name,))


def read_inline(rows: Sequence[Any], overlay: Overlay) -> TensorList:
    """The tensor list in ``[[workload.tensors]]``."""
    return _rows(dict(enumerate(rows)), overlay, lambda index: ("workload", "tensors", index))


def check_all(found: TensorList) -> TensorList:
    """``found`` with the mistakes that show only in the whole list, and only the first few of them."""
    if not found.problems:
        found.problems = list(_between(found))
    surplus = len(found.problems) - MOST_PROBLEMS
    if surplus > 0:
        last = found.problems[MOST_PROBLEMS]
        more = Problem(last.where, "", None, f"and {surplus} more mistakes in the tensor list")
        found.problems = [*found.problems[:MOST_PROBLEMS], more]
    return found


def _rows(rows: Mapping[Any, Any], overlay: Overlay, at: Callable[[Any], tuple[Any, ...]]) -> TensorList:
    found = TensorList()
    reversed_order = not any(isinstance(row, dict) and "registration" in row for row in rows.values())
    for position, (name, row) in enumerate(rows.items()):
        if not isinstance(row, dict):
            found.problems.append(overlay.problem(at(name), "is not a table with name, shape, dtype, ready"))
            continue
        name_of_row = str(row.get("name", ""))
        filled: dict[str, Any] = {"layer": name_of_row.rpartition(".")[0] or name_of_row} | row
        if reversed_order:
            filled["registration"] = len(rows) - 1 - position
        table, problems = validate(TensorTable, filled, overlay, at(name))
        found.problems += problems
        if table is not None:
            found.tensors.append(table.build())
            place = overlay.problem(at(name), "")
            found.places.append((place.where, place.key))
    return found


def _cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """One CSV row as a table: empty cells left out, whole numbers as such, bare times in ns."""
    cells: dict[str, Any] = {}
    for column, cell in row.items():
        value: Any = cell.strip() if isinstance(cell, str) else cell
        if value in ("", None):
            continue
        whole = isinstance(value, str) and value.isascii() and value.isdecimal()
        if whole and column in _TIMES:
            value = f"{value}ns"
        elif whole and column == "registration" and len(value) < 10:
            value = int(value)
        cells[column] = value
    return cells


def _between(found: TensorList) -> Iterator[Problem]:
    names: dict[str, str] = {}
    registrations: dict[int, str] = {}
    before_ns = 0
    for tensor, (where, key) in zip(found.tensors, found.places, strict=True):

        def problem(value: object, message: str, where: str = where, key: str = key) -> Problem:
            return Problem(where, key, value, message)

        if tensor.name in names:
            yield problem(tensor.name, f"tensor {tensor.name!r} is already described in {names[tensor.name]}")
        names.setdefault(tensor.name, key)
        number = tensor.registration
        if number in registrations:
            yield problem(number, f"registration {number} is already that of {registrations[number]!r}")
        registrations.setdefault(number, tensor.name)
        if tensor.nbytes > LARGEST_GRADIENT_BYTES:
            yield problem(
                tensor.nbytes,
                f"gradient of {tensor.nbytes} B exceeds {LARGEST_GRADIENT_BYTES} B, the largest",
            )
        if tensor.submit_ns != tensor.ready_ns:
            yield problem(
                tensor.submit_ns,
                "submit must equal ready: this version has one clock for both (docs/semantics.md 13)",
            )
        gap_ns = tensor.ready_ns - before_ns
        if gap_ns < 0:
            yield problem(tensor.ready_ns, f"ready {tensor.ready_ns} ns is before that of the tensor above")
        if gap_ns > LONGEST_GAP_NS:
            yield problem(
                tensor.ready_ns, f"backward of this tensor takes {gap_ns} ns, beyond 4.29 s, the longest"
            )
        before_ns = max(before_ns, tensor.ready_ns)
