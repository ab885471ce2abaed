"""README.md from README.template.md and the tables: every number of a result is put in here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

from conclusions import NAMES, dominant, only, percent, share
from published import RIDGE_SEEDS as SEEDS

Table = list[dict[str, str]]
Tables = dict[str, Table]

PLANES = ("ideal", "ddp", "point-to-point", "coordinator", "hierarchical", "cached")
SHOWN = [("5ms", "none"), ("1ms", "none"), ("0.2ms", "none"), ("1ms", "8"), ("1ms", "1")]
"""Cycle and grouping of the cases in the text; all are in grouping.csv."""
GROUP_NAMES = {"none": "no groups", "layer": "layer", "1": "one group"}


def render(tables: Tables, found: Table) -> str:
    """The README's text."""
    said = {row["id"]: row for row in found}
    efficiency = tables["efficiency"]
    largest = _largest(efficiency)
    values = {
        "gpus": f"{largest:,}",
        "seeds": str(SEEDS),
        "thresholds_text": _thresholds_text(efficiency, largest),
        "short": _short(tables, said),
        "stemdl_alone": _alone(efficiency, "stemdl"),
        "resnet50_alone": _alone(efficiency, "resnet50"),
        "efficiency_table": _efficiency(efficiency, largest),
        "thresholds_table": _thresholds(tables["thresholds"]),
        "fact_1": _verdict(said["coordinator_invisible_when_small"]),
        "share_table": _shares(efficiency),
        "fact_2": "\n\n".join(
            _verdict(said[key])
            for key in ("fast_control_plane_makes_small_messages", "grouping_wins_back_ring", "grouping_wins_back_nccl")
        ),
        "grouping_table": _grouping(tables["grouping"]),
        "win_back_table": _win_back(tables["win_back"]),
        "fact_2_more": _fact_2_more(tables["grouping"], said),
        "sensitivity_gpus": f"{int(tables['sensitivity'][0]['gpus']):,}",
        "samples": next(r["source"] for r in tables["sensitivity"] if r["parameter"] == "all together").split()[3],
        "sensitivity_table": _sensitivity(tables["sensitivity"]),
        "sensitivity_text": _sensitivity_text(tables["sensitivity"], said),
        "published_table": _published(tables["published"]),
        "v1_table": _v1(tables["request_cost"]),
        "v1_text": _v1_text(tables["request_cost"]),
        "ridge_gpus": f"{int(tables['ridge'][0]['gpus']):,}",
        "ridge_table": _ridge(tables["ridge"]),
        "ridge_text": _ridge_text(tables["ridge"]),
    }
    text = (Path(__file__).parent / "README.template.md").read_text(encoding="utf-8")
    return Template(text).substitute(values)


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _largest(table: Table) -> int:
    return max(int(row["gpus"]) for row in table if int(row["gpus"]) <= 27_600)


def _alone(table: Table, workload: str) -> str:
    row = only(table, workload=workload, control_plane="ideal", groups="layer")[0]
    seconds = float(row["efficiency"]) * float(row["step_s"])
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def _verdict(row: dict[str, str]) -> str:
    return f"**{'It came out.' if row['holds'] == 'yes' else 'It did not come out.'}** {row['statement']}"


def _span(row: dict[str, str], low: str, median: str, high: str, digits: int = 2) -> str:
    return " / ".join(f"{float(row[key]):.{digits}f}" for key in (low, median, high))


def _efficiency(table: Table, gpus: int) -> str:
    groups = [each for each in GROUP_NAMES if any(row["groups"] == each for row in table)]
    rows = []
    for workload in ("stemdl", "resnet50"):
        for plane in PLANES:
            cells = [
                _span(
                    only(table, workload=workload, control_plane=plane, gpus=gpus, groups=each)[0],
                    "efficiency_low",
                    "efficiency",
                    "efficiency_high",
                )
                for each in groups
            ]
            rows.append([NAMES[workload], plane, *cells])
    return _markdown(["workload", "control plane", *(GROUP_NAMES[each] for each in groups)], rows)


def _count(row: dict[str, str], key: str) -> str:
    return f"{int(row[key]):,}" if row[key] else f"> {int(row['searched_up_to']):,}"


