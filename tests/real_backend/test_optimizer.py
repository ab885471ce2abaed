"""The optimizer on real ranks: equal to training alone on all their data, whatever is grouped or compressed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

import real_backend as rb
from real_backend.optimizer.naming import named
from tests.real_backend.processes import run

STEPS, BATCH = 4, 6


class Net(nn.Module):
    """Two branches behind a common layer, so that a rank may use one only."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.first = nn.Linear(5, 8)
        self.left = nn.Linear(8, 3)
        self.right = nn.Linear(8, 3)

    def forward(self, inputs: torch.Tensor, branch: str = "both") -> torch.Tensor:
        features = torch.relu(self.first(inputs))
        total: torch.Tensor = torch.zeros(inputs.shape[0], 3)
        if branch in ("left", "both"):
            total = total + self.left(features)
        if branch in ("right", "both"):
            total = total + self.right(features)
        return total


def batch(step: int, rank: int) -> torch.Tensor:
    return torch.randn(BATCH, 5, generator=torch.Generator().manual_seed(100 * step + rank))


def alone(ranks: int, branch: Callable[[int], str] = lambda _: "both") -> list[torch.Tensor]:
    """Parameters after training on the mean of all ranks' losses, in one process."""
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(STEPS):
        optimizer.zero_grad()
        losses = [model(batch(step, rank), branch(rank)).pow(2).mean() for rank in range(ranks)]
        torch.stack(losses).mean().backward()
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


def branches(rank: int) -> str:
    return ("left", "right")[rank % 2]


def train(options: dict[str, Any], branched: bool = False) -> int:
    """Compare with :func:`alone`; returns slow cycles between the first step and the last."""
    rb.init()
    rank, ranks = rb.rank(), rb.size()
    model = Net()
    rb.broadcast_parameters(model.state_dict())
    tolerance = 0.02 if "compression" in options else 1e-5
    if options.get("groups") == "lists":
        options = {**options, "groups": [["first.weight", "left.bias"], [model.right.weight, model.left.weight]]}
    optimizer = rb.DistributedOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.1), model.named_parameters(), **options
    )
    slow = later = 0
    for step in range(STEPS):
        if step == STEPS - 1:  # afterwards a faster rank does something new
            later = rb.default_engine().counters.slow_cycles - slow
        optimizer.zero_grad()
        model(batch(step, rank), branches(rank) if branched else "both").pow(2).mean().backward()
        optimizer.step()
        if step == 0:
            rb.barrier()
            slow = rb.default_engine().counters.slow_cycles
    expected = alone(ranks, branches if branched else lambda _: "both")
    for mine, wanted in zip(model.parameters(), expected, strict=True):
        assert torch.allclose(mine, wanted, atol=tolerance, rtol=tolerance)
    assert isinstance(optimizer, torch.optim.SGD)
    rb.barrier()
    rb.shutdown()
    return later


@pytest.mark.parametrize(
    "options",
    [{}, {"groups": 1}, {"groups": 3}, {"groups": "layer"}, {"groups": "lists"}, {"compression": "fp16"},
     {"compression": "bf16"}, {"gradient_predivide_factor": 4.0}],
    ids=str,
)  # fmt: skip
def test_training_is_that_of_one_process_on_all_data(options: dict[str, Any]) -> None:
    assert run(3, train, options) == [0, 0, 0]


@pytest.mark.parametrize("strict", ["off", "on"])
@pytest.mark.parametrize("options", [{}, {"groups": 2}, {"groups": "layer"}], ids=str)
def test_b35_ranks_may_use_different_branches(options: dict[str, Any], strict: str) -> None:
    """Horovod's optimizer stalls with groups here (docs/horovod.md 13.35)."""
    assert run(2, train, options, True, env={"COORDSIM_STRICT_GROUPS": strict}) == [0, 0]


def gradients_beside_gloo() -> bool:
    """Bits of a step's gradients, by us and by gloo one by one."""
    rb.init()
    dist.init_process_group("gloo")
    model, plain = Net(), Net()
    optimizer = rb.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), model.named_parameters())
    inputs = batch(0, rb.rank())
    model(inputs).pow(2).mean().backward()
    plain(inputs).pow(2).mean().backward()
    optimizer.synchronize()
    same = True
    for mine, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert mine.grad is not None
        assert other.grad is not None
        dist.all_reduce(other.grad)
        same &= torch.equal(mine.grad, other.grad.div_(rb.size()))
    dist.destroy_process_group()
    rb.shutdown()
    return same


@pytest.mark.parametrize(
    ("ranks", "env"),
    [(2, {}), (2, {"COORDSIM_SMALL": "0"}), (2, {"COORDSIM_FUSION_THRESHOLD": "200B"}),
     (4, {"COORDSIM_FUSION_THRESHOLD": "0"})],
)  # fmt: skip
def test_gradients_have_gloos_bits(ranks: int, env: dict[str, str]) -> None:
    assert all(run(ranks, gradients_beside_gloo, env=env))


def several_passes() -> list[float]:
    rb.init()
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    optimizer = rb.DistributedOptimizer(
        torch.optim.SGD(model.parameters(), lr=1.0), model.named_parameters(), backward_passes_per_step=2, op=rb.Sum
    )
    for _ in range(2):
        model(torch.tensor([[1.0 + rb.rank()]])).sum().backward()
    optimizer.step()
    after_one = float(model.weight.detach())
    for _ in range(2):
        model(torch.ones(1, 1)).sum().backward()
    with pytest.raises(RuntimeError, match="backward_passes_per_step=2"):
        model(torch.ones(1, 1)).sum().backward()
    optimizer.synchronize()
    rb.shutdown()
    return [after_one]


