"""Theory: closed forms of single rounds, and the exchange kernels against the programs they stand for."""

from __future__ import annotations

import operator
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coordsim.cost import programs
from coordsim.cost.network import LogGP
from coordsim.protocol.negotiator import tree_children, tree_parent
from coordsim.scenario.model import HostCosts, Noise
from coordsim.simulate import event, vector
from coordsim.simulate.event.clock import Clock
from coordsim.simulate.event.interpreter import Endpoint, Interpreter
from coordsim.simulate.problem import Problem
from coordsim.simulate.vector.kernels import exchanges as ex
from tests.scenarios import CLUSTER, CONTROL, MACHINE, PLANE, scenario, workload

NETWORKS = [
    LogGP(1500, 500, 12_500_000_000, 600, 32_000_000_000, 23_000_000_000, 6),
    LogGP(700, 0, 10**9, 1, 10**9, 2 * 10**9, 1),
    LogGP(1, 3000, 10**9, 50, 10**10, 10**8, 4),
]


def interpreted(network: LogGP, wakes: np.ndarray, program: Callable[[int], programs.Program]) -> np.ndarray:
    """When each rank is free, by events; ranks enter at ``wakes``."""
    clock = Clock()
    ranks = [Endpoint(rank=rank) for rank in range(wakes.size)]
    messages = Interpreter(clock, network, ranks)
    free = np.zeros_like(wakes)

    def run(me: Endpoint) -> Generator[Any, Any, None]:
        yield clock.timeout(int(wakes[me.rank]))
        yield from messages.run(me, program(me.rank), "round")
        free[me.rank] = clock.ns

    for me in ranks:
        clock.process(run(me))
    clock.run()
    return free


def star_gather(free: np.ndarray, nbytes: np.ndarray, net: np.ndarray) -> None:
    free[0] += 90
    ex.star_gather(free, nbytes, net[1] + 7 * np.arange(free.size), net)


def tree_up_program(rank: int, ranks: int, nbytes: int, radix: int) -> programs.Program:
    children = tree_children(rank, ranks, radix)
    if children:
        yield from programs.tree_collect(children)
        yield programs.Work(11 * rank)
    if rank:
        yield from programs.tree_send(tree_parent(rank, radix), nbytes, rank)


def tree_up(free: np.ndarray, nbytes: np.ndarray, radix: int, net: np.ndarray) -> None:
    inner = radix * np.arange(free.size) + 1 < free.size
    ex.tree_up(free, nbytes, 11 * np.arange(free.size) * inner, radix, net)


CASES: dict[str, tuple[Callable[..., Any], Callable[..., None]]] = {
    "and": (
        lambda r, n, b, net: programs.reduce_recursive_doubling(r, n, 24, 1, operator.and_),
        lambda free, b, net: ex.reduce_recursive_doubling(free, 24, net),
    ),
    "broadcast": (
        lambda r, n, b, net: programs.broadcast_binomial(r, n, 5000, "x"),
        lambda free, b, net: ex.broadcast_binomial(free, 5000, net),
    ),
    "star broadcast": (
        lambda r, n, b, net: programs.star_broadcast(r, n, 300, "x"),
        lambda free, b, net: ex.star_broadcast(free, 300, net),
    ),
    "gather linear": (
        lambda r, n, b, net: programs.gather_linear(r, n, int(b[r]), r),
        lambda free, b, net: ex.gather_linear(free, b, 0, net),
    ),
    "gather rendezvous": (
        lambda r, n, b, net: programs.gather_linear(r, n, int(b[r]), r, 400, dict(enumerate(b.tolist()))),
        lambda free, b, net: ex.gather_linear(free, b, 400, net),
    ),
    "gather binomial": (
        lambda r, n, b, net: programs.gather_binomial(r, n, int(b[r]), r),
        lambda free, b, net: ex.gather_binomial(free, b, net),
    ),
    "gather node leaders": (
        lambda r, n, b, net: programs.gather_node_leaders(r, n, int(b[r]), r, net.ranks_per_node),
        lambda free, b, net: ex.gather_node_leaders(free, b, net),
    ),
    "star gather": (
        lambda r, n, b, net: programs.star_gather(r, n, int(b[r]), r, lambda source: 7 * source, 90),
        lambda free, b, net: star_gather(free, b, net),
    ),
    "tree up, radix 3": (
        lambda r, n, b, net: tree_up_program(r, n, int(b[r]), 3),
        lambda free, b, net: tree_up(free, b, 3, net),
    ),
    "tree up, radix 40": (
        lambda r, n, b, net: tree_up_program(r, n, int(b[r]), 40),
        lambda free, b, net: tree_up(free, b, 40, net),
    ),
    "tree down": (
        lambda r, n, b, net: programs.tree_broadcast(
            tree_parent(r, 3) if r else None, tree_children(r, n, 3), 700, "x"
        ),
        lambda free, b, net: ex.tree_down(free, 700, 3, net),
    ),
}


