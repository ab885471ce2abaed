"""Does grouping win back what a fast control plane loses? Messages, sizes and steps over cycle and grouping."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from curves import crossing
from runs import PER_NODE, Point, Runs

from coordsim.cost.collectives import allreduce_ns

Row = dict[str, Any]
CYCLES = ("5ms", "2ms", "1ms", "0.2ms")
GROUPINGS = ("none", "layer", "8", "1")


def grouping(runs: Runs, quick: bool) -> Iterator[Row]:
    """One row a case: workload, size, allreduce, data plane, control plane, cycle, grouping, strict or loose."""
    sizes = (1536,) if quick else (96, 1536, 6000, 27_600)
    for workload in ("resnet50",) if quick else ("stemdl", "resnet50", "resnet50@32"):
        for ranks in sizes:
            for allreduce in ("nccl", "ring"):
                for data_plane in ("async",) if quick else ("async", "blocking"):
                    for cycle in ("5ms", "1ms") if quick else CYCLES:
                        for groups in GROUPINGS:
                            yield row(runs, workload, ranks, allreduce, data_plane, "cached", cycle, groups)
                    # the slow control plane, on the same network
                    yield row(runs, workload, ranks, allreduce, data_plane, "coordinator", "5ms", "none")
    if not quick:
        for ranks in (96, 1536):
            for allreduce in ("nccl", "ring"):
                for groups in GROUPINGS:
                    yield row(runs, "resnet50", ranks, allreduce, "async", "cached", "0ms", groups)
        for ranks in (1536, 27_600):
            for allreduce in ("nccl", "ring"):
                for groups in GROUPINGS[1:]:
                    yield row(runs, "resnet50", ranks, allreduce, "async", "cached", "1ms", groups, strict=True)
        for bandwidth in ("5GB/s", "15GB/s"):
            for groups in GROUPINGS:
                yield row(runs, "resnet50@32", 27_600, "nccl", "async", "cached", "1ms", groups, bandwidth=bandwidth)


def row(
    runs: Runs, workload: str, ranks: int, allreduce: str, data_plane: str, plane: str, cycle: str, groups: str,
    strict: bool = False, bandwidth: str = "20GB/s",
) -> Row:  # fmt: skip
    settings = _settings(allreduce, data_plane, cycle, strict, bandwidth)
    found = runs(workload, ranks, plane, groups, settings)
    return {
        "workload": workload, "gpus": ranks, "allreduce": allreduce, "data_plane": data_plane, "control_plane": plane,
        "cycle": cycle, "groups": groups, "strict": "yes" if strict else "", "bandwidth": bandwidth,
        "messages": round(found.messages, 1), "mean_message_bytes": round(found.message_bytes),
        **_latency(runs, workload, ranks, plane, settings),
        "exposed_collective_s": round(found.parts["exposed_collective"], 6),
        "control_share": round(found.control_share, 4), "step_s": round(found.step_s, 6),
        "efficiency": round(found.efficiency, 4), "status": "predicted",
    }  # fmt: skip


def _latency(runs: Runs, workload: str, ranks: int, plane: str, settings: tuple[str, ...]) -> Row:
    """What the smallest message costs, and how long backward is on a median GPU without noise."""
    scenario = runs.scenario(Point(workload, ranks, plane, "none", settings))
    cluster, per_node = scenario.cluster, scenario.cluster.machine.ranks_per_node
    small_ns = allreduce_ns(4, ranks, cluster.data, per_node)
    return {"tensors": len(scenario.workload.tensors), "small_message_us": round(small_ns / 1000, 1),
            "backward_s": round(scenario.workload.backward_ns / 1e9, 4)}  # fmt: skip


def _settings(
    allreduce: str, data_plane: str, cycle: str, strict: bool = False, bandwidth: str = "20GB/s"
) -> tuple[str, ...]:
    return (
        f"cluster.data.allreduce={allreduce}", f"control_plane.data_plane={data_plane}",
        f"control_plane.cycle_time={cycle}", f"control_plane.strict_groups={str(strict).lower()}",
        f"cluster.data.bus_bandwidth={bandwidth}",
    )  # fmt: skip


def win_back(runs: Runs, quick: bool) -> Iterator[Row]:
    """The GPU count from which 8 groups beat no groups by 1 % of the step, with a 1 ms cycle and NCCL alone."""
    largest = 1024 if quick else 16_667
    for workload in ("resnet50",) if quick else ("stemdl", "resnet50", "resnet50@32"):
        for allreduce in ("nccl", "ring"):
            settings = _settings(allreduce, "async", "1ms")

            def wins(nodes: int, workload: str = workload, settings: tuple[str, ...] = settings) -> bool:
                gpus = min(nodes * PER_NODE, 100_000)
                none, grouped = (runs(workload, gpus, "cached", groups, settings).step_s for groups in ("none", "8"))
                return none >= 1.01 * grouped

            nodes = crossing(wins, largest, coarse=quick)
            at = min((nodes or largest) * PER_NODE, 100_000)
            yield {
                "workload": workload, "allreduce": allreduce, "data_plane": "async", "cycle": "1ms",
                "gpus": "" if nodes is None else at, **_latency(runs, workload, at, "cached", settings),
                "messages": round(runs(workload, at, "cached", "none", settings).messages, 1),
                "searched_up_to": min(largest * PER_NODE, 100_000), "status": "predicted",
            }  # fmt: skip
