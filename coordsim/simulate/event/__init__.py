"""The event engine: SimPy, every rank a process, every message of every exchange an event.

The oracle. It runs each rank's own negotiator (``coordsim.protocol``), interprets the exchange programs
(``coordsim.cost.programs``) message by message, and never calls the closed forms of the vector engine.
Meant for up to some 4,000 ranks; 27,600 patiently.
"""

from __future__ import annotations

from coordsim.record.trace import Trace
from coordsim.simulate.event.loop import NegotiatedRun
from coordsim.simulate.event.planes import RUNS
from coordsim.simulate.event.unnegotiated import LonelyRun
from coordsim.simulate.problem import Problem, Progress


def run(problem: Problem, debug: bool = False, progress: Progress | None = None) -> Trace:
    """Simulate by events. ``debug`` checks the protocol's invariants after every cycle."""
    if problem.ranks == 1:
        return LonelyRun(problem, progress).run()
    if problem.kind.negotiates:
        return NegotiatedRun(problem, debug, progress).run()
    return RUNS[problem.plane.name](problem, progress).run()
