"""From the merged ``[workload]`` table to a :class:`~coordsim.scenario.model.Workload`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from coordsim.errors import InputError, Problem
from coordsim.scenario.batch import BATCH, batch_of, stated_batch
from coordsim.scenario.files import is_list
from coordsim.scenario.generators import GENERATORS, Generated
from coordsim.scenario.layers import Overlay
from coordsim.scenario.mistakes import shown, validate
from coordsim.scenario.model import Tensor, Workload
from coordsim.scenario.schema import PPM, WorkloadTable
from coordsim.scenario.tensors import TensorList, check_all, read_csv, read_inline, spread, too_long_ns
from coordsim.scenario.timing import (
    LONGEST_FORWARD_NS,
    Assumed,
    Device,
    Fit,
    Stated,
    assume,
    fit,
    scale_tensors,
    scale_time,
    stated_beside_rates,
    stated_for_batch,
)

_AT = ("workload",)
_TENSORS = ("workload", "tensors")
_GENERATOR = ("workload", "generator")


@dataclass(slots=True)
class _Parts:
    """The tensor list, and what a generator computes beside it."""

    found: TensorList
    generated: Generated | None = None


def build_workload(
    overlay: Overlay, device: Device | None, sources: dict[str, str], *, ranks: int | None = None, partial: bool = False
) -> tuple[Workload | None, list[Problem]]:
    """The workload that ``overlay`` describes, or None and every mistake in it.

    Times are those of ``device``, one GPU of the cluster; None where the cluster is not known. ``ranks`` share a global
    batch; None where their number is wrong.
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
        if table is not None and table.global_batch is not None and "batch" in accepted:
            shared, wrong = batch_of(table, ranks, _GENERATOR, overlay)
            problems += wrong
            parameters |= {"batch": shared} if shared is not None else {}
        parts = _generate(generator, parameters, overlay, device.device_flops if device else None)
    elif tensors is not None:
        parts = _Parts(check_all(_read(tensors, overlay)))
    else:
        missing = [] if partial or problems else [overlay.problem(_TENSORS, "is missing", value="")]
        parts = _Parts(TensorList(problems=missing))
    problems += parts.found.problems
    if table is None or problems:
        return None, problems
    if generator is None:
        times_at = _TENSORS if parts.found.timed else (*_AT, "backward")
        batch, wrong = batch_of(table, ranks, times_at, overlay)
        if wrong:
            return None, wrong
        if batch is not None:
            table = table.model_copy(update={"batch": batch})
    return _assemble(table, parts, parameters, overlay, device, sources, partial=partial)


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
    device: Device | None,
    sources: dict[str, str],
    *,
    partial: bool,
) -> tuple[Workload | None, list[Problem]]:
    if not parts.found.tensors:
        message = "has no tensors"
        return None, [] if partial else [overlay.problem(_TENSORS, message)]
    assumed, problems = _timed(table, parts, overlay, device, sources, partial=partial)
    def number(key: str, field: str, default: int | None = None) -> int:
        """What the file says, else what the generator computed, else the default."""
        for value in (getattr(table, key), getattr(parts.generated, field, None), default):
            if value is not None:
                return int(value)
        if assumed is not None:
            sources[key] = assumed.sources[key]
            return int(getattr(assumed, field))
        if not partial:
            problems.append(overlay.problem((*_AT, key), "is missing", value=""))
        return 0

    tensors_key = "tensors" if parts.found.timed else "backward"
    forward_ns, optimizer_ns = number("forward", "forward_ns"), number("optimizer", "optimizer_ns")
    batch = number("batch", "batch")
    fitted = Fit("generated")
    if parts.generated is None and batch:
        times_of = stated_batch((*_AT, tensors_key), overlay, None)
        stated = Stated(forward_ns, parts.found.tensors[-1].ready_ns, optimizer_ns, times_of)
        fitted, wrong = fit(table, device, overlay, stated, batch)
        problems += wrong
    elif parts.generated is not None:
        problems += _refuse_rate(table, overlay)

    def scaled(key: str, stated_ns: int) -> int:
        """A time of the cluster's GPU, at the batch that is asked for."""
        return scale_time(stated_ns, _ratio(fitted, key, overlay, sources))

    tensors = scale_tensors(parts.found.tensors, _ratio(fitted, tensors_key, overlay, sources))
    sample_bytes = number("sample_bytes", "sample_bytes", 0)
    workload = Workload(
        name=table.name,
        tensors=_enqueued(_typed(tensors, table.dtype), table.enqueue),
        forward_ns=scaled("forward", forward_ns),
        optimizer_ns=scaled("optimizer", optimizer_ns),
        batch=batch,
        flops_per_sample=number("flops_per_sample", "flops_per_sample", 0),
        sample_bytes=sample_bytes,
        dataset_bytes=_dataset_bytes(table, sample_bytes, overlay, problems),
        replicas=table.replicas,
        order=table.order,
        gpu=table.gpu,
        timing=fitted.timing,
        parameters={key: _recorded(value) for key, value in parameters.items()},
        sources=sources,
    )
    problems += _too_slow(workload, fitted, device, overlay)
    return (None, problems) if problems or partial else (workload, [])


