"""What a run on shared cores starts from. Times are integer ns."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]


class SegmentKind(IntEnum):
    """What the training thread does next."""

    COMPUTE = 0
    """It takes a core for the segment's time."""
    SLEEP = 1
    """It takes none: it sleeps, or waits for a device or a disk."""
    SUBMIT = 2
    """It hands a collective to the threads that reduce, and goes on."""
    WAIT = 3
    """It waits until a collective is over on its rank."""


class Segment(NamedTuple):
    """One item of a :class:`Program`."""

    kind: SegmentKind
    collective: int = -1
    """Of SUBMIT and WAIT: place of the collective in the step."""


class Dependency(IntEnum):
    """What a rank waits for before it can do a stage."""

    NONE = 0
    LEFT = 1
    """The left neighbour in the ring has finished the stage before (of the first stage: has begun)."""
    ALL = 2
    """All ranks have finished the stage before."""
    ROOT = 3
    """Rank 0 has finished the stage before."""


class Stage(NamedTuple):
    """One stage of a collective."""

    root_cpu_ns: int
    """CPU time on rank 0."""
    other_cpu_ns: int
    """CPU time on each other rank."""
    root_after: Dependency
    other_after: Dependency
    latency_ns: int = 0
    """From what it waits for to its begin, without a core."""


class Collective(NamedTuple):
    """One collective of a step."""

    stages: tuple[Stage, ...]


class Host(NamedTuple):
    """Cores that some ranks share."""

    cores: int
    ranks: int
    """Ranks are dealt to hosts in order, so many each."""


@dataclass(frozen=True)
class Program:
    """What each rank's training thread does in a step; the same segments on all ranks and in all steps."""

    segments: tuple[Segment, ...]
    times_ns: Int64
    """Of COMPUTE and SLEEP; shape [rank, step, segment]."""


@dataclass(frozen=True)
class SharedProblem:
    """A job."""

    hosts: tuple[Host, ...]
    program: Program
    collectives: tuple[Collective, ...]
    """Of a step, in the order in which the program submits them."""
    workers: int
    """Threads of a rank that reduce: so many collectives may run at once."""
    slice_ns: int
    """A thread keeps a core for so long while others wait for one."""

    @property
    def ranks(self) -> int:
        return int(self.program.times_ns.shape[0])

    @property
    def steps(self) -> int:
        return int(self.program.times_ns.shape[1])
