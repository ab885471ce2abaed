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

ControlPlaneName = Literal["ideal", "ddp", "point-to-point", "coordinator", "hierarchical", "cached"]
CONTROL_PLANES: tuple[ControlPlaneName, ...] = (
    "ideal", "ddp", "point-to-point", "coordinator", "hierarchical", "cached",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """One named gradient."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    layer: str
    """Layer scope it belongs to; ``groups = "layer"`` makes one group of each."""
    registration: int
    """Position in the model's parameter list (0-based). Tensors of a workload are listed in *ready* order."""
    submit_ns: int
    """When the hook submits it, after the start of backward, on a noise-free median GPU."""
    ready_ns: int
    """When the gradient exists, same clock. Equal to ``submit_ns`` for now (docs/semantics.md 13: one clock)."""

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Workload:
    """One training job's step as a single noise-free median GPU runs it."""

    name: str
    tensors: tuple[Tensor, ...]
    """In ready order, the same on every rank."""
    forward_ns: int
    optimizer_ns: int
    batch: int
    """Samples per rank and step."""
    flops_per_sample: int
    """Training FLOPs (forward and backward) of one sample, as the workload's source counts them."""
    sample_bytes: int
    """Bytes read from node-local storage for one sample; 0 switches the input floor off."""
    parameters: dict[str, int | str] = field(default_factory=dict)
    """What the workload was generated from (growth, kernel, input...), for the record."""
    sources: dict[str, str] = field(default_factory=dict)
    """Where each number comes from, by key."""

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
    local_latency_ns: int
    """L between ranks of one node; >= 1."""
    local_bandwidth_Bps: int
    root_nic_Bps: int
    """Rate at which rank 0 can take messages in; bounds a gather's total bytes."""
    eager_limit_bytes: int
    """Gather messages above it first ask the root (rendezvous); 0 or less: everything is eager."""
    gather: Literal["linear", "binomial", "node-leaders"]
    broadcast: Literal["binomial"]
    and_reduce: Literal["recursive-doubling"]


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
    nccl: Literal["2.4.8", "2.5.6", "2.7.8"]
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


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts of the machine that no exchange depends on."""

    ranks_per_node: int
    max_nodes: int
    device_flops: int
    """FLOP/s one GPU sustains alone, on the workload that the catalog entry names."""
    node_read_Bps: int
    """Node-local storage read rate; 0 switches the input floor off."""
    gpu_power_mW: int
    host_power_mW: int
    """The node without its GPUs."""
    pue_permille: int


@dataclass(frozen=True, slots=True)
class Cluster:
    name: str
    machine: Machine
    control: ControlNetwork
    host: HostCosts
    data: DataNetwork
    sources: dict[str, str] = field(default_factory=dict)


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


Distribution = Literal["half-normal", "normal", "exponential", "uniform"]


@dataclass(frozen=True, slots=True)
class Spread:
    """A relative slow-down drawn from a named distribution, scaled by ``sigma_ppm`` (parts per million).

    duration' = duration * (1 + sigma * z); z is standard normal, half-normal (|normal|), exponential
    (mean 1) or uniform on [0, 1).
    """

    distribution: Distribution = "normal"
    sigma_ppm: int = 0


@dataclass(frozen=True, slots=True)
class Noise:
    """Noise acts on compute only. Factors apply in this order: rank, node, step, tensor."""

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

    @property
    def silent(self) -> bool:
        spreads = (self.rank, self.node, self.step, self.tensor)
        return all(s.sigma_ppm == 0 for s in spreads) and (self.stall_ppm == 0 or self.stall_ns == 0)


@dataclass(frozen=True, slots=True)
class Scenario:
    workload: Workload
    cluster: Cluster
    control_plane: ControlPlane
    noise: Noise
    ranks: int
    steps: int
    """Steps that count; one cold step is simulated before them."""
    seed: int

    @classmethod
    def load(cls, path: Path | str | None = None, **changes: Any) -> Scenario:
        """The scenario in a TOML file; ``changes`` as in :func:`coordsim.scenario.loading.load_scenario`."""
        from coordsim.scenario.loading import load_scenario  # loading imports this module

        return load_scenario(path, **changes)
