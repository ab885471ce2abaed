"""What would pay in a recorded run: about its largest part, by a replay of its own steps, or that none can predict it.

Who is late is not asked again here: the ranks that :mod:`coordsim.analyse.stragglers` names, and nobody else, can be
recommended to be brought to the others' speed. Every candidate is a replay (:mod:`coordsim.analyse.replay`). The
interval is that of the mean over steps like these (bootstrap): it knows of their spread, and nothing of what the change
itself may cost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import numpy as np

from coordsim.analyse.replay import (
    Change,
    Float,
    Replay,
    like_the_others,
    played,
    replay_of,
    together,
    without,
    without_control,
)
from coordsim.analyse.stragglers.onset import BEGUN
from coordsim.record.breakdown import CONTROL_PARTS, breakdown
from coordsim.record.findings import LargestPart, LateUnit, Recommendation, Stragglers
from coordsim.record.ranks.facts import gathers, negotiated
from coordsim.record.ranks.merge import Merged
from coordsim.record.ranks.own import OWN_PARTS

LEAST_STEPS = 5
WORTH_CHANGING = 0.005
"""Below this share of the step no change is recommended."""
BESIDE_LARGEST = 1 / 3
"""A change that is not about the largest part must save this share of it."""
FAVOURED = 1.25
"""By so much a change must save more than one about the largest part to be recommended instead."""
HIDDEN = 0.7
"""A late rank's saving below this share of the straggler wait is explained."""
FEW_STEPS = 3
"""When so few steps hold more than half of a saving, they are named."""
_DRAWS = 2_000
_LOW, _HIGH = 0.05, 0.95

LATE, CONTROL = "late", "control"
_CHANGES = {
    "input_stall": "have the samples ready when a step begins (more workers, prefetching, cheaper transforms)",
    "between_steps": "do less between the steps (logging, evaluation, checkpoints; samples not from a DataLoader)",
    CONTROL: "negotiate less (groups, cycles on submission), at most",
}
LOOK_AT = {
    "forward": "the model itself: torch.profiler, torch.compile, mixed precision",
    "backward": "the model itself: torch.profiler, torch.compile, mixed precision, less recomputation",
    "before_optimizer": "what runs between backward and optimizer.step(): gradient clipping, unscaling, hooks",
    "optimizer": "optimizer.step() and its hooks: foreach=True or fused=True, a sharded optimizer, zero_grad",
    "exposed_collective": "the reductions: bucket sizes (bucket_cap_mb), compression, the network",
    "gather_wait": "the gathers of parameters: larger units, prefetching, resharding less",
    "fusion_copy": "the copies into buckets: gradient_as_bucket_view=True",
    "straggler_wait": "the table of ranks (coordsim report RUN --ranks): no single rank is late for certain",
    "input_stall": "the DataLoader",
    "between_steps": "what the script does between the steps",
}  # fmt: skip
NO_REPLAY_GATHERS = (
    "ranks wait for each other in gathers inside forward and backward, which a replay of reductions does not see"
)
NO_REPLAY = "this record does not say when each reduction could begin and when it ended"


def advice(merged: Merged, stragglers: Stragglers) -> Recommendation:
    """The change that pays most, or why none is recommended. ``stragglers``: who is late in the same steps."""
    largest = _largest(merged, stragglers)
    if len(merged.steps) <= LEAST_STEPS:
        few = f"{len(merged.steps)} steps are too few to predict from; more than {LEAST_STEPS} are needed"
        return _none(few, largest)
    tied = any(gathers(record) for record in merged.records)
    replay = None if tied else replay_of(merged)
    if replay is None:
        return _unpredicted(NO_REPLAY_GATHERS if tied else NO_REPLAY, largest, stragglers)
    before = played(replay)
    if before.sum() <= 0:
        return _none("the recorded steps take no time, so nothing can be saved of them", largest)
    candidates = [_judged(candidate, before, replay, merged.steps[1:], largest)
                  for candidate in _candidates(merged, replay, stragglers)]  # fmt: skip
    worth = [candidate for candidate in candidates if _pays(candidate, largest)]
    if not worth:
        return _none("no change that this record can predict would save enough to matter", largest)
    return max(worth, key=lambda candidate: _weight(candidate, largest))


@dataclass(frozen=True)
class _Candidate:
    """A change that may pay: what it is about, what it is in words, and how it is replayed."""

    about: str
    change: str
    replayed: Change


def _largest(merged: Merged, stragglers: Stragglers) -> LargestPart:
    """The part of the shown rank's step that takes longest. The three parts of control count as one."""
    counted = slice(1 if merged.first_step == 0 and len(merged.steps) > 1 else 0, None)
    means = {name: float(column[counted].mean()) for name, column in breakdown(merged.trace).items()}
    control = sum(means.pop(name, 0.0) for name in CONTROL_PARTS)
    whole = control + sum(means.values())
    part = max(means, key=means.__getitem__)
    if control > means[part]:
        where = "the control plane: groups, cycle time, cache"
        return LargestPart(part=CONTROL, share=control / whole, look_at=where)
    look_at = LOOK_AT[part]
    if part == "straggler_wait" and stragglers.late:
        look_at = _late(stragglers.late[0])
    return LargestPart(part=part, share=means[part] / whole if whole else 0.0, look_at=look_at)


