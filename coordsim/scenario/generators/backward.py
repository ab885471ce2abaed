"""How the time of a backward pass is divided over its gradients, in the order in which they appear.

The rule, for generated and recorded workloads alike:

1. A module (one convolution, one linear layer, one norm) works when the *first* of its gradients appears.
   That gradient is charged twice the module's forward FLOPs (gradient by input and by weight).
   Where the input gradient is not needed (the first layer) the charge stays: training counts as 3x forward.
2. A norm or an embedding has no multiply-adds that count, but moves memory: its first gradient is charged
   four passes over its output (a norm reads input and gradient, then reads input and writes gradient).
3. Every further gradient of a module (a bias) is charged one pass over the gradient of the output.
   So no gradient is free, and no two appear at the same time.
4. Bytes become FLOPs at the balance of the device: for a V100 in FP16 ``DEVICE_FLOPS / MEMORY_Bps``, 67 a byte.
5. The charges, summed in ready order, are scaled to the given backward time. Integers throughout.

Attention's two products of activations, and a layer whose weight is that of another (a tied embedding), have
no gradient of their own: the recorder adds their FLOPs to the module that ran just before them, whose gradient
comes next in backward. Modules without parameters (activation, pooling, concatenation) are not charged: their
time is part of the total and is spread with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

DEVICE_FLOPS = 60_000_000_000_000
"""FLOP/s of one V100 on FP16 convolutions: DERIVED from STEMDL on Summit (docs/published.md V6)."""
MEMORY_Bps = 900_000_000_000
"""B/s of a V100's HBM2, nominal (NVIDIA's data sheet)."""
NORM_PASSES = 4
"""Over the output: read input and gradient, then read input and write gradient. DERIVED."""


@dataclass(frozen=True, slots=True)
class Balance:
    """At what rate a device computes and moves memory; turns bytes into FLOPs of equal time."""

    device_flops: int
    """FLOP/s sustained on the workload."""
    memory_Bps: int
    element_bytes: int
    """Bytes of one activation."""

    def flops(self, elements: int) -> int:
        """FLOPs that take as long as one pass over ``elements`` activations."""
        return self.element_bytes * elements * self.device_flops // self.memory_Bps


V100_HALF = Balance(DEVICE_FLOPS, MEMORY_Bps, 2)
"""A V100 in FP16."""


@dataclass(frozen=True, slots=True)
class ModuleWork:
    """What one sample costs in one module that owns parameters."""

    forward_flops: int
    """2 x multiply-adds of the forward pass; 0 for a norm or an embedding."""
    outputs: int
    """Elements of the output."""
    norm: bool = False
    """A norm or an embedding: bound by memory (rule 2)."""

    def first_charge(self, balance: Balance = V100_HALF) -> int:
        """FLOPs charged to the gradient that appears first (rules 1 and 2; rule 3 for a bias on its own)."""
        moved = balance.flops(NORM_PASSES * self.outputs) if self.norm else 0
        return 2 * self.forward_flops + moved or self.further_charge(balance)

    def further_charge(self, balance: Balance = V100_HALF) -> int:
        """FLOPs charged to each gradient that follows (rule 3)."""
        return balance.flops(self.outputs)


def ready_times_ns(
    modules: Sequence[str],
    work: Mapping[str, ModuleWork],
    backward_ns: int,
    balance: Balance = V100_HALF,
) -> tuple[int, ...]:
    """When each gradient exists, in ns after the start of backward; strictly increasing.

    ``modules`` names the owner of each gradient, in ready order. The last time is ``backward_ns``,
    which must leave every gradient at least 1 ns. ``balance`` is that of the device it runs on.
    """
    if backward_ns < len(modules):
        raise ValueError(f"{backward_ns} ns are too few for {len(modules)} gradients of at least 1 ns")
    charges = []
    seen: set[str] = set()
    for module in modules:
        charge = work[module].further_charge if module in seen else work[module].first_charge
        charges.append(charge(balance))
        seen.add(module)
    divisible_ns = backward_ns - len(modules)
    total = sum(charges)
    return tuple(
        count + divisible_ns * charged // total for count, charged in enumerate(accumulate(charges), start=1)
    )
