"""What a launch brought, in numbers, and the file that keeps all of them."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = "coordsim.bench.backends/1"
SKIPPED_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One launch of one arm."""

    work: str
    ranks: int
    arm: str
    round: int
    others: float | None = None
    """CPU time that other processes took during the launch, as share of all cores; None where it is not known."""
    steps_ms: list[float] = field(default_factory=list)
    cpu_ms: float = 0.0
    """CPU time of a step, mean over steps and ranks."""
    submit_ms: float = 0.0
    """From a step's begin to its last submission, median over steps and ranks."""
    slow_after_first: int | None = None
    """Slow-path exchanges after the first step, of all ranks together; None where nothing counts them."""
    idle_share: float | None = None
    """Of a core, the largest of all ranks."""
    recorder: list[float] = field(default_factory=list)
    """Median step with a recorder over that without, of each pair of blocks."""
    error: str = ""
    """Why there is nothing else."""


def step_times_ms(ranks: Sequence[Mapping[str, Any]]) -> list[float]:
    """From the end of one step on the last rank to that of the next on its last; the first steps are skipped.

    ``ranks``: the worker's results. As in the recorded runs of Horovod.
    """
    ends = [max(each) for each in zip(*(rank["end"] for rank in ranks), strict=True)]
    return [(end - before) * 1e3 for before, end in itertools.pairwise(ends)][SKIPPED_STEPS - 1 :]


def numbers(kind: str, ranks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The worker's results as fields of a :class:`Sample`."""
    if kind == "idle":
        return {"idle_share": max(rank["idle_share"] for rank in ranks)}
    if kind == "recorder":
        return _recorder(ranks)
    steps = len(ranks[0]["end"])
    found = {
        "steps_ms": step_times_ms(ranks), "cpu_ms": sum(rank["cpu_s"] for rank in ranks) / len(ranks) / steps * 1e3,
        "submit_ms": 1e3 * statistics.median(
            submitted - start
            for rank in ranks
            for start, submitted in zip(rank["start"], rank["submitted"], strict=True)
        ),
    }  # fmt: skip
    counted = [rank["counters"] for rank in ranks if rank["counters"][0]]
    if counted:
        found["slow_after_first"] = sum(last["slow_cycles"] - first["slow_cycles"] for first, last in counted)
    return found


def _recorder(ranks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if not all(rank["recorded_files"] for rank in ranks):
        return {"error": "nothing was recorded"}
    rounds = list(zip(*(rank["rounds"] for rank in ranks), strict=True))
    ratios = []
    for pair in zip(rounds[::2], rounds[1::2], strict=True):
        medians = {each[0]["recorded"]: statistics.median(step_times_ms(each)) for each in pair}
        ratios.append(medians[True] / medians[False])
    return {"recorder": ratios}


@dataclass(frozen=True)
class Steps:
    """Step times of one arm, ms: medians over launches of each launch's median, tenth and ninetieth percentile."""

    median: float
    p10: float
    p90: float
    lowest: float
    """The lowest launch's median, and the highest's: how noisy it was."""
    highest: float
    cpu_ms: float
    submit_ms: float
    launches: int


def summary(samples: Sequence[Sample]) -> Steps | None:
    """Of one arm's launches; None when none brought step times."""
    timed = [each for each in samples if each.steps_ms]
    if not timed:
        return None
    medians = [statistics.median(each.steps_ms) for each in timed]
    return Steps(
        statistics.median(medians), statistics.median(_percentile(each.steps_ms, 0.1) for each in timed),
        statistics.median(_percentile(each.steps_ms, 0.9) for each in timed), min(medians), max(medians),
        statistics.median(each.cpu_ms for each in timed), statistics.median(each.submit_ms for each in timed),
        len(timed),
    )  # fmt: skip


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


@dataclass(frozen=True)
class Report:
    """A run of the benchmark, or as much of it as there is."""

    date: str
    machine: dict[str, str]
    samples: list[Sample]

    def of(self, work: str, ranks: int, arm: str) -> list[Sample]:
        return [each for each in self.samples if (each.work, each.ranks, each.arm) == (work, ranks, arm)]


def write(report: Report, path: Path) -> None:
    """The file is whole, or as it was before."""
    whole = {"schema": SCHEMA, **asdict(report)}
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def read(path: Path) -> Report:
    """What :func:`write` wrote. Raises ValueError for another file."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if found.get("schema") != SCHEMA:
        raise ValueError(f"{path}: not of schema {SCHEMA}")
    return Report(found["date"], found["machine"], [Sample(**each) for each in found["samples"]])
