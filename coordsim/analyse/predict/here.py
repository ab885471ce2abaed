"""A prediction on the recorded machine: the same hosts with other numbers of ranks, and one interval around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import exp, log2
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from coordsim.analyse.predict.anchor import (
    SLICE_NS,
    Anchor,
    Levels,
    Setting,
    Step,
    anchor,
    fit_levels,
    recorded_hosts,
    simulated,
    spread_over,
)
from coordsim.analyse.predict.collectives import Costs
from coordsim.analyse.predict.typical import TypicalStep
from coordsim.errors import InputError
from coordsim.simulate.shared_cores import Host

Float = npt.NDArray[np.float64]
DRAWS = 32
INTERVAL = (5, 95)
MOST_RANKS = 128
"""On recorded hosts: beyond, nobody would start so many, and the model was never near it."""
SLICES_NS = (700_000, SLICE_NS, 6_000_000)
"""How long a thread may keep a core is the kernel's choice."""
SEEDS = 3
"""Simulations of the central prediction, other draws of the ranks' own times."""
PARTS = ("parameters", "run noise", "form", "unexplained")
"""What the interval is made of."""
Progress = Callable[[int, int], None]


class Doubt(NamedTuple):
    """How far things may be off: standard deviations of logarithms."""

    costs: float
    """Of each cost of a collective, against the others: halves and doubles are within 90 % where nothing measured the
    backend at other numbers of ranks."""
    level: float = 0.02
    """Of a rank's own times: another run of the same job."""
    run: float = 0.03
    """Of the median step of one more run on the same machine."""
    form: float = 0.05
    """Of the model, for each doubling of the ranks."""


ASSUMED = Doubt(costs=0.42)
MEASURED = Doubt(costs=0.2)
"""Where the backend was timed alone on this machine at several numbers of ranks."""


class Target(NamedTuple):
    """What ranks do in the prediction."""

    typical: TypicalStep
    """With other pieces, collectives or another backend than the record's."""
    costs: Costs | None
    """Of that backend, where it is another one than the recorded one: its CPU level is taken over, since it is the same
    machine's, and its latencies are as they stand."""

    def simulated(
        self, setting: Setting, levels: Levels, ranks: int, hosts: Sequence[Host], late: bool = False
    ) -> Step:
        """As :func:`coordsim.analyse.predict.anchor.simulated`; ``setting`` and ``levels`` are those of the record."""
        if self.costs is not None:
            setting, levels = setting._replace(costs=self.costs), levels._replace(latency=1.0)
        return simulated(self.typical, setting, levels, ranks, hosts, late)


@dataclass(frozen=True)
class HerePrediction:
    """Of one number of ranks on the recorded machine; ns."""

    anchor: Anchor
    ranks: int
    hosts: tuple[Host, ...]
    step: Step
    """As simulated, without what is unexplained."""
    step_ns: float
    """With it: the median step of a run."""
    interval_ns: tuple[float, float]
    """Where the median step of a new run is in 90 of 100 cases."""
    components_ns: dict[str, tuple[float, float]]
    """The same if only one of :data:`PARTS` were uncertain."""
    unexplained_ns: float
    wanted_cores: float
    """That the ranks of the busiest host would keep busy, had each thread a core."""
    late_ns: float | None
    """The step with the recorded straggler among the ranks; None where nobody was late."""
    doubt: Doubt

    @property
    def crowded(self) -> bool:
        """Whether ranks want more cores than a host has, or have to share some for a moment in each step."""
        return any(host.ranks > host.cores for host in self.hosts)


def predict_here(
    typical: TypicalStep, costs: Costs, doubt: Doubt, ranks: int, hosts: Sequence[Host] | None = None,
    target: Target | None = None, progress: Progress | None = None,
) -> HerePrediction:  # fmt: skip
    """``hosts``: where the ranks are; the recorded ones, dealt equally, where that is None. ``target``: what they do,
    where that is something else than what was recorded.

    Raises InputError for more ranks than anybody would start there.
    """
    placed = tuple(hosts) if hosts is not None else spread_over(recorded_hosts(typical), ranks)
    if ranks > MOST_RANKS:
        cores = sum(host.cores for host in placed)
        message = (
            f"the recorded machine has {cores} cores: more than {MOST_RANKS} ranks are not predicted there. Say which "
            "machine is meant: --cluster NAME"
        )
        raise InputError.one("--ranks", "", ranks, message)
    central = Setting(costs)
    base = anchor(typical, central)
    does = target or Target(typical, None)
    step = _median_step(does, central, base.levels, ranks, placed)
    unexplained = carried(base, ranks)
    step_ns = max(step.step_ns + unexplained, 0.0)
    draws = _Draws(base, does, doubt, ranks, placed, progress)
    roomy = tuple(Host(4 * host.ranks, host.ranks) for host in placed)
    alone = does.simulated(central, base.levels, ranks, roomy)
    late_ns = None
    if typical.late_rank is not None:
        late_ns = max(does.simulated(central, base.levels, ranks, placed, late=True).step_ns + unexplained, step_ns)
    return HerePrediction(
        base, ranks, placed, step, step_ns, draws.interval(step_ns, PARTS),
        {part: draws.interval(step_ns, (part,)) for part in PARTS}, unexplained, alone.cpu_ns / alone.step_ns, late_ns,
        doubt,
    )  # fmt: skip


