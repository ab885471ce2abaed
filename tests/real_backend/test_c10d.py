"""``init_process_group("coord")``: the collectives of torch.distributed, on ranks that are processes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.distributed as dist

from real_backend.c10d.names import WINDOW
from tests.real_backend.processes import run

RANKS = pytest.mark.parametrize("ranks", [1, 2, 4])


@contextmanager
def coord() -> Iterator[Any]:
    """The default group."""
    import real_backend.c10d  # noqa: F401  (known also where the project is not installed)

    warnings.simplefilter("ignore", FutureWarning)  # old names of operations
    dist.init_process_group("coord")
    yield dist.group.WORLD
    dist.destroy_process_group()


def mine(dtype: torch.dtype, rank: int) -> torch.Tensor:
    return torch.tensor([rank + 1, 2, rank % 2]).to(dtype)


DTYPES = (
    torch.bool, torch.uint8, torch.int8, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float32,
    torch.float64,
)  # fmt: skip
REDUCTIONS = {
    "SUM": lambda all_: all_.sum(0), "MIN": lambda all_: all_.amin(0), "MAX": lambda all_: all_.amax(0),
    "PRODUCT": lambda all_: all_.prod(0), "AVG": lambda all_: all_.float().mean(0),
}  # fmt: skip


def reduce_everything() -> None:
    with coord():
        rank, ranks = dist.get_rank(), dist.get_world_size()
        started = []
        for dtype in DTYPES:
            for name, reduction in REDUCTIONS.items():
                if name == "AVG" and not dtype.is_floating_point:
                    continue
                expected = reduction(torch.stack([mine(dtype, each) for each in range(ranks)])).to(dtype)
                tensor, later = mine(dtype, rank), mine(dtype, rank)
                dist.all_reduce(tensor, getattr(dist.ReduceOp, name))
                assert torch.equal(tensor, expected), (dtype, name, tensor, expected)
                work = dist.all_reduce(later, getattr(dist.ReduceOp, name), async_op=True)
                started.append((work, later, expected))
        for work, later, expected in started:
            work.wait()
            assert work.is_completed()
            assert work.is_success()
            assert torch.equal(later, expected)


@RANKS
def test_all_reduce(ranks: int) -> None:
    run(ranks, reduce_everything)


def move_everything() -> None:
    with coord():
        rank, ranks = dist.get_rank(), dist.get_world_size()
        for dtype in (torch.float32, torch.bfloat16, torch.bool, torch.int16, torch.complex64):
            everybody = [mine(dtype, each) for each in range(ranks)]
            outputs = [torch.empty(3, dtype=dtype) for _ in range(ranks)]
            dist.all_gather(outputs, mine(dtype, rank))
            assert all(map(torch.equal, outputs, everybody))
            whole = torch.empty(3 * ranks, dtype=dtype)
            dist.all_gather_into_tensor(whole, mine(dtype, rank))
            assert torch.equal(whole, torch.cat(everybody))
            stacked = torch.empty(ranks, 3, dtype=dtype)
            work = dist.all_gather_into_tensor(stacked, mine(dtype, rank), async_op=True)
            work.wait()
            assert torch.equal(stacked, torch.stack(everybody))
            for root in range(ranks):
                tensor = mine(dtype, rank)
                dist.broadcast(tensor, root)
                assert torch.equal(tensor, everybody[root])
        objects: list[Any] = [None] * ranks
        dist.all_gather_object(objects, {"rank": rank, "text": "x" * rank})
        assert [each["rank"] for each in objects] == list(range(ranks))
        large = torch.empty(ranks * 300_000)
        dist.all_gather_into_tensor(large, torch.full((300_000,), float(rank)))
        assert torch.equal(large, torch.arange(ranks).float().repeat_interleave(300_000))
        dist.barrier()


@RANKS
def test_gather_broadcast_barrier(ranks: int) -> None:
    run(ranks, move_everything)


@pytest.mark.parametrize("env", [{"COORDSIM_RADIX": "2"}, {"COORDSIM_FUSION_THRESHOLD": "0"}], ids=["tree", "unfused"])
def test_gather_in_a_tree_and_over_gloo(env: dict[str, str]) -> None:
    run(5, move_everything, env=env)


def scatter_everything() -> None:
    with coord():
        rank, ranks = dist.get_rank(), dist.get_world_size()
        for reduction, factor in ((dist.ReduceOp.SUM, 1.0), (dist.ReduceOp.AVG, 1 / ranks)):
            whole = torch.arange(2.0 * ranks) + rank
            before = whole.clone()
            expected = ((torch.arange(2.0 * ranks) * ranks + sum(range(ranks))) * factor).view(ranks, 2)[rank]
            output = torch.empty(2)
            dist.reduce_scatter_tensor(output, whole, reduction)
            assert torch.allclose(output, expected)
            assert torch.equal(whole, before)
            work = dist.reduce_scatter_tensor(output.zero_(), whole, reduction, async_op=True)
            work.wait()
            assert torch.allclose(output, expected)
            dist.reduce_scatter(output.zero_(), list(whole.view(ranks, 2)), reduction)
            assert torch.allclose(output, expected)
        uneven = [torch.ones(each + 1) * rank for each in range(ranks)]
        output = torch.empty(rank + 1)
        dist.reduce_scatter(output, uneven)
        assert torch.equal(output, torch.full((rank + 1,), float(sum(range(ranks)))))


@RANKS
def test_reduce_scatter(ranks: int) -> None:
    run(ranks, scatter_everything)


def strided() -> None:
    """Memory layout is a rank's own affair: one rank's tensors are contiguous, the others' are not."""
    with coord():
        rank, ranks = dist.get_rank(), dist.get_world_size()
        tensor = torch.full((2, 3), float(rank)) if rank == 0 else torch.full((3, 2), float(rank)).t()
        dist.all_reduce(tensor)
        assert torch.equal(tensor, torch.full((2, 3), float(sum(range(ranks)))))
        dist.broadcast(tensor.fill_(rank), 1)
        assert torch.equal(tensor, torch.ones(2, 3))
        columns = torch.empty(4, ranks)
        dist.all_gather([columns[:, each] for each in range(ranks)], torch.full((4,), float(rank)))
        assert torch.equal(columns, torch.arange(ranks).float().expand(4, ranks))
        part = torch.empty(2, 2)[:, 0]
        dist.reduce_scatter_tensor(part, torch.ones(2, 2 * ranks)[:, :ranks])
        assert torch.equal(part, torch.full((2,), float(ranks)))
        for freed in (tensor.contiguous(), torch.empty(2 * ranks)):  # FSDP frees memory by resizing storages
            dist.all_reduce(freed)
            dist.all_gather_into_tensor(freed.view(-1)[: 2 * ranks], torch.ones(2))
            freed.untyped_storage().resize_(0)
        parameter = torch.nn.Parameter(torch.ones(3))
        dist.all_reduce(parameter)
        assert parameter.tolist() == [float(ranks)] * 3


