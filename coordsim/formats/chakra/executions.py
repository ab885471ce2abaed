"""Execution traces as a workload: the gradients of one iteration, or else its messages."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from coordsim.errors import InputError
from coordsim.formats.chakra.collectives import Call
from coordsim.formats.chakra.gradients import Accumulation, last_of_each, parameters_of, passes_of, raise_to, union
from coordsim.formats.chakra.iterations import Iterations, Window
from coordsim.formats.chakra.protobuf import read_protobuf
from coordsim.formats.chakra.reader import SCHEMAS, Execution, read_json
from coordsim.formats.imported import Gradient, Imported, workload_csv
from coordsim.formats.shared.repeated_messages import buckets, repeated
from coordsim.formats.shared.small_files import first_bytes
from coordsim.formats.shared.sources import names_in_job

FORMAT = "chakra"
_MOST_NAMED = 20
_RANK_IN_NAME = re.compile(r"[.](\d{1,7})[.]et(?:[.]gz)?$")
_KEY = re.compile(rb'(?:\xef\xbb\xbf)?\s*\{\s*"[A-Za-z_ ]{1,40}"\s*:')
_NO_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_UNKNOWN = {
    "run": "an execution trace is the graph of what ran, with no times of steps",
    "ready": "when gradients are ready is not recorded; simulate spreads backward over them by their bytes",
    "names": "autograd knows no names of parameters; gradients are called by their place",
}


@dataclass(frozen=True)
class Iteration:
    """The content of one iteration of one trace."""

    parameters: list[Accumulation]
    passes: int
    calls: list[Call]

    @property
    def allreduces(self) -> list[int | None]:
        return [call.nbytes for call in self.calls if call.kind == "all_reduce"]


@dataclass(frozen=True)
class Summary:
    """One file, without its nodes."""

    path: Path
    schema: str | None
    nodes: int
    ranks: int | None
    described_ranks: int | None
    """Number of ranks of the largest process group that is described, whether or not it is used."""
    backend: str | None
    groups_cut: bool
    lost: str | None
    told_by: str | None
    iterations: list[Iteration]
    collectives: Counter[str]
    unread: Counter[str]
    accumulations: int
    unsized: int

    @cached_property
    def parameters(self) -> list[Accumulation]:
        """Return the model's parameters.

        They are the iterations' parameters, of each kind the largest number, in the order of the last iteration.
        """
        most: Counter[object] = Counter()
        for iteration in self.iterations:
            raise_to(most, _kinds(iteration))
        everything = [parameter for iteration in self.iterations for parameter in iteration.parameters]
        return last_of_each(everything, most)

    @property
    def allreduces(self) -> list[int | None]:
        """Return the bytes of the last iteration's allreduces."""
        return self.iterations[-1].allreduces


@dataclass(frozen=True)
class Other:
    """What is kept of each file except the first."""

    path: Path
    nodes: int
    ranks: int | None
    lost: str | None
    alike: bool
    """Whether its allreduces are those of the first file."""


def import_executions(paths: list[Path]) -> Imported:
    """Read the traces of one job's ranks. Raises InputError for files of another kind, and for files of different
    jobs."""
    first: Summary | None = None
    others: list[Other] = []
    for path in paths:
        summary = summarise(read_json(path) if _is_json(path) else read_protobuf(path))
        if first is None:
            first = summary
            continue
        _same_job(summary, first)
        alike = summary.allreduces == first.allreduces
        others.append(Other(path, summary.nodes, summary.ranks, summary.lost, alike))
    assert first is not None, "a job has at least one file"
    return imported(first, others)


def _same_job(summary: Summary, first: Summary) -> None:
    """Raise InputError if two files contradict each other."""
    for key in ("schema", "described_ranks"):
        mine, theirs = getattr(summary, key), getattr(first, key)
        if mine != theirs and (key == "schema" or None not in (mine, theirs)):
            message = f"{mine!r}, where it is {theirs!r} in {names_in_job([first.path, summary.path])[0]}: another job?"
            raise InputError.one(str(summary.path), key.removeprefix("described_"), mine, message)


def _is_json(path: Path) -> bool:
    """Return whether a file is JSON, by its first bytes.

    A protobuf message of 123 bytes begins with a brace, too, but not with a key behind it.
    """
    head = first_bytes(path, 256)
    if _KEY.match(head):
        return True
    return not path.name.endswith((".et", ".et.gz", ".eg", ".eg.gz")) and not _NO_TEXT.search(head)


