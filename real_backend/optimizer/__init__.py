"""An optimizer whose gradients are averaged over all ranks, tensor by tensor, while backward still runs."""

from __future__ import annotations

from real_backend.optimizer.compression import Compression
from real_backend.optimizer.distributed import DistributedOptimizer

__all__ = ["Compression", "DistributedOptimizer"]
