"""Compute times for the cluster's GPU: from what a workload states for its own, or assumed where it says nothing.

A workload's times are those of one named GPU. On another one they are scaled, all alike, by the samples a second
that a lone GPU of each kind is known to reach (``workload.rates``); for a GPU without a known rate by FLOPs at the
machine's ``device_flops``. A workload or a machine that names no GPU keeps the times as they are stated.
Another batch than the stated one changes forward and backward by the law of :mod:`coordsim.scenario.batch`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from coordsim.errors import Problem
from coordsim.scenario.batch import BATCH, BatchLaw, Point, check_rates, law_of
from coordsim.scenario.generators.backward import MEMORY_Bps
from coordsim.scenario.generators.stemdl import OPTIMIZER_BYTES
from coordsim.scenario.keys import PPM
from coordsim.scenario.layers import Overlay
from coordsim.scenario.model import Tensor, Timing
from coordsim.scenario.recipes import WorkloadRecipe

_AT = ("workload",)
LONGEST_FORWARD_NS = 3600 * 10**9
ASSUMED_BACKWARD_NS = 100_000_000
"""Backward of a list that says nothing: between resnet50's 60 ms on a V100 and resnet101's 356 ms on a P100."""


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU of the cluster."""

    gpu: str
    """Its name; empty: not said."""
    device_flops: int
    """FLOP/s it sustains alone."""


@dataclass(frozen=True, slots=True)
class Stated:
    """What the workload's source says of one GPU's step, before anything is scaled."""

    forward_ns: int
    backward_ns: int
    optimizer_ns: int
    batch: int | None
    """Samples for which these times are; None: the source does not say."""

    @property
    def step_ns(self) -> int:
        """The whole step."""
        return self.forward_ns + self.backward_ns + self.optimizer_ns


@dataclass(frozen=True, slots=True)
class Fit:
    """How stated times become those of the cluster's GPU at the batch that is asked for."""

    timing: Timing
    ratio: Fraction = Fraction(1)
    """Time on the cluster's GPU over time stated, at the stated batch."""
    told: str = ""
    """What was done about the GPU, for the sources; empty: nothing."""
    batch_ratio: Fraction = Fraction(1)
    """Of forward and backward: time at the batch that is asked for over time at the stated batch."""
    batch_told: str = ""
    """What was done about the batch, for the sources; empty: nothing."""
    whole: bool = False
    """Whether :attr:`ratio` holds for every time, whoever stated it: they sum to what ``workload.rate`` says."""


def scale_time(stated_ns: int, ratio: Fraction) -> int:
    """A stated time, scaled, ns; the same where nothing is scaled, else at least 1."""
    return stated_ns if ratio == 1 else max(round(stated_ns * ratio), min(stated_ns, 1))


def scale_tensors(stated: Sequence[Tensor], ratio: Fraction) -> list[Tensor]:
    """The gradients with both of their times scaled."""
    if ratio == 1:
        return list(stated)
    return [
        replace(tensor, submit_ns=scale_time(tensor.submit_ns, ratio), ready_ns=scale_time(tensor.ready_ns, ratio))
        for tensor in stated
    ]


def fit(
    recipe: WorkloadRecipe, device: Device | None, overlay: Overlay, stated: Stated, batch: int
) -> tuple[Fit, list[Problem]]:
    """How the times of the workload in ``recipe`` become those of ``device`` at ``batch`` samples a step.

    ``device`` is None where the cluster is unknown; ``stated`` are the times of the workload's source.
    """
    if recipe.rate_millionths is not None:
        step_ns = Fraction(batch * PPM * 10**9, recipe.rate_millionths)
        ratio = step_ns / max(stated.step_ns, 1)
        rate = f"{recipe.rate_millionths / PPM:g} samples/s at batch {batch}"
        told = f"SCALED by {float(ratio):.4g} to {rate} (workload.rate)"
        return Fit("rate", ratio, told, whole=True), []
    fitted, problems = _fit_gpu(recipe, device, overlay, stated)
    problems += check_rates(recipe, overlay)
    if problems or stated.batch is None:
        return fitted, problems
    gpu = device.gpu if device is not None and device.gpu in recipe.rates_millionths else recipe.gpu
    own_ns, own = Fraction(stated.forward_ns + stated.backward_ns), None
    law = BatchLaw((Point(stated.batch, stated.step_ns * fitted.ratio),))
    if gpu in recipe.rates_millionths:
        own = _law(recipe, recipe.gpu, stated.batch)
        law = own if fitted.timing == "flops" else _law(recipe, gpu, stated.batch)
        own_ns = own.compute_ns(stated.batch, Fraction(stated.optimizer_ns))
    if batch == stated.batch == law.nearest(batch):
        return fitted, []
    scale = fitted.ratio if law is own else Fraction(1)
    optimizer_ns = stated.optimizer_ns * fitted.ratio / scale
    ends = own_ns, law.compute_ns(batch, optimizer_ns) * scale
    if min(ends) <= 0:
        message = f"leaves no time for forward and backward beside an optimizer of {float(optimizer_ns) / 1e6:.3g} ms"
        return fitted, [overlay.problem((*_AT, "rates", gpu), message)]
    ratio = ends[1] / ends[0] / fitted.ratio
    if ratio == 1:
        return fitted, []
    told = f"SCALED by {float(ratio):.4g} from batch {law.nearest(stated.batch)} to {batch} ({law.describe()})"
    return replace(fitted, timing="batch", batch_ratio=ratio, batch_told=told), []


