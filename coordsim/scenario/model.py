"""What is described: frozen dataclasses, everything already in integers (ns, bytes, bytes/s).

A :class:`Scenario` is workload + cluster + control plane + noise. Files, units and defaults are dealt
with at the boundary (:mod:`coordsim.scenario.loading`); here every field is a plain resolved value.
Array axes elsewhere in the package are ordered [step, rank, tensor].
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Literal

DTYPE_BYTES = {
    "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8,
    "uint8": 1, "int8": 1, "int16": 2, "int32": 4, "int64": 8, "bool": 1,
}  # fmt: skip

Timing = Literal["stated", "native", "rate", "flops", "generated", "batch"]
"""How a workload's compute times came to fit the cluster's GPU: taken as they are stated (somebody does not say
the GPU), stated for that very GPU, scaled by both GPUs' samples/s, scaled by FLOPs at the machine's
``device_flops``, computed from FLOPs by the workload's generator, or brought to another batch than the stated one
(:mod:`coordsim.scenario.batch`)."""

ControlPlaneName = Literal["ideal", "ddp", "point-to-point", "coordinator", "hierarchical", "cached"]
CONTROL_PLANES: tuple[ControlPlaneName, ...] = (
    "ideal", "ddp", "point-to-point", "coordinator", "hierarchical", "cached",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """One named gradient."""

    name: str
    """Unique in the model; ranks agree on it by name."""
    shape: tuple[int, ...]
    """Sizes of the gradient."""
    dtype: str
    """Data type in which it is reduced."""
    layer: str
    """Layer scope it belongs to; ``groups = "layer"`` makes one group of each."""
    registration: int
    """Position in the model's parameter list (0-based). Tensors of a workload are listed in *ready* order."""
    submit_ns: int
    """When its hook submits it, after the start of backward, on a noise-free median GPU; at most ``ready_ns``."""
    ready_ns: int
    """When the gradient exists, after the start of backward; later than ``submit_ns`` where hooks fire as kernels
    are enqueued (docs/semantics.md 2.3)."""

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Workload:
    """One training job's step as a single noise-free median GPU runs it."""

    name: str
    tensors: tuple[Tensor, ...]
    """In ready order."""
    forward_ns: int
    """Forward pass of one batch."""
    optimizer_ns: int
    """Update of the parameters, after the last gradient is reduced."""
    batch: int
    """Samples per rank and step."""
    flops_per_sample: int
    """Training FLOPs (forward and backward) of one sample, as the workload's source counts them."""
    sample_bytes: int
    """Bytes read from storage for one sample; 0 switches the input floor off."""
    parameters: dict[str, int | str] = field(default_factory=dict)
    """What the workload was generated from (growth, kernel, input...), for the record."""
    sources: dict[str, str] = field(default_factory=dict)
    """Where each number comes from, by key."""
    dataset_bytes: int = 0
    """The whole data set, staged before the first step where storage is node-local; 0: staging is not counted."""
    replicas: int = 1
    """Copies of the data set that the job's nodes hold together, at most one a node; 0: one on every node."""
    gpu: str = ""
    """Whose times the workload's source states, as ``Machine.gpu`` names it; empty: not said."""
    timing: Timing = "stated"
    """How the times here followed from those."""
    order: Literal["same", "shuffled"] = "same"
    """``shuffled``: in every step each rank has a random ready order of its own (docs/semantics.md 2.6)."""

    @property
    def backward_ns(self) -> int:
        return self.tensors[-1].ready_ns

    @property
    def gradient_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)


@dataclass(frozen=True, slots=True)
class ControlNetwork:
    """LogGP of one control message, and which algorithm each control exchange uses (docs/semantics.md 4)."""

    latency_ns: int
    """L: wire latency of a message between nodes; >= 1."""
    overhead_ns: int
    """o: CPU time to send or to receive one message; >= 0."""
    bandwidth_Bps: int
    """Of one message between nodes."""
    local_latency_ns: int
    """L between ranks of one node; >= 1."""
    local_bandwidth_Bps: int
    """Of one message inside a node."""
    root_nic_Bps: int
    """Rate at which rank 0 can take messages in; bounds a gather's total bytes."""
    eager_limit_bytes: int
    """Gather messages above it first ask the root (rendezvous); 0 or less: everything is eager."""
    gather: Literal["linear", "binomial", "node-leaders"]
    """How lists reach rank 0: each by itself, up a tree, or one message a node."""
    broadcast: Literal["binomial"]
    """How rank 0's answer reaches everybody: down a tree."""
    and_reduce: Literal["recursive-doubling", "ring", "in-network"]
    """The AND and the OR of ``cached``: by recursive doubling (MPI), round a ring (gloo), by the switches (SHARP)."""
    in_network_ns: int = 0
    """What an AND in the network takes from the last rank's arrival on; used by ``in-network`` only, and >= 1 there."""


