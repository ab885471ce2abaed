"""``coord`` when things go wrong: ranks that disagree, ranks that die, ranks that do not come."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from real_backend.c10d import order
from real_backend.errors import CollectiveFailed, NotRunning, PeerLost, ShutDown
from tests.real_backend.processes import Job, run, tell, wait_until
from tests.real_backend.test_c10d import coord


def disagree() -> None:
    """What they disagree on is new to some rank at least."""
    with coord():
        rank, ranks = dist.get_rank(), dist.get_world_size()
        dtype = (torch.int32, torch.int64)[rank % 2]
        reduction = (dist.ReduceOp.MIN, dist.ReduceOp.MAX)[rank % 2]
        for size in (10, 30):
            mine = size + rank
            wrong: list[tuple[str, Callable[[], object]]] = [
                ("tensor shapes", lambda mine=mine: dist.all_reduce(torch.ones(mine))),
                ("data types", lambda size=size: dist.all_reduce(torch.ones(size, dtype=dtype))),
                ("reduction operation", lambda size=size: dist.all_reduce(torch.ones(size), reduction)),
                ("broadcast root ranks", lambda size=size: dist.broadcast(torch.ones(size), rank)),
                (
                    "tensor shapes",
                    lambda mine=mine: dist.all_gather_into_tensor(torch.empty(ranks * mine), torch.ones(mine)),
                ),
                (
                    "tensor shapes",
                    lambda mine=mine: dist.reduce_scatter_tensor(torch.empty(mine), torch.ones(ranks * mine)),
                ),
            ]
            for text, call in wrong:
                with pytest.raises(CollectiveFailed, match=f"Mismatched {text}"):
                    call()
            work = dist.all_reduce(torch.ones(20 + mine), async_op=True)
            with pytest.raises(RuntimeError, match="Mismatched tensor shapes"):
                work.get_future().wait()
            assert work.is_completed()
            assert not work.is_success()
            assert isinstance(work.exception(), CollectiveFailed)
            for known in (size, size + 1):  # what some rank had in mind before
                tensor = torch.ones(known)
                dist.all_reduce(tensor)
                assert tensor.tolist() == [float(ranks)] * known


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_that_disagree_are_all_told_and_go_on(ranks: int) -> None:
    run(ranks, disagree)


def differ_in_the_same_place() -> None:
    """What each rank issues is known to all, so names differ; the ranks notice, and go on."""
    order.PATIENCE_S, order.LOOKS_S = 0.2, (0.1, 1.0)
    with coord():
        rank, ranks = dist.get_rank(), dist.get_world_size()

        def reduce(size: int) -> object:
            return dist.all_reduce(torch.ones(size))

        def block(*sizes: int) -> None:
            with dist._coalescing_manager():
                for size in sizes:
                    reduce(size)

        def teach() -> None:
            reduce(3)
            reduce(4)
            reduce(5)
            block(1, 2)
            block(2, 1)
            dist.barrier()

        teach()
        with pytest.raises(CollectiveFailed, match="Mismatched tensor shapes") as raised:
            reduce(4 if rank == ranks - 1 else 3)
        assert any(f"rank {each} has [3]" in str(raised.value) for each in range(ranks - 1))  # whoever asked first
        assert f"rank {ranks - 1} has [4]" in str(raised.value)
        teach()
        with pytest.raises(CollectiveFailed, match="Mismatched operations"):
            reduce(3) if rank else dist.barrier()
        teach()
        for mine in (lambda: block(1, 2), lambda: block(2, 1)) if rank else (lambda: block(2, 1), lambda: reduce(3)):
            with pytest.raises(CollectiveFailed, match="Mismatched"):
                mine()
        teach()
        early = [dist.all_reduce(torch.ones(size), async_op=True) for size in (3 if rank else 4, 5)]
        with pytest.raises(CollectiveFailed, match="Mismatched tensor shapes"):
            early[0].wait()
        if rank == 1:
            time.sleep(1.0)  # longer than the others are patient: a late rank is no error
        early[1].wait()
        teach()


@pytest.mark.parametrize("ranks", [2, 3])
def test_operations_that_differ_in_the_same_place_fail_on_all_ranks(ranks: int) -> None:
    run(ranks, differ_in_the_same_place)


def uneven() -> None:
    """A rank without data issues outside of any backward pass what the others issue inside one."""
    with coord():
        torch.manual_seed(0)
        model = DistributedDataParallel(torch.nn.Linear(4, 4))
        with model.join():
            for _ in range(3 + 2 * dist.get_rank()):
                model(torch.ones(2, 4)).sum().backward()
        dist.barrier()


def test_uneven_inputs() -> None:
    run(2, uneven)


def wrong_sizes() -> None:
    with coord():
        with pytest.raises(ValueError, match="do not take"):
            dist.group.WORLD.all_gather_single(torch.empty(5), torch.ones(2))  # type: ignore[union-attr]
        with pytest.raises(ValueError, match="do not leave"):
            dist.group.WORLD.reduce_scatter_single(torch.empty(5), torch.ones(2), None)  # type: ignore[union-attr]


def test_sizes_that_do_not_fit_on_one_rank() -> None:
    run(2, wrong_sizes)


def reduce_until_told() -> str:
    import real_backend.c10d  # noqa: F401

    dist.init_process_group("coord")
    values = torch.ones(100)
    dist.all_reduce(values, dist.ReduceOp.MAX)
    tell(f"rank {dist.get_rank()} runs")
    try:
        while True:
            dist.all_reduce(values, dist.ReduceOp.MAX)
    except PeerLost as error:
        found = str(error)
    with pytest.raises(PeerLost):
        dist.all_reduce(values)
    dist.destroy_process_group()
    return found


def train_until_told() -> str:
    """DDP waits for futures in C++."""
    import real_backend.c10d  # noqa: F401

    dist.init_process_group("coord")
    model = DistributedDataParallel(torch.nn.Linear(10, 10))
    model(torch.ones(2, 10)).sum().backward()
    tell(f"rank {dist.get_rank()} runs")
    try:
        while True:
            model(torch.ones(2, 10)).sum().backward()
    except RuntimeError as error:
        found = str(error)
    dist.destroy_process_group()
    return found


@pytest.mark.parametrize("victim", [0, 2])
@pytest.mark.parametrize("what", [reduce_until_told, train_until_told], ids=["all_reduce", "ddp"])
def test_a_killed_rank_is_named_by_all_others(victim: int, what: Callable[[], str]) -> None:
    job = Job(3, what)
    job.wait_for(*(f"rank {rank} runs" for rank in range(3)))
    job.kill(victim)
    for rank, outcome in enumerate(job.outcomes()):
        if rank != victim:
            assert not outcome.error, outcome.error
            assert f"rank {victim} was lost" in outcome.result
            assert "no sign of life" not in outcome.result


def nobody_comes() -> None:
    import real_backend.c10d  # noqa: F401

    dist.init_process_group("coord", timeout=timedelta(seconds=1))
    tensor = torch.ones(1)
    if dist.get_rank() == 0:
        with pytest.raises(TimeoutError):
            dist.all_reduce(tensor)
        with pytest.raises(TimeoutError):
            dist.all_reduce(tensor, async_op=True).wait(timedelta(milliseconds=20))
        tell("both timed out")
    else:
        wait_until("both timed out")
    dist.destroy_process_group()


def test_an_operation_that_not_all_ranks_issue_times_out() -> None:
    run(2, nobody_comes)


def leave_early() -> None:
    import real_backend.c10d  # noqa: F401

    dist.init_process_group("coord")
    group = dist.group.WORLD
    if dist.get_rank() == 1:
        work = dist.all_reduce(torch.ones(1), async_op=True)
        tell("it is pending")
        with pytest.raises(ShutDown):
            work.wait()
    else:
        wait_until("it is pending")
    dist.destroy_process_group()
    with pytest.raises(NotRunning):
        group.allreduce([torch.ones(1)])  # type: ignore[union-attr]


def test_what_is_pending_when_a_rank_leaves_fails() -> None:
    run(2, leave_early)
