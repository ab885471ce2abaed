"""Sentences that state the verdict."""

from __future__ import annotations

from collections.abc import Sequence

from coordsim.analyse.stragglers.judge import SHORTEST, Late
from coordsim.record.findings import LateUnit, Stragglers

UNSEEN = "not judged: the script reduces gradients itself, and the record does not say when ranks wait for each other"
_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
_HOST_RANKS_SHOWN = 8


def describe_late(named: Sequence[LateUnit], last_step: int) -> str:
    """Describe one or more late ranks or hosts, the latest first. ``last_step`` is the last step that was judged."""
    return "; then ".join(_describe_one(entry, last_step) for entry in named)


def explain_nobody(result: Stragglers, tied: bool, unsure_rank: int | None, unsure: Late | None) -> str:
    """Explain why no rank is named.

    ``tied`` says that ranks wait for each other in gathers. ``unsure`` is the rank that would be named if clocks were
    known exactly; ``unsure_rank`` is its number.
    """
    if result.ranks < 2:
        return "nobody: there is one rank"
    if result.measure is None and tied:
        return "nobody: ranks wait for each other in gathers, and the end of these gathers is not known"
    if result.measure is None:
        return "nobody: the offsets of ranks' clocks are not known, or no step was recorded on all ranks"
    if result.smallest_seen_s is None:
        return (
            f"nobody: in {result.steps} steps the same rank can be last every time by chance; "
            f"{SHORTEST} steps are needed"
        )
    seen = f"a steady delay of {format_time(result.smallest_seen_s)} a step would have been seen"
    if unsure is not None:
        error = format_time(result.clock_error_s or 0.0)
        lateness = format_time(unsure.median_ns / 1e9)
        return (
            f"nobody for certain: rank {unsure_rank:,} seems {lateness} late, but clocks are known to {error} only; "
            f"{seen}"
        )
    return f"nobody: no rank is last by more, and more often, than noise explains; {seen}"


def explain_shared_cores(rank: int, late: Late) -> str:
    """Explain why a rank that is last too often is not named: shared cores can cause this."""
    return (
        f"nobody for certain: rank {rank:,} is {format_time(late.median_ns / 1e9)} slower a step, which sharing its "
        "cores with other work explains; give each rank a core of its own to see more"
    )


def format_time(seconds: float) -> str:
    """Format a time for a sentence, such as ``5.2 ms`` or ``201 ms``."""
    scale, unit = _choose_unit(seconds)
    return f"{seconds / scale:.{_count_decimals(seconds / scale)}f} {unit}"


def _describe_one(entry: LateUnit, last_step: int) -> str:
    who = f"rank {entry.ranks[0]:,}"
    if entry.what == "host":
        who = f"host {entry.host} (ranks {', '.join(f'{rank:,}' for rank in entry.ranks[:_HOST_RANKS_SHOWN])}"
        who += ", ...)" if len(entry.ranks) > _HOST_RANKS_SHOWN else ")"
    scale, unit = _choose_unit(entry.late_s)
    places = _count_decimals(entry.late_s / scale)
    middle, low, high = (
        f"{seconds / scale:.{places}f}" for seconds in (entry.late_s, entry.late_low_s, entry.late_high_s)
    )
    sentence = f"{who} is late: {middle} {unit} ({low} to {high}) a step, last in {entry.last_in:,} of "
    sentence += f"{entry.of_steps:,} steps"
    if entry.changed:
        stopped = entry.to_step < last_step
        sentence += f", until step {entry.to_step:,}" if stopped else f" from {entry.from_step:,} on"
    return sentence


def _choose_unit(seconds: float) -> tuple[float, str]:
    return next((unit for unit in _UNITS if abs(seconds) >= unit[0]), _UNITS[-1])


def _count_decimals(number: float) -> int:
    return 0 if abs(number) >= 20 else 1