@dataclass(frozen=True, slots=True)
class HostCosts:
    """Serial CPU work of the control plane."""

    per_message_ns: int
    """p_msg: one worker's list at whoever counts (parse, bookkeeping)."""
    per_request_ns: int
    """p_req: one request counted."""
    per_response_ns: int
    """p_resp: one response built (before fusion: one per tensor)."""
    local_response_ns: int
    """Part of p_local on every rank, per tensor scheduled: copy from the cache, fuse."""
    device_entry_ps: int
    """Part of p_local per tensor *and rank*, in picoseconds: Horovod's P-long device lists.
    Counted only with ``wire = "horovod"``."""
    launch_ns: int
    """Launching one response on the data plane."""


@dataclass(frozen=True, slots=True)
class DataNetwork:
    """What gradients cost on their way."""

    allreduce: Literal["ring", "nccl-tree", "nccl", "hierarchical", "free"]
    """``nccl`` = the faster of ring and tree, as NCCL's own tuner would choose. ``free`` = 1 ns: a what-if."""
    nccl: Literal["2.2.12", "2.4.8", "2.5.6", "2.7.8"]
    """Whose latency tables (docs/published.md 5)."""
    bus_bandwidth_Bps: int
    """Bus bandwidth of a ring over all GPUs, as nccl-tests defines it."""
    tree_bandwidth_percent: int
    """The tree's bandwidth as a share of the ring's; NCCL 2.4.8 uses 75."""
    nvlink_bandwidth_Bps: int
    """Bus bandwidth of a ring inside a node (hierarchical)."""
    network_bandwidth_Bps: int
    """Bus bandwidth of a ring across nodes, per node (hierarchical)."""
    copy_bandwidth_Bps: int
    """Copies into and out of the fusion buffer; 0 makes copies free (a what-if)."""
    copy_launch_ns: int
    """Launch of one copy kernel; one kernel takes ``copy_batch`` tensors."""
    copy_batch: int
    """Tensors that one copy kernel takes."""
    backward_slowdown_ppm: int = 0
    """How much longer backward takes while a response holds the stream, in parts per million; 0: not at all."""
    hop_latency_percent: int = 100
    """Latency of each hop of a collective over several nodes, as a share of NCCL's table."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts of the machine that no exchange depends on."""

    ranks_per_node: int
    """GPUs of one node; each has one rank."""
    max_nodes: int
    """Nodes that there are; larger jobs are what-ifs."""
    device_flops: int
    """FLOP/s one GPU sustains alone, on the workload that the catalog entry names."""
    node_read_Bps: int
    """Node-local storage read rate; 0 switches the input floor of node-local storage off."""
    gpu_power_mW: int | None
    """One GPU while it computes. None: not known, so energy is left out; 0: no GPU."""
    host_power_mW: int | None
    """The node without its GPUs, and without its network adapters where ``nic_power_mW`` has them. None: as above."""
    pue_permille: int
    """Facility over machine power."""
    storage: Literal["node-local", "parallel"] = "node-local"
    """Where samples are read during training."""
    node_write_Bps: int = 0
    """Node-local storage write rate; 0: not known, so staging is not counted."""
    node_storage_bytes: int = 0
    """Capacity of a node's storage; 0: not known, so everything is taken to fit."""
    parallel_read_Bps: int = 0
    """Read rate of the whole parallel file system, shared by the job's nodes; 0: not known, so neither staging
    nor the input floor of parallel storage is counted."""
    node_injection_Bps: int = 0
    """Rate at which a node takes file data in from the network; 0: no bound."""
    gpu_wait_power_mW: int | None = None
    """One GPU inside a collective or waiting for one. None: charged like a computing one."""
    gpu_idle_power_mW: int | None = None
    """One GPU with nothing to do: no input, or no rank on it. None: charged like a computing one."""
    nic_power_mW: int = 0
    """All network adapters of a node; 0: part of ``host_power_mW``."""
    gpu: str = ""
    """Name of the GPU, by which a workload finds its times (``P100-PCIe``, ``V100-SXM2``); empty: not said."""


@dataclass(frozen=True, slots=True)
class KeyRange:
    """How far one number of a cluster may be off, as its file says beside the number."""

    name: str
    """Short and unique in the file, for tables: ``request_cost``."""
    label: str
    """For people: "request cost"."""
    key: str
    """Of the scenario, as for ``--set``: ``cluster.host.per_request``."""
    low: str
    """The value's low end (5th percentile), as a scenario writes it."""
    high: str
    """The high end (95th percentile)."""
    costly: Literal["low", "high"]
    """Which end slows training down."""
    source: str
    """Where the range comes from."""


@dataclass(frozen=True, slots=True)
class Cluster:
    name: str
    machine: Machine
    control: ControlNetwork
    host: HostCosts
    data: DataNetwork
    sources: dict[str, str] = field(default_factory=dict)
    ranges: tuple[KeyRange, ...] = ()
    """Of its uncertain numbers; no simulation depends on them, so they are in no scenario's hash."""


