"""Exchange programs as GOAL text: read back, and replayed to the event engine's times."""

from __future__ import annotations

import doctest
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coordsim.cost import programs
from coordsim.cost.goal import Goal, GoalOp, Recorder, parse
from coordsim.cost.network import LogGP
from coordsim.cost.programs import Program, Recv, Send
from coordsim.errors import InputError
from coordsim.protocol.negotiator import tree_children, tree_parent
from coordsim.protocol.planes import make_negotiator
from coordsim.scenario.model import Scenario
from coordsim.simulate import goal as exports
from coordsim.simulate.event.clock import Clock
from coordsim.simulate.event.exchanges import Caller
from coordsim.simulate.event.interpreter import Endpoint, Interpreter
from coordsim.simulate.event.planes import EXCHANGES as TRANSPORTS
from coordsim.simulate.goal import EXCHANGES, goal_of, goal_text
from coordsim.simulate.problem import Problem
from tests.oracles.replay import replay
from tests.oracles.rounds import interpreted
from tests.scenarios import CLUSTER, CONTROL, PLANE, scenario
from tests.simulate.test_closed_forms import CASES, NETWORKS


def recorded(network: LogGP, starts: Sequence[int], program: Callable[[int], Program]) -> str:
    recorder = Recorder(network, starts)
    ranks = [Endpoint(rank=rank) for rank in range(len(starts))]
    recorder.together([recorder.run(me, program(me.rank), "round") for me in ranks])
    return recorder.goal().text()


@pytest.mark.parametrize("case", [case for case in CASES if case != "and, in the network"])
def test_replayed_text_has_the_engines_times(case: str) -> None:
    """Every program, uneven sizes, ragged starts, three networks."""
    program, _ = CASES[case]
    dice = np.random.default_rng(11)
    for net in NETWORKS:
        for ranks in (2, 3, 4, 5, 8, 13, 33):
            for spread in (0, 2000, 1_000_000):
                starts, nbytes = dice.integers(0, spread + 1, ranks), dice.integers(4, 1000, ranks)
                text = recorded(net, starts.tolist(), lambda r, n=ranks, b=nbytes, net=net: program(r, n, b, net))
                expected = interpreted(net, starts, lambda r, n=ranks, b=nbytes, net=net: program(r, n, b, net))
                np.testing.assert_array_equal(replay(parse(text), net), expected, f"{case}, {ranks}, {spread}")


def cycle_by_events(
    job: Scenario, starts: Sequence[int], requests: dict[int, Sequence[str]], warm: bool
) -> list[int]:
    """When each rank's exchanges are over, ns, by the event engine's interpreter; ``warm``: after a round before."""
    problem = Problem(job)
    negotiators = [make_negotiator(problem.plane.name, rank, problem.settings) for rank in range(problem.ranks)]
    names = [name for unit in problem.units for name in unit]

    def rounds(asked: dict[int, Sequence[str]], starts: Sequence[int], cycle: int) -> list[int]:
        clock, ends = Clock(), [0] * problem.ranks
        callers = [Caller(rank=rank) for rank in range(problem.ranks)]
        exchanges = TRANSPORTS[problem.plane.name](problem, Interpreter(clock, problem.network, callers))

        def run(me: Caller) -> Generator[Any, Any, None]:
            yield clock.timeout(starts[me.rank])
            popped = tuple(problem.requests[name] for name in asked.get(me.rank, ()))
            me.popped = len(popped)
            yield from exchanges.converse(me, negotiators[me.rank].cycle(popped), cycle)
            ends[me.rank] = clock.ns

        for me in callers:
            clock.process(run(me))
        clock.run()
        return ends

    if warm:
        rounds(dict.fromkeys(range(problem.ranks), names), [0] * problem.ranks, 0)
    return rounds(requests, starts, 1)


NETWORKS_OF = {
    "linear": replace(CONTROL, gather="linear"),
    "rendezvous": replace(CONTROL, gather="linear", eager_limit_bytes=300),
    "binomial": replace(CONTROL, gather="binomial"),
    "node-leaders": replace(CONTROL, gather="node-leaders"),
    "ring": replace(CONTROL, and_reduce="ring"),
    "no merging": CONTROL,
}


