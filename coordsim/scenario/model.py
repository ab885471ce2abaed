"""What is described: frozen dataclasses, everything already in integers (ns, bytes, bytes/s).

A :class:`Scenario` is workload + cluster + control plane + noise. Every field is a plain resolved value. Cluster,
control plane, noise and the run's extent are also declared as keys of a file here: how each is written, its bounds and
sources stand in the field's type (:mod:`coordsim.scenario.keys`). A workload is computed from what a file says of it
(:mod:`coordsim.scenario.recipes`), so its fields are no keys.
Array axes elsewhere in the package are ordered [step, rank, tensor].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args

from coordsim.protocol.planes import NOT_YET, PLANES, PlaneKind, PlaneName
from coordsim.scenario.keys import (
    DTYPE_BYTES,
    PPM,
    Bandwidth,
    Bytes,
    Count,
    FlopRate,
    Form,
    HopPercent,
    KeyName,
    Name,
    Named,
    Natural,
    Percent,
    Permille,
    Picoseconds,
    Power,
    Radix,
    Rate,
    Refusal,
    Share,
    Source,
    TickTime,
    Time,
    Unsaid,
    at_least,
    at_most,
    choice,
)

LARGEST_RANKS = 16_777_216
"""2^24: beyond it the engines' arrays and products are out of reach."""
LARGEST_STEPS = 1_000_000

Timing = Literal["stated", "native", "rate", "flops", "generated", "batch"]
"""How a workload's compute times came to fit the cluster's GPU: taken as they are stated (somebody does not say
the GPU), stated for that very GPU, scaled by both GPUs' samples/s, scaled by FLOPs at the machine's
``device_flops``, computed from FLOPs by the workload's generator, or brought to another batch than the stated one
(:mod:`coordsim.scenario.batch`)."""

ControlPlaneName: TypeAlias = PlaneName
CONTROL_PLANES: tuple[ControlPlaneName, ...] = tuple(kind.name for kind in PLANES.values())


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

    latency_ns: TickTime
    """L: wire latency of a message between nodes."""
    overhead_ns: Time
    """o: CPU time to send or to receive one message."""
    bandwidth_Bps: Bandwidth
    """Bandwidth of one message between nodes."""
    local_latency_ns: TickTime
    """L between ranks of one node."""
    local_bandwidth_Bps: Bandwidth
    """Bandwidth of one message inside a node."""
    root_nic_Bps: Bandwidth
    """Rate at which rank 0 can take messages in; bounds a gather's total bytes."""
    eager_limit_bytes: Bytes
    """Gather messages above it first ask the root (rendezvous); 0: everything is eager."""
    gather: Literal["linear", "binomial", "node-leaders"]
    """How lists reach rank 0: each by itself, up a tree, or one message a node."""
    broadcast: Literal["binomial"]
    """How rank 0's answer reaches everybody: down a tree."""
    and_reduce: Literal["recursive-doubling", "ring", "in-network"]
    """The AND and the OR of ``cached``: by recursive doubling (MPI), round a ring (gloo), by the switches (SHARP)."""
    in_network_ns: Annotated[Time, Source("SHARP: 2.83 us for 8 bytes on 128 hosts")] = 0
    """What an AND in the network takes from the last rank's arrival on; used by ``in-network`` only, and needed there,
    at least 1ns."""


@dataclass(frozen=True, slots=True)
class HostCosts:
    """Serial CPU work of the control plane."""

    per_message_ns: Time
    """p_msg: one worker's list at whoever counts (parse, bookkeeping)."""
    per_request_ns: Time
    """p_req: one request counted."""
    per_response_ns: Time
    """p_resp: one response built (before fusion: one per tensor)."""
    local_response_ns: Time
    """Part of p_local on every rank, per tensor scheduled: copy from the cache, fuse."""
    device_entry_ps: Picoseconds
    """Part of p_local per tensor *and rank*: Horovod's P-long device lists. Counted only with ``wire = "horovod"``."""
    launch_ns: Time
    """Launching one response on the data plane."""


