"""Mistakes that show only between values: groups and tensors, ranks and nodes, a run's length and int64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from coordsim.errors import Problem, nearest
from coordsim.scenario.declared import key_names, number_keys
from coordsim.scenario.layers import Overlay
from coordsim.scenario.model import Cluster, ControlPlane, Noise, Scenario, Workload
from coordsim.scenario.recipes import ClusterEntry
from coordsim.scenario.tables import read_keys

_GROUPS = ("control_plane", "groups")
_FEW_NAMES = 20
LONGEST_RUN_NS = 2**62
NOISE_HEADROOM = 64
"""How much longer than its median a step may be drawn, for the bound on a run's length."""


def check_control_plane(plane: ControlPlane, overlay: Overlay) -> Iterator[Problem]:
    """What one control plane asks of its own settings."""
    if plane.kind.cache and plane.cache_capacity == 0:
        message = f"must be at least 1 for {plane.name}; Horovod with capacity 0 is the control plane coordinator"
        yield overlay.problem(("control_plane", "cache_capacity"), message)


def clashes(plane: ControlPlane, workload: Workload) -> Iterator[tuple[tuple[str, str], str, tuple[str, ...]]]:
    """(key, message, allowed) of what no engine can do; also asked of scenarios that are made in code."""
    key = ("control_plane", "wait_for_data")
    early = next((tensor for tensor in workload.tensors if tensor.submit_ns != tensor.ready_ns), None)
    if plane.wait_for_data == "none" and early is not None:
        message = (
            f"none, but {early.name} is submitted {early.ready_ns - early.submit_ns} ns before it exists: either the"
            " host waits for it (Horovod up to 0.22) or the stream does (0.23 and later)"
        )
        yield key, message, ("host", "stream")
    if plane.wait_for_data == "stream" and plane.data_plane == "blocking" and plane.kind.negotiates:
        message = "stream, but a blocking data plane (MPI, gloo) has no stream that could wait"
        yield key, message, ("none", "host")


def check_clashes(plane: ControlPlane, workload: Workload, overlay: Overlay) -> Iterator[Problem]:
    """What no engine can do, placed where it was written, or in the user's file when a default stands against it."""
    for key, message, allowed in clashes(plane, workload):
        found = overlay.problem(key, message, allowed)
        yield replace(found, where=overlay.origin(()).label) if overlay.origin(key).ours else found


def check_control_network(cluster: Cluster, overlay: Overlay) -> Iterator[Problem]:
    """An AND in the network needs its time: no default would be right for another network."""
    if cluster.control.and_reduce == "in-network" and not cluster.control.in_network_ns:
        message = (
            "is needed, and at least 1ns, for and_reduce = in-network: an AND's time after the last rank"
            " (SHARP: 2.83 us for 8 bytes on 128 hosts)"
        )
        yield overlay.problem(("cluster", "control", "in_network"), message)


def check_data_network(cluster: Cluster, overlay: Overlay) -> Iterator[Problem]:
    """NCCL had no tree before 2.4."""
    if cluster.data.nccl == "2.2.12" and cluster.data.allreduce == "nccl-tree":
        message = "nccl-tree, but NCCL 2.2.12 (cluster.data.nccl) has rings alone"
        yield overlay.problem(("cluster", "data", "allreduce"), message, ("ring", "nccl", "hierarchical"))


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


def check_ranges(entry: ClusterEntry, overlay: Overlay) -> Iterator[Problem]:
    """A range is that of a number of this cluster, under a name of its own, and both ends can be that number."""
    names: dict[str, str] = {}
    parts = {part: type(getattr(entry, part)) for part in ("machine", "control", "host", "data")}
    for one in entry.ranges:
        key, at = one.key, ("cluster", "ranges", one.key)
        section, _, name = key.partition(".")
        if section == "noise":
            numbers = number_keys(Noise, "noise.")
            if key not in numbers:
                yield overlay.problem(at, f"{key!r} is no number of noise", numbers, value=key)
        elif section not in parts or name not in key_names(parts[section]):
            allowed = tuple(f"{part}.{own}" for part, table in parts.items() for own in key_names(table))
            yield overlay.problem(at, f"{key!r} is no number of a cluster", allowed, value=key)
        else:
            for end in (one.low, one.high):
                yield from _wrong_end(parts[section], section, name, end, overlay, at)
        if one.name in names:
            yield overlay.problem(at, f"name {one.name!r} is that of {names[one.name]}, too", value=one.name)
        names.setdefault(one.name, key)