@pytest.mark.parametrize("ranks", [2, 7, 16])
@pytest.mark.parametrize(
    ("plane", "how", "warm"),
    [
        *[("coordinator", gather, False) for gather in ("linear", "rendezvous", "binomial", "node-leaders")],
        ("point-to-point", "linear", False),
        ("hierarchical", "linear", False), ("hierarchical", "no merging", False), ("cached", "linear", False),
        ("cached", "rendezvous", True), ("cached", "ring", True),
    ],
)  # fmt: skip
def test_a_whole_cycle(plane: str, how: str, warm: bool, ranks: int) -> None:
    """All of a cycle's exchanges with the serial work between them; ranks ask for different things."""
    job = scenario(
        ranks, cluster=replace(CLUSTER, control=NETWORKS_OF[how]),
        control_plane=replace(PLANE, name=plane, radix=3, merge=how != "no merging"),
    )  # fmt: skip
    names = [tensor.name for tensor in job.workload.tensors]
    dice = np.random.default_rng(ranks)
    for requests in (
        dict.fromkeys(range(ranks), names),
        {},
        {rank: names[: int(dice.integers(0, len(names) + 1))] for rank in range(0, ranks, 2)},
    ):
        starts = dice.integers(0, 3000, ranks).tolist()
        text = goal_text(job, requests=requests, warm=warm, starts_ns=starts)
        found = replay(parse(text), LogGP.of(job.cluster))
        assert found.tolist() == cycle_by_events(job, starts, requests, warm)


def test_a_warm_cache_asks_nobody() -> None:
    """Without a cache rank 0 receives 3 lists; with it, recursive doubling alone: 2 messages each."""
    job = scenario(4)
    cold, warm = goal_of(job), goal_of(job, warm=True)
    assert [[op.kind for op in ops] for ops in warm.ranks] == [["send", "recv", "send", "recv"]] * 4
    assert sum(op.kind == "recv" for op in cold.ranks[0]) == 2 + 2 * 3


SINGLE: dict[str, Callable[[int, list[int]], Program]] = {
    "gather": lambda r, b: programs.gather_linear(r, 9, b[r], None, 500, dict(enumerate(b))),
    "broadcast": lambda r, b: programs.broadcast_binomial(r, 9, b[0], None),
    "recursive-doubling": lambda r, b: programs.reduce_recursive_doubling(r, 9, b[0], 0, max),
    "ring": lambda r, b: programs.reduce_ring(r, 9, b[0], 0, max),
    "star-gather": lambda r, b: programs.star_gather(r, 9, b[r], None, lambda _: 0, 0),
    "star-broadcast": lambda r, b: programs.star_broadcast(r, 9, b[0], None),
    "tree-up": lambda r, b: tree_up(r, b),
    "tree-down": lambda r, b: programs.tree_broadcast(
        tree_parent(r, 3) if r else None, tree_children(r, 9, 3), b[0], None
    ),
}


def tree_up(rank: int, nbytes: list[int]) -> Program:
    if children := tree_children(rank, 9, 3):
        yield from programs.tree_collect(children)
    if rank:
        yield from programs.tree_send(tree_parent(rank, 3), nbytes[rank], None)


@pytest.mark.parametrize("exchange", [each for each in EXCHANGES if each != "cycle"])
def test_single_exchanges(exchange: str) -> None:
    """Sizes that differ by rank, a gather with both eager messages and rendezvous."""
    control = replace(CONTROL, gather="linear", eager_limit_bytes=500)
    job = scenario(9, cluster=replace(CLUSTER, control=control), control_plane=replace(PLANE, radix=3))
    net, nbytes = LogGP.of(job.cluster), [50 + 100 * rank for rank in range(9)]
    expected = interpreted(net, np.zeros(9, dtype=np.int64), lambda rank: SINGLE[exchange](rank, nbytes))
    assert replay(parse(goal_text(job, exchange, nbytes)), net).tolist() == expected.tolist()


def test_text_by_hand() -> None:
    """Two ranks: the root takes 1,500 ns a message at its NIC, so 1,000 beyond o; rank 1 enters at 7."""
    net = replace(NETWORKS[0], root_nic_Bps=10**9, overhead_ns=500)
    job = scenario(2, cluster=replace(CLUSTER, control=replace(CONTROL, root_nic_Bps=net.root_nic_Bps)))
    assert goal_of(job, "gather", 1500, starts_ns=[0, 7]).text(["two ranks"]) == (
        "// two ranks\nnum_ranks 2\n\nrank 0 {\nl1: recv 1500b from 1 tag 0\nl2: calc 1000\nl2 requires l1\n}\n\n"
        "rank 1 {\nl1: calc 7\nl2: send 1500b to 0 tag 0\nl2 requires l1\n}\n"
    )


