"""Join: a rank without data takes part with zeros until all have joined (docs/horovod.md 2.7)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest

from coordsim.protocol.messages import DType, Op, ReduceOp, Request, RequestList, join_request
from coordsim.protocol.queue import AfterJoin, DuplicateName, TensorQueue
from coordsim.protocol.readiness import ProtocolError, ReadinessTable
from tests.protocol.data import DataJob, Failed, Handle
from tests.protocol.drive import KINDS, Job, caches, fused, settings, tensor

every_kind = pytest.mark.parametrize("kind", KINDS)


def put_everywhere(job: DataJob, request: Request, *, but: Collection[int] = ()) -> list[Handle]:
    """Rank r contributes r + 1, plus the index of the element."""
    elements = range(request.nbytes // request.dtype.nbytes)
    return [
        job.put(rank, (request, [rank + 1 + index for index in elements]))[0] for rank in job.ranks if rank not in but
    ]


def join(job: DataJob, rank: int) -> Handle:
    (handle,) = job.put(rank, (join_request(), [0]))
    return handle


@every_kind
@pytest.mark.parametrize("first", range(4))
@pytest.mark.parametrize("known", [False, True], ids=["new", "cached"])
def test_join_allreduce_averages_over_all_ranks(kind: str, first: int, known: bool) -> None:
    """test_horovod_join_allreduce: two tensors, every rank joins first once, with and without cached names."""
    job = DataJob(kind, settings(4), through_wire=True)
    one, other = tensor("one", 2), tensor("other", 3)
    if known:
        put_everywhere(job, one)
        put_everywhere(job, other)
        job.cycle()
    joins = [join(job, first)]
    ones, others = put_everywhere(job, one, but={first}), put_everywhere(job, other, but={first})
    job.cycle()
    total = sum(rank + 1 for rank in job.ranks if rank != first)
    assert [each.wait() for each in ones] == [[total / 4, (total + 3) / 4]] * 3
    assert [each.wait() for each in others] == [[total / 4, (total + 3) / 4, (total + 6) / 4]] * 3
    assert not joins[0].poll()
    last = [rank for rank in job.ranks if rank != first]
    for rank in last:
        joins.append(join(job, rank))
        job.cycle()
    assert [each.wait() for each in joins] == [[last[-1]]] * 4, "all ranks are told the rank that joined last"
    assert last[-1] != first
    job.watch.job_done()


@every_kind
@pytest.mark.parametrize("op", [Op.ALLGATHER, Op.BROADCAST, Op.REDUCESCATTER])
@pytest.mark.parametrize("known", [False, True], ids=["new", "cached"])
def test_join_and_what_zeros_cannot_stand_in_for(kind: str, op: Op, known: bool) -> None:
    """test_horovod_join_allgather, _broadcast: an error on ranks with data; join still returns; then all is well."""
    job = DataJob(kind, settings(3), through_wire=True)
    request = tensor("x", 3, op=op, root_rank=0 if op is Op.BROADCAST else -1)
    bystander = tensor("bystander")
    if known:
        put_everywhere(job, request)
        put_everywhere(job, bystander)
        job.cycle()
    joins = [join(job, 1)]
    handles = put_everywhere(job, request, but={1})
    fine = put_everywhere(job, bystander, but={1})
    job.cycle()
    for each in handles:
        with pytest.raises(Failed, match=f"{op.name.lower()} of 'x': a rank that has joined has no data for it"):
            each.wait()
    assert all(each.error == "" and each.poll() for each in fine)
    joins += [join(job, 2), join(job, 0)]
    job.cycle()
    assert [each.wait() for each in joins] == [[2]] * 3
    again = put_everywhere(job, request)
    job.cycle()
    assert all(each.poll() and not each.error for each in again)
    job.watch.job_done()


@every_kind
def test_join_a_barrier_does_without_data(kind: str) -> None:
    job = Job(kind, settings(3))
    job.join(0)
    job.everybody(tensor("b", op=Op.BARRIER, shape=()), but=[0])
    assert fused(job.cycle().responses) == [("b",)]


@every_kind
def test_join_what_a_joined_rank_asked_for_before_still_counts(kind: str) -> None:
    """Horovod adds such a request to the joined ranks and executes without rank 2 (2.7, e)."""
    job = DataJob(kind, settings(3), through_wire=True)
    request = tensor("x", 1, reduce_op=ReduceOp.SUM)
    (zero,) = job.put(0, (request, [10]))
    joined = join(job, 0)
    (one,) = job.put(1, (request, [200]))
    assert job.cycle().responses == ()
    assert job.cycle().responses == ()
    (two,) = job.put(2, (request, [3000]))
    job.cycle()
    assert [each.wait() for each in (zero, one, two)] == [[3210]] * 3, "its own data, not zeros"
    job.join(1, 2)
    job.cycle()
    assert joined.wait() == [2]


@every_kind
@pytest.mark.parametrize("known", [False, True], ids=["new", "cached"])
def test_join_with_tensors_of_its_own_outstanding_loses_none(kind: str, known: bool) -> None:
    """Rank 1 alone submits, then all join: everything ends. Hits that wait must not vanish with the common bits."""
    job = DataJob(kind, settings(3), through_wire=True)
    request = tensor("x", 1, reduce_op=ReduceOp.SUM)
    if known:
        put_everywhere(job, request)
        job.cycle()
    (handle,) = job.put(1, (request, [7]))
    job.cycle()
    joins = [join(job, rank) for rank in (1, 0, 2)]
    schedule = job.cycle()
    assert fused(schedule.responses) == [("x",), ("join.noname",)]
    assert handle.wait() == [7]
    assert [each.wait() for each in joins] == [[2]] * 3
    job.watch.job_done()


@every_kind
def test_join_of_all_ranks_with_nothing_to_do(kind: str) -> None:
    """In the vector every bit is then common, but no tensor is anybody's."""
    job = Job(kind, settings(3), through_wire=True)
    job.step(tensor("x"), tensor("y"))
    for _ in range(2):
        job.join(*job.ranks)
        schedule = job.cycle()
        assert fused(schedule.responses) == [("join.noname",)]
        assert schedule.hits_common == 0
        assert job.step(tensor("y")).responses[0].names == ("y",), "counters are reset"
    job.watch.job_done()


