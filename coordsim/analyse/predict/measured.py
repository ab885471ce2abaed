"""What ranks' records say of a workload: its gradients, when each gets ready, and how ranks and steps differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coordsim.analyse.jitter import Interval, Jitter, jitter
from coordsim.errors import InputError
from coordsim.record.ranks import RankRecord
from coordsim.record.ranks.facts import control_plane, gathers, readiness
from coordsim.record.ranks.format import NULL
from coordsim.record.ranks.own import own_steps
from coordsim.record.ranks.reader import StepRecord

Numbers = npt.NDArray[np.float64]

FEWEST_STEPS = 5


@dataclass(frozen=True)
class Gradient:
    """One tensor that is reduced."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    ready_ns: int
    """After backward begins: median over ranks and steps."""


@dataclass(frozen=True)
class MeasuredWorkload:
    """One model's step as it was recorded, without anything that depends on how many ranks there were."""

    gradients: tuple[Gradient, ...]
    """In ready order."""
    forward_ns: int | None
    """None: nobody marked it, and it is part of backward."""
    optimizer_ns: int | None
    """None: nobody marked the end of a step."""
    backward: Interval
    """Until the last gradient, ns."""
    control_plane: str
    """It was recorded under."""
    jitter: Jitter
    """Of backward's length, as shares of its median; intervals hold 90 %."""
    ranks: int
    steps: int
    hosts: int
    input_ns: int | None = None
    """What the training thread waits for samples in a step; None: not told apart."""
    between_ns: int | None = None
    """What is between the steps and between backward and the optimizer (clipping), the usual step's; None: not told
    apart."""
    occasional_ns: int = 0
    """What evaluation and checkpoints add to the mean step beyond that."""


def measured_workload(records: Sequence[RankRecord]) -> MeasuredWorkload:
    """From records of ranks with details; the first step of the run is left out.

    Raises InputError when there are too few steps that all of them have, or no tensor was reduced.
    """
    where = str(records[0].path.parent)
    if any(gathers(record) for record in records):
        message = (
            "parameters are gathered in forward and backward (FSDP), which no described cluster models. Leave "
            "--cluster away: on its own machine the run is predicted from its gathers and reduce-scatters"
        )
        raise InputError.one(where, "", None, message)
    detailed = [record for record in records if record.detailed]
    starts = [_starts(record) for record in detailed]
    common = sorted(set.intersection(*(set(each) for each in starts))) if starts else []
    if len(common) < FEWEST_STEPS:
        message = f"{len(common)} steps that every rank with details has; at least {FEWEST_STEPS} are needed"
        raise InputError.one(where, "", None, message)
    steps = [{step.step: step for step in record.steps} for record in detailed]
    durations = np.array([
        [steps[rank][step].last_submit_ns - starts[rank][step] for rank in range(len(detailed))] for step in common
    ], dtype=np.float64)  # fmt: skip
    gradients = _gradients(detailed, starts, common)
    if not gradients:
        raise InputError.one(where, "", None, "no gradient in the steps with details: nothing to predict")
    middle = float(np.median(durations))
    varies = jitter(durations / middle, common)
    level = varies.level
    return MeasuredWorkload(
        gradients=gradients,
        forward_ns=_median([_forward(steps[rank][step]) for rank in range(len(detailed)) for step in common]),
        optimizer_ns=_median([_optimizer(steps[rank][step]) for rank in range(len(detailed)) for step in common]),
        backward=Interval(middle, *(middle * each / level.value for each in (level.low, level.high))), jitter=varies,
        control_plane=control_plane(records[0]),
        ranks=records[0].ranks, steps=len(common), hosts=len({record.host for record in records}),
        **_beside(detailed, common),
    )  # fmt: skip


def _beside(records: Sequence[RankRecord], steps: Sequence[int]) -> dict[str, Any]:
    """What a step holds beside forward, backward and optimizer, where spans tell it apart."""
    if not all(record.steps[-1].spans for record in records):
        return {}
    own = [of_rank[number] for of_rank in map(own_steps, records) for number in steps if number in of_rank]
    if not own:
        return {}
    spent = np.array([step.evaluation_ns + step.checkpoint_ns for step in own], dtype=np.float64)
    between = [
        step.work.between_steps + step.work.before_optimizer - round(extra)
        for step, extra in zip(own, spent, strict=True)
    ]
    return {
        "input_ns": round(float(np.median([step.work.input_stall for step in own]))),
        "between_ns": round(float(np.median(between)) + float(np.median(spent))),
        "occasional_ns": round(max(float(spent.mean() - np.median(spent)), 0.0)),
    }


def _starts(record: RankRecord) -> dict[int, int]:
    """Step -> when its backward began on the rank's clock: at the mark, else at the end of the step before."""
    found, before = {}, None
    for step in record.steps:
        begin = step.forward_end_ns if step.forward_end_ns != NULL else before
        if begin is not None and step.step > 0 and step.detailed and step.last_submit_ns != NULL:
            found[step.step] = min(begin, step.first_submit_ns)
        ends = [at for at in (step.end_ns, step.end_collective_ns) if at != NULL]
        before = ends[0] if ends else None
    return found


def _gradients(
    records: Sequence[RankRecord], starts: Sequence[dict[int, int]], steps: Sequence[int]
) -> tuple[Gradient, ...]:
    """Parameters where these were recorded, else what is reduced, if it is there in most of the steps."""
    by_name: dict[str, list[int]] = {}
    facts: dict[str, dict[str, Any]] = {}
    for record, begins in zip(records, starts, strict=True):
        named = {str(each["name"]): each for each in record.tensors}
        of_steps = readiness(record)
        for step in steps:
            for name, at in of_steps.get(step, {}).items():
                if named[name].get("kind") == "parameter" or named[name].get("op") == "ALLREDUCE":
                    facts[name] = named[name]
                    by_name.setdefault(name, []).append(at - begins[step])
    enough = len(steps) * len(records) / 2
    ready = sorted((float(np.median(times)), name) for name, times in by_name.items() if len(times) >= enough)
    found, last = [], 0
    for middle, name in ready:
        last = max(round(middle), last + 1)
        shape = tuple(int(extent) for extent in facts[name]["shape"]) or (1,)
        found.append(Gradient(name, shape, str(facts[name]["dtype"]).lower(), last))
    return tuple(found)


def _forward(step: StepRecord) -> int | None:
    if NULL in (step.start_ns, step.forward_end_ns):
        return None
    return step.forward_end_ns - step.start_ns


def _optimizer(step: StepRecord) -> int | None:
    if NULL in (step.end_ns, step.end_collective_ns):
        return None
    return max(step.end_ns - step.end_collective_ns, 0)


def _median(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return round(float(np.median(known))) if len(known) == len(values) else None
