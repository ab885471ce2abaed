"""Published numbers beside predictions, for people and for scripts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

from coordsim.report import tables
from coordsim.report.tables import Page

if TYPE_CHECKING:
    from coordsim.analyse.validate.published.judge import Progress

SCHEMA = "coordsim.published/1"
TITLES = {
    "V1": "Horovod with cache and layer groups over its original design",
    "V2": "Horovod over tf.distribute",
    "V3": "Horovod with cache and layer groups over PyTorch DDP",
    "V4": "Horovod over BytePS",
    "V5": "STEMDL on Summit: scaling efficiency",
    "V6": "STEMDL on Summit: FLOP/s",
    "V7": "STEMDL on Summit: peak",
    "V8": "DeepLabv3+ on Summit: scaling efficiency",
    "V9": "DeepLabv3+ on Summit: FLOP/s",
    "V13": "Horovod's chart of 512 Pascal GPUs: scaling efficiency",
    "V16": "Latencies by which NCCL 2.4.8 chooses",
    "V17": "One coordinator, point to point, above 10,000 GPUs: scaling efficiency",
    "V18": "STEMDL on Summit: power",
    "V20": "Real Horovod, ResNet-50, one DGX-1: step time",
    "V21": "Real Horovod, ResNet-50, one DGX-2H: step time",
    "V22": "Real Horovod, ResNet-50, 32 DGX-2H, 16 groups: step time",
    "V23": "Real Horovod, ResNet-50, 32 DGX-2H, 1 group, newer software: step time",
    "V24": "Real Horovod, ResNet-50, one DGX A100: step time",
    "V25": "Real Horovod, ResNet-50, 8 DGX A100: step time",
}
_LABEL = 11
_ALIGN = "lrrrlrll"
_OFF = 5


def published_facts(progress: Progress | None = None, *, quick: bool = False) -> dict[str, Any]:
    """Every row as it is (schema ``coordsim.published/1``), and ``missed``: promises not kept, one sentence each.

    ``progress(done, total)`` counts parts. ``quick`` has fewer steps, seeds and parameters.
    """
    from coordsim.analyse.validate.published import published_rows
    from coordsim.analyse.validate.published.judge import missed

    rows = published_rows(progress, quick=quick)
    shown = []
    for row in rows:
        facts = {**asdict(row), "title": TITLES[row.id]}
        shown.append({**facts, "dominated_by": row.spreads[0].name if row.spreads else None})
    return {"schema": SCHEMA, "quick": quick, "missed": missed(rows), "v1": v1_sentence(shown), "rows": shown}


def published_table(facts: dict[str, Any], page: Page) -> str:
    """A block a target: its rows, then what stands behind them."""
    lines = [page.bold("Published numbers, and what coordsim says of them"), ""]
    lines += page.wrap(
        "predicted: all parameters at their medians (least and most with all, or any one, at their ends). off: "
        "predicted less published. F: a parameter was fitted to this very figure; p: predicted; c: a check, by "
        "arithmetic or of consistency."
    )
    told: dict[str, str] = {}
    for key, members in groupby(facts["rows"], key=lambda row: row["id"]):
        rows = list(members)
        lines += ["", *(page.bold(line) for line in page.wrap(TITLES[key], f"{key}  "))]
        if rows[0]["use"] == "not modelled":
            lines += _not_modelled(rows, page)
            continue
        lines += _curve(rows) if rows[0]["use"] == "curve" else _table(rows)
        lines += tables.facts(_background(rows, told, facts["v1"]), page, label=_LABEL)
    lines += [""]
    for missed in facts["missed"]:
        lines += [page.bold(line) for line in page.wrap(f"MISSED {missed}", rest="  ")]
    if not facts["missed"]:
        lines.append("No stated tolerance is missed.")
    lines += page.wrap("Every parameter's range, source and effect: --json.")
    return "\n".join(lines)


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    digits = 1 if max(row["predicted"] for row in rows) >= 100 else 2 if rows[0]["id"] == "V18" else 3
    table: list[tuple[str, ...]] = [("", "GPUs", "published", "predicted", "", "off", "", "")]
    for row in rows:
        found = "" if row["low"] is None else f"({row['low']:.{digits}f}-{row['high']:.{digits}f})"
        kind = {"fitted": "F", "predicted": "p"}.get(row["use"], "c")
        counts = row["use"] != "check" and row["target"] is not None
        off = f"{row['predicted'] - row['target']:+.3f}" if counts else ""
        verdict = {"miss": "MISS", "no verdict": ""}.get(row["verdict"], row["verdict"])
        value = f"{row['predicted']:,.{digits}f}"
        table.append((row["what"], f"{row['gpus']:,}", row["published"], value, found, off, kind, verdict))
    if not any(row[_OFF] for row in table[1:]):
        table = [(*row[:_OFF], *row[_OFF + 1 :]) for row in table]
        return tables.columns(table, _ALIGN[:_OFF] + _ALIGN[_OFF + 1 :], gap=1, indent=2)
    return tables.columns(table, _ALIGN, gap=1, indent=2)


def _curve(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Speed-up by model and request cost, and the cost that would give the published one."""
    costs = [f"{point['request_cost_us']:.2f} us" for point in rows[0]["curve"]]
    table = [(f"{rows[0]['gpus']:,} GPUs, at a request cost of", *costs, f"{rows[0]['published']} takes")]
    for row in rows:
        gives, tried = row["cost_that_gives_us"], row["cost_tried_us"]
        takes = f"{gives:.2f} us" if gives is not None else f"> {tried:.0f} us"
        table.append((row["what"], *(f"{point['value']:.2f}x" for point in row["curve"]), takes))
    return tables.columns(table, "l" + "r" * (len(costs) + 1), indent=2)