def test_text_reads_back() -> None:
    job = scenario(7, control_plane=replace(PLANE, name="coordinator"))
    goal = goal_of(job, starts_ns=range(7))
    assert parse(goal.text()) == goal
    assert goal_text(job, starts_ns=range(7)).endswith(goal.text())


def test_others_text_is_read() -> None:
    """Comments, blanks, labels of any name, no tag, cpu 0: as LogGOPSim's own examples are written."""
    text = "// x\nnum_ranks 2\n\nrank 0 {\n  a: send 8b to 1\n b : calc 10 cpu 0\n  b requires a\n}\nrank 1 {\n"
    text += "l_1: recv 8b from 0 tag 0 cpu 0 nic 0\n}\n"
    send, wait, recv = GoalOp("send", 8, 1), GoalOp("calc", 10, requires=(0,)), GoalOp("recv", 8, 0)
    assert parse(text) == Goal(((send, wait), (recv,)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no num_ranks"),
        ("num_ranks 2\nrank 0 {\n}\n", "no rank 1"),
        ("num_ranks 1\nrank 0 {\n", "ends inside rank 0"),
        ("num_ranks 1\nrank 1 {\n}\n", "out of range"),
        ("num_ranks 1\nrank 0 {\n}\nrank 0 {\n}\n", "was there before"),
        ("num_ranks 1\nrank 0 {\na: calc 1\na: calc 1\n}\n", "label a was there"),
        ("num_ranks 1\nrank 0 {\na: calc 1\na requires b\n}\n", "unknown label b"),
        ("num_ranks 1\nrank 0 {\na: calc 1\na requires a\n}\n", "stands before it"),
        ("num_ranks 1\nrank 0 {\na: calc 1\na irequires a\n}\n", "neither an operation nor a dependency"),
        ("num_ranks 1\nrank 0 {\na: send 8b to 1\n}\n", "no such rank"),
        ("num_ranks 1\nrank 0 {\na: send 8b from 0\n}\n", "a send is not from a rank"),
        ("num_ranks 1\nhello\n", "neither num_ranks"),
    ],
)
def test_what_is_no_schedule(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(text, "x.goal")


def in_network(ranks: int) -> Scenario:
    return scenario(ranks, cluster=replace(CLUSTER, control=replace(CONTROL, and_reduce="in-network", in_network_ns=9)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: goal_text(scenario(4), "gather"), "needs the size"),
        (lambda: goal_text(scenario(4), "gather", [1, 2]), "2 values for 4 ranks"),
        (lambda: goal_text(scenario(4), "gather", 0), "at least 1 byte"),
        (lambda: goal_text(scenario(4), "gathr", 1), "did you mean 'gather'"),
        (lambda: goal_text(scenario(4), "gather", 1, warm=True), "takes sizes"),
        (lambda: goal_text(scenario(4), nbytes=8), "follow from what is asked"),
        (lambda: goal_text(scenario(4), requests={4: []}), "no rank 4"),
        (lambda: goal_text(scenario(4), requests={1: ["t99"]}), "no tensor 't99'"),
        (lambda: goal_text(scenario(4), starts_ns=[0, 0, 0, -1]), "before time 0"),
        (lambda: goal_text(scenario(4), starts_ns=[0]), "1 values for 4"),
        (lambda: goal_text(scenario(1)), "one rank alone"),
        (lambda: goal_text(in_network(4)), "cluster.control.and_reduce: GOAL knows send, recv and calc"),
        (lambda: goal_text(scenario(4, control_plane=replace(PLANE, name="ddp"))), "no control exchange"),
    ],
)
def test_what_cannot_be_exported(call: Callable[[], str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_a_deadlock_is_found() -> None:
    recorder = Recorder(NETWORKS[0], [0, 0])

    def program(rank: int) -> Program:
        yield Recv(1 - rank)
        yield Send(1 - rank, 8)

    with pytest.raises(RuntimeError, match=r"ranks \[0, 1\] wait for ever"):
        recorder.together([recorder.run(Endpoint(rank=r), program(r), "x") for r in range(2)])


def test_the_docstrings_example() -> None:
    assert doctest.testmod(exports) == (0, 4)
