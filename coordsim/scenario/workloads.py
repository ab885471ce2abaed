"""From the merged ``[workload]`` table to a :class:`~coordsim.scenario.model.Workload`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from coordsim.errors import InputError, Problem
from coordsim.scenario.batch import BATCH, batch_of, stated_batch
from coordsim.scenario.files import is_list
from coordsim.scenario.generators import GENERATORS, Generated
from coordsim.scenario.keys import PPM
from coordsim.scenario.layers import Overlay
from coordsim.scenario.model import Tensor, Workload
from coordsim.scenario.recipes import WorkloadRecipe
from coordsim.scenario.tables import read_table, shown
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
    tensors, generator = values.get("tensors"), values.get("generator")
    accepted = parameter_names(generator)
    parameters = {key: value for key, value in values.items() if key in accepted}
    plain = {key: value for key, value in values.items() if key not in accepted}
    recipe, found = read_table(WorkloadRecipe, plain, overlay, _AT, more_keys=accepted, partial=partial)
    problems += found
    if generator is not None:
        if recipe is not None and recipe.global_batch is not None and "batch" in accepted:
            shared, wrong = batch_of(recipe, ranks, _GENERATOR, overlay)
            problems += wrong
            parameters |= {"batch": shared} if shared is not None else {}
        parts = _generate(generator, parameters, overlay, device.device_flops if device else None)
    elif tensors is not None:
        parts = _Parts(check_all(_read(tensors, overlay)))
    else:
        missing = [] if partial or problems else [overlay.problem(_TENSORS, "is missing", value="")]
        parts = _Parts(TensorList(problems=missing))
    problems += parts.found.problems
    if recipe is None or problems:
        return None, problems
    if generator is None:
        times_at = _TENSORS if parts.found.timed else (*_AT, "backward")
        batch, wrong = batch_of(recipe, ranks, times_at, overlay)
        if wrong:
            return None, wrong
        if batch is not None:
            recipe = replace(recipe, batch=batch)
    return _Assembly(recipe, parts, overlay, device, sources, partial).workload(parameters)


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


@dataclass(slots=True)
class _Assembly:
    """A workload in the making: what its recipe says, what a generator computed, and every mistake so far."""

    recipe: WorkloadRecipe
    parts: _Parts
    overlay: Overlay
    device: Device | None
    sources: dict[str, str]
    partial: bool
    """What is missing is not reported: the base is unknown, and reported."""
    assumed: Assumed | None = None
    problems: list[Problem] = field(default_factory=list)

    def workload(self, parameters: dict[str, Any]) -> tuple[Workload | None, list[Problem]]:
        """The workload with times of the cluster's GPU at the batch that is asked for, or None and what is wrong."""
        recipe, tensors = self.recipe, self.parts.found
        if not tensors.tensors:
            return None, [] if self.partial else [self.overlay.problem(_TENSORS, "has no tensors")]
        self._complete_times()
        forward_ns, optimizer_ns = self._number("forward", "forward_ns"), self._number("optimizer", "optimizer_ns")
        batch = self._number("batch", "batch")
        fitted = self._fit(forward_ns, optimizer_ns, batch)
        ready = scale_tensors(tensors.tensors, self._ratio(fitted, "tensors" if tensors.timed else "backward"))
        sample_bytes = self._number("sample_bytes", "sample_bytes", 0)
        workload = Workload(
            name=recipe.name,
            tensors=_enqueued(_typed(ready, recipe.dtype), recipe.enqueue_ppm),
            forward_ns=scale_time(forward_ns, self._ratio(fitted, "forward")),
            optimizer_ns=scale_time(optimizer_ns, self._ratio(fitted, "optimizer")),
            batch=batch,
            flops_per_sample=self._number("flops_per_sample", "flops_per_sample", 0),
            sample_bytes=sample_bytes,
            dataset_bytes=_dataset_bytes(recipe, sample_bytes, self.overlay, self.problems),
            replicas=recipe.replicas,
            order=recipe.order,
            gpu=recipe.gpu,
            timing=fitted.timing,
            parameters={key: _recorded(value) for key, value in parameters.items()},
            sources=self.sources,
        )
        self.problems += _too_slow(workload, fitted, self.device, self.overlay)
        return (None, self.problems) if self.problems or self.partial else (workload, [])

    def _number(self, key: str, field: str, default: int | None = None) -> int:
        """What the file says, else what the generator computed, else the default, else what is assumed."""
        for value in (getattr(self.recipe, field), getattr(self.parts.generated, field, None), default):
            if value is not None:
                return int(value)
        if self.assumed is not None:
            self.sources[key] = self.assumed.sources[key]
            return int(getattr(self.assumed, field))
        if not self.partial:
            self.problems.append(self.overlay.problem((*_AT, key), "is missing", value=""))
        return 0

    def _fit(self, forward_ns: int, optimizer_ns: int, batch: int) -> Fit:
        """How the stated times become those of the cluster's GPU; a generator's times are those already."""
        if self.parts.generated is not None:
            self.problems += _refuse_rate(self.recipe, self.overlay)
            return Fit("generated")
        if not batch:
            return Fit("generated")
        tensors = self.parts.found
        times_of = stated_batch((*_AT, "tensors" if tensors.timed else "backward"), self.overlay, None)
        stated = Stated(forward_ns, tensors.tensors[-1].ready_ns, optimizer_ns, times_of)
        fitted, wrong = fit(self.recipe, self.device, self.overlay, stated, batch)
        self.problems += wrong
        return fitted

    def _complete_times(self) -> None:
        """Times for a list without any, and what is assumed where a CSV file is all there is."""
        recipe, tensors, at = self.recipe, self.parts.found, (*_AT, "backward")
        bare = is_list(self.overlay.get(*_AT, "base"))
        if self.parts.generated is not None or tensors.timed:
            if recipe.backward_ns is not None:
                message = "is for a list without ready times; here the last ready time is the end of backward"
                self.problems.append(self.overlay.problem(at, message))
            elif bare:
                self.assumed = assume(recipe, tensors.tensors, tensors.tensors[-1].ready_ns, self.device)
            return
        backward_ns = recipe.backward_ns
        if bare:
            self.assumed = assume(recipe, tensors.tensors, backward_ns, self.device)
            backward_ns = self.assumed.backward_ns
            if "backward" in self.assumed.sources:
                self.sources["backward"] = self.assumed.sources["backward"]
        if backward_ns is None:
            if not self.partial:
                message = "is missing: the tensors have no ready times"
                self.problems.append(self.overlay.problem(at, message, value=""))
            return
        spread(tensors, backward_ns)
        longest_ns = too_long_ns(tensors.tensors)
        if longest_ns is not None:
            message = f"gives one tensor {longest_ns} ns, beyond 4.29 s, the longest"
            self.problems.append(self.overlay.problem(at, message))

    def _ratio(self, fitted: Fit, key: str) -> Fraction:
        """What the stated time of ``key`` is multiplied by; what is done is put before its source."""
        ratio, words = Fraction(1), []
        if fitted.told and (fitted.whole or stated_beside_rates(self.overlay, key)):
            ratio *= fitted.ratio
            words.append(fitted.told)
        if fitted.batch_told and key != "optimizer" and stated_for_batch(self.overlay, key):
            ratio *= fitted.batch_ratio
            words.append(fitted.batch_told)
        if words:
            name = "tensors" if key == "backward" else key
            before = [self.sources[name]] if name in self.sources else []
            self.sources[name] = ": ".join([", then ".join(words), *before])
        return ratio


def _refuse_rate(recipe: WorkloadRecipe, overlay: Overlay) -> list[Problem]:
    """A generator computes its times from FLOPs, so that a rate would be ignored."""
    if recipe.rate_millionths is None:
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
    recipe: WorkloadRecipe, sample_bytes: int, overlay: Overlay, problems: list[Problem]
) -> int:
    """Told as a size or as a number of samples; one written by the user replaces the catalog's other one."""
    size, samples = recipe.dataset_bytes, recipe.dataset_samples
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