@dataclass(frozen=True, slots=True)
class Groups:
    """Explicit grouping of tensors (docs/horovod.md 4)."""

    mode: Literal["none", "layer", "count", "explicit"] = "none"
    count: int = 0
    """K equal parts, contiguous in registration order; used by ``count``."""
    members: tuple[tuple[str, ...], ...] = ()
    """Tensor names by group; used by ``explicit``. Unnamed tensors stay on their own."""
    strict: bool = False
    """Strict: a group is a fusion unit, never split by the threshold, never fused with another.
    Loose (Horovod's default): members are only submitted together."""


@dataclass(frozen=True, slots=True)
class ControlPlane:
    name: ControlPlaneName
    cycle_time_ns: int
    """0: never sleep."""
    fusion_threshold_bytes: int
    """0: no fusion."""
    cache_capacity: int
    """Entries of the response cache; used by ``cached`` only, and >= 1 there."""
    radix: int
    """Children of an inner node; used by ``hierarchical`` only, and >= 2 there."""
    wire: Literal["horovod", "coordsim"]
    """Whose message sizes the cost uses."""
    data_plane: Literal["async", "blocking"]
    """``async`` as NCCL, ``blocking`` as MPI or gloo on CPU."""
    bucket_bytes: int = 25 * 1024 * 1024
    """``ddp`` only."""
    first_bucket_bytes: int = 1024 * 1024
    """``ddp`` only."""
    groups: Groups = field(default_factory=Groups)
    merge: bool = True
    """``hierarchical`` only: inner nodes pass on what their whole subtree asked for; else everything, at once."""
    wait_for_data: Literal["none", "host", "stream"] = "none"
    """Who waits for a gradient that was submitted before it exists: the background thread before it launches
    (Horovod up to 0.22), or the stream (0.23 and later). ``none``: nobody, submission and existence are one."""


Distribution = Literal["half-normal", "normal", "exponential", "uniform"]


@dataclass(frozen=True, slots=True)
class Spread:
    """A relative slow-down drawn from a named distribution, scaled by ``sigma_ppm`` (parts per million).

    duration' = duration * (1 + sigma * z); z is standard normal, half-normal (|normal|), exponential
    (mean 1) or uniform on [0, 1).
    """

    distribution: Distribution = "normal"
    """What z is drawn from."""
    sigma_ppm: int = 0
    """Scale of z."""


@dataclass(frozen=True, slots=True)
class Noise:
    """Noise on compute; factors apply in this order: rank, node, step, common, tensor. And detours, on control
    exchanges."""

    rank: Spread = field(default_factory=Spread)
    """Persistent, one draw per GPU."""
    node: Spread = field(default_factory=Spread)
    """Persistent, one draw per node."""
    step: Spread = field(default_factory=Spread)
    """One draw per rank and step."""
    tensor: Spread = field(default_factory=Spread)
    """One draw per rank, step and tensor."""
    stall_ppm: int = 0
    """Probability, per rank and step, of one rare stall before backward, in parts per million."""
    stall_ns: int = 0
    """Mean length of such a stall (exponential)."""
    screen_ppm: int = 0
    """Share of nodes, the slowest by persistent factors, that the site leaves out of the job."""
    detour_ppm: int = 0
    """Probability, per rank and cycle, that the operating system takes the control CPU away, in parts per million."""
    detour_ns: int = 0
    """Mean length of such a detour (exponential)."""
    step_correlation_ppm: int = 0
    """Of a rank's noise per step with that of the step before, in parts per million (docs/semantics.md 1.5)."""
    common: Spread = field(default_factory=Spread)
    """One draw per step, alike on all ranks (common-mode): nobody waits for it, but steps differ by it."""
    common_correlation_ppm: int = 0
    """Of the noise of all ranks with that of the step before, in parts per million."""

    @property
    def detours(self) -> bool:
        """Whether control exchanges are disturbed."""
        return self.detour_ppm > 0 and self.detour_ns > 0

    @property
    def silent(self) -> bool:
        """Whether every GPU takes exactly the median time."""
        spreads = (self.rank, self.node, self.step, self.common, self.tensor)
        return all(s.sigma_ppm == 0 for s in spreads) and (self.stall_ppm == 0 or self.stall_ns == 0)


@dataclass(frozen=True, slots=True)
class Scenario:
    workload: Workload
    cluster: Cluster
    control_plane: ControlPlane
    noise: Noise
    ranks: int
    """GPUs of the job, one rank each."""
    steps: int
    """Steps that count; one cold step is simulated before them."""
    seed: int
    """Of the noise; the same seed gives the same trace."""

    @classmethod
    def load(cls, path: Path | str | None = None, **changes: Any) -> Scenario:
        """The scenario in a TOML file; ``changes`` as in :func:`coordsim.scenario.loading.load_scenario`."""
        from coordsim.scenario.loading import load_scenario  # loading imports this module

        return load_scenario(path, **changes)