def _wrong_end(
    table: type[object], section: str, name: str, end: str, overlay: Overlay, at: tuple[str, str, str]
) -> Iterator[Problem]:
    """An end of a range that the number itself could not be."""
    values = {**overlay.get("cluster", section), name: end}
    _, problems = read_keys(table, values, overlay, ("cluster", section))
    for problem in problems:
        yield overlay.problem(at, f"{end!r} cannot be {section}.{name}: {problem.message}", problem.allowed, value=end)


def check_noise(noise: Noise, overlay: Overlay) -> Iterator[Problem]:
    """Rare events need a probability and a length; one without the other would silently be none."""
    pairs = (
        ("stall_probability", noise.stall_ppm, "stall_length", noise.stall_ns),
        ("detour_probability", noise.detour_ppm, "detour_length", noise.detour_ns),
    )
    for probability, share_ppm, length, mean_ns in pairs:
        given, missing = (probability, length) if share_ppm else (length, probability)
        if bool(share_ppm) != bool(mean_ns):
            yield overlay.problem(("noise", given), f"has no effect without noise.{missing}, which is 0")


def check_power(cluster: Cluster, overlay: Overlay) -> Iterator[Problem]:
    """A GPU draws no more when it does less."""
    machine = cluster.machine
    known: tuple[str, int] | None = None
    for key in ("gpu_power", "gpu_wait_power", "gpu_idle_power"):
        power_mw = getattr(machine, f"{key}_mW")
        if power_mw is None:
            continue
        if known is not None and power_mw > known[1]:
            more = f"{power_mw / 1000:g} W is more than {known[0]}, {known[1] / 1000:g} W"
            message = f"{more}; a GPU computes, waits or idles at ever less power"
            yield overlay.problem(("cluster", "machine", key), message)
        known = (key, power_mw)


def check_length(scenario: Scenario, overlay: Overlay) -> Iterator[Problem]:
    """The clock of the whole run, generously estimated, fits int64 nanoseconds."""
    workload, ranks, steps = scenario.workload, scenario.ranks, scenario.steps
    host, tensors = scenario.cluster.host, len(workload.tensors)
    compute_ns = workload.forward_ns + workload.backward_ns + workload.optimizer_ns
    work_ns = (
        ranks * (host.per_message_ns + tensors * host.per_request_ns)
        + tensors * (host.per_response_ns + host.local_response_ns + host.launch_ns)
        + tensors * ranks * host.device_entry_ps // 1000
    )
    input_ns = _slowest_input_ns(ranks, workload, scenario.cluster)
    loop_ns = scenario.control_plane.cycle_time_ns + scenario.noise.stall_ns
    step_ns = NOISE_HEADROOM * (compute_ns + loop_ns) + work_ns + input_ns
    if step_ns * (steps + 1) >= LONGEST_RUN_NS:
        message = f"{steps} steps of up to {step_ns / 1e9:.3g} s do not fit a clock of 64-bit nanoseconds"
        yield overlay.problem(("steps",), message)


def _slowest_input_ns(ranks: int, workload: Workload, cluster: Cluster) -> int:
    """At least the time in which one step's samples are read."""
    machine = cluster.machine
    local = min(ranks, machine.ranks_per_node)
    readers = [(local, machine.node_read_Bps)]
    if machine.storage == "parallel":
        readers = [(ranks, machine.parallel_read_Bps), (local, machine.node_injection_Bps)]
    sample_ns = workload.sample_bytes * workload.batch * 10**9
    return max((sample_ns * each // rate + each * workload.batch for each, rate in readers if rate), default=0)
