"""Behaviours 29 to 34, and the group table on its own."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordsim.protocol.groups import GroupTable, by_layer, equal_parts, member_digest
from coordsim.protocol.messages import DType, Request
from tests.protocol.drive import KINDS, Job, fuse_all, fused, settings, tensor
from tests.protocol.profile import profile

every_kind = pytest.mark.parametrize("kind", KINDS)
A, B = ("a0", "a1", "a2"), ("b0", "b1")


def unit(members: tuple[str, ...], table: GroupTable, **fields: Any) -> list[Request]:
    """What a rank submits for one group."""
    return [tensor(name, group=table.digest(name), **fields) for name in members]


def grouped(kind: str, ranks: int = 3, *, strict: bool, **options: Any) -> Job:
    return Job(kind, settings(ranks, groups=(A, B), strict=strict, **options), through_wire=True)


@every_kind
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("step", [0, 1])
def test_b29_no_member_runs_before_the_last_rank_and_all_run_together(
    kind: str, strict: bool, step: int
) -> None:
    """Step 0 is uncached, step 1 consists of hits where there is a cache."""
    job = grouped(kind, strict=strict)
    members = unit(A, job.settings.groups)
    for _ in range(step):
        job.everybody(*members)
        job.cycle()
    for rank in (2, 0, 1):
        assert job.cycle().responses == ()
        job.submit(rank, *members)
    assert fused(job.cycle().responses) == [A]


@every_kind
def test_b30_loose_groups_fuse_with_each_other_and_with_tensors_outside(kind: str) -> None:
    job = grouped(kind, strict=False)
    for _ in range(2):
        job.everybody(*unit(A, job.settings.groups))
        job.everybody(tensor("single"))
        job.everybody(*unit(B, job.settings.groups))
        assert fused(job.cycle().responses) == [(*A, "single", *B)]


@every_kind
def test_b30_strict_groups_and_single_tensors_never_fuse_with_others(kind: str) -> None:
    """On the slow path (first) and on the fast path (second)."""
    job = grouped(kind, strict=True)
    for _ in range(2):
        job.everybody(tensor("s0"))
        job.everybody(*unit(A, job.settings.groups))
        job.everybody(tensor("s1"))
        job.everybody(*unit(B, job.settings.groups))
        assert fused(job.cycle().responses) == [("s0",), A, ("s1",), B]


def test_b30_a_strict_group_stands_at_its_first_members_place_in_registration_order() -> None:
    job = grouped("cached", strict=True)
    first = unit(B, job.settings.groups) + unit(A, job.settings.groups)
    for rank in job.ranks:
        job.submit(rank, *reversed(first))
    assert fused(job.cycle().responses) == [A, B]
    for rank in job.ranks:
        job.submit(rank, *first)
    assert fused(job.cycle().responses) == [A, B], "bits follow the first schedule"


@every_kind
@pytest.mark.parametrize("threshold", [0, 16, 32])
def test_b31_strict_groups_are_never_split_by_the_threshold(kind: str, threshold: int) -> None:
    """Differs from Horovod, which splits a group that exceeds the threshold."""
    job = grouped(kind, strict=True, threshold=threshold)
    for _ in range(2):
        job.everybody(*unit(A, job.settings.groups))
        (response,) = job.cycle().responses
        assert response.names == A
        assert response.nbytes > threshold


@every_kind
def test_b31_loose_groups_are_split_by_the_threshold(kind: str) -> None:
    job = grouped(kind, strict=False, threshold=32)
    for _ in range(2):
        job.everybody(*unit(A, job.settings.groups))
        assert fused(job.cycle().responses) == [("a0", "a1"), ("a2",)]


@every_kind
@pytest.mark.parametrize("strict", [False, True])
def test_b31_groups_are_split_by_type(kind: str, strict: bool) -> None:
    job = grouped(kind, strict=strict)
    digest = job.settings.groups.digest
    for _ in range(2):
        job.everybody(
            tensor("a0", group=digest("a0")), tensor("a1", group=digest("a1"), dtype=DType.FLOAT16),
            tensor("a2", group=digest("a2")),
        )  # fmt: skip
        assert fused(job.cycle().responses) == [("a0", "a2"), ("a1",)]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("late", [0, 2])
def test_b32_a_group_with_one_member_invalidated_completes_once_and_together(strict: bool, late: int) -> None:
    job = grouped("cached", strict=strict)
    table = job.settings.groups
    job.everybody(*unit(A, table))
    job.cycle()
    changed = [tensor("a0", group=table.digest("a0")), tensor("a1", 9, group=table.digest("a1")),
               tensor("a2", group=table.digest("a2"))]  # fmt: skip
    job.everybody(*changed, but=[1] if late else [])
    for _ in range(late):
        assert job.cycle().responses == ()
    if late:
        job.submit(1, *changed)
    schedule = job.cycle()
    assert sorted(name for names in fused(schedule.responses) for name in names) == list(A)
    assert [each.cycle for each in job.ended] == [0, 0, 0, late + 1, late + 1, late + 1]
    assert schedule.hits_common == 2
    if strict:
        assert fused(schedule.responses) == [A]
    job.everybody(*changed)
    assert job.cycle().hits_common == 3


@pytest.mark.parametrize("capacity", [1, 2, 3, 4])
def test_b32_a_group_partly_evicted_completes_once_and_together(capacity: int) -> None:
    job = grouped("cached", strict=True, capacity=capacity)
    for step in range(4):
        job.everybody(*unit(A, job.settings.groups), but=[step % 3])
        job.everybody(*unit(B, job.settings.groups))
        assert fused(job.cycle().responses) == [B]
        job.submit(step % 3, *unit(A, job.settings.groups))
        assert fused(job.cycle().responses) == [A]
    job.watch.job_done()


def operations(strict: bool, seed: int) -> list[tuple[str, ...]]:
    """All fused operations of a run in which ranks are late at random."""
    source = random.Random(seed)
    job = grouped("cached", strict=strict)
    done = []
    for _ in range(3):
        todo = [(rank, members) for rank in job.ranks for members in (A, B)]
        source.shuffle(todo)
        for rank, members in todo:
            job.submit(rank, *unit(members, job.settings.groups))
            if source.random() < 0.5:
                done += fused(job.cycle().responses)
        done += fused(job.cycle().responses)
    return sorted(done)


def test_b33_strict_groups_make_every_run_reduce_the_same_operations() -> None:
    assert all(operations(True, seed) == sorted([A, B] * 3) for seed in range(20))


def test_b33_loose_groups_do_not() -> None:
    assert len({tuple(operations(False, seed)) for seed in range(20)}) > 1


def test_b34_ranks_may_register_groups_in_any_order() -> None:
    """There are no ids; a digest of the members travels."""
    one, other = GroupTable((A, B), strict=True), GroupTable((B, A), strict=True)
    assert [one.digest(name) for name in (*A, *B)] == [other.digest(name) for name in (*A, *B)]
    job = grouped("cached", strict=True)
    for rank in job.ranks:
        for members in (A, B):
            job.submit(rank, *unit(members, other if rank else one))
    assert fused(job.cycle().responses) == [A, B]


@every_kind
def test_b34_another_order_of_members_is_detected(kind: str) -> None:
    """Horovod does not notice, and corrupts data or hangs."""
    job = grouped(kind, strict=True)
    swapped = GroupTable((tuple(reversed(A)), B), strict=True)
    for rank in job.ranks:
        job.submit(rank, *unit(A, swapped if rank == 1 else job.settings.groups))
    job.cycle()
    assert set(job.errors()) == set(A)
    assert all(text.startswith("Mismatched group members or their order") for text in job.errors().values())


def test_b34_order_does_not_matter_to_loose_groups_and_single_tensors() -> None:
    assert GroupTable((A, B)).digest("a0") == 0
    assert GroupTable((A, ("s",)), strict=True).digest("s") == 0
    assert GroupTable((A, B), strict=True).digest("elsewhere") == 0
    assert member_digest(A) != member_digest(reversed(A))
    assert member_digest(["ab", "c"]) != member_digest(["a", "bc"])
    assert 0 < member_digest(A) < 1 << 64


@given(st.integers(1, 60), st.data())
@profile(100)
def test_equal_parts_are_contiguous_and_differ_by_at_most_one(size: int, data: st.DataObject) -> None:
    names = [f"t{index}" for index in range(size)]
    parts = equal_parts(names, data.draw(st.integers(1, size)))
    assert [name for part in parts for name in part] == names
    lengths = [len(part) for part in parts]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] - lengths[-1] <= 1


@pytest.mark.parametrize("count", [0, -1, 4])
def test_more_parts_than_names_or_none_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"cannot split 3 tensors into {count} groups"):
        equal_parts(["a", "b", "c"], count)


def test_groups_by_layer_keep_the_order_in_which_layers_appear() -> None:
    assert by_layer({"c": "two", "a": "one", "b": "two"}) == [("c", "b"), ("a",)]


def test_units_are_ordered_by_their_last_member_and_members_by_registration() -> None:
    table = GroupTable((("a", "d"), ("c", "b")))
    assert table.units(["b", "a", "s", "c", "d"]) == [("s",), ("c", "b"), ("a", "d")]
    assert table.units(["d", "c", "b", "a"]) == [("c", "b"), ("a", "d")]


@given(st.permutations("abcdefgh"), st.integers(0, 4), st.integers(0, 4))
@profile(100)
def test_units_partition_the_tensors(order: list[str], first: int, second: int) -> None:
    parts = (tuple("abcd"[:first]), tuple("efgh"[:second]))
    units = GroupTable(tuple(part for part in parts if part)).units(order)
    assert sorted(name for members in units for name in members) == list("abcdefgh")
    ready = [max(order.index(name) for name in members) for members in units]
    assert ready == sorted(set(ready)), "no two units have the same last member: there are no ties"


def test_a_group_of_unknown_tensors_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown tensor 'b'"):
        GroupTable((("a", "b"),)).units(["a"])


@pytest.mark.parametrize("groups", [(A, ("a1",)), (("x", "x"),)])
def test_a_tensor_stands_in_one_group(groups: tuple[tuple[str, ...], ...]) -> None:
    with pytest.raises(ValueError, match="stands in two groups"):
        GroupTable(groups)


def test_an_absent_member_does_not_hold_a_strict_group_back() -> None:
    """The fusion itself: members that are not ready (or in error) are simply not there."""
    assert fuse_all([tensor("a2"), tensor("a0")], groups=GroupTable((A,), strict=True)) == [("a0", "a2")]
