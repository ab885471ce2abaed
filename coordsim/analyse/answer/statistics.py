"""Means and order statistics of a run's steps, the same for simulated, recorded and imported traces."""

from __future__ import annotations

import numpy as np

from coordsim.analyse.answer.model import Basis, Messages, Part, Quantity, StepTime
from coordsim.record.trace import Int64, Trace


def quantile(sorted_ns: list[int], share: float) -> int:
    """Lower nearest rank: the order statistic at floor((n - 1) * share)."""
    return sorted_ns[int((len(sorted_ns) - 1) * share)]


def step_time(step_ns: Int64, cold_ns: int | None, basis: Basis) -> StepTime:
    """Of steps that count (ns, shape [step]) and, apart, the cold one."""
    ordered = np.sort(step_ns).tolist()
    median, low, high, least, most = (quantile(ordered, share) / 1e9 for share in (0.5, 0.05, 0.95, 0.0, 1.0))
    mean = Quantity(float(step_ns.mean()) / 1e9, "s", basis)
    return StepTime(mean, median, low, high, least, most, None if cold_ns is None else float(cold_ns) / 1e9)


def part_of(name: str, mean_s: float | None, basis: Basis) -> Part:
    """A part of a step; None: it is not known."""
    return Part(name, None if mean_s is None else Quantity(mean_s, "s", basis))


def messages_of(trace: Trace, cold: bool, steps: int) -> Messages:
    """What travelled in the ``steps`` steps that count; ``cold``: the trace's first step does not.

    A size of -1 is not known. One of 0 is of a barrier, which moves nothing: it is no smallest message.
    """
    end = trace.steps["end_ns"]
    within = trace.responses["end_ns"] > (end[0] if cold else -1)
    nbytes = trace.responses["bytes"][within]
    moved = np.sort(nbytes[nbytes > 0]).tolist() or np.sort(nbytes[nbytes == 0]).tolist()
    least, median, most = (float(quantile(moved, share)) if moved else None for share in (0.0, 0.5, 1.0))
    return Messages(
        per_step=nbytes.size / steps,
        bytes_per_step=None if (nbytes < 0).any() else sum(nbytes.tolist()) / steps,
        tensors_per_step=float(trace.responses["units"][within].sum()) / steps,
        bytes_min=least, bytes_median=median, bytes_max=most,
    )  # fmt: skip
