"""Figures of a profiled run over all steps, for ``coordsim import``; null with a reason where there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from coordsim.formats.kineto.causality import Call
from coordsim.formats.kineto.matching import Arrivals
from coordsim.formats.kineto.steps import RankRecord, RankStep
from coordsim.formats.kineto.workload import gradient_bytes
from coordsim.record.breakdown import breakdown, step_times
from coordsim.record.trace import Trace

FORMAT = "kineto"
_UNEVEN = ("all_to_all", "all_gather", "reduce_scatter", "gather", "scatter")
"""Operations whose buffers may differ in size between ranks."""
_MOST_NAMED = 12


@dataclass
class Sizes:
    """Sizes of the run's messages, and why some are not known."""

    known: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    differing: int = 0

    def take(self, same: Sequence[Call]) -> int | None:
        """Return the size of one collective, of which ``same`` holds the ranks' calls."""
        sizes = {call.nbytes for call in same if call.nbytes is not None}
        if not sizes:
            self.unknown[next((call.why for call in same if call.why), "of unknown size")] += 1
            return None
        if len(sizes) > 1 and same[0].operation not in _UNEVEN:
            self.differing += 1
        self.known += 1
        return max(sizes)

    def reason(self) -> str | None:
        """Why sizes are not known, in words; None if all are known."""
        if not self.unknown:
            return None
        why, _ = self.unknown.most_common(1)[0]
        count = sum(self.unknown.values())
        return f"{count:,} of {count + self.known:,} messages have no size: {why}"


def summary_of(
    ranks: Sequence[RankRecord], steps: Sequence[Sequence[RankStep]], trace: Trace, sizes: Sizes,
    came: Arrivals | None, one_clock: bool,
) -> tuple[dict[str, Any], dict[str, str]]:  # fmt: skip
    """Return (figures, what is unknown -> reason).

    Figures of steps and messages are those of ``trace``, as ``coordsim report`` has them.
    """
    first = ranks[0]
    unknown: dict[str, str] = {}
    counts = [len(step.calls) for step in steps[0]]
    calls = [call for step in steps[0] for call in step.calls]
    bytes_known = not sizes.unknown
    if not bytes_known:
        why = sizes.reason() or ""
        unknown |= dict.fromkeys(("bytes_per_step", "bytes_min", "bytes_median", "bytes_max"), why)
    if sizes.differing:
        unknown["sizes"] = f"{sizes.differing:,} collectives differ in size between ranks: the largest counts"
    moving, why = _moving(calls)
    if why:
        unknown["collective_s"] = why
    parts = breakdown(trace)
    gradients = first.gradients
    if not gradients:
        unknown["gradients"] = (
            "no AccumulateGrad node with a shape is recorded: record_shapes=True would tell"
            if any(step.passes for step in steps[0]) else "no backward pass is recorded in these steps"
        )  # fmt: skip
    figures = {
        **_about(ranks, one_clock),
        "steps_by": first.source,
        "first_step": steps[0][0].number,
        "steps": len(steps[0]),
        "step_s": _seconds(step_times(trace).tolist()),
        "collectives_per_step": _spread(counts),
        "bytes_per_step": _spread(_bytes_by_step(trace, counts)) if bytes_known else None,
        "collective_bytes": _sizes(steps[0]) if bytes_known else None,
        "operations": _operations(calls, len(steps[0])),
        "collective_s": moving,
        "watched_on": ("GPU" if any(call.on_device for call in calls) else "CPU") if calls else None,
        "forward_s": _mean(parts, "forward"),
        "backward_s": _mean(parts, "backward"),
        "passes_per_step": _spread([step.passes for step in steps[0]]),
        "gradients": len(gradients) or None,
        "gradient_bytes": gradient_bytes(gradients),
        "waited_for": _waited_for(came, unknown),
        "not_read": _not_read(ranks, unknown),
        "by_rank": _by_rank(ranks, steps, came),
    }
    loading = [step.loading_ns for step in steps[0] if step.loading_ns is not None]
    if loading:
        figures["loading_s"] = float(np.median(loading)) / 1e9
    outside = sum(len(record.outside) for record in ranks)
    if outside:
        unknown["outside"] = (
            f"{outside:,} collectives were asked for outside of the steps, and are in none of these figures"
        )
    return figures, unknown


