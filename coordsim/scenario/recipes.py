"""What a file says of a workload, of one gradient and of a cluster, where that is more than what becomes of it.

A :class:`~coordsim.scenario.model.Workload` is computed: a recipe states times of one GPU at one batch, or names what
generates them, and :mod:`coordsim.scenario.workloads` makes them those of the cluster's GPU at the batch asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

from coordsim.scenario.generators import GENERATORS
from coordsim.scenario.keys import (
    DTYPE_BYTES,
    Bytes,
    Count,
    Dtype,
    Filled,
    FlopCount,
    GradientBytes,
    KeyName,
    Name,
    Natural,
    PassTime,
    Replicas,
    SampleRate,
    SampleRates,
    Shape,
    Share,
    Time,
    as_it_is,
    at_least,
    at_most,
)
from coordsim.scenario.model import Cluster, Tensor

TensorsHere = Annotated[
    Any,
    as_it_is(
        "", {"type": "string"}, {"type": "array", "items": {"$ref": "#/$defs/tensor"}, "minItems": 1},
    ),
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadRecipe:
    """One training job's step, as a file describes it."""

    base: str | None = None
    """A name of the catalog, another ``.toml`` file, or a ``.csv`` file of tensors, on which this table builds."""
    name: Name = "custom"
    """For reports."""
    description: str = ""
    """For people."""
    tensors: TensorsHere = None
    """A CSV file with the columns below, relative to this file, or ``[[workload.tensors]]`` tables with the same
    columns as keys."""
    generator: Annotated[Any, as_it_is("", {"enum": list(GENERATORS)})] = None
    """Instead of tensors: what computes them. Its parameters are keys beside it (``stemdl``: growth, kernel, input,
    batch, dtype)."""
    forward_ns: PassTime | None = None
    """Forward pass of one batch, on one median GPU."""
    optimizer_ns: Time | None = None
    """Update of the parameters, after the last gradient is reduced, on one median GPU."""
    backward_ns: PassTime | None = None
    """Only for tensors without ``ready`` times: the whole backward pass, divided among them by their bytes."""
    batch: Count | None = None
    """Samples per rank and step. Another batch than the one stated beside the times changes forward and backward,
    below."""
    global_batch: Annotated[int, at_least(1, "1"), at_most(2**53, "2^53")] | None = None
    """Samples of all ranks and a step, shared equally: strong scaling. Excludes ``batch``."""
    gpu: str = ""
    """The GPU whose times these are (``V100-SXM2``); empty: not said."""
    rates_millionths: Annotated[dict[str, SampleRates], KeyName("rates")] = field(default_factory=dict)
    """Samples a second of one lone GPU, by the GPU's name; that of ``gpu`` must be among them. One number holds at the
    stated batch; ``{ 64 = 688, 128 = 810 }`` are rates by batch."""
    fixed_ns: dict[str, Time] = field(default_factory=dict)
    """What a step takes whatever its batch, by the GPU's name (``"12.7ms"``); counted where its rate is known at one
    batch only."""
    rate_millionths: Annotated[SampleRate, KeyName("rate")] | None = None
    """Samples a second of one GPU of the cluster at ``batch``, instead of what the rates say; all times keep their
    proportion and sum to batch / rate."""
    dtype: Dtype | None = None
    """Type in which every gradient of a list is reduced (``float16``), instead of the list's own: compression, mixed
    precision."""
    flops_per_sample: FlopCount | None = None
    """Training FLOPs (forward and backward) of one sample, as the workload's source counts them; 0 when unknown."""
    sample_bytes: Bytes | None = None
    """Bytes read from storage for one sample; 0: input is never late."""
    dataset_bytes: Bytes | None = None
    """The whole data set, staged before the first step where storage is node-local; 0: staging is not counted."""
    dataset_samples: Annotated[int, at_least(0, "0"), at_most(10**15, "10^15")] | None = None
    """The data set's number of samples, instead of ``dataset_bytes``."""
    replicas: Replicas = 1
    """Copies of the data set that the job's nodes hold together: 1 (every node stages its own share), more, or ``all``
    (one on every node)."""
    enqueue_ppm: Share | None = None
    """Hooks fire when kernels are enqueued, at this share of each gradient's ready time: the CPU runs ahead of the GPU.
    Replaces the column ``submit``; needs ``wait_for_data``."""
    order: Literal["same", "shuffled"] = "same"
    """``same`` on every rank, or ``shuffled``: in every step each rank has a random ready order of its own, as
    TensorFlow 1 had it (docs/semantics.md 2.6)."""
    sources: dict[str, str] = field(default_factory=dict)
    """Where each number comes from, by its dotted key in this table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRow:
    """One row of a tensor list: ``[[workload.tensors]]``, or a line of its CSV file."""

    name: Name
    """Unique in the model; ranks agree on it by name."""
    shape: Shape | None = None
    """Sizes of the gradient."""
    numel: Annotated[int, at_least(1, "1"), at_most(10**18, "10^18")] | None = None
    """Instead of ``shape``: the number of values."""
    nbytes: Annotated[GradientBytes, KeyName("bytes")] | None = None
    """Instead of ``shape``: the gradient's size."""
    dtype: Dtype = "float32"
    """Data type in which it is reduced."""
    layer: Annotated[str, Filled("the name up to its last dot")]
    """Layer scope it belongs to; ``groups = "layer"`` makes one group of each."""
    registration: Annotated[Natural, Filled("the rows' order; with ``ready``, its reverse")]
    """Position in the model's parameter list (0-based)."""
    ready_ns: Annotated[Time, Filled("where no row has one: a share of ``backward``")]
    """When the gradient exists, after the start of backward (in a CSV file, a bare number is ns). With it, rows are in
    the order in which they become ready; without it, in the order in which a model lists its parameters."""
    submit_ns: Annotated[Time | None, Filled("as ``ready``")] = None
    """When its hook submits it, after the start of backward; earlier than ``ready`` where hooks fire as kernels are
    enqueued (docs/semantics.md 2.3)."""

    def tensor(self) -> Tensor:
        """The gradient; one of shape, numel and bytes is there, and bytes are whole values of the dtype."""
        shape = self.shape
        if shape is None:
            shape = (self.numel or (self.nbytes or 0) // DTYPE_BYTES[self.dtype],)
        submit_ns = self.ready_ns if self.submit_ns is None else self.submit_ns
        return Tensor(self.name, shape, self.dtype, self.layer, self.registration, submit_ns, self.ready_ns)


@dataclass(frozen=True, slots=True)
class ClusterEntry(Cluster):
    """A cluster, and what only its file says of it."""

    base: str | None = None
    """A name of the catalog, or another ``.toml`` file, on which this table builds."""
    description: str = ""
    """For people."""
    default_ranks: Count | None = None
    """Ranks of a scenario that does not say."""

    def cluster(self) -> Cluster:
        """What a simulation needs of it."""
        return Cluster(**{field.name: getattr(self, field.name) for field in fields(Cluster)})
