"""When gradients are ready: draws, running sums and maxima over ranks, block by block.

Reference: :class:`coordsim.cost.noise.NoiseModel` (NumPy), which these loops equal bit for bit. Blocks of
ranks keep the scratch arrays in the first-level cache; the hash, the table look-up and the scaling are
separate loops so that all but the look-up become SIMD.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from coordsim.simulate.vector.kernels import compiled

Int64 = npt.NDArray[np.int64]
Ready = npt.NDArray[Any]
"""Shape [unit, rank], ns after the step's start; uint32 when they fit, else int64."""

BLOCK = 128

U32 = np.uint32
U64 = np.uint64


@compiled
def fill_ready(
    key_low: npt.NDArray[np.uint32], key_high: npt.NDArray[np.uint32], factor: npt.NDArray[np.uint32],
    forward: Int64, backward: npt.NDArray[np.uint64], unit_of: Int64, packed: npt.NDArray[np.uint64],
    symmetric: bool, noisy: bool, ready: Ready, latest: Int64,
) -> None:  # fmt: skip
    """Fill ``ready`` [unit, rank] and ``latest`` [unit] (maximum over ranks).

    ``factor`` (shape [rank]) is Q16; ``unit_of`` (shape [tensor]) is the unit that a tensor completes, or
    -1; ``packed`` holds base << 32 | slope of the quantile table.
    """
    ranks, tensors = forward.size, backward.size
    clock = np.empty(BLOCK, np.uint64)
    index = np.empty(BLOCK, np.uint32)
    fraction = np.empty(BLOCK, np.uint32)
    sign = np.empty(BLOCK, np.int32)
    knot = np.empty(BLOCK, np.uint64)
    latest[:] = 0
    sign_mask = U32(1) if symmetric else U32(0)
    for start in range(0, ranks, BLOCK):
        size = min(BLOCK, ranks - start)
        low, high = key_low[start : start + size], key_high[start : start + size]
        scale = factor[start : start + size]
        for i in range(size):
            clock[i] = U64(forward[start + i])
        for tensor in range(tensors):
            duration = backward[tensor]
            if noisy:
                shift = U32(U32(tensor) * U32(0x9E3779B9))
                for i in range(size):
                    x = U32(low[i] + shift)
                    x ^= x >> U32(16)
                    x = U32(x * U32(0x7FEB352D))
                    x ^= high[i]
                    x ^= x >> U32(15)
                    x = U32(x * U32(0x846CA68B))
                    x ^= x >> U32(16)
                    u = x & U32(0x7FFFFFFF)
                    coarse = u >> U32(21)
                    tail = coarse == U32(1023)
                    index[i] = U32(1024) + ((u >> U32(11)) & U32(1023)) if tail else coarse
                    fraction[i] = ((u & U32(2047)) << U32(1)) if tail else ((u >> U32(9)) & U32(4095))
                    sign[i] = -np.int32((x >> U32(31)) & sign_mask)
                for i in range(size):
                    knot[i] = packed[index[i]]
                for i in range(size):
                    pair = knot[i]
                    value = np.int32(U32(pair >> U64(32))) + np.int32(U32(U32(pair) * fraction[i]) >> U32(12))
                    value = np.int32(value ^ sign[i]) - sign[i]
                    own = np.int32(max(np.int32(65536) + np.int32(value), np.int32(0)))
                    combined = U32((U64(scale[i]) * U64(U32(own))) >> U64(16))
                    clock[i] += (duration * U64(combined)) >> U64(16)
            else:
                for i in range(size):
                    clock[i] += (duration * U64(scale[i])) >> U64(16)
            unit = unit_of[tensor]
            if unit >= 0:
                most = U64(0)
                row = ready[unit, start : start + size]
                for i in range(size):
                    most = max(most, clock[i])
                    row[i] = clock[i]
                latest[unit] = max(latest[unit], np.int64(most))


@compiled
def count_ready(ready: Ready, limit: Int64, first: int, counts: npt.NDArray[np.int32]) -> int:
    """Units each rank has popped, into ``counts`` [rank]: rows with ready <= ``limit`` [rank].

    Rows below ``first`` are known to be popped everywhere. Returns the smallest count.
    """
    units, ranks = ready.shape
    counts[:] = first
    for unit in range(first, units):
        row = ready[unit]
        more = np.int64(0)
        for r in range(ranks):
            is_in = np.int32(np.int64(row[r]) <= limit[r])
            counts[r] += is_in
            more += is_in
        if more == 0:
            break
    least = np.int32(units)
    for r in range(ranks):
        least = min(least, counts[r])
    return int(least)


@compiled
def next_ready(ready: Ready, counts: npt.NDArray[np.int32], offset: Int64) -> int:
    """Smallest ready - offset over ranks of the first unit that each has not popped yet."""
    units = ready.shape[0]
    best = np.int64(np.iinfo(np.int64).max)
    for r in range(counts.size):
        if counts[r] < units:
            best = min(best, np.int64(ready[counts[r], r]) - offset[r])
    return int(best)


@compiled
def latest_lag(row: Ready, offset: Int64) -> int:
    """max over ranks of ready - offset: the wake of rank 0 from which on every rank has popped the unit."""
    best = np.int64(np.iinfo(np.int64).min)
    for r in range(row.size):
        best = max(best, np.int64(row[r]) - offset[r])
    return int(best)


@compiled
def wake_hash_kernel(relative_wake_ns: Int64) -> np.uint64:
    """The sum of :func:`coordsim.record.trace.wake_hash`, compiled."""
    total = U64(0)
    for r in range(relative_wake_ns.size):
        z = U64(relative_wake_ns[r]) + U64(r + 1) * U64(0x9E3779B97F4A7C15)
        z ^= z >> U64(30)
        z *= U64(0xBF58476D1CE4E5B9)
        z ^= z >> U64(27)
        z *= U64(0x94D049BB133111EB)
        z ^= z >> U64(31)
        total += z
    return total
