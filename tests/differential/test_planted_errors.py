"""Errors planted in the vector engine, each of which the differential test must catch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from coordsim.protocol.cache import ResponseCache
from coordsim.record import breakdown as breakdown_module
from coordsim.record.breakdown import breakdown, step_times
from coordsim.record.trace import difference
from coordsim.scenario.model import Noise, Scenario, Spread
from coordsim.simulate import event, vector
from coordsim.simulate.problem import Problem
from coordsim.simulate.vector import cached, plane
from coordsim.simulate.vector.cached import Cached
from coordsim.simulate.vector.kernels import exchanges
from coordsim.simulate.vector.loop import NegotiatedRun
from tests.scenarios import (
    CLUSTER,
    CONTROL,
    PLANE,
    random_scenario,
    scenario,
    small_cache_scenario,
    tensors,
    workload,
)

Plant = Callable[[pytest.MonkeyPatch], Scenario]
RAGGED = Noise(rank=Spread("normal", 300_000), tensor=Spread("exponential", 500_000))


def caught(described: Scenario) -> str | None:
    expected = event.run(Problem(described))
    return difference(expected, vector.run(Problem(described)))


def must_be_caught(plant: Plant) -> None:
    """The engines agree on the scenario of ``plant``, and no longer with its error."""
    with pytest.MonkeyPatch.context() as clean:
        described = plant(clean)
    assert caught(described) is None, "the engines must agree before the error is planted"
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        assert caught(described) is not None


def small_cache(capacity: int = 5) -> Scenario:
    squeezed = replace(PLANE, cache_capacity=capacity, cycle_time_ns=300_000)
    return scenario(6, steps=6, control_plane=squeezed, noise=RAGGED)


def without_fold_in(free: np.ndarray, nbytes: int, net: np.ndarray) -> None:
    core = 1 << (free.size.bit_length() - 1)
    exchanges_reduce(free[:core], nbytes, net)
    free[core:] = free[: free.size - core]


exchanges_reduce: Callable[..., None] = exchanges.reduce_recursive_doubling
count_ready: Callable[..., int] = plane.count_ready


def plant_dropped_fold_in(patch: pytest.MonkeyPatch) -> Scenario:
    patch.setattr(exchanges, "reduce_recursive_doubling", without_fold_in)
    return scenario(6)


def plant_wrong_tie(patch: pytest.MonkeyPatch) -> Scenario:
    """Ready at W counts as out."""
    patch.setattr(
        plane, "count_ready", lambda ready, limit, first, counts: count_ready(ready, limit - 1, first, counts)
    )
    job = workload(tensors=tensors([1_000_000] * 4), forward_ns=2_000_000)
    return scenario(4, workload=job, noise=Noise(), control_plane=replace(PLANE, name="coordinator"))


def plant_wrong_lru(patch: pytest.MonkeyPatch) -> Scenario:
    """A hit does not become most recently used."""
    vector_only(patch, ResponseCache, "touch", ResponseCache.peek)
    return small_cache_scenario(47)


def plant_off_by_one_bit(patch: pytest.MonkeyPatch) -> Scenario:
    """The bit vector forgets one status bit: 62 entries would still fit one word."""
    words = property(lambda cache: -(-(2 + cache.active_bits) // 64))
    vector_only(patch, ResponseCache, "words", words)
    thin = replace(CLUSTER, control=replace(CONTROL, bandwidth_Bps=10**9, local_bandwidth_Bps=10**9))
    return scenario(4, workload=workload(tensors=tensors([50_000] * 62)), cluster=thin)


def plant_wrong_completing_rank(patch: pytest.MonkeyPatch) -> Scenario:
    """Ready order although a pending hit was evicted."""
    patch.setattr(Cached, "_completion_order", lambda self, misses, before: [name for _, name in misses])
    return small_cache_scenario(295)


def plant_eviction_forgotten(patch: pytest.MonkeyPatch) -> Scenario:
    """Pending hits that lost their bit are not asked for again."""
    patch.setattr(cached, "remember", lambda *arguments: (real_remember(*arguments), [])[1])
    return small_cache(3)


real_remember = cached.remember


def plant_unfinished_subtree(patch: pytest.MonkeyPatch) -> Scenario:
    """An inner node passes on what it has itself, whatever its children miss."""

    def own_only(counts: np.ndarray, radix: int, least: np.ndarray) -> None:
        least[:] = counts

    patch.setattr(exchanges, "subtree_minimum", own_only)
    return scenario(12, noise=RAGGED, control_plane=replace(PLANE, name="hierarchical", radix=3))


def plant_stale_pattern(patch: pytest.MonkeyPatch) -> Scenario:
    """Idle cycles are skipped as if every rank still woke together."""
    patch.setattr(Cached, "_lag", lambda self, unit, pattern: int(self.steps.ready.latest[unit]))
    return random_scenario(14)


def plant_one_lap(patch: pytest.MonkeyPatch) -> Scenario:
    """The ring's result does not go round again."""

    def down_only(free: np.ndarray, nbytes: int, net: np.ndarray) -> None:
        exchanges_ring(free, nbytes, net)
        free[1:] -= free[1:].min() - free[0]

    patch.setattr(exchanges, "reduce_ring", down_only)
    return with_and("ring")


