"""PyTorch DDP's buckets: fixed, in order, nothing to negotiate.

Source: DDP's defaults (25 MB, first 1 MiB; docs/published.md 7). A bucket closes with the tensor that
reaches its limit. Order is ready order, as after DDP rebuilds its buckets in the first iteration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coordsim.protocol.messages import Response, respond_to

if TYPE_CHECKING:
    from coordsim.simulate.problem import Problem


@dataclass(frozen=True, slots=True)
class Bucket:
    units: tuple[int, ...]
    """Indices of its units (for ``ddp`` a unit is one tensor), ready order."""
    response: Response


def ddp_buckets(problem: Problem) -> list[Bucket]:
    """All buckets of one step, in launch order. A bucket holds one dtype, as DDP's do."""
    plane = problem.plane
    buckets: list[Bucket] = []
    units: list[int] = []
    singles: list[Response] = []

    def close() -> None:
        if units:
            buckets.append(Bucket(tuple(units), singles[0].joined_with(singles[1:])))
            units.clear()
            singles.clear()

    for index, unit in enumerate(problem.units):
        single = respond_to(problem.requests[unit[0]])
        if singles and singles[0].dtype != single.dtype:
            close()
        units.append(index)
        singles.append(single)
        limit = plane.bucket_bytes if buckets else plane.first_bucket_bytes
        if sum(each.nbytes for each in singles) >= limit:
            close()
    close()
    return buckets
