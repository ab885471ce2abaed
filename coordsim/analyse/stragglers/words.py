"""The verdict in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coordsim.analyse.stragglers.judge import SHORTEST, Late

UNSEEN = "not judged: the script reduces gradients by itself, and when ranks wait for each other there was not seen"
_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))


def late(named: Sequence[dict[str, Any]], last_step: int) -> str:
    """Of one or more late ranks or hosts, the latest first; ``last_step``: of those looked at."""
    return "; then ".join(_one(each, last_step) for each in named)


def nobody(facts: dict[str, Any], tied: bool, unsure_rank: int | None, unsure: Late | None) -> str:
    """Why nobody is named. ``tied``: ranks wait for each other in gathers. ``unsure``: who would be, were clocks better
    known."""
    if facts["ranks"] < 2:
        return "nobody: there is one rank"
    if facts["measure"] is None and tied:
        return "nobody: gathers tie ranks together, and when they ended is not known"
    if facts["measure"] is None:
        return "nobody: how ranks' clocks differ is not known, or no step was recorded on all ranks"
    if facts["smallest_seen_s"] is None:
        return f"nobody: in {facts['steps']} steps anybody can be last every time by chance; {SHORTEST} would do"
    seen = f"a steady {amount(facts['smallest_seen_s'])} a step would have been seen"
    if unsure is not None:
        error = amount(facts["clock_error_s"])
        told = f"rank {unsure_rank:,} seems {amount(unsure.median_ns / 1e9)} late, but clocks are known to {error} only"
        return f"nobody for certain: {told}; {seen}"
    return f"nobody: no rank is last by more, and more often, than noise explains; {seen}"


def shared(rank: int, late: Late) -> str:
    """Why a rank that comes last too often is not named: its cores are shared."""
    return (
        f"nobody for certain: rank {rank:,} is {amount(late.median_ns / 1e9)} slower a step, which sharing its cores "
        "with other work explains; give each rank a core of its own to see more"
    )


def amount(seconds: float) -> str:
    """``5.2 ms``, ``201 ms``: for a sentence."""
    scale, unit = _unit(seconds)
    return f"{seconds / scale:.{_decimals(seconds / scale)}f} {unit}"


def _one(each: dict[str, Any], last_step: int) -> str:
    who = f"rank {each['ranks'][0]:,}"
    if each["what"] == "host":
        who = f"host {each['host']} (ranks {', '.join(f'{rank:,}' for rank in each['ranks'][:8])}"
        who += ", ...)" if len(each["ranks"]) > 8 else ")"
    scale, unit = _unit(each["late_s"])
    places = _decimals(each["late_s"] / scale)
    middle, low, high = (f"{each[key] / scale:.{places}f}" for key in ("late_s", "late_low_s", "late_high_s"))
    told = f"{who} is late: {middle} {unit} ({low} to {high}) a step, last in {each['last_in']:,} of "
    told += f"{each['of_steps']:,} steps"
    if each["changed"]:
        stopped = each["to_step"] < last_step
        told += f", until step {each['to_step']:,}" if stopped else f" from {each['from_step']:,} on"
    return told


def _unit(seconds: float) -> tuple[float, str]:
    return next((each for each in _UNITS if abs(seconds) >= each[0]), _UNITS[-1])


def _decimals(number: float) -> int:
    return 0 if abs(number) >= 20 else 1
