"""Behaviours 26 to 28, and what holds for every list that is fused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordsim.protocol.fusion import fuse, rounded_threshold
from coordsim.protocol.groups import GroupTable
from coordsim.protocol.messages import DType, Op, ReduceOp, Response
from tests.protocol.drive import Job, fuse_all, settings, tensor
from tests.protocol.profile import profile


def test_b26_tensors_fuse_up_to_and_including_the_threshold() -> None:
    abc = [tensor("a", 10), tensor("b", 6), tensor("c", 1)]
    assert fuse_all(abc, 64) == [("a", "b"), ("c",)]
    assert fuse_all(abc, 68) == [("a", "b", "c")]
    assert fuse_all(abc, 63) == [("a",), ("b", "c")]


def test_b26_the_scan_looks_past_another_type_while_it_would_have_fitted() -> None:
    axb = [tensor("a", 4), tensor("x", 4, dtype=DType.FLOAT16), tensor("b", 4)]
    assert fuse_all(axb, 32) == [("a", "b"), ("x",)]
    assert fuse_all(axb, 24) == [("a",), ("x",), ("b",)], "a + x fits, b does not"
    assert fuse_all(axb, 23) == [("a",), ("x",), ("b",)], "a + x exceeds the budget for looking"


def test_b26_what_was_skipped_counts_until_the_head_is_done() -> None:
    tensors = [tensor("a", 1), *(tensor(f"x{i}", 2, dtype=DType.FLOAT16) for i in range(3)), tensor("b", 1)]
    assert fuse_all(tensors, 16) == [("a", "b"), ("x0", "x1", "x2")]
    assert fuse_all(tensors, 15) == [("a",), ("x0", "x1", "x2"), ("b",)]


def test_b26_a_tensor_of_the_same_type_that_does_not_fit_ends_the_scan() -> None:
    assert fuse_all([tensor("a", 4), tensor("b", 5), tensor("c", 1)], 32) == [("a",), ("b", "c")]


def test_b27_threshold_0_fuses_nothing_and_a_large_tensor_goes_alone() -> None:
    tensors = [tensor("a", 1), tensor("b", 100), tensor("c", 1), tensor("d", 1)]
    assert fuse_all(tensors, 0) == [("a",), ("b",), ("c",), ("d",)]
    assert fuse_all(tensors, 8) == [("a",), ("b",), ("c", "d")]


@pytest.mark.parametrize(
    ("bytes_asked", "per_node", "used"),
    [(0, 6, 0), (1, 6, 3072), (3072, 6, 3072), (3073, 6, 6144), (128 << 20, 6, 134_218_752), (1, 1, 512)],
)
def test_b27_the_threshold_rounds_up_to_512_bytes_a_rank_of_a_node(
    bytes_asked: int, per_node: int, used: int
) -> None:
    assert rounded_threshold(bytes_asked, per_node) == used


@pytest.mark.parametrize(
    "other",
    [
        {"reduce_op": ReduceOp.SUM}, {"prescale": 0.5}, {"postscale": 0.5}, {"op": Op.ALLGATHER},
        {"op": Op.REDUCESCATTER}, {"device": 0}, {"dtype": DType.INT32},
    ],
)  # fmt: skip
def test_b28_unequal_kinds_never_fuse(other: dict[str, Any]) -> None:
    odd = replace(tensor("x"), **other)
    assert fuse_all([tensor("a"), odd, tensor("b")]) == [("a", "b"), ("x",)]
    assert fuse_all([odd, tensor("a"), replace(odd, name="y")]) == [("x", "y"), ("a",)]


@pytest.mark.parametrize("op", [Op.BROADCAST, Op.BARRIER, Op.ERROR])
def test_b28_some_operations_never_fuse(op: Op) -> None:
    assert fuse_all([tensor("a", op=op), tensor("b", op=op)]) == [("a",), ("b",)]


def test_b28_an_error_among_tensors_does_not_part_them() -> None:
    job = Job("coordinator", settings(2, threshold=32))
    for rank in job.ranks:
        job.submit(rank, tensor("a"), tensor("wrong", 1000 + rank), tensor("b"))
    assert [each.names for each in job.cycle().responses] == [("a", "b"), ("wrong",)]


def test_b28_members_stand_in_the_order_of_the_queue() -> None:
    tensors = [tensor(name, dtype=DType(7 + index % 2)) for index, name in enumerate("hagbfc")]
    assert fuse_all(tensors) == [("h", "g", "f"), ("a", "b", "c")]


SINGLES = st.lists(
    st.builds(
        Response, op=st.sampled_from([Op.ALLREDUCE, Op.ALLREDUCE, Op.ALLGATHER, Op.BROADCAST, Op.ERROR]),
        names=st.just(("",)), sizes=st.tuples(st.integers(1, 12)),
        dtype=st.sampled_from([DType.FLOAT32, DType.FLOAT16]),
    ),
    max_size=12,
).map(lambda singles: [replace(each, names=(f"t{i}",)) for i, each in enumerate(singles)])  # fmt: skip


def reference(singles: Sequence[Response], threshold: int) -> list[tuple[str, ...]]:
    """The rules of docs/horovod.md 3.5 once more, by index over the whole list."""
    left, fused = list(singles), []
    while left:
        head, members, skipped = left[0], [left[0]], 0
        for candidate in left[1:]:
            size = sum(each.nbytes for each in members)
            if head.fuses_with(candidate) and size + candidate.nbytes <= threshold:
                members.append(candidate)
            else:
                skipped += candidate.nbytes
                if size + skipped > threshold:
                    break
        left = [each for each in left if each not in members]
        fused.append(tuple(each.names[0] for each in members))
    return fused


@given(SINGLES, st.integers(0, 60))
@profile(500)
def test_fusion_equals_the_rules_read_a_second_time(singles: list[Response], threshold: int) -> None:
    result = fuse(singles, threshold, GroupTable())
    assert [each.names for each in result] == reference(singles, threshold)


@given(SINGLES, st.integers(0, 60), st.booleans(), st.integers(1, 4))
@profile(500)
def test_fusion_keeps_every_tensor_and_its_order(
    singles: list[Response], threshold: int, strict: bool, stride: int
) -> None:
    names = [each.names[0] for each in singles]
    groups = GroupTable(tuple(tuple(names[i::stride]) for i in range(min(stride, len(names)))), strict)
    position = {name: index for index, name in enumerate(names)}
    by_name = {each.names[0]: each for each in singles}
    result = fuse(singles, threshold, groups)
    assert sorted(name for each in result for name in each.names) == sorted(names)
    for each in result:
        members = [by_name[name] for name in each.names]
        assert each.sizes == tuple(member.nbytes for member in members)
        assert all(position[a] < position[b] for a, b in zip(each.names, each.names[1:], strict=False))
        assert [each.single(index) for index in range(len(members))] == members
        if len(members) > 1:
            assert all(members[0].fuses_with(member) for member in members)
            assert strict or each.nbytes <= threshold
        if strict:
            assert set(each.names) <= set(groups.members(each.names[0]))
    if not strict:
        heads = [position[each.names[0]] for each in result]
        assert heads == sorted(heads), "operations start in the order of their first tensors"


@given(SINGLES, st.integers(0, 60))
@profile(300)
def test_look_ahead_never_passes_over_a_tensor_of_its_own_kind(singles: list[Response], threshold: int) -> None:
    """Between a head and its last member, every tensor that was still there and fuses is a member."""
    position = {each.names[0]: index for index, each in enumerate(singles)}
    gone: set[str] = set()
    for each in fuse(singles, threshold, GroupTable()):
        head, last = singles[position[each.names[0]]], position[each.names[-1]]
        between = [other for other in singles[position[each.names[0]] : last] if other.names[0] not in gone]
        assert all(other.names[0] in each.names for other in between if head.fuses_with(other))
        gone.update(each.names)


@given(SINGLES)
@profile(200)
def test_without_a_limit_strict_groups_are_split_by_kind_only(singles: list[Response]) -> None:
    group = GroupTable((tuple(each.names[0] for each in singles),), strict=True) if singles else GroupTable()
    kinds = {(each.op, each.dtype) for each in singles if each.op in (Op.ALLREDUCE, Op.ALLGATHER)}
    alone = sum(each.op in (Op.BROADCAST, Op.ERROR) for each in singles)
    assert len(fuse(singles, 0, group)) == len(kinds) + alone
