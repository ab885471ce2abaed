"""Compute times for the cluster's GPU: from what a workload states for its own, or assumed where it says nothing.

A workload's times are those of one named GPU. On another one they are scaled, all alike, by the samples a second
that a lone GPU of each kind is known to reach (``workload.rates``); for a GPU without a known rate by FLOPs at the
machine's ``device_flops``. A workload or a machine that names no GPU keeps the times as they are stated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from coordsim.errors import Problem
from coordsim.scenario.generators.backward import MEMORY_Bps
from coordsim.scenario.generators.stemdl import OPTIMIZER_BYTES
from coordsim.scenario.layers import Overlay
from coordsim.scenario.model import Tensor, Timing
from coordsim.scenario.schema import PPM, WorkloadTable

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
class Fit:
    """How stated times become those of the cluster's GPU."""

    timing: Timing
    ratio: Fraction = Fraction(1)
    """Time on the cluster's GPU over time stated."""
    told: str = ""
    """What was done, for the sources; empty: nothing."""

    def time_ns(self, stated_ns: int) -> int:
        """A stated time on the cluster's GPU, ns; the same where nothing is scaled, else at least 1."""
        return stated_ns if self.ratio == 1 else max(round(stated_ns * self.ratio), min(stated_ns, 1))

    def tensors(self, stated: Sequence[Tensor]) -> list[Tensor]:
        """The gradients with both of their times scaled."""
        if self.ratio == 1:
            return list(stated)
        return [
            replace(tensor, submit_ns=self.time_ns(tensor.submit_ns), ready_ns=self.time_ns(tensor.ready_ns))
            for tensor in stated
        ]


def fit(table: WorkloadTable, device: Device | None, overlay: Overlay) -> tuple[Fit, list[Problem]]:
    """How the times of the workload in ``table`` become those of ``device`` (None: the cluster is unknown)."""
    gpu, rates = table.gpu, table.rates
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
    own = Fraction(rates[gpu], PPM)
    if device.gpu in rates:
        there = Fraction(rates[device.gpu], PPM)
        told = f"{float(own):g} and {float(there):g} samples/s"
        return _scaled("rate", own / there, gpu, device.gpu, told), []
    if not table.flops_per_sample:
        return Fit("stated"), []
    flops = own * table.flops_per_sample
    told = f"{float(flops) / 1e12:.4g} and {device.device_flops / 1e12:.4g} TFLOP/s; no samples/s of the latter known"
    return _scaled("flops", flops / device.device_flops, gpu, device.gpu, told), []


def _scaled(timing: Timing, ratio: Fraction, gpu: str, there: str, told: str) -> Fit:
    return Fit(timing, ratio, f"SCALED by {float(ratio):.4g} from {gpu} to {there} ({told})")


def stated_beside_rates(overlay: Overlay, key: str) -> bool:
    """Whether ``workload.key`` was stated where the rates were; what somebody sets later is for the cluster's GPU."""
    return overlay.origin((*_AT, key)) == overlay.origin((*_AT, "rates"))


@dataclass(frozen=True, slots=True)
class Assumed:
    """What a bare list of tensors does not say."""

    forward_ns: int
    backward_ns: int
    optimizer_ns: int
    batch: int
    sources: dict[str, str]


def assume(
    table: WorkloadTable, tensors: Sequence[Tensor], stated_backward_ns: int | None, device: Device | None
) -> Assumed:
    """Batch 1; backward as stated, else 4 of 6 parts of the step's FLOPs, else 100 ms; forward half of it.

    The optimizer moves 20 B a value at a V100's memory rate, as the generators assume.
    """
    batch = table.batch or 1
    work = (table.flops_per_sample or 0) * batch
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
