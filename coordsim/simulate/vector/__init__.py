"""The vector engine: whole arrays of ranks at once, equal to the event engine bit for bit.

Global decisions are taken by the protocol's own cache, group and fusion code; only *counting* is replaced ("every
rank asked" is "the smallest pointer passed"). Exchanges are evaluated by the closed forms of
:mod:`coordsim.simulate.vector.kernels`. What it cannot do exactly it refuses by name.
"""

from __future__ import annotations

from coordsim.errors import Problem as Mistake
from coordsim.errors import Refused
from coordsim.record.trace import Trace
from coordsim.simulate.problem import Problem, Progress
from coordsim.simulate.vector.refusals import vector_refusals


def run(problem: Problem, progress: Progress | None = None) -> Trace:
    """Simulate with arrays. Raises Refused for what only the event engine can do."""
    refusals = vector_refusals(problem.scenario)
    if refusals:
        raise Refused([Mistake("--engine", each.key, each.value, each.because) for each in refusals])
    # here, so that :mod:`coordsim.simulate.vector.refusals` can be read without compiling a kernel
    from coordsim.simulate.vector.loop import NegotiatedRun
    from coordsim.simulate.vector.planes import RUNS
    from coordsim.simulate.vector.unnegotiated import LonelyRun

    if problem.ranks == 1:
        return LonelyRun(problem, progress).run()
    if problem.kind.negotiates:
        return NegotiatedRun(problem, progress).run()
    return RUNS[problem.plane.name](problem, progress).run()