def without_steps(ranks: Sequence[RankRecord]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return (figures, what is unknown -> reason) of recordings in which nothing marks a step."""
    first = ranks[0]
    calls = first.outside
    sizes = Sizes()
    total = [sizes.take([call]) for call in calls]
    unknown = {
        "steps": "no ProfilerStep, Optimizer.step or Optimizer.zero_grad is recorded: call the profiler's step() in "
        "every iteration. The figures are of the whole recording",
        "run": "without steps there is no run",
    }
    if sizes.unknown:
        unknown["bytes"] = sizes.reason() or ""
    moving, why = _moving(calls)
    if why:
        unknown["collective_s"] = why
    figures = {
        **_about(ranks, len(ranks) == 1),
        "steps_by": None,
        "steps": None,
        "recorded_s": (first.window.end_ns - first.window.begin_ns) / 1e9,
        "collectives": len(calls),
        "bytes": None if sizes.unknown else sum(size or 0 for size in total),
        "operations": dict(Counter(call.operation or "unknown" for call in calls)),
        "collective_s": moving,
        "gradients": len(first.gradients) or None,
        "gradient_bytes": gradient_bytes(first.gradients),
        "not_read": _not_read(ranks, unknown),
    }
    return figures, unknown


def _about(ranks: Sequence[RankRecord], one_clock: bool) -> dict[str, Any]:
    first = ranks[0]
    return {
        "events": sum(record.events for record in ranks),
        "ranks": first.world_size,
        "ranks_with_a_trace": len(ranks),
        "backend": first.backend,
        "groups": first.group_count,
        "hosts": len({record.host for record in ranks if record.host}) or None,
        "one_clock": one_clock,
    }


def _spread(values: Sequence[int]) -> int | dict[str, float] | None:
    """Return the one value of all steps, or how it spreads over them."""
    if not values:
        return None
    if len(set(values)) == 1:
        return int(values[0])
    return {
        "min": min(values), "median": float(np.median(values)), "max": max(values), "mean": float(np.mean(values)),
    }  # fmt: skip


def _seconds(values_ns: Sequence[int]) -> dict[str, float]:
    return {
        "min": min(values_ns) / 1e9, "median": float(np.median(values_ns)) / 1e9, "max": max(values_ns) / 1e9,
        "mean": float(np.mean(values_ns)) / 1e9,
    }  # fmt: skip


def _bytes_by_step(trace: Trace, counts: Sequence[int]) -> list[int]:
    """Return the bytes of each step's messages, from the run itself."""
    edges = np.cumsum([0, *counts])
    nbytes = trace.responses["bytes"]
    return [int(nbytes[first:last].sum()) for first, last in pairwise(edges)]


def _sizes(steps: Sequence[RankStep]) -> list[int | None] | dict[str, float]:
    """Return the sizes of a step's messages if all steps are alike, else how they spread."""
    lists = [[call.nbytes for call in step.calls] for step in steps]
    if all(one == lists[0] for one in lists):
        return lists[0]
    every = [size for one in lists for size in one if size is not None]
    return {"min": min(every), "median": float(np.median(every)), "max": max(every)} if every else {}


def _operations(calls: Sequence[Call], steps: int) -> dict[str, float]:
    """Return the number of calls of each operation a step."""
    counts = Counter(call.operation or "unknown" for call in calls)
    return {name: count // steps if count % steps == 0 else count / steps for name, count in counts.most_common()}


def _moving(calls: Sequence[Call]) -> tuple[float | None, str]:
    """Return the median time of a collective, and why it is not known or does not cover all."""
    times = [call.end_ns - call.begin_ns for call in calls if call.begin_ns is not None and call.end_ns is not None]
    untimed = len(calls) - len(times)
    if not calls:
        return None, ""
    alone = sum(call.group_size == 1 for call in calls if call.begin_ns is None)
    why = ""
    if untimed and alone == untimed:
        why = f"{untimed:,} of {len(calls):,} collectives are of groups of one rank, which run no kernel"
    elif untimed and times:
        why = f"of {untimed:,} of {len(calls):,} collectives no kernel is recorded; the figure is of the others"
    elif untimed:
        why = (
            f"of {untimed:,} of {len(calls):,} collectives only the call on the CPU is recorded, not the transfer on "
            "the device: the profiler's activity for the GPU would tell"
        )
    return float(np.median(times)) / 1e9 if times else None, why


def _mean(parts: dict[str, Any], name: str) -> float | None:
    return float(parts[name].mean()) / 1e9 if name in parts else None


def _waited_for(came: Arrivals | None, unknown: dict[str, str]) -> list[dict[str, Any]] | None:
    if came is None:
        unknown["waited_for"] = "it takes the traces of at least two ranks that say their rank"
        return None
    if came.late is None:
        unknown["waited_for"] = came.why_nobody
        return None if not came.matched else []
    late = came.late
    if came.by_duration:
        unknown["waited_for"] = (
            "who is waited for is told by the durations of collectives, which are shortest on the rank that came last"
        )
    return [{
        "rank": late.rank, "steps": late.steps, "wait_s": late.wait_ns / 1e9, "least_s": late.least_ns / 1e9,
        "most_s": late.most_ns / 1e9, "others_s": late.others_ns / 1e9,
    }]  # fmt: skip


def _not_read(ranks: Sequence[RankRecord], unknown: dict[str, str]) -> dict[str, int]:
    total: Counter[str] = sum((record.left_out for record in ranks), Counter())
    named = dict(total.most_common(_MOST_NAMED))
    if total:
        listed = ", ".join(f"{count:,} {name}" for name, count in list(named.items())[:4])
        more = sum(total.values()) - sum(list(named.values())[:4])
        unknown["not_read"] = f"left out: {listed}{f', and {more:,} more' if more else ''}"
    return named


def _by_rank(
    ranks: Sequence[RankRecord], steps: Sequence[Sequence[RankStep]], came: Arrivals | None
) -> list[dict[str, Any]]:
    rows = []
    for place, (record, of_rank) in enumerate(zip(ranks, steps, strict=True)):
        moving, _ = _moving([call for step in of_rank for call in step.calls])
        row = {
            "rank": record.rank, "step_s": float(np.median([step.end_ns - step.begin_ns for step in of_rank])) / 1e9,
            "collective_s": moving, "collectives_per_step": _spread([len(step.calls) for step in of_rank]),
        }  # fmt: skip
        if came is not None and came.matched:
            row["waited_for_s"] = float(np.median(came.waits[place])) / 1e9
        rows.append(row)
    return rows