@dataclass(frozen=True, slots=True)
class DataNetwork:
    """What gradients cost on their way."""

    allreduce: Annotated[
        Literal["ring", "nccl-tree", "nccl", "hierarchical", "free"],
        choice(("ring", "nccl-tree", "nccl", "hierarchical")),
    ]
    """``nccl`` = the faster of ring and tree, as NCCL's own tuner would choose. ``free``, 1 ns, is a what-if that no
    file can ask for."""
    nccl: Literal["2.2.12", "2.4.8", "2.5.6", "2.7.8"]
    """Version of NCCL whose latency tables are used (docs/published.md 5)."""
    bus_bandwidth_Bps: Bandwidth
    """Bus bandwidth of a ring over all GPUs, as nccl-tests defines it."""
    tree_bandwidth_percent: Annotated[Percent, Source("NCCL 2.4.8 uses 75 %")]
    """The tree's bandwidth as a share of the ring's."""
    nvlink_bandwidth_Bps: Bandwidth
    """Bus bandwidth of a ring inside a node (hierarchical)."""
    network_bandwidth_Bps: Bandwidth
    """Bus bandwidth of a ring across nodes, per node (hierarchical)."""
    copy_bandwidth_Bps: Bandwidth
    """Copies into and out of the fusion buffer; 0, in code only, makes them free (a what-if)."""
    copy_launch_ns: Time
    """Launch of one copy kernel; one kernel takes ``copy_batch`` tensors."""
    copy_batch: Count
    """Tensors that one copy kernel takes."""
    backward_slowdown_ppm: Share = 0
    """How much longer backward takes while a collective runs; 0: not at all."""
    hop_latency_percent: HopPercent = 100
    """Latency of each hop of a collective over several nodes, as a share of NCCL's table."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts of the machine that no exchange depends on."""

    ranks_per_node: Annotated[Count, at_most(1 << 16, "65,536")]
    """GPUs of one node; each has one rank."""
    max_nodes: Count
    """Nodes that there are; larger jobs are what-ifs."""
    device_flops: FlopRate
    """FLOP/s one GPU sustains alone, on the workload that the catalog entry names."""
    node_read_Bps: Rate
    """Read rate of a node's own storage; every node reads for its own ranks. 0: with node-local storage, input is never
    late."""
    gpu_power_mW: Annotated[Power | None, Unsaid(None)]
    """One GPU while it computes. Not said: not known, so energy is left out; 0: no GPU."""
    host_power_mW: Annotated[Power | None, Unsaid(None)]
    """The node without its GPUs, the same in all phases: CPUs, memory, drives, fans; without its network adapters where
    ``nic_power`` has them. Not said: not known, so energy is left out."""
    pue_permille: Annotated[Permille, at_least(1000, "1")]
    """Facility over machine power."""
    storage: Literal["node-local", "parallel"] = "node-local"
    """Where samples are read during training; with ``parallel`` nothing is staged."""
    node_write_Bps: Rate = 0
    """Write rate of a node's own storage, for staging; 0: not known, so staging is not counted."""
    node_storage_bytes: Bytes = 0
    """Capacity of a node's own storage; 0: not known, so everything is taken to fit."""
    parallel_read_Bps: Rate = 0
    """Read rate of the whole parallel file system, shared by the job's nodes and by nobody else; 0: not known, so
    neither staging nor the input floor of parallel storage is counted."""
    node_injection_Bps: Rate = 0
    """Rate at which a node takes file data in from the network; 0: no bound."""
    gpu_wait_power_mW: Power | None = None
    """One GPU inside a collective, where it spins, or waiting for one. Not said: charged like a computing one, an upper
    bound."""
    gpu_idle_power_mW: Power | None = None
    """One GPU with nothing to do: no input, or no rank on it. Not said: charged like a computing one, an upper
    bound."""
    nic_power_mW: Power = 0
    """All network adapters of a node; 0: part of ``host_power``."""
    gpu: str = ""
    """Name of the GPU, by which a workload finds its times (``P100-PCIe``, ``V100-SXM2``); empty: not said."""