def v1_sentence(rows: Sequence[dict[str, Any]]) -> str:
    """What the curve says about the published figure: which models lie above or below it, and what it would take."""
    rows = [row for row in rows if row["id"] == "V1"]
    target, least = rows[0]["target"], rows[0]["curve"][0]["request_cost_us"]
    above = [row for row in rows if row["low"] > target]
    below = [row for row in rows if row["high"] < target]
    across = [row for row in rows if row not in above and row not in below]
    parts = ["no pass or fail: neither model nor batch is in the text read"]
    for which, words in ((above, "above"), (below, "below"), (across, "on both sides of")):
        if which:
            names = " and ".join(row["what"] for row in which)
            parts.append(f"{names}: {words} {target:.1f} over all measured costs")
    gives = [row["cost_that_gives_us"] for row in above if row["cost_that_gives_us"] is not None]
    if gives:
        parts.append(
            f"for those above, {target:.1f} takes {min(gives):.2f}-{max(gives):.2f} us a request, less than the least "
            f"that real Horovod showed ({least:.2f} us): if it is of one of them, the model charges the original "
            "design too much"
        )
    return "; ".join(parts)


def _background(rows: Sequence[dict[str, Any]], told: dict[str, str], v1: str) -> list[tuple[str, str]]:
    """Era, what was fitted, what dominates, source: each once for the rows that share it.

    ``told``: eras so far -> the target that told them; added to.
    """
    key = rows[0]["id"]
    found = [("era", f"as {told[era]}" if era in told else era) for era in _once(row["era"] for row in rows)]
    told.update({row["era"]: key for row in rows if row["era"] not in told})
    fitted = _once(each for row in rows for each in row["fitted"])
    if fitted or rows[0]["use"] != "check":
        found.append(("fitted", "; ".join(fitted) or "nothing"))
    plain = [row for row in rows if row["without_fit"] is not None and row["tolerance"]]
    if plain:
        values = ", ".join(f"{row['what']} {row['without_fit']:.3f}" for row in plain)
        found.append(("unfitted", f"the catalog's cluster and workloads as they stand: {values}"))
    found += [("dominant", f"{_named(row, rows)}{_moves(row)}") for row in rows if row["spreads"]]
    if key == "V1":
        found.append(("verdict", v1))
    found += [("promised", each) for each in _once(row["tolerance"] for row in rows)]
    found += [("note", each) for each in _once(row["note"] for row in rows)]
    return found + [("source", each) for each in _once(f"{row['source']}: {row['status']}" for row in rows)]


def _named(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    if sum(1 for each in rows if each["spreads"]) == 1:
        return ""
    same = [each for each in rows if each["what"] == row["what"] and each["spreads"]]
    return f"{row['what']}, {row['gpus']:,}: " if len(same) > 1 else f"{row['what']}: "


def _moves(row: dict[str, Any]) -> str:
    most = row["spreads"][0]
    return f"{most['name']}, {most['at_low']:.3f} at {most['low']} to {most['at_high']:.3f} at {most['high']}"


def _not_modelled(rows: Sequence[dict[str, Any]], page: Page) -> list[str]:
    lines = []
    for row in rows:
        lines += page.wrap(
            f"not modelled: {row['note']} ({row['what']}, {row['gpus']:,} GPUs, published {row['published']})", "  "
        )
    return [*lines, *tables.facts([("source", each) for each in _once(row["source"] for row in rows)], page,
                                  label=_LABEL)]  # fmt: skip


def _once(values: Iterable[str]) -> list[str]:
    return [each for each in dict.fromkeys(values) if each]
