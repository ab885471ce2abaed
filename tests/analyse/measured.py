"""Measurements of a machine whose parameters are known, with noise."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from coordsim.record.measurement import Measurement, Series


def noisy(ns: float, random: np.random.Generator, repeats: int = 40, spread: float = 0.03) -> tuple[float, ...]:
    """Times whose median is ``ns``, skewed to the right."""
    return tuple((ns * np.exp(spread * random.standard_normal(repeats))).tolist())


def measurement(series: Iterable[Series], cores: int = 64, source: str = "MEASURED") -> Measurement:
    return Measurement(source, {"name": "made", "cores": cores}, {"date": "2026-11-25"}, tuple(series))


def machine(
    latency: float, overhead: float, gap: float, seed: int, ranks: tuple[int, ...] = (2,), spread: float = 0.03
) -> list[Series]:
    """Round trips, ANDs round a ring, by the model."""
    random = np.random.default_rng(seed)
    found = []
    for each in ranks:
        for nbytes, count in [(8, 1), (512, 1), (4096, 1), (65536, 1), (8, 4), (8, 16), (8, 64)]:
            took = 2 * latency + (count + 3) * overhead + 2 * gap * nbytes
            found.append(Series("ping", each, noisy(took, random, spread=spread), nbytes, count))
        for nbytes in (8, 128, 8000):
            took = 2 * (each - 1) * (latency + 2 * overhead + gap * nbytes)
            found.append(Series("and", each, noisy(took, random, spread=spread), nbytes))
    return found


def allreduces(alpha: float, bandwidth_Bps: float, seed: int, ranks: tuple[int, ...] = (2,)) -> list[Series]:
    random = np.random.default_rng(seed)
    return [
        Series(
            "allreduce", each,
            noisy(alpha + 2 * (each - 1) / each * nbytes * 1e9 / bandwidth_Bps, random), nbytes, path="auto",
        )
        for each in ranks for nbytes in (1 << 10, 1 << 14, 1 << 18, 1 << 22, 1 << 24)
    ]  # fmt: skip


def counting(message: float, request: float, response: float, seed: int) -> list[Series]:
    random = np.random.default_rng(seed)
    return [
        Series(
            "coordinator", ranks,
            noisy((ranks - 1) * message + ranks * tensors * request + tensors * response, random), count=tensors,
        )
        for ranks, tensors in [(2, 4), (2, 256), (8, 4), (8, 256), (32, 4), (32, 64)]
    ]  # fmt: skip


def computing(
    ranks: int, steps: int, sigma: float, seed: int, persistent: float = 0.0, node: float = 0.0, per_node: int = 4
) -> list[Series]:
    """Normal noise by step, rank and node."""
    random = np.random.default_rng(seed)
    nodes = random.standard_normal(-(-ranks // per_node))
    found = []
    for rank in range(ranks):
        factor = (1 + persistent * random.standard_normal()) * (1 + node * nodes[rank // per_node])
        samples = 5e6 * factor * (1 + sigma * random.standard_normal(steps))
        found.append(Series("compute", ranks, tuple(samples.tolist()), rank=rank, node=f"n{rank // per_node}"))
    return found
