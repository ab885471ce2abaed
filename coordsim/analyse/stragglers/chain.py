"""What a late rank does longer than the others: its own work between two releases, part by part.

Ranks are released together when a step's last collective ends. From there to its last gradient of the next step a rank
works by itself: the optimizer, what is between the steps, input, forward, backward. These times are on each rank's own
clock, so they need no offsets; and they sum to how late its last gradient is against the others'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coordsim.record.ranks.own import OWN_PARTS, OwnStep, add
from coordsim.record.trace import Int64

SHARING = 3.0
"""On cores that are shared, a rank's work may take so many times as long as the others' without a cause of its own."""
SLICE_NS = 2_000_000
"""Lateness that turns on shared cores make of equal ranks."""
CPU_VARIES = 0.3
"""Share by which CPU time of the same work differs, caches being shared."""
LASTING = 0.2
"""Share of the steps in which a cause may be hidden by what slows the others."""
STEADY = 0.35
"""Sharing comes and goes with time slices: lateness whose middle half of steps lies closer together than this share of
its median, and that is hardly ever less than half of it, is none of it."""
ENOUGH = 0.5
"""Share of a rank's lateness that must be beyond what sharing can make."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Chain:
    """Own work between releases."""

    steps: Int64
    """Numbers of the steps, shape [step]."""
    parts_SRP: Int64
    """ns, shape [step, rank, part]; parts in the order of :data:`OWN_PARTS`."""
    cpu_SR: Numbers
    """CPU time of the main thread in each step, ns; NaN where it was not recorded."""
    core_wait_SR: Numbers
    """Time in each step for which the main thread was ready to run and no core was free, ns; NaN where that was not
    recorded, and where it computes with several threads, of which one that waits delays all."""
    spanned: bool
    """Whether all ranks recorded spans, so that parts are told apart."""

    def among(self, places: Sequence[int]) -> Chain:
        """Of some of the ranks only."""
        return Chain(
            self.steps, self.parts_SRP[:, places], self.cpu_SR[:, places], self.core_wait_SR[:, places], self.spanned
        )

    def of(self, numbers: Int64) -> Chain:
        """Of some of the steps only."""
        chosen = np.isin(self.steps, numbers)
        return Chain(
            self.steps[chosen], self.parts_SRP[chosen], self.cpu_SR[chosen], self.core_wait_SR[chosen], self.spanned
        )


def chain_of(own: Sequence[Mapping[int, OwnStep]], numbers: Sequence[int], threads: Sequence[int | None]) -> Chain:
    """The chain over those of the steps ``numbers`` whose step before every rank has, too.

    ``threads``: how many threads compute in each rank; None where that is not known.
    """
    chosen = [number for number in numbers if all(number - 1 in steps and number in steps for steps in own)]
    parts = [[add(steps[number - 1].after, steps[number].before) for steps in own] for number in chosen]
    cpu = [[_cpu(steps[number]) for steps in own] for number in chosen]
    waits = [
        [_core_wait(steps[number]) if of_rank in (1, None) else float("nan")
         for steps, of_rank in zip(own, threads, strict=True)] for number in chosen
    ]  # fmt: skip
    shape = (len(chosen), len(own))
    return Chain(
        np.array(chosen, dtype=np.int64), np.array(parts, dtype=np.int64).reshape(*shape, len(OWN_PARTS)),
        np.array(cpu, dtype=np.float64).reshape(shape), np.array(waits, dtype=np.float64).reshape(shape),
        all(bool(steps[number].record.spans) for steps in own for number in chosen),
    )  # fmt: skip


def _cpu(step: OwnStep) -> float:
    return float("nan") if step.record.cpu is None else float(step.record.cpu.main_ns)


def _core_wait(step: OwnStep) -> float:
    wait_ns = None if step.record.cpu is None else step.record.cpu.core_wait_ns
    return float("nan") if wait_ns is None else float(wait_ns)


def excess(chain: Chain, place: int) -> dict[str, float]:
    """Part -> how much longer than the median of the others the rank takes for it, ns, median over steps."""
    middle = np.median(behind_median_of(chain.parts_SRP, place), axis=0)
    return {part: float(value) for part, value in zip(OWN_PARTS, middle, strict=True)}


