"""What would pay in a recorded run: about its largest part, by a replay of its own steps, or that none can predict it.

Who is late is not asked again here: the ranks that :mod:`coordsim.analyse.stragglers` names, and nobody else, can be
recommended to be brought to the others' speed. Every candidate is a replay (:mod:`coordsim.analyse.replay`). The
interval is that of the mean over steps like these (bootstrap): it knows of their spread, and nothing of what the change
itself may cost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

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
from coordsim.record.ranks.facts import NOT_NEGOTIATED, control_plane, gathers
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


def advice(merged: Merged, stragglers: Mapping[str, Any]) -> dict[str, Any]:
    """``change`` with ``saves``, ``saves_low``, ``saves_high`` (shares of the mean step) and ``step_time_s``; or
    ``change`` null and ``why`` there is none. ``largest``: the largest part, its share, and where to look.

    ``stragglers``: who is late, as :func:`coordsim.analyse.stragglers.stragglers` says.
    """
    largest = _largest(merged, stragglers)
    if len(merged.steps) <= LEAST_STEPS:
        few = f"{len(merged.steps)} steps are too few to predict from; more than {LEAST_STEPS} are needed"
        return _none(few, largest)
    replay = None if any(gathers(record) for record in merged.records) else replay_of(merged)
    if replay is None:
        tied = any(gathers(record) for record in merged.records)
        return _unpredicted(NO_REPLAY_GATHERS if tied else NO_REPLAY, largest, stragglers)
    before = played(replay)
    best: dict[str, Any] | None = None
    for about, change, changed in _candidates(merged, replay, stragglers):
        each = _saving(before, played(replay, changed), replay, merged.steps[1:])
        least = WORTH_CHANGING if _concerns(about, largest["part"]) else largest["share"] * BESIDE_LARGEST
        if each["saves_low"] > 0 and each["saves"] >= max(least, WORTH_CHANGING):
            candidate = {"change": change, "about": about, **each, "largest": largest}
            if about == LATE and largest["part"] == "straggler_wait" and each["saves"] < HIDDEN * largest["share"]:
                candidate["why"] += "; the rest of the wait is for reductions that run meanwhile, or for other ranks"
            if best is None or _weight(candidate) > _weight(best):
                best = candidate
    if best is not None:
        return best
    return _none("no change that this record can predict would save enough to matter", largest)


def _largest(merged: Merged, stragglers: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the shown rank's step that takes longest, its share, whether a replay can take it out, and where to
    look. The three parts of control count as one."""
    counted = slice(1 if merged.first_step == 0 and len(merged.steps) > 1 else 0, None)
    means = {name: float(column[counted].mean()) for name, column in breakdown(merged.trace).items()}
    control = sum(means.pop(name, 0.0) for name in CONTROL_PARTS)
    whole = control + sum(means.values())
    part = max(means, key=means.__getitem__)
    if control > means[part]:
        return {"part": CONTROL, "share": control / whole, "look_at": "the control plane: groups, cycle time, cache"}
    look_at = LOOK_AT[part]
    if part == "straggler_wait" and stragglers["late"]:
        first = stragglers["late"][0]
        look_at = _late(first)
    return {"part": part, "share": means[part] / whole if whole else 0.0, "look_at": look_at}


def _concerns(about: str, part: str) -> bool:
    """Whether a candidate is about that part: taking a late rank's cause out shortens the wait for it."""
    return about == part or (about == LATE and part == "straggler_wait")


def _weight(candidate: Mapping[str, Any]) -> float:
    """What is about the largest part comes first, unless something else saves a good deal more."""
    concerns = _concerns(candidate["about"], candidate["largest"]["part"])
    return float(candidate["saves"]) * (FAVOURED if concerns else 1.0)


def _candidates(
    merged: Merged, replay: Replay, stragglers: Mapping[str, Any]
) -> Iterator[tuple[str, str, Change]]:
    """(what it is about, the change in words, how it is replayed)."""
    named = {rank for each in stragglers["late"] for rank in each["ranks"]}
    late = [(each, _of_late(replay, each, named)) for each in stragglers["late"]]
    known = [(each, change) for each, change in late if change is not None]
    for each, change in known:
        yield LATE, f"bring {_late(each)}, to the others' time", change
    if len(known) > 1:
        everybody = ", ".join(_who(each) for each, _ in known)
        yield LATE, f"bring {everybody}, which are late, to the others' time", together([each for _, each in known])
    for part in ("input_stall", "between_steps"):
        if any(getattr(turn.before, part) for step in replay.steps for turn in step.ranks):
            yield part, _CHANGES[part], without(part)
    if control_plane(merged.records[0]) != NOT_NEGOTIATED:
        yield CONTROL, _CHANGES[CONTROL], without_control


def _late(each: Mapping[str, Any]) -> str:
    """``rank 1 (node7), which is late in forward``."""
    onset = each["onset"]
    told = onset["parts"] and onset["from"] != BEGUN
    return f"{_who(each)}, which is late {onset['what'] if told else '(' + onset['what'] + ')'}"


def _who(each: Mapping[str, Any]) -> str:
    if each["what"] == "host":
        return f"host {each['host']}"
    return f"rank {each['ranks'][0]:,} ({each['host']})"


def _of_late(replay: Replay, each: Mapping[str, Any], named: Collection[int]) -> Change | None:
    """How the ranks named are brought to the others' time, in the parts in which they are late; None where that is not
    known of any."""
    places = [replay.ranks.index(rank) for rank in each["ranks"] if rank in replay.ranks]
    late = [place for place, rank in enumerate(replay.ranks) if rank in named]
    if not places or len(late) == len(replay.ranks):
        return None
    told = each["onset"]["parts"]
    parts = [one["part"] for one in told if one["excess_s"] > 0] if told else OWN_PARTS
    return together([like_the_others(place, parts, late) for place in places])


def _saving(before: Float, after: Float, replay: Replay, numbers: range) -> dict[str, Any]:
    saved = before - after
    low, high = _interval(saved, before)
    share = float(saved.sum() / before.sum())
    return {
        "why": "replayed from this record without it" + _few(saved, numbers), "saves": share, "saves_low": low,
        "saves_high": high, "step_time_s": float(after.mean()) / 1e9,
    }  # fmt: skip


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
    shares = saved[draws].sum(axis=1) / before[draws].sum(axis=1)
    low, high = np.quantile(shares, (_LOW, _HIGH))
    return float(low), float(high)


def _unpredicted(why: str, largest: dict[str, Any], stragglers: Mapping[str, Any]) -> dict[str, Any]:
    """Where no replay is possible: whoever is late is still what to look at, with what the others wait for it."""
    late: Sequence[Mapping[str, Any]] = stragglers["late"]
    if not late:
        return _none(why, largest)
    return _none(why, largest) | {"change": f"look at {_late(late[0])}", "about": LATE}


def _none(why: str, largest: dict[str, Any]) -> dict[str, Any]:
    return {
        "change": None, "about": None, "why": why, "saves": None, "saves_low": None, "saves_high": None,
        "step_time_s": None, "largest": largest,
    }  # fmt: skip
