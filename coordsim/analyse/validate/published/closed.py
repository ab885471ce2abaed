"""V16, which is arithmetic, and what is not modelled."""

from __future__ import annotations

from collections.abc import Iterator

from coordsim.analyse.validate.published import summit
from coordsim.analyse.validate.published.rows import Row
from coordsim.cost.nccl import Algorithm, selection_latency_ns

V16_US: tuple[tuple[Algorithm, float], ...] = (("tree", 203.0), ("ring", 166_000.0))
V16_WITHIN = 0.005
_NSDI = "Romero et al., NSDI'22, abstract (docs/published.md {})"
NOT_MODELLED = (
    ("V2", "over tf.distribute", 1536, "+12 %", _NSDI.format("V2"),
     "how tf.distribute packs and schedules gradients was not read"),
    ("V4", "over BytePS", 768, "about +20 %", _NSDI.format("V4"),
     "there are no parameter servers and no priorities here"),
    ("V7", "STEMDL peak FP16, EF", summit.FULL_MACHINE, "2.15(4)", "arXiv 1909.11150 (docs/published.md V7)",
     "a peak over a short time of another run; only means over steps are modelled"),
    ("V8", "DeepLabv3+ FP32", 27_360, "0.907", "Kurth et al., SC'18 (docs/published.md V8)",
     "there is no DeepLabv3+ workload, no lagged gradients, no hybrid of NCCL and MPI"),
    ("V9", "DeepLabv3+ FP16, EF", 27_360, "0.999", "Kurth et al., SC'18 (docs/published.md V9)", "as V8"),
)  # fmt: skip


def nccl_rows() -> Iterator[Row]:
    """V16: the latency by which NCCL 2.4.8 chooses, with a true logarithm."""
    nodes = summit.FULL_MACHINE // summit.PER_NODE
    for algorithm, says_us in V16_US:
        exact_us = selection_latency_ns(algorithm, summit.FULL_MACHINE, nodes, truncated=False) / 1000
        nccl_us = selection_latency_ns(algorithm, summit.FULL_MACHINE, nodes) / 1000
        yield Row(
            id="V16", what=f"{algorithm}, us", gpus=summit.FULL_MACHINE, published=f"{says_us:,.0f}", target=says_us,
            use="check", predicted=exact_us, tolerance="within 0.5 %, its rounding",
            verdict="hit" if abs(exact_us / says_us - 1) <= V16_WITHIN else "miss", era="NCCL 2.4.8, 6 GPUs a node",
            source="NCCL's source (docs/published.md V16)", status="DERIVED",
            note=f"{nccl_us:,.0f} us with NCCL's own truncated logarithm" if nccl_us != exact_us else "",
        )  # fmt: skip


def not_modelled_rows() -> Iterator[Row]:
    """Targets that need something absent, each with what."""
    for key, what, gpus, published, source, note in NOT_MODELLED:
        yield Row(
            id=key, what=what, gpus=gpus, published=published, use="not modelled", verdict="not modelled",
            source=source, status="READ", note=note,
        )  # fmt: skip
