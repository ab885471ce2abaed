"""What is known of a run beside its trace, as frozen dataclasses.

Engines, importers and the merge of ranks' records make :class:`RunFacts`; :mod:`coordsim.record.manifest` writes it to
a run directory and reads it back. Sequences are tuples and mappings are not changed once they are made. None means that
nobody knows; :attr:`RunFacts.missing` and :attr:`RunFacts.unknown` say why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

Plain = Mapping[str, object]
"""A JSON object that another room wrote and reads: a resolved scenario, an importer's figures, a backend's settings.
Nothing in between looks inside."""


class RunKind(StrEnum):
    """Where a run comes from."""

    SIMULATED = "simulated"
    RECORDED = "recorded"
    """By ranks of our own backend, or of a script that ``coordsim profile`` started."""
    IMPORTED = "imported"
    """From another tool's recording."""


@dataclass(frozen=True)
class ClockFacts:
    """How far rank 0's clock is ahead of a rank's, and by how much that may be wrong (None: not known)."""

    offset_ns: int
    error_ns: int | None


class LastTensor(NamedTuple):
    """A tensor that came last on a rank, and in how many steps."""

    name: str
    steps: int


class WaitedFor(NamedTuple):
    """A rank that the others waited for longest, in how many steps, and how long, ns a step."""

    rank: int
    steps: int
    wait_ns: int


@dataclass(frozen=True)
class SimulatedFrom:
    """What an engine was given."""

    scenario: Plain
    scenario_sha256: str | None = None
    engine: str | None = None


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How one rank's process ended."""

    code: int | None
    how: str
    """One of :data:`coordsim.record.ranks.format.HOWS`."""
    rank: int | None
    signal: int | None
    where: str | None = None
    """In which step and part of it, in words."""
    words: str


@dataclass(frozen=True)
class CommandEnd:
    """How the profiled command ended."""

    failure: str | None = None
    """Which rank failed first, in a sentence; None where none did."""
    endings: tuple[Ending, ...] = ()
    fate: str | None = None
    """What became of the training, in words."""
    stopped: str | None = None
    """Who stopped the command: ``recorded``, a signal's name, or None."""
    world_sizes: tuple[int, ...] = ()
    """Ranks of the jobs that the command started, one after the other."""


@dataclass(frozen=True)
class Command:
    """The training command of a profiled run."""

    exit_code: int | None = None
    command: tuple[str, ...] | None = None
    steps_wanted: int | None = None
    running: bool = False
    """Whether the run was stored while the command went on."""
    end: CommandEnd | None = None


@dataclass(frozen=True)
class Provenance:
    """Which versions made a run, where, and from which streams."""

    version: str | None
    versions: Mapping[str, str | None] = field(default_factory=dict)
    system: str | None = None
    git: Plain | None = None
    """The commit of the folder in which the command ran, and whether tracked files differed from it."""
    records_sha256: Mapping[str, str] = field(default_factory=dict)
    """Name of a rank's stream -> its SHA-256."""


@dataclass(frozen=True)
class Machine:
    """One host of the job."""

    host: str
    ranks: int
    """Of the job, on this host."""
    threads: int | None
    """Threads that compute in each rank (torch's)."""
    cores: int | None
    """Cores that any of these ranks may use."""

    @property
    def crowded(self) -> bool:
        """Whether no core is free for anything else: then ranks may be slowed by whatever runs beside them."""
        return self.cores is not None and self.ranks * (self.threads or 1) >= self.cores

    @property
    def oversubscribed(self) -> bool:
        """Whether more threads compute than there are cores."""
        return self.cores is not None and self.ranks * (self.threads or 1) > self.cores


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run beside its trace."""

    kind: RunKind
    ranks: int | None
    control_plane: str | None = None
    """Who decides; ``ddp`` is nobody, None is not known."""
    first_step: int = 0
    """Number, in the run, of the trace's first step."""
    first_step_is_cold: bool = True
    """Whether step 0 is the job's first step; a profiler's step 0 is where it began to watch."""
    control: str | None = None
    """How the control plane's parts of a step are known, in a sentence."""
    job: str | None = None
    settings: Plain | None = None
    """The backend's, as ranks wrote them."""
    hosts: Mapping[int, str | None] = field(default_factory=dict)
    """By rank."""
    ranks_with_details: tuple[int, ...] | None = None
    ranks_absent: tuple[int, ...] | None = None
    """Ranks without a record; None where the source does not name ranks."""
    ranks_without_steps: tuple[int, ...] = ()
    """Ranks that ended no step, and so are left out."""
    clocks: Mapping[int, ClockFacts] = field(default_factory=dict)
    """By rank; empty where there is one clock."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Part of a step that nobody measured -> why."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Other figure that the source does not give -> why."""
    ended_early: tuple[int, ...] = ()
    """Ranks whose record was cut short with their process."""
    ended_with_error: Mapping[int, str] = field(default_factory=dict)
    last_tensors: Mapping[int, tuple[LastTensor, ...]] = field(default_factory=dict)
    """By rank: what came last there, most often first."""
    waited_for: tuple[WaitedFor, ...] | None = None
    """None where ranks do not gather parameters."""
    shown_rank: int | None = None
    """The rank whose durations the parts of a step are."""
    skipped_steps: tuple[int, int] | None = None
    """Steps in which GradScaler skipped the optimizer, and all steps; None where nobody counted them."""
    simulated: SimulatedFrom | None = None
    imported: Plain | None = None
    """What the importer found: format, files and figures."""
    command: Command | None = None
    provenance: Provenance | None = None

    @property
    def clock_error_s(self) -> float | None:
        """The largest error of a rank's clock; None when some rank's is not known, or there is one clock."""
        errors = [clock.error_ns for clock in self.clocks.values()]
        known = [error for error in errors if error is not None]
        return max(known) / 1e9 if known and len(known) == len(errors) else None