def _timed(
    table: WorkloadTable,
    parts: _Parts,
    overlay: Overlay,
    device: Device | None,
    sources: dict[str, str],
    *,
    partial: bool,
) -> tuple[Assumed | None, list[Problem]]:
    """Times for a list without any, and what is assumed where a CSV file is all there is."""
    found, at = parts.found, (*_AT, "backward")
    if parts.generated is not None or found.timed:
        if table.backward is not None:
            message = "is for a list without ready times; here the last ready time is the end of backward"
            return None, [overlay.problem(at, message)]
        last_ns = found.tensors[-1].ready_ns
        return (assume(table, found.tensors, last_ns, device) if is_list(overlay.get(*_AT, "base")) else None), []
    assumed = None
    backward_ns = table.backward
    if is_list(overlay.get(*_AT, "base")):
        assumed = assume(table, found.tensors, backward_ns, device)
        backward_ns = assumed.backward_ns
        if "backward" in assumed.sources:
            sources["backward"] = assumed.sources["backward"]
    if backward_ns is None:
        return None, [] if partial else [overlay.problem(at, "is missing: the tensors have no ready times", value="")]
    spread(found, backward_ns)
    longest_ns = too_long_ns(found.tensors)
    if longest_ns is not None:
        return assumed, [overlay.problem(at, f"gives one tensor {longest_ns} ns, beyond 4.29 s, the longest")]
    return assumed, []


def _ratio(fitted: Fit, key: str, overlay: Overlay, sources: dict[str, str]) -> Fraction:
    """What the stated time of ``key`` is multiplied by; what is done is put before its source."""
    ratio, words = Fraction(1), []
    if fitted.told and (fitted.whole or stated_beside_rates(overlay, key)):
        ratio *= fitted.ratio
        words.append(fitted.told)
    if fitted.batch_told and key != "optimizer" and stated_for_batch(overlay, key):
        ratio *= fitted.batch_ratio
        words.append(fitted.batch_told)
    if words:
        name = "tensors" if key == "backward" else key
        sources[name] = ": ".join([", then ".join(words), *([sources[name]] if name in sources else [])])
    return ratio


def _refuse_rate(table: WorkloadTable, overlay: Overlay) -> list[Problem]:
    """A generator computes its times from FLOPs, so that a rate would be ignored."""
    if table.rate is None:
        return []
    message = "is for a workload with a list of tensors; this one is computed: set cluster.machine.device_flops instead"
    return [overlay.problem((*_AT, "rate"), message)]


def _too_slow(
    workload: Workload, fitted: Fit, device: Device | None, overlay: Overlay
) -> list[Problem]:
    """Scaled times that noise could not be applied to."""
    if not (fitted.told or fitted.batch_told) or device is None:
        return []
    longest_ns = too_long_ns(workload.tensors)
    if longest_ns is not None:
        slow = f"backward of one tensor would take {longest_ns / 1e9:.3g} s, beyond 4.29 s, the longest"
    elif workload.forward_ns > LONGEST_FORWARD_NS:
        slow = f"forward would take {workload.forward_ns / 1e9:.3g} s, beyond 1 h, the longest"
    else:
        return []
    if fitted.batch_told:
        return [overlay.problem(BATCH, f"is too large for {workload.name}: {slow}")]
    key = "gpu" if fitted.timing == "rate" else "device_flops"
    return [overlay.problem(("cluster", "machine", key), f"is too slow for {workload.name}: {slow}")]


def _typed(tensors: Sequence[Tensor], dtype: str | None) -> Sequence[Tensor]:
    """The gradients, all of one type where one is asked for."""
    return tensors if dtype is None else [replace(tensor, dtype=dtype) for tensor in tensors]


def _enqueued(tensors: Sequence[Tensor], share_ppm: int | None) -> tuple[Tensor, ...]:
    """The gradients, submitted at a share of their ready times where one is given."""
    if share_ppm is None:
        return tuple(tensors)
    return tuple(replace(tensor, submit_ns=tensor.ready_ns * share_ppm // PPM) for tensor in tensors)


def _dataset_bytes(
    table: WorkloadTable, sample_bytes: int, overlay: Overlay, problems: list[Problem]
) -> int:
    """Told as a size or as a number of samples; one written by the user replaces the catalog's other one."""
    size, samples = table.dataset_bytes, table.dataset_samples
    at_size, at_samples = (*_AT, "dataset_bytes"), (*_AT, "dataset_samples")
    if size is not None and samples is not None:
        if overlay.origin(at_size).ours == overlay.origin(at_samples).ours:
            problems.append(overlay.problem(at_samples, "excludes dataset_bytes: say one or the other"))
            return 0
        size, samples = (None, samples) if overlay.origin(at_size).ours else (size, None)
    if samples and not sample_bytes:
        problems.append(overlay.problem(at_samples, "needs sample_bytes, the size of one of them"))
    return samples * sample_bytes if samples is not None else size or 0


def _recorded(value: object) -> int | str:
    """A parameter for the record: ``[1024, 512, 512]`` as ``"1024x512x512"``."""
    if isinstance(value, int):
        return value
    return (
        "x".join(map(str, value))
        if isinstance(value, Sequence) and not isinstance(value, str)
        else str(value)
    )
