"""Scenarios of the published runs on Summit."""

from __future__ import annotations

from dataclasses import replace

from coordsim.analyse.validate.published.runs import Overrides
from coordsim.scenario.loading import load_scenario
from coordsim.scenario.model import Scenario, Workload

FULL_MACHINE = 27_600
PER_NODE = 6
STEPS = 5
QUICK_STEPS = 2
STEMDL = ("control_plane.cycle_time=2ms", "control_plane.fusion_threshold=64MiB")
"""READ: STEMDL's job script (docs/published.md 2). ResNet-50 runs with each control plane's own defaults."""
IMAGES_PER_S = {32: 556, 64: 688, 128: 810}
"""READ: ResNet-50 on one DGX-1 with 8 V100, mixed precision, images/s a GPU by batch (docs/published.md 7)."""
HARDWARE = "Summit: 6 V100 a node, dual EDR InfiniBand"


def scenario(
    case: str, ranks: int, plane: str, groups: str, overrides: Overrides = (), seed: int = 0, steps: int = STEPS
) -> Scenario:
    """``case``: ``stemdl``, ``resnet50`` (batch 64), or ``resnet50@32`` for another batch of :data:`IMAGES_PER_S`."""
    name, _, batch = case.partition("@")
    found = load_scenario(
        workload=name, cluster="summit", ranks=ranks, control_plane=plane, groups=groups, seed=seed, steps=steps,
        overrides=(STEMDL if name == "stemdl" else ()) + overrides,
    )  # fmt: skip
    return replace(found, workload=at_batch(found.workload, int(batch))) if batch else found


def at_batch(workload: Workload, batch: int) -> Workload:
    """ResNet-50 at another batch: compute times scaled to the published throughput, the optimizer as it is."""
    compute_ns = batch * 10**9 // IMAGES_PER_S[batch] - workload.optimizer_ns
    was_ns = workload.forward_ns + workload.backward_ns
    tensors = []
    for index, tensor in enumerate(workload.tensors):
        ready_ns = max(tensor.ready_ns * compute_ns // was_ns, index + 1)
        tensors.append(replace(tensor, ready_ns=ready_ns, submit_ns=ready_ns))
    forward_ns = workload.forward_ns * compute_ns // was_ns
    return replace(workload, tensors=tuple(tensors), forward_ns=forward_ns, batch=batch)


def name_of(case: str) -> str:
    """``resnet50@32`` as words."""
    name, _, batch = case.partition("@")
    return "STEMDL, batch 1" if name == "stemdl" else f"ResNet-50, batch {batch or 64}"
