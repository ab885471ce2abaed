"""What was found out about a recorded run, as it is kept in a run directory beside the trace.

:mod:`coordsim.analyse.findings` finds it and :mod:`coordsim.record.manifest` keeps it; times are seconds and shares are
of the mean step, 0..1. None means that it is not known. Fields with defaults came later than the first version that
kept findings: a run directory from before opens without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from coordsim.record.run_facts import Machine, Plain

STRAGGLERS_SCHEMA = "coordsim.stragglers/1"


@dataclass(frozen=True, kw_only=True)
class PartExcess:
    """A part of a late rank's own work, and how much longer it takes than on the others."""

    part: str
    excess_s: float


@dataclass(frozen=True, kw_only=True)
class Onset:
    """From where in its step on a rank is late."""

    __pydantic_config__: ClassVar[dict[str, Callable[[str], str]]] = {
        "alias_generator": lambda name: "from" if name == "origin" else name
    }
    origin: str
    """``from`` in JSON: a part of the rank's own work, or one of the places that
    :mod:`coordsim.analyse.stragglers.onset` knows."""
    what: str
    """The same in words."""
    tensor: str | None
    """At which it appears, where it does at one."""
    at_begin_s: float | None
    """How late the rank has the results of the step before."""
    at_first_gradient_s: float | None
    at_last_gradient_s: float
    tensors_compared: int
    parts: tuple[PartExcess, ...] | None = None
    """Parts that take longer than on the others, the largest first, then those that take less; None where the record
    does not tell parts apart."""


@dataclass(frozen=True, kw_only=True)
class LateUnit:
    """A rank or a host that is late, with the 95 % interval of how late."""

    what: str
    """``rank`` or ``host``."""
    host: str
    ranks: tuple[int, ...]
    late_s: float
    """Median over steps, against the median of the others."""
    late_low_s: float
    late_high_s: float
    last_in: int
    """Steps in which it came last, of :attr:`of_steps`."""
    of_steps: int
    chance: float
    """p-value of that, were all ranks alike; before correction for several units."""
    from_step: int
    to_step: int
    changed: bool
    """Whether it is late in a part of the run only."""
    costs_s: float
    """Median over these steps of what the others wait for it alone."""
    costs_mean_s: float
    onset: Onset


@dataclass(frozen=True, kw_only=True)
class Stragglers:
    """Who was late in a run, or that nobody was."""

    schema: str = STRAGGLERS_SCHEMA
    verdict: str
    """In a sentence."""
    ranks: int
    steps: int
    """Steps that were judged."""
    first_step: int | None
    step_time_s: float | None
    measure: str | None
    """On which clocks arrivals were compared; None where none could be."""
    clock_error_s: float | None
    chance_of_false_alarm: float
    """Probability of naming anybody when all ranks behave identically."""
    late: tuple[LateUnit, ...]
    """The latest first."""
    costs_together_s: float | None
    """What all others wait for those who are late, median over steps."""
    smallest_seen_s: float | None
    """The smallest steady delay that would have been seen; None where none would."""
    shared_cores: bool = False
    """Whether ranks may be slowed by what else runs on their cores."""


@dataclass(frozen=True, kw_only=True)
class LargestPart:
    """The largest part of the shown rank's step, and where to look for its cause."""

    part: str
    """A part's name; ``control`` is all three of the control plane's together."""
    share: float
    look_at: str


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """What would pay: one change that a replay of the run's own steps judged, or that there is none."""

    change: str | None
    """In words; None: nothing is recommended."""
    about: str | None = None
    """The part of a step that the change is about, ``late`` or ``control``."""
    why: str
    saves: float | None
    """None: what the change saves cannot be predicted."""
    saves_low: float | None
    saves_high: float | None
    """Ends of the 90 % interval."""
    step_time_s: float | None
    """The mean step with the change."""
    largest: LargestPart | None = None


Column = Literal[
    "between_steps", "input_stall", "forward", "backward", "gathers", "collectives", "before_optimizer", "optimizer"
]
"""Columns of the table of ranks: own work by part, and waits in gathers and in all other collectives."""


@dataclass(frozen=True, kw_only=True)
class RankRow:
    """One rank's own step: medians over steps of its work by part, and of its waits."""

    rank: int
    host: str | None
    between_steps_s: float
    input_stall_s: float
    forward_s: float
    backward_s: float
    gathers_s: float
    """Waits in gathers of parameters."""
    collectives_s: float
    """Waits in all other collectives."""
    before_optimizer_s: float
    optimizer_s: float
    work_s: float
    """Its own work in all."""
    step_s: float
    evaluation_s: float
    """Of the time between steps; mean over steps."""
    checkpoint_s: float
    cpu_s: float | None
    """CPU time of the training thread."""
    core_wait_s: float | None = None
    """Time for which the training thread was ready to run and no core was free; mean over steps."""
    outliers: tuple[str, ...]
    """Columns in which the rank takes much longer than the others."""

    def column(self, name: Column) -> float:
        """The value in one of :attr:`RankTable.columns`, s."""
        value: float = getattr(self, f"{name}_s")
        return value


@dataclass(frozen=True, kw_only=True)
class RankTable:
    """What each rank's own step is made of."""

    steps: int
    kind: str | None
    """Of the steps, where they are of several kinds."""
    columns: tuple[Column, ...]
    shown_rank: int | None
    ranks: tuple[RankRow, ...]

    @property
    def differs(self) -> bool:
        """Whether some rank stands out."""
        return any(row.outliers for row in self.ranks)


@dataclass(frozen=True, kw_only=True)
class StepKind:
    """Steps that do the same work, on the shown rank."""

    kind: str
    """Which optimizers step, in words; empty where that was not recorded."""
    steps: int
    mean_s: float
    backward_passes: int
    breakdown_s: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What was found out about a recorded run."""

    stragglers: Stragglers
    recommendation: Recommendation
    rank_table: RankTable | None = None
    kinds: tuple[StepKind, ...] = ()
    """The kind that takes most of the time first."""
    machines: tuple[Machine, ...] = ()
    kept: Plain | None = None
    """The same as a run directory keeps it, where it was read from one: what a later version has added or an earlier
    one did not know stays as it is."""