def _fit_gpu(
    recipe: WorkloadRecipe, device: Device | None, overlay: Overlay, stated: Stated
) -> tuple[Fit, list[Problem]]:
    """How times of the workload's GPU become those of ``device``: by both rates at a batch where both are known."""
    gpu, rates = recipe.gpu, recipe.rates_millionths
    if not gpu:
        if not rates:
            return Fit("stated"), []
        message = "is needed with rates: the name of the GPU whose times are stated"
        return Fit("stated"), [overlay.problem((*_AT, "gpu"), message, tuple(rates), value="")]
    if gpu not in rates:
        message = f"{gpu!r} has no rate: workload.rates needs the samples/s of the GPU whose times are stated"
        return Fit("stated"), [overlay.problem((*_AT, "gpu"), message, tuple(rates))]
    if device is None or not device.gpu:
        return Fit("stated"), []
    if device.gpu == gpu:
        return Fit("native"), []
    batch = stated.batch or recipe.batch or 1
    if device.gpu in rates:
        law = _law(recipe, device.gpu, batch)
        known = law.nearest(batch)
        own = _rate_at(recipe, gpu, batch, known, stated)
        there = law.rate(known)
        where = "" if known == batch else f" at batch {known}"
        told = f"{float(own):g} and {float(there):g} samples/s{where}"
        return _scaled("rate", own / there, gpu, device.gpu, told), []
    if not recipe.flops_per_sample:
        return Fit("stated"), []
    own = _rate_at(recipe, gpu, batch, batch, stated)
    flops = own * recipe.flops_per_sample
    told = f"{float(flops) / 1e12:.4g} and {device.device_flops / 1e12:.4g} TFLOP/s; no samples/s of the latter known"
    return _scaled("flops", flops / device.device_flops, gpu, device.gpu, told), []


def _law(recipe: WorkloadRecipe, gpu: str, stated_batch: int) -> BatchLaw:
    return law_of(recipe.rates_millionths[gpu], stated_batch, recipe.fixed_ns.get(gpu, 0))


def _rate_at(recipe: WorkloadRecipe, gpu: str, stated_batch: int, batch: int, stated: Stated) -> Fraction:
    """Samples a second of ``gpu`` at ``batch``, by its law."""
    step_ns = _law(recipe, gpu, stated_batch).step_ns(batch, Fraction(stated.optimizer_ns))
    return Fraction(batch * 10**9) / step_ns


def _scaled(timing: Timing, ratio: Fraction, gpu: str, there: str, told: str) -> Fit:
    return Fit(timing, ratio, f"SCALED by {float(ratio):.4g} from {gpu} to {there} ({told})")


def stated_beside_rates(overlay: Overlay, key: str) -> bool:
    """Whether ``workload.key`` was stated where the rates were; what somebody sets later is for the cluster's GPU."""
    return overlay.origin((*_AT, key)) == overlay.origin((*_AT, "rates"))


def stated_for_batch(overlay: Overlay, key: str) -> bool:
    """Whether the layer that states ``workload.key`` states a batch, too; other times are for the batch asked for."""
    return overlay.stated(BATCH, overlay.origin((*_AT, key))) is not None


@dataclass(frozen=True, slots=True)
class Assumed:
    """What a bare list of tensors does not say."""

    forward_ns: int
    backward_ns: int
    optimizer_ns: int
    batch: int
    sources: dict[str, str]


def assume(
    recipe: WorkloadRecipe, tensors: Sequence[Tensor], stated_backward_ns: int | None, device: Device | None
) -> Assumed:
    """Batch 1; backward as stated, else 4 of 6 parts of the step's FLOPs, else 100 ms; forward half of it.

    The optimizer moves 20 B a value at a V100's memory rate, as the generators assume.
    """
    batch = recipe.batch or 1
    work = (recipe.flops_per_sample or 0) * batch
    if stated_backward_ns is not None:
        backward_ns, how = stated_backward_ns, ""
    elif work and device is not None:
        backward_ns = max(2 * work * 10**9 // (3 * device.device_flops), 1)
        how = "DERIVED: two thirds of the FLOPs at the cluster's device_flops"
    else:
        backward_ns, how = ASSUMED_BACKWARD_NS, "ASSUMED: 100 ms, where the list has no times and nothing is said"
    values = sum(tensor.nbytes for tensor in tensors) // 4
    sources = {
        "forward": "ASSUMED: half of backward",
        "optimizer": "ASSUMED: 20 B of memory traffic for each 4 B of gradient, at 900 GB/s",
        "batch": "ASSUMED: 1",
        "backward": how,
    }
    return Assumed(
        forward_ns=max(backward_ns // 2, 1),
        backward_ns=backward_ns,
        optimizer_ns=values * OPTIMIZER_BYTES * 10**9 // MEMORY_Bps,
        batch=1,
        sources={key: told for key, told in sources.items() if told},
    )
