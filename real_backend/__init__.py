"""The protocol on real machines: response caching and grouping on today's PyTorch.

    torchrun --nproc-per-node 4 train.py

with, in ``train.py``::

    import real_backend as rb

    rb.init()
    rb.broadcast_parameters(model.state_dict())
    optimizer = rb.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())

Or, for scripts with DistributedDataParallel or FSDP: ``torch.distributed.init_process_group("coord")``. Names are
loaded when they are used, so that :mod:`real_backend.engine` works without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "real_backend.job": (
        "default_engine", "init", "is_initialized", "local_rank", "rank", "shutdown", "size",
        "start_timeline", "stop_timeline",
    ),
    "real_backend.ops": (
        "Average", "Max", "Min", "Product", "Sum", "allgather", "allgather_async", "allreduce", "allreduce_",
        "allreduce_async", "allreduce_async_", "barrier", "broadcast", "broadcast_", "broadcast_async",
        "broadcast_object", "broadcast_parameters", "grouped_allgather", "grouped_allreduce", "grouped_allreduce_",
        "grouped_allreduce_async", "grouped_allreduce_async_", "grouped_reducescatter", "join", "reducescatter",
        "reducescatter_async",
    ),
    "real_backend.optimizer": ("Compression", "DistributedOptimizer"),
    "real_backend.engine.settings": ("EngineSettings",),
    "real_backend.errors": (
        "CannotStart", "CollectiveFailed", "DuplicateName", "NotRunning", "PeerLost", "SettingsDiffer", "ShutDown",
    ),
}  # fmt: skip
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'real_backend' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value