@dataclass(frozen=True, slots=True)
class KeyRange:
    """How far one number of a cluster may be off, as its file says beside the number."""

    name: Name
    """Short and unique in the file, for tables: ``request_cost``."""
    label: Name
    """For people: "request cost"."""
    key: str
    """Of the scenario, as for ``--set``: ``cluster.host.per_request``."""
    low: Name
    """The value's low end (5th percentile), as a scenario writes it."""
    high: Name
    """The high end (95th percentile)."""
    costly: Literal["low", "high"]
    """Which end slows training down."""
    source: Name
    """Where the range comes from."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A machine with its networks and the costs of its control plane."""

    name: Annotated[Name, Unsaid("custom")]
    """For reports."""
    machine: Machine
    control: ControlNetwork
    host: HostCosts
    data: DataNetwork
    sources: dict[str, str] = field(default_factory=dict)
    """Where each number comes from, by its dotted key in this table."""
    ranges: Annotated[tuple[KeyRange, ...], Named("key")] = ()
    """How far numbers may be off, by their key in this table or below ``noise.``; no simulation depends on them, so
    they are in no scenario's hash."""
    collectives: dict[str, str] = field(default_factory=dict)
    """Costs of a torch backend's collectives on a host whose cores ranks share, as ``calibrate here --backend`` writes
    them; ``coordsim predict`` reads them, no simulation depends on them, and they are in no scenario's hash."""


@dataclass(frozen=True, slots=True)
class Groups:
    """Explicit grouping of tensors (docs/horovod.md 4)."""

    mode: Literal["none", "layer", "count", "explicit"] = "none"
    count: int = 0
    """K equal parts, contiguous in registration order; used by ``count``."""
    members: tuple[tuple[str, ...], ...] = ()
    """Tensor names by group; used by ``explicit``. Unnamed tensors stay on their own."""
    strict: Annotated[bool, KeyName("strict_groups"), Source("Horovod: submitted together, not fused together")] = False
    """Strict: a group is a fusion unit, never split by the threshold, never fused with another.
    Loose (Horovod's default): members are only submitted together."""

    @classmethod
    def parse(cls, value: Any) -> Groups:
        """From ``"none"``, ``"layer"``, K (also as text, from the command line), or lists of tensor names."""
        if value in ("none", "layer"):
            return cls(mode=value)
        if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10:
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            if value < 1:
                raise Refusal("groups: the count must be at least 1")
            return cls(mode="count", count=value)
        if isinstance(value, list | tuple) and value and all(map(_is_names, value)):
            return cls(mode="explicit", members=tuple(tuple(group) for group in value))
        allowed = ("none", "layer", "K", '[["tensor", ...], ...]')
        raise Refusal("is neither a count nor lists of tensor names", allowed)


def _is_names(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(name, str) for name in value)


_GROUPS_FORM = Form(
    '"none", "layer", a number of equal parts, or lists of tensor names',
    Groups.parse,
    (
        {"enum": ["none", "layer"]},
        {"type": "integer", "minimum": 1},
        {"type": "array", "items": {"type": "array", "items": {"type": "string"}, "minItems": 1}, "minItems": 1},
    ),
)
_BUCKET = at_least(1, "1B")


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """Who decides which gradients are ready on every rank, and how (docs/horovod.md)."""

    name: Annotated[ControlPlaneName, choice(CONTROL_PLANES, not_yet=NOT_YET)]
    """Who decides, and how (docs/horovod.md)."""
    cycle_time_ns: Time
    """How long the background loop sleeps between cycles; 0: never."""
    fusion_threshold_bytes: Bytes
    """Bytes of gradients that one collective takes at most; 0: no fusion."""
    cache_capacity: Natural
    """Entries of the response cache; used by ``cached`` only, and at least 1 there."""
    radix: Annotated[Radix, Source("Kurth et al., SC'18")]
    """Children of an inner node; used by ``hierarchical`` only."""
    wire: Literal["horovod", "coordsim"]
    """Whose message sizes the cost uses."""
    data_plane: Literal["async", "blocking"]
    """``async`` as NCCL, ``blocking`` as MPI or gloo on CPU."""
    bucket_bytes: Annotated[Bytes, _BUCKET, Source("PyTorch DDP: bucket_cap_mb = 25")] = 25 * 1024 * 1024
    """Size of a bucket; used by ``ddp`` only."""
    first_bucket_bytes: Annotated[Bytes, _BUCKET, Source("PyTorch DDP: _DEFAULT_FIRST_BUCKET_BYTES")] = 1024 * 1024
    """Size of the first bucket; used by ``ddp`` only."""
    groups: Annotated[Groups, _GROUPS_FORM] = field(default_factory=Groups)
    """Which tensors are grouped."""
    merge: bool = True
    """``hierarchical`` only: inner nodes pass on what their whole subtree asked for; else everything, at once."""
    wait_for_data: Literal["none", "host", "stream"] = "none"
    """Who waits for a gradient that was submitted before it exists: the background thread before it launches
    (Horovod up to 0.22), or the stream (0.23 and later). ``none``: nobody, submission and existence are one."""

    @property
    def kind(self) -> PlaneKind:
        """What the control plane of this name does and has, whatever its settings."""
        return PLANES[self.name]


