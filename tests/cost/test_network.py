"""What one control message costs."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordsim.cost.network import MAX_MESSAGE_BYTES, LogGP, transfer_ns
from coordsim.errors import Refused
from tests.scenarios import CLUSTER, CONTROL, MACHINE

NETWORK = LogGP(
    latency_ns=1500, overhead_ns=500, bandwidth_Bps=10**10, local_latency_ns=600, local_bandwidth_Bps=4 * 10**10,
    root_nic_Bps=2 * 10**10, ranks_per_node=6,
)  # fmt: skip


@pytest.mark.parametrize(
    ("nbytes", "bandwidth", "expected"),
    [
        (0, 10**9, 0), (1, 10**9, 1), (7, 10**9, 7), (1, 10**10, 1), (10, 10**10, 1), (11, 10**10, 2),
        (1, 1, 10**9), (3, 2 * 10**9, 2), (4, 2 * 10**9, 2), (MAX_MESSAGE_BYTES, 10**9, 9_200_000_000),
    ],
)  # fmt: skip
def test_transfer(nbytes: int, bandwidth: int, expected: int) -> None:
    assert transfer_ns(nbytes, bandwidth) == expected


@given(st.integers(0, MAX_MESSAGE_BYTES), st.integers(1, 10**13))
def test_transfer_rounds_up_once(nbytes: int, bandwidth: int) -> None:
    found = transfer_ns(nbytes, bandwidth)
    assert type(found) is int
    assert found == ceil(Fraction(nbytes * 10**9, bandwidth))


def test_one_message_is_rounded_once_and_two_twice() -> None:
    assert transfer_ns(2 * 15, 10**10) == 3
    assert 2 * transfer_ns(15, 10**10) == 4


def test_a_message_beyond_int64_is_refused_by_name() -> None:
    assert MAX_MESSAGE_BYTES * 10**9 < 2**63 <= (MAX_MESSAGE_BYTES + 10**8) * 10**9
    with pytest.raises(Refused, match="a message of 9200000001 bytes exceeds 9200000000"):
        transfer_ns(MAX_MESSAGE_BYTES + 1, 10**10)


def test_ranks_of_a_node_share_a_local_link() -> None:
    assert [NETWORK.local(0, rank) for rank in (0, 5, 6, 12)] == [True, True, False, False]
    assert NETWORK.local(11, 6)
    assert NETWORK.local(6, 11)
    assert not NETWORK.local(5, 6)


def test_a_long_message() -> None:
    """1,000,000 B: 100 us between nodes, 25 us inside one."""
    assert NETWORK.wire_ns(0, 6, 10**6) == 100_000
    assert NETWORK.wire_ns(0, 5, 10**6) == 25_000
    assert NETWORK.send_busy_ns(0, 6, 10**6) == 100_000
    assert NETWORK.send_busy_ns(5, 0, 10**6) == 25_000
    assert NETWORK.flight_ns(6, 0, 10**6) == 500 + 1500 + 100_000
    assert NETWORK.flight_ns(1, 2, 10**6) == 500 + 600 + 25_000
    assert NETWORK.root_service_ns(10**6) == 50_000


def test_a_short_message_costs_its_overhead() -> None:
    assert NETWORK.send_busy_ns(0, 6, 0) == NETWORK.send_busy_ns(0, 6, 5000) == 500
    assert NETWORK.send_busy_ns(0, 6, 5001) == 501
    assert NETWORK.flight_ns(0, 6, 1) == 500 + 1500 + 1
    assert NETWORK.flight_ns(0, 1, 0) == 500 + 600
    assert NETWORK.root_service_ns(10_000) == 500
    assert NETWORK.root_service_ns(10_001) == 501


def test_the_root_takes_local_messages_through_the_same_nic() -> None:
    """One rate for all that a gather's root takes in; it does not ask who sent it."""
    slow = replace(NETWORK, root_nic_Bps=10**9)
    assert slow.root_service_ns(10**6) == 10**6
    assert slow.wire_ns(1, 0, 10**6) == 25_000


def test_of_a_cluster() -> None:
    assert LogGP.of(CLUSTER) == LogGP(
        CONTROL.latency_ns, CONTROL.overhead_ns, CONTROL.bandwidth_Bps, CONTROL.local_latency_ns,
        CONTROL.local_bandwidth_Bps, CONTROL.root_nic_Bps, MACHINE.ranks_per_node,
    )  # fmt: skip
    assert len(set(LogGP.of(CLUSTER).__getstate__())) == 7, "seven different numbers, or the test above sees no mix-up"