def _thresholds(table: Table) -> str:
    rows = []
    for row in table:
        if row["share"] == "0.1":
            half = only(
                table, workload=row["workload"], groups=row["groups"], control_plane=row["control_plane"], share="0.5"
            )[0]
            cells = [" / ".join(_count(each, key) for key in ("gpus_low", "gpus", "gpus_high")) for each in (row, half)]
            there = " / ".join(
                percent(float(row[key])) for key in ("share_there_high", "share_there", "share_there_low")
            )
            rows.append([NAMES[row["workload"]], GROUP_NAMES[row["groups"]], row["control_plane"], *cells, there])
    head = ["workload", "groups", "control plane", "10 % (3 / 0.56 / 0.3 us)", "50 % (3 / 0.56 / 0.3 us)"]
    return _markdown([*head, f"share at {int(table[0]['searched_up_to']):,} GPUs"], rows)


def _thresholds_text(table: Table, gpus: int) -> str:
    row = only(table, workload="resnet50", groups="1", control_plane="cached", gpus=gpus)[0]
    work = 1000 * float(row["control_work_s"])
    return (
        f"Cached with one group pays for something else: at {gpus:,} GPUs {work:.1f} ms of a ResNet-50 step"
        f" are work on every"
        " rank after the last gradient, nearly all of it Horovod's device lists (one entry a tensor and"
        " rank), which several"
        " groups hide behind backward. Request cost does not matter there."
    )


def _shares(table: Table) -> str:
    sizes = sorted({int(row["gpus"]) for row in table})
    rows = []
    for workload in ("stemdl", "resnet50"):
        found = [
            only(table, workload=workload, groups="layer", control_plane="coordinator", gpus=gpus)[0] for gpus in sizes
        ]
        rows.append([NAMES[workload], *(percent(share(row)) for row in found)])
    return _markdown(["GPUs", *(f"{gpus:,}" for gpus in sizes)], rows)


def _grouping_cells(row: dict[str, str]) -> list[str]:
    plane = f"{row['control_plane']}, {row['cycle']}"
    return [
        NAMES[row["workload"]],
        f"{int(row['gpus']):,}",
        row["allreduce"],
        plane,
        GROUP_NAMES.get(row["groups"], row["groups"]),
        row["messages"],
        f"{float(row['mean_message_bytes']) / 1e6:.1f} MB",
        f"{1000 * float(row['exposed_collective_s']):,.1f} ms",
        f"{1000 * float(row['step_s']):,.1f} ms",
    ]


def _grouping(table: Table) -> str:
    rows = []
    for row in table:
        shown = row["data_plane"] == "async" and row["bandwidth"] == "20GB/s" and not row["strict"]
        shown = shown and (row["cycle"], row["groups"]) in SHOWN
        shown = shown and (row["workload"], row["gpus"]) in (("resnet50", "1536"), ("stemdl", "27600"))
        if shown:
            rows.append(_grouping_cells(row))
    return _markdown(
        ["workload", "GPUs", "allreduce", "control plane, cycle", "groups", "messages", "mean size", "exposed", "step"],
        rows,
    )


def _win_back(table: Table) -> str:
    rows = [
        [
            NAMES[row["workload"]],
            row["allreduce"],
            _count(row, "gpus"),
            f"{float(row['small_message_us']):,.0f} us",
            row["messages"],
            f"{1000 * float(row['backward_s']):,.0f} ms",
        ]
        for row in table
    ]
    return _markdown(
        ["workload", "allreduce", "from GPUs", "a small allreduce there", "messages without groups", "backward"], rows
    )


