"""Rounds whose times are worked out on paper, against the event engine's interpreter and the vector kernels.

One rank a node, so all links are alike. For b bytes: x = time on the wire, rounded up; m = max(o, x), what a sender is
busy; h = 2o + L + x, from the start of a send until the receiver has it. All formulas hold for any start times (``w``),
all ranks together being one case.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

import numpy as np
import pytest

from coordsim.cost.network import LogGP
from coordsim.simulate.vector.kernels import exchanges as ex
from tests.oracles.rounds import LENGTH, Int64, by_events, doubling, flat, tree

RANKS = (2, 3, 4, 5, 8, 16, 100, 512, 1024, 4096)
SPREADS = (0, 3000, 200_000)


@dataclass(frozen=True)
class Net:
    """L, o in ns, wire and root NIC in bytes a second."""

    L: int
    o: int
    rate: int
    nic: int

    def x(self, nbytes: int) -> int:
        return ceil(nbytes * 10**9 / self.rate)

    def m(self, nbytes: int) -> int:
        return max(self.o, self.x(nbytes))

    def h(self, nbytes: int) -> int:
        return 2 * self.o + self.L + self.x(nbytes)

    def arrives(self, nbytes: int) -> int:
        return self.o + self.L + self.x(nbytes)

    def s(self, nbytes: int) -> int:
        """What a gathered message takes at the root."""
        return max(self.o, ceil(nbytes * 10**9 / self.nic))

    @property
    def loggp(self) -> LogGP:
        return LogGP(self.L, self.o, self.rate, 1, 10**9, self.nic, 1)


NETS = {
    "overhead": Net(1500, 500, 12_500_000_000, 23_000_000_000),
    "wire": Net(700, 30, 300_000_000, 900_000_000),
    "no overhead": Net(5000, 0, 10**9, 2 * 10**9),
}


def served(free: int, arrivals: Int64, service: Int64) -> int:
    """A server that was free at ``free``: max over messages of arrival + service of all that are not earlier."""
    if not arrivals.size:
        return free
    order = np.argsort(arrivals)
    not_earlier = np.cumsum(service[order][::-1])[::-1]
    return int(max(free + service.sum(), (arrivals[order] + not_earlier).max()))


def low(rank: int) -> int:
    """Place of the lowest one in binary."""
    return (rank & -rank).bit_length() - 1


def children(rank: int, ranks: int) -> list[int]:
    """Bits that a rank of the binomial tree adds for its children, largest first."""
    top = low(rank) if rank else ceil(log2(ranks))
    return [bit for bit in reversed(range(top)) if rank + (1 << bit) < ranks]


def down_binomial(rank: int, ranks: int, m: int, h: int) -> int:
    """A broadcast's way from the root: h a level, and m for each child that a parent on it served before."""
    taken, node = 0, 0
    for bit in reversed(range(rank.bit_length())):
        if rank >> bit & 1:
            taken += h + m * children(node, ranks).index(bit)
            node += 1 << bit
    return taken


def flat_by_hand(net: Net, w: Int64, nbytes: Int64, answer: int, work: int) -> Int64:
    """Root: serves the lengths, then the lists (sent m later), then works; the second broadcast follows the first.

    Nobody waits for the first broadcast inside the second: a rank is through with it before the answer comes, since
    the answer is no shorter and sets out after all of the root's sends of the length.
    """
    ranks = w.size
    lengths = np.full(ranks - 1, net.s(LENGTH))
    root = served(int(w[0]), w[1:] + net.arrives(LENGTH), lengths)
    arrivals = w[1:] + net.m(LENGTH) + np.array([net.arrives(int(b)) for b in nbytes[1:]])
    root = served(root, arrivals, np.array([net.s(int(b)) for b in nbytes[1:]])) + work
    second = root + len(children(0, ranks)) * net.m(LENGTH)
    m, h = net.m(answer), net.h(answer)
    return np.array([second + down_binomial(r, ranks, m, h) + len(children(r, ranks)) * m for r in range(ranks)])


