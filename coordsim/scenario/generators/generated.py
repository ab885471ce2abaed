"""What a generator hands to the loader: everything of a workload that is computed, not read."""

from __future__ import annotations

from dataclasses import dataclass

from coordsim.scenario.model import Tensor


@dataclass(frozen=True, slots=True)
class Generated:
    """The computed part of a :class:`~coordsim.scenario.model.Workload`, field for field."""

    tensors: tuple[Tensor, ...]
    """In ready order; times in ns after the start of backward."""
    forward_ns: int
    optimizer_ns: int
    batch: int
    """Samples per rank and step."""
    flops_per_sample: int
    """Training FLOPs (forward and backward) of one sample."""
    sample_bytes: int
    """Bytes read from node-local storage for one sample."""
