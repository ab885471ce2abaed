"""A scenario's control exchanges as GOAL text, for other simulators (``coordsim/cost/goal.py``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from coordsim.cost import programs
from coordsim.cost.goal import Goal, Recorder, Talk
from coordsim.cost.network import LogGP
from coordsim.cost.programs import Program
from coordsim.errors import InputError, Refused
from coordsim.protocol import negotiator as say
from coordsim.protocol.planes import make_negotiator
from coordsim.scenario.model import Scenario
from coordsim.simulate.event.exchanges import Caller
from coordsim.simulate.event.interpreter import Interpreter
from coordsim.simulate.event.planes import EXCHANGES as TRANSPORTS
from coordsim.simulate.problem import Problem

CYCLE = "cycle"
"""The exchange that stands for a whole control cycle of the scenario's control plane."""


@dataclass(frozen=True, slots=True)
class _Job:
    """What the programs of single exchanges take from a scenario."""

    ranks: int
    radix: int
    gather: str
    eager_limit: int
    per_node: int

    def gathered(self, rank: int, nbytes: Sequence[int]) -> Program:
        if self.gather == "binomial":
            return programs.gather_binomial(rank, self.ranks, nbytes[rank], None)
        if self.gather == "node-leaders":
            return programs.gather_node_leaders(rank, self.ranks, nbytes[rank], None, self.per_node)
        lengths = dict(enumerate(nbytes))
        return programs.gather_linear(rank, self.ranks, nbytes[rank], None, self.eager_limit, lengths)

    def up(self, rank: int, nbytes: Sequence[int]) -> Program:
        if children := say.tree_children(rank, self.ranks, self.radix):
            yield from programs.tree_collect(children)
        if rank:
            yield from programs.tree_send(say.tree_parent(rank, self.radix), nbytes[rank], None)

    def down(self, rank: int, nbytes: Sequence[int]) -> Program:
        parent = say.tree_parent(rank, self.radix) if rank else None
        return programs.tree_broadcast(parent, say.tree_children(rank, self.ranks, self.radix), nbytes[0], None)


_SINGLE: dict[str, Callable[[_Job, int, Sequence[int]], Program]] = {
    "gather": lambda job, rank, nbytes: job.gathered(rank, nbytes),
    "broadcast": lambda job, rank, nbytes: programs.broadcast_binomial(rank, job.ranks, nbytes[0], None),
    "recursive-doubling": lambda job, rank, nbytes: programs.reduce_recursive_doubling(
        rank, job.ranks, nbytes[0], 0, max
    ),
    "ring": lambda job, rank, nbytes: programs.reduce_ring(rank, job.ranks, nbytes[0], 0, max),
    "star-gather": lambda job, rank, nbytes: programs.star_gather(rank, job.ranks, nbytes[rank], None, _free, 0),
    "star-broadcast": lambda job, rank, nbytes: programs.star_broadcast(rank, job.ranks, nbytes[0], None),
    "tree-up": lambda job, rank, nbytes: job.up(rank, nbytes),
    "tree-down": lambda job, rank, nbytes: job.down(rank, nbytes),
}

EXCHANGES = (CYCLE, *_SINGLE)
"""What :func:`goal_text` can export."""


def _free(_: Any) -> int:
    """Serving a message costs nothing beyond o."""
    return 0


def goal_text(
    scenario: Scenario,
    exchange: str = CYCLE,
    nbytes: int | Sequence[int] | None = None,
    *,
    requests: Mapping[int, Sequence[str]] | None = None,
    warm: bool = False,
    starts_ns: Sequence[int] | None = None,
) -> str:
    """One control exchange of ``scenario``, all ranks, as GOAL text.

    >>> from coordsim.scenario.loading import load_scenario
    >>> from coordsim.simulate.goal import goal_text
    >>> job = load_scenario(workload="resnet50", cluster="summit", ranks=4, control_plane="coordinator")
    >>> print(goal_text(job, "gather", 4).splitlines()[3])
    num_ranks 4

    ``exchange``: one of :data:`EXCHANGES`. "cycle" (default) is a whole cycle of the scenario's control plane, from
    the wake to the end of its last exchange, with the serial work in between, as the event engine runs it. The others
    are single exchanges without such work, over the scenario's network, gather algorithm, eager limit and radix.

    ``nbytes``: single exchanges only, and needed there: the size of every rank's message, or sizes of shape [rank];
    broadcasts and reductions take rank 0's.

    ``requests``: "cycle" only: the tensors that each rank asks for, by rank; ranks left out ask for none. Default:
    every rank asks for all. ``warm``: a cycle before it, not exported, in which all asked for all: ``cached`` then
    has them in its cache.

    ``starts_ns``: when each rank enters, ns, shape [rank]; default 0.

    Raises InputError for an unknown exchange, tensor or rank, sizes of the wrong shape or below 1 byte, and Refused
    for one rank alone, for control planes that do not negotiate and for an AND in the network.
    """
    goal = goal_of(scenario, exchange, nbytes, requests=requests, warm=warm, starts_ns=starts_ns)
    return commented_text(scenario, goal, exchange)