def _fact_2_more(table: Table, said: dict[str, dict[str, str]]) -> str:
    lines = [said[key]["statement"] for key in said if key.startswith("one_group_hides_nothing")]
    at = {
        "workload": "resnet50",
        "gpus": 1536,
        "allreduce": "ring",
        "cycle": "1ms",
        "control_plane": "cached",
        "strict": "",
        "bandwidth": "20GB/s",
    }
    blocking = only(table, **at, data_plane="blocking", groups="none")
    if blocking:
        found = [only(table, **at, data_plane=plane, groups="none")[0] for plane in ("async", "blocking")]
        grouped = only(table, **at, data_plane="blocking", groups="8")[0]
        lines.append(
            "A blocking data plane fuses by itself: while one message runs, no cycle starts, and what"
            " becomes ready meanwhile"
            f" is fused. On rings at 1,536 GPUs and 1 ms it sends {found[1]['messages']} messages instead of"
            f" {found[0]['messages']} and takes {1000 * float(found[1]['step_s']):.0f} ms instead of"
            f" {1000 * float(found[0]['step_s']):.0f} ms; 8 groups then gain only"
            f" {percent(float(found[1]['step_s']) / float(grouped['step_s']) - 1)}."
        )
    strict = only(table, strict="yes", allreduce="ring")
    pairs = []
    for row in strict:
        same = {
            key: row[key] for key in ("workload", "gpus", "allreduce", "data_plane", "cycle", "groups", "control_plane")
        }
        loose = only(table, **same, strict="", bandwidth="20GB/s")[0]
        pairs.append((float(row["step_s"]) / float(loose["step_s"]) - 1, row, loose))
    if pairs:
        worst = max(pairs, key=lambda pair: pair[0])
        lines.append(
            "Strict groups (a group is never fused with another) against loose ones, on rings: between"
            f" {100 * min(pair[0] for pair in pairs):+.1f} % and {100 * worst[0]:+.1f} % of the step. The worst is"
            f" {GROUP_NAMES.get(worst[1]['groups'], worst[1]['groups'])} at {int(worst[1]['gpus']):,} GPUs:"
            f" {worst[1]['messages']} messages instead of {worst[2]['messages']}."
        )
    narrow = only(table, workload="resnet50@32", allreduce="nccl", bandwidth="5GB/s")
    if narrow:
        steps = {row["groups"]: 1000 * float(row["step_s"]) for row in narrow}
        gain = steps["none"] / steps["8"] - 1
        exposed = 1000 * float(only(narrow, groups="none")[0]["exposed_collective_s"])
        lines.append(
            f"With a tree, of the cases tried, grouping wins back only where bandwidth fills the stream:"
            f" {NAMES['resnet50@32']}"
            f" at 27,600 GPUs with"
            f" 5 GB/s takes {steps['none']:.0f} ms without groups ({exposed:.0f} ms exposed),"
            f" {steps['8']:.0f} ms with 8,"
            f" {steps['1']:.0f} ms with one. 8 groups change the step by {-100 * gain:+.0f} %: small"
            f" messages also travel by"
            " protocols that carry less data a byte. So the condition is one: allreduces that take longer"
            " than backward."
        )
    here = {
        "workload": "stemdl",
        "gpus": 27_600,
        "allreduce": "ring",
        "data_plane": "async",
        "strict": "",
        "bandwidth": "20GB/s",
    }
    if only(table, **here):
        slow = only(table, **here, control_plane="coordinator", groups="none")[0]
        none, eight = (
            only(table, **here, control_plane="cached", cycle="1ms", groups=groups)[0] for groups in ("none", "8")
        )
        lines.append(
            f"STEMDL on rings at 27,600 GPUs says the same: {float(slow['step_s']):.2f} s with the slow coordinator,"
            f" {float(none['step_s']):.2f} s with the cache at 1 ms and no groups,"
            f" {float(eight['step_s']):.2f} s with 8 groups."
        )
    return "\n\n".join(lines)


def _sensitivity(table: Table) -> str:
    rows = []
    for workload in ("stemdl", "resnet50"):
        for plane in PLANES:
            here = only(table, workload=workload, control_plane=plane)
            ordered = sorted(only(here, in_band="yes"), key=lambda row: -float(row["spread"]))
            cells = [
                f"{row['parameter']} {float(row['spread']):.3f}" if float(row["spread"]) >= 0.0005 else "-"
                for row in ordered[:3]
            ]
            together = only(here, parameter="all together")[0]
            rows.append(
                [
                    NAMES[workload],
                    plane,
                    *cells,
                    _span(together, "efficiency_at_low", "efficiency", "efficiency_at_high"),
                ]
            )
    return _markdown(["workload", "control plane", "dominates", "second", "third", "all together"], rows)


