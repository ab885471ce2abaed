"""What ``coordsim demo`` shows: a table for each workload, a figure, and three sentences read off the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from coordsim.analyse.answer import Answer
from coordsim.protocol.planes import CACHED, COORDINATOR, IDEAL, PLANES
from coordsim.record.breakdown import CONTROL_PARTS
from coordsim.report import tables, text
from coordsim.report.figures import Curve, Panel, efficiency_figure
from coordsim.report.tables import Page

SCHEMA = "coordsim.demo/1"
TITLES = {"stemdl": "STEMDL", "resnet50": "ResNet-50"}
CLOSE = 0.001
"""A smaller share of a step is called nothing."""
ON_CYCLE = 0.05
"""A step this close to a whole number of cycles, in cycles, ended on one."""


@dataclass(frozen=True)
class Case:
    """One simulation of the demo."""

    workload: str
    control_plane: str
    groups: str
    ranks: int
    step_time_s: float
    baseline_step_s: float
    scaling_efficiency: float
    control_share: float
    node_hours_per_1000_steps: float
    cycle_time_s: float
    """0 for control planes that know no cycles."""

    @property
    def label(self) -> str:
        return self.control_plane + (" + layers" if self.groups == "layer" else "")


def case_of(answer: Answer, workload: str, groups: str, cycle_time_ns: int) -> Case:
    """One simulation's answer as a row of the demo."""
    assert answer.scaling is not None
    assert answer.costs is not None
    step_s, scaling = answer.step_time.mean.value, answer.scaling
    return Case(
        workload, str(answer.control_plane), groups, answer.ranks or 1, step_s, scaling.baseline_step_s,
        scaling.efficiency,
        sum(answer.part(part) or 0.0 for part in CONTROL_PARTS) / step_s, answer.costs.node_hours_per_1000_steps,
        cycle_time_ns / 1e9,
    )  # fmt: skip


@dataclass(frozen=True)
class Demo:
    cluster: str
    steps: int
    seed: int
    cases: tuple[Case, ...]
    steady: bool
    """All jitter is persistent: every step is drawn alike."""

    @property
    def workloads(self) -> list[str]:
        return list(dict.fromkeys(case.workload for case in self.cases))

    @property
    def sizes(self) -> list[int]:
        return list(dict.fromkeys(case.ranks for case in self.cases))

    def of(self, workload: str, ranks: int | None = None) -> list[Case]:
        """Cases of one workload, of all sizes or one."""
        return [case for case in self.cases if case.workload == workload and ranks in (None, case.ranks)]


def demo_facts(demo: Demo, figures: list[str]) -> dict[str, Any]:
    """The demo for scripts (schema ``coordsim.demo/1``)."""
    return {
        "schema": SCHEMA,
        "cluster": demo.cluster,
        "steps": demo.steps,
        "seed": demo.seed,
        "sizes": demo.sizes,
        "results": [asdict(case) for case in demo.cases],
        "findings": findings(demo),
        "figures": figures,
    }


def demo_text(demo: Demo, page: Page) -> str:
    """Tables, then sentences."""
    lines = []
    for workload in demo.workloads:
        lines += [*_table(demo, workload, page), ""]
    for sentence in findings(demo):
        lines += page.wrap(sentence)
    return "\n".join(lines)


def demo_figure(demo: Demo) -> Any:
    """A panel for each workload."""
    panels = []
    for workload in demo.workloads:
        curves: dict[str, list[Case]] = {}
        for case in demo.of(workload):
            curves.setdefault(case.label, []).append(case)
        panels.append(
            Panel(
                f"{_title(workload)}, {text.seconds(demo.of(workload)[0].baseline_step_s)} a step on one GPU",
                tuple(
                    Curve(name, tuple(c.ranks for c in cases), tuple(c.scaling_efficiency for c in cases))
                    for name, cases in curves.items()
                ),
            )
        )
    title = f"Who decides what is reduced when: control planes on {demo.cluster.capitalize()}, simulated"
    return efficiency_figure(title, panels)


