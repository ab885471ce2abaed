"""What reduces the gradients of a training run: nothing, this project in either of its two forms, or gloo under DDP.

Under torchrun every rank enters; its place is in the environment (RANK, WORLD_SIZE, LOCAL_RANK).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module

import torch
from torch import nn

from real_backend.training.loop import Wrap, WrapModel, alone, as_is

BACKENDS = ("none", "coord", "optimizer", "ddp-gloo")
Groups = int | str | None
"""Number of equal parts of the tensors, ``layer`` for one group a layer, or None."""


@dataclass(frozen=True, slots=True)
class Place:
    """The place of this process among the ranks."""

    rank: int
    ranks: int
    local_rank: int

    @classmethod
    def from_environment(cls) -> Place | None:
        """Return the place that torchrun sets; None without torchrun."""
        if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
            return None
        rank = int(os.environ["RANK"])
        return cls(rank, int(os.environ["WORLD_SIZE"]), int(os.environ.get("LOCAL_RANK", rank)))


@contextmanager
def reducing(backend: str, groups: Groups, device: torch.device) -> Iterator[tuple[Wrap, WrapModel]]:
    """Yield the wrappers of optimizer and model; the ranks are connected inside the context, and part at the end.

    ``groups`` matters with the backend ``optimizer`` only. Raises ValueError for a backend that is not in BACKENDS.
    """
    if backend == "none":
        yield as_is, alone
    elif backend == "optimizer":
        with _optimizer(groups) as wrapped:
            yield wrapped
    elif backend in ("coord", "ddp-gloo"):
        with _ddp("coord" if backend == "coord" else "gloo", device) as wrapped:
            yield wrapped
    else:
        raise ValueError(f"unknown backend {backend!r}; allowed: {', '.join(BACKENDS)}")


@contextmanager
def _optimizer(groups: Groups) -> Iterator[tuple[Wrap, WrapModel]]:
    """Wrap the optimizer in this project's DistributedOptimizer."""
    import real_backend as rb  # Its names load the engine, which training on one rank does not need.

    rb.init()

    def wrap(
        optimizer: torch.optim.Optimizer, named: Iterable[tuple[str, nn.Parameter]]
    ) -> torch.optim.Optimizer:
        wrapped: torch.optim.Optimizer = rb.DistributedOptimizer(optimizer, named_parameters=named, groups=groups)
        return wrapped

    def same_start(model: nn.Module) -> nn.Module:
        rb.broadcast_parameters(model.state_dict(), root_rank=0)
        return model

    try:
        yield wrap, same_start
    finally:
        rb.shutdown()


@contextmanager
def _ddp(name: str, device: torch.device) -> Iterator[tuple[Wrap, WrapModel]]:
    """Wrap the model in DistributedDataParallel over the process group backend ``name``."""
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    if name == "coord":
        import_module("real_backend.c10d")  # Importing this makes the backend known to torch.
    distributed.init_process_group(name)

    def wrap_model(model: nn.Module) -> nn.Module:
        return DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)

    try:
        yield as_is, wrap_model
    finally:
        distributed.destroy_process_group()
