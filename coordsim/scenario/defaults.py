"""Defaults where a scenario says nothing, each from the version that a control plane stands for."""

from __future__ import annotations

from coordsim.scenario.layers import Tree

STEPS = 20
SEED = 0
CONTROL_PLANE = "cached"

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
_HOROVOD_0_13: Tree = {"cycle_time": "5ms", "fusion_threshold": "64MiB"}  # Horovod up to 0.20
_HOROVOD_0_21: Tree = {"cycle_time": "1ms", "fusion_threshold": "128MiB"}  # Horovod 0.21 and later

_BY_NAME: dict[str, Tree] = {
    "ideal": _HOROVOD_0_21,  # the cycle time is irrelevant: everybody knows at once
    "ddp": _HOROVOD_0_21,  # both irrelevant: buckets decide
    "point-to-point": _HOROVOD_0_13,  # Horovod 0.13.2 and earlier
    "coordinator": _HOROVOD_0_13,  # Horovod 0.13.3 to 0.16.1
    "hierarchical": _HOROVOD_0_13,  # Kurth et al., SC'18, on Horovod of that time; radix 4
    "cached": _HOROVOD_0_21 | {"cache_capacity": 1024},  # Horovod 0.21 and later
}


def control_plane(name: str) -> Tree:
    """Default settings of the control plane ``name`` (of ``cached`` where the name is unknown)."""
    known = name if name in _BY_NAME else CONTROL_PLANE
    return _COMMON | _BY_NAME[known] | {"name": known}


def noise() -> Tree:
    """No noise: every spread normal with sigma 0 and anew in each step, no stalls, no screening, no detours."""
    spreads: Tree = {axis: {"distribution": "normal", "sigma": 0} for axis in ("rank", "node", "tensor")}
    spreads |= {axis: {"distribution": "normal", "sigma": 0, "correlation": 0} for axis in ("step", "common")}
    stalls = {"stall_probability": 0, "stall_length": 0, "screen": 0}
    return spreads | stalls | {"detour_probability": 0, "detour_length": 0}
