"""The response cache against its model, and its digest."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordsim.protocol.cache import ResponseCache
from coordsim.protocol.messages import Response
from tests.property.cache_machine import CacheMachine
from tests.protocol.drive import tensor
from tests.protocol.profile import profile

CacheMachine.TestCase.settings = profile(150, steps=40)
TestCacheAgainstModel = CacheMachine.TestCase


def filled(names: Iterable[str], touched: Iterable[str] = (), capacity: int = 8) -> ResponseCache:
    cache = ResponseCache(capacity)
    for name in names:
        cache.put(tensor(name))
    for name in touched:
        cache.touch(name)
    return cache


@given(st.lists(st.sampled_from("abcd"), max_size=6), st.lists(st.sampled_from("abcd"), max_size=6))
@profile(200)
def test_digests_are_equal_exactly_when_names_bits_and_recency_are(one: list[str], other: list[str]) -> None:
    first, second = filled(one), filled(other)
    same = first.least_recent_first() == second.least_recent_first() and list(first.names_by_bit()) == list(
        second.names_by_bit()
    )
    assert (first.digest() == second.digest()) == same


def test_recency_and_bits_both_count_in_the_digest() -> None:
    assert filled("ab").digest() != filled("ab", touched="a").digest()
    assert filled("ab").digest() != filled("ba", touched="b").digest()
    assert filled("ab", touched="a").digest() == filled("ab", touched="ba").digest()


def test_the_digest_does_not_depend_on_a_ranks_own_parameters() -> None:
    """Device numbers and allgather shapes differ between ranks."""
    one, other = ResponseCache(2), ResponseCache(2)
    one.put(tensor("x", device=0))
    other.put(tensor("x", device=1))
    assert one.digest() == other.digest()


def test_the_agreed_response_is_kept_not_the_one_the_request_suggests() -> None:
    cache = ResponseCache(1)
    agreed = Response(tensor("x").op, ("x",), (999,))
    cache.put(tensor("x"), agreed)
    cache.put(tensor("x"), None)
    assert cache.peek("x") is agreed


def test_putting_other_parameters_without_an_erasure_is_a_fault() -> None:
    cache = filled("x")
    with pytest.raises(AssertionError, match="was not erased"):
        cache.put(tensor("x", 9))


def test_a_hole_has_no_name() -> None:
    cache = filled("xy")
    cache.erase([0])
    with pytest.raises(AssertionError, match="bit 0 is a hole"):
        cache.name(0)
    cache.erase([0])
    cache.end_cycle()
    assert cache.name(0) == "y"


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_cache_holds_something(capacity: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ResponseCache(capacity)
