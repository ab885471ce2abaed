"""Gradients that are missing, frozen, sparse, strided or refused, and optimizers that are used otherwise than usual."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

import real_backend as rb
from real_backend.engine.assembly import assemble
from real_backend.engine.settings import settings_from
from real_backend.job import environment_store
from tests.real_backend.processes import run
from tests.real_backend.shared_jobs import once
from tests.real_backend.test_optimizer import Net, batch

Loss = Callable[[nn.Module, int, int], torch.Tensor]
"""Of a model, a step and a rank."""


def squares(model: nn.Module, step: int, rank: int) -> torch.Tensor:
    loss: torch.Tensor = model(batch(step, rank)).pow(2).mean()
    return loss


def equal(mine: Iterable[torch.Tensor], wanted: Iterable[torch.Tensor], tolerance: float = 1e-5) -> None:
    for one, other in zip(mine, wanted, strict=True):
        assert torch.allclose(one, other, atol=tolerance, rtol=tolerance)


def alone(model: nn.Module, make: Callable[[nn.Module], torch.optim.Optimizer], ranks: Iterable[int], steps: int = 3,
          loss: Loss = squares) -> nn.Module:  # fmt: skip
    """``model`` trained in this process on the mean of the losses of ``ranks``."""
    optimizer = make(model)
    for step in range(steps):
        optimizer.zero_grad()
        torch.stack([loss(model, step, rank) for rank in ranks]).mean().backward()
        optimizer.step()
    return model


def decayed(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1, momentum=0.9)


def freeze(model: Net) -> Net:
    for parameter in model.first.parameters():
        parameter.requires_grad = False
    return model


def frozen() -> None:
    """What nobody trains does not travel, and is not changed by weight decay; groups do not wait for it."""
    for groups in (None, 1, "layer", [["first.weight", "left.weight", "right.bias"]]):
        model = freeze(Net())
        optimizer = rb.DistributedOptimizer(decayed(model), model.named_parameters(), groups=groups)
        tensors = rb.default_engine().counters.tensors
        for step in range(3):
            optimizer.zero_grad()
            squares(model, step, rb.rank()).backward()
            assert optimizer._reducer.pending, "submitted by hooks, while backward ran"
            optimizer.step()
        assert rb.default_engine().counters.tensors - tensors == 3 * 4
        assert model.first.weight.grad is None
        equal(model.parameters(), alone(freeze(Net()), decayed, range(rb.size())).parameters())


def scheduled() -> None:
    """A scheduler may be made before or after; its steps count, nobody is warned, and gradients are reduced."""
    by_order = []
    for before in (True, False):
        model = Net()
        optimizer = decayed(model)
        make = torch.optim.lr_scheduler.StepLR
        scheduler = make(optimizer, 1, 0.5) if before else None
        optimizer = rb.DistributedOptimizer(optimizer, model.named_parameters())
        scheduler = scheduler or make(optimizer, 1, 0.5)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for step in range(3):
                optimizer.zero_grad()
                squares(model, step, rb.rank()).backward()
                optimizer.step()
                scheduler.step()
        assert scheduler.get_last_lr() == [0.1 / 8]
        by_order.append([parameter.detach() for parameter in model.parameters()])
    equal(*by_order, tolerance=0.0)
    for parameter in by_order[0]:
        rows = rb.allgather(parameter.flatten()[None], "same everywhere")
        assert (rows == rows[0]).all()


def closures() -> None:
    """The gradients and the loss of a closure are those of all ranks: L-BFGS takes the same steps everywhere."""

    def bfgs(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=5, line_search_fn="strong_wolfe")

    for make in (decayed, bfgs):
        mine, theirs = Net(), Net()
        optimizer, plain = rb.DistributedOptimizer(make(mine), mine.named_parameters()), make(theirs)

        def reduced(optimizer: Any = optimizer, mine: nn.Module = mine) -> torch.Tensor:
            optimizer.zero_grad()
            loss = squares(mine, 0, rb.rank())
            loss.backward()
            return loss

        def whole(plain: Any = plain, theirs: nn.Module = theirs) -> torch.Tensor:
            plain.zero_grad()
            loss = torch.stack([squares(theirs, 0, rank) for rank in range(rb.size())]).mean()
            loss.backward()
            return loss

        for _ in range(3):
            assert torch.allclose(optimizer.step(reduced), plain.step(whole), rtol=1e-3)
        equal(mine.parameters(), theirs.parameters(), tolerance=1e-3)


def refusals() -> None:
    """What would train on unreduced gradients, or reduce something twice."""
    model = Net()
    optimizer = rb.DistributedOptimizer(decayed(model), model.named_parameters())
    with pytest.raises(RuntimeError, match="add all parameter groups before"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    with pytest.raises(ValueError, match="distributed already"):
        rb.DistributedOptimizer(optimizer, model.named_parameters())
    replaced = decayed(model)
    replaced.step = lambda: None  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"optimizer\.step was replaced"):
        rb.DistributedOptimizer(replaced, model.named_parameters())
    squares(model, 0, rb.rank()).backward()
    model.left.weight.grad = None
    with pytest.raises(RuntimeError, match=r"gradient of 'left\.weight' was removed under way"):
        optimizer.step()


def other_shape() -> None:
    """One parameter differs by rank: its gradient fails everywhere, at every step; the others are reduced."""
    model = Net()
    model.right = nn.Linear(8, 3 + rb.rank())
    optimizer = rb.DistributedOptimizer(decayed(model), model.named_parameters())
    for step in range(3):
        optimizer.zero_grad()
        features = torch.relu(model.first(batch(step, rb.rank())))
        (model.left(features).pow(2).mean() + model.right(features).pow(2).mean()).backward()
        with pytest.raises(rb.CollectiveFailed, match=r"Mismatched tensor shapes for 'allreduce\.right\."):
            optimizer.synchronize()
        grad = model.left.weight.grad
        assert grad is not None
        rows = rb.allgather(grad.flatten()[None], "still reduced")
        assert (rows == rows[0]).all()


def strided() -> None:
    """Gradients of channels-last convolutions keep their strides; half-precision models travel in their own type."""

    def model_of(dtype: torch.dtype) -> nn.Module:
        torch.manual_seed(5)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)).to(dtype, memory_format=torch.channels_last)

    def loss(model: nn.Module, step: int, rank: int) -> torch.Tensor:
        dice = torch.Generator().manual_seed(10 * step + rank)
        images = torch.randn(2, 3, 6, 6, generator=dice).to(memory_format=torch.channels_last)
        found: torch.Tensor = model(images.to(model[0].weight.dtype)).float().pow(2).mean()  # type: ignore[index]
        return found

    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.05)):
        model = model_of(dtype)
        optimizer = rb.DistributedOptimizer(decayed(model), model.named_parameters(), groups=1)
        for step in range(3):
            optimizer.zero_grad(set_to_none=step == 1)
            loss(model, step, rb.rank()).backward()
            optimizer.step()
        equal(model.parameters(), alone(model_of(dtype), decayed, range(rb.size()), loss=loss).parameters(), tolerance)


def nameless() -> None:
    model = Net()
    optimizer = rb.DistributedOptimizer(decayed(model))
    for step in range(3):
        optimizer.zero_grad()
        squares(model, step, rb.rank()).backward()
        optimizer.step()
    equal(model.parameters(), alone(Net(), decayed, range(rb.size())).parameters())


PARTS = (frozen, scheduled, closures, refusals, other_shape, strided, nameless)


def everything() -> list[str]:
    done = []
    rb.init()
    for part in PARTS:
        part()
        rb.shutdown()
        rb.init()
        done.append(part.__name__)
    rb.shutdown()
    return done


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_optimizers(ranks: int, part: Callable[[], None]) -> None:
    """Each part asserts what its docstring says, on every rank."""
    assert all(part.__name__ in done for done in once(ranks, everything))


# A parameter that one rank does not use.


def unused(groups: Any) -> None:
    """Rank r uses the branch of its parity; twice nobody uses the right one."""

    def branch(step: int, rank: int) -> str:
        return "left" if step == 1 or rank % 2 == 0 else "right"

    def loss(model: nn.Module, step: int, rank: int) -> torch.Tensor:
        found: torch.Tensor = model(batch(step, rank), branch(step, rank)).pow(2).mean()
        return found

    def plain(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.1)

    rb.init()
    model = Net()
    optimizer = rb.DistributedOptimizer(plain(model), model.named_parameters(), groups=groups)
    for step in range(4):
        optimizer.zero_grad()
        loss(model, step, rb.rank()).backward()
        optimizer.step()
    equal(model.parameters(), alone(Net(), plain, range(rb.size()), 4, loss).parameters())
    rb.shutdown()


@pytest.mark.parametrize("strict", ["off", "on"])
@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("groups", [None, 1, 2, "layer", [["left.weight", "first.bias"], ["right.bias", "left.bias"]]],
                         ids=str)  # fmt: skip
def test_b35_a_parameter_unused_on_one_rank_keeps_nobody_waiting(ranks: int, groups: Any, strict: str) -> None:
    run(ranks, unused, groups, env={"COORDSIM_STRICT_GROUPS": strict}, timeout_s=20)


class Words(nn.Module):
    """An embedding that a rank may not use."""

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.embedding = nn.Embedding(7, 3, sparse=sparse)
        self.last = nn.Linear(3, 2)

    def forward(self, words: list[int]) -> torch.Tensor:
        features = self.embedding(torch.tensor(words)) if words else torch.ones(2, 3)
        found: torch.Tensor = self.last(features).pow(2).sum(1).mean()
        return found


def words_of(step: int, rank: int) -> list[int]:
    """The last rank has none in the first step, rank 0 in the second; how many there are differs."""
    if (step, rank) in ((0, int(os.environ["WORLD_SIZE"]) - 1), (1, 0)):
        return []
    return [(rank + each * each) % 7 for each in range(1 + (rank + step) % 3)]


def sparse(as_dense: bool, groups: Any, compression: str | None) -> None:
    rb.init()
    model, reference = Words(True), Words(False)
    optimizer = rb.DistributedOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.2), model.named_parameters(), groups=groups, compression=compression,
        sparse_as_dense=as_dense,
    )  # fmt: skip
    plain = torch.optim.SGD(reference.parameters(), lr=0.2)
    for step in range(5):
        optimizer.zero_grad()
        model(words_of(step, rb.rank())).backward()
        optimizer.step()
        if step > 0:
            assert model.embedding.weight.grad is not None
            assert model.embedding.weight.grad.is_sparse
        plain.zero_grad()
        torch.stack([reference(words_of(step, rank)) for rank in range(rb.size())]).mean().backward()
        plain.step()
    equal(model.parameters(), reference.parameters(), 0.02 if compression else 1e-5)
    rb.shutdown()


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize(
    ("as_dense", "groups", "compression"),
    [(False, None, None), (True, None, None), (False, 1, None), (False, "layer", "fp16"), (True, 1, "bf16")],
)
def test_b35_an_embedding_unused_on_one_rank(ranks: int, as_dense: bool, groups: Any, compression: str | None) -> None:
    """It brings zeros before it knows that the gradient is sparse; all ranks are told so and turn to rows."""
    run(ranks, sparse, as_dense, groups, compression, timeout_s=20)


def sparse_adam() -> None:
    rb.init()
    for as_dense in (False, True):
        model, reference = Words(True).embedding, Words(True).embedding
        optimizer = rb.DistributedOptimizer(
            torch.optim.SparseAdam(list(model.parameters())), model.named_parameters(), sparse_as_dense=as_dense
        )
        plain = torch.optim.SparseAdam(list(reference.parameters()))
        for step in range(3):
            words = [torch.tensor([rank, 1 + step, 6 - rank]) for rank in range(rb.size())]
            optimizer.zero_grad()
            model(words[rb.rank()]).pow(2).sum().backward()
            optimizer.step()
            plain.zero_grad()
            torch.stack([reference(each).pow(2).sum() for each in words]).mean().backward()
            plain.step()
        equal(model.parameters(), reference.parameters(), 1e-5)
    smallest = rb.DistributedOptimizer(torch.optim.SGD(model.parameters(), 0.1), model.named_parameters(), op=rb.Min)
    smallest.zero_grad()
    with pytest.raises(ValueError, match="has a sparse gradient, which has no MIN: set sparse_as_dense=True"):
        model(torch.tensor([1])).sum().backward()
    rb.barrier()  # or a faster rank's shutdown would be what this one is told of
    rb.shutdown()


def test_gradients_that_were_sparse_stay_sparse() -> None:
    run(2, sparse_adam)


def in_sets() -> None:
    """Each half of the ranks trains a model of its own, under the same names."""
    rb.init()
    rank = rb.rank()
    members = [each for each in range(rb.size()) if each % 2 == rank % 2]
    store = environment_store(rank, rb.size())
    engine = assemble(settings_from(), store, members.index(rank), len(members), job=f"half {rank % 2}")
    engine.start()
    model = Net()
    rb.broadcast_parameters(model.state_dict(), engine=engine)
    optimizer = rb.DistributedOptimizer(decayed(model), model.named_parameters(), engine=engine)
    for step in range(3):
        optimizer.zero_grad()
        squares(model, step, rank).backward()
        optimizer.step()
    equal(model.parameters(), alone(Net(), decayed, members).parameters())
    bias = model.left.bias.detach().clone()
    rows = rb.allgather(bias[None], "all")
    assert (rows[rank] == rows[(rank + 2) % 4]).all()
    assert (rows[rank] != rows[(rank + 1) % 4]).any()
    engine.shut_down()
    rb.shutdown()


def test_an_optimizer_over_a_process_set() -> None:
    run(4, in_sets)


# Bits.


def bits_of_gloo(groups: Any) -> int:
    """Gradients of a model with a large layer, by us and by gloo one by one; parameters that were compared."""
    rb.init()
    dist.init_process_group("gloo")

    def grown() -> nn.Module:
        torch.manual_seed(2)
        return nn.Sequential(nn.Linear(5, 1200), nn.ReLU(), nn.Linear(1200, 400), nn.ReLU(), nn.Linear(400, 3))

    model, plain = grown(), grown()
    optimizer = rb.DistributedOptimizer(decayed(model), model.named_parameters(), groups=groups)
    for step in range(3):
        optimizer.zero_grad()
        plain.zero_grad()
        (1000 * squares(model, step, rb.rank())).backward()
        (1000 * squares(plain, step, rb.rank())).backward()
        optimizer.synchronize()
        for mine, other in zip(model.parameters(), plain.parameters(), strict=True):
            assert mine.grad is not None
            assert other.grad is not None
            dist.all_reduce(other.grad)
            assert torch.equal(mine.grad, other.grad.mul_(1 / rb.size()))
    dist.destroy_process_group()
    rb.shutdown()
    return len(list(plain.parameters()))


@pytest.mark.parametrize(
    ("ranks", "env"),
    [(2, {}), (2, {"COORDSIM_SMALL": "0"}), (2, {"COORDSIM_FUSION_THRESHOLD": "1MiB", "COORDSIM_SMALL": "10kB"}),
     (3, {"COORDSIM_FUSION_THRESHOLD": "0"}), (4, {"COORDSIM_FUSION_THRESHOLD": "0"}),
     (4, {"COORDSIM_FUSION_THRESHOLD": "0", "COORDSIM_RADIX": "2", "COORDSIM_CYCLE_TIME": "1ms"})],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("groups", [None, "layer"], ids=str)
def test_averages_have_the_bits_of_gloos_sum(ranks: int, env: dict[str, str], groups: Any) -> None:
    """Of two ranks however they are fused, of more unfused: 1 / N of gloo's sum, in every step."""
    assert run(ranks, bits_of_gloo, groups, env=env) == [6] * ranks
