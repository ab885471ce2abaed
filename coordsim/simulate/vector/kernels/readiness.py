"""When gradients are ready: draws, running sums and maxima over ranks, block by block.

Reference: :class:`coordsim.cost.noise.NoiseModel` (NumPy), which these loops equal bit for bit. Blocks of
ranks keep the scratch arrays in the first-level cache; the hash, the table look-up and the scaling are
separate loops so that all but the look-up become SIMD.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coordsim.mixing import GOLDEN, mixed
from coordsim.simulate.vector.kernels import borrowing, compiled, inlined

Int64 = npt.NDArray[np.int64]
UInt32 = npt.NDArray[np.uint32]
UInt64 = npt.NDArray[np.uint64]
Ready = npt.NDArray[Any]
"""Shape [unit, rank], ns after the step's start; uint32 when they fit, else int64."""

BLOCK = 128

U32 = np.uint32
U64 = np.uint64


class Draws(NamedTuple):
    """What one step's compute times are drawn from."""

    key_low: UInt32
    key_high: UInt32
    """Shape [rank]: the two key words of each rank's draws, one draw a tensor."""
    factor: UInt32
    """Shape [rank]: Q16 factor of rank, node, step and common noise together."""
    packed: UInt64
    """Shape [knot]: quantile table of the tensors' noise, base << 32 | slope."""
    symmetric: bool
    """Whether the sign bit of a draw is the draw's sign."""
    noisy: bool
    """Whether tensors have noise of their own; else ``packed`` and the keys are not looked at."""


class Compute(NamedTuple):
    """One step's compute times without noise, ns."""

    forward: Int64
    """Shape [rank]: forward pass, its noise included."""
    backward: UInt64
    """Shape [tensor]: from one gradient to the next."""
    unit_of: Int64
    """Shape [tensor]: the unit that a tensor completes; -1: none."""


class _Block(NamedTuple):
    """Scratch for one block of ranks; shape [BLOCK] each."""

    clock: UInt64
    """When each rank is done with the tensors so far, ns after the step's start."""
    place: UInt32
    fraction: UInt32
    sign: npt.NDArray[np.int32]
    knot: UInt64


@compiled
def fill_ready(draws: Draws, compute: Compute, ready: Ready, latest: Int64) -> None:
    """Fill ``ready`` [unit, rank] and ``latest`` [unit] (maximum over ranks)."""
    block = _Block(
        np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.uint32), np.empty(BLOCK, np.uint32),
        np.empty(BLOCK, np.int32), np.empty(BLOCK, np.uint64),
    )  # fmt: skip
    latest[:] = 0
    _fill_blocks(draws, compute, block, ready, latest)


@borrowing
def _fill_blocks(draws: Draws, compute: Compute, block: _Block, ready: Ready, latest: Int64) -> None:
    """Block after block: clocks of a block stay in the cache while all its tensors go by."""
    forward, backward, unit_of = compute
    for start in range(0, forward.size, BLOCK):
        size = min(BLOCK, forward.size - start)
        for i in range(size):
            block.clock[i] = U64(forward[start + i])
        for tensor in range(backward.size):
            if draws.noisy:
                _draw_knots(draws, block, start, size, tensor)
                _add_noisy(draws, block, start, size, backward[tensor])
            else:
                _add_even(draws, block, start, size, backward[tensor])
            unit = unit_of[tensor]
            if unit >= 0:
                latest[unit] = max(latest[unit], _complete(block, ready[unit, start : start + size]))


@inlined
def _draw_knots(draws: Draws, block: _Block, start: int, size: int, tensor: int) -> None:
    """One draw a rank: hash its key (:func:`coordsim.cost.draws.draw`), and look its quantile up.

    The look-up has a loop of its own, because it is what does not become SIMD.
    """
    low, high = draws.key_low[start : start + size], draws.key_high[start : start + size]
    place, fraction, sign, knot = block.place, block.fraction, block.sign, block.knot
    sign_mask = U32(1) if draws.symmetric else U32(0)
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
        tail = coarse == U32(1023)  # the last interval has a finer table behind the coarse one
        place[i] = U32(1024) + ((u >> U32(11)) & U32(1023)) if tail else coarse
        fraction[i] = ((u & U32(2047)) << U32(1)) if tail else ((u >> U32(9)) & U32(4095))
        sign[i] = -np.int32((x >> U32(31)) & sign_mask)
    for i in range(size):
        knot[i] = draws.packed[place[i]]


@inlined
def _add_noisy(draws: Draws, block: _Block, start: int, size: int, duration: np.uint64) -> None:
    """One tensor's backward with its noise: interpolate between knots, combine factors, scale once."""
    clock, knot, fraction, sign = block.clock, block.knot, block.fraction, block.sign
    scale = draws.factor[start : start + size]
    for i in range(size):
        pair = knot[i]
        value = np.int32(U32(pair >> U64(32))) + np.int32(U32(U32(pair) * fraction[i]) >> U32(12))
        value = np.int32(value ^ sign[i]) - sign[i]  # negated where the sign is -1
        own = np.int32(max(np.int32(65536) + np.int32(value), np.int32(0)))
        combined = U32((U64(scale[i]) * U64(U32(own))) >> U64(16))
        clock[i] += (duration * U64(combined)) >> U64(16)


@inlined
def _add_even(draws: Draws, block: _Block, start: int, size: int, duration: np.uint64) -> None:
    """One tensor's backward where tensors have no noise of their own."""
    clock, scale = block.clock, draws.factor[start : start + size]
    for i in range(size):
        clock[i] += (duration * U64(scale[i])) >> U64(16)


@inlined
def _complete(block: _Block, row: Ready) -> np.int64:
    """A unit is complete: its readiness into ``row`` [rank of the block]; returns the latest."""
    clock, most = block.clock, U64(0)
    for i in range(row.size):
        most = max(most, clock[i])
        row[i] = clock[i]
    return np.int64(most)


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


_mixed = inlined(mixed)


@compiled
def wake_hash_kernel(relative_wake_ns: Int64) -> np.uint64:
    """The sum of :func:`coordsim.record.trace.wake_hash`, compiled."""
    total = U64(0)
    for r in range(relative_wake_ns.size):
        total += _mixed(U64(relative_wake_ns[r]) + U64(r + 1) * GOLDEN)
    return total
