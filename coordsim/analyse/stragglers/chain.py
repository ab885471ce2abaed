"""Each rank's own work between two releases, part by part, to tell what a late rank does longer than the others.

Ranks are released together when a step's last collective ends. From there to its last gradient of the next step a rank
works by itself: the optimizer, what is between the steps, input, forward, backward. These times are on each rank's own
clock, so they need no clock offsets. Their excess over the other ranks sums to the lateness of the last gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coordsim.record.ranks.own import OWN_PARTS, OwnStep, add
from coordsim.record.trace import Int64

SHARING = 3.0
"""On shared cores a rank's work can take this many times as long as the others' without a cause of its own."""
SLICE_NS = 2_000_000
"""Lateness that time slices on shared cores cause between equal ranks."""
CPU_VARIES = 0.3
"""Share by which the CPU time of the same work varies, because caches are shared."""
LASTING = 0.2
"""Share of the steps in which a cause may be hidden by what slows the others."""
STEADY = 0.35
"""Largest interquartile range of a steady lateness, as a share of its median. Sharing comes and goes with time slices,
so a lateness that varies less, and is seldom below half of its median, has another cause."""
ENOUGH = 0.5
"""Share of a rank's lateness that must exceed what sharing cores can cause."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Chain:
    """Own work of all ranks between releases."""

    steps: Int64
    """Numbers of the steps, shape [step]."""
    parts_SRP: Int64
    """ns, shape [step, rank, part]; parts in the order of :data:`OWN_PARTS`."""
    cpu_SR: Numbers
    """CPU time of the main thread in each step, ns; NaN where it was not recorded."""
    core_wait_SR: Numbers
    """Time in each step for which the main thread was ready to run and no core was free, ns, shape [step, rank].

    It is NaN where it was not recorded. It is also NaN for a rank that computes with several threads, since a wait of
    any of them delays the rank.
    """
    spanned: bool
    """Whether all ranks recorded spans, so that the parts can be distinguished."""

    def select_ranks(self, places: Sequence[int]) -> Chain:
        """Return the chain of the ranks at ``places``."""
        return Chain(
            self.steps, self.parts_SRP[:, places], self.cpu_SR[:, places], self.core_wait_SR[:, places], self.spanned
        )

    def select_steps(self, numbers: Int64) -> Chain:
        """Return the chain of the steps ``numbers``."""
        chosen = np.isin(self.steps, numbers)
        return Chain(
            self.steps[chosen], self.parts_SRP[chosen], self.cpu_SR[chosen], self.core_wait_SR[chosen], self.spanned
        )


def build_chain(own: Sequence[Mapping[int, OwnStep]], numbers: Sequence[int], threads: Sequence[int | None]) -> Chain:
    """Build the chain over those of the steps ``numbers`` whose preceding step every rank has recorded as well.

    ``own`` holds each rank's own steps by number; ``threads`` is the number of threads that compute in each rank, or
    None where it is not known.
    """
    chosen = [number for number in numbers if all(number - 1 in steps and number in steps for steps in own)]
    parts = [[add(steps[number - 1].after, steps[number].before) for steps in own] for number in chosen]
    cpu = [[_cpu_ns(steps[number]) for steps in own] for number in chosen]
    waits = [
        [_core_wait_ns(steps[number]) if count in (1, None) else float("nan")
         for steps, count in zip(own, threads, strict=True)] for number in chosen
    ]  # fmt: skip
    shape = (len(chosen), len(own))
    return Chain(
        np.array(chosen, dtype=np.int64), np.array(parts, dtype=np.int64).reshape(*shape, len(OWN_PARTS)),
        np.array(cpu, dtype=np.float64).reshape(shape), np.array(waits, dtype=np.float64).reshape(shape),
        all(bool(steps[number].record.spans) for steps in own for number in chosen),
    )  # fmt: skip


def _cpu_ns(step: OwnStep) -> float:
    return float("nan") if step.record.cpu is None else float(step.record.cpu.main_ns)


def _core_wait_ns(step: OwnStep) -> float:
    wait_ns = None if step.record.cpu is None else step.record.cpu.core_wait_ns
    return float("nan") if wait_ns is None else float(wait_ns)


def excess_by_part(chain: Chain, place: int) -> dict[str, float]:
    """Return how much longer than the median of the others the rank at ``place`` takes for each part.

    Values are ns, medians over steps.
    """
    middle = np.median(behind_median_of(chain.parts_SRP, place), axis=0)
    return {part: float(value) for part, value in zip(OWN_PARTS, middle, strict=True)}


def lacks_cores(chain: Chain) -> bool:
    """Return whether ranks waited for cores for a large part of their own work.

    Where these waits were not recorded, the answer is whether ranks got much less CPU time than their work took. This
    is also true of ranks that sleep.
    """
    if not chain.steps.size or np.isnan(chain.cpu_SR).any():
        return False
    work = np.median(chain.parts_SRP.sum(axis=2), axis=0)
    if not np.isnan(chain.core_wait_SR).any():
        return bool(np.median(np.median(chain.core_wait_SR, axis=0) / np.maximum(work, 1.0)) > CPU_VARIES)
    return bool(np.median(np.median(chain.cpu_SR, axis=0) / np.maximum(work, 1.0)) < 1 - CPU_VARIES)


