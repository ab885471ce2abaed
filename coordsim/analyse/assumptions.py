"""What is simplified, unvalidated or most uncertain in one simulation; printed with every result."""

from __future__ import annotations

from coordsim.cost.storage import staging, step_input_ns
from coordsim.protocol.planes import PLANES
from coordsim.scenario.model import Machine, Scenario, Workload
from coordsim.simulate.vector.refusals import vector_refusals

LARGEST_RUN_SEEN = 4
"""Ranks of the largest recorded run of real Horovod that anything here was compared with."""


def assumptions(scenario: Scenario) -> list[str]:
    """Return one sentence for each simplification and uncertainty of a simulation, the most important first."""
    plane, noise = scenario.control_plane, scenario.noise
    sentences = _missing_compute_times(scenario)
    machine, cluster = scenario.cluster.machine, scenario.cluster.name
    nodes = -(-scenario.ranks // machine.ranks_per_node)
    if nodes > machine.max_nodes:
        sentences.append(f"{cluster} has {machine.max_nodes:,} nodes; this job would need {nodes:,}: a what-if")
    if scenario.ranks > LARGEST_RUN_SEEN:
        sentences.append(
            f"nothing at {scenario.ranks:,} ranks was measured by this project; "
            "control costs at scale come from published figures and assumptions (coordsim catalog show)"
        )
    if plane.kind.asks_every_cycle:
        sentences.append(
            f"request cost {scenario.cluster.host.per_request_ns} ns is the most uncertain number here: "
            "0.3-3 us is plausible (cluster.host.per_request)"
        )
    sentences += _compute_times(scenario)
    if plane.wire == "horovod" and plane.kind.negotiates:
        sentences.append("every response carries one int32 a rank, as Horovod's do (control_plane.wire)")
    if noise.silent:
        sentences.append("no noise: every GPU takes exactly the median time")
    if plane.kind.buckets is not None and plane.groups.mode != "none":
        sentences.append(f"groups are ignored: {plane.kind.title} has buckets of its own")
    sentences += [
        *plane.kind.assumptions,
        *_gradients(scenario),
        *_exchanges(scenario),
        "no noise on collectives",
        "control and data traffic do not share links",
    ]
    sentences += [f"simulated event by event: {each.because} ({each.key})" for each in vector_refusals(scenario)]
    return sentences + _input(scenario) + _energy(machine)


def _compute_times(scenario: Scenario) -> list[str]:
    """State how compute times were adapted to the cluster's GPUs."""
    workload, machine, cluster = scenario.workload, scenario.cluster.machine, scenario.cluster.name
    times = f"compute times of {workload.name}"
    by_timing = {
        "stated": f"{times} are those of its source, whatever GPUs {cluster} has",
        "native": f"{times} are those of one {workload.gpu}, from its source",
        "rate": f"{times} are those of one {workload.gpu}, all scaled to a {machine.gpu} by their samples/s"
        " (workload.rates)",
        "flops": f"{times} are those of one {workload.gpu}, all scaled by FLOPs to the"
        f" {machine.device_flops / 1e12:.4g} TFLOP/s that {cluster} sustains on another workload: no samples/s of a"
        f" {machine.gpu} are known (workload.rates)",
        "batch": f"{times} are brought to batch {workload.batch}: {_scaling_applied(workload)} (workload.batch)",
    }
    if "(workload.rate)" in workload.sources.get("forward", ""):
        return [f"{times} keep their proportion and are {_scaling_applied(workload, 'SCALED')}"]
    return [by_timing[workload.timing]] if workload.timing in by_timing else []


def _scaling_applied(workload: Workload, sign: str = "from batch ") -> str:
    """Return how times were scaled: the words that the loader put before the first source that contains ``sign``."""
    scaled = (workload.sources.get(key, "") for key in ("forward", "tensors"))
    text = next((source for source in scaled if sign in source), "")
    return text.partition("): ")[0].removesuffix(")").replace("SCALED", "scaled") + ")"


def _missing_compute_times(scenario: Scenario) -> list[str]:
    """Name the compute times that a bare list of tensors does not state, and what is assumed for them."""
    workload = scenario.workload
    for key in ("backward", "forward"):
        kind, _, what = workload.sources.get(key, "").partition(": ")
        if kind == "ASSUMED" and workload.timing == "stated":
            return [f"{workload.name} says no {key} time; assumed: {what} (workload.{key})"]
    return []


def _gradients(scenario: Scenario) -> list[str]:
    """State when gradients are submitted and exist, in which order, and what disturbs them."""
    plane, workload = scenario.control_plane, scenario.workload
    early = any(tensor.submit_ns < tensor.ready_ns for tensor in workload.tensors)
    slower = scenario.cluster.data.backward_slowdown_ppm
    if plane.wait_for_data == "none":
        one_clock = "a gradient is submitted when it exists: one clock (workload.enqueue, control_plane.wait_for_data)"
        sentences = [one_clock]
    elif scenario.ranks == 1 or plane.kind.waiting_for(plane.wait_for_data) == "none":
        sentences = ["gradients go by when they exist, not by when they are submitted"]
    elif not early and not slower:
        sentences = ["hooks fire when gradients exist, so nobody waits for data (workload.enqueue)"]
    else:
        sentences = ["hooks and gradients have two clocks, which start with backward and have their noise in common"]
        if plane.kind.waiting_for(plane.wait_for_data) == "stream":
            sentences.append("launches do not wait for data; copies and collective begin when it exists on all ranks")
        else:
            sentences.append("the background thread sees at once that its data exists: polling has no interval")
    if workload.order == "same":
        sentences.append("all ranks have the same ready order (workload.order)")
    else:
        sentences.append(
            "every rank's ready order is random, as if no gradient depended on another; times stay where they are"
            " and names move (workload.order)"
        )
    if not slower:
        return [*sentences, "backward is not slowed by a running collective (cluster.data.backward_slowdown)"]
    pace = "" if plane.wait_for_data == "none" else "; hooks keep their pace"
    when = "while a collective or its copies run, on every rank alike"
    return [*sentences, f"backward takes {slower / 10_000:g} % longer {when}{pace}"]


def _exchanges(scenario: Scenario) -> list[str]:
    """State how control messages travel, and what disturbs them."""
    plane, control, noise = scenario.control_plane, scenario.cluster.control, scenario.noise
    if not plane.kind.negotiates or scenario.ranks == 1:
        return []
    if noise.detours:
        sentences = ["the operating system takes a control CPU away at most once per rank and cycle, at its wake"]
    else:
        sentences = ["no operating-system noise on control exchanges (noise.detour_probability)"]
    if plane.kind.tree:
        passed = "only what their whole subtree asked for, once" if plane.merge else "every list as it came"
        sentences.append(f"inner nodes of the tree pass on {passed} (control_plane.merge)")
    elif not plane.merge:
        trees = " and ".join(kind.name for kind in PLANES.values() if kind.tree)
        sentences.append(f"control_plane.merge has no effect: only {trees} has a tree")
    if plane.kind.cache and control.and_reduce == "in-network":
        sentences.append(
            f"an AND in the network takes {control.in_network_ns / 1000:g} us after the last rank, however many there"
            " are (cluster.control.in_network)"
        )
    elif plane.kind.cache:
        how = "round a ring, as gloo's" if control.and_reduce == "ring" else "by recursive doubling"
        sentences.append(f"the AND runs in software, {how}; in the network it would be cluster.control.and_reduce")
    return sentences


def _input(scenario: Scenario) -> list[str]:
    """State where samples come from, and what staging them takes."""
    workload, machine = scenario.workload, scenario.cluster.machine
    local = machine.storage == "node-local"
    if workload.sample_bytes == 0:
        sentences = ["input is never late (sample_bytes = 0)"]
    elif step_input_ns(scenario) == 0:
        which = "no node-local read rate" if local else "no read rate of a parallel file system"
        sentences = [f"input is never late (the machine has {which})"]
    elif local:
        sentences = ["input is read from node-local storage one batch ahead; staging is not part of a step"]
    else:
        sentences = ["input is read one batch ahead from a parallel file system that this job has to itself"]
    if not local:
        return sentences
    staged = staging(scenario)
    if staged is None:
        return [*sentences, "staging is not counted: the data set's size is not given (workload.dataset_bytes)"]
    if staged.fits is False:
        does_not = "a node's share of the data set does not fit its storage"
        return [*sentences, f"{does_not}: staging is not counted, and input is timed as if it did"]
    if staged.time_ns is None:
        return [*sentences, "staging is not counted: a rate is not given (cluster.machine.parallel_read, node_write)"]
    return [*sentences, "staging has the parallel file system to itself, and every copy is read from there"]


def _energy(machine: Machine) -> list[str]:
    """State whose power is known."""
    if machine.gpu_power_mW is None or machine.host_power_mW is None:
        return ["energy is not counted: power is not given (cluster.machine.gpu_power, host_power)"]
    if machine.gpu_power_mW and (machine.gpu_wait_power_mW is None or machine.gpu_idle_power_mW is None):
        keys = "cluster.machine.gpu_wait_power, gpu_idle_power"
        return [f"energy is an upper bound: GPUs that wait or idle are charged like computing ones ({keys})"]
    return ["energy: every GPU is charged like the median one; CPUs and adapters draw the same in all phases"]
