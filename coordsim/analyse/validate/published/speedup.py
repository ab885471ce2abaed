"""V1: the cached control plane with groups over Horovod's original design, as a curve over the cost of a request."""

from __future__ import annotations

from collections.abc import Iterator

from coordsim.analyse.request_cost import RequestCost, request_cost_interval
from coordsim.analyse.validate.published import summit
from coordsim.analyse.validate.published.rows import Point, Row
from coordsim.analyse.validate.published.runs import Steps, bisect

GPUS = 6000
TARGET = 2.0
CASES = ("resnet50@32", "resnet50", "resnet50@128", "stemdl")
HIGHEST_US = 10.0
"""The cost that gives 2.0 is looked for up to here."""
ERA = (
    "NSDI'22: Horovod 0.13.3-0.16.1 (gather and broadcast every cycle, 5 ms, 64 MiB; STEMDL 2 ms) against 0.21 (cache, "
    f"1 ms, 128 MiB; layer groups); {summit.HARDWARE}; model and batch not in the text read"
)


def rows(case: str, quick: bool = False) -> Iterator[Row]:
    """The row of one model. ``quick``: two steps."""
    steps = summit.QUICK_STEPS if quick else summit.STEPS
    runs = Steps(summit.scenario, steps)
    cost = request_cost_interval()

    # Whatever a request costs: steps that count ask nobody.
    cached_s = runs(case, GPUS, "cached", "layer").step_time_s

    def at(cost_us: float) -> float:
        override = (f"cluster.host.per_request={cost_us:.6g}us",)
        return runs(case, GPUS, "coordinator", "none", override).step_time_s / cached_s

    curve = [Point(us, at(us)) for us in _measured_us(cost)]
    values = [point.value for point in curve]
    yield Row(
        id="V1", what=summit.name_of(case), gpus=GPUS, published="2.0x", target=TARGET, use="curve", verdict="curve",
        low=min(values), predicted=values[1], high=max(values), curve=tuple(curve),
        interval_over=f"request cost {cost.low_ns / 1000:.2f}-{cost.high_ns / 1000:.2f} us, as measured",
        cost_that_gives_us=bisect(lambda us: at(us) - TARGET, 0.0, HIGHEST_US), cost_tried_us=HIGHEST_US, era=ERA,
        source="Romero et al., NSDI'22, abstract (docs/published.md V1)", status="READ",
    )  # fmt: skip


def _measured_us(cost: RequestCost) -> tuple[float, float, float]:
    return (cost.low_ns / 1000, cost.median_ns / 1000, cost.high_ns / 1000)