def carried(base: Anchor, ranks: int, law: str | None = None) -> float:
    """The unexplained part at another number of ranks, ns, by ``law`` (the anchor's own, else)."""
    law = law or base.law
    grows = hops(ranks) / hops(base.typical.ranks) if base.typical.ranks > 1 else 1.0
    return base.unexplained_ns * (grows if law == "per collective" else 1.0)


def hops(ranks: int) -> int:
    """Messages of a collective that wait for one another, round a ring."""
    return 2 * max(ranks - 1, 0)


def _median_step(
    does: Target, setting: Setting, levels: Levels, ranks: int, hosts: Sequence[Host]
) -> Step:
    """The simulation whose step is the median one of a few."""
    runs = [does.simulated(setting._replace(seed=seed), levels, ranks, hosts) for seed in range(SEEDS)]
    return sorted(runs, key=lambda one: one.step_ns)[SEEDS // 2]


class _Draws:
    """Draws of everything that is uncertain, each with its own fit to the record."""

    def __init__(
        self, base: Anchor, does: Target, doubt: Doubt, ranks: int, hosts: tuple[Host, ...],
        progress: Progress | None,
    ) -> None:  # fmt: skip
        self._base, self._does, self._ranks = base, does, ranks
        rng = np.random.default_rng(1)
        parameters, form, unexplained = [], [], []
        for number, (costs, level, slice_ns) in enumerate(self._settings(rng, doubt)):
            parameters.append(self._step_ns(costs, level, SLICE_NS, number, hosts))
            form.append(self._step_ns(base.setting.costs, 1.0, slice_ns, number, hosts))
            unexplained.append(self._unexplained(rng))
            if progress is not None:
                progress(number + 1, DRAWS)
        middle = self._step_ns(base.setting.costs, 1.0, SLICE_NS, 0, hosts)
        doublings = abs(log2(ranks / base.typical.ranks))
        away = rng.normal(0.0, doubt.form * max(doublings, 0.2), DRAWS)
        steps = base.typical.step_noise.size
        recorded = float(np.std(base.typical.step_noise)) / max(steps / 5, 1) ** 0.5
        noise = rng.normal(0.0, (doubt.run**2 + min(recorded, 0.5) ** 2) ** 0.5, DRAWS)
        self._logs = {
            "parameters": np.log(np.array(parameters) / middle),
            "form": np.log(np.array(form) / middle) + away, "run noise": noise,
        }  # fmt: skip
        self._unexplained_ns = np.array(unexplained) - carried(base, ranks)

    def _settings(self, rng: np.random.Generator, doubt: Doubt) -> Iterator[tuple[Costs, float, int]]:
        costs = self._base.setting.costs
        for _ in range(DRAWS):
            factors = np.exp(rng.normal(0.0, doubt.costs, len(costs)))
            level = exp(float(rng.normal(0.0, doubt.level)))
            drawn = Costs(*(value * float(factor) for value, factor in zip(costs, factors, strict=True)))
            yield drawn, level, int(rng.choice(np.array(SLICES_NS)))

    def _step_ns(self, costs: Costs, level: float, slice_ns: int, seed: int, hosts: tuple[Host, ...]) -> float:
        setting = Setting(costs, slice_ns, 1.0, seed)
        levels = fit_levels(self._base.typical, setting)
        does = self._does
        if does.costs is not None:
            before = self._base.setting.costs
            drawn = (own * new / old for own, new, old in zip(does.costs, costs, before, strict=True))
            does = does._replace(costs=Costs(*drawn))
        if level != 1.0:
            does = does._replace(typical=_slower(does.typical, level))
        return does.simulated(setting, levels, self._ranks, hosts).step_ns

    def _unexplained(self, rng: np.random.Generator) -> float:
        """By one law or the other, and off by half of itself."""
        law = self._base.law
        if rng.random() > 0.7:
            law = "constant" if law != "constant" else "per collective"
        return carried(self._base, self._ranks, law) * float(rng.normal(1.0, 0.5))

    def interval(self, step_ns: float, parts: Sequence[str]) -> tuple[float, float]:
        """5th and 95th percentile of the step if only ``parts`` are uncertain; never below 0."""
        logs = np.sum([self._logs[part] for part in parts if part in self._logs], axis=0)
        values = step_ns * np.exp(logs) if np.ndim(logs) else np.full(DRAWS, step_ns)
        if "unexplained" in parts:
            values = np.maximum(values + self._unexplained_ns, 0.5 * np.minimum(values, step_ns))
        low, high = np.percentile(values, INTERVAL, method="weibull")
        return min(float(low), step_ns), max(float(high), step_ns)


def _slower(typical: TypicalStep, factor: float) -> TypicalStep:
    return replace(typical, pieces=tuple(
        piece._replace(cpu_ns=piece.cpu_ns * factor, sleep_ns=piece.sleep_ns * factor) for piece in typical.pieces
    ))  # fmt: skip