def _sensitivity_text(table: Table, said: dict[str, dict[str, str]]) -> str:
    lines = [said[key]["statement"] for key in ("jitter_dominates_fast_planes", "request_cost_dominates_coordinator")]
    tops = {plane: dominant(table, "stemdl", plane, machine_only=True) for plane in ("point-to-point", "coordinator")}
    lines.append(
        "For STEMDL under a slow control plane the workload's own growth dominates: a smaller network has a"
        " shorter step and as"
        " many requests. Leaving growth out, "
        + " and ".join(
            f"{row['parameter']} dominates {plane} ({float(row['spread']):.2f})" for plane, row in tops.items()
        )
        + "."
    )
    nvme = only(table, workload="stemdl", control_plane="cached", parameter="STEMDL growth 128, read from NVMe")[0]
    lines.append(
        "Growth rows take input as never late. Read from node-local NVMe at 5.5 GB/s, growth 128 falls to"
        f" {float(nvme['efficiency_at_low']):.2f} under the cached control plane: six samples take longer to"
        f" read than the step."
        " That is storage, not negotiation."
    )
    return "\n\n".join(lines)


def _published(table: Table) -> str:
    def interval(row: dict[str, str]) -> str:
        if not row["predicted"]:
            return ""
        if not row["predicted_low"]:
            return row["predicted"]
        return f"{row['predicted']} ({row['predicted_low']} to {row['predicted_high']})"

    rows = [
        [
            row["id"],
            row["what"],
            f"{int(row['gpus']):,}",
            row["published"],
            interval(row),
            row["interval_over"],
            row["verdict"],
            row["status"],
            row["note"],
        ]
        for row in table
    ]
    return _markdown(
        ["", "what", "GPUs", "published", "here (interval)", "interval over", "verdict", "status", "note"], rows
    )


def _v1(table: Table) -> str:
    costs = list(dict.fromkeys(row["request_cost_us"] for row in only(table, row="speed-up")))
    rows = []
    for case in dict.fromkeys(row["case"] for row in table):
        here = only(table, case=case, groups="layer")
        ratios = [only(here, row="speed-up", request_cost_us=cost)[0]["speedup"] for cost in costs]
        gives = only(here, row="cost that gives 2.0")[0]["request_cost_us"]
        rows.append(
            [
                NAMES[case] + (", batch 64" if case == "resnet50" else ""),
                *(f"{float(r):.2f}" for r in ratios),
                f"{gives} us" if gives else "none below 10 us",
            ]
        )
    return _markdown(["workload", *(f"{cost} us" for cost in costs), "cost that gives 2.0"], rows)


def _v1_text(table: Table) -> str:
    ratios = {
        case: [
            float(row["speedup"])
            for row in only(table, case=case, groups="layer", row="speed-up")
            if 0.3 <= float(row["request_cost_us"]) <= 1.0
        ]
        for case in dict.fromkeys(row["case"] for row in table)
    }
    resnet = [value for case, found in ratios.items() if case != "stemdl" for value in found]
    gives = [
        row["request_cost_us"]
        for row in only(table, groups="layer", row="cost that gives 2.0")
        if row["case"] != "stemdl"
    ]
    between = max(ratios["stemdl"]) < 2 < min(resnet)
    text = (
        f"With the measured request cost the model gives"
        f" {min(ratios['stemdl']):.2f}-{max(ratios['stemdl']):.2f} for STEMDL and"
        f" {min(resnet):.1f}-{max(resnet):.1f} for ResNet-50. "
    )
    if between:
        text += (
            "The published 2.0 lies between the two, and nothing that was read says which model it is of."
            " If it is ResNet-50, the"
            f" model charges the coordinator too much: 2.0 needs {' / '.join(gives)} us a request, below"
            f" what real Horovod showed"
            " (0.3-1.0 us)."
        )
    best = {}
    for row in only(table, row="speed-up", request_cost_us="0.3"):
        if row["case"] == "resnet50":
            best[row["groups"]] = float(row["speedup"])
    if len(best) > 1:
        text += (
            " By grouping: "
            + ", ".join(f"{GROUP_NAMES.get(key, key + ' groups')} {value:.2f}" for key, value in best.items())
            + " at 0.3 us (ResNet-50, batch 64)."
        )
    return text