@every_kind
def test_join_the_rank_that_joins_last_is_the_highest_of_the_last_cycle(kind: str) -> None:
    job = Job(kind, settings(7))  # as a tree: 0 -> 1 (3, 4), 2 (5, 6)
    for ranks in ([6, 0], [2, 5], [1, 4, 3]):
        assert job.schedules == [] or job.schedules[-1].responses == ()
        job.join(*ranks)
        job.cycle()
    (response,) = job.schedules[-1].responses
    assert (response.op, response.root_rank) == (Op.JOIN, 4)


@every_kind
def test_join_frees_what_waited_for_it_in_order_of_first_request(kind: str) -> None:
    """Horovod scans its table in hash order, which no two runs need share."""
    job = Job(kind, settings(3, threshold=0))
    for name in ("c", "a", "b"):
        job.everybody(tensor(name), but=[2])
        job.cycle()
    job.everybody(tensor("all"), but=[2])
    job.submit(2, tensor("all"))
    job.join(2)
    assert fused(job.cycle().responses) == [("all",), ("c",), ("a",), ("b",)]


def test_join_makes_one_slow_cycle_not_every_one_slow() -> None:
    """Horovod's uncached flag goes up when the JOIN is popped; then the joined rank offers every bit."""
    job = Job("cached", settings(4), through_wire=True)
    job.step(tensor("x"), tensor("y"))
    job.join(3)
    job.everybody(tensor("x"), but=[3])
    assert job.cycle().slow
    for _ in range(5):
        job.everybody(tensor("x"), but=[3])
        job.everybody(tensor("y"), but=[3])
        schedule = job.cycle()
        assert (schedule.slow, schedule.hits_common) == (False, 2)
        assert job.exchanges[-1] == ["AndReduce"]
    assert job.cycle().responses == ()


def test_join_nothing_agreed_meanwhile_is_cached() -> None:
    job = Job("cached", settings(3), through_wire=True)
    job.step(tensor("known"))
    job.join(1)
    job.everybody(tensor("new"), but=[1])
    job.cycle()
    job.everybody(tensor("new"), but=[1])
    assert job.cycle().slow, "asked again"
    assert caches(job) == [[(0, "known")]] * 3
    job.join(0, 2)
    job.cycle()
    job.step(tensor("new"))
    assert job.step(tensor("new")).hits_common == 1