def tree_by_hand(net: Net, w: Int64, radix: int, nbytes: int, answer: int, per_child: int) -> Int64:
    """Up: each node serves its children, o each; down: child k of a node gets it k sends later."""
    ranks, up = w.size, w.copy()
    below = [range(radix * r + 1, min(radix * r + 1 + radix, ranks)) for r in range(ranks)]
    for r in reversed(range(ranks)):
        if below[r]:
            there = up[list(below[r])] + net.arrives(nbytes)
            up[r] = served(int(w[r]), there, np.full(there.size, net.o)) + per_child * there.size
    got = up.copy()  # rank 0 has it; below, the way down from there
    for r in range(1, ranks):
        parent, place = divmod(r - 1, radix)
        got[r] = got[parent] + place * net.m(answer) + net.h(answer)
    return got + np.array([len(each) for each in below]) * net.m(answer)


def doubling_by_hand(net: Net, w: Int64, nbytes: int, ask: range) -> list[int]:
    """For the ranks in ``ask``: max over q of w_q + h for each bit in which q differs + (m + o) for each other bit.

    A round takes a rank's own time on by m + o and its partner's by h; so after all rounds q's start has come to r
    along the bits in which they differ. Ranks beyond the largest power of two come in and go out by one more h.
    """
    ranks = w.size
    bits = ranks.bit_length() - 1
    core = 1 << bits
    m, h, o = net.m(nbytes), net.h(nbytes), net.o
    begun = w[:core].copy()
    for r in range(ranks - core):
        begun[r] = max(w[r] + o, w[r + core] + h)
    differ = np.array([bin(q).count("1") for q in range(core)])
    q = np.arange(core)

    def inside(r: int) -> int:
        crossed = differ[q ^ r]
        return int((begun + h * crossed + (m + o) * (bits - crossed)).max())

    def end(r: int) -> int:
        if r < core:
            return inside(r) + (m if r < ranks - core else 0)
        return max(int(w[r]) + m + o, inside(r - core) + h)

    return [end(r) for r in ask]


def starts_of(ranks: int, spread: int) -> Int64:
    return np.random.default_rng(ranks + spread).integers(0, spread + 1, ranks)


def worth_events(name: str, ranks: int, spread: int, other: bool = True) -> bool:
    """Message by message is slow: above 100 ranks one network, above 512 one start and one other choice as well."""
    return ranks <= 100 or (name == "overhead" and (ranks <= 512 or (not spread and other)))


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("name", NETS)
def test_flat_round(name: str, ranks: int) -> None:
    """Lengths, lists, work, two broadcasts; lists of one size and of many."""
    net = NETS[name]
    vector, work = ex.Network.of(net.loggp), 123_456
    for spread in SPREADS:
        for nbytes in (np.full(ranks, 1000), np.random.default_rng(ranks).integers(17, 3000, ranks)):
            w, answer = starts_of(ranks, spread), 2500
            free = w.copy()
            ex.gather_linear(free, np.full(ranks, LENGTH), 0, vector)
            ex.gather_linear(free, nbytes, 0, vector)
            free[0] += work
            ex.broadcast_binomial(free, LENGTH, vector)
            ex.broadcast_binomial(free, answer, vector)
            by_hand = flat_by_hand(net, w, nbytes, answer, work)
            np.testing.assert_array_equal(free, by_hand)
            if worth_events(name, ranks, spread, nbytes[0] == 1000):
                events = by_events(net.loggp, w, flat(ranks, nbytes.tolist(), answer, work))
                np.testing.assert_array_equal(events, by_hand)


