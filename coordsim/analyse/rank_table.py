"""What each rank's own step is made of: medians, and which of them stand out."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import numpy as np
import numpy.typing as npt

from coordsim.analyse.medians import median_interval
from coordsim.analyse.stragglers.chain import SHARING
from coordsim.analyse.stragglers.judge import APART, LEAST_NS, WORTH
from coordsim.record.findings import Column, RankRow, RankTable
from coordsim.record.ranks.hosts import machines
from coordsim.record.ranks.merge import Merged
from coordsim.record.ranks.own import OwnStep

COLUMNS: tuple[Column, ...] = get_args(Column)
WAITS = ("gathers", "collectives")
"""Never marked: that a rank waits is another one's doing."""

Numbers = npt.NDArray[np.float64]


def rank_table(merged: Merged) -> RankTable:
    """One row a rank: medians over the steps (of the kind that takes most of the time, without the cold one)."""
    numbers = merged.steps[1:] if merged.first_step == 0 and len(merged.steps) > 1 else merged.steps
    kind = _kind(merged, numbers)
    chosen = [number for number in numbers if kind is None or merged.own[0][number].record.step_kind == kind]
    steps = [[of_rank[number] for of_rank in merged.own] for number in chosen]
    values = np.array([[_row(step) for step in of_ranks] for of_ranks in steps], dtype=np.float64)
    step_ns = float(np.median(values.sum(axis=2)))
    crowded = any(machine.crowded for machine in machines(merged.records))
    marks = _outliers(values, step_ns, SHARING if crowded else 1.0)
    rows = tuple(
        _rank_row(record.rank, record.head.get("host"), [of_ranks[place] for of_ranks in steps], marks[place])
        for place, record in enumerate(merged.records)
    )
    return RankTable(steps=len(chosen), kind=kind, columns=COLUMNS, shown_rank=merged.facts.shown_rank, ranks=rows)


def _rank_row(rank: int, host: str | None, steps: list[OwnStep], outliers: list[str]) -> RankRow:
    """One rank's row, from its own ``steps``."""
    columns = np.array([_row(step) for step in steps], dtype=np.float64)
    middle = np.median(columns, axis=0).tolist()
    return RankRow(
        rank=rank, host=host, **{f"{name}_s": value / 1e9 for name, value in zip(COLUMNS, middle, strict=True)},
        work_s=float(np.median([step.work.total for step in steps])) / 1e9,
        step_s=float(np.median(columns.sum(axis=1))) / 1e9,
        evaluation_s=float(np.mean([step.evaluation_ns for step in steps])) / 1e9,
        checkpoint_s=float(np.mean([step.checkpoint_ns for step in steps])) / 1e9,
        cpu_s=_cpu(steps), core_wait_s=_core_wait(steps), outliers=tuple(outliers),
    )  # fmt: skip


def _kind(merged: Merged, numbers: range) -> str | None:
    """The kind of step that takes most of the time, where there are several."""
    took: Counter[str] = Counter()
    for number in numbers:
        step = merged.own[0][number]
        took[step.record.step_kind] += step.end_ns - step.begin_ns
    return took.most_common(1)[0][0] if len(took) > 1 else None


def _row(step: OwnStep) -> tuple[int, ...]:
    work = step.work
    return (
        work.between_steps, work.input_stall, work.forward, work.backward, step.gathers_ns, step.collectives_ns,
        work.before_optimizer, work.optimizer,
    )  # fmt: skip


def _cpu(steps: list[OwnStep]) -> float | None:
    """Median CPU time of the training thread, s; None where it was not recorded."""
    known = [step.record.cpu.main_ns for step in steps if step.record.cpu is not None]
    return float(np.median(known)) / 1e9 if known else None


def _core_wait(steps: list[OwnStep]) -> float | None:
    """Mean time that the training thread was ready to run and no core was free, s; None where it was not recorded."""
    waits = [step.record.cpu.core_wait_ns for step in steps if step.record.cpu is not None]
    known = [wait for wait in waits if wait is not None]
    return float(np.mean(known)) / 1e9 if known else None


def _outliers(values: Numbers, step_ns: float, factor: float) -> list[list[str]]:
    """By rank, the columns in which it takes much longer than the median of the others (shape [step, rank, column]):
    by more than a step's hundredth and :data:`LEAST_NS`, by more than others differ, and steadily."""
    ranks = values.shape[1]
    found: list[list[str]] = [[] for _ in range(ranks)]
    if ranks < 2 or not values.shape[0]:
        return found
    levels = np.median(values, axis=0)
    for place in range(ranks):
        others = np.delete(values, place, axis=1)
        longer = values[:, place] - np.median(others, axis=1)
        for column, name in enumerate(COLUMNS):
            if name in WAITS:
                continue
            usual = np.delete(levels[:, column], place)
            spread = float(np.median(np.abs(usual - np.median(usual)))) if usual.size > 1 else 0.0
            least = max(LEAST_NS, WORTH * step_ns, APART * spread, (factor - 1) * float(np.median(usual)))
            median, low, _ = median_interval(longer[:, column])
            if median >= least and low > 0:
                found[place].append(name)
    return found
