"""From recorded launches to closed-loop problems: one case for each workload under one set of settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt

from coordsim.protocol.cache import ResponseCache
from coordsim.protocol.fusion import rounded_threshold
from coordsim.protocol.messages import Request, respond_to
from coordsim.record.horovod_runs import Launch, RecordedRuns, RecordedWorkload
from coordsim.simulate.closed_loop import LoopProblem
from coordsim.simulate.closed_loop.problem import SHARE_ONE

SKIPPED_STEPS = 3
"""The first steps of a workload fill caches and buffers; as in the recordings' own summaries."""
FEWEST_STEPS = 8


@dataclass(frozen=True)
class Case:
    """One workload under one set of settings, as often as it was launched."""

    name: str
    """Of its first launch."""
    workload: str
    launches: tuple[Launch, ...]
    recorded: tuple[RecordedWorkload, ...]
    """One a launch."""
    problems: tuple[LoopProblem, ...]
    """One a launch; empty when the case cannot be simulated."""
    fitted: bool
    refused: str
    """Why it cannot be predicted; empty when it can."""

    @property
    def controller(self) -> str:
        return self.launches[0].controller

    @property
    def ranks(self) -> int:
        return self.launches[0].ranks

    @property
    def delay_ns(self) -> int:
        """Of the network, one way."""
        return self.launches[0].delay_ns

    @property
    def single(self) -> bool:
        """A lottery over the loop's phase: judged by its distribution, not by its median."""
        small = self.recorded[0].gradient_bytes < 1 << 20
        return self.recorded[0].single and small


def cases(runs: RecordedRuns, fit: Iterable[str], cores: int | None = None) -> list[Case]:
    """All cases of ``runs``; those of files that match one of the globs ``fit`` are for fitting.

    ``cores`` overrides what the files say about the machine.
    """
    globs = tuple(fit)
    groups: dict[tuple[object, ...], list[tuple[Launch, int]]] = {}
    for launch in runs.launches:
        fitted = any(fnmatchcase(launch.file.stem, glob) for glob in globs)
        for index, workload in enumerate(launch.workloads):
            key = (*launch.settings, workload.name, tuple(sorted(map(str, workload.spec.items()))), fitted)
            groups.setdefault(key, []).append((launch, index))
    found = []
    for key, members in groups.items():
        launches = tuple(launch for launch, _ in members)
        recorded = tuple(launch.workloads[index] for launch, index in members)
        refused = _refusal(launches[0], recorded[0], cores)
        problems = () if refused else tuple(_problem(launch, index, cores) for launch, index in members)
        case = launches[0].case
        found.append(Case(case, recorded[0].name, launches, recorded, problems, bool(key[-1]), refused))
    return found


def _refusal(launch: Launch, workload: RecordedWorkload, cores: int | None) -> str:
    if launch.timeline:
        return "the timeline's writer was on and disturbs step times: use validate timeline"
    if (cores or launch.cores) is None:
        return "the file does not say how many cores the ranks shared (--cores)"
    if launch.delay_ns and launch.controller != "coordsim":
        return "over an emulated network only the real backend's star has rules"
    if workload.steps < FEWEST_STEPS:
        return f"only {workload.steps} steps were recorded, {FEWEST_STEPS} are needed"
    return ""


def _problem(launch: Launch, index: int, cores: int | None) -> LoopProblem:
    workload = launch.workloads[index]
    gap = np.zeros_like(workload.start_ns)
    gap[:, 1:] = workload.start_ns[:, 1:] - workload.end_ns[:, :-1]
    gap[:, 0] = workload.start_ns[:, 0] - workload.start_ns[:, 0].min()
    unit_bytes, unit_tensors = _units(workload)
    return LoopProblem(
        ranks=launch.ranks,
        cores=cores or launch.cores or 1,
        cycle_ns=launch.cycle_ns,
        duration_ns=workload.submitted_ns - workload.start_ns,
        gap_ns=gap,
        share_q30=np.round(_shares(workload) * SHARE_ONE).astype(np.int64),
        unit_bytes=unit_bytes,
        unit_tensors=unit_tensors,
        threshold_bytes=rounded_threshold(launch.threshold_bytes, launch.ranks),
        uncached=_uncached(launch, index),
        always_asks=launch.cache_capacity == 0,
        shuffled=workload.spec.get("order") == "random",
        computes=workload.computes,
        held_up_ppm=round(1e6 * held_up(workload)),
        disturbed_ppm=round(1e6 * _disturbed(launch, workload)),
    )


def held_up(workload: RecordedWorkload) -> float:
    """Share of their time that main threads were held up while they submitted: beyond the 10th percentile of steps."""
    duration = (workload.submitted_ns - workload.start_ns)[:, SKIPPED_STEPS:]
    undisturbed = np.quantile(duration, 0.1, axis=1, keepdims=True)
    return float(np.maximum(duration - undisturbed, 0).sum() / max(duration.sum(), 1))


def _disturbed(launch: Launch, workload: RecordedWorkload) -> float:
    """What the machine does to a thread that hardly computes: of this workload, or of the others in the launch."""
    if not workload.computes:
        return held_up(workload)
    others = [held_up(other) for other in launch.workloads if not other.computes and other.steps >= FEWEST_STEPS]
    return float(np.median(others)) if others else held_up(workload)


def _units(workload: RecordedWorkload) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(bytes, tensors) of each unit, shape [unit]; consecutive groups of nearly equal counts."""
    tensors = np.full(workload.units, workload.tensors // workload.units, dtype=np.int64)
    tensors[: workload.tensors % workload.units] += 1
    return workload.gradient_bytes * tensors // workload.tensors, tensors


def _shares(workload: RecordedWorkload) -> npt.NDArray[np.float64]:
    """Shape [rank, unit]; a rank without detail takes that of the nearest rank that has it."""
    with_detail = sorted(workload.submit_share)
    if not with_detail:
        return np.tile(np.arange(1, workload.units + 1) / workload.units, (workload.ranks, 1))
    nearest = [min(with_detail, key=lambda known: abs(known - rank)) for rank in range(workload.ranks)]
    return np.stack([workload.submit_share[rank] for rank in nearest])


def _uncached(launch: Launch, index: int) -> npt.NDArray[np.bool_]:
    """Shape [step, unit]: which units need the coordinator, a file's workloads sharing one cache in file order."""
    workload = launch.workloads[index]
    if launch.cache_capacity == 0:
        return np.ones((workload.steps, workload.units), dtype=np.bool_)
    cache = ResponseCache(launch.cache_capacity)
    for earlier in launch.workloads[:index]:
        for _ in range(2):
            _touch_all(cache, earlier.names)
    _, tensors = _units(workload)
    rows = np.zeros((workload.steps, workload.units), dtype=np.bool_)
    for step in range(workload.steps):
        missed = _touch_all(cache, workload.names)
        position = 0
        for unit, members in enumerate(tensors.tolist()):
            rows[step, unit] = any(missed[position : position + members])
            position += members
        if step and (rows[step] == rows[step - 1]).all():
            rows[step:] = rows[step]
            break
    return rows


def _touch_all(cache: ResponseCache, names: Iterable[str]) -> list[bool]:
    """One step's tensors through the cache, in order; which of them it did not know."""
    missed = []
    for name in names:
        known = name in cache
        missed.append(not known)
        if known:
            cache.touch(name)
        else:
            request = Request(name, shape=(1,))
            cache.put(request, respond_to(request))
    return missed


def controllers(found: Iterable[Case]) -> Iterator[str]:
    """Each controller once, in order of appearance."""
    yield from dict.fromkeys(case.controller for case in found)
