"""What any verb that explains a step says: one frozen dataclass, made once, rendered everywhere.

Terminal and ``--json`` are renderers of it (:mod:`coordsim.report.answer`); a page and Markdown will be two more. A
number is a :class:`Quantity` where it may be shown with an interval, or rests on something else than the rest of the
answer; other times are of the answer's own :attr:`Answer.basis`. Times are seconds, shares 0..1. None means that it is
not known, and :attr:`Answer.missing` and :attr:`Answer.unknown` say why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from coordsim.protocol.planes import PLANES
from coordsim.record.findings import Findings
from coordsim.record.run_facts import LastTensor, RunFacts

if TYPE_CHECKING:
    from coordsim.analyse.allocation import Allocation
    from coordsim.analyse.control import Control
    from coordsim.analyse.explain import Counterfactual
    from coordsim.analyse.step_kinds import Outliers


class AnswerKind(StrEnum):
    """What the answer is about."""

    SIMULATED = "simulated"
    RECORDED = "recorded"
    IMPORTED = "imported"
    PREDICTED = "predicted"


class Basis(StrEnum):
    """Where a number comes from."""

    MEASURED = "measured"
    SIMULATED = "simulated"
    PREDICTED = "predicted"
    """Simulated with what was fitted to a record."""
    REPLAYED = "replayed"
    """A recorded run's own steps, played again with one cause taken out."""


@dataclass(frozen=True)
class Quantity:
    """A number with its unit, where it comes from and, where that is known, how sure it is."""

    value: float
    unit: str
    basis: Basis
    low: float | None = None
    high: float | None = None
    """Ends of the interval."""
    level: float | None = None
    """Probability that the interval stands for."""


@dataclass(frozen=True)
class StepTime:
    """How long steps take, without the cold one; order statistics are those at floor((n - 1) * share)."""

    mean: Quantity
    median: float | None = None
    p05: float | None = None
    p95: float | None = None
    min: float | None = None
    max: float | None = None
    cold: float | None = None
    """The first step, with nothing cached; None where it is not in the run."""


@dataclass(frozen=True)
class Part:
    """One part of a step: its mean over the steps that count; they sum to the mean step."""

    name: str
    mean: Quantity | None
    """None: nobody measured it apart."""


@dataclass(frozen=True)
class LastRank:
    """A rank that came last, in how many steps, and with which tensors (None: not known)."""

    rank: int
    steps: int
    host: str | None
    tensors: tuple[LastTensor, ...] | None
    node: int | None = None
    """Of a simulated job."""


@dataclass(frozen=True)
class Lateness:
    """Who came last, most often first, and how long the median rank waits for the last one."""

    last: tuple[LastRank, ...]
    different: int
    """Different ranks that came last."""
    wait_median_s: float | None
    wait_mean_s: float | None
    explained: str | None = None
    """Why nobody is late, where nothing else is to be said."""


@dataclass(frozen=True)
class Messages:
    """Collectives of a step, their bytes and tensors; sizes are None if none is known."""

    per_step: float | None
    bytes_per_step: float | None
    tensors_per_step: float | None
    bytes_min: float | None
    bytes_median: float | None
    bytes_max: float | None


@dataclass(frozen=True)
class Candidate:
    """A change that was tried, by a second simulation or a replay."""

    change: str
    """In words, or as flags of ``coordsim simulate``."""
    about: str | None
    """The part of a step that it is about, where that is known."""
    step_time: Quantity
    saves: Quantity
    """Share of the mean step; negative when it gets slower."""
    command: str | None = None
    """What asks for it."""


@dataclass(frozen=True)
class Scaling:
    """A job against one rank alone, and what it gets done."""

    efficiency: float
    samples_per_s: float
    sustained_flops: float
    baseline_ranks: int
    baseline_step_s: float
    """Step time of the one rank, noise-free."""


@dataclass(frozen=True)
class Subject:
    """What was simulated or predicted, in words and numbers."""

    workload: str
    cluster: str
    ranks: int
    nodes: int
    control_plane: str
    groups: str
    """How tensors are grouped, to follow the control plane's name; empty for no groups."""
    steps: int
    seed: int
    node_storage_bytes: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What limits the step, how sure, what to change."""

    kind: AnswerKind
    basis: Basis
    ranks: int | None
    control_plane: str | None
    """Who decides; ``ddp`` is nobody, None is not known."""
    steps: int
    """Steps that count."""
    first_step: int
    """Number, in the run, of the first step that counts."""
    step_time: StepTime
    split: tuple[Part, ...]
    lateness: Lateness
    outliers: Outliers | None = None
    control: Control
    messages: Messages | None = None
    scaling: Scaling | None = None
    costs: Allocation | None = None
    explained: tuple[Counterfactual, ...] | None = None
    """Causes taken out one by one; None where nobody asked for it."""
    candidates: tuple[Candidate, ...] | None = None
    """Changes that were tried, the one that saves most first; None where nobody asked for it."""
    missing: Mapping[str, str]
    """Part of a step that nobody measured -> why."""
    unknown: Mapping[str, str]
    """Other figure that is not known -> why."""
    assumptions: tuple[str, ...] = ()
    """The weightiest first."""
    engine_wall_s: float | None = None
    """Wall-clock time of the simulation; not reproducible."""
    subject: Subject | None = None
    """None of a run that was opened: it is known by its name."""
    facts: RunFacts
    """Provenance, ranks that are absent, clocks, how the command ended."""
    findings: Findings | None = None
    """Of recorded runs: stragglers, recommendation, the table of ranks, kinds of steps, hosts."""

    @property
    def real(self) -> bool:
        """Whether it happened, rather than was simulated."""
        return self.kind in (AnswerKind.RECORDED, AnswerKind.IMPORTED)

    @property
    def nobody_negotiates(self) -> bool:
        """Whether the control plane has no negotiation; False where it is not known."""
        kind = PLANES.get(self.control_plane or "")
        return kind is not None and not kind.negotiates

    def part(self, name: str) -> float | None:
        """The mean of a part of the step, s; None where it is not known or there is none."""
        return next((part.mean.value for part in self.split if part.name == name and part.mean is not None), None)