def _concerns(about: str | None, part: str) -> bool:
    """Whether a change is about that part: taking a late rank's cause out shortens the wait for it."""
    return about == part or (about == LATE and part == "straggler_wait")


def _pays(candidate: Recommendation, largest: LargestPart) -> bool:
    """Whether a change saves enough, and for certain."""
    least = WORTH_CHANGING if _concerns(candidate.about, largest.part) else largest.share * BESIDE_LARGEST
    saves, low = candidate.saves or 0.0, candidate.saves_low or 0.0
    return low > 0 and saves >= max(least, WORTH_CHANGING)


def _weight(candidate: Recommendation, largest: LargestPart) -> float:
    """What is about the largest part comes first, unless something else saves a good deal more."""
    return (candidate.saves or 0.0) * (FAVOURED if _concerns(candidate.about, largest.part) else 1.0)


def _candidates(merged: Merged, replay: Replay, stragglers: Stragglers) -> Iterator[_Candidate]:
    named = {rank for unit in stragglers.late for rank in unit.ranks}
    late = [(unit, _of_late(replay, unit, named)) for unit in stragglers.late]
    known = [(unit, change) for unit, change in late if change is not None]
    for unit, change in known:
        yield _Candidate(LATE, f"bring {_late(unit)}, to the others' time", change)
    if len(known) > 1:
        everybody = ", ".join(_who(unit) for unit, _ in known)
        alike = f"bring {everybody}, which are late, to the others' time"
        yield _Candidate(LATE, alike, together([change for _, change in known]))
    for part in ("input_stall", "between_steps"):
        if any(getattr(turn.before, part) for step in replay.steps for turn in step.ranks):
            yield _Candidate(part, _CHANGES[part], without(part))
    if negotiated(merged.records[0]):
        yield _Candidate(CONTROL, _CHANGES[CONTROL], without_control)


def _late(unit: LateUnit) -> str:
    """``rank 1 (node7), which is late in forward``."""
    onset = unit.onset
    told = onset.parts and onset.origin != BEGUN
    return f"{_who(unit)}, which is late {onset.what if told else '(' + onset.what + ')'}"


def _who(unit: LateUnit) -> str:
    if unit.what == "host":
        return f"host {unit.host}"
    return f"rank {unit.ranks[0]:,} ({unit.host})"


def _of_late(replay: Replay, unit: LateUnit, named: Collection[int]) -> Change | None:
    """How the ranks named are brought to the others' time, in the parts in which they are late; None where that is not
    known of any."""
    places = [replay.ranks.index(rank) for rank in unit.ranks if rank in replay.ranks]
    late = [place for place, rank in enumerate(replay.ranks) if rank in named]
    if not places or len(late) == len(replay.ranks):
        return None
    told = unit.onset.parts
    parts = [excess.part for excess in told if excess.excess_s > 0] if told else OWN_PARTS
    return together([like_the_others(place, parts, late) for place in places])


def _judged(
    candidate: _Candidate, before: Float, replay: Replay, numbers: range, largest: LargestPart
) -> Recommendation:
    """The candidate with what it saves, against the replay without a change (``before``, ns, shape [step])."""
    after = played(replay, candidate.replayed)
    saved = before - after
    low, high = _interval(saved, before)
    saves = float(saved.sum() / before.sum())
    why = "replayed from this record without it" + _few(saved, numbers)
    if candidate.about == LATE and largest.part == "straggler_wait" and saves < HIDDEN * largest.share:
        why += "; the rest of the wait is for reductions that run meanwhile, or for other ranks"
    return Recommendation(
        change=candidate.change, about=candidate.about, why=why, saves=saves, saves_low=low, saves_high=high,
        step_time_s=float(after.mean()) / 1e9, largest=largest,
    )  # fmt: skip


def _few(saved: Float, numbers: range) -> str:
    """Names the steps that hold more than half of a saving, when they are few."""
    order = np.argsort(-saved, kind="stable")[:FEW_STEPS]
    for count in range(1, FEW_STEPS + 1):
        if saved.size > 2 * FEW_STEPS and saved[order[:count]].sum() > 0.5 * max(float(saved.sum()), 1.0):
            steps = ", ".join(str(numbers[int(place)]) for place in sorted(order[:count]))
            return f"; more than half of it is in {'step' if count == 1 else 'steps'} {steps}"
    return ""


def _interval(saved: Float, before: Float) -> tuple[float, float]:
    """5th and 95th percentile of what is saved of as many steps, drawn from these; ns, shape [step]."""
    draws = np.random.default_rng(0).integers(0, saved.size, (_DRAWS, saved.size))
    totals = before[draws].sum(axis=1)
    shares = np.divide(saved[draws].sum(axis=1), totals, out=np.zeros(_DRAWS), where=totals > 0)
    low, high = np.quantile(shares, (_LOW, _HIGH))
    return float(low), float(high)


def _unpredicted(why: str, largest: LargestPart, stragglers: Stragglers) -> Recommendation:
    """Where no replay is possible: whoever is late is still what to look at, with what the others wait for it."""
    if not stragglers.late:
        return _none(why, largest)
    return replace(_none(why, largest), change=f"look at {_late(stragglers.late[0])}", about=LATE)


def _none(why: str, largest: LargestPart) -> Recommendation:
    return Recommendation(
        change=None, why=why, saves=None, saves_low=None, saves_high=None, step_time_s=None, largest=largest
    )
