"""Scripts with DDP, FSDP2 and DTensor that stay as they are, over ``coord`` and over gloo: the same numbers."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tests.real_backend.processes import PRELOADED, run
from tests.real_backend.test_c10d import coord

PRELOADED.extend(["torch._dynamo", "torch.distributed.fsdp"])  # DDP and FSDP load these when first used, for seconds
UNFUSED = {"COORDSIM_FUSION_THRESHOLD": "0"}
STEPS = 18
WARM = 15
"""Steps until all names have been seen: real_backend.c10d.names.WINDOW operations, with DDP's few a step."""


_lives = itertools.count()


@contextmanager
def gloo() -> Iterator[None]:
    """The default group over gloo, which cannot be made a second time from the same keys of a store."""
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    store = dist.PrefixStore(f"life {next(_lives)}", store)
    dist.init_process_group("gloo", store=store, rank=int(os.environ["RANK"]), world_size=int(os.environ["WORLD_SIZE"]))
    warnings.simplefilter("ignore", FutureWarning)
    yield
    dist.destroy_process_group()


class Net(nn.Module):
    """Equal layers, so that buckets and shards are equal; buffers; a branch that not every rank uses."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Linear(8, 32)
        self.norm = nn.BatchNorm1d(32)
        self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(4))
        self.branch = nn.Linear(32, 32)
        self.head = nn.Linear(32, 4)

    def forward(self, values: torch.Tensor, branch: bool = True) -> torch.Tensor:
        values = self.norm(self.first(values))
        for layer in self.layers:
            values = torch.relu(layer(values))
        return self.head(values + self.branch(values) if branch else values)


def train(
    wrap: Callable[[nn.Module], nn.Module], branch: Callable[[int], bool] = lambda step: True,
    after: Callable[[int], Any] = lambda step: None,
) -> Any:  # fmt: skip
    """Gradients and parameters at the end. ``branch``: in which steps to use it; ``after`` is called after each."""
    model = Net()
    wrapped = wrap(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(STEPS):
        torch.manual_seed(100 * step + dist.get_rank())
        optimizer.zero_grad()
        wrapped(torch.randn(16, 8), branch(step)).square().mean().backward()
        optimizer.step()
        after(step)
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return [_whole(each) for each in (*grads, *model.parameters())]


def _whole(tensor: Any) -> torch.Tensor:
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().clone()


DDP: dict[str, dict[str, Any]] = {
    "plain": {},
    "bucket view": {"gradient_as_bucket_view": True},
    "static graph": {"static_graph": True},
    "unused parameters": {"find_unused_parameters": True},
}


def ddp_twice(exactly: bool) -> dict[str, int]:
    """Slow cycles after the first steps, by kind of DDP."""
    return {kind: compare_ddp(kind, exactly) for kind in DDP}


def compare_ddp(kind: str, exactly: bool) -> int:
    def wrap(model: nn.Module) -> nn.Module:
        return DistributedDataParallel(model, bucket_cap_mb=0.005, broadcast_buffers=False, **DDP[kind])

    def branch(step: int) -> bool:
        return kind != "unused parameters" or (step + dist.get_rank()) % 2 == 0

    with gloo():
        expected = train(wrap, branch)
    counts: list[int] = []
    with coord() as world:
        found = train(wrap, branch, lambda step: counts.append(world.engine.counters.slow_cycles))
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other) if exactly else torch.allclose(one, other, rtol=1e-5), kind
    return counts[-1] - counts[WARM - 1]


def test_ddp_on_two_ranks_has_the_bits_of_gloo() -> None:
    for slow in run(2, ddp_twice, True):
        assert slow == dict.fromkeys(DDP, 0)


def test_ddp_on_four_ranks_has_the_bits_of_gloo_without_fusion() -> None:
    run(4, ddp_twice, True, env=UNFUSED)


def test_ddp_on_four_ranks_with_fusion() -> None:
    run(4, ddp_twice, False)


def ddp_with_buffers_and_accumulation() -> None:
    """Broadcasts in forward, and a step whose gradients stay on the rank."""
    results = []
    for group in (gloo, coord):
        with group():
            model = Net()
            wrapped = DistributedDataParallel(model)
            for step in range(3):
                torch.manual_seed(step + dist.get_rank())
                with wrapped.no_sync():
                    wrapped(torch.randn(16, 8)).sum().backward()
                wrapped(torch.randn(16, 8)).sum().backward()
            results.append([*model.buffers(), *(parameter.grad for parameter in model.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_buffers_and_accumulation() -> None:
    run(2, ddp_with_buffers_and_accumulation)


def hooked(state: Any, hook: Any, bucket_mb: float, model: nn.Module) -> nn.Module:
    wrapped = DistributedDataParallel(model, bucket_cap_mb=bucket_mb, broadcast_buffers=False)
    wrapped.register_comm_hook(state, hook)
    return wrapped


def compress_to_half() -> None:
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook

    results = []
    for group in (gloo, coord):
        with group():
            results.append(train(partial(hooked, None, fp16_compress_hook, 0.005)))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def compress_by_powers() -> None:
    """It issues collectives in callbacks of others, and waits for them there. Not compared with gloo, which such a hook
    may end by ``std::terminate``: a thread of gloo's that runs the last callback joins itself."""
    from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook

    with coord():
        state = PowerSGDState(None, matrix_approximation_rank=2, start_powerSGD_iter=2)
        for value in train(partial(hooked, state, powerSGD_hook, 25)):
            everybody = [torch.empty_like(value) for _ in range(dist.get_world_size())]
            dist.all_gather(everybody, value)
            assert all(torch.equal(value, each) for each in everybody)
        assert state.compression_stats()[2] > 0