exchanges_ring: Callable[..., None] = exchanges.reduce_ring


def plant_own_time_in_the_network(patch: pytest.MonkeyPatch) -> Scenario:
    """Each rank waits for the switches from its own wake, not from the last one's."""

    def alone(free: np.ndarray, cost: int) -> None:
        free += cost

    patch.setattr(exchanges, "reduce_in_network", alone)
    return with_and("in-network")


def with_and(name: str) -> Scenario:
    """An AND that takes longer than the cycle, so that ranks wake apart; detours pull them further apart."""
    slow = replace(CONTROL, and_reduce=name, in_network_ns=700_000, overhead_ns=40_000)
    noise = replace(RAGGED, detour_ppm=200_000, detour_ns=50_000)
    plane = replace(PLANE, cycle_time_ns=100_000)
    return scenario(6, noise=noise, cluster=replace(CLUSTER, control=slow), control_plane=plane)


def disturbed(**changes: object) -> Scenario:
    noise = replace(RAGGED, detour_ppm=200_000, detour_ns=50_000)
    return scenario(6, noise=noise, control_plane=replace(PLANE, **changes))


def plant_detours_as_work(patch: pytest.MonkeyPatch) -> Scenario:
    """The shadow is not disturbed, so that detours become control_work."""
    opened: list[bool] = []

    def evaluate(self: plane.Plane, pattern: object, serial: Callable[..., None], works: bool) -> object:
        opened.clear()
        return real_evaluate(self, pattern, serial, works)

    def open_(self: plane.Plane, pattern: plane.Pattern) -> np.ndarray:
        opened.append(True)
        return real_open(self, pattern) if len(opened) == 1 else pattern.offset.copy()

    patch.setattr(plane.Plane, "_evaluate", evaluate)
    patch.setattr(plane.Plane, "_open", open_)
    return disturbed(name="coordinator")


real_evaluate: Callable[..., object] = plane.Plane._evaluate
real_open: Callable[..., np.ndarray] = plane.Plane._open


def plant_detours_skipped(patch: pytest.MonkeyPatch) -> Scenario:
    """Idle cycles are repeated in closed form although each has detours of its own."""
    made = NegotiatedRun.__init__

    def blind(self: NegotiatedRun, *arguments: object) -> None:
        made(self, *arguments)
        self._detours = False

    patch.setattr(NegotiatedRun, "__init__", blind)
    return disturbed(name="cached")


def plant_detours_remembered(patch: pytest.MonkeyPatch) -> Scenario:
    """A disturbed exchange is taken for that of its wake pattern."""

    def kept(self: plane.Plane, pattern: plane.Pattern, what: object, make: Callable[[], object]) -> object:
        return pattern.outcomes.setdefault(what, make())

    patch.setattr(plane.Plane, "_kept", kept)
    return disturbed(name="coordinator")


def plant_merged_after_all(patch: pytest.MonkeyPatch) -> Scenario:
    """An inner node passes on its own list and not its children's."""
    patch.setattr(exchanges, "subtree_sum", lambda values, radix: None)
    return scenario(12, noise=RAGGED, control_plane=replace(PLANE, name="hierarchical", radix=3, merge=False))


def vector_only(patch: pytest.MonkeyPatch, kind: type, name: str, broken: object) -> None:
    """Break ``kind.name`` for the vector engine's cache and leave the event engine's alone."""
    patch.setattr(cached, kind.__name__, type("Broken", (kind,), {name: broken}))


PLANTS = [value for name, value in sorted(globals().items()) if name.startswith("plant_")]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__[6:])
def test_planted_error_is_caught(plant: Plant) -> None:
    must_be_caught(plant)


def test_clipped_tail_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of the tail that begin before R must be cut there."""
    trace = vector.run(Problem(scenario(6, noise=RAGGED, steps=8, control_plane=replace(PLANE, name="coordinator"))))
    assert (sum(breakdown(trace).values()) == step_times(trace)).all()

    def unclipped(tail: breakdown_module._Tail, part: str, begin_ns: int, end_ns: int) -> None:
        tail.parts[part] += end_ns - begin_ns

    monkeypatch.setattr(breakdown_module._Tail, "add", unclipped)
    assert (sum(breakdown(trace).values()) != step_times(trace)).any()
