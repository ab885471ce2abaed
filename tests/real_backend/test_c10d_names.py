"""Names of operations that have none: few, soon all known, and a function of the order of issue alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from real_backend.c10d.names import WINDOW, Names

LAYERS = 3
FSDP2 = (
    *["gather layer"] * LAYERS, "gather head", "gather head", "scatter head",
    *["gather layer", "scatter layer"] * LAYERS, "norm",
)  # fmt: skip
DDP = ("small bucket", *["bucket"] * 5, "last bucket")
LOOP = ("loss",)
LARGE = tuple(f"parameter {index % 9}" for index in range(288))


def issuing() -> Callable[[str], str]:
    names = Names()
    return lambda signature: names.name("op", signature)


@pytest.mark.parametrize("step", [FSDP2, DDP, LOOP, LARGE], ids=["FSDP2", "DDP", "loop", "large"])
def test_what_repeats_itself_soon_has_no_new_names(step: Sequence[str]) -> None:
    issue = issuing()
    warm = WINDOW // len(step) + 2
    seen = {issue(signature) for _ in range(warm) for signature in step}
    later = {issue(signature) for _ in range(10 * warm) for signature in step}
    assert later <= seen
    assert len(seen) <= WINDOW + 2 * len(set(step))


def test_a_step_that_has_something_extra_now_and_then_finds_back() -> None:
    issue = issuing()
    seen: set[str] = set()
    for step in range(100):
        now = {issue(signature) for signature in (*FSDP2, *(["log"] if step % 7 == 0 else []))}
        assert step < 2 * 7 or now <= seen
        seen |= now


def test_rebuilt_buckets_leave_the_others_as_they_are() -> None:
    issue = issuing()
    steps = [[issue(signature) for signature in (bucket, *LARGE)] for bucket in ("1 MB", "25 MB")]
    assert steps[0][1 + WINDOW :] == steps[1][1 + WINDOW :]
    assert steps[1][0] not in steps[0]


@given(st.lists(st.sampled_from("abc"), max_size=8 * WINDOW))
def test_a_name_is_of_one_signature_and_does_not_come_back_at_once(issued: list[str]) -> None:
    issue = issuing()
    owner: dict[str, tuple[str, int]] = {}
    for place, signature in enumerate(issued):
        name = issue(signature)
        if name in owner:
            assert owner[name][0] == signature
            assert place - owner[name][1] >= WINDOW
        owner[name] = signature, place


def test_ranks_that_disagree_use_one_name_and_agree_again_after_the_error() -> None:
    """The coordinator compares what goes under one name; all ranks are told of its error, and forget."""
    mine, theirs = Names(), Names()
    assert mine.name("op", "3 elements") == theirs.name("op", "4 elements")
    for rank in (mine, theirs):
        rank.begin_anew(failed=0)
    assert [mine.name("op", signature) for signature in ("4 elements", "3 elements")] == [
        theirs.name("op", signature) for signature in ("4 elements", "3 elements")
    ]


def test_after_several_failures_the_order_in_which_they_are_noticed_does_not_matter() -> None:
    mine, theirs = Names(), Names()
    for rank, failures in ((mine, (3, 4)), (theirs, (4, 3))):
        rank.name("op", f"known to {failures}")
        for failed in failures:
            rank.begin_anew(failed)
    assert mine.name("op", "next") == theirs.name("op", "next")


def test_after_a_failure_old_names_do_not_come_back() -> None:
    names = Names()
    before = {names.name("op", "x"), names.name("op", "y")}
    names.begin_anew(failed=1)
    assert names.name("op", "x") not in before


def test_the_operation_shows_in_the_name() -> None:
    assert Names().name("all_reduce", "x").startswith("all_reduce.")
