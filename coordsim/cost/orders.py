"""Ready orders: the order of gradients on each rank in each step (docs/semantics.md 2.6).

The order is a random permutation per rank and step, drawn by counter like noise: gradients in ascending order of their
draws ``u32 = hash(seed, stream, step, rank, tensor)``, equal draws in listed order.
"""

from __future__ import annotations

import numpy as np

from coordsim.cost.draws import Int64, draw, keys

STREAM_ORDER = 9
"""Follows the streams of :mod:`coordsim.cost.noise`."""


def shuffled_places(seed: int, step: int, first: int, last: int, tensors: int) -> Int64:
    """Return how many of the rank's gradients come before each one, shape [rank, tensor] for ranks first..last-1."""
    key = keys(seed, STREAM_ORDER, step, np.arange(first, last, dtype=np.int64))
    draws = np.empty((last - first, tensors), dtype=np.uint32)
    for tensor in range(tensors):
        draws[:, tensor] = draw(key, tensor)
    places = np.empty(draws.shape, dtype=np.int64)
    order = np.argsort(draws, axis=1, kind="stable")
    np.put_along_axis(places, order, np.arange(tensors, dtype=np.int64)[np.newaxis], axis=1)
    return places
