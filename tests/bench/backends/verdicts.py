"""Reached or missed: each target beside what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from tests.bench.backends.samples import Report, summary
from tests.bench.backends.works import WORKS, Target, Work

REACHED, MISSED, FAILED = "reached", "MISSED", "FAILED"


@dataclass(frozen=True)
class Verdict:
    """One row of the table; texts, but for nothing."""

    work: str
    ranks: str
    ours: str
    against: str
    ratio: str
    target: str
    verdict: str


def verdicts(report: Report) -> Iterator[Verdict]:
    """All targets of which something was tried, in the order of the works."""
    tried = {(each.work, each.ranks) for each in report.samples}
    for work in WORKS.values():
        for ranks in sorted(ranks for name, ranks in tried if name == work.name):
            if work.kind == "steps":
                yield from (_ratio(report, work, ranks, target) for target in work.targets)
            elif work.kind == "idle":
                yield _idle(report, work, ranks)
            else:
                yield _recorder(report, work, ranks)
    steady = _steady(report)
    if steady is not None:
        yield steady


def _ratio(report: Report, work: Work, ranks: int, target: Target) -> Verdict:
    ours = summary(report.of(work.name, ranks, "ours"))
    others = {arm: summary(report.of(work.name, ranks, arm)) for arm in target.against}
    there = {arm: steps.median for arm, steps in others.items() if steps is not None}
    missing = [arm for arm in target.against if arm not in there]
    best = min(there, key=lambda arm: there[arm]) if there else ""
    against = f"{best} {milliseconds(there[best])}" if there else "-"
    if ours is None:
        return Verdict(work.title, str(ranks), "-", against, "-", target.text(), _why(report, work, ranks, "ours"))
    ratio = ours.median / there[best] if there else None
    if missing:
        verdict = _why(report, work, ranks, missing[0])
    else:
        verdict = REACHED if ratio is not None and ratio <= target.ratio else MISSED
    return Verdict(
        work.title, str(ranks), milliseconds(ours.median), against, "-" if ratio is None else f"{ratio:.2f}",
        target.text(), verdict,
    )  # fmt: skip


def _why(report: Report, work: Work, ranks: int, arm: str) -> str:
    """Why there is no verdict without ``arm``."""
    return f"{FAILED}: {arm}" if report.of(work.name, ranks, arm) else f"skipped: no {arm}"


def _idle(report: Report, work: Work, ranks: int) -> Verdict:
    shares = {
        arm: statistics.median(found)
        for arm in work.arms
        if (found := [each.idle_share for each in report.of(work.name, ranks, arm) if each.idle_share is not None])
    }
    others = {arm: share for arm, share in shares.items() if arm.startswith("horovod")}
    best = min(others, key=lambda arm: others[arm], default="")
    against = f"{best} {others[best]:.2%}" if best else "-"
    ours = shares.get("ours")
    verdict = _why(report, work, ranks, "ours") if ours is None else REACHED if ours < work.below else MISSED
    return Verdict(
        work.title, str(ranks), "-" if ours is None else f"{ours:.2%}", against, "-", f"< {work.below:.0%}", verdict
    )


def _recorder(report: Report, work: Work, ranks: int) -> Verdict:
    samples = report.of(work.name, ranks, "ours")
    ratios = [ratio for each in samples for ratio in each.recorder]
    target = f"< {1 + work.below:g}"
    if not ratios:
        nothing = all(each.error == "nothing was recorded" for each in samples)
        why = "skipped: records nothing" if nothing else f"{FAILED}: ours"
        return Verdict(work.title, str(ranks), "-", "without", "-", target, why)
    ratio = statistics.median(ratios)
    verdict = REACHED if ratio < 1 + work.below else MISSED
    return Verdict(work.title, str(ranks), f"{ratio - 1:+.1%}", "without", f"{ratio:.3f}", target, verdict)


def _steady(report: Report) -> Verdict | None:
    """Slow-path exchanges after the first step, over all launches that count them."""
    counted = [each.slow_after_first for each in report.samples if each.slow_after_first is not None]
    if not counted:
        return None
    verdict = REACHED if sum(counted) == 0 else MISSED
    return Verdict("slow path later", "all", str(sum(counted)), f"{len(counted)} launches", "-", "0", verdict)


def milliseconds(value: float) -> str:
    """Three digits or so."""
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms" if value >= 10 else f"{value:.2f} ms"
