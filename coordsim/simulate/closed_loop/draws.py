"""Random numbers of the closed loop, integers only: each depends on the seed and on its place, and on nothing else."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coordsim.simulate.closed_loop.problem import Int64
from coordsim.simulate.vector.kernels import inlined

U64 = np.uint64
Int32 = npt.NDArray[np.int32]

PHASE, WAKE, STALL, _STALL_LENGTH, ORDER, LATE, _LATE_LENGTH, TAKEN, _TAKEN_LENGTH = range(1, 10)
"""Streams: what a number is drawn for."""


class Draws(NamedTuple):
    """What is drawn from: a seed, tables of two distributions, and what sleeps take."""

    seed: Any
    """``np.uint64``."""
    normal: Int32
    """Half a normal distribution of standard deviation 1 ..."""
    normal_slope: Int32
    exponential: Int32
    """... and an exponential one of mean 1: :func:`coordsim.cost.distributions.scaled_table`."""
    exponential_slope: Int32
    sleep_asked: Int64
    """:attr:`coordsim.simulate.closed_loop.LoopCosts.sleep_asked_ns`; arrays, for each length of a tuple would be
    a type of its own to the compiler."""
    sleep_over: Int64


@inlined
def draw(seed: np.uint64, stream: int, counter: int, rank: int) -> int:
    """32 random bits of one place in one stream: SplitMix64 over a mixed counter."""
    z = U64(seed) * U64(0x9E3779B97F4A7C15) + U64(stream) * U64(0xD1B54A32D192ED03)
    z += U64(counter) * U64(0x8CB92BA72F3D8DD7) + U64(rank + 1) * U64(0x9FB21C651E98DF25)
    for _ in range(2):
        z ^= z >> U64(30)
        z *= U64(0xBF58476D1CE4E5B9)
        z ^= z >> U64(27)
        z *= U64(0x94D049BB133111EB)
        z ^= z >> U64(31)
    return int(z >> U64(32))


@inlined
def table_q16(u32: int, base: Int32, slope: Int32) -> int:
    """:func:`coordsim.cost.distributions.sampling.sample_q16` without the sign."""
    u = u32 & 0x7FFFFFFF
    index, fraction = u >> 21, (u >> 9) & 4095
    if index == 1023:
        index, fraction = 1024 + ((u >> 11) & 1023), (u & 2047) << 1
    return int(base[index]) + ((int(slope[index]) * fraction) >> 12)


@inlined
def oversleep(asked: int, asked_ns: Int64, over_ns: Int64) -> int:
    """How much longer than ``asked`` a sleep takes: linear between the measured lengths, flat outside."""
    last = asked_ns.size - 1
    if asked <= asked_ns[0]:
        return int(over_ns[0])
    if asked >= asked_ns[last]:
        return int(over_ns[last])
    i = 0
    while asked_ns[i + 1] < asked:
        i += 1
    share = (over_ns[i + 1] - over_ns[i]) * (asked - asked_ns[i]) // (asked_ns[i + 1] - asked_ns[i])
    return int(over_ns[i] + share)