@pytest.mark.parametrize("what", [compress_to_half, compress_by_powers])
def test_comm_hooks_of_torch_itself(what: Callable[[], None]) -> None:
    run(2, what)


def shard(model: nn.Module) -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    for layer in model.layers:  # type: ignore[union-attr]
        fully_shard(layer)
    return fully_shard(model)


def fsdp_twice(exactly: bool) -> list[int]:
    """Slow cycles until the end of each step."""
    with gloo():
        expected = train(shard)
    with coord() as world:
        counts: list[int] = []
        found = train(shard, after=lambda step: counts.append(world.engine.counters.slow_cycles))
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other) if exactly else torch.allclose(one, other, rtol=1e-5, atol=1e-7)
    return counts


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_fsdp2_equals_gloo_and_hits_the_cache(ranks: int) -> None:
    if ranks == 1:
        run(1, fsdp_alone)
        return
    for counts in run(ranks, fsdp_twice, ranks == 2):
        assert counts[0] > 0
        # the last reading may see what a faster rank does after its training
        assert counts[3:-1] == [counts[3]] * (STEPS - 4), "every name was known after some steps"


def fsdp_alone() -> None:
    with coord():
        train(shard)


def mesh_of_four() -> list[float]:
    """DTensor over a mesh of two dimensions, redistributions, and functional collectives under autograd."""
    import torch.distributed._functional_collectives as functional
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Partial, Replicate, Shard, distribute_tensor

    with coord():
        rank = dist.get_rank()
        mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicas", "shards"))
        values = torch.arange(32.0).view(8, 4)
        sharded = distribute_tensor(values, mesh, [Replicate(), Shard(0)])
        assert torch.equal(sharded.full_tensor(), values)
        assert torch.equal(sharded.redistribute(mesh, [Shard(0), Shard(1)]).full_tensor(), values)
        product = sharded.t() @ sharded
        assert product.placements[1] == Partial()
        assert torch.allclose(product.full_tensor(), values.t() @ values)
        assert float(sharded.sum().full_tensor()) == float(values.sum())

        group = mesh.get_group("shards")
        reduced = functional.all_reduce(torch.full((3,), float(rank)), "sum", group)
        gathered = functional.all_gather_tensor(torch.full((2,), float(rank)), 0, group)
        scattered = functional.reduce_scatter_tensor(torch.ones(4) * rank, "avg", 0, group)
        many = functional.all_reduce_coalesced([torch.ones(1), torch.ones(2)], "sum", group)
        assert [each.tolist() for each in many] == [[2.0], [2.0, 2.0]]
        return [float(reduced[0]), *gathered.tolist(), float(scattered[0])]


def test_device_mesh_dtensor_and_functional_collectives() -> None:
    assert run(4, mesh_of_four) == [
        [1.0, 0.0, 0.0, 1.0, 1.0, 0.5], [1.0, 0.0, 0.0, 1.0, 1.0, 0.5],
        [5.0, 2.0, 2.0, 3.0, 3.0, 2.5], [5.0, 2.0, 2.0, 3.0, 3.0, 2.5],
    ]  # fmt: skip


def hybrid() -> list[list[float]]:
    """FSDP2 over a mesh: sharded in one dimension, replicated in the other."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    results = []
    for group in (gloo, coord):
        with group():
            mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicas", "shards"))
            results.append(train(partial(fully_shard, mesh=mesh)))
    assert all(torch.allclose(one, other, rtol=1e-5, atol=1e-7) for one, other in zip(*results, strict=True))


def test_hybrid_sharding() -> None:
    run(4, hybrid)
