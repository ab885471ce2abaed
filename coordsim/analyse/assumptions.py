"""What is simplified, unvalidated or most uncertain in one simulation; printed with every result."""

from __future__ import annotations

from coordsim.scenario.model import Scenario

LARGEST_RUN_SEEN = 4
"""Ranks of the largest recorded run of real Horovod that anything here was compared with."""


def assumptions(scenario: Scenario) -> list[str]:
    """One sentence each, the weightiest first."""
    plane, noise = scenario.control_plane, scenario.noise
    found = []
    machine, cluster = scenario.cluster.machine, scenario.cluster.name
    nodes = -(-scenario.ranks // machine.ranks_per_node)
    if nodes > machine.max_nodes:
        found.append(f"{cluster} has {machine.max_nodes:,} nodes; this job would need {nodes:,}: a what-if")
    if scenario.ranks > LARGEST_RUN_SEEN:
        found.append(
            f"nothing at {scenario.ranks:,} ranks was measured by this project; "
            "control costs at scale come from published figures and assumptions (coordsim catalog show)"
        )
    if plane.name in ("point-to-point", "coordinator", "hierarchical"):
        found.append(
            f"request cost {scenario.cluster.host.per_request_ns} ns is the most uncertain number here: "
            "0.3-3 us is plausible (cluster.host.per_request)"
        )
    if not scenario.workload.parameters:
        found.append(
            f"compute times of {scenario.workload.name} are those of its source, whatever GPUs {cluster} has"
        )
    if plane.wire == "horovod" and plane.name in ("coordinator", "hierarchical", "cached", "point-to-point"):
        found.append("every response carries one int32 a rank, as Horovod's do (control_plane.wire)")
    if noise.silent:
        found.append("no noise: every GPU takes exactly the median time")
    if plane.name == "ddp" and plane.groups.mode != "none":
        found.append("groups are ignored: DDP has buckets of its own")
    if plane.name == "ddp":
        found.append("buckets follow ready order, as after DDP's first iteration; the cold step has them too")
    found += [
        "a gradient is submitted when it exists (one clock), in the same order on every rank",
        "no noise on control messages and collectives; backward is not slowed by a running collective",
        "control and data traffic do not share links",
    ]
    if scenario.workload.sample_bytes == 0:
        found.append("input is never late (sample_bytes = 0)")
    elif scenario.cluster.machine.node_read_Bps == 0:
        found.append("input is never late (the machine has no node-local read rate)")
    else:
        found.append("input is read from node-local storage one batch ahead; staging is not part of a step")
    return found