def test_join_hits_used_meanwhile_become_recent_on_the_joined_rank_too() -> None:
    """In slow and in fast cycles; or the next eviction would differ between ranks (I1)."""
    job = Job("cached", settings(3, capacity=3))
    job.step(tensor("a"), tensor("b"), tensor("c"))
    job.join(2)
    job.everybody(tensor("a"), but=[2])
    job.everybody(tensor("new"), but=[2])
    assert job.cycle().slow
    job.everybody(tensor("b"), but=[2])
    assert not job.cycle().slow
    assert [each.cache.least_recent_first() for each in job.negotiators] == [["c", "a", "b"]] * 3


def test_join_takes_allgathers_out_of_the_cache_once() -> None:
    job = Job("cached", settings(3))
    job.step(tensor("rows", 4, op=Op.ALLGATHER), tensor("x"))
    job.join(0)
    schedule = job.cycle()
    assert schedule.invalidated
    assert caches(job) == [[(0, "x")]] * 3
    job.join(1)
    assert not job.cycle().invalidated, "there is nothing left that zeros cannot serve"


def test_join_strict_groups_are_fused_alike_by_the_joined_rank() -> None:
    """Horovod's joined rank has registered no groups and fuses otherwise (2.7, d); ours are settings."""
    groups = [("a", "b"), ("c", "d")]
    job = Job("cached", settings(3, groups=groups, strict=True))
    units = [[replace(tensor(name), group=job.settings.groups.digest(name)) for name in unit] for unit in groups]
    for unit in units:
        job.everybody(*unit)
    job.cycle()
    job.join(1)
    job.cycle()
    for unit in units:
        job.everybody(*unit, but=[1])
    schedule = job.cycle()
    assert not schedule.slow
    assert fused(schedule.responses) == groups


@every_kind
@pytest.mark.parametrize(
    ("reduce_op", "dtype", "values", "expected"),
    [
        (ReduceOp.SUM, DType.FLOAT32, [4, 1, 3], 8), (ReduceOp.AVERAGE, DType.FLOAT32, [4, 1, 3], 2),
        (ReduceOp.MIN, DType.FLOAT32, [4, 1, 3], 1), (ReduceOp.MIN, DType.UINT8, [4, 1, 3], 1),
        (ReduceOp.MAX, DType.INT32, [-4, -1, -3], -1), (ReduceOp.PRODUCT, DType.FLOAT16, [4, 1, 3], 12),
    ],
)  # fmt: skip
def test_join_a_joined_rank_changes_no_result(
    kind: str, reduce_op: ReduceOp, dtype: DType, values: list[int], expected: int
) -> None:
    """But it counts in an average. Horovod's zeros win every minimum of positive and maximum of negative numbers."""
    job = DataJob(kind, settings(4))
    join(job, 2)
    request = tensor("x", 1, reduce_op=reduce_op, dtype=dtype)
    handles = [job.put(rank, (request, [value]))[0] for rank, value in zip((0, 1, 3), values, strict=True)]
    job.cycle()
    assert [each.wait() for each in handles] == [[expected]] * 3


def test_join_a_queue_takes_nothing_after_a_join_until_it_ends() -> None:
    queue = TensorQueue()
    queue.submit([tensor("before")])
    queue.submit([join_request()])
    with pytest.raises(AfterJoin, match="'x' was submitted after this rank had joined"):
        queue.submit([tensor("x")])
    with pytest.raises(DuplicateName):
        queue.submit([join_request()])
    queue.submit([])
    assert [each.name for each in queue.pop()] == ["before", "join.noname"]
    queue.finish("join.noname")
    queue.submit([tensor("x")])
    with pytest.raises(AfterJoin):
        queue.submit([join_request(), tensor("y")])
    with pytest.raises(ValueError, match="the name of a join and of nothing else"):
        queue.submit([Request("join.noname")])
    with pytest.raises(ValueError, match="the name of a join and of nothing else"):
        queue.submit([Request("mine", Op.JOIN)])
    assert queue.outstanding == ("before", "x")


def test_join_twice_or_data_afterwards_breaks_the_protocol() -> None:
    table = ReadinessTable(range(3))
    table.join(1)
    with pytest.raises(ProtocolError, match="voter 1 joined twice"):
        table.join(1)
    with pytest.raises(ProtocolError, match="voter 1 asked for 'x' after it had joined"):
        table.add(1, tensor("x"))
    table.add(0, tensor("y"))
    assert table.completed_by_joins() == []
    assert table.missing() == {"y": (2,)}
    with pytest.raises(AssertionError, match="'y' taken before every voter asked for it"):
        table.take("y")
    assert RequestList(1, joined=1).silent is False