def _table(demo: Demo, workload: str, page: Page) -> list[str]:
    """Rows are control planes, columns are sizes."""
    by_label: dict[str, list[Case]] = {}
    for case in demo.of(workload):
        by_label.setdefault(case.label, []).append(case)
    rows = [["efficiency at", *(f"{size:,}" for size in demo.sizes), "GPUs", "control"]]
    snapped = {label: cases[0].cycle_time_s for label, cases in by_label.items() if _snaps(demo, cases)}
    for label, cases in by_label.items():
        shares = [text.percent(case.scaling_efficiency) for case in cases]
        rows.append([f"{label} *" if label in snapped else label, *shares, "", text.percent(cases[-1].control_share)])
    lines = tables.columns(rows, "l" + "r" * len(demo.sizes) + "lr", indent=2)
    title = f"{_title(workload)} on {demo.cluster.capitalize()}"
    note = f"; control: share of the step at {demo.sizes[-1]:,} GPUs"
    if snapped:
        cycles = ", ".join(text.seconds(each) for each in dict.fromkeys(snapped.values()))
        footnote = f"  * steps snap to whole cycles ({cycles}): all jitter here is persistent"
        lines.append(page.dim(footnote))
    return [page.bold(title) + page.dim(note), page.dim(lines[0]), *lines[1:]]


def _snaps(demo: Demo, cases: Sequence[Case]) -> bool:
    """Whether two sizes take the same whole number of cycles though the jitter of one is larger: where every step
    is drawn alike, its last gradient meets the same cycle every time, and more of it shows in no mean."""
    if not demo.steady or not cases[0].cycle_time_s:
        return False
    drawn = {case.ranks: case.step_time_s for case in demo.of(cases[0].workload) if PLANES[case.control_plane].free}
    for one, other in pairwise(cases):
        cycles = [case.step_time_s / case.cycle_time_s for case in (one, other)]
        ends_on_one = all(abs(each - round(each)) < ON_CYCLE for each in cycles)
        jitter_grows = drawn[other.ranks] - drawn[one.ranks] > CLOSE * drawn[one.ranks]
        if ends_on_one and round(cycles[0]) == round(cycles[1]) and jitter_grows:
            return True
    return False


def findings(demo: Demo) -> list[str]:
    """Three sentences, whatever the numbers are."""
    return [_range(demo, demo.workloads[0]), _range(demo, demo.workloads[-1]), _saving(demo)]


def _range(demo: Demo, workload: str) -> str:
    """The coordinator, the cache, the ceiling and the worst at the largest size."""
    largest = {case.label: case for case in demo.of(workload, demo.sizes[-1])}
    share = {name: text.percent(case.scaling_efficiency) for name, case in largest.items()}
    sentence = (
        f"At {demo.sizes[-1]:,} GPUs {_title(workload)} scales to {share[COORDINATOR.name]} with the coordinator "
        f"and to {share[CACHED.name]} with the cached bit vector; free negotiation would give {share[IDEAL.name]}"
    )
    worst = min(largest.values(), key=lambda case: case.scaling_efficiency)
    if worst.label not in (COORDINATOR.name, CACHED.name):
        sentence += f", {worst.label} gives {share[worst.label]}"
    return sentence + "."


def _saving(demo: Demo) -> str:
    """What leaving the coordinator saves each workload, and what groups add."""
    saved, further = [], []
    for workload in demo.workloads:
        cases = {case.label: case for case in demo.of(workload, demo.sizes[-1])}
        old, new, grouped = cases[COORDINATOR.name], cases[CACHED.name], cases[f"{CACHED.name} + layers"]
        hours = old.node_hours_per_1000_steps - new.node_hours_per_1000_steps
        share = text.percent(1 - new.step_time_s / old.step_time_s)
        saved.append(f"{_title(workload)} {share} of its step ({text.number(hours)} node-hours for 1,000 steps)")
        further.append(1 - grouped.step_time_s / new.step_time_s)
    ending = "groups by layer change nothing more"
    if max(map(abs, further)) >= CLOSE:
        each = zip(demo.workloads, further, strict=True)
        ending = "groups by layer save a further " + " and ".join(
            f"{text.percent(share)} ({_title(workload)})" for workload, share in each
        )
    return f"Going from the coordinator to the cache saves {' and '.join(saved)}; {ending}."


def _title(workload: str) -> str:
    return TITLES.get(workload, workload)
