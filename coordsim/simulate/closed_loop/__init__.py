"""A small job whose ranks start their next step when they notice the end of the last one, on shared cores.

The other engines simulate training: one start of a step for all ranks, every rank on a GPU of its own. Recorded runs
of real Horovod on one machine are something else: each rank's main thread submits, polls with short sleeps, and goes
on by itself, while background threads share the cores with it. This engine closes that loop. It follows the same
rules for cycles, pops and blocking execution (docs/semantics.md 3 and 6.3), for any N, and adds the sleep's real
length and the sharing of cores; what a rank popped decides what is scheduled, as in the protocol
(``tests/simulate/test_closed_loop.py`` runs the protocol's own negotiators beside it).
"""

from __future__ import annotations

from coordsim.simulate.closed_loop.engine import LoopRun, run
from coordsim.simulate.closed_loop.problem import LoopCosts, LoopProblem

__all__ = ["LoopCosts", "LoopProblem", "LoopRun", "run"]