def test_layout_of_memory() -> None:
    run(2, strided)


def in_blocks() -> int:
    with coord() as world:
        rank, ranks = dist.get_rank(), dist.get_world_size()
        total = float(sum(range(ranks)))
        tensors = [torch.full((size,), float(rank)) for size in (1, 2, 3)]
        for _ in range(WINDOW + 2):
            for tensor in tensors:
                tensor.fill_(rank)
            with dist._coalescing_manager(async_ops=True) as block:
                for tensor in tensors:
                    dist.all_reduce(tensor)
            block.wait()
            assert all(torch.equal(tensor, torch.full_like(tensor, total)) for tensor in tensors)
        wholes, parts = [torch.empty(ranks * size) for size in (1, 2)], [torch.empty(size) for size in (1, 2)]
        with dist._coalescing_manager():
            for whole, size in zip(wholes, (1, 2), strict=True):
                dist.all_gather_into_tensor(whole, torch.full((size,), float(rank)))
        with dist._coalescing_manager():
            for whole, part in zip(wholes, parts, strict=True):
                dist.reduce_scatter_tensor(part, whole)
        assert [part.tolist() for part in parts] == [[float(ranks * rank)], [float(ranks * rank)] * 2]
        mixed = [torch.full((2,), float(rank)) for _ in range(2)]
        with dist._coalescing_manager(device=torch.device("cpu"), async_ops=True) as block:
            world.allreduce([mixed[0]])
            world.broadcast(mixed[1], 1)
        block.wait()
        assert [tensor.tolist() for tensor in mixed] == [[total] * 2, [1.0] * 2]
        return world.engine.counters.snapshot()["hits"]