@pytest.mark.parametrize("ranks", [2, 4, 64, 1024])
def test_flat_round_of_a_power_of_two(ranks: int) -> None:
    """All together, lists of one size; the last rank is N - 1, log2 N levels below the root."""
    net, size, answer, work, d = NETS["overhead"], 1000, 2500, 5000, int(log2(ranks))
    w = np.zeros(ranks, dtype=np.int64)
    first = max(net.arrives(LENGTH) + (ranks - 1) * net.s(LENGTH), net.m(LENGTH) + net.arrives(size))
    last = first + (ranks - 1) * net.s(size) + work + d * net.m(LENGTH) + d * net.h(answer)
    assert by_events(net.loggp, w, flat(ranks, [size] * ranks, answer, work)).max() == last


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("radix", [2, 3, 16, 40])
def test_tree(radix: int, name: str, ranks: int) -> None:
    net = NETS[name]
    vector, nbytes, answer, per_child = ex.Network.of(net.loggp), 700, 2500, 560
    inner = np.clip(ranks - 1 - radix * np.arange(ranks), 0, radix)
    for spread in SPREADS:
        w = starts_of(ranks, spread)
        free = w.copy()
        ex.tree_up(free, np.full(ranks, nbytes), per_child * inner, radix, vector)
        ex.tree_down(free, answer, radix, vector)
        by_hand = tree_by_hand(net, w, radix, nbytes, answer, per_child)
        np.testing.assert_array_equal(free, by_hand)
        if worth_events(name, ranks, spread, radix == 16):
            events = by_events(net.loggp, w, tree(ranks, radix, nbytes, answer, per_child))
            np.testing.assert_array_equal(events, by_hand)


@pytest.mark.parametrize(("radix", "levels"), [(2, 10), (3, 7), (16, 3), (40, 2)])
def test_a_complete_tree(radix: int, levels: int) -> None:
    """All together: up, a level adds o + L + x, r receives and the work; down, a node's last child is last."""
    net, nbytes, answer, per_child = NETS["overhead"], 700, 2500, 560
    ranks = (radix**levels - 1) // (radix - 1)
    up = (levels - 1) * (net.arrives(nbytes) + radix * net.o + radix * per_child)
    down = (levels - 1) * (net.h(answer) + (radix - 1) * net.m(answer))
    w = np.zeros(ranks, dtype=np.int64)
    assert by_events(net.loggp, w, tree(ranks, radix, nbytes, answer, per_child)).max() == up + down


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("name", NETS)
def test_recursive_doubling(name: str, ranks: int) -> None:
    net = NETS[name]
    ask = range(0, ranks, max(ranks // 64, 1) | 1)
    for spread in SPREADS:
        for nbytes in (8, 3456):
            w = starts_of(ranks, spread)
            free = w.copy()
            ex.reduce_recursive_doubling(free, nbytes, ex.Network.of(net.loggp))
            by_hand = doubling_by_hand(net, w, nbytes, ask)
            assert free[ask].tolist() == by_hand
            if ranks <= 100 or (ranks <= 1024 and worth_events(name, ranks, spread, nbytes == 8)):
                assert by_events(net.loggp, w, doubling(ranks, nbytes))[ask].tolist() == by_hand


@pytest.mark.parametrize("ranks", [2, 4, 8, 16, 512, 1024])
def test_recursive_doubling_together(ranks: int) -> None:
    """A power of two, one start: log2 N rounds of h."""
    net = NETS["overhead"]
    ends = by_events(net.loggp, np.zeros(ranks, dtype=np.int64), doubling(ranks, 48))
    assert set(ends.tolist()) == {int(log2(ranks)) * net.h(48)}


def test_a_wrong_formula_is_found() -> None:
    """One ns of latency more: no case agrees by accident."""
    net = NETS["overhead"]
    wrong = Net(net.L + 1, net.o, net.rate, net.nic)
    w, nbytes = np.zeros(5, dtype=np.int64), np.full(5, 1000)
    right = by_events(net.loggp, w, flat(5, nbytes.tolist(), 2500, 0))
    assert (flat_by_hand(wrong, w, nbytes, 2500, 0) != right).all()
    assert (tree_by_hand(wrong, w, 2, 700, 2500, 0) != by_events(net.loggp, w, tree(5, 2, 700, 2500, 0))).all()
    assert doubling_by_hand(wrong, w, 8, range(5)) != by_events(net.loggp, w, doubling(5, 8)).tolist()
