"""The rounds that outside oracles are asked about: programs with their tags, run by the event engine's interpreter."""

from __future__ import annotations

import operator
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from coordsim.cost import programs
from coordsim.cost.goal import Goal, Recorder
from coordsim.cost.network import LogGP
from coordsim.cost.programs import Program, Work
from coordsim.protocol.negotiator import tree_children, tree_parent
from coordsim.simulate.event.clock import Clock
from coordsim.simulate.event.interpreter import Endpoint, Interpreter

Int64 = npt.NDArray[np.int64]
Parts: TypeAlias = Sequence[tuple[str, Program]]
"""One rank's exchanges in order, each under its tag."""
Round: TypeAlias = Callable[[int], Parts]

LENGTH = 4


def just(work_ns: int) -> Program:
    yield Work(work_ns)


def flat(ranks: int, nbytes: Sequence[int], answer: int, work_ns: int) -> Round:
    """The coordinator's round: lengths, lists ([rank] bytes), ``work_ns`` at rank 0, length and answer back."""

    def parts(rank: int) -> Parts:
        return [
            ("lengths", programs.gather_linear(rank, ranks, LENGTH, None)),
            ("lists", programs.gather_linear(rank, ranks, nbytes[rank], None)),
            ("work", just(work_ns if rank == 0 else 0)),
            ("answer's length", programs.broadcast_binomial(rank, ranks, LENGTH, None)),
            ("answer", programs.broadcast_binomial(rank, ranks, answer, None)),
        ]

    return parts


def tree(ranks: int, radix: int, nbytes: int, answer: int, per_child_ns: int) -> Round:
    """Up a heap-ordered tree and down again; a node works ``per_child_ns`` for each child's list."""

    def parts(rank: int) -> Parts:
        children = tree_children(rank, ranks, radix)
        parent = tree_parent(rank, radix) if rank else None
        found = [("up", programs.tree_collect(children)), ("work", just(per_child_ns * len(children)))]
        found = found if children else []
        if parent is not None:
            found.append(("up", programs.tree_send(parent, nbytes, None)))
        return [*found, ("down", programs.tree_broadcast(parent, children, answer, None))]

    return parts


def doubling(ranks: int, nbytes: int) -> Round:
    """AND by recursive doubling."""
    return lambda rank: [("and", programs.reduce_recursive_doubling(rank, ranks, nbytes, 1, operator.and_))]


def by_events(net: LogGP, starts: Int64, parts: Round) -> Int64:
    """When each rank is done, ns, shape [rank], by the event engine's interpreter."""
    clock, ends = Clock(), np.zeros_like(starts)
    ranks = [Endpoint(rank=rank) for rank in range(starts.size)]
    messages = Interpreter(clock, net, ranks)

    def run(me: Endpoint) -> Generator[Any, Any, None]:
        yield clock.timeout(int(starts[me.rank]))
        for tag, program in parts(me.rank):
            yield from messages.run(me, program, tag)
        ends[me.rank] = clock.ns

    for me in ranks:
        clock.process(run(me))
    clock.run()
    return ends


def interpreted(net: LogGP, starts: Int64, program: Callable[[int], Program]) -> Int64:
    """As :func:`by_events`, a round of one exchange: the ``program`` of each rank."""
    return by_events(net, starts, lambda rank: [("round", program(rank))])


def as_goal(net: LogGP, starts: Int64, parts: Round) -> Goal:
    """The same round as a GOAL schedule."""
    recorder = Recorder(net, starts.tolist())

    def talk(me: Endpoint) -> Generator[Any, Any, None]:
        for tag, program in parts(me.rank):
            yield from recorder.run(me, program, tag)

    recorder.together([talk(Endpoint(rank=rank)) for rank in range(starts.size)])
    return recorder.goal()
