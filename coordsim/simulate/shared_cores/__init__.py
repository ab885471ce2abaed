"""A recorded step on hosts whose cores its ranks share: threads that compute, sleep, reduce and wait for one another.

The other engines simulate machines where each rank has a GPU of its own. Here a rank is a process with a thread that
trains and threads that reduce, and N of them share the cores of a host. A thread that computes takes a core for a slice
at a time, and whoever has had least gets the next one, as Linux does it; a thread that sleeps takes none. A collective
is a list of stages that wait for one another by its algorithm; each takes CPU time on every rank, and a latency.

So what N ranks cost each other follows from what one rank does. Nothing is stretched where each thread has a core.
"""

from __future__ import annotations

from coordsim.simulate.shared_cores.engine import SharedRun, run
from coordsim.simulate.shared_cores.problem import (
    Collective,
    Dependency,
    Host,
    Program,
    Segment,
    SegmentKind,
    SharedProblem,
    Stage,
)

__all__ = [
    "Collective", "Dependency", "Host", "Program", "Segment", "SegmentKind", "SharedProblem", "SharedRun", "Stage",
    "run",
]  # fmt: skip
