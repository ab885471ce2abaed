"""Mistakes that show only between values: groups and tensors, ranks and nodes, a run's length and int64."""

from __future__ import annotations

from collections.abc import Iterator

from coordsim.errors import Problem, nearest
from coordsim.scenario.layers import Overlay
from coordsim.scenario.model import Cluster, ControlPlane, Noise, Workload

_GROUPS = ("control_plane", "groups")
_FEW_NAMES = 20
LONGEST_RUN_NS = 2**62
NOISE_HEADROOM = 64
"""How much longer than its median a step may be drawn, for the bound on a run's length."""


def check_control_plane(plane: ControlPlane, overlay: Overlay) -> Iterator[Problem]:
    """What one control plane asks of its own settings."""
    if plane.name == "cached" and plane.cache_capacity == 0:
        message = "must be at least 1 for cached; Horovod with capacity 0 is the control plane coordinator"
        yield overlay.problem(("control_plane", "cache_capacity"), message)


def check_groups(plane: ControlPlane, workload: Workload, overlay: Overlay) -> Iterator[Problem]:
    """Groups name existing tensors, each once, and are not more than the tensors."""
    groups, names = plane.groups, tuple(tensor.name for tensor in workload.tensors)
    if groups.mode == "count" and groups.count > len(names):
        yield overlay.problem(
            _GROUPS, f"{groups.count} groups are more than the workload's {len(names)} tensors"
        )
    seen: dict[str, int] = {}
    for number, members in enumerate(groups.members, start=1):
        for name in members:
            if name in seen:
                message = f"group {number} names tensor {name!r}, which is already in group {seen[name]}"
                yield overlay.problem(_GROUPS, message, value=name)
            seen.setdefault(name, number)
            if name in names:
                continue
            message = f"group {number} names {name!r}, which is not a tensor of {workload.name}"
            if len(names) <= _FEW_NAMES:
                yield overlay.problem(_GROUPS, message, names, value=name)
            else:
                guess = nearest(name, names)
                hint = f" (did you mean {guess!r}?)" if guess else ""
                yield overlay.problem(_GROUPS, message + hint, value=name)


def check_ranks(ranks: int, cluster: Cluster, overlay: Overlay) -> Iterator[Problem]:
    """A hierarchical allreduce needs full nodes; more nodes than the machine has are an allowed what-if."""
    per_node = cluster.machine.ranks_per_node
    if cluster.data.allreduce == "hierarchical" and ranks > per_node and ranks % per_node:
        below = ranks - ranks % per_node
        message = (
            f"{ranks} is not a multiple of {per_node} ranks a node, which a hierarchical allreduce needs"
            f" (nearest: {below} and {below + per_node})"
        )
        yield overlay.problem(("ranks",), message)


def check_length(
    steps: int,
    ranks: int,
    workload: Workload,
    cluster: Cluster,
    plane: ControlPlane,
    noise: Noise,
    overlay: Overlay,
) -> Iterator[Problem]:
    """The clock of the whole run, generously estimated, fits int64 nanoseconds."""
    host, tensors = cluster.host, len(workload.tensors)
    compute_ns = workload.forward_ns + workload.backward_ns + workload.optimizer_ns
    work_ns = (
        ranks * (host.per_message_ns + tensors * host.per_request_ns)
        + tensors * (host.per_response_ns + host.local_response_ns + host.launch_ns)
        + tensors * ranks * host.device_entry_ps // 1000
    )
    step_ns = NOISE_HEADROOM * (compute_ns + plane.cycle_time_ns + noise.stall_ns) + work_ns
    if step_ns * (steps + 1) >= LONGEST_RUN_NS:
        message = f"{steps} steps of up to {step_ns / 1e9:.3g} s do not fit a clock of 64-bit nanoseconds"
        yield overlay.problem(("steps",), message)
