"""The inner groups for what the engine does not do: gloo for tensors on the CPU, NCCL on a GPU."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist


def register(
    group: dist.ProcessGroup, store: dist.Store, rank: int, ranks: int, name: str, timeout: timedelta
) -> dict[str, Any]:
    """Register the inner groups with ``group``, and return them by type of device. They connect when first used."""
    kinds = dist.ProcessGroup.BackendType
    groups: dict[str, Any] = {"cpu": _gloo(dist.PrefixStore(f"{name}/gloo", store), rank, ranks, timeout)}
    group._register_backend(torch.device("cpu"), kinds.GLOO, groups["cpu"])
    if torch.cuda.is_available() and dist.is_nccl_available():
        groups["cuda"] = _nccl(dist.PrefixStore(f"{name}/nccl", store), rank, ranks, timeout)
        group._register_backend(torch.device("cuda"), kinds.NCCL, groups["cuda"])
    group._set_default_backend(kinds.NCCL if "cuda" in groups else kinds.GLOO)
    return groups


def _gloo(store: dist.Store, rank: int, ranks: int, timeout: timedelta) -> Any:
    kind: Any = dist.ProcessGroupGloo
    options = kind._Options()
    options._timeout = timeout
    options._devices = [kind.create_default_device(lazy_init=True)]
    gloo = kind(store, rank, ranks, options)
    gloo._set_sequence_number_for_group()
    return gloo


def _nccl(store: dist.Store, rank: int, ranks: int, timeout: timedelta) -> Any:
    kind: Any = dist.ProcessGroupNCCL
    options = kind.Options()
    options._timeout = timeout
    return kind(store, rank, ranks, options)
