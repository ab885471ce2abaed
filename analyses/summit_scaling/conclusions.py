"""What the tables say: each conclusion has a rule, holds or does not, and carries its numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Table = list[dict[str, str]]
Row = dict[str, Any]

NAMES = {
    "stemdl": "STEMDL",
    "resnet50": "ResNet-50",
    "resnet50@32": "ResNet-50 at batch 32",
    "resnet50@128": "ResNet-50 at batch 128",
}
FAST = ("ideal", "ddp", "hierarchical", "cached")


def only(table: Table, **columns: object) -> Table:
    """The rows with these values."""
    return [row for row in table if all(row[key] == str(value) for key, value in columns.items())]


def conclusions(tables: dict[str, Table]) -> list[Row]:
    """One row a conclusion: id, rule, holds, statement."""
    return [
        *_coordinator(tables["efficiency"]),
        *_messages(tables["grouping"]),
        *_win_back(tables["grouping"], tables["win_back"]),
        *_one_group(tables["efficiency"]),
        *_dominance(tables["sensitivity"]),
    ]


def _row(key: str, rule: str, holds: bool, statement: str) -> Row:
    return {"id": key, "rule": rule, "holds": "yes" if holds else "no", "statement": statement}


def share(row: dict[str, str]) -> float:
    """Exchange and work of the control plane over the step; without the wait for a cycle, which is a setting."""
    return (float(row["control_exchange_s"]) + float(row["control_work_s"])) / float(row["step_s"])


def percent(value: float) -> str:
    if value == 0:
        return "0 %"
    return f"{100 * value:.0f} %" if value >= 0.1 else f"{100 * value:.1f} %" if value >= 0.0005 else "less than 0.05 %"


def _coordinator(table: Table) -> Iterator[Row]:
    small, large = [], []
    for workload in ("stemdl", "resnet50"):
        rows = only(table, workload=workload, groups="layer", control_plane="coordinator")
        small.append(next(row for row in rows if int(row["gpus"]) == 96))
        large.append([row for row in rows if int(row["gpus"]) <= 27_600][-1])
    shares = [share(row) for row in (*small, *large)]
    yield _row(
        "coordinator_invisible_when_small",
        "exchange and work of the coordinator are below 2 % of the step at 96 GPUs for both workloads",
        max(shares[:2]) < 0.02,
        f"At 96 GPUs the coordinator's exchange and work are {percent(shares[0])} of a STEMDL step and"
        f" {percent(shares[1])} of a ResNet-50 step. At {int(large[0]['gpus']):,} GPUs they are {percent(shares[2])}"
        f" and {percent(shares[3])}. Only the GPU count changed.",
    )


def _case(table: Table, **columns: object) -> dict[str, str]:
    return only(table, strict="", bandwidth="20GB/s", **columns)[0]


def _megabytes(row: dict[str, str]) -> str:
    return f"{float(row['mean_message_bytes']) / 1e6:.1f} MB"


def _ms(row: dict[str, str], key: str = "step_s") -> str:
    value = 1000 * float(row[key])
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.1f} ms" if value >= 1 else f"{value:.2f} ms"


def _messages(table: Table) -> Iterator[Row]:
    at = {"workload": "resnet50", "gpus": 1536, "data_plane": "async", "allreduce": "nccl", "groups": "none"}
    slow = _case(table, **at, control_plane="coordinator", cycle="5ms")
    same = _case(table, **at, control_plane="cached", cycle="5ms")
    fast = _case(table, **at, control_plane="cached", cycle="1ms")
    yield _row(
        "fast_control_plane_makes_small_messages",
        "cached at a 1 ms cycle sends at least 5 times as many messages as the coordinator at 5 ms",
        float(fast["messages"]) >= 5 * float(slow["messages"]),
        f"ResNet-50 at 1,536 GPUs without groups: {slow['messages']} messages a step of {_megabytes(slow)} with the"
        f" coordinator, whose exchange stretches the 5 ms cycle; {same['messages']} of {_megabytes(same)}"
        f" with the cache"
        f" at 5 ms; {fast['messages']} of {_megabytes(fast)} at 1 ms.",
    )


def _win_back(table: Table, counts: Table) -> Iterator[Row]:
    at = {"workload": "resnet50", "gpus": 1536, "data_plane": "async"}
    for allreduce, words in (
        ("ring", "on rings alone (NCCL before 2.4)"),
        ("nccl", "where NCCL 2.4.8 may take its tree"),
    ):
        here = at | {"allreduce": allreduce}
        slow = _case(table, **here, control_plane="coordinator", cycle="5ms", groups="none")
        none = _case(table, **here, control_plane="cached", cycle="1ms", groups="none")
        eight = _case(table, **here, control_plane="cached", cycle="1ms", groups="8")
        count = only(counts, workload="resnet50", allreduce=allreduce)[0]
        stream = float(none["messages"]) * float(none["small_message_us"]) / 1000
        backward = 1000 * float(none["backward_s"])
        reach = (
            f"From {int(count['gpus']):,} GPUs on, 8 groups win 1 % or more."
            if count["gpus"]
            else f"Up to {int(count['searched_up_to']):,} GPUs, 8 groups never win 1 %."
        )
        alone = "makes things worse" if float(none["step_s"]) > float(slow["step_s"]) else "is a gain"
        why = "more than it has to hide them" if stream > backward else "so they hide"
        yield _row(
            f"grouping_wins_back_{allreduce}",
            "at 1,536 GPUs, cached at 1 ms: 8 groups are at least 5 % faster than none",
            float(none["step_s"]) >= 1.05 * float(eight["step_s"]),
            f"ResNet-50 at 1,536 GPUs {words}: {_ms(none)} a step without groups ({none['messages']} messages, exposed"
            f" {_ms(none, 'exposed_collective_s')}), {_ms(eight)} with 8 groups ({eight['messages']} messages of"
            f" {_megabytes(eight)}); the slow coordinator takes {_ms(slow)},"
            f" so the fast control plane alone {alone}."
            f" A small allreduce costs"
            f" {float(none['small_message_us']):,.0f} us here: {none['messages']} of them are {stream:.0f} ms against"
            f" {backward:.0f} ms of backward, {why}. {reach}",
        )


def _one_group(table: Table) -> Iterator[Row]:
    for workload in ("stemdl", "resnet50"):
        rows = only(table, workload=workload, control_plane="cached")
        gpus = max(int(row["gpus"]) for row in rows if int(row["gpus"]) <= 27_600)
        one, layer = (only(rows, gpus=gpus, groups=groups)[0] for groups in ("1", "layer"))
        yield _row(
            f"one_group_hides_nothing_{workload}",
            "cached, NCCL's choice: efficiency with one group is below that with layer groups",
            float(one["efficiency"]) < float(layer["efficiency"]),
            f"{NAMES[workload]} at {gpus:,} GPUs: {float(one['efficiency']):.3f} with one group,"
            f" {float(layer['efficiency']):.3f} with layer groups. The whole gradient waits for the end of backward:"
            f" {_ms(one, 'exposed_collective_s')} exposed against {_ms(layer, 'exposed_collective_s')}.",
        )


def dominant(table: Table, workload: str, plane: str, machine_only: bool = False) -> dict[str, str]:
    """The parameter with the largest spread; ``machine_only`` leaves the workload's growth out."""
    rows = only(table, workload=workload, control_plane=plane, in_band="yes")
    if machine_only:
        rows = [row for row in rows if "growth" not in row["parameter"]]
    return max(rows, key=lambda row: float(row["spread"]))


def _dominance(table: Table) -> Iterator[Row]:
    gpus = int(table[0]["gpus"])
    fast = [(workload, plane) for workload in NAMES if workload in ("stemdl", "resnet50") for plane in FAST]
    tops = [dominant(table, *each, machine_only=True) for each in fast]
    spreads = [float(row["spread"]) for row in tops]
    yield _row(
        "jitter_dominates_fast_planes",
        "jitter has the largest spread for ideal, ddp, hierarchical and cached, both workloads (growth left out)",
        all(row["parameter"] == "jitter sigma" for row in tops),
        f"At {gpus:,} GPUs, jitter of 1.0-4.1 % moves the efficiency of the fast control planes by"
        f" {min(spreads):.2f}-{max(spreads):.2f}; nothing else about the machine moves them as much.",
    )
    top = dominant(table, "resnet50", "coordinator")
    yield _row(
        "request_cost_dominates_coordinator",
        "request cost has the largest spread for the coordinator with ResNet-50",
        top["parameter"] == "request cost",
        f"At {gpus:,} GPUs, a request cost of 0.3-3 us moves ResNet-50 under the coordinator from"
        f" {float(top['efficiency_at_low']):.3f} to {float(top['efficiency_at_high']):.3f}.",
    )
