"""V13: Horovod's chart of 512 Pascal GPUs, with the same authors' smaller runs, on which its parameters are fitted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from coordsim.analyse.validate.published.ranges import PASCAL, Range
from coordsim.analyse.validate.published.rows import OVER, Row
from coordsim.analyse.validate.published.runs import (
    Efficiencies,
    Figure,
    Interval,
    Overrides,
    interval,
    value_that_gives,
)
from coordsim.scenario.loading import load_scenario
from coordsim.scenario.model import Scenario

GPUS = 512
TOLERANCE = 0.06
SEEDS = (0, 1, 2, 3)
STEPS = 5
SETTINGS = (
    "control_plane.wait_for_data=host",  # READ: Horovod up to 0.22 (docs/semantics.md 6.7)
    "workload.enqueue=10%",
    "cluster.data.hop_latency=250%",
)
"""Beyond the catalog's ``pascal-25g``; the last two are fitted."""
NAMES = {"inception_v3": "Inception V3", "resnet101": "ResNet-101", "vgg16": "VGG-16"}
CHART = {
    16: {"inception_v3": 15.0 / 16, "resnet101": 14.6 / 16, "vgg16": 13.7 / 16},
    128: {"inception_v3": 0.90, "resnet101": 0.90, "vgg16": 0.79},
    GPUS: {"inception_v3": 0.90, "resnet101": 0.90, "vgg16": 0.68},
}
"""Efficiencies by GPUs (docs/published.md 7 and V13). READ."""
SET_FROM = {(16, "vgg16"), (16, "inception_v3"), (16, "resnet101"), (128, "vgg16")}
FITTED = (
    "bus bandwidth 2.63 GB/s: VGG-16 on 16 GPUs",
    "hooks at 10 % of backward: Inception V3 and ResNet-101 on 16 GPUs",
    "hop latency 2.5 x NCCL's table: VGG-16 on 128 GPUs",
)
ERA = (
    "Horovod 0.13.0-0.13.2 (May 2018: the chart is PR #266, the collective control plane #276): point to point, 5 ms, "
    "64 MiB, the host waits for data; NCCL 2.1 or 2.2: rings, no LL128; TensorFlow, batch 64 a GPU, FP32, synthetic "
    "data; 128 servers of 4 Pascal GPUs (P100 assumed) on PCIe, 25 Gb/s RoCE"
)
KNOWN = "which parameters to fit was chosen knowing these figures; their values are from the smaller runs"
_SOURCES = {
    16: "Horovod's README of September 2017 (docs/published.md 7)",
    128: "Horovod's README of October 2017 (docs/published.md 7)",
    GPUS: "Horovod's documentation, docs/benchmarks.rst (docs/published.md V13)",
}


def scenario(workload: str, ranks: int, overrides: Overrides = (), settings: Overrides = SETTINGS) -> Scenario:
    """One of the chart's points, as it was run; ``overrides`` win over ``settings``."""
    return load_scenario(
        workload=workload, cluster="pascal-25g", ranks=ranks, control_plane="point-to-point",
        overrides=merged(settings, overrides),
    )  # fmt: skip


def merged(settings: Overrides, overrides: Overrides) -> Overrides:
    """One override a key, the later ones winning."""
    return tuple(f"{key}={value}" for key, value in dict(each.split("=", 1) for each in settings + overrides).items())


def rows(workload: str, quick: bool = False) -> Iterator[Row]:
    """The workload's rows, from 16 GPUs to 512. ``quick``: one seed, two steps, three parameters."""
    seeds, steps = (SEEDS[:1], 2) if quick else (SEEDS, STEPS)
    ranges = tuple(each for each in PASCAL if each.name in ("jitter", "bandwidth", "hop_latency") or not quick)
    found = Efficiencies(lambda ranks, over: scenario(workload, ranks, over), steps, seeds)
    catalog = Efficiencies(lambda ranks, over: scenario(workload, ranks, over, ()), steps, seeds)
    spread = interval(lambda over: found(GPUS, over), ranges)
    for gpus, published in CHART.items():
        target = published[workload]
        row = Row(
            id="V13", what=NAMES[workload], gpus=gpus, published=f"{target:.3f}" if gpus == 16 else f"{target:.2f}",
            target=target, use="fitted" if (gpus, workload) in SET_FROM else "predicted", predicted=found(gpus),
            without_fit=catalog(gpus), era=ERA, fitted=FITTED, source=_SOURCES[gpus], status="READ",
        )  # fmt: skip
        if gpus == GPUS:
            hit = abs(spread.median - target) <= TOLERANCE
            why = "" if hit else reason(spread, lambda over: found(GPUS, over), target, ranges) + "; "
            row = replace(
                row, low=spread.low, high=spread.high, tolerance=f"within {TOLERANCE}",
                verdict="hit" if hit else "miss", interval_over=OVER, spreads=spread.spreads, note=why + KNOWN,
            )  # fmt: skip
        yield row


def reason(spread: Interval, figure: Figure, target: float, ranges: tuple[Range, ...]) -> str:
    """What it would take: values of single parameters, within their ranges, that give the published figure."""
    by_key = {each.key: each for each in ranges}
    ways = []
    for each in spread.spreads:
        if each.size >= abs(target - spread.median):
            value = value_that_gives(figure, target, by_key[each.key])
            ways += [f"{each.name} {value}"] if value else []
    inside = "inside" if spread.low <= target <= spread.high else "outside"
    alone = f"alone it takes {' or '.join(ways)}" if ways else "no single parameter in its range gives it"
    return f"off by {spread.median - target:+.3f}; the published figure is {inside} the interval; {alone}"
