"""What is fitted for one controller on one machine, and how it carries over to another number of ranks.

The rules (docs/validation.md 3): a hop between two threads costs the same whatever the exchange; how many hops depend
on one another is the algorithm's (docs/horovod.md 3.2, 3.6); CPU work and hops stretch by N / c when N ranks want more
than the c cores there are (the engine does that).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from coordsim.record.horovod_runs import Primitive, Sleep
from coordsim.simulate.closed_loop import LoopCosts


def _log2(ranks: int) -> int:
    return (ranks - 1).bit_length()


class Controller(NamedTuple):
    """What is known of a controller: messages that wait for one another, by exchange, for N ranks; and its threads."""

    allreduce: Callable[[int], int]
    gather: Callable[[int], int]
    broadcast: Callable[[int], int]
    ask: Callable[[int], int]
    """Of the slow path: lengths and lists up, length and responses down."""
    spins: bool = False
    """Whether a rank that waits keeps its core busy. Main threads take turns only there (docs/validation.md 3)."""
    along_bytes: int = -1
    """The largest response that travels with the bit vector, where all ranks offer the same bits."""
    alike: float = 1.15
    """Up to which factor a primitive timed alone is like the same exchange within the controller."""
    held_ns: int = 0
    """How long a rank's main thread may keep its background thread from running: Python's switch interval, of a
    controller written in Python."""


def _one(ranks: int) -> int:
    return min(1, ranks - 1)


def _ring(ranks: int) -> int:
    return 2 * (ranks - 1)


def _star(ranks: int) -> int:
    """Up and down; the root serves one rank after another."""
    return ranks if ranks > 1 else 0


def _lengths_and_lists(ranks: int) -> int:
    return 2 * _one(ranks) + 2 * _log2(ranks)


CONTROLLERS: Mapping[str, Controller] = {
    "mpi": Controller(_log2, _one, _log2, _lengths_and_lists, spins=True),
    "gloo": Controller(_ring, _one, _log2, _lengths_and_lists, alike=1.5),
    "coordsim": Controller(_star, _one, _one, _star, along_bytes=64 << 10, held_ns=5_000_000),
}
"""By name: Open MPI's recursive doubling and binomial tree; gloo's ring and binomial tree; the real backend's
star, whose small reductions travel with the bit vector (docs/backend.md 4).

Primitives of gloo were timed through torch, which hands each to a thread of its own and is woken by it."""


class Parameter(NamedTuple):
    """One fitted number and what is believed of it before: a median, and a factor either way (or a distance)."""

    name: str
    unit: str
    expected: float
    spread: float
    meaning: str
    source: str

    @property
    def positive(self) -> bool:
        """Fitted as a logarithm; ``spread`` is then a factor."""
        return self.expected > 0

    def at(self, z: float) -> float:
        """The value ``z`` standard deviations from what is expected."""
        return self.expected * self.spread**z if self.positive else self.expected + self.spread * z


_SMALL_BYTES = 64
_GUESS = "ASSUMED, wide"
_CPU_TIMES = (
    "CPU times of Horovod with gloo, N = 2 to 8, all threads but the main one (coordinator_cpu_gloo.json): without the "
    "cache a worker spends 0.8 us a tensor, rank 0 0.8 us more and 0.6-0.8 us a request; with it both 1.3-2.7 us"
)
_PARAMETERS = (
    Parameter("allreduce_hop", "us", 20.0, 5.0, "one hop of an intersection or an allreduce", _GUESS),
    Parameter("tree_hop", "us", 20.0, 5.0, "one hop of a gather or a broadcast", _GUESS),
    Parameter("request", "us", 0.6, 1.5, "one request of another rank at the coordinator", _CPU_TIMES),
    Parameter("response", "us", 20.0, 2.0, "one response, without its hops", _GUESS),
    Parameter("tensor", "us", 1.5, 1.35, "one tensor of a response that was asked for", _CPU_TIMES),
    Parameter("hit", "us", 1.8, 1.35, "one tensor of a response that the cache knew", _CPU_TIMES),
    Parameter("byte", "ns", 0.3, 3.0, "one byte sent and reduced by a rank", _GUESS),
    Parameter("wake_shift", "us", 0.0, 3.0, "a background thread's sleep, against the sleep primitives", _GUESS),
    Parameter("stall_share", "%", 0.05, 3.0, "cycles in which the whole machine stands still", _GUESS),
    Parameter("stall_mean", "ms", 3.0, 1.5, "mean of such a stall", _GUESS),
    Parameter("phase", "%", 5.0, 2.0, "of a cycle that all loops but one wake before the last", _GUESS),
    Parameter("late", "x", 0.3, 3.0, "wakes while its main thread submits at which a loop is held up", _GUESS),
    Parameter("taken", "x", 0.5, 3.0, "steps that a main thread ends late, against time it is held up", _GUESS),
    Parameter("late_mean", "ms", 3.0, 1.5, "how long a thread is held up at a time", "ASSUMED: a slice of Linux's"),
)


_PYTHON = "ASSUMED, wide; the backend is Python"
_OWN: Mapping[str, tuple[Parameter, ...]] = {
    "coordsim": (
        Parameter("executing", "us", 200.0, 3.0, "once a cycle that executes responses", _PYTHON),
        Parameter("request", "us", 15.0, 2.0, "one request of another rank at the coordinator", _PYTHON),
        Parameter("response", "us", 50.0, 3.0, "one response, without its hops", _PYTHON),
        Parameter("tensor", "us", 30.0, 2.0, "one tensor of a response that was asked for", _PYTHON),
        Parameter("hit", "us", 8.0, 2.0, "one tensor of a response that the cache knew", _PYTHON),
    )
}
"""What is expected of a controller that is not Horovod's, and what only it has."""


