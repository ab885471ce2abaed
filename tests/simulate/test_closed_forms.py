"""Theory: closed forms of single rounds, and the exchange kernels against the programs they stand for."""

from __future__ import annotations

import operator
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coordsim.cost import programs
from coordsim.cost.distributions import sample_q16, scaled_table
from coordsim.cost.draws import draw, keys
from coordsim.cost.network import LogGP
from coordsim.cost.noise import STREAM_DETOUR_LENGTH
from coordsim.protocol.messages import Response, respond_to
from coordsim.protocol.negotiator import agree, tree_children, tree_parent
from coordsim.record.breakdown import breakdown
from coordsim.record.trace import Kind
from coordsim.scenario.model import Groups, HostCosts, Noise
from coordsim.simulate import event, vector
from coordsim.simulate.event.clock import Clock
from coordsim.simulate.event.interpreter import Endpoint, Interpreter
from coordsim.simulate.problem import Problem
from coordsim.simulate.vector.kernels import exchanges as ex
from tests.oracles.rounds import interpreted
from tests.scenarios import CLUSTER, CONTROL, MACHINE, PLANE, scenario, tensors, workload

NETWORKS = [
    LogGP(1500, 500, 12_500_000_000, 600, 32_000_000_000, 23_000_000_000, 6),
    LogGP(700, 0, 10**9, 1, 10**9, 2 * 10**9, 1),
    LogGP(1, 3000, 10**9, 50, 10**10, 10**8, 4),
]


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
    "and, ring": (
        lambda r, n, b, net: programs.reduce_ring(r, n, 24, 1, operator.and_),
        lambda free, b, net: ex.reduce_ring(free, 24, net),
    ),
    "and, in the network": (
        lambda r, n, b, net: programs.reduce_in_network(n, 1, operator.and_, 2830),
        lambda free, b, net: ex.reduce_in_network(free, 2830),
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
            kernel(found, nbytes, ex.Network.of(net))
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


@pytest.mark.parametrize("ranks", [2, 3, 5, 8, 23])
def test_every_rank_is_given_the_whole_reduction(ranks: int) -> None:
    """And both reductions of a cycle, one after the other, keep apart."""
    values = [((1 << 30) - 1) ^ (1 << rank) for rank in range(ranks)]
    kinds = {
        "doubling": lambda r, with_: programs.reduce_recursive_doubling(r, ranks, 8, values[r], with_),
        "ring": lambda r, with_: programs.reduce_ring(r, ranks, 8, values[r], with_),
        "network": lambda r, with_: programs.reduce_in_network(ranks, values[r], with_, 5),
    }
    clock, got = Clock(), {}
    members = [Endpoint(rank=rank) for rank in range(ranks)]
    messages = Interpreter(clock, NETWORKS[2], members)

    def run(me: Endpoint) -> Generator[Any, Any, None]:
        for name, make in kinds.items():
            for what, combine in (("and", operator.and_), ("or", operator.or_)):
                result = yield from messages.run(me, make(me.rank, combine), (name, what))
                got.setdefault((name, what), []).append(result)

    for me in members:
        clock.process(run(me))
    clock.run()
    both = {"and": ((1 << 30) - 1) ^ ((1 << ranks) - 1), "or": (1 << 30) - 1}
    assert got == {(name, what): [both[what]] * ranks for name in kinds for what in both}


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
    ex.reduce_recursive_doubling(free, 8, ex.Network.of(net))
    assert set(free.tolist()) == {6 * (2 * 500 + 1500 + 1)}


def idle_round_ns(engine: Any, described: Any) -> int:
    """From the last wake to the last rank's end in the run's first cycle."""
    trace = engine.run(Problem(described))
    assert trace.cycles["kind"][0] == Kind.IDLE
    return int(trace.cycles["leave_last_ns"][0] - trace.cycles["enter_last_ns"][0])


def and_scenario(ranks: int, name: str, noise: Noise | None = None, **changes: int) -> Any:
    """Every link alike: o = 1 us, L = 5 us, one word in 1 ns; no costs of the host."""
    control = replace(
        CONTROL, latency_ns=5000, local_latency_ns=5000, overhead_ns=1000, bandwidth_Bps=10**12,
        local_bandwidth_Bps=10**12, and_reduce=name, **changes,
    )  # fmt: skip
    cluster = replace(CLUSTER, control=control, host=HostCosts(0, 0, 0, 0, 0, 0))
    return scenario(ranks, steps=1, cluster=cluster, noise=noise or Noise())


@pytest.mark.parametrize("ranks", [2, 3, 8, 100, 2000])
def test_ring_round(ranks: int) -> None:
    """2 (N - 1) hops of 2o + L + x, one after the other (docs/semantics.md 4.2), for any N."""
    described = and_scenario(ranks, "ring")
    for engine in (event, vector) if ranks <= 100 else (vector,):
        assert idle_round_ns(engine, described) == 2 * (ranks - 1) * (2 * 1000 + 5000 + 1)


def test_ring_waits_for_the_last_rank_wherever_it_is() -> None:
    """A rank late by d: its own place in the first lap decides how much of that lap waits."""
    ranks, late, hop = 10, 10**6, 2 * 500 + 1500 + 1
    net = ex.Network.of(replace(NETWORKS[0], ranks_per_node=1))
    for rank in range(ranks):
        free = np.zeros(ranks, dtype=np.int64)
        free[rank] = late
        ex.reduce_ring(free, 8, net)
        own = hop if rank == ranks - 1 else 500  # the first rank to send, or a receive and on
        hops_after = (rank - 1 if rank == ranks - 1 else rank) + ranks - 1
        assert free.max() == late + own + hops_after * hop


@pytest.mark.parametrize("ranks", [2, 7, 1000])
def test_and_in_the_network(ranks: int) -> None:
    """A + cost, whatever N (docs/semantics.md 4.2)."""
    described = and_scenario(ranks, "in-network", in_network_ns=2830)
    for engine in (event, vector) if ranks <= 7 else (vector,):
        assert idle_round_ns(engine, described) == 2830
    free = np.array([5, 900, 0])
    ex.reduce_in_network(free, 100)
    assert free.tolist() == [1000] * 3


def exponential_ns(mean_ns: int, seed: int, cycle: int, rank: int) -> int:
    """By the reference sampler: a detour of certain probability."""
    (u32,) = draw(keys(seed, STREAM_DETOUR_LENGTH, cycle, np.array([rank])))
    base, slope = scaled_table("exponential", 10**6)
    return mean_ns * sample_q16(int(u32), base, slope, symmetric=False) >> 16


@pytest.mark.parametrize("name", ["recursive-doubling", "ring", "in-network"])
def test_detours_delay_every_and(name: str) -> None:
    """Each rank begins its exchange late by its own detour; probability 1, lengths by hand (docs/semantics.md 4.6)."""
    mean_ns, seed = 2000, 3
    noise = Noise(detour_ppm=10**6, detour_ns=mean_ns)
    plane = replace(PLANE, cycle_time_ns=100_000)
    described = replace(and_scenario(2, name, noise, in_network_ns=2830), seed=seed, control_plane=plane)
    hop, o = 2 * 1000 + 5000 + 1, 1000
    for engine in (event, vector):
        trace = engine.run(Problem(described))
        cycles = trace.cycles
        assert (cycles["enter_first_ns"] == cycles["enter_last_ns"]).all()
        idle = np.flatnonzero(cycles["kind"] == Kind.IDLE)
        assert cycles["repeat"].max() == 1  # no cycle is like another
        assert idle.size > 50
        for row in idle.tolist():
            cycle = int(cycles["cycle"][row])
            zero, one = (exponential_ns(mean_ns, seed, cycle, rank) for rank in range(2))
            leave = {
                "recursive-doubling": max(zero, one) + hop,
                "ring": max(zero, one + hop - o) + o + hop,
                "in-network": max(zero, one) + 2830,
            }[name]
            assert int(cycles["leave_last_ns"][row] - cycles["enter_last_ns"][row]) == leave


def test_detours_are_exchange_and_not_work() -> None:
    """Nothing here works, so nothing is control_work; with work, detours do not change how much."""
    for name in ("point-to-point", "coordinator", "hierarchical", "cached"):
        quiet = replace(and_scenario(7, "ring"), control_plane=replace(PLANE, name=name))
        noisy = replace(quiet, noise=Noise(detour_ppm=10**6, detour_ns=30_000))
        for engine in (event, vector):
            before, after = (breakdown(engine.run(Problem(each))) for each in (quiet, noisy))
            assert before["control_work"].sum() == after["control_work"].sum() == 0
            assert after["control_exchange"].sum() > before["control_exchange"].sum()


@pytest.mark.parametrize("wire", ["horovod", "coordsim"])
@pytest.mark.parametrize("merge", [True, False])
def test_a_tree_of_three_levels(merge: bool, wire: str) -> None:
    """Seven ranks, radix 2, all ask for the same two tensors at once: by hand, link by link."""
    o, latency, tensors_asked = 1000, 5000, 2
    control = replace(
        CONTROL, latency_ns=latency, local_latency_ns=latency, overhead_ns=o, bandwidth_Bps=10**9,
        local_bandwidth_Bps=10**9,
    )  # fmt: skip
    host = HostCosts(700, 90, 400, 0, 0, 0)
    plane = replace(PLANE, name="hierarchical", radix=2, merge=merge, wire=wire, groups=Groups("count", 1))
    job = workload(tensors=tensors([500_000] * tensors_asked))
    cluster = replace(CLUSTER, control=control, host=host, machine=replace(MACHINE, ranks_per_node=1))
    described = scenario(7, steps=1, cluster=cluster, control_plane=plane, noise=Noise(), workload=job)
    problem = Problem(described)
    header, request = problem.wire.request_header, sum(problem.request_size.values())
    one_list = header + request
    if merge:
        sizes, counted = (one_list, one_list), (3 * tensors_asked, 3 * tensors_asked)
    else:  # a header around every bundle; inner nodes take in two lists, the root six and its own
        sizes, counted = (header + one_list, header + 3 * one_list), (2 * tensors_asked, 7 * tensors_asked)
    works = [2 * 700 + 90 * requests for requests in counted]
    up = sum(o + latency + nbytes + 2 * o for nbytes in sizes)  # a byte takes 1 ns; two children, o each
    for engine in (event, vector):
        trace = engine.run(Problem(described))
        row = int(np.flatnonzero(trace.cycles["responses"])[0])
        assert int(trace.cycles["requests"][row]) == counted[1]
        assert int(trace.cycles["request_bytes"][row]) == 2 * sizes[1]
        answer = problem.schedule_bytes(_schedule(problem))
        down = 2 * (max(o, answer) + o + latency + answer + o)  # the second child of the second child
        round_ns = int(trace.cycles["leave_last_ns"][row] - trace.cycles["enter_last_ns"][row])
        assert round_ns == up + sum(works) + 400 * tensors_asked + down


def _schedule(problem: Problem) -> tuple[Response, ...]:
    return agree((), [respond_to(each) for each in problem.requests.values()], problem.settings)


def test_lonely_rank_is_compute_alone() -> None:
    """N = 1: no loop, no collectives (docs/semantics.md 2.4)."""
    trace = vector.run(Problem(scenario(1, noise=Noise(), workload=workload(8, 500_000))))
    assert trace.cycles["cycle"].size == trace.responses["cycle"].size == 0
    assert np.diff(trace.steps["end_ns"]).tolist() == [2_000_000 + 8 * 500_000 + 300_000] * 3
