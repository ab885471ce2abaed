"""Counters of the control plane against counts by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordsim.analyse.control import Control, control_share, counters
from coordsim.protocol.planes import PLANES
from coordsim.record.trace import Kind
from coordsim.scenario.model import CONTROL_PLANES, Noise, Spread
from coordsim.simulate.engine import simulate
from tests.analyse.made import by_hand
from tests.scenarios import PLANE, scenario

RANKS, TENSORS, STEPS = 5, 8, 4


def run(plane: str, **changes: object) -> Control:
    return counters(simulate(scenario(RANKS, STEPS, control_plane=replace(PLANE, name=plane), **changes)))


def test_counts_of_a_trace_by_hand() -> None:
    """Of the steps 1..3: 5 idle cycles in one row, one fast, one slow, one with an invalidation."""
    found = counters(by_hand("cached"))
    hits = found.cache_hits_per_step
    assert hits is not None
    assert {**vars(found), "cache_hits_per_step": 0.0} == pytest.approx({
        "cache_hits_per_step": 0.0,
        "cycles_per_step": 8 / 3,
        "slow_cycles_per_step": 2 / 3,
        "requests_per_step": (10 + 20 + 30) / 3,
        "coordinator_bytes_per_step": (100 + 200 + 300 + 5 * 11) / 3,
        "exchanges_per_step": (5 * 1 + 1 + 5 + 6) / 3,
        "responses_per_step": 1.0,
    })  # fmt: skip
    assert counters(by_hand("coordinator")).exchanges_per_step == pytest.approx(4 * (5 + 1) / 3)  # idle and slow


def test_every_control_plane_and_kind_has_its_exchanges() -> None:
    for plane in CONTROL_PLANES:
        trace = simulate(scenario(RANKS, STEPS, control_plane=replace(PLANE, name=plane))).trace
        if plane not in ("ideal", "ddp"):
            assert {Kind(kind).name.lower() for kind in trace.cycles["kind"]} <= set(PLANES[plane].exchanges)


@pytest.mark.parametrize("plane", ["coordinator", "point-to-point"])
def test_without_a_cache_every_rank_asks_for_every_tensor(plane: str) -> None:
    noise = Noise(rank=Spread("normal", 200_000), tensor=Spread("exponential", 300_000))
    simulation = simulate(scenario(RANKS, STEPS, noise=noise, control_plane=replace(PLANE, name=plane)))
    found = counters(simulation)
    assert found.requests_per_step == RANKS * TENSORS
    rounds = {"coordinator": 4, "point-to-point": 2}[plane]
    assert found.exchanges_per_step == rounds * found.cycles_per_step > rounds
    # a list of Horovod's: 25 B, and "t0" with one dimension 56 + 4 + 8 B a request; rank 0 sends itself nothing
    mailed = (RANKS - 1) * (25 * found.cycles_per_step + TENSORS * 68)
    assert found.coordinator_bytes_per_step == pytest.approx(mailed)


def test_a_cache_asks_once() -> None:
    simulation = simulate(scenario(RANKS, STEPS))
    found, cycles = counters(simulation), simulation.trace.cycles
    assert found.requests_per_step == found.slow_cycles_per_step == found.coordinator_bytes_per_step == 0
    assert found.exchanges_per_step == found.cycles_per_step > 1
    cold = cycles["step"] == 0
    assert (cycles["requests"] * cycles["repeat"])[cold].sum() == RANKS * TENSORS


def test_a_small_cache_keeps_asking() -> None:
    small = replace(PLANE, cache_capacity=TENSORS - 3)
    found = counters(simulate(scenario(RANKS, STEPS, control_plane=small)))
    assert found.requests_per_step > 0
    assert found.slow_cycles_per_step > 0
    assert found.exchanges_per_step >= found.cycles_per_step + 4 * found.slow_cycles_per_step


def test_a_tree_passes_each_name_on_once() -> None:
    """Merged lists: what rank 0 counts is at most its own and its children's requests."""
    found = run("hierarchical")  # radix 4: the four others are rank 0's children
    assert found.requests_per_step == RANKS * TENSORS
    tall = simulate(scenario(21, 2, control_plane=replace(PLANE, name="hierarchical")))
    assert counters(tall).requests_per_step <= (1 + 4) * TENSORS


@pytest.mark.parametrize("plane", ["ideal", "ddp"])
def test_nothing_is_exchanged_where_nobody_negotiates(plane: str) -> None:
    found = run(plane)
    assert found.exchanges_per_step == found.requests_per_step == found.coordinator_bytes_per_step == 0
    assert found.responses_per_step >= 1


def test_a_rank_alone_does_nothing() -> None:
    simulation = simulate(scenario(1, STEPS))
    assert set(vars(counters(simulation)).values()) <= {0.0, None}
    assert control_share(simulation) == 0


def test_control_share_by_hand() -> None:
    """Per step [last - 60, C] holds 100 ns of wait, exchange and work before the collective: at most."""
    simulation = by_hand()
    parts = simulation.parts
    control = sum(int(parts[name][1:].sum()) for name in ("cycle_wait", "control_exchange", "control_work"))
    assert control == 3 * (60 + 40)
    assert control_share(simulation) == pytest.approx(control / 6000)
