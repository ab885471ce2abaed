"""Behaviours 1, 6, 7 and 9: the numbers that come out, on every control plane, through the wire form."""

from __future__ import annotations

import random
from itertools import chain
from math import prod

import pytest

from coordsim.protocol.messages import DType, Op, ReduceOp, Request
from tests.protocol.data import DataJob, Failed, Handle, Number
from tests.protocol.drive import KINDS, settings, tensor

every_kind = pytest.mark.parametrize("kind", KINDS)
DTYPES = (DType.UINT8, DType.INT8, DType.INT32, DType.INT64, DType.FLOAT16, DType.FLOAT32, DType.FLOAT64)


def job_of(kind: str, ranks: int = 3, threshold: int = 1 << 20) -> DataJob:
    return DataJob(kind, settings(ranks, threshold=threshold), through_wire=True)


def put_all(job: DataJob, request: Request, values: list[list[Number]]) -> list[Handle]:
    return [job.put(rank, (request, values[rank]))[0] for rank in job.ranks]


@every_kind
@pytest.mark.parametrize("threshold", [0, 60, 1 << 20])
def test_b01_many_small_tensors_of_mixed_types_all_sum_up(kind: str, threshold: int) -> None:
    """7 types x 3 shapes, each rank in an order of its own, some a cycle later; twice, the second time cached."""
    job = job_of(kind, threshold=threshold)
    requests = [
        Request(f"{dtype.name}.{dims}", dtype=dtype, shape=(3,) * dims, reduce_op=ReduceOp.SUM)
        for dtype in DTYPES for dims in (1, 2, 3)
    ]  # fmt: skip
    for step in (1, 2):
        handles: dict[str, list[Handle]] = {request.name: [] for request in requests}
        for rank in job.ranks:
            for request in random.Random(step * 10 + rank).sample(requests, len(requests) - 4 * (rank == 1)):
                values = [step * (rank + 1) + index % 3 for index in range(prod(request.shape))]
                handles[request.name] += job.put(rank, (request, values))
        assert not any(each.poll() for each in chain(*handles.values())), "submitting waits for nobody"
        job.cycle()
        late = [request for request in requests if len(handles[request.name]) < 3]
        assert [each.poll() for each in chain(*(handles[request.name] for request in late))] == [False] * 8
        for request in late:
            values = [2 * step + index % 3 for index in range(prod(request.shape))]
            handles[request.name] += job.put(1, (request, values))
        job.cycle()
        for request in requests:
            expected = [6 * step + 3 * (index % 3) for index in range(prod(request.shape))]
            assert [each.wait() for each in handles[request.name]] == [expected] * 3, request.name
    fused = [names for names in job.operations if len(names) > 1]
    assert bool(fused) == bool(threshold)
    for names in fused:
        assert len({name.split(".")[0] for name in names}) == 1, "types never share a buffer"
    job.watch.job_done()


@every_kind
@pytest.mark.parametrize(
    ("reduce_op", "prescale", "postscale", "expected"),
    [
        (ReduceOp.AVERAGE, 1.0, 1.0, [2.0, -2.0]), (ReduceOp.SUM, 1.0, 1.0, [6.0, -6.0]),
        (ReduceOp.SUM, 0.5, 1.0, [3.0, -3.0]), (ReduceOp.SUM, 1.0, 4.0, [24.0, -24.0]),
        (ReduceOp.AVERAGE, 0.5, 8.0, [8.0, -8.0]), (ReduceOp.MIN, 1.0, 1.0, [1.0, -3.0]),
        (ReduceOp.MAX, 1.0, 1.0, [3.0, -1.0]), (ReduceOp.PRODUCT, 1.0, 1.0, [6.0, -6.0]),
        (ReduceOp.MAX, -1.0, 1.0, [-1.0, 3.0]), (ReduceOp.MIN, 1.0, -1.0, [-1.0, 3.0]),
    ],
)  # fmt: skip
def test_b06_scales_and_reductions_give_the_right_numbers(
    kind: str, reduce_op: ReduceOp, prescale: float, postscale: float, expected: list[float]
) -> None:
    """Prescale acts before the reduction (it turns a maximum round), postscale after it; new and cached alike."""
    job = job_of(kind)
    request = tensor("x", 2, reduce_op=reduce_op, prescale=prescale, postscale=postscale)
    other = tensor("y", 2, reduce_op=reduce_op, prescale=prescale, postscale=postscale)
    for _ in range(2):
        handles = [
            job.put(rank, (request, [rank + 1, -rank - 1])) + job.put(rank, (other, [rank + 1, -rank - 1]))
            for rank in job.ranks
        ]
        job.cycle()
        assert [each.wait() for each in chain(*handles)] == [expected] * 6
        assert job.operations[-1] == ("x", "y"), "fused"


@every_kind
def test_b06_integers_are_scaled_as_fractions_and_cut(kind: str) -> None:
    job = job_of(kind)
    handles = put_all(job, tensor("x", 2, dtype=DType.INT32, prescale=0.5), [[5, -5], [6, 1], [7, 1]])
    job.cycle()
    assert [each.wait() for each in handles] == [[2, 0]] * 3, "(2 + 3 + 3) / 3 and (-2 + 0 + 0) / 3, towards zero"


