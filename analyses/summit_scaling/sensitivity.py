"""Which uncertain parameter moves the efficiency most at the full machine, one at a time and all together."""

from __future__ import annotations

import random
from collections.abc import Iterator
from math import exp, log
from typing import Any

from runs import FULL_MACHINE, PLANES, WORKLOADS, Runs, parameters

Row = dict[str, Any]
SAMPLES, SEED = 24, 20_200_225
RANGES = {  # Latin hypercube: (low, high, logarithmic, unit); the ends are those of parameters.toml
    "request_cost": (0.3, 3, True, "us"),
    "list_cost": (0.05, 5, True, "us"),
    "message_overhead": (0.3, 1, True, "us"),
    "jitter": (1.0, 4.1, False, "%"),
    "bandwidth": (15, 23, False, "GB/s"),
    "device_list": (0, 8.56, False, "ns"),
    "control_latency": (1.3, 3, True, "us"),
}


def sensitivity(runs: Runs, quick: bool) -> Iterator[Row]:
    """Rows of single parameters, then one row of the hypercube, for each workload and control plane."""
    ranks = 6000 if quick else FULL_MACHINE
    for workload in WORKLOADS:
        for plane in PLANES:
            rows = list(_one_at_a_time(runs, workload, plane, ranks))
            largest = max(rows, key=lambda row: row["spread"] if row["in_band"] == "yes" else -1)
            for row in rows:
                row["dominant"] = "yes" if row is largest else ""
            yield from rows
            yield _together(runs, workload, plane, ranks, 2 if quick else SAMPLES)


def _one_at_a_time(runs: Runs, workload: str, plane: str, ranks: int) -> Iterator[Row]:
    median = runs(workload, ranks, plane, "layer").efficiency
    for each in parameters(workload):
        low, high = (runs(workload, ranks, plane, "layer", each.at(index)).efficiency for index in (0, 2))
        yield _row(workload, plane, ranks, each.label, str(each.values[0]), str(each.values[1]), str(each.values[2]),
                   low, median, high, max(low, high, median) - min(low, high, median),
                   "" if each.alone else "yes", each.source)  # fmt: skip


def _together(runs: Runs, workload: str, plane: str, ranks: int, samples: int) -> Row:
    found = sorted(runs(workload, ranks, plane, "layer", point).efficiency for point in hypercube(workload, samples))
    middle = (found[(samples - 1) // 2] + found[samples // 2]) / 2
    source = f"Latin hypercube of {samples} samples over the rows above, seed {SEED}: lowest, median, highest"
    return _row(workload, plane, ranks, "all together", "", "", "", found[0], middle, found[-1],
                found[-1] - found[0], "", source) | {"dominant": ""}  # fmt: skip


def hypercube(workload: str, samples: int) -> list[tuple[str, ...]]:
    """Overrides of every sample: each range cut into ``samples`` parts, one draw from each, shuffled."""
    dice = random.Random(SEED)
    points: list[list[str]] = [[] for _ in range(samples)]
    for each in parameters(workload):
        if each.alone:
            continue
        strata = [(index + dice.random()) / samples for index in range(samples)]
        dice.shuffle(strata)
        for point, share in zip(points, strata, strict=True):
            if each.name in RANGES:
                low, high, logarithmic, unit = RANGES[each.name]
                value = exp(log(low) + share * log(high / low)) if logarithmic else low + share * (high - low)
                point.append(f"{each.key}={value:.4g}{unit}")
            elif each.name == "gather":
                point.append(f"{each.key}={('node-leaders', 'linear')[int(2 * share)]}")
            else:
                point += [f"{each.key}={(64, 128, 256)[int(3 * share)]}", *each.also]
    return [tuple(point) for point in points]


def _row(
    workload: str, plane: str, ranks: int, label: str, value_low: str, value: str, value_high: str,
    low: float, median: float, high: float, spread: float, in_band: str, source: str,
) -> Row:  # fmt: skip
    return {
        "workload": workload, "control_plane": plane, "groups": "layer", "gpus": ranks, "parameter": label,
        "value_low": value_low, "value": value, "value_high": value_high,
        "efficiency_at_low": round(low, 4), "efficiency": round(median, 4), "efficiency_at_high": round(high, 4),
        "spread": round(spread, 4), "in_band": in_band, "dominant": "", "status": "predicted", "source": source,
    }  # fmt: skip
