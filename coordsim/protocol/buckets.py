"""Fixed buckets: who reduces what is settled before the first step, so that nothing is negotiated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coordsim.protocol.messages import Response


@dataclass(frozen=True, slots=True)
class Bucket:
    """Tensors that are reduced together, always."""

    units: tuple[int, ...]
    """Places of its tensors in ready order."""
    response: Response


def ddp_buckets(singles: Sequence[Response], first_bytes: int, other_bytes: int) -> list[Bucket]:
    """All buckets of one step, in launch order, of ``singles``, one response a tensor in ready order.

    A bucket holds one dtype and closes with the tensor that reaches its limit: ``first_bytes`` for the first bucket,
    ``other_bytes`` for the others. Ready order is DDP's own after it rebuilds its buckets in the first iteration.
    Source: DDP's defaults, 25 MiB and 1 MiB for the first (docs/published.md 7).
    """
    buckets: list[Bucket] = []
    start, size = 0, 0
    for index, single in enumerate(singles):
        size += single.nbytes
        full = size >= (other_bytes if buckets else first_bytes)
        last = index + 1 == len(singles)
        if full or last or singles[index + 1].dtype != single.dtype:
            members = list(singles[start : index + 1])
            buckets.append(Bucket(tuple(range(start, index + 1)), members[0].joined_with(members[1:])))
            start, size = index + 1, 0
    return buckets
