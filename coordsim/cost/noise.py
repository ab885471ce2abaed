"""Compute noise: counter-based draws, the same bits in Python, NumPy and numba (docs/semantics.md 1.4).

A draw is ``u32 = hash(seed, stream, step, index, tensor)`` through a committed integer table. The factors of one
rank in one step are combined once, in the order rank, node, step, common, into a Q16 number (65,536 = as on a median
GPU); the tensor's own factor multiplies that, and a duration is scaled by one multiplication and one shift.
This NumPy form is the reference; the vector engine's kernel is tested against it.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from coordsim.cost.draws import CHUNK, ONE_Q16, Int64, Quantiles, UInt32, draw, keys
from coordsim.cost.successive import Successive
from coordsim.scenario.model import Noise, Spread

PPM = 1_000_000

STREAM_RANK, STREAM_NODE, STREAM_STEP, STREAM_TENSOR, STREAM_STALL, STREAM_STALL_LENGTH = range(1, 7)
STREAM_DETOUR, STREAM_DETOUR_LENGTH = 7, 8
"""In the counter of these two streams the cycle takes the place of the step."""
STREAM_COMMON = 10
"""Follows the stream of :mod:`coordsim.cost.orders`."""
LARGEST_Q16 = 1 << 27
"""Upper bound of the factors of rank, node, step and common together. With it the tensor's factor (at most 23) still
fits 32 bits. A job of a million ranks with spreads of 100 % stays far below it."""


def scaled_ns(duration_ns: Int64 | int, factor_q16: Int64) -> Int64:
    """Return durations times a Q16 factor, rounded down; ns."""
    return np.asarray((np.asarray(duration_ns, dtype=np.int64) * factor_q16) >> 16)


class NoiseModel:
    """Noise of one job: which GPUs it has, and how long compute takes on each in each step.

    ``ranks`` are placed on nodes of ``ranks_per_node`` in order.
    """

    def __init__(self, noise: Noise, seed: int, ranks: int, ranks_per_node: int) -> None:
        self.noise = noise
        self.seed = seed
        self.ranks = ranks
        self.ranks_per_node = ranks_per_node
        self.tensor_quantiles = Quantiles.of(noise.tensor) if noise.tensor.sigma_ppm else None
        self._indices = np.arange(ranks, dtype=np.int64)
        self._step = self._common = None
        if noise.step.sigma_ppm:
            self._step = Successive(seed, STREAM_STEP, self._indices, noise.step, noise.step_correlation_ppm)
        if noise.common.sigma_ppm:
            everybody = np.zeros(1, dtype=np.int64)
            self._common = Successive(seed, STREAM_COMMON, everybody, noise.common, noise.common_correlation_ppm)
        self._last: tuple[int, Int64] | None = None

    @cached_property
    def persistent_q16(self) -> Int64:
        """Factor of rank and node together, shape [rank]; screened nodes are left out."""
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
        """Return the factor of rank, node, step and common together, shape [rank]. The caller must not write to it."""
        if self._step is None and self._common is None:
            return self.persistent_q16
        if self._last is None or self._last[0] != step:
            self._last = step, self._combined_q16(step)
        return self._last[1]

    def _combined_q16(self, step: int) -> Int64:
        factor = self.persistent_q16.copy()
        for successive in (self._step, self._common):
            if successive is not None:
                factor *= successive.factor_q16(step)
                factor >>= 16
        return np.minimum(factor, LARGEST_Q16, out=factor)

    def stall_ns(self, step: int) -> Int64 | None:
        """Return the rare stalls of a step, shape [rank]; None if they are switched off."""
        if not (self.noise.stall_ppm and self.noise.stall_ns):
            return None
        streams = STREAM_STALL, STREAM_STALL_LENGTH
        stalls = self._rare_ns(streams, step, self.noise.stall_ppm, self.noise.stall_ns)
        return np.zeros(self.ranks, dtype=np.int64) if stalls is None else stalls

    def detour_ns(self, cycle: int) -> Int64 | None:
        """Return the time that each rank's control CPU loses to the operating system in a cycle, shape [rank].

        There is one chance per rank and cycle, with an exponential length (docs/semantics.md 4.6). The result is None
        if no rank loses time.
        """
        if not self.noise.detours:
            return None
        streams = STREAM_DETOUR, STREAM_DETOUR_LENGTH
        return self._rare_ns(streams, cycle, self.noise.detour_ppm, self.noise.detour_ns)

    def _rare_ns(self, streams: tuple[int, int], counter: int, ppm: int, mean_ns: int) -> Int64 | None:
        """Return lengths where the first stream's draw is below ``ppm``, else 0, shape [rank].

        The result is None if no draw is below.
        """
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
        """Return each rank's forward pass, stalls included; shape [rank], at least 1 ns."""
        duration = scaled_ns(forward_ns, self.step_q16(step))
        stalls = self.stall_ns(step)
        return np.maximum(duration if stalls is None else duration + stalls, 1)

    def tensor_keys(self, step: int) -> tuple[UInt32, UInt32]:
        """Return the key words of each rank for the tensor draws of a step, shape [rank] each."""
        low, high = np.empty((2, self.ranks), dtype=np.uint32)
        for first in range(0, self.ranks, CHUNK):
            part = slice(first, first + CHUNK)
            low[part], high[part] = keys(self.seed, STREAM_TENSOR, step, self._indices[part])
        return low, high

    def ready_ns(self, step: int, forward_ns: int, backward_ns: Int64, first: int, last: int) -> Int64:
        """Return when each gradient exists, ns after the step's start, shape [rank, tensor] for ranks first..last-1.

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
