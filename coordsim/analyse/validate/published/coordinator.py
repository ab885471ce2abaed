"""V3 and V17: DDP at 1,536 GPUs, and one coordinator, point to point, above 10,000."""

from __future__ import annotations

from collections.abc import Iterator

from coordsim.analyse.scaling import baseline_step_s
from coordsim.analyse.validate.published import summit
from coordsim.analyse.validate.published.ranges import SUMMIT, UNASKED
from coordsim.analyse.validate.published.rows import OVER, Row, Verdict
from coordsim.analyse.validate.published.runs import Interval, Overrides, Steps, interval

COMPARABLE = 0.05
DDP_GPUS = 1536
LARGE_GPUS = (12_288, summit.FULL_MACHINE)
BROKEN, STRAINED = 0.5, 0.8
"""Efficiencies below which "does not work very well" is true at any cost, and at the median."""
CASES = ("resnet50", "stemdl")


def ddp_rows(case: str, quick: bool = False) -> Iterator[Row]:
    """V3. ``quick``: two steps, two parameters."""
    ranges = tuple(each for each in UNASKED if each.name in ("jitter", "bandwidth") or not quick)
    runs = Steps(summit.scenario, summit.QUICK_STEPS if quick else summit.STEPS)

    def over(overrides: Overrides) -> float:
        ddp = runs(case, DDP_GPUS, "ddp", "none", overrides).step_time_s
        return ddp / runs(case, DDP_GPUS, "cached", "layer", overrides).step_time_s

    spread = interval(over, ranges)
    near = all(abs(ratio - 1) <= COMPARABLE for ratio in (spread.low, spread.median, spread.high))
    yield Row(
        id="V3", what=summit.name_of(case), gpus=DDP_GPUS, published="comparable", target=1.0, use="predicted",
        low=spread.low, predicted=spread.median, high=spread.high, tolerance="within 5 %",
        verdict="hit" if near else "miss", interval_over=OVER,
        spreads=spread.spreads, status="READ", source="Romero et al., NSDI'22, abstract (docs/published.md V3)",
        era=f"PyTorch DDP, 25 MiB buckets, against the cached control plane with layer groups, 1 ms (STEMDL 2 ms); "
        f"{summit.HARDWARE}; model and batch not in the text read",
    )  # fmt: skip


def point_to_point_rows(case: str, quick: bool = False) -> Iterator[Row]:
    """V17. ``quick``: the full machine alone, two steps, two parameters."""
    ranges = tuple(each for each in SUMMIT if each.name in ("jitter", "request_cost") or not quick)
    runs = Steps(summit.scenario, summit.QUICK_STEPS if quick else summit.STEPS)
    for gpus in LARGE_GPUS[1:] if quick else LARGE_GPUS:

        def efficiency(overrides: Overrides, gpus: int = gpus) -> float:
            found = runs(case, gpus, "point-to-point", "layer", overrides)
            return baseline_step_s(found.scenario) / found.step_time_s

        spread = interval(efficiency, ranges)
        yield Row(
            id="V17", what=summit.name_of(case), gpus=gpus, published='"not very well"', use="check", low=spread.low,
            predicted=spread.median, high=spread.high, verdict=_verdict(spread), spreads=spread.spreads,
            tolerance=f"below {BROKEN} at any parameters (in part: median below {STRAINED})",
            interval_over=OVER, status="READ",
            source="horovod PR #276 (May 2018): above 10,000 GPUs (docs/published.md V17)",
            era=f"Horovod up to 0.13.2: point to point, 5 ms (STEMDL 2 ms), 64 MiB; {summit.HARDWARE}; layer groups; "
            "model not said",
        )  # fmt: skip


def _verdict(spread: Interval) -> Verdict:
    return "hit" if spread.high < BROKEN else "in part" if spread.median < STRAINED else "miss"