def _ridge(table: Table) -> str:
    sigmas = list(dict.fromkeys(row["jitter_sigma_percent"] for row in only(table, row="efficiency")))
    rows = []
    for row in only(table, row="sigma that gives 0.93"):
        here = only(table, row="efficiency", groups=row["groups"], bandwidth=row["bandwidth"])
        gives = row["jitter_sigma_percent"]
        rows.append(
            [
                GROUP_NAMES.get(row["groups"], row["groups"]),
                row["bandwidth"],
                *(f"{float(r['efficiency']):.3f}" for r in here),
                f"{gives} %" if gives else "none",
            ]
        )
    return _markdown(["groups", "bandwidth", *(f"{sigma} %" for sigma in sigmas), "gives 0.93"], rows)


def _ridge_text(table: Table) -> str:
    gives = [row for row in only(table, row="sigma that gives 0.93") if row["jitter_sigma_percent"]]
    split = [float(row["jitter_sigma_percent"]) for row in gives if row["groups"] in ("none", "layer", "8")]
    one = [float(row["jitter_sigma_percent"]) for row in gives if row["groups"] == "1"]
    text = (
        f"With the gradient in several parts, bandwidth hardly matters: 0.93 needs a sigma of"
        f" {min(split):.2f}-{max(split):.2f} %."
        " 1.5 % comes from Sinha et al., one of three readings of their 8 % and 22 % (1.0, 1.5, 4.1 %)."
    )
    if one:
        text += f" With one group it needs {min(one):.2f}-{max(one):.2f} %, depending on bandwidth."
        text += " So 0.93 cannot tell jitter from grouping; more jitter than"
        text += f" {max(split):.2f} % it excludes, in this model and against one GPU."
    return text


def _short(tables: Tables, said: dict[str, dict[str, str]]) -> str:
    efficiency = tables["efficiency"]
    gpus = _largest(efficiency)
    lines = []
    for workload in ("stemdl", "resnet50"):
        rows = {row["control_plane"]: row for row in only(efficiency, workload=workload, groups="layer", gpus=gpus)}
        lines.append(
            f"- {NAMES[workload]} at {gpus:,} GPUs, layer groups (low / median / high): "
            + "; ".join(
                f"{plane} {_span(rows[plane], 'efficiency_low', 'efficiency', 'efficiency_high')}"
                for plane in ("cached", "hierarchical", "coordinator", "point-to-point")
            )
            + "."
        )
    for workload in ("stemdl", "resnet50"):
        row = only(tables["thresholds"], workload=workload, groups="layer", control_plane="coordinator", share="0.1")[0]
        half = only(tables["thresholds"], workload=workload, groups="layer", control_plane="coordinator", share="0.5")[
            0
        ]
        lines.append(
            f"- The coordinator costs 10 % of a {NAMES[workload]} step from {_count(row, 'gpus')} GPUs"
            f" ({_count(row, 'gpus_low')} to {_count(row, 'gpus_high')} over request cost), 50 % from"
            f" {_count(half, 'gpus')}"
            f" ({_count(half, 'gpus_low')} to {_count(half, 'gpus_high')})."
        )
    outcome = {"yes": "came out", "no": "did not come out"}
    lines.append(
        f"- That the coordinator is invisible when small {outcome[said['coordinator_invisible_when_small']['holds']]}."
        f" That fast control planes make small messages"
        f" {outcome[said['fast_control_plane_makes_small_messages']['holds']]}."
        f" That grouping wins it back {outcome[said['grouping_wins_back_ring']['holds']]} on rings and"
        f" {outcome[said['grouping_wins_back_nccl']['holds']]} where NCCL has its tree."
    )
    lines.append(
        f"- {said['jitter_dominates_fast_planes']['statement']}"
        f" {said['request_cost_dominates_coordinator']['statement']}"
    )
    for row in tables["published"]:
        if row["id"] == "V5" and row["what"].endswith(": against one GPU"):
            lines.append(
                f"- V5: {row['predicted']} ({row['predicted_low']} to {row['predicted_high']}) against 0.93"
                f" published: {row['verdict']}."
            )
    draws = [row for row in tables["published"] if "other draws" in row["what"]]
    for row in draws:
        lines[-1] += (
            f" Other draws of the GPUs give {row['predicted']} ({row['predicted_low']} to {row['predicted_high']},"
            f" {row['interval_over']})."
        )
    return "\n".join(lines)