def parameters(
    controller: str, fitted_ranks: Collection[int], primitives: Sequence[Primitive]
) -> tuple[Parameter, ...]:
    """What is expected of each, from primitives of ``controller`` at the numbers of ranks that are fitted."""
    own = [each for each in primitives if each.controller == controller and each.ranks in fitted_ranks]
    known = {each.name: each for each in _OWN.get(controller, ())} | dict(_expected(CONTROLLERS[controller], own))
    return tuple(known.pop(each.name, each) for each in _PARAMETERS) + tuple(known.values())


def _expected(algorithms: Controller, primitives: Sequence[Primitive]) -> list[tuple[str, Parameter]]:
    by_name = {each.name: each for each in _PARAMETERS}
    found = []
    reduces = [each for each in primitives if each.op in ("allreduce", "allreduce_bits", "allreduce_band")]
    small = [each.median_ns / algorithms.allreduce(each.ranks) for each in reduces if each.nbytes <= _SMALL_BYTES]
    if small:
        found.append(by_name["allreduce_hop"]._replace(expected=median(small) / 1e3, spread=algorithms.alike))
    trees = [
        each.median_ns / (algorithms.gather if each.op.startswith("gather") else algorithms.broadcast)(each.ranks)
        for each in primitives
        if each.op in ("gather", "gatherv", "bcast", "broadcast") and each.nbytes <= _SMALL_BYTES
    ]
    if trees:  # a gather's root does not wait for anybody to receive: the primitive is an upper end
        found.append(by_name["tree_hop"]._replace(expected=median(trees) / 1e3, spread=1.6))
    sizes = sorted((each.nbytes, each.median_ns) for each in reduces if each.ranks == 2)
    if len(sizes) >= 2 and sizes[-1][0] >= 1 << 16:
        (before, before_ns), (last, last_ns) = sizes[-2:]
        if last > before and last_ns > before_ns:
            found.append(by_name["byte"]._replace(expected=(last_ns - before_ns) / (last - before), spread=1.15))
    return [(each.name, each._replace(source="primitives, timed alone")) for each in found]


POLL_ASKED_NS = 50_000
"""The recorded programs sleep so long between polls."""
NOTICE_NS = 700
"""Where no recording shows what noticing one finished unit takes."""
SLEEP = ((50_000, 100_000, 1_000_000), (73_600, 82_600, 85_700), (2_300, 4_000, 2_900))
"""Asked, over, spread, where a folder has no primitives_sleep.json: those of the machine first recorded."""


@dataclass(frozen=True)
class Measured:
    """What is measured on the machine and not fitted."""

    notice_ns: int
    sleep_asked_ns: tuple[int, ...]
    sleep_over_ns: tuple[int, ...]
    poll_ns: int
    wake_spread_ns: int

    @classmethod
    def of(cls, sleep: Sleep | None, notice_ns: float | None) -> Measured:
        """From the folder's sleep primitives and the fitted files' detail."""
        if sleep is None:
            asked, over, spread = SLEEP
        else:
            asked = tuple(sleep.asked_ns.tolist())
            over = tuple((sleep.median_ns - sleep.asked_ns).tolist())
            spread = tuple(sleep.spread_ns.tolist())
        nearest = min(range(len(asked)), key=lambda i: abs(asked[i] - POLL_ASKED_NS))
        return cls(
            notice_ns=round(notice_ns) if notice_ns is not None else NOTICE_NS,
            sleep_asked_ns=asked,
            sleep_over_ns=over,
            poll_ns=POLL_ASKED_NS + over[nearest],
            wake_spread_ns=spread[-1],
        )


def loop_costs(
    values: Mapping[str, float], crowded: bool, measured: Measured, controller: str, ranks: int,
    delay_ns: int = 0,
) -> LoopCosts:
    """The costs of ``ranks`` ranks under ``controller``; ``values`` by parameter name, in the parameters' units.

    ``delay_ns``: of a network, one way.
    """
    known = CONTROLLERS[controller]
    reduce_ns = known.allreduce(ranks) * values["allreduce_hop"] * 1e3
    return LoopCosts(
        bits_ns=round(reduce_ns),
        ask_ns=round(known.ask(ranks) * values["tree_hop"] * 1e3),
        request_ns=round(values["request"] * 1e3),
        executing_ns=round(values.get("executing", 0.0) * 1e3),
        response_ns=round(values["response"] * 1e3 + reduce_ns),
        requests_alone=not known.spins,
        tensor_ns=round(values["tensor"] * 1e3),
        hit_ns=round(values["hit"] * 1e3),
        byte_ps=round(values["byte"] * 1e3),
        notice_ns=measured.notice_ns,
        poll_ns=measured.poll_ns,
        wake_shift_ns=round(values["wake_shift"] * 1e3),
        wake_spread_ns=measured.wake_spread_ns,
        stall_ppm=min(round(values["stall_share"] * 1e4), 1_000_000),
        stall_ns=round(values["stall_mean"] * 1e6),
        phase_ppm=min(round(values["phase"] * 1e4), 1_000_000),
        crowded=crowded,
        sleep_asked_ns=measured.sleep_asked_ns,
        sleep_over_ns=measured.sleep_over_ns,
        star_ns=delay_ns if ranks > 1 else 0,
        ride_ns=round(reduce_ns) if known.along_bytes >= 0 else 0,
        along_bytes=known.along_bytes,
        late_ppm=round(values["late"] * 1e6),
        late_ns=round(values["late_mean"] * 1e6),
        taken_ppm=round(values["taken"] * 1e6),
        held_ns=known.held_ns,
    )
