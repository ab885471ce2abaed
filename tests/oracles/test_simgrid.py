"""SimGrid replays the exported schedules: another project's simulator, the same times.

Needs Debian's ``libsimgrid-dev`` and ``g++``; without them these tests are skipped and say so, but never in CI, where
``.ci/run`` installs them. SimGrid counts in doubles. Its clock here ticks in ns, so whole ns are exact, and where
every message takes a whole number of ns on the wire its times are ours. Elsewhere ours are later, by less than 1 ns for
each message on the longest chain, since coordsim rounds each message up (docs/semantics.md 1.1).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coordsim.cost.goal import Goal, parse
from coordsim.cost.network import LogGP
from coordsim.simulate.goal import goal_of
from coordsim.simulate.vector.kernels import exchanges as ex
from tests.oracles import simgrid
from tests.oracles.replay import replay
from tests.oracles.rounds import Int64, Round, as_goal, by_events, doubling, flat, tree
from tests.oracles.test_by_hand import Net, flat_by_hand, starts_of, tree_by_hand
from tests.oracles.test_goal import NETWORKS_OF, cycle_by_events
from tests.scenarios import CLUSTER, PLANE, scenario

Ask = Callable[[Goal, LogGP], "list[float]"]

WHOLE = {
    "one rank a node": LogGP(1500, 500, 10**9, 600, 10**9, 4 * 10**9, 1),
    "wire above overhead": LogGP(700, 30, 5 * 10**8, 1, 10**9, 9 * 10**8, 1),
    "four a node": LogGP(1500, 500, 5 * 10**8, 600, 10**9, 23 * 10**9, 4),
    "no overhead": LogGP(40_000, 0, 10**9, 600, 10**9, 10**9, 3),
}
"""A byte takes 1 or 2 ns on every link."""
PARTS_OF_NS = {
    "summit": LogGP(1500, 500, 12_500_000_000, 600, 32_000_000_000, 23_000_000_000, 6),
    "thirds": LogGP(700, 30, 3 * 10**8, 1, 7 * 10**8, 9 * 10**8, 4),
}


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    missing = simgrid.why_not()
    if missing and os.environ.get("CI"):
        pytest.fail(f"{missing}; .ci/run installs it")
    if missing:
        pytest.skip(missing)
    folder: Path = tmp_path_factory.mktemp("simgrid")
    program = simgrid.build(folder)
    return lambda goal, net: simgrid.finish_ns(program, goal, net, folder)


def rounds(ranks: int) -> dict[str, Round]:
    lists = np.random.default_rng(ranks).integers(17, 3000, ranks).tolist()
    return {
        "flat": flat(ranks, lists, 2500, 12_345),
        "tree": tree(ranks, 3, 700, 2500, 56),
        "recursive doubling": doubling(ranks, 48),
    }


@pytest.mark.parametrize(
    ("network", "ranks"), [*[(network, ranks) for network in WHOLE for ranks in (2, 5, 16, 100)], ("four a node", 256)]
)
def test_same_times(ask: Ask, network: str, ranks: int) -> None:
    net = WHOLE[network]
    for spread in (0, 20_000):
        starts = starts_of(ranks, spread)
        for name, parts in rounds(ranks).items():
            found, expected = ask(as_goal(net, starts, parts), net), by_events(net, starts, parts)
            assert found == expected.tolist(), f"{name}, starts within {spread} ns"


def on_the_longest_chain(goal: Goal) -> Int64:
    """Messages on the longest chain that ends at each rank: its time where a message takes 1 ns and all else none."""
    bare = tuple(tuple(replace(op, size=0) if op.kind == "calc" else op for op in ops) for ops in goal.ranks)
    return replay(Goal(bare), LogGP(0, 0, 10**18, 0, 10**18, 10**18, 1))


@pytest.mark.parametrize("network", PARTS_OF_NS)
@pytest.mark.parametrize("ranks", [3, 16, 100])
def test_rounding_up_a_message_is_all_that_differs(ask: Ask, network: str, ranks: int) -> None:
    net, starts = PARTS_OF_NS[network], starts_of(ranks, 3000)
    for name, parts in rounds(ranks).items():
        goal = as_goal(net, starts, parts)
        later = by_events(net, starts, parts) - np.array(ask(goal, net))
        assert (later > -1e-5).all(), name
        assert (later < on_the_longest_chain(goal) + 1e-5).all(), name


@pytest.mark.parametrize(
    ("plane", "how", "warm"),
    [
        *[("coordinator", gather, False) for gather in ("linear", "rendezvous", "binomial", "node-leaders")],
        ("point-to-point", "linear", False),
        ("hierarchical", "linear", False), ("cached", "linear", True), ("cached", "ring", True),
    ],
)  # fmt: skip
def test_a_whole_cycle(ask: Ask, plane: str, how: str, warm: bool) -> None:
    """Scenario to text to SimGrid, against the event engine's exchanges; the root's NIC and serial work as calc."""
    whole = replace(NETWORKS_OF[how], bandwidth_Bps=10**9, local_bandwidth_Bps=10**9)
    job = scenario(20, cluster=replace(CLUSTER, control=whole), control_plane=replace(PLANE, name=plane, radix=3))
    names = [tensor.name for tensor in job.workload.tensors]
    requests = {rank: names[: rank % (len(names) + 1)] for rank in range(20)}
    starts = starts_of(20, 3000).tolist()
    found = ask(parse(goal_of(job, requests=requests, warm=warm, starts_ns=starts).text()), LogGP.of(job.cluster))
    assert found == cycle_by_events(job, starts, requests, warm)


@pytest.mark.parametrize("what", ["flat", "tree", "recursive doubling"])
def test_4096_ranks(ask: Ask, what: str) -> None:
    """Against the formulas worked out by hand, which the event engine is held to elsewhere, and against the kernels."""
    hand, ranks = Net(1500, 500, 10**9, 4 * 10**9), 4096
    net, starts = hand.loggp, starts_of(ranks, 3000)
    if what == "flat":
        lists = np.random.default_rng(3).integers(17, 3000, ranks)
        expected = flat_by_hand(hand, starts, lists, 2500, 12_345)
        parts = flat(ranks, lists.tolist(), 2500, 12_345)
    elif what == "tree":
        expected = tree_by_hand(hand, starts, 16, 700, 2500, 56)
        parts = tree(ranks, 16, 700, 2500, 56)
    else:
        starts = np.zeros(ranks, dtype=np.int64)
        expected = starts.copy()
        ex.reduce_recursive_doubling(expected, 48, ex.Network.of(net))
        parts = doubling(ranks, 48)
    assert ask(as_goal(net, starts, parts), net) == expected.tolist()


def test_a_wrong_network_is_found(ask: Ask) -> None:
    """1 ns of latency, of overhead, or a slower wire: SimGrid's times are others."""
    net, starts = WHOLE["one rank a node"], np.zeros(5, dtype=np.int64)
    for name, parts in rounds(5).items():
        goal, right = as_goal(net, starts, parts), by_events(net, starts, parts).tolist()
        for wrong in (
            replace(net, latency_ns=1501), replace(net, overhead_ns=501), replace(net, bandwidth_Bps=999_000_000),
        ):  # fmt: skip
            assert ask(goal, wrong) != right, name


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simgrid, "HEADER", "simgrid/nothing.hpp")
    assert "no simgrid/nothing.hpp (apt-get install libsimgrid-dev" in simgrid.why_not()
    monkeypatch.setattr(simgrid.shutil, "which", lambda name: None)
    assert "no g++" in simgrid.why_not()
