"""A workload's list of gradients: read from a CSV file or from inline rows, and checked as a whole.

CSV columns: ``name``, one of ``shape`` (``64x3x7x7``), ``numel`` and ``bytes``, and optionally ``dtype``
(``float32``), ``layer`` (the name up to its last dot), ``registration``, ``ready``, ``submit``. With ``ready``
rows are in ready order; ``ready`` and ``submit`` are times after the start of backward, a bare whole number
being ns; without any ``registration`` the rows are taken to be in reverse registration order (backward walks
the model from its end). Without ``ready`` rows are in registration order, as a model lists its parameters, and
:func:`spread` gives the times.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources.abc import Traversable
from typing import Any

from coordsim.errors import Problem
from coordsim.scenario.declared import key_names
from coordsim.scenario.files import read_text, unreadable
from coordsim.scenario.keys import DTYPE_BYTES
from coordsim.scenario.layers import Origin, Overlay
from coordsim.scenario.model import Tensor
from coordsim.scenario.recipes import TensorRow
from coordsim.scenario.tables import read_table

LARGEST_GRADIENT_BYTES = 9_200_000_000
"""docs/semantics.md 1.1: bytes x 10^9 must fit int64."""
LONGEST_GAP_NS = 2**32 - 1
"""Backward of one tensor, so that noise (32 fractional bits) stays inside int64."""
MOST_PROBLEMS = 5
COLUMNS = key_names(TensorRow)
SIZES = ("shape", "numel", "bytes")
"""Columns that say how large a gradient is: one of them."""
_TIMES = ("ready", "submit")
_COUNTS = ("numel", "bytes", "registration")
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")

Place = tuple[str, str]
"""Where one tensor is described: file or object, and key inside it."""


@dataclass(slots=True)
class TensorList:
    """Gradients in ready order, each with the place that describes it, and every mistake found."""

    tensors: list[Tensor] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    timed: bool = True
    """Whether the list says when its gradients are ready; else every time in it is 0."""


def read_csv(path: Traversable, label: str) -> TensorList:
    """The tensor list in ``path``, which mistakes call ``label``."""
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        return TensorList(problems=[unreadable(path, label, error)])
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey="", strict=True)
    try:
        header = list(reader.fieldnames or [])
        problems = list(_header(header, label))
        if problems:
            return TensorList(problems=problems)
        rows = {}
        for row in reader:
            line = f"line {reader.line_num}"
            if "" in row:
                cells = len(header) + len(row[""])
                return TensorList(problems=[Problem(label, line, "", f"has {cells} values for {len(header)} columns")])
            rows[line] = _cells(row)
    except csv.Error as error:
        return TensorList(
            problems=[Problem(label, f"line {reader.reader.line_num}", "", f"is not CSV: {error}")]
        )
    overlay = Overlay(Origin(label))
    overlay.values = rows
    size = next(column for column in SIZES if column in header)
    return _rows(rows, overlay, lambda name: (name,), timed="ready" in header, size=size)


def _header(header: Sequence[str], label: str) -> Iterator[Problem]:
    """Mistakes in the line that names the columns."""
    if not header:
        yield Problem(label, "line 1", "", "is empty: the first line names the columns", COLUMNS)
        return
    for position, column in enumerate(header):
        if column not in COLUMNS:
            yield Problem(label, "line 1", column, f"{column!r} is not a known column", COLUMNS)
        elif column in header[:position]:
            yield Problem(label, "line 1", "", f"column {column!r} is there twice")
    if "name" not in header:
        yield Problem(label, "line 1", "", "column 'name' is missing")
    sizes = [column for column in SIZES if column in header]
    if not sizes:
        yield Problem(label, "line 1", "", "column 'shape' is missing (or 'numel', or 'bytes')")
    if len(sizes) > 1:
        yield Problem(label, "line 1", "", f"columns {sizes[0]!r} and {sizes[1]!r} exclude each other")
    if "submit" in header and "ready" not in header:
        yield Problem(label, "line 1", "", "column 'submit' needs column 'ready'")


def read_inline(rows: Sequence[Any], overlay: Overlay) -> TensorList:
    """The tensor list in ``[[workload.tensors]]``."""
    timed = any(isinstance(row, dict) and not row.keys().isdisjoint(_TIMES) for row in rows)
    return _rows(dict(enumerate(rows)), overlay, lambda index: ("workload", "tensors", index), timed=timed)


def spread(found: TensorList, backward_ns: int) -> None:
    """Give the tensors of a list without times theirs: ``backward_ns``, divided by bytes in ready order."""
    total = sum(tensor.nbytes for tensor in found.tensors)
    done = 0
    for position, tensor in enumerate(found.tensors):
        done += tensor.nbytes
        time_ns = backward_ns * done // total
        found.tensors[position] = replace(tensor, submit_ns=time_ns, ready_ns=time_ns)


def too_long_ns(tensors: Sequence[Tensor]) -> int | None:
    """The longest backward of one tensor, where noise could not be applied to it; None where it can."""
    times = [0, *(tensor.ready_ns for tensor in tensors)]
    longest = max(after - before for before, after in itertools.pairwise(times))
    return longest if longest > LONGEST_GAP_NS else None


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


def _rows(
    rows: Mapping[Any, Any],
    overlay: Overlay,
    at: Callable[[Any], tuple[Any, ...]],
    *,
    timed: bool,
    size: str = "shape",
) -> TensorList:
    """``size`` names the key that a row without any is said to lack."""
    found = TensorList(timed=timed)
    numbered = any(isinstance(row, dict) and "registration" in row for row in rows.values())
    for position, (name, row) in enumerate(rows.items()):
        if not isinstance(row, dict):
            found.problems.append(overlay.problem(at(name), "is not a table with name, shape, dtype, ready"))
            continue
        name_of_row = str(row.get("name", ""))
        filled: dict[str, Any] = {"layer": name_of_row.rpartition(".")[0] or name_of_row} | row
        if not numbered:
            filled["registration"] = len(rows) - 1 - position if timed else position
        if not timed:
            filled["ready"] = 0
        read, problems = read_table(TensorRow, filled, overlay, at(name))
        if read is not None:
            problems = list(_size(read, overlay, at(name), size))
        found.problems += problems
        if read is not None and not problems:
            found.tensors.append(read.tensor())
            place = overlay.problem(at(name), "")
            found.places.append((place.where, place.key))
    if not timed:
        last_first = sorted(range(len(found.tensors)), key=lambda i: -found.tensors[i].registration)
        found.tensors = [found.tensors[i] for i in last_first]
        found.places = [found.places[i] for i in last_first]
    return found


def _size(row: TensorRow, overlay: Overlay, at: tuple[Any, ...], size: str) -> Iterator[Problem]:
    """A row says its size once, and in whole values."""
    sizes = zip(SIZES, (row.shape, row.numel, row.nbytes), strict=True)
    said = [key for key, value in sizes if value is not None]
    if not said:
        yield overlay.problem((*at, size), "is missing", value="")
    elif len(said) > 1:
        yield overlay.problem((*at, said[1]), f"excludes {said[0]}: say one or the other")
    elif row.nbytes is not None and row.nbytes % DTYPE_BYTES[row.dtype]:
        one = DTYPE_BYTES[row.dtype]
        yield overlay.problem((*at, "bytes"), f"{row.nbytes} B are no whole {row.dtype} values of {one} B")


def _cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """One CSV row as a table: empty cells left out, whole numbers as such, bare times in ns."""
    cells: dict[str, Any] = {}
    for column, cell in row.items():
        value: Any = cell.strip() if isinstance(cell, str) else cell
        if value in ("", None):
            continue
        if isinstance(value, str) and _WHOLE.fullmatch(value):
            if column in _TIMES:
                value = f"{value}ns"
            elif column in _COUNTS:
                value = int(value)
        cells[column] = value
    return cells


def _between(found: TensorList) -> Iterator[Problem]:
    names: dict[str, str] = {}
    registrations: dict[int, str] = {}
    before_ns = submitted_ns = 0
    for tensor, (where, key) in zip(found.tensors, found.places, strict=True):

        def problem(value: object, message: str, where: str = where, key: str = key) -> Problem:
            return Problem(where, key, value, message)

        if tensor.name in names:
            first, second = (names[tensor.name], key) if found.timed else (key, names[tensor.name])
            message = f"tensor {tensor.name!r} is already described in {first}"
            yield Problem(where, second, tensor.name, message)
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
        gap_ns, submit_gap_ns = tensor.ready_ns - before_ns, tensor.submit_ns - submitted_ns
        if gap_ns < 0:
            yield problem(tensor.ready_ns, f"ready {tensor.ready_ns} ns is before that of the tensor above")
        elif gap_ns > LONGEST_GAP_NS:
            yield problem(
                tensor.ready_ns, f"backward of this tensor takes {gap_ns} ns, beyond 4.29 s, the longest"
            )
        elif tensor.submit_ns > tensor.ready_ns:
            yield problem(tensor.submit_ns, f"submit {tensor.submit_ns} ns is after ready {tensor.ready_ns} ns")
        elif submit_gap_ns < 0:
            yield problem(tensor.submit_ns, f"submit {tensor.submit_ns} ns is before that of the tensor above")
        elif submit_gap_ns > LONGEST_GAP_NS:
            message = f"submit is {submit_gap_ns} ns after that of the tensor above, beyond 4.29 s, the longest"
            yield problem(tensor.submit_ns, message)
        before_ns, submitted_ns = max(before_ns, tensor.ready_ns), max(submitted_ns, tensor.submit_ns)