def commented_text(scenario: Scenario, goal: Goal, exchange: str = CYCLE) -> str:
    """What :func:`goal_of` made of ``scenario``, as GOAL text whose comments say what it is, on which network."""
    title = f"coordsim: {exchange} of {scenario.control_plane.name}, {scenario.ranks} ranks"
    return goal.text([title, *_network(LogGP.of(scenario.cluster))])


def goal_of(
    scenario: Scenario,
    exchange: str = CYCLE,
    nbytes: int | Sequence[int] | None = None,
    *,
    requests: Mapping[int, Sequence[str]] | None = None,
    warm: bool = False,
    starts_ns: Sequence[int] | None = None,
) -> Goal:
    """As :func:`goal_text`, the schedule as an object."""
    ranks = scenario.ranks
    if exchange not in EXCHANGES:
        raise InputError.one("exchange", "", exchange, f"no exchange {exchange!r}", EXCHANGES)
    if ranks < 2:
        raise Refused.one("scenario", "ranks", ranks, "one rank alone exchanges nothing")
    starts = [0] * ranks if starts_ns is None else [int(start_ns) for start_ns in starts_ns]
    _of_all_ranks("starts_ns", starts, ranks)
    recorder = Recorder(LogGP.of(scenario.cluster), starts)
    if exchange == CYCLE:
        if nbytes is not None:
            raise InputError.one("nbytes", "", nbytes, "a cycle's sizes follow from what is asked for")
        _record_cycle(scenario, recorder, requests, warm)
        return recorder.goal()
    if requests is not None or warm:
        raise InputError.one("requests", "", exchange, f"{exchange} takes sizes; requests and warm are of a cycle")
    sizes = _sizes(exchange, nbytes, ranks)
    control = scenario.cluster.control
    job = _Job(
        ranks, max(scenario.control_plane.radix, 2), control.gather, control.eager_limit_bytes,
        scenario.cluster.machine.ranks_per_node,
    )  # fmt: skip
    callers = [Caller(rank=rank) for rank in range(ranks)]
    recorder.together([recorder.run(me, _SINGLE[exchange](job, me.rank, sizes), exchange) for me in callers])
    return recorder.goal()


def _record_cycle(
    scenario: Scenario, recorder: Recorder, requests: Mapping[int, Sequence[str]] | None, warm: bool
) -> None:
    problem = Problem(scenario)
    if not problem.kind.negotiates:
        raise Refused.one("scenario", "control_plane.name", problem.plane.name, "has no control exchange")
    everything = [name for unit in problem.units for name in unit]
    asked = dict.fromkeys(range(problem.ranks), everything) if requests is None else dict(requests)
    for rank, names in asked.items():
        if not 0 <= rank < problem.ranks:
            raise InputError.one("requests", "", rank, f"no rank {rank} among {problem.ranks}")
        for name in names:
            if name not in problem.requests:
                raise InputError.one("requests", str(rank), name, f"no tensor {name!r}", tuple(everything))
    negotiators = [make_negotiator(problem.plane.name, rank, problem.settings) for rank in range(problem.ranks)]
    if warm:
        before = Recorder(recorder.network, [0] * problem.ranks)
        _one_cycle(problem, before, negotiators, dict.fromkeys(range(problem.ranks), everything), 0)
    _one_cycle(problem, recorder, negotiators, asked, 1)


def _one_cycle(
    problem: Problem,
    recorder: Recorder,
    negotiators: Sequence[say.Negotiator],
    asked: Mapping[int, Sequence[str]],
    cycle: int,
) -> None:
    interpreter = cast(Interpreter, recorder)  # has its ``run``, and waits without a clock
    exchanges = TRANSPORTS[problem.plane.name](problem, interpreter)

    def talk(rank: int) -> Talk[Any]:
        popped = tuple(problem.requests[name] for name in asked.get(rank, ()))
        me = Caller(rank=rank, popped=len(popped))
        return (yield from exchanges.converse(me, negotiators[rank].cycle(popped), cycle))

    recorder.together([talk(rank) for rank in range(problem.ranks)])


def _sizes(exchange: str, nbytes: int | Sequence[int] | None, ranks: int) -> list[int]:
    if nbytes is None:
        raise InputError.one("nbytes", "", nbytes, f"{exchange} needs the size of each rank's message")
    sizes = [nbytes] * ranks if isinstance(nbytes, int) else [int(each) for each in nbytes]
    _of_all_ranks("nbytes", sizes, ranks)
    for rank, size in enumerate(sizes):
        if size < 1:
            raise InputError.one("nbytes", str(rank), size, "a message has at least 1 byte")
    return sizes


def _of_all_ranks(key: str, values: Sequence[int], ranks: int) -> None:
    if len(values) != ranks:
        raise InputError.one(key, "", len(values), f"{len(values)} values for {ranks} ranks")


def _network(network: LogGP) -> list[str]:
    """The network that the text was made for, in comments."""
    return [
        f"made for: o {network.overhead_ns} ns; L {network.latency_ns} ns, {network.bandwidth_Bps} B/s; on one node "
        f"({network.ranks_per_node} ranks in order) L {network.local_latency_ns} ns, {network.local_bandwidth_Bps} B/s",
        "a send takes max(o, bytes/rate), its message o + L + bytes/rate, a recv o; calc is in ns",
    ]
