"""Behaviours 2 to 5 and 10: what is wrong ends in an error on every rank, and the job goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from coordsim.protocol.groups import member_digest
from coordsim.protocol.messages import DType, Op, ReduceOp, Request
from coordsim.protocol.negotiator import Settings
from coordsim.protocol.queue import DuplicateName, TensorQueue
from coordsim.protocol.readiness import ProtocolError, ReadinessTable
from tests.protocol.drive import KINDS, Ended, Job, settings, tensor

every_kind = pytest.mark.parametrize("kind", KINDS)


def disagree(kind: str, right: Request, wrong: Request, *, odd_rank: int = 2, ranks: int = 4) -> str:
    """One rank asks for something else; then all agree. Returns the error that every rank got."""
    job = Job(kind, settings(ranks), through_wire=True)
    job.everybody(right, but=[odd_rank])
    job.submit(odd_rank, wrong)
    job.everybody(tensor("bystander"))
    schedule = job.cycle()
    (error,) = [response for response in schedule.responses if response.op is Op.ERROR]
    assert error.names == (right.name,)
    assert error.sizes == (0,)
    assert Ended(0, "bystander") in job.ended, "the job goes on in the same cycle"
    assert job.step(right).responses[0].op is right.op, "and the same name is clean again"
    job.watch.job_done()
    assert list(job.errors()) == [right.name]
    return error.error


@every_kind
@pytest.mark.parametrize("wrong", [(17, 3), (51,), (3, 17), (17, 3, 1), ()])
def test_b02_shapes_that_differ_are_an_error_on_every_rank(kind: str, wrong: tuple[int, ...]) -> None:
    text = disagree(kind, tensor("x", shape=(3, 17) if wrong != (3, 17) else (1, 51)), tensor("x", shape=wrong))
    assert text.startswith("Mismatched tensor shapes for 'x'")


@every_kind
@pytest.mark.parametrize("odd_rank", range(4))
def test_b03_types_that_differ_are_an_error_on_every_rank(kind: str, odd_rank: int) -> None:
    text = disagree(kind, tensor("x"), tensor("x", dtype=DType.INT32), odd_rank=odd_rank)
    assert text.startswith("Mismatched data types")
    assert "int32" in text
    assert "float32" in text


MISMATCHES: dict[str, tuple[Request, dict[str, Any]]] = {
    "Mismatched operations": (tensor("x"), {"op": Op.ALLGATHER}),
    "Mismatched prescale and/or postscale factors": (tensor("x"), {"prescale": 0.5}),
    "Mismatched prescale and/or postscale factors ": (tensor("x"), {"postscale": 2.0}),
    "Mismatched reduction operation": (tensor("x"), {"reduce_op": ReduceOp.SUM}),
    "Mismatched CPU/GPU device selection": (tensor("x"), {"device": 0}),
    "Mismatched group members or their order": (tensor("x"), {"group": member_digest(["x", "y"])}),
}


@every_kind
@pytest.mark.parametrize("title", MISMATCHES)
def test_b03_every_other_check_fails_on_every_rank(kind: str, title: str) -> None:
    right, fields = MISMATCHES[title]
    assert disagree(kind, right, replace(right, **fields)).startswith(title.strip())


@every_kind
def test_b03_device_numbers_may_differ_between_ranks(kind: str) -> None:
    job = Job(kind, settings(3))
    for rank in job.ranks:
        job.submit(rank, tensor("x", device=rank))
    (response,) = job.cycle().responses
    assert response.op is Op.ALLREDUCE
    assert response.on_gpu


@every_kind
def test_b03_the_first_failing_check_wins_whoever_fails_it(kind: str) -> None:
    """Rank 2 has another shape, rank 3 another type; types are compared first."""
    job = Job(kind, settings(4))
    job.everybody(tensor("x"), but=[2, 3])
    job.submit(2, tensor("x", 5))
    job.submit(3, tensor("x", dtype=DType.FLOAT64))
    job.cycle()
    assert job.errors()["x"].startswith("Mismatched data types")


def test_b03_a_trees_verdict_is_the_lowest_subtrees() -> None:
    """Arrival over several cycles, high subtree first."""
    job = Job("hierarchical", settings(7))  # 0 -> 1 (3, 4), 2 (5, 6)
    for rank in (5, 6, 2):
        job.submit(rank, tensor("x", rank))
    job.cycle()
    for rank in (0, 1, 3, 4):
        job.submit(rank, tensor("x", rank))
    job.cycle()
    assert "rank 1 has [1], rank 3 has [3]" in job.errors()["x"]


@every_kind
def test_b04_a_name_twice_is_refused_at_once_and_the_first_one_completes(kind: str) -> None:
    job = Job(kind, settings(2))
    job.everybody(tensor("x"))
    with pytest.raises(DuplicateName, match="'x' was submitted again"):
        job.submit(0, tensor("x"))
    job.cycle()
    assert job.ended == [Ended(0, "x")]
    job.step(tensor("x"))
    assert job.ended == [Ended(0, "x"), Ended(1, "x")]


def test_b04_a_name_twice_is_refused_while_it_is_being_negotiated() -> None:
    job = Job("cached", settings(2))
    job.submit(0, tensor("x"))
    job.cycle()
    with pytest.raises(DuplicateName):
        job.submit(0, tensor("x"))
    job.submit(1, tensor("x"))
    job.cycle()
    job.watch.job_done()


def test_b04_a_group_with_a_name_in_use_is_refused_as_a_whole() -> None:
    """Horovod leaves the members before the offending one queued; here none is."""
    queue = TensorQueue()
    queue.submit([tensor("x")])
    with pytest.raises(DuplicateName):
        queue.submit([tensor("a"), tensor("x")])
    with pytest.raises(DuplicateName):
        queue.submit([tensor("b"), tensor("b")])
    assert queue.outstanding == ("x",)
    assert [request.name for request in queue.pop()] == ["x"]
    assert queue.pop() == ()
    with pytest.raises(KeyError):
        queue.finish("a")


@every_kind
def test_b05_broadcast_roots_that_differ_are_an_error_on_every_rank(kind: str) -> None:
    right = tensor("x", op=Op.BROADCAST, root_rank=0)
    assert disagree(kind, right, replace(right, root_rank=1)).startswith("Mismatched broadcast root ranks")


@every_kind
@pytest.mark.parametrize("wrong", [(4, 6), (4,), (4, 5, 1)])
def test_b05_allgather_may_differ_in_the_first_dimension_only(kind: str, wrong: tuple[int, ...]) -> None:
    right = tensor("x", op=Op.ALLGATHER, shape=(4, 5))
    assert disagree(kind, right, replace(right, shape=wrong)).startswith("Mismatched tensor shapes")
    job = Job(kind, settings(6), through_wire=True)
    for rank in job.ranks:
        job.submit(rank, replace(right, shape=(rank, 5)))
    (response,) = job.cycle().responses
    assert response.op is Op.ALLGATHER
    assert response.sizes == (sum(job.ranks) * 5 * 4,), "rows of all ranks, through a tree as well"


@every_kind
def test_b05_allgather_of_another_type_is_an_error(kind: str) -> None:
    right = tensor("x", op=Op.ALLGATHER, shape=(4, 5))
    assert disagree(kind, right, replace(right, dtype=DType.UINT8)).startswith("Mismatched data types")


@every_kind
@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("through_wire", [False, True])
@pytest.mark.parametrize("op", [Op.ALLGATHER, Op.REDUCESCATTER])
def test_b05_a_scalar_cannot_be_gathered_or_scattered(kind: str, ranks: int, through_wire: bool, op: Op) -> None:
    """Also when all ranks agree, and when they even share one Request object."""
    job = Job(kind, settings(ranks), through_wire)
    job.step(tensor("x", op=op, shape=()))
    assert job.errors() == {"x": f"{op.name.lower()} of 'x' needs at least one dimension"}


@every_kind
def test_b10_after_an_error_the_same_name_succeeds_again_and_again(kind: str) -> None:
    job = Job(kind, settings(3))
    for cycle in range(3):
        job.everybody(tensor("x"), but=[1])
        job.submit(1, tensor("x", 5))
        job.cycle()
        job.step(tensor("x"))
        assert [bool(each.error) for each in job.ended] == [True, False] * (cycle + 1)
    job.watch.job_done()


def test_asking_twice_breaks_the_protocol() -> None:
    table = ReadinessTable(range(2))
    table.add(1, tensor("x"))
    with pytest.raises(ProtocolError, match="voter 1 asked twice for 'x'"):
        table.add(1, tensor("x"))


@every_kind
def test_one_rank_alone_negotiates_with_itself(kind: str) -> None:
    job = Job(kind, Settings(1, 0), through_wire=True)
    assert [each.names for each in job.step(tensor("a"), tensor("b")).responses] == [("a",), ("b",)]
