"""How the time of a backward pass is divided over its gradients, in the order in which they appear.

The rule, for generated and recorded workloads alike:

1. A module (one convolution, one linear layer, one norm) works when the *first* of its gradients appears.
   That gradient is charged twice the module's forward FLOPs (gradient by input and by weight).
   Where the input gradient is not needed (the first layer) the charge stays: training counts as 3x forward.
2. A norm has no multiply-adds that count, but moves memory: its first gradient is charged
   ``NORM_BYTES`` per element of its output.
3. Every further gradient of a module (a bias) is charged one pass over the gradient of the output:
   ``BIAS_BYTES`` per element. So no gradient is free, and no two appear at the same time.
4. Bytes become FLOPs at the balance of a V100: ``DEVICE_FLOPS / MEMORY_Bps``, 67 FLOPs a byte.
5. The charges, summed in ready order, are scaled to the given backward time. Integers throughout.

Modules without parameters (activation, pooling, concatenation) are not charged: their time is part of
the total and is spread with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

DEVICE_FLOPS = 60_000_000_000_000
"""FLOP/s of one V100 on FP16 convolutions: DERIVED from STEMDL on Summit (docs/published.md V6)."""
MEMORY_Bps = 900_000_000_000
"""B/s of a V100's HBM2, nominal (NVIDIA's data sheet)."""
NORM_BYTES = 8
"""Per output element, FP16: read input and gradient, then read input and write gradient. DERIVED."""
BIAS_BYTES = 2
"""Per output element, FP16: read the gradient once. DERIVED."""


@dataclass(frozen=True, slots=True)
class ModuleWork:
    """What one sample costs in one module that owns parameters."""

    forward_flops: int
    """2 x multiply-adds of the forward pass; 0 for a norm."""
    outputs: int
    """Elements of the output."""
    norm: bool = False

    def first_charge(self) -> int:
        """FLOPs charged to the gradient that appears first (rules 1 and 2)."""
        return 2 * self.forward_flops + (_bytes_as_flops(NORM_BYTES * self.outputs) if self.norm else 0)

    def further_charge(self) -> int:
        """FLOPs charged to each gradient that follows (rule 3)."""
        return _bytes_as_flops(BIAS_BYTES * self.outputs)


def ready_times_ns(
    modules: Sequence[str], work: Mapping[str, ModuleWork], backward_ns: int
) -> tuple[int, ...]:
    """When each gradient exists, in ns after the start of backward; strictly increasing.

    ``modules`` names the owner of each gradient, in ready order. The last time is ``backward_ns``,
    which must leave every gradient at least 1 ns.
    """
    if backward_ns < len(modules):
        raise ValueError(f"{backward_ns} ns are too few for {len(modules)} gradients of at least 1 ns")
    charges = []
    seen: set[str] = set()
    for module in modules:
        charges.append(work[module].further_charge() if module in seen else work[module].first_charge())
        seen.add(module)
    divisible_ns = backward_ns - len(modules)
    total = sum(charges)
    return tuple(
        count + divisible_ns * charged // total for count, charged in enumerate(accumulate(charges), start=1)
    )


def _bytes_as_flops(nbytes: int) -> int:
    return nbytes * DEVICE_FLOPS // MEMORY_Bps