@pytest.mark.parametrize("network", range(len(NETWORKS)))
@pytest.mark.parametrize("case", CASES)
def test_kernel_equals_program(case: str, network: int) -> None:
    program, kernel = CASES[case]
    net = NETWORKS[network]
    dice = np.random.default_rng(7)
    for ranks in [*range(2, 20), 31, 32, 33, 64, 100]:
        for spread in (0, 10, 5000, 1_000_000):
            wakes = dice.integers(0, spread + 1, ranks)
            nbytes = dice.integers(4, 1000, ranks)
            expected = interpreted(net, wakes, lambda r, n=ranks, b=nbytes: program(r, n, b, net))
            found = wakes.copy()
            kernel(found, nbytes, ex.network_vector(net))
            np.testing.assert_array_equal(found, expected, f"{case}, {ranks} ranks, spread {spread}")


def test_gathers_deliver_everything() -> None:
    """Whatever the algorithm, rank 0 ends up with every rank's payload."""
    clock, got = Clock(), {}
    ranks = [Endpoint(rank=rank) for rank in range(23)]
    messages = Interpreter(clock, NETWORKS[2], ranks)
    kinds = {
        "linear": lambda r: programs.gather_linear(r, 23, 10 + r, f"from {r}"),
        "binomial": lambda r: programs.gather_binomial(r, 23, 10 + r, f"from {r}"),
        "leaders": lambda r: programs.gather_node_leaders(r, 23, 10 + r, f"from {r}", 4),
    }

    def run(me: Endpoint) -> Generator[Any, Any, None]:
        for name, program in kinds.items():
            result = yield from messages.run(me, program(me.rank), name)
            if me.rank == 0:
                got[name] = result

    for me in ranks:
        clock.process(run(me))
    clock.run()
    assert got == {name: {r: f"from {r}" for r in range(23)} for name in kinds}


@pytest.mark.parametrize("ranks", [2, 1000, 4096])
def test_flat_round(ranks: int) -> None:
    """2(N-1)o + 2L + 2o (docs/semantics.md 12), plus each message's time on the wire twice."""
    overhead, latency = 1000, 5000
    control = replace(
        CONTROL, latency_ns=latency, local_latency_ns=latency, overhead_ns=overhead, bandwidth_Bps=10**12,
        local_bandwidth_Bps=10**12,
    )  # fmt: skip
    cluster = replace(
        CLUSTER, control=control, host=HostCosts(0, 0, 0, 0, 0, 0), machine=replace(MACHINE, ranks_per_node=1)
    )
    plane = replace(PLANE, name="point-to-point", wire="coordsim")
    described = scenario(ranks, steps=1, cluster=cluster, control_plane=plane, noise=Noise())
    for engine in (event, vector) if ranks <= 1000 else (vector,):
        trace = engine.run(Problem(described))
        round_ns = int(trace.cycles["leave_last_ns"][0] - trace.cycles["enter_last_ns"][0])
        assert round_ns == 2 * (ranks - 1) * overhead + 2 * latency + 2 * overhead + 2 * 1


def test_recursive_doubling_of_a_power_of_two() -> None:
    """All wake together and N = 2^k: log2 N rounds of 2o + L + x; only then."""
    net = replace(NETWORKS[0], ranks_per_node=1)
    free = np.zeros(64, dtype=np.int64)
    ex.reduce_recursive_doubling(free, 8, ex.network_vector(net))
    assert set(free.tolist()) == {6 * (2 * 500 + 1500 + 1)}


def test_lonely_rank_is_compute_alone() -> None:
    """N = 1: no loop, no collectives (docs/semantics.md 2.4)."""
    trace = vector.run(Problem(scenario(1, noise=Noise(), workload=workload(8, 500_000))))
    assert trace.cycles["cycle"].size == trace.responses["cycle"].size == 0
    assert np.diff(trace.steps["end_ns"]).tolist() == [2_000_000 + 8 * 500_000 + 300_000] * 3
