"""How one GPU's compute time follows the batch: measured rates by batch, or a stated law where there are none.

Three laws, in this order of preference:

1. Rates at two batches or more: times are straight lines between the measured points. Below the first and beyond the
   last point the nearest line goes on, but never below what proportion to the nearest point gives.
2. A rate at one batch, and a fixed time a step (``workload.fixed``): the fixed time stays, the rest is proportional.
3. Neither: forward and backward are proportional to the batch.

The optimizer does not depend on the batch in any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from coordsim.errors import Problem
from coordsim.scenario.keys import PPM
from coordsim.scenario.layers import Key, Overlay
from coordsim.scenario.recipes import WorkloadRecipe

BATCH = ("workload", "batch")
GLOBAL_BATCH = ("workload", "global_batch")
_NS = 10**9


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement: a step of ``batch`` samples takes ``step_ns`` on one GPU alone."""

    batch: int
    step_ns: Fraction


@dataclass(frozen=True, slots=True)
class BatchLaw:
    """A step's time on one GPU, by its batch."""

    points: tuple[Point, ...]
    """In growing order of batches; at least one."""
    fixed_ns: int = 0
    """What a step takes whatever its batch, beside the optimizer; counted where there is one point only."""

    def compute_ns(self, batch: int, optimizer_ns: Fraction) -> Fraction:
        """Forward and backward of ``batch`` samples, ns, where the optimizer takes ``optimizer_ns`` of each point."""
        rest = [(point.batch, point.step_ns - optimizer_ns) for point in self.points]
        if len(rest) == 1:
            known_batch, known_ns = rest[0]
            fixed = min(Fraction(self.fixed_ns), known_ns)
            return fixed + (known_ns - fixed) * batch / known_batch
        (low, low_ns), (high, high_ns) = next(
            (pair for pair in pairwise(rest) if batch <= pair[1][0]), (rest[-2], rest[-1])
        )
        line_ns = low_ns + (high_ns - low_ns) * (batch - low) / (high - low)
        if low <= batch <= high:
            return line_ns
        near, near_ns = (low, low_ns) if batch < low else (high, high_ns)
        proportional_ns = near_ns * batch / near
        return max(line_ns, proportional_ns) if batch < near else min(line_ns, proportional_ns)

    def step_ns(self, batch: int, optimizer_ns: Fraction) -> Fraction:
        """The whole step, ns."""
        return self.compute_ns(batch, optimizer_ns) + optimizer_ns

    def nearest(self, batch: int) -> int:
        """The measured batch that is nearest to ``batch``; the smaller of two."""
        return min((point.batch for point in self.points), key=lambda known: abs(known - batch))

    def rate(self, batch: int) -> Fraction:
        """Samples a second at a measured ``batch``."""
        step_ns = next(point.step_ns for point in self.points if point.batch == batch)
        return Fraction(batch * _NS) / step_ns

    def describe(self) -> str:
        """The law in words."""
        if len(self.points) > 1:
            batches = ", ".join(str(point.batch) for point in self.points)
            return f"straight lines between the rates known at batch {batches}"
        if self.fixed_ns:
            return f"{self.fixed_ns / 1e6:g} ms a step fixed, the rest in proportion"
        return "forward and backward in proportion; no rate at another batch is known"


def law_of(rate: int | Mapping[int, int], stated_batch: int, fixed_ns: int) -> BatchLaw:
    """The law behind ``rate``: samples a second in millionths, at ``stated_batch`` or by batch."""
    by_batch = rate if isinstance(rate, Mapping) else {stated_batch: rate}
    points = (Point(batch, Fraction(batch * PPM * _NS, millionths)) for batch, millionths in sorted(by_batch.items()))
    return BatchLaw(tuple(points), fixed_ns)


def check_rates(recipe: WorkloadRecipe, overlay: Overlay) -> list[Problem]:
    """Rates by which a larger batch would take less time than a smaller one."""
    problems = []
    for gpu, rate in recipe.rates_millionths.items():
        if isinstance(rate, Mapping):
            steps = sorted((batch, Fraction(batch, millionths)) for batch, millionths in rate.items())
            for (batch, step), (larger, faster) in pairwise(steps):
                if faster < step:
                    message = f"by these rates batch {larger} takes less time than batch {batch}: is one of them wrong?"
                    problems.append(overlay.problem(("workload", "rates", gpu), message))
    return problems


def batch_of(
    recipe: WorkloadRecipe, ranks: int | None, times_at: Key, overlay: Overlay
) -> tuple[int | None, list[Problem]]:
    """Samples per rank and step that are asked for; None where nothing says.

    ``times_at`` is the key that states the times: a batch of the same origin is theirs, and gives way to a global
    batch that is asked for.
    """
    total = recipe.global_batch
    if total is None:
        return recipe.batch, []
    if overlay.get(*BATCH) is not None:  # of a generator, too, whose parameter it is
        origin = overlay.origin(BATCH)
        if not origin.ours and origin != overlay.origin(times_at):
            return None, [overlay.problem(GLOBAL_BATCH, "excludes batch: say one or the other")]
    if ranks is None:
        return None, []  # the number of ranks is wrong, which is reported
    if total % ranks:
        below = total - total % ranks
        nearest = f"{below} and {below + ranks}" if below else str(ranks)
        message = f"{total} samples cannot be shared equally by {ranks} ranks (nearest: {nearest})"
        return None, [overlay.problem(GLOBAL_BATCH, message)]
    return total // ranks, []


def stated_batch(times_at: Key, overlay: Overlay, otherwise: int | None) -> int | None:
    """The batch for which the times at ``times_at`` are stated; ``otherwise`` where that layer does not say."""
    value = overlay.stated(BATCH, overlay.origin(times_at))
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else otherwise