@pytest.mark.parametrize("strict", ["0", "1"])
def test_coalesced_operations_are_one_unit(strict: str) -> None:
    hits = run(2, in_blocks, env={"COORDSIM_STRICT_GROUPS": strict})
    assert all(each > 0 for each in hits)


def fall_through() -> None:
    with coord():
        rank, ranks = dist.get_rank(), dist.get_world_size()
        bits = torch.tensor([1 << rank])
        dist.all_reduce(bits, dist.ReduceOp.BOR)
        assert int(bits) == (1 << ranks) - 1
        gathered = [torch.empty(1) for _ in range(ranks)] if rank == 0 else None
        dist.gather(torch.full((1,), float(rank)), gathered, 0)
        assert gathered is None or [float(each) for each in gathered] == list(range(ranks))
        output = torch.empty(1)
        dist.scatter(output, [torch.full((1,), float(each)) for each in range(ranks)] if rank == 1 else None, 1)
        assert float(output) == rank
        dist.reduce(total := torch.ones(1), 0)
        assert rank or float(total) == ranks
        swapped = torch.empty(ranks)
        dist.all_to_all_single(swapped, torch.full((ranks,), float(rank)))
        assert swapped.tolist() == list(range(ranks))
        if rank == 0:
            dist.send(torch.full((1,), 5.0), 1)
        elif rank == 1:
            dist.recv(output, 0)
            assert float(output) == 5.0
        uneven = [torch.empty(each + 1) for each in range(ranks)]
        with pytest.raises((RuntimeError, ValueError)):
            dist.all_gather(uneven, torch.ones(rank + 1))


def test_what_is_not_ours_goes_to_gloo() -> None:
    run(2, fall_through)


def subgroups() -> list[float]:
    with coord():
        rank = dist.get_rank()
        found = []
        groups = [dist.new_group(members) for members in ([0, 1], [3, 2], [2, 0, 3], [1])]
        for group in groups:
            if dist.get_rank(group) >= 0:
                tensor = torch.full((1,), float(rank))
                dist.all_reduce(tensor, group=group)
                found.append(float(tensor))
        assert dist.get_backend(groups[0] if rank < 2 else groups[1]) == "coord"
        if rank in (0, 2, 3):
            dist.destroy_process_group(groups[2])
        dist.barrier()
        return found


def test_groups_of_some_ranks() -> None:
    assert run(4, subgroups) == [[1.0, 5.0], [1.0, 1.0], [5.0, 5.0], [5.0, 5.0]]


def several_lives() -> list[float]:
    found = []
    for life in range(3):
        with coord():
            group = dist.new_group([0, 1] if life else [1, 2])
            tensor = torch.ones(1)
            if dist.get_rank(group) >= 0:
                dist.all_reduce(tensor, group=group)
            dist.all_reduce(tensor)
            found.append(float(tensor))
    return found


def test_init_after_destroy() -> None:
    assert run(3, several_lives) == [[5.0, 5.0, 5.0]] * 3


def futures() -> None:
    with coord():
        ranks = dist.get_world_size()
        tensor = torch.ones(4)
        future = dist.all_reduce(tensor, async_op=True).get_future()
        assert future.wait()[0] is tensor
        assert tensor.tolist() == [float(ranks)] * 4

        def again(done: Any) -> torch.Tensor:
            """As PowerSGD's hook: what is chained to one operation waits for another."""
            more = dist.all_reduce(done.value()[0], async_op=True).get_future().wait()[0]
            return dist.all_reduce(more, async_op=True).get_future().wait()[0]

        chained = dist.all_reduce(tensor, async_op=True).get_future().then(again)
        assert chained.wait().tolist() == [float(ranks) ** 4] * 4


@RANKS
def test_futures(ranks: int) -> None:
    run(ranks, futures)


def many_at_once() -> int:
    """More than there are names, in another order of waiting on each rank."""
    with coord() as world:
        rank, ranks = dist.get_rank(), dist.get_world_size()
        for _ in range(2):
            tensors = [torch.full((5,), float(index)) for index in range(100)]
            works = [dist.all_reduce(tensor, async_op=True) for tensor in tensors]
            for work in works if rank else reversed(works):
                work.wait()
            assert [float(tensor[0]) for tensor in tensors] == [float(ranks * index) for index in range(100)]
        return world.engine.counters.responses


def test_many_small_ones_share_collectives() -> None:
    assert max(run(2, many_at_once)) < 100
