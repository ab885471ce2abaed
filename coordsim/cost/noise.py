"""Compute noise: counter-based draws, the same bits in Python, NumPy and numba (docs/semantics.md 1.4).

A draw is ``u32 = hash(seed, stream, step, index, tensor)`` through a committed integer table. The factors of one
rank in one step are combined once, in the order rank, node, step, into a Q16 number (65,536 = as on a median
GPU); the tensor's own factor multiplies that, and a duration is scaled by one multiplication and one shift.
This NumPy form is the reference; the vector engine's kernel is tested against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from coordsim.cost.distributions import scaled_table
from coordsim.scenario.model import Noise, Spread

ONE_Q16 = 1 << 16
PPM = 1_000_000

STREAM_RANK, STREAM_NODE, STREAM_STEP, STREAM_TENSOR, STREAM_STALL, STREAM_STALL_LENGTH = range(1, 7)
STREAM_DETOUR, STREAM_DETOUR_LENGTH = 7, 8
"""Of these two the step's place in the counter is the cycle."""

UInt32 = npt.NDArray[np.uint32]
UInt64 = npt.NDArray[np.uint64]
Int64 = npt.NDArray[np.int64]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
TENSOR_STRIDE = 0x9E3779B9
_CHUNK = 1 << 15
"""Ranks at a time, so that temporaries stay in the cache."""