def starved(chain: Chain) -> bool:
    """Whether ranks waited for cores for a large part of their own work.

    Where those waits were not recorded: whether they got much less CPU time than their work took, which is also so when
    they sleep.
    """
    if not chain.steps.size or np.isnan(chain.cpu_SR).any():
        return False
    work = np.median(chain.parts_SRP.sum(axis=2), axis=0)
    if not np.isnan(chain.core_wait_SR).any():
        return bool(np.median(np.median(chain.core_wait_SR, axis=0) / np.maximum(work, 1.0)) > CPU_VARIES)
    return bool(np.median(np.median(chain.cpu_SR, axis=0) / np.maximum(work, 1.0)) < 1 - CPU_VARIES)


def beyond_sharing(chain: Chain, places: Sequence[int], late_ns: float) -> bool:
    """Whether these ranks (those of a host, or one) are late by more than shared cores can make of equal ranks.

    Somebody else on its core makes a rank some :data:`SHARING` times slower, more on a very busy machine, but comes and
    goes; a cause of its own is there in nearly all steps. So it is not that if parts take it longer than that, against
    the others, in four of five steps; or if its work needs so much more CPU time; or, where neither parts nor CPU times
    were recorded, if it is late by the same in nearly all steps. Where the waits for cores were recorded, they are what
    sharing makes of the main thread's own work, and no factor is assumed for it.
    """
    if not chain.steps.size:
        return False
    enough = max(ENOUGH * late_ns, SLICE_NS)
    return all(_beyond(chain, place) >= enough or _steady(chain, place, late_ns) for place in places)


def _steady(chain: Chain, place: int, late_ns: float) -> bool:
    """Whether a rank of which only the whole is known is late by nearly the same in nearly all steps."""
    if late_ns < SLICE_NS or not np.isnan(chain.cpu_SR).any():
        return False
    return _is_steady(behind_median_of(chain.parts_SRP, place).sum(axis=1))


def _is_steady(longer: Numbers) -> bool:
    """Whether lateness (ns, shape [step]) is nearly the same in nearly all steps."""
    tenth, low, middle, high = np.quantile(longer, (0.1, 0.25, 0.5, 0.75))
    return bool(high - low <= STEADY * middle and tenth >= ENOUGH * middle)


def _beyond(chain: Chain, place: int) -> float:
    """ns a step that sharing cores does not explain."""
    others = np.delete(chain.parts_SRP, place, axis=1)
    longer = np.quantile(behind_median_of(chain.parts_SRP, place), LASTING, axis=0)
    allowed = (SHARING - 1) * np.median(np.median(others, axis=1), axis=0)
    beyond = float(np.maximum(longer - allowed, 0.0).sum())
    if np.isnan(chain.cpu_SR).any():
        return beyond
    usual = float(np.median(np.delete(chain.cpu_SR, place, axis=1)))
    used = np.quantile(chain.cpu_SR[:, place], LASTING) - (1 + CPU_VARIES) * usual
    asleep = float(np.maximum(longer, 0.0).max()) - (SHARING - 1) * usual
    return max(beyond, float(used), asleep, _beyond_waits(chain, place, usual))


def _beyond_waits(chain: Chain, place: int, usual_cpu_ns: float) -> float:
    """ns a step by which the main thread's own work is longer than its waits for cores and its CPU time explain.

    Input counts only where it is longer by nearly the same in nearly all steps, since workers whose waits are not known
    may make it. 0 where waits were not recorded.
    """
    if np.isnan(chain.core_wait_SR).any():
        return 0.0
    longer_by_part = behind_median_of(chain.parts_SRP, place)
    input_longer = longer_by_part[:, OWN_PARTS.index("input_stall")]
    longer = longer_by_part.sum(axis=1)
    if not _is_steady(input_longer):
        longer -= input_longer
    waits = chain.core_wait_SR[:, place] - np.median(np.delete(chain.core_wait_SR, place, axis=1), axis=1)
    return float(np.quantile(longer - np.maximum(waits, 0.0), LASTING)) - CPU_VARIES * usual_cpu_ns


def behind_median_of(parts_SRP: Int64, place: int) -> Numbers:
    """How much longer than the median of the others the rank at ``place`` takes, ns, shape [step, part]."""
    others = np.median(np.delete(parts_SRP, place, axis=1), axis=1)
    return np.asarray(parts_SRP[:, place, :] - others, dtype=np.float64)
