"""What the closed loop starts from: one workload as it was recorded, and what things cost. All ints, ns and bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]

SHARE_ONE = 1 << 30
"""A share of 1 in :attr:`LoopProblem.share_q30`."""


@dataclass(frozen=True)
class LoopProblem:
    """One workload on ``ranks`` processes that share ``cores``."""

    ranks: int
    cores: int
    cycle_ns: int
    duration_ns: Int64
    """Shape [rank, step]: from the start of a step to the rank's last submission."""
    gap_ns: Int64
    """Shape [rank, step]: from a rank's own end of a step to its start of the next; column 0: its late start."""
    share_q30: Int64
    """Shape [rank, unit]: when each unit is submitted, as a share of the duration, ascending."""
    unit_bytes: Int64
    """Shape [unit]."""
    unit_tensors: Int64
    """Shape [unit]."""
    threshold_bytes: int
    """Of fusion, already rounded; 0: none."""
    uncached: npt.NDArray[np.bool_]
    """Shape [step, unit]: must be asked for at the coordinator."""
    always_asks: bool
    """No cache: every cycle goes to the coordinator, idle ones too, and no bits are intersected."""
    shuffled: bool
    """Every rank submits in an order of its own, a new one each step."""
    computes: bool
    """Submitting keeps a core busy (otherwise it sleeps most of the time)."""
    held_up_ppm: int = 0
    """Share of their time that main threads were held up while they submitted, parts per million."""
    disturbed_ppm: int = 0
    """The same of a thread that hardly computes: what the machine does to any thread, parts per million."""

    @property
    def steps(self) -> int:
        return int(self.duration_ns.shape[1])

    @property
    def units(self) -> int:
        return int(self.unit_bytes.size)


class LoopCosts(NamedTuple):
    """What things take on cores that nobody else wants, ns unless said otherwise."""

    bits_ns: int
    """One intersection of bit vectors, all its hops."""
    ask_ns: int
    """Gather, gatherv, broadcast, broadcast: all their hops."""
    request_ns: int
    """One rank's request at the coordinator."""
    requests_alone: bool
    """Whether the coordinator has a core to itself meanwhile, because the others block; else they spin, and it
    stretches as everything does."""
    executing_ns: int
    """Once a cycle in which responses are executed, unless they have travelled with the bits."""
    response_ns: int
    """One response executed: launch, fusion, all hops of its collective."""
    tensor_ns: int
    """One tensor of a response that was asked for: listed, answered, copied, called back."""
    hit_ns: int
    """One tensor of a response that the cache knew: looked up, copied, called back."""
    byte_ps: int
    """One byte sent and reduced by one rank, picoseconds."""
    notice_ns: int
    """Main thread: noticing one finished unit."""
    poll_ns: int
    """Main thread: one sleep between polls, as long as it really takes."""
    wake_shift_ns: int
    """Background thread: added to what a sleep takes by ``sleep_over_ns``; may be negative."""
    wake_spread_ns: int
    """Standard deviation of a sleep's length."""
    stall_ppm: int
    """Probability, each cycle, that the whole machine stands still for a while, parts per million."""
    stall_ns: int
    """Mean of such a stall (exponential)."""
    phase_ppm: int
    """At first one rank wakes last and all others this share of a cycle before it, parts per million."""
    crowded: bool
    """Whether main threads take turns on one core where their bursts of work, one after the other, do not fit into
    the idle part of a cycle and none is longer than a cycle."""
    sleep_asked_ns: tuple[int, ...]
    """Ascending lengths that were asked for ..."""
    sleep_over_ns: tuple[int, ...]
    """... and how much longer they really took."""
    star_ns: int = 0
    """What a message takes one way between rank 0 and any other, beyond its hops: rank 0 enters the next cycle so much
    earlier than they do."""
    ride_ns: int = 0
    """What a response saves that travels with equal bit vectors of all ranks ..."""
    along_bytes: int = -1
    """... and how large it may be; others are a trip of their own along the star."""
    late_ppm: int = 0
    """Probability, each cycle and rank, that a loop which wakes while its main thread submits is held up by it: against
    :attr:`LoopProblem.disturbed_ppm`, parts per million ..."""
    late_ns: int = 0
    """... and for how long: mean of an exponential distribution."""
    taken_ppm: int = 0
    """Probability, each step and rank, that a main thread which computes finds its core taken when it could go on, for
    as long: against :attr:`LoopProblem.held_up_ppm`, parts per million."""
    held_ns: int = 0
    """How long a rank's background thread waits at most for its own main thread, when that computes as it wakes: both
    are Python's, and only one of them runs. 0: they run side by side."""