def _mix(z: int) -> int:
    """SplitMix64's output function (Steele et al. 2014)."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return z ^ (z >> 31)


def keys(seed: int, stream: int, step: int, indices: Int64) -> tuple[UInt32, UInt32]:
    """The two key words of each index (shape [index]) in one stream and step."""
    base = seed & _MASK
    for value in (stream, step):
        base = _mix((base + _GOLDEN * (value + 1)) & _MASK)
    with np.errstate(over="ignore"):
        z = np.uint64(base) + np.uint64(_GOLDEN) * (indices.astype(np.uint64) + np.uint64(1))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return z.astype(np.uint32), (z >> np.uint64(32)).astype(np.uint32)


def draw(key: tuple[UInt32, UInt32], tensor: int = 0) -> UInt32:
    """u32 of each key (shape [index]) for one tensor: two rounds of a 32-bit mixer with the second key word
    between them (multipliers: Wellons' lowbias32)."""
    low, high = key
    x = low + np.uint32(tensor * TENSOR_STRIDE & 0xFFFFFFFF)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= high
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    return x


@dataclass(frozen=True)
class Quantiles:
    """An integer inverse-CDF table of one spread: u32 -> Q16 relative slow-down."""

    base: npt.NDArray[np.int32]
    slope: npt.NDArray[np.int32]
    symmetric: bool
    """The sign bit of u32 is the sign of the draw (normal); otherwise it is ignored."""

    @classmethod
    def of(cls, spread: Spread) -> Quantiles:
        """The committed table of ``spread``'s distribution, scaled by its sigma."""
        symmetric = spread.distribution == "normal"
        name = "half-normal" if symmetric else spread.distribution
        base, slope = scaled_table(name, spread.sigma_ppm)
        return cls(base, slope, symmetric)

    def __call__(self, u32: UInt32) -> Int64:
        """Q16 slow-down of each draw (shape of ``u32``)."""
        u = u32 & np.uint32(0x7FFFFFFF)
        coarse = u >> np.uint32(21)
        tail = coarse == 1023
        index = np.where(tail, 1024 + ((u >> np.uint32(11)) & np.uint32(1023)), coarse)
        fraction = np.where(tail, (u & np.uint32(2047)) << np.uint32(1), (u >> np.uint32(9)) & np.uint32(4095))
        value = self.base[index].astype(np.int64)
        value += (self.slope[index].astype(np.int64) * fraction.astype(np.int64)) >> 12
        if self.symmetric:
            value = np.where(u32 >> np.uint32(31) == 1, -value, value)
        return value

    def factor(self, u32: UInt32) -> Int64:
        """Q16 factor, never negative (shape of ``u32``)."""
        return np.maximum(self(u32) + ONE_Q16, 0)


def scaled_ns(duration_ns: Int64 | int, factor_q16: Int64) -> Int64:
    """Durations times a Q16 factor, floored; ns."""
    return np.asarray((np.asarray(duration_ns, dtype=np.int64) * factor_q16) >> 16)


class NoiseModel:
    """Noise of one job: which GPUs it got, and how long compute takes on each in each step.

    ``ranks`` placed on nodes of ``ranks_per_node`` in order.
    """

    def __init__(self, noise: Noise, seed: int, ranks: int, ranks_per_node: int) -> None:
        self.noise = noise
        self.seed = seed
        self.ranks = ranks
        self.ranks_per_node = ranks_per_node
        self.tensor_quantiles = Quantiles.of(noise.tensor) if noise.tensor.sigma_ppm else None
        self._step_quantiles = Quantiles.of(noise.step) if noise.step.sigma_ppm else None
        self._indices = np.arange(ranks, dtype=np.int64)

    @cached_property
    def persistent_q16(self) -> Int64:
        """Factor of rank and node together, shape [rank]; screened nodes are already left out."""
        nodes = -(-self.ranks // self.ranks_per_node)
        candidates = -(-nodes * PPM // (PPM - self.noise.screen_ppm))
        slots = candidates * self.ranks_per_node
        factor = np.full(slots, ONE_Q16, dtype=np.int64)
        if self.noise.rank.sigma_ppm:
            key = keys(self.seed, STREAM_RANK, 0, np.arange(slots, dtype=np.int64))
            factor = Quantiles.of(self.noise.rank).factor(draw(key))
        if self.noise.node.sigma_ppm:
            key = keys(self.seed, STREAM_NODE, 0, np.arange(candidates, dtype=np.int64))
            factor = (factor * np.repeat(Quantiles.of(self.noise.node).factor(draw(key)), self.ranks_per_node)) >> 16
        by_node = factor.reshape(candidates, self.ranks_per_node)
        if candidates > nodes:
            kept = np.sort(np.argsort(by_node.max(axis=1), kind="stable")[:nodes])
            by_node = by_node[kept]
        return by_node.reshape(-1)[: self.ranks].copy()

    def step_q16(self, step: int) -> Int64:
        """Factor of rank, node and step together, shape [rank]."""
        if self._step_quantiles is None:
            return self.persistent_q16
        factor = np.empty_like(self.persistent_q16)
        for first in range(0, self.ranks, _CHUNK):
            part = slice(first, first + _CHUNK)
            u32 = draw(keys(self.seed, STREAM_STEP, step, self._indices[part]))
            factor[part] = (self.persistent_q16[part] * self._step_quantiles.factor(u32)) >> 16
        return factor

    def stall_ns(self, step: int) -> Int64 | None:
        """Rare stalls of a step, shape [rank]; None when they are switched off."""
        if not (self.noise.stall_ppm and self.noise.stall_ns):
            return None
        streams = STREAM_STALL, STREAM_STALL_LENGTH
        stalls = self._rare_ns(streams, step, self.noise.stall_ppm, self.noise.stall_ns)
        return np.zeros(self.ranks, dtype=np.int64) if stalls is None else stalls

    def detour_ns(self, cycle: int) -> Int64 | None:
        """What each rank's control CPU loses to the operating system in a cycle, shape [rank]; None: nothing.

        One chance per rank and cycle, of an exponential length (docs/semantics.md 4.6).
        """
        if not self.noise.detours:
            return None
        streams = STREAM_DETOUR, STREAM_DETOUR_LENGTH
        return self._rare_ns(streams, cycle, self.noise.detour_ppm, self.noise.detour_ns)

    def _rare_ns(self, streams: tuple[int, int], counter: int, ppm: int, mean_ns: int) -> Int64 | None:
        """Lengths where the first stream's draw falls below ``ppm``, else 0, shape [rank]; None where none does."""
        threshold = ppm * (1 << 32) // PPM
        hit = draw(keys(self.seed, streams[0], counter, self._indices)).astype(np.int64) < threshold
        if not hit.any():
            return None
        lengths = np.zeros(self.ranks, dtype=np.int64)
        u32 = draw(keys(self.seed, streams[1], counter, self._indices[hit]))
        lengths[hit] = scaled_ns(mean_ns, self._unit_exponential(u32))
        return lengths

    @cached_property
    def _unit_exponential(self) -> Quantiles:
        return Quantiles.of(Spread("exponential", PPM))

    def forward_ns(self, step: int, forward_ns: int) -> Int64:
        """Forward pass of each rank, stalls included; shape [rank], at least 1 ns."""
        duration = scaled_ns(forward_ns, self.step_q16(step))
        stalls = self.stall_ns(step)
        return np.maximum(duration if stalls is None else duration + stalls, 1)

    def tensor_keys(self, step: int) -> tuple[UInt32, UInt32]:
        """Key words of each rank for the tensor draws of a step, shape [rank] each."""
        low, high = np.empty((2, self.ranks), dtype=np.uint32)
        for first in range(0, self.ranks, _CHUNK):
            part = slice(first, first + _CHUNK)
            low[part], high[part] = keys(self.seed, STREAM_TENSOR, step, self._indices[part])
        return low, high

    def ready_ns(self, step: int, forward_ns: int, backward_ns: Int64, first: int, last: int) -> Int64:
        """When each gradient exists, after the step's start: shape [rank, tensor] for ranks first..last-1.

        ``backward_ns`` (shape [tensor], ready order) is the compute between one gradient and the next.
        """
        ranks = slice(first, last)
        step_factor = self.step_q16(step)[ranks]
        key_low, key_high = self.tensor_keys(step)
        key = key_low[ranks], key_high[ranks]
        ready = np.empty((last - first, backward_ns.size), dtype=np.int64)
        clock = self.forward_ns(step, forward_ns)[ranks].copy()
        for tensor, duration in enumerate(backward_ns):
            factor = step_factor
            if self.tensor_quantiles is not None:
                factor = (step_factor * self.tensor_quantiles.factor(draw(key, tensor))) >> 16
            clock += scaled_ns(int(duration), factor)
            ready[:, tensor] = clock
        return ready