@every_kind
@pytest.mark.parametrize("rows", range(8))
def test_b07_reducescatter_gives_the_low_ranks_the_larger_part(kind: str, rows: int) -> None:
    job = job_of(kind)
    request = tensor("x", shape=(rows, 2), op=Op.REDUCESCATTER, reduce_op=ReduceOp.SUM)
    values = [[100 * row + column + rank for row in range(rows) for column in range(2)] for rank in job.ranks]
    handles = put_all(job, request, values)
    job.cycle()
    total = [[300 * row + 3, 300 * row + 6] for row in range(rows)]
    counts = {
        0: [0, 0, 0], 1: [1, 0, 0], 2: [1, 1, 0], 3: [1, 1, 1], 4: [2, 1, 1], 5: [2, 2, 1], 6: [2, 2, 2], 7: [3, 2, 2],
    }[rows]  # fmt: skip
    first = 0
    for handle, count in zip(handles, counts, strict=True):
        assert handle.wait() == list(chain(*total[first : first + count]))
        first += count


@every_kind
def test_b07_reducescatter_of_a_group_is_one_operation(kind: str) -> None:
    """Uneven tensors of unlike shapes, fused: one run per rank in the buffer, right shares out of it."""
    group = ("a", "b", "c")
    job = DataJob(kind, settings(4, groups=[group]), through_wire=True)
    shapes = {"a": (5, 2), "b": (2,), "c": (4, 1, 3)}
    unit = [
        tensor(name, shape=shapes[name], op=Op.REDUCESCATTER, reduce_op=ReduceOp.AVERAGE, prescale=2.0)
        for name in group
    ]  # fmt: skip
    handles = []
    for rank in job.ranks:
        data = [(request, [rank + index for index in range(prod(request.shape))]) for request in unit]
        handles.append(job.put(rank, *data))
    job.cycle()
    assert job.operations == [group]
    shares = {"a": [4, 2, 2, 2], "b": [1, 1, 0, 0], "c": [3, 3, 3, 3]}
    for index, name in enumerate(group):
        got = [handles[rank][index].wait() for rank in job.ranks]
        assert [len(each) for each in got] == shares[name]
        assert list(chain(*got)) == [3.0 + 2 * at for at in range(prod(shapes[name]))]


@every_kind
def test_b07_reducescatter_of_a_scalar_is_a_clean_error(kind: str) -> None:
    job = job_of(kind)
    handles = put_all(job, tensor("x", shape=(), op=Op.REDUCESCATTER), [[1], [2], [3]])
    job.cycle()
    for each in handles:
        with pytest.raises(Failed, match="reducescatter of 'x' needs at least one dimension"):
            each.wait()


@every_kind
def test_allgathers_fuse_and_come_out_in_rank_order(kind: str) -> None:
    """Also with other rows on every rank, and again from the cache."""
    job = job_of(kind)
    for _ in range(2):
        handles = []
        for rank in job.ranks:
            x = tensor("x", shape=(rank, 2), op=Op.ALLGATHER)
            y = tensor("y", shape=(2 - rank,), op=Op.ALLGATHER)
            handles.append(job.put(rank, (x, [rank] * 2 * rank)) + job.put(rank, (y, [rank] * (2 - rank))))
        job.cycle()
        assert job.operations[-1] == ("x", "y")
        assert [[each.wait() for each in mine] for mine in handles] == [[[1, 1, 2, 2, 2, 2], [0, 0, 1]]] * 3


@every_kind
def test_a_broadcast_brings_the_roots_values(kind: str) -> None:
    job = job_of(kind)
    request = tensor("x", 2, op=Op.BROADCAST, root_rank=2)
    handles = put_all(job, request, [[1, 1], [2, 2], [3, 4]])
    job.cycle()
    assert [each.wait() for each in handles] == [[3, 4]] * 3


BARRIER = tensor("barrier", op=Op.BARRIER, shape=(0,))


@every_kind
@pytest.mark.parametrize("last", range(3))
def test_b09_a_barrier_waits_for_the_last_rank(kind: str, last: int) -> None:
    job = job_of(kind)
    handles = [job.put(rank, (BARRIER, []))[0] for rank in job.ranks if rank != last]
    for _ in range(5):
        job.cycle()
        assert not any(each.poll() for each in handles)
    handles += job.put(last, (BARRIER, []))
    job.cycle()
    assert all(each.poll() and not each.error for each in handles)


@every_kind
def test_b09_a_barrier_among_other_collectives_holds_up_none(kind: str) -> None:
    """And none holds up the barrier; it is never fused, and may be used again and again."""
    job = job_of(kind)
    for step in range(3):
        before = put_all(job, tensor("before"), [[step] * 4] * 3)
        barrier = [job.put(rank, (BARRIER, []))[0] for rank in (0, 1)]
        after = put_all(job, tensor("after"), [[step] * 4] * 3)
        job.cycle()
        assert [each.wait() for each in before + after] == [[float(step)] * 4] * 6
        assert not any(each.poll() for each in barrier)
        barrier += job.put(2, (BARRIER, []))
        pending = job.put(0, (tensor("pending"), [1] * 4))
        job.cycle()
        assert all(each.poll() for each in barrier)
        assert not pending[0].poll()
        for rank in (1, 2):
            job.put(rank, (tensor("pending"), [1] * 4))
        job.cycle()
        assert pending[0].wait() == [1.0] * 4
    assert job.operations.count(("barrier",)) == 3


def test_b09_a_barrier_of_one_set_of_ranks_does_not_wait_for_another() -> None:
    """A set of ranks is a job of its own here: its own queues, its own coordinator."""
    even, odd = job_of("cached", 2), job_of("cached", 3)
    waiting = even.put(0, (BARRIER, []))
    done = [odd.put(rank, (BARRIER, []))[0] for rank in odd.ranks]
    even.cycle()
    odd.cycle()
    assert all(each.poll() for each in done)
    assert not waiting[0].poll()
