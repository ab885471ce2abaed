"""What a scenario file may contain: one pydantic table for each table of the file, and what it becomes.

pydantic stays behind this module and :mod:`coordsim.scenario.mistakes`, both imported when
:func:`coordsim.scenario.loading.load_scenario` runs.
Sizes and times are text with units here (``"5ms"``) and integers in :mod:`coordsim.scenario.model`, whose
docstrings say what each key means; a key here is the field there without its unit suffix.
Bounds that concern one value are here; those between values are in :mod:`coordsim.scenario.checks`.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from coordsim import units
from coordsim.scenario import model
from coordsim.scenario.annotations import at_least, at_most, one_of, refuse, written
from coordsim.scenario.model import CONTROL_PLANES, DTYPE_BYTES, ControlPlaneName, Distribution, Groups

NOT_YET = ("static", "parameter-server")
"""Control planes that the design names and this version does not model."""
LARGEST_RANKS = 16_777_216
"""2^24: beyond it the engines' arrays and products are out of reach."""
LARGEST_STEPS = 1_000_000
LARGEST_SAMPLE_RATE = 10**9
PPM = 1_000_000


def _choice(allowed: tuple[str, ...]) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if value not in allowed:
            raise refuse("is not known", allowed)
        return value

    return check


def _control_plane(value: Any) -> Any:
    if value in NOT_YET:
        raise refuse("is not modelled yet", CONTROL_PLANES)
    return _choice(CONTROL_PLANES)(value)


def _groups(value: Any) -> Groups:
    """``"none"``, ``"layer"``, K (also as text, from the command line), or lists of tensor names."""
    if value in ("none", "layer"):
        return Groups(mode=value)
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 1:
            raise refuse("groups: the count must be at least 1")
        return Groups(mode="count", count=value)
    if isinstance(value, list | tuple) and value and all(_is_names(group) for group in value):
        return Groups(mode="explicit", members=tuple(tuple(group) for group in value))
    raise refuse(
        "is neither a count nor lists of tensor names", ("none", "layer", "K", '[["tensor", ...], ...]')
    )


def _replicas(value: Any) -> Any:
    """``"all"``: one on every node, 0 in the model."""
    if value == "all":
        return 0
    if value == 0 and not isinstance(value, bool):
        raise refuse('must be at least 1, or "all"')
    return value


def _sample_rate(value: Any) -> int:
    """Samples a second, a bare number, in millionths."""
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        number = Decimal(str(value))
        if number.is_finite() and number <= LARGEST_SAMPLE_RATE and round(number * PPM) > 0:
            return round(number * PPM)
    raise refuse(f"is not a number of samples a second, above 0 and at most {LARGEST_SAMPLE_RATE}")


def _rates(value: Any) -> int | dict[int, int]:
    """One rate, or rates by batch; a batch is a key of the file, so it is text."""
    if not isinstance(value, dict):
        return _sample_rate(value)
    if not value:
        raise refuse("has no rate")
    by_batch: dict[int, int] = {}
    for batch, rate in value.items():
        text = str(batch)
        if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text)):
            raise refuse(f"has a key {text[:40]!r} that is no batch: rates by batch are written {{ 64 = 688 }}")
        by_batch[int(text)] = _sample_rate(rate)
    return by_batch