def test_a_gradient_travels_after_its_last_pass() -> None:
    assert run(2, several_passes) == [[1.0 - 2 * (1 + 2)]] * 2


def clip_and_skip() -> bool:
    rb.init()
    model = Net()
    optimizer = rb.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), model.named_parameters())
    for step in range(3):
        optimizer.zero_grad()
        (100 * model(batch(step, rb.rank()))).pow(2).mean().backward()
        optimizer.synchronize()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        assert norm > 0.1
        with optimizer.skip_synchronize():
            optimizer.step()
    total = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    everybody = rb.allgather(total[None], "check")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model(batch(9, rb.rank())).sum().backward()
        optimizer.synchronize()
        optimizer.step()
    assert any("skip_synchronize" in str(each.message) for each in caught)
    rb.shutdown()
    return bool((everybody == everybody[0]).all())


def test_clipping_between_synchronize_and_step() -> None:
    assert all(run(2, clip_and_skip))


def freeze_and_thaw() -> bool:
    rb.init()
    model = Net()
    for parameter in model.left.parameters():
        parameter.requires_grad = False
    optimizer = rb.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), model.named_parameters())
    before = model.left.weight.detach().clone()
    for step in range(4):
        if step == 2:
            for parameter in model.left.parameters():
                parameter.requires_grad = True
        optimizer.zero_grad()
        model(batch(step, rb.rank())).pow(2).mean().backward()
        optimizer.step()
        if step == 1:
            assert torch.equal(before, model.left.weight)
    changed = not torch.equal(before, model.left.weight)
    rows = rb.allgather(model.left.weight.detach().flatten()[None], "check")
    rb.shutdown()
    return changed and bool((rows == rows[0]).all())


def test_parameters_may_be_frozen_and_thawed() -> None:
    assert all(run(2, freeze_and_thaw))


def sparse(as_dense: bool) -> bool:
    """An embedding whose ranks touch different rows, against the dense gradient alone."""
    rb.init()
    torch.manual_seed(3)
    model = nn.Embedding(10, 4, sparse=True)
    reference = nn.Embedding(10, 4)
    reference.load_state_dict(model.state_dict())
    optimizer = rb.DistributedOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.5), model.named_parameters(), sparse_as_dense=as_dense
    )
    plain = torch.optim.SGD(reference.parameters(), lr=0.5)
    for step in range(3):
        words = [torch.tensor([rank, rank + 1 + step, 9][: 2 + rank]) for rank in range(rb.size())]
        optimizer.zero_grad()
        model(words[rb.rank()]).sum().backward()
        optimizer.step()
        plain.zero_grad()
        torch.stack([reference(each).sum() for each in words]).mean().backward()
        plain.step()
    rb.shutdown()
    return torch.allclose(model.weight, reference.weight, atol=1e-6)


@pytest.mark.parametrize("as_dense", [False, True])
def test_sparse_embeddings(as_dense: bool) -> None:
    assert all(run(2, sparse, as_dense))


def two_models() -> bool:
    """Two optimizers over the parts of one model, as in model parallelism or a GAN."""
    rb.init()
    model = Net()
    parts = [
        rb.DistributedOptimizer(torch.optim.SGD(part.parameters(), lr=0.1), part.named_parameters(prefix=name))
        for name, part in (("first", model.first), ("left", model.left), ("right", model.right))
    ]
    for step in range(STEPS):
        for optimizer in parts:
            optimizer.zero_grad()
        model(batch(step, rb.rank())).pow(2).mean().backward()
        for optimizer in parts:
            optimizer.step()
    expected = alone(rb.size())
    rb.shutdown()
    return all(torch.allclose(mine, want, atol=1e-5) for mine, want in zip(model.parameters(), expected, strict=True))


def test_several_optimizers_in_one_job() -> None:
    assert all(run(2, two_models))


def in_the_way() -> None:
    rb.init()
    model = Net()
    optimizer = rb.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), model.named_parameters())
    model(batch(0, 0)).sum().backward()
    with pytest.raises(RuntimeError, match="while gradients are being reduced"):
        optimizer.zero_grad()
    optimizer.step()
    optimizer.zero_grad()
    rb.shutdown()


def test_zero_grad_in_the_middle_is_refused() -> None:
    run(2, in_the_way)


# Names, in this process.


def test_names_that_make_no_sense() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pairs = list(model.named_parameters())
    assert list(named(optimizer, iter(pairs))) == [name for name, _ in pairs]
    assert list(named(optimizer, None)) == [f"noname.0.{position}" for position in range(6)]
    with pytest.raises(ValueError, match=r"names must be unique.*first\.weight"):
        named(optimizer, [*pairs, pairs[0]])
    with pytest.raises(ValueError, match="2 of the optimizer's 6 parameters have no name"):
        named(optimizer, pairs[2:])
    with pytest.raises(ValueError, match=r"\(name, parameter\) pairs"):
        named(optimizer, model.parameters())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 0}, "groups=0: at least 1"),
        ({"groups": "layers"}, "groups='layers'"),
        ({"groups": [["nothing"]]}, "no parameters of this optimizer: nothing"),
        ({"groups": [["first.weight"], ["first.weight"]]}, "in two groups"),
        ({"compression": "fp8"}, "compression 'fp8'"),
        ({"backward_passes_per_step": 0}, "at least 1"),
        ({"gradient_predivide_factor": 2.0, "op": rb.Sum}, "needs op=Average"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    model = Net()
    rb.init()
    try:
        with pytest.raises(ValueError, match=message):
            rb.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), model.named_parameters(), **options)
    finally:
        rb.shutdown()


def test_before_init() -> None:
    model = Net()
    with pytest.raises(rb.NotRunning, match="initialize first"):
        rb.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), model.named_parameters())