def summarise(execution: Execution) -> Summary:
    """Summarise ``execution`` by iterations."""
    numbers = [gradient.number for gradient in execution.accumulated]
    iterations = execution.marks.iterations(numbers)
    if iterations.told_by is None and len(execution.passes) > 1 and numbers:
        iterations = _by_passes(execution)
    return Summary(
        execution.path, execution.schema, execution.nodes, execution.ranks, execution.described_ranks,
        execution.backend, execution.groups_cut, execution.lost,
        iterations.told_by, [_iteration(execution, window) for window in iterations.windows],
        Counter(call.kind for call in execution.calls), execution.unread, len(numbers),
        sum(gradient.nbytes is None for gradient in execution.accumulated),
    )  # fmt: skip


def _by_passes(execution: Execution) -> Iterations:
    """Return iterations of a trace without any mark: each backward pass that accumulates counts as one."""
    begins = [begin for begin, end in _pairs(execution.passes) if _inside(execution.accumulated, Window(begin, end))]
    return Iterations([Window(begin, end) for begin, end in _pairs(begins)], "backward passes")


def _pairs(begins: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(begins, [*begins[1:], (1 << 64) - 1], strict=True))


def _inside(things: Sequence[Any], window: Window) -> Sequence[Any]:
    """Return those of ``things``, which are in order of their numbers, that lie in ``window``."""
    return things[slice(*(bisect_left(things, edge, key=lambda thing: thing.number) for edge in window))]


def _between(numbers: Sequence[int], window: Window) -> Sequence[int]:
    return numbers[bisect_left(numbers, window.begin) : bisect_left(numbers, window.end)]


def _iteration(execution: Execution, window: Window) -> Iteration:
    calls = list(_inside(execution.calls, window))
    sections = []
    passes = 0
    for section in execution.marks.sections(window):
        accumulated = [gradient for gradient in _inside(execution.accumulated, section) if gradient.nbytes is not None]
        if not accumulated:
            continue
        sizes = [call.nbytes for call in _inside(execution.calls, section) if call.kind == "all_reduce"]
        reduced = None if None in sizes else sum(size or 0 for size in sizes)
        starts, forwards = _between(execution.passes, section), _between(execution.forwards, section)
        split = passes_of(accumulated, starts, len(forwards), reduced)
        passes += len(split)
        sections.append(parameters_of(split))
    counts = union([Counter(gradient.kind for gradient in section) for section in sections])
    everything = [gradient for section in sections for gradient in section]
    return Iteration(last_of_each(everything, counts), passes, calls)


def _kinds(iteration: Iteration) -> Counter[object]:
    return Counter(parameter.kind for parameter in iteration.parameters)


def imported(first: Summary, others: Sequence[Other] = ()) -> Imported:
    """Return as :func:`import_executions`, from traces that have been read."""
    unknown = dict(_UNKNOWN)
    last = first.iterations[-1]
    gradients = [
        Gradient(f"gradient.{place}", _numel(parameter), parameter.dtype or "", parameter.nbytes or 0)
        for place, parameter in enumerate(first.parameters)
    ]
    if not gradients:
        gradients = _messages(first)
        instead = ": each allreduce of an iteration counts as one gradient" if gradients else ""
        unknown["gradients"] = _no_gradients(first) + instead
    elif first.unsized:
        unknown["gradients"] = f"accumulations that say no size (undefined or sparse), left out: {first.unsized:,}"
    if not gradients:
        unknown["workload"] = _no_workload(first)
    paths = [first.path, *(other.path for other in others)]
    ranks = max((size for size in (first.ranks, *(other.ranks for other in others)) if size), default=None)
    ranks = ranks or _ranks_of_files(paths)
    if ranks is None:
        unknown["ranks"] = (
            "the description of process groups in it is cut off" if first.groups_cut
            else "no process group of known size is in it"
        )  # fmt: skip
    _add_reasons(unknown, first, others)
    many = first.told_by is not None
    summary: dict[str, Any] = {
        "traces": len(paths),
        "schema": first.schema,
        "nodes": first.nodes + sum(other.nodes for other in others),
        "ranks": ranks,
        "backend": first.backend,
        "iterations": len(first.iterations) if many else None,
        "iterations_told_by": first.told_by,
        "passes_per_iteration": last.passes or None,
        "collectives": dict(first.collectives.most_common(_MOST_NAMED)),
        "collectives_per_iteration": dict(Counter(call.kind for call in last.calls).most_common(_MOST_NAMED)) if many
        else None,
        "allreduce_bytes": last.allreduces,
        "collective_bytes": _bytes_by_kind(last.calls),
        "not_read": dict(first.unread.most_common(_MOST_NAMED)),
        "gradients": len(first.parameters) or None,
        "gradient_bytes": sum(each.nbytes for each in gradients) if first.parameters else None,
    }  # fmt: skip
    files = names_in_job(paths)
    return Imported(FORMAT, files, summary, unknown, workload_csv=workload_csv(gradients) if gradients else None)


