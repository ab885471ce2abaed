"""A DDP communication hook that gives each bucket a name of its own and reduces it by the engine.

It serves to compare buckets with the engine's tensor-by-tensor operation::

    dist.init_process_group("gloo")
    real_backend.init()
    model = DistributedDataParallel(model)
    model.register_comm_hook(None, coord_hook)
"""

# No annotations from __future__: DDP inspects the hook's annotations, which must be types.

from dataclasses import dataclass

import torch
import torch.distributed as dist

from real_backend import job, ops
from real_backend.c10d.futures import future_of
from real_backend.engine.engine import Engine
from real_backend.engine.handles import Handle


@dataclass(frozen=True)
class HookState:
    """State for several models in one job, or for another engine than the default one."""

    name: str = "ddp"
    """First part of the buckets' names; it must differ between models."""
    engine: Engine | None = None


def coord_hook(state: HookState | None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Average a bucket over the ranks of an engine; register with ``model.register_comm_hook(state, coord_hook)``.

    Raises NotRunning without :func:`real_backend.init`, and PeerLost after a loss.
    """
    state = state or HookState()
    engine = state.engine or job.default_engine()
    buffer = bucket.buffer()
    handle = ops.allreduce_async_(buffer, f"{state.name}.bucket.{bucket.index()}", ops.Average, engine=engine)
    engine.bell.hurry()  # DDP waits in C++, which Python does not see.
    devices = [buffer.device] if buffer.is_cuda else []
    future: torch.futures.Future[torch.Tensor] = future_of(handle, lambda: _reduced(handle), devices)
    return future


def _reduced(handle: Handle) -> torch.Tensor:
    tensor: torch.Tensor = handle.wait()
    return tensor


__all__ = ["HookState", "coord_hook"]