Distribution = Literal["half-normal", "normal", "exponential", "uniform"]


@dataclass(frozen=True, slots=True)
class Spread:
    """A relative slow-down drawn from a named distribution, scaled by ``sigma_ppm`` (parts per million).

    duration' = duration * (1 + sigma * z); z is standard normal, half-normal (|normal|), exponential
    (mean 1) or uniform on [0, 1).
    """

    distribution: Annotated[Distribution, choice(get_args(Distribution))] = "normal"
    """What z is drawn from."""
    sigma_ppm: Share = 0
    """Scale of z."""


_BELOW_ONE = at_most(PPM - 1, "99.9999%")


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
    stall_ppm: Annotated[Share, KeyName("stall_probability")] = 0
    """Probability, per rank and step, of one rare stall before backward."""
    stall_ns: Annotated[Time, KeyName("stall_length")] = 0
    """Mean length of such a stall (exponential)."""
    screen_ppm: Annotated[Share, at_most(PPM // 2, "50%")] = 0
    """Share of nodes, the slowest by persistent factors, that the site leaves out of the job."""
    detour_ppm: Annotated[Share, KeyName("detour_probability")] = 0
    """Probability, per rank and cycle, that the operating system takes the rank's control CPU away."""
    detour_ns: Annotated[Time, KeyName("detour_length"), at_most(3600 * 10**9, "1h")] = 0
    """Mean length of such a detour (exponential)."""
    step_correlation_ppm: Annotated[Share, KeyName("step.correlation"), _BELOW_ONE] = 0
    """Correlation of a rank's noise with that of the step before, of normal scores: 0 (drawn anew) to below 1. The
    distribution of a single step stays as it is (docs/semantics.md 1.5)."""
    common: Spread = field(default_factory=Spread)
    """One draw per step, alike on all ranks (common-mode): nobody waits for it, but steps differ by it."""
    common_correlation_ppm: Annotated[Share, KeyName("common.correlation"), _BELOW_ONE] = 0
    """Correlation of the noise of all ranks with that of the step before, as for ``step``."""

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
    """A job on a machine: what is simulated."""

    workload: Workload
    cluster: Cluster
    control_plane: ControlPlane
    noise: Noise
    ranks: Annotated[
        int, at_least(1, "1"), at_most(LARGEST_RANKS, f"{LARGEST_RANKS}: more is out of this version's reach")
    ]
    """GPUs of the job, one rank each; by default the cluster's ``default_ranks``."""
    steps: Annotated[int, at_least(1, "1"), at_most(LARGEST_STEPS, str(LARGEST_STEPS))]
    """Steps that count; one cold step is simulated before them."""
    seed: Annotated[int, at_least(0, "0"), at_most(2**63 - 1, "2^63 - 1")]
    """Of the noise; the same seed gives the same trace."""

    load: ClassVar[Callable[..., Scenario]]
    """:func:`coordsim.scenario.loading.load_scenario`, which puts itself here: loading knows this module, and this
    module does not know how files are read."""