def _gradient_bytes(value: Any) -> int:
    """A size with its unit, or a bare number of bytes."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole else units.parse_bytes(value)


def _is_names(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(name, str) for name in value)


def _shape(value: Any) -> tuple[int, ...]:
    """``"64x3x7x7"`` or ``[64, 3, 7, 7]``; a scalar is ``"1"``."""
    parts: list[Any] = value.strip().split("x") if isinstance(value, str) else value
    if not isinstance(parts, list) or not parts:
        raise refuse("is not a shape such as 64x3x7x7 (a scalar is 1)")
    sizes = [
        int(p) if isinstance(p, str) and p.isascii() and p.isdecimal() and len(p) < 19 else p for p in parts
    ]
    if not all(isinstance(size, int) and not isinstance(size, bool) and size >= 1 for size in sizes):
        raise refuse("is not a shape such as 64x3x7x7 with sizes of at least 1 (a scalar is 1)")
    return tuple(sizes)


Time = Annotated[int, BeforeValidator(units.parse_time), written("time", "5ms")]
TickTime = Annotated[Time, at_least(1, "1ns")]
Forward = Annotated[TickTime, at_most(3600 * 10**9, "1h")]  # so that noise (x 2^19) stays inside int64
Picoseconds = Annotated[int, BeforeValidator(units.parse_picoseconds), written("short time", "4.28ns")]
Bytes = Annotated[int, BeforeValidator(units.parse_bytes), written("size", "64MiB")]
Rate = Annotated[int, BeforeValidator(units.parse_rate), written("rate", "25GB/s")]
Bandwidth = Annotated[Rate, at_least(1, "1B/s")]
FlopRate = Annotated[
    int, BeforeValidator(units.parse_flops), at_least(1, "1FLOP/s"), written("FLOP rate", "60TF/s")
]
FlopCount = Annotated[int, BeforeValidator(units.parse_count_flops), written("number of FLOP", "24.5GFLOP")]
Power = Annotated[int, BeforeValidator(units.parse_power), written("power", "300W")]
Share = Annotated[int, BeforeValidator(units.parse_share), at_most(PPM, "100%"), written("share", "8%")]
Count = Annotated[int, at_least(1, "1"), at_most(2**31 - 1, "2147483647")]
Natural = Annotated[int, at_least(0, "0"), at_most(2**31 - 1, "2147483647")]
Radix = Annotated[int, at_least(2, "2"), at_most(2**31 - 1, "2147483647")]
SampleRate = Annotated[
    int, BeforeValidator(_sample_rate), one_of("samples a second", {"type": "number", "exclusiveMinimum": 0})
]
Rates = Annotated[
    int | dict[int, int], BeforeValidator(_rates),
    one_of(
        "samples a second at the stated batch, or by batch, such as { 64 = 688, 128 = 810 }",
        {"type": "number", "exclusiveMinimum": 0},
        {"type": "object", "minProperties": 1, "propertyNames": {"pattern": "^0*[1-9][0-9]{0,8}$"},
         "additionalProperties": {"type": "number", "exclusiveMinimum": 0}},
    ),
]  # fmt: skip
Values = Annotated[int, at_least(1, "1"), at_most(10**18, "10^18")]
GradientBytes = Annotated[
    int, BeforeValidator(_gradient_bytes), at_least(1, "1"),
    one_of('bytes, or a size such as "64MiB"', {"type": "integer", "minimum": 1}, {"type": "string"}),
]  # fmt: skip
Shape = Annotated[
    tuple[int, ...],
    BeforeValidator(_shape),
    one_of(
        'sizes, such as "64x3x7x7" or [64, 3, 7, 7]; a scalar is 1',
        {"type": "string", "pattern": "^[0-9]+(x[0-9]+)*$"},
        {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1},
    ),
]
GroupsOf = Annotated[
    Groups,
    BeforeValidator(_groups),
    one_of(
        '"none", "layer", a number of equal parts, or lists of tensor names',
        {"enum": ["none", "layer"]},
        {"type": "integer", "minimum": 1},
        {"type": "array", "items": {"type": "array", "items": {"type": "string"}, "minItems": 1}, "minItems": 1},
    ),
]
Pue = Annotated[int, BeforeValidator(units.parse_permille), at_least(1000, "1"), written("ratio", "1.1")]
TreeShare = Annotated[
    int, BeforeValidator(units.parse_percent), at_least(1, "1%"), at_most(100, "100%"), written("ratio", "75%")
]
HopShare = Annotated[
    int, BeforeValidator(units.parse_percent), at_least(1, "1%"), at_most(10_000, "10000%"), written("ratio", "150%")
]
Dtype = Annotated[
    str, BeforeValidator(_choice(tuple(DTYPE_BYTES))), one_of("a data type", {"enum": list(DTYPE_BYTES)})
]
SpreadName = Annotated[Distribution, BeforeValidator(_choice(get_args(Distribution)))]
Samples = Annotated[int, at_least(0, "0"), at_most(10**15, "10^15")]
Replicas = Annotated[
    int,
    BeforeValidator(_replicas),
    at_least(0, '1, or "all"'),
    at_most(2**31 - 1, "2147483647"),
    one_of('a number of at least 1, or "all"', {"type": "integer", "minimum": 1}, {"const": "all"}),
]
PlaneName = Annotated[ControlPlaneName, BeforeValidator(_control_plane)]


class Table(BaseModel):
    """A table of the file: no unknown keys, no conversions other than those named."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class RunTable(Table):
    """The file's top level, without its tables."""

    ranks: Annotated[
        int,
        at_least(1, "1"),
        at_most(LARGEST_RANKS, f"{LARGEST_RANKS}: more is out of this version's reach"),
    ]
    steps: Annotated[int, at_least(1, "1"), at_most(LARGEST_STEPS, str(LARGEST_STEPS))]
    seed: Annotated[int, at_least(0, "0"), at_most(2**63 - 1, "2^63 - 1")]