def exceeds_sharing(chain: Chain, places: Sequence[int], late_ns: float) -> bool:
    """Return whether the ranks at ``places`` are late by more than sharing cores can cause between equal ranks.

    Another process on its core makes a rank about :data:`SHARING` times slower (more on a very busy machine), but it
    comes and goes, whereas a cause of the rank's own is there in nearly all steps. So the lateness has another cause

    - if parts of the rank's work exceed that factor against the others in four of five steps,
    - if its work needs more CPU time than caches explain, or sleeps, or
    - if neither parts nor CPU times were recorded and the rank is late by the same amount in nearly all steps.

    Where the waits for cores were recorded, they state what sharing adds to the main thread's own work, and no factor
    is assumed. ``late_ns`` is the median lateness.
    """
    if not chain.steps.size:
        return False
    enough = max(ENOUGH * late_ns, SLICE_NS)
    return all(_unexplained_ns(chain, place) >= enough or _steady(chain, place, late_ns) for place in places)


def _steady(chain: Chain, place: int, late_ns: float) -> bool:
    """Return whether a rank of which only whole steps are known is late by nearly the same in nearly all steps."""
    if late_ns < SLICE_NS or not np.isnan(chain.cpu_SR).any():
        return False
    return _is_steady(behind_median_of(chain.parts_SRP, place).sum(axis=1))


def _is_steady(longer: Numbers) -> bool:
    """Return whether lateness (ns, shape [step]) is nearly the same in nearly all steps."""
    tenth, low, middle, high = np.quantile(longer, (0.1, 0.25, 0.5, 0.75))
    return bool(high - low <= STEADY * middle and tenth >= ENOUGH * middle)


def _unexplained_ns(chain: Chain, place: int) -> float:
    """Return the lateness of the rank at ``place``, ns a step, that sharing cores does not explain."""
    others = np.delete(chain.parts_SRP, place, axis=1)
    longer = np.quantile(behind_median_of(chain.parts_SRP, place), LASTING, axis=0)
    allowed = (SHARING - 1) * np.median(np.median(others, axis=1), axis=0)
    beyond = float(np.maximum(longer - allowed, 0.0).sum())
    if np.isnan(chain.cpu_SR).any():
        return beyond
    usual = float(np.median(np.delete(chain.cpu_SR, place, axis=1)))
    used = np.quantile(chain.cpu_SR[:, place], LASTING) - (1 + CPU_VARIES) * usual
    asleep = float(np.maximum(longer, 0.0).max()) - (SHARING - 1) * usual
    return max(beyond, float(used), asleep, _beyond_waits_ns(chain, place, usual))


def _beyond_waits_ns(chain: Chain, place: int, usual_cpu_ns: float) -> float:
    """Return the excess of the main thread's own work, ns a step, over its waits for cores and its CPU time.

    Excess of input counts only where it is nearly the same in nearly all steps, since input may be late because of
    worker processes, whose waits for cores are not known. The result is 0 where waits were not recorded.

    A wait may lie in the rank's own work or outside of it, so that own work without waits is known between two bounds.
    The lower one is taken for this rank. The upper one is taken for the others: it is the first quartile of their work
    over steps, which few waits have made longer, but no less than the median work less the median wait, since steps
    may differ without any wait. Besides, the rank is compared with the others step by step.
    """
    if np.isnan(chain.core_wait_SR).any():
        return 0.0
    input_longer = behind_median_of(chain.parts_SRP, place)[:, OWN_PARTS.index("input_stall")]
    parts = [part != "input_stall" or _is_steady(input_longer) for part in OWN_PARTS]
    work = chain.parts_SRP[:, :, parts].sum(axis=2)
    others = np.median(np.delete(work, place, axis=1), axis=1)
    other_waits = np.median(np.delete(chain.core_wait_SR, place, axis=1), axis=1)
    wait = chain.core_wait_SR[:, place]
    by_step = work[:, place] - others - np.maximum(wait - other_waits, 0.0)
    usual_work = max(np.quantile(others, 0.25), np.median(others) - np.median(other_waits))
    longer = max(np.quantile(by_step, LASTING), np.median(work[:, place] - wait) - usual_work)
    return float(longer) - CPU_VARIES * usual_cpu_ns


def behind_median_of(parts_SRP: Int64, place: int) -> Numbers:
    """Return how much longer than the median of the others the rank at ``place`` takes, ns, shape [step, part]."""
    others = np.median(np.delete(parts_SRP, place, axis=1), axis=1)
    return np.asarray(parts_SRP[:, place, :] - others, dtype=np.float64)
