"""Who asks for what in one cycle, from pointers and prefix sums: O(ranks), no lists."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from coordsim.simulate.vector.kernels import compiled

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]


@compiled
def between(prefix: Int64, before: Int32, now: Int32, plus: int, out: Int64) -> int:
    """``out`` [rank] = plus + sum of the units from ``before`` to ``now``; returns its sum."""
    total = np.int64(0)
    for r in range(out.size):
        out[r] = plus + prefix[now[r]] - prefix[before[r]]
        total += out[r]
    return int(total)


@compiled
def tree_work(
    own_before: Int32, own_now: Int32, passed_on: Int64, members: Int64, per_message: int, per_request: int,
    radix: int, work: Int64,
) -> int:  # fmt: skip
    """Serial ``work`` [rank] of every inner node of the tree, ns; returns the requests that rank 0 counts."""
    ranks = work.size
    work[:] = 0
    at_root = np.int64(0)
    for node in range((ranks - 2) // radix, -1, -1):
        requests = members[own_now[node]] - members[own_before[node]]
        first, last = radix * node + 1, min(radix * node + 1 + radix, ranks)
        for child in range(first, last):
            requests += passed_on[child]
        work[node] = per_message * (last - first) + per_request * requests
        at_root = requests
    return int(at_root)
