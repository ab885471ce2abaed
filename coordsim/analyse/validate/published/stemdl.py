"""V5, V6 and V18: STEMDL on all of Summit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from coordsim.analyse.allocation import energy_of
from coordsim.analyse.validate.published import summit
from coordsim.analyse.validate.published.ranges import UNASKED
from coordsim.analyse.validate.published.rows import OVER, Row, Verdict
from coordsim.analyse.validate.published.runs import Efficiencies, Interval, Overrides, interval
from coordsim.cost.power import energy
from coordsim.scenario.model import Machine, Scenario
from coordsim.simulate.engine import simulate

EFFICIENCY, SUSTAINED_EF, SUSTAINED_BY = 0.93, 1.54, 0.02
ENVELOPE_MW = 13.0
"""The machine may draw no more. READ."""
SEEDS = (0, 1, 2, 3)
"""Means over draws of the GPUs: which one is the slowest is most of what scaling loses."""
STEPS = 1
"""Noise is a GPU's own for the whole job, so steps differ by a share of one 2 ms cycle."""
DEVICE_RATE = "device rate 60.0 TF: V5 and V6 (it sets the step, not how that scales)"
ERA = (
    f"{summit.HARDWARE}; STEMDL of 2019: cached control plane, 2 ms, 64 MiB, layer groups, NCCL (2.4.8 assumed), "
    "FP16, batch 1; growth and kernel of the production network assumed"
)
_SOURCE = "Romero et al., NSDI'22, abstract (docs/published.md {})"


def rows(quick: bool = False) -> Iterator[Row]:
    """V5 against one GPU and against one node, V6 and V18. ``quick``: 6,000 GPUs, one seed, two parameters."""
    gpus, steps, seeds = (6000, summit.QUICK_STEPS, SEEDS[:1]) if quick else (summit.FULL_MACHINE, STEPS, SEEDS)
    ranges = tuple(each for each in UNASKED if each.name in ("jitter", "bandwidth") or not quick)
    found = Efficiencies(_scenario, steps, seeds)

    def against_one(overrides: Overrides) -> float:
        return found(gpus, overrides)

    def against_node(overrides: Overrides) -> float:
        return found(gpus, overrides) / found(summit.PER_NODE, overrides)

    for words, figure in (("one GPU", against_one), ("one node", against_node)):
        spread = interval(figure, ranges)
        yield Row(
            id="V5", what=f"against {words}", gpus=gpus, published="0.93", target=EFFICIENCY,
            use="predicted", low=spread.low, predicted=spread.median, high=spread.high, tolerance="inside the interval",
            verdict=_inside(spread), interval_over=OVER,
            spreads=spread.spreads, era=ERA, fitted=(DEVICE_RATE,), source=_SOURCE.format("V5"), status="READ",
            note="which of the two the publication means is not in the text read; the interval is wide",
        )  # fmt: skip
    whole = simulate(_scenario(gpus, (), steps))
    work = whole.scenario.workload
    alone_s = found.alone_s[gpus, ()]
    sustained = gpus * work.batch * work.flops_per_sample * found(gpus) / alone_s / 1e18
    target = SUSTAINED_EF * gpus / summit.FULL_MACHINE
    near = abs(sustained - target) <= SUSTAINED_BY * gpus / summit.FULL_MACHINE
    yield Row(
        id="V6", what="sustained, EF", gpus=gpus, published=f"{SUSTAINED_EF} +- {SUSTAINED_BY}", target=target,
        use="check", predicted=sustained, tolerance=f"within {SUSTAINED_BY}", verdict="hit" if near else "miss",
        era=ERA, fitted=("device rate 60.0 TF: V5 and V6",), source=_SOURCE.format("V6"), status="READ, DERIVED",
        note="consistency: the device rate was set from V5 and V6, so this says V5 again",
    )  # fmt: skip
    machine, used = whole.scenario.cluster.machine, energy_of(whole)
    if used is None:
        return

    def megawatts(machine: Machine) -> float:
        found = energy(whole.breakdown(), gpus, 1, machine)
        return 0.0 if found is None else found.kwh * 3.6 / whole.step_time_s

    least, most = power_ends(machine)
    low, middle, high = (megawatts(each) for each in (least, machine, most))
    yield Row(
        id="V18", what="power at the meter, MW", gpus=gpus, published="7 MW(h)", use="check",
        low=low, predicted=middle, high=high,
        interval_over="GPU power, twice or half the rest of a node, PUE 1.0-1.2", era=ERA,
        source="docs/published.md V18", status="READ, FIG",
        note=f"plausibility only: {'within' if middle <= ENVELOPE_MW else 'ABOVE'} the machine's {ENVELOPE_MW:.0f} MW;"
        " whether 7 is MW or MWh is not said; weekly medians of the machine are 4.5-5.7 MW",
    )  # fmt: skip


def _scenario(ranks: int, overrides: Overrides, steps: int = STEPS) -> Scenario:
    return summit.scenario("stemdl", ranks, "cached", "layer", overrides, steps=steps)


def power_ends(machine: Machine) -> tuple[Machine, Machine]:
    """Least and most a node may draw: a V100 at 184 W and at its limit of 300 W in training, the rest of a node
    uncertain by 2x, PUE in the published figure or not (docs/published.md 4 and the catalog's sources)."""
    host = machine.host_power_mW or 0
    least = replace(machine, gpu_power_mW=184_000, host_power_mW=host // 2, pue_permille=1000)
    return least, replace(machine, gpu_power_mW=300_000, host_power_mW=2 * host, pue_permille=1200)


def _inside(spread: Interval) -> Verdict:
    return "hit" if spread.low <= EFFICIENCY <= spread.high else "miss"
