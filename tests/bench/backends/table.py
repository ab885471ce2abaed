"""The tables in Markdown, aligned to be read as they are, and the block of a page that they replace."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from tests.bench.backends.samples import Report, summary
from tests.bench.backends.verdicts import milliseconds, verdicts
from tests.bench.backends.works import WORKS

BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


def markdown(report: Report) -> str:
    """Targets first, then every arm."""
    facts = "; ".join(f"{name} {value}" for name, value in report.machine.items())
    parts = [f"{report.date}; {facts}.{_noise(report)}", targets(report)]
    if any(each.steps_ms for each in report.samples):
        parts.append(arms(report))
    if any(each.idle_share is not None for each in report.samples):
        parts.append(idles(report))
    problems = sorted({f"- {each.work}, {each.ranks} ranks, {each.arm}: {_last_line(each.error)}"
                       for each in report.samples if each.error})  # fmt: skip
    if problems:
        parts.append("Launches without a result:\n\n" + "\n".join(problems))
    return "\n\n".join(parts) + "\n"


def targets(report: Report) -> str:
    rows = [
        [each.work, each.ranks, each.ours, each.against, each.ratio, each.target, each.verdict]
        for each in verdicts(report)
    ]
    return table(["work", "N", "ours", "against", "ratio", "target", "verdict"], rows, "<><<><<")


def arms(report: Report) -> str:
    """Step times of every arm."""
    rows = []
    for work in WORKS.values():
        for ranks in sorted({each.ranks for each in report.samples if each.work == work.name}):
            for arm in work.arms:
                steps = summary(report.of(work.name, ranks, arm))
                if steps is not None:
                    rows.append([
                        work.title, str(ranks), arm, milliseconds(steps.median),
                        f"{_short(steps.p10)} to {_short(steps.p90)}",
                        f"{_short(steps.lowest)} to {_short(steps.highest)}", _short(steps.cpu_ms),
                        _short(steps.submit_ms),
                    ])  # fmt: skip
    return table(["work", "N", "arm", "step", "p10 to p90", "launches", "CPU", "submit"], rows, "<><>>>>>")


def idles(report: Report) -> str:
    """What doing nothing costs on every arm."""
    shares: dict[tuple[int, str], list[float]] = {}
    for each in report.samples:
        if each.idle_share is not None:
            shares.setdefault((each.ranks, each.arm), []).append(each.idle_share)
    rows = [
        [str(ranks), arm, f"{statistics.median(found):.2%}", f"{min(found):.2%} to {max(found):.2%}"]
        for (ranks, arm), found in sorted(shares.items())
    ]
    return table(["N", "arm", "idle, of a core", "launches"], rows, "><>>")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """``align``: ``<`` or ``>`` a column."""
    widths = [max(3, *(len(row[column]) for row in (head, *rows))) for column in range(len(head))]
    rule = ["-" * (width - 1) + ("-" if side == "<" else ":") for width, side in zip(widths, align, strict=True)]
    lines = [
        " | ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, align, widths, strict=True))
        for row in (head, rule, *rows)
    ]
    return "\n".join(f"| {line} |" for line in lines)


def replace_block(page: Path, block: str) -> None:
    """``block`` between the page's marks instead of what stands there. Raises ValueError where there are no marks."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN + "\n")
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page}: no {BEGIN} and {END}, each on its line")
    beside = page.with_name(page.name + ".new")
    beside.write_text(f"{before}{begin}\n{block.rstrip()}\n\n{end}{after}", encoding="utf-8")
    beside.replace(page)


def _noise(report: Report) -> str:
    """How much of the machine others had."""
    others = [each.others for each in report.samples if each.others is not None]
    if not others:
        return ""
    middle, most = statistics.median(others), max(others)
    return f" Other processes had {middle:.0%} of the cores (median of launches; {most:.0%} at most)."


def _short(value: float) -> str:
    return milliseconds(value).removesuffix(" ms")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
