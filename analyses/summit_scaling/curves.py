"""Efficiency against GPUs, and the GPU counts at which a control plane costs 10 % and 50 % of the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from runs import GROUPS, PER_NODE, PLANES, WORKLOADS, Runs, all_at, parameters

Row = dict[str, Any]

SIZES = (6, 24, 96, 384, 1536, 3072, 6000, 12_288, 27_600, 100_000)
QUICK_SIZES = (96, 6000)
LARGEST_NODES = 16_667
"""100,000 GPUs: where the search for a threshold ends."""


def efficiency(runs: Runs, quick: bool) -> Iterator[Row]:
    """One row a workload, grouping, control plane and size."""
    for workload in WORKLOADS:
        for groups in GROUPS[1:] if quick else GROUPS:
            for plane in PLANES:
                for ranks in QUICK_SIZES if quick else SIZES:
                    yield _efficiency(runs, workload, groups, plane, ranks)


def _efficiency(runs: Runs, workload: str, groups: str, plane: str, ranks: int) -> Row:
    median = runs(workload, ranks, plane, groups)
    ends = [runs(workload, ranks, plane, groups, all_at(workload, costly)) for costly in (True, False)]
    row: Row = {
        "workload": workload, "groups": groups, "control_plane": plane, "gpus": ranks,
        "efficiency_low": _round(min(median.efficiency, *(end.efficiency for end in ends))),
        "efficiency": _round(median.efficiency),
        "efficiency_high": _round(max(median.efficiency, *(end.efficiency for end in ends))),
        "efficiency_low_growth_64": "",
        "step_s": _round(median.step_s, 5), "control_share": _round(median.control_share),
        "messages": _round(median.messages, 1), "mean_message_bytes": round(median.message_bytes),
    }  # fmt: skip
    if workload == "stemdl":
        small = runs(workload, ranks, plane, groups, all_at(workload, True, growth=True))
        row["efficiency_low_growth_64"] = _round(small.efficiency)
    for name, seconds in median.parts.items():
        row[f"{name}_s"] = _round(seconds, 6)
    return row | {"status": "predicted"}


def thresholds(runs: Runs, quick: bool) -> Iterator[Row]:
    """GPU counts at which the control plane costs 10 % and 50 % of the step; an interval over request cost."""
    request = next(each for each in parameters() if each.name == "request_cost")
    for workload in WORKLOADS:
        for groups in GROUPS[1:2] if quick else GROUPS:
            for plane in ("coordinator",) if quick else PLANES[2:]:
                yield from _thresholds(runs, workload, groups, plane, [request.at(i) for i in (2, 1, 0)], quick)


def _thresholds(
    runs: Runs, workload: str, groups: str, plane: str, costs: list[tuple[str, ...]], quick: bool
) -> Iterator[Row]:
    largest = 2048 if quick else LARGEST_NODES

    def at(nodes: int, cost: tuple[str, ...]) -> float:
        return runs(workload, _gpus(nodes), plane, groups, cost).control_share

    for share in (0.1, 0.5):
        found = [
            crossing(lambda nodes, cost=cost, share=share: at(nodes, cost) >= share,
                     largest, coarse=quick)
            for cost in costs
        ]  # fmt: skip
        at_most = [at(largest, cost) for cost in costs]
        shown = ["" if nodes is None else str(_gpus(nodes)) for nodes in found]
        yield {
            "workload": workload, "groups": groups, "control_plane": plane, "share": share,
            "gpus_low": shown[0], "gpus": shown[1], "gpus_high": shown[2],
            "searched_up_to": _gpus(largest), "share_there_low": _round(at_most[2]),
            "share_there": _round(at_most[1]), "share_there_high": _round(at_most[0]), "status": "predicted",
        }  # fmt: skip


def crossing(reached: Callable[[int], bool], largest: int, coarse: bool = False) -> int | None:
    """The first node count, scanned by factors of 4 and then bisected to 1 %, that has ``reached``; None: none."""
    below, above = 0, 1
    while not reached(above):
        if above == largest:
            return None
        below, above = above, above * 4 if above * 8 <= largest else largest
    while above - below > max(1, above // (8 if coarse else 100)):
        middle = (below + above) // 2
        below, above = (below, middle) if reached(middle) else (middle, above)
    return above


def _gpus(nodes: int) -> int:
    return min(nodes * PER_NODE, 100_000)


def _round(value: float, digits: int = 4) -> float:
    return round(value, digits)