def _numel(parameter: Accumulation) -> int:
    """Return the number of elements; 0 if only bytes are known, which makes a workload of bytes."""
    if parameter.shape is None or parameter.dtype is None:
        return 0
    numel = 1
    for size in parameter.shape:
        numel *= size
    return numel


def _messages(first: Summary) -> list[Gradient]:
    """Return allreduces as gradients: those of the last iteration, else the pattern that they repeat."""
    sizes = [size or 0 for size in first.allreduces]
    if first.told_by is None:
        sizes = repeated(sizes) or sizes
    return buckets(sizes) if sizes else []


def _no_gradients(first: Summary) -> str:
    if first.accumulations:
        return f"none of the {first.accumulations:,} accumulations of gradients in it says a size"
    return "no accumulation of a gradient (torch::autograd::AccumulateGrad) is in it"


def _no_workload(first: Summary) -> str:
    if not first.collectives:
        return "no gradient of known size and no collective is in it"
    allreduces = first.collectives["all_reduce"]
    if not allreduces:
        others = ", ".join(sorted(first.collectives))
        return f"no gradient of known size and no allreduce is in it, only {others}"
    return f"no gradient of known size is in it, and its {allreduces:,} allreduces do not all say a size above 0"


def _ranks_of_files(paths: Sequence[Path]) -> int | None:
    """Return the number of ranks from files of simulators, one a rank, called NAME.RANK.et, if all are there."""
    matches = [_RANK_IN_NAME.search(path.name) for path in paths]
    numbers = sorted(int(match[1]) for match in matches if match)
    return len(paths) if len(paths) > 1 and numbers == list(range(len(paths))) else None


def _add_reasons(unknown: dict[str, str], first: Summary, others: Sequence[Other]) -> None:
    """Add how the figures were derived, and what they lack."""
    if first.backend is None:
        unknown["backend"] = "no description of process groups and no operation in it names a backend"
    if first.schema is None:
        unknown["schema"] = "no version of the schema is noted in it"
    elif first.schema not in SCHEMAS:
        unknown["schema"] = f"schema {first.schema!r} is not known here; it was read as the others are"
    if first.told_by is None:
        unknown["iterations"] = "no ProfilerStep, optimizer step or zero_grad is in it: it counts as one iteration"
    elif differing := _differing(first.iterations):
        unknown["iterations"] = f"iterations differ in {differing}; collectives are those of the last one"
    sent = [size for size in first.allreduces if size is not None]
    kept = sum(parameter.nbytes or 0 for parameter in first.parameters)
    if kept and sent and len(sent) == len(first.allreduces) and sum(sent) != kept:
        less = sum(sent) < kept
        unknown["reduced"] = (
            f"allreduces of an iteration send {sum(sent):,} B, gradients hold {kept:,} B: "
            + (
                "some gradients are in no allreduce or are sent in a smaller type, or leaves that are no parameters "
                "have gradients, such as the inputs of blocks under reentrant checkpointing"
                if less
                else "other tensors are reduced, or some gradients several times"
            )
        )
    first_name, *names = names_in_job([first.path, *(other.path for other in others)])
    unlike = [name for name, other in zip(names, others, strict=True) if not other.alike]
    if unlike:
        more = f" and {len(unlike) - 1:,} more" if len(unlike) > 1 else ""
        unknown["other_ranks"] = (
            f"{unlike[0]}{more} has other allreduces than {first_name}, whose figures these are"
        )
    lost = [(first_name, first.lost), *((name, other.lost) for name, other in zip(names, others, strict=True))]
    for name, what in lost:
        if what is not None:
            unknown["cut"] = f"{name} is cut off: {what}"
            break


def _bytes_by_kind(calls: Sequence[Call]) -> dict[str, int | None]:
    """Return what one rank puts into an iteration's calls, by kind; None for a kind with a call of unknown size."""
    by_kind: dict[str, int | None] = {}
    for call in calls:
        before = by_kind.setdefault(call.kind, 0)
        by_kind[call.kind] = None if before is None or call.nbytes is None else before + call.nbytes
    return by_kind


def _differing(iterations: Sequence[Iteration]) -> str:
    """Describe how iterations differ; the text is empty if they are alike."""
    first = iterations[0]
    what = []
    if any(_kinds(iteration) != _kinds(first) for iteration in iterations):
        counts = [len(iteration.parameters) for iteration in iterations]
        what.append(f"gradients ({min(counts):,} to {max(counts):,})")
    if any(iteration.allreduces != first.allreduces for iteration in iterations):
        what.append("allreduces")
    return " and ".join(what)
