"""Defaults where a scenario says nothing, each from the version that a control plane stands for."""

from __future__ import annotations

from coordsim.protocol.planes import CACHED, PLANES
from coordsim.scenario.layers import Tree

STEPS = 20
SEED = 0
CONTROL_PLANE = CACHED.name

_COMMON: Tree = {
    "cache_capacity": 0,  # no cache
    "radix": 4,  # used by hierarchical only
    "wire": "horovod",
    "data_plane": "async",  # NCCL
    "wait_for_data": "none",  # gradients are submitted when they exist
    "bucket": "25MiB",  # PyTorch DDP: bucket_cap_mb = 25, times 1024 * 1024
    "first_bucket": "1MiB",  # PyTorch DDP: dist._DEFAULT_FIRST_BUCKET_BYTES
    "groups": "none",
    "strict_groups": False,  # Horovod: groups are submitted together, not fused together
    "merge": True,  # used by hierarchical only
}


def control_plane(name: str) -> Tree:
    """Default settings of the control plane ``name`` (of ``cached`` where the name is unknown)."""
    known = name if name in PLANES else CONTROL_PLANE
    return _COMMON | PLANES[known].defaults | {"name": known}


def noise() -> Tree:
    """No noise: every spread normal with sigma 0 and anew in each step, no stalls, no screening, no detours."""
    spreads: Tree = {axis: {"distribution": "normal", "sigma": 0} for axis in ("rank", "node", "tensor")}
    spreads |= {axis: {"distribution": "normal", "sigma": 0, "correlation": 0} for axis in ("step", "common")}
    stalls = {"stall_probability": 0, "stall_length": 0, "screen": 0}
    return spreads | stalls | {"detour_probability": 0, "detour_length": 0}
