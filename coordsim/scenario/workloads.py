"""From the merged ``[workload]`` table to a :class:`~coordsim.scenario.model.Workload`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coordsim.errors import InputError, Problem
from coordsim.scenario.generators import GENERATORS, Generated
from coordsim.scenario.layers import Overlay
from coordsim.scenario.mistakes import shown, validate
from coordsim.scenario.model import Workload
from coordsim.scenario.schema import WorkloadTable
from coordsim.scenario.tensors import TensorList, check_all, read_csv, read_inline

_AT = ("workload",)
_TENSORS = ("workload", "tensors")
_GENERATOR = ("workload", "generator")


@dataclass(slots=True)
class _Parts:
    """The tensor list, and what a generator computes beside it."""

    found: TensorList
    generated: Generated | None = None


def build_workload(
    overlay: Overlay, device_flops: int | None, sources: dict[str, str], *, partial: bool = False
) -> tuple[Workload | None, list[Problem]]:
    """The workload that ``overlay`` describes, or None and every mistake in it.

    ``device_flops`` (FLOP/s of one GPU of the cluster) feeds generators; None where the cluster is not known.
    ``partial``: the base is unknown and reported, so what is missing is not.
    """
    values = overlay.get(*_AT)
    if not isinstance(values, dict):
        return None, [overlay.problem(_AT, f"{shown(values)} is neither a table nor a workload's name")]
    values, problems = _one_source(dict(values), overlay)
    tensors, generator = values.pop("tensors", None), values.pop("generator", None)
    accepted = parameter_names(generator)
    parameters = {key: value for key, value in values.items() if key in accepted}
    plain = {key: value for key, value in values.items() if key not in accepted}
    table, found = validate(
        WorkloadTable, plain, overlay, _AT, more_keys=("tensors", "generator", *accepted), partial=partial
    )
    problems += found
    if generator is not None:
        parts = _generate(generator, parameters, overlay, device_flops)
    elif tensors is not None:
        parts = _Parts(check_all(_read(tensors, overlay)))
    else:
        missing = [] if partial or problems else [overlay.problem(_TENSORS, "is missing", value="")]
        parts = _Parts(TensorList(problems=missing))
    problems += parts.found.problems
    if table is None or problems:
        return None, problems
    return _assemble(table, parts, parameters, overlay, sources, partial=partial)


def parameter_names(generator: object) -> tuple[str, ...]:
    """The parameters that the generator accepts; none for an unknown one."""
    build = GENERATORS.get(generator) if isinstance(generator, str) else None
    if build is None:
        return ()
    return tuple(name for name in inspect.signature(build).parameters if name != "device_flops")


def _one_source(values: dict[str, Any], overlay: Overlay) -> tuple[dict[str, Any], list[Problem]]:
    """A list written by the user replaces the catalog's generator with its parameters, and the reverse."""
    if "tensors" not in values or "generator" not in values:
        return values, []
    listed, generated = overlay.origin(_TENSORS).ours, overlay.origin(_GENERATOR).ours
    if listed == generated:
        return values, [overlay.problem(_TENSORS, "excludes generator: a workload has one or the other")]
    if listed:
        return {key: value for key, value in values.items() if key != "tensors"}, []
    unused = {"generator", *parameter_names(values["generator"])}
    unused = {key for key in unused if overlay.origin((*_AT, key)).ours}
    return {key: value for key, value in values.items() if key not in unused}, []


def _read(tensors: object, overlay: Overlay) -> TensorList:
    if isinstance(tensors, str):
        folder = overlay.origin(_TENSORS).folder or Path()
        label = str(folder / tensors) if isinstance(folder, Path) else tensors
        return read_csv(folder.joinpath(tensors), label)
    if isinstance(tensors, list) and tensors:
        return read_inline(tensors, overlay)
    message = (
        "has no tensors" if tensors == [] else f"{shown(tensors)} is neither a CSV file's name nor a list"
    )
    return TensorList(problems=[overlay.problem(_TENSORS, message)])


def _generate(
    generator: object, parameters: dict[str, Any], overlay: Overlay, device_flops: int | None
) -> _Parts:
    build = GENERATORS.get(generator) if isinstance(generator, str) else None
    if build is None:
        message = f"{shown(generator)} is not known"
        return _Parts(TensorList(problems=[overlay.problem(_GENERATOR, message, tuple(GENERATORS))]))
    try:  # without a cluster any rate finds the mistakes in the parameters
        generated = build(device_flops=device_flops or 10**12, **parameters)
    except InputError as error:
        problems = [
            overlay.problem((*_AT, found.key), found.message, found.allowed, value=found.value)
            for found in error.problems
        ]
        return _Parts(TensorList(problems=problems))
    if device_flops is None:  # times mean nothing, and the missing cluster is reported
        return _Parts(TensorList(list(generated.tensors)), generated)
    places = [(f"workload generator {generator}", tensor.name) for tensor in generated.tensors]
    found = check_all(TensorList(list(generated.tensors), places))
    return _Parts(found, generated)


def _assemble(
    table: WorkloadTable,
    parts: _Parts,
    parameters: dict[str, Any],
    overlay: Overlay,
    sources: dict[str, str],
    *,
    partial: bool,
) -> tuple[Workload | None, list[Problem]]:
    if not parts.found.tensors:
        message = "has no tensors"
        return None, [] if partial else [overlay.problem(_TENSORS, message)]
    problems: list[Problem] = []

    def number(key: str, field: str, default: int | None = None) -> int:
        """What the file says, else what the generator computed, else the default."""
        for value in (getattr(table, key), getattr(parts.generated, field, None), default):
            if value is not None:
                return int(value)
        if not partial:
            problems.append(overlay.problem((*_AT, key), "is missing", value=""))
        return 0

    workload = Workload(
        name=table.name,
        tensors=tuple(parts.found.tensors),
        forward_ns=number("forward", "forward_ns"),
        optimizer_ns=number("optimizer", "optimizer_ns"),
        batch=number("batch", "batch"),
        flops_per_sample=number("flops_per_sample", "flops_per_sample", 0),
        sample_bytes=number("sample_bytes", "sample_bytes", 0),
        parameters={key: _recorded(value) for key, value in parameters.items()},
        sources=sources,
    )
    return (None, problems) if problems or partial else (workload, [])


def _recorded(value: object) -> int | str:
    """A parameter for the record: ``[1024, 512, 512]`` as ``"1024x512x512"``."""
    if isinstance(value, int):
        return value
    return (
        "x".join(map(str, value))
        if isinstance(value, Sequence) and not isinstance(value, str)
        else str(value)
    )