class TensorTable(Table):
    """One row of a tensor list: ``[[workload.tensors]]``, or a line of its CSV file."""

    name: Annotated[str, Field(min_length=1)]
    shape: Shape | None = None
    numel: Values | None = None
    """Instead of ``shape``: the number of values."""
    bytes: GradientBytes | None = None
    """Instead of ``shape``: the gradient's size."""
    dtype: Dtype = "float32"
    layer: str
    registration: Natural
    ready: Time
    submit: Time | None = None

    def build(self) -> model.Tensor:
        """The tensor; one of shape, numel and bytes is there, and bytes are whole values of the dtype."""
        shape = self.shape
        if shape is None:
            shape = (self.numel or (self.bytes or 0) // DTYPE_BYTES[self.dtype],)
        submit = self.ready if self.submit is None else self.submit
        return model.Tensor(
            self.name, shape, self.dtype, self.layer, self.registration, submit, self.ready
        )


class WorkloadTable(Table):
    """``[workload]`` without its tensors and its generator's parameters, which are read apart."""

    base: str | None = None
    name: Annotated[str, Field(min_length=1)] = "custom"
    description: str = ""
    forward: Forward | None = None
    optimizer: Time | None = None
    batch: Count | None = None
    flops_per_sample: FlopCount | None = None
    sample_bytes: Bytes | None = None
    dataset_bytes: Bytes | None = None
    dataset_samples: Samples | None = None
    replicas: Replicas = 1
    enqueue: Share | None = None
    """Hooks fire at this share of each gradient's ready time; replaces the column ``submit``."""
    order: Literal["same", "shuffled"] = "same"
    backward: Forward | None = None
    """Time of the whole backward pass, spread over a tensor list that has no ready times by its bytes."""
    gpu: str = ""
    rates: dict[str, Rates] = {}
    """Samples a second of a lone GPU, by its name; that of ``gpu`` is among them. Used on other GPUs."""
    fixed: dict[str, Time] = {}
    """What a step takes whatever its batch, by the GPU's name: where its rate is known at one batch only."""
    rate: SampleRate | None = None
    """Samples a second of one GPU of the cluster at ``batch``; replaces what the rates say."""
    dtype: Dtype | None = None
    """Type in which every gradient of a list is reduced, instead of the list's own: compression, mixed precision."""
    global_batch: Annotated[int, at_least(1, "1"), at_most(2**53, "2^53")] | None = None
    """Samples of all ranks and a step: strong scaling. The ranks share them equally."""
    sources: dict[str, str] = {}


class MachineTable(Table):
    ranks_per_node: Annotated[Count, at_most(1 << 16, "65,536")]
    max_nodes: Count
    device_flops: FlopRate
    node_read: Rate
    gpu_power: Power | None = None
    host_power: Power | None = None
    pue: Pue
    storage: Literal["node-local", "parallel"] = "node-local"
    node_write: Rate = 0
    node_storage: Bytes = 0
    parallel_read: Rate = 0
    node_injection: Rate = 0
    gpu_wait_power: Power | None = None
    gpu_idle_power: Power | None = None
    nic_power: Power = 0
    gpu: str = ""

    def build(self) -> model.Machine:
        return model.Machine(
            ranks_per_node=self.ranks_per_node,
            max_nodes=self.max_nodes,
            device_flops=self.device_flops,
            node_read_Bps=self.node_read,
            gpu_power_mW=self.gpu_power,
            host_power_mW=self.host_power,
            pue_permille=self.pue,
            storage=self.storage,
            node_write_Bps=self.node_write,
            node_storage_bytes=self.node_storage,
            parallel_read_Bps=self.parallel_read,
            node_injection_Bps=self.node_injection,
            gpu_wait_power_mW=self.gpu_wait_power,
            gpu_idle_power_mW=self.gpu_idle_power,
            nic_power_mW=self.nic_power,
            gpu=self.gpu,
        )


class ControlTable(Table):
    latency: TickTime
    overhead: Time
    bandwidth: Bandwidth
    local_latency: TickTime
    local_bandwidth: Bandwidth
    root_nic: Bandwidth
    eager_limit: Bytes
    gather: Literal["linear", "binomial", "node-leaders"]
    broadcast: Literal["binomial"]
    and_reduce: Literal["recursive-doubling", "ring", "in-network"]
    in_network: Time = 0

    def build(self) -> model.ControlNetwork:
        return model.ControlNetwork(
            latency_ns=self.latency,
            overhead_ns=self.overhead,
            bandwidth_Bps=self.bandwidth,
            local_latency_ns=self.local_latency,
            local_bandwidth_Bps=self.local_bandwidth,
            root_nic_Bps=self.root_nic,
            eager_limit_bytes=self.eager_limit,
            gather=self.gather,
            broadcast=self.broadcast,
            and_reduce=self.and_reduce,
            in_network_ns=self.in_network,
        )


class HostTable(Table):
    per_message: Time
    per_request: Time
    per_response: Time
    local_response: Time
    device_entry: Picoseconds
    launch: Time

    def build(self) -> model.HostCosts:
        return model.HostCosts(
            per_message_ns=self.per_message,
            per_request_ns=self.per_request,
            per_response_ns=self.per_response,
            local_response_ns=self.local_response,
            device_entry_ps=self.device_entry,
            launch_ns=self.launch,
        )


class DataTable(Table):
    allreduce: Literal["ring", "nccl-tree", "nccl", "hierarchical"]
    nccl: Literal["2.2.12", "2.4.8", "2.5.6", "2.7.8"]
    bus_bandwidth: Bandwidth
    tree_bandwidth: TreeShare
    nvlink_bandwidth: Bandwidth
    network_bandwidth: Bandwidth
    copy_bandwidth: Bandwidth
    copy_launch: Time
    copy_batch: Count
    backward_slowdown: Share = 0
    hop_latency: HopShare = 100

    def build(self) -> model.DataNetwork:
        return model.DataNetwork(
            allreduce=self.allreduce,
            nccl=self.nccl,
            bus_bandwidth_Bps=self.bus_bandwidth,
            tree_bandwidth_percent=self.tree_bandwidth,
            nvlink_bandwidth_Bps=self.nvlink_bandwidth,
            network_bandwidth_Bps=self.network_bandwidth,
            copy_bandwidth_Bps=self.copy_bandwidth,
            copy_launch_ns=self.copy_launch,
            copy_batch=self.copy_batch,
            backward_slowdown_ppm=self.backward_slowdown,
            hop_latency_percent=self.hop_latency,
        )


class RangeTable(Table):
    """One entry of ``[cluster.ranges]``: its key is a number's, without ``cluster.`` (``"host.per_request"``)."""

    name: Annotated[str, Field(min_length=1)]
    label: Annotated[str, Field(min_length=1)]
    low: Annotated[str, Field(min_length=1)]
    high: Annotated[str, Field(min_length=1)]
    costly: Literal["low", "high"]
    source: Annotated[str, Field(min_length=1)]

    def build(self, key: str) -> model.KeyRange:
        """The range of ``key``, a key of the cluster's file."""
        full = key if key.startswith("noise.") else f"cluster.{key}"
        return model.KeyRange(self.name, self.label, full, self.low, self.high, self.costly, self.source)


class ClusterTable(Table):
    base: str | None = None
    name: Annotated[str, Field(min_length=1)] = "custom"
    description: str = ""
    default_ranks: Count | None = None
    """Ranks of a scenario that does not say."""
    machine: MachineTable
    control: ControlTable
    host: HostTable
    data: DataTable
    sources: dict[str, str] = {}
    ranges: dict[str, RangeTable] = {}
    """How far numbers may be off, by their key in this table or below ``noise.``."""

    def build(self) -> model.Cluster:
        return model.Cluster(
            name=self.name,
            machine=self.machine.build(),
            control=self.control.build(),
            host=self.host.build(),
            data=self.data.build(),
            sources=dict(self.sources),
            ranges=tuple(each.build(key) for key, each in self.ranges.items()),
        )


class ControlPlaneTable(Table):
    name: PlaneName
    cycle_time: Time
    fusion_threshold: Bytes
    cache_capacity: Natural
    radix: Radix
    wire: Literal["horovod", "coordsim"]
    data_plane: Literal["async", "blocking"]
    wait_for_data: Literal["none", "host", "stream"]
    bucket: Annotated[Bytes, at_least(1, "1B")]
    first_bucket: Annotated[Bytes, at_least(1, "1B")]
    groups: GroupsOf
    strict_groups: bool
    merge: bool

    def build(self) -> model.ControlPlane:
        groups = self.groups
        return model.ControlPlane(
            name=self.name,
            cycle_time_ns=self.cycle_time,
            fusion_threshold_bytes=self.fusion_threshold,
            cache_capacity=self.cache_capacity,
            radix=self.radix,
            wire=self.wire,
            data_plane=self.data_plane,
            wait_for_data=self.wait_for_data,
            bucket_bytes=self.bucket,
            first_bucket_bytes=self.first_bucket,
            groups=Groups(groups.mode, groups.count, groups.members, self.strict_groups),
            merge=self.merge,
        )


class SpreadTable(Table):
    distribution: SpreadName
    sigma: Share

    def build(self) -> model.Spread:
        return model.Spread(self.distribution, self.sigma)


class PassingTable(SpreadTable):
    """A spread that is drawn step by step."""

    correlation: Annotated[Share, at_most(PPM - 1, "99.9999%")] = 0
    """With the step before, in normal scores, 0 to below 1; the distribution of a single step stays as it is."""


class NoiseTable(Table):
    rank: SpreadTable
    node: SpreadTable
    step: PassingTable
    common: PassingTable
    tensor: SpreadTable
    stall_probability: Share
    stall_length: Time
    screen: Annotated[Share, at_most(PPM // 2, "50%")]
    detour_probability: Share
    detour_length: Annotated[Time, at_most(3600 * 10**9, "1h")]

    def build(self) -> model.Noise:
        return model.Noise(
            rank=self.rank.build(),
            node=self.node.build(),
            step=self.step.build(),
            step_correlation_ppm=self.step.correlation,
            common=self.common.build(),
            common_correlation_ppm=self.common.correlation,
            tensor=self.tensor.build(),
            stall_ppm=self.stall_probability,
            stall_ns=self.stall_length,
            screen_ppm=self.screen,
            detour_ppm=self.detour_probability,
            detour_ns=self.detour_length,
        )
