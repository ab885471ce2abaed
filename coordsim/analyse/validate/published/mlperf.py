"""V20 to V25: ResNet-50 by real Horovod, with cache and groups, at 8 to 512 GPUs (MLPerf Training logs).

Fitted, and nothing else: a lone GPU's rate on each machine to its one-node row (V20, V21, V24), and one constant a step
for each generation of software to a larger row (V22, V25). The values stand in the catalog's ``resnet50``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import mean

from coordsim.analyse.validate.published.ranges import Range
from coordsim.analyse.validate.published.rows import OVER, Row, Use
from coordsim.analyse.validate.published.runs import Overrides, interval
from coordsim.scenario import catalog
from coordsim.scenario.loading import load_scenario
from coordsim.scenario.model import Scenario
from coordsim.simulate.engine import simulate
from coordsim.units import parse_time

TOLERANCE = 0.10
SEEDS = (0, 1, 2)
STEPS = 8
SETTINGS = ("control_plane.cycle_time=100us", "control_plane.fusion_threshold=64MiB", "workload.dtype=float16")
"""READ: the rounds' config files; gradients are FP16."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the logs."""

    id: str
    cluster: str
    gpus: int
    batch: int
    groups: int
    step_ms: float
    use: Use
    round: str

    def scenario(self, control_plane: str = "cached", overrides: Overrides = ()) -> Scenario:
        """The row's job as it was run, under ``control_plane``."""
        return load_scenario(
            workload="resnet50", cluster=self.cluster, ranks=self.gpus, batch=self.batch, groups=self.groups,
            control_plane=control_plane, overrides=(*SETTINGS, *overrides),
        )  # fmt: skip


CASES = (
    Case("V20", "dgx-1", 8, 208, 20, 148.3, "fitted", "v0.6"),
    Case("V21", "dgx-2h", 16, 208, 20, 135.0, "fitted", "v0.6"),
    Case("V22", "dgx-2h", 512, 65, 16, 52.5, "fitted", "v0.6"),
    Case("V23", "dgx-2h", 512, 65, 1, 52.9, "predicted", "v0.7"),
    Case("V24", "dgx-a100", 8, 408, 1, 123.9, "fitted", "v1.1"),
    Case("V25", "dgx-a100", 64, 51, 1, 19.6, "fitted", "v1.1"),
)
FITTED = (
    "rate of a lone GPU: V20 (dgx-1), V21 (dgx-2h), V24 (dgx-a100)",
    "constant a step: 12.7 ms to V22, 2.2 ms to V25",
)
_BANDWIDTHS = {
    "dgx-1": ("30GB/s", "42GB/s", "46GB/s"),
    "dgx-2h": ("60GB/s", "84GB/s", "92GB/s"),
    "dgx-a100": ("120GB/s", "168GB/s", "185GB/s"),
}


def rows(case: Case, quick: bool = False) -> Iterator[Row]:
    """The row, and for the larger ones what the original coordinator would have taken. ``quick``: one seed, 3 steps."""
    seeds, steps = (SEEDS[:1], 3) if quick else (SEEDS, STEPS)
    spread = interval(lambda over: _step_ms(case.scenario("cached", over), seeds, steps), _ranges(case, quick))
    off = spread.median / case.step_ms - 1
    hit = abs(off) <= TOLERANCE
    row = Row(
        id=case.id, what=f"{case.cluster}, batch {case.batch}, ms", gpus=case.gpus,
        published=f"{case.step_ms:.1f}", target=case.step_ms, use=case.use, low=spread.low, predicted=spread.median,
        high=spread.high, interval_over=OVER, spreads=spread.spreads, fitted=FITTED, status="DERIVED from READ logs",
        era=f"MLPerf Training {case.round}, MXNet, NVIDIA's build of Horovod, cycle 0.1 ms, 64 MiB, FP16 gradients",
        source="mlcommons/training_results, result logs and config files (docs/published.md 1)",
        note=f"{case.id}: {_parts(case, seeds, steps)}",
    )  # fmt: skip
    if case.use == "predicted":
        row = replace(row, tolerance=f"within {TOLERANCE:.0%}", verdict="hit" if hit else "miss")
    yield row
    if case.id in ("V22", "V25"):
        yield _under_the_coordinator(case, row, seeds, steps)


def _under_the_coordinator(case: Case, row: Row, seeds: Sequence[int], steps: int) -> Row:
    """The same job with every tensor asked for in every cycle, at the least and the largest measured request cost."""
    at = {
        cost: _step_ms(case.scenario("coordinator", (f"cluster.host.per_request={cost}us",)), seeds, steps)
        for cost in ("0.28", "0.56", "1.02")
    }
    above = at["0.28"] / case.step_ms - 1
    if above > TOLERANCE:
        verdict = f"even at the least request cost a step would take {above:.0%} more than the log: excluded"
    else:
        verdict = f"at the least request cost a step would take {above:+.0%} against the log: not excluded"
    return replace(
        row, what="original design, ms", use="check", low=min(at.values()),
        predicted=at["0.56"], high=max(at.values()), interval_over="request cost 0.28 to 1.02 us", spreads=(),
        verdict="no verdict", tolerance="", note=f"original coordinator at {case.id}'s settings: {verdict}",
    )  # fmt: skip


def _ranges(case: Case, quick: bool) -> tuple[Range, ...]:
    jitter = Range(
        "jitter", "jitter sigma", "noise.rank.sigma", ("0.5%", "1%", "1.5%"), "high",
        "ASSUMED for machines of a benchmark; 1.5 % is Sinha et al.'s (docs/published.md 6)",
    )  # fmt: skip
    bandwidth = Range(
        "bandwidth", "bus bandwidth", "cluster.data.bus_bandwidth", _BANDWIDTHS[case.cluster], "low",
        "ASSUMED, the catalog's sweep",
    )  # fmt: skip
    hops = Range(
        "hop_latency", "hop latency", "cluster.data.hop_latency", ("50%", "100%", "200%"), "high",
        "ASSUMED, the catalog's sweep around NCCL's own table",
    )  # fmt: skip
    return (jitter,) if quick else (jitter, bandwidth, hops)


def _step_ms(scenario: Scenario, seeds: Sequence[int], steps: int) -> float:
    scenario = replace(scenario, steps=steps)
    return mean(simulate(replace(scenario, seed=seed)).step_time_s for seed in seeds) * 1000


def _parts(case: Case, seeds: Sequence[int], steps: int) -> str:
    """Where the predicted step goes: what scales with the batch, the constant, waiting, control, collectives."""
    scenario = replace(case.scenario(), steps=steps)
    parts = [simulate(replace(scenario, seed=seed)).breakdown() for seed in seeds]
    ms = {name: mean(part[name] for part in parts) * 1000 for name in parts[0]}
    fixed = catalog.read("workload", "resnet50")["fixed"]
    constant = parse_time(fixed[scenario.cluster.machine.gpu]) / 1e6
    compute = ms["forward"] + ms["backward"] + ms["optimizer"] - constant
    control = ms["cycle_wait"] + ms["control_exchange"] + ms["control_work"]
    exposed = ms["fusion_copy"] + ms["exposed_collective"]
    return (
        f"compute {compute:.1f}, constant {constant:.1f}, wait for the last rank {ms['straggler_wait']:.1f}, "
        f"control {control:.1f}, exposed copies and collectives {exposed:.1f} ms"
    )
