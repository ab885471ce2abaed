"""What a collective costs by its backend's algorithm for any number of ranks: stages that wait for one another.

A backend's costs are five numbers (:class:`Costs`): CPU time once a collective, for each stage and for each byte, and
two latencies. Their *proportions* come from timing the backend alone at several numbers of ranks (``calibrate here
--backend``), their *levels* from the record that is predicted from (:mod:`coordsim.analyse.predict.anchor`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from coordsim.errors import InputError
from coordsim.protocol.messages import Op
from coordsim.simulate.shared_cores import Collective, Dependency, Stage
from coordsim.units import parse_bytes, parse_picoseconds, parse_time

NONE, LEFT, ALL, ROOT = Dependency.NONE, Dependency.LEFT, Dependency.ALL, Dependency.ROOT

ALONG_BYTES = 64 << 10
"""Of ``coord``: what travels with the bit vector (docs/backend.md 4)."""
SMALL_BYTES = 4 << 20
"""Of ``coord``: what goes over the control links, times the ranks that meet there."""
REQUEST_NS = 15_000
"""CPU time of one request at the coordinator, in this backend's Python (docs/validation.md 3: ASSUMED, wide)."""
WORKERS: Mapping[str, int] = {"gloo": 2, "coord": 1}
"""Collectives that a rank works on at once: torch's gloo has two threads, ``coord`` one loop."""


class Costs(NamedTuple):
    """Of one backend on one machine, ns (``byte``: picoseconds)."""

    fixed_ns: float
    """CPU time of a rank, once a collective."""
    hop_ns: float
    """CPU time for each stage; on a star for each message."""
    byte_ps: float
    """CPU time for each byte that a rank sends and receives."""
    start_ns: float
    """Latency once a collective, without a core."""
    wait_ns: float
    """Latency of each stage, without a core."""

    def times(self, cpu: float, latency: float) -> Costs:
        """CPU times ``cpu`` times as long, latencies ``latency`` times."""
        return Costs(
            self.fixed_ns * cpu, self.hop_ns * cpu, self.byte_ps * cpu, self.start_ns * latency, self.wait_ns * latency
        )


@dataclass(frozen=True)
class CollectiveCosts:
    """What ``calibrate here --backend`` measured on one host."""

    backend: str
    """``gloo`` or ``coord``."""
    host: str
    """Its name."""
    cores: int
    """Of that host."""
    ranks: tuple[int, ...]
    """Numbers of ranks it was measured with."""
    smallest_bytes: int
    largest_bytes: int
    date: str
    costs: Costs

    def table(self) -> dict[str, str]:
        """As a cluster file has it."""
        costs = {name.removesuffix("_ns"): f"{round(getattr(self.costs, name))}ns" for name in _TIMES}
        return {
            "backend": self.backend, "host": self.host, "cores": str(self.cores),
            "ranks": ", ".join(map(str, self.ranks)), "smallest": f"{self.smallest_bytes}B",
            "largest": f"{self.largest_bytes}B", "date": self.date, **costs,
            "byte": f"{self.costs.byte_ps / 1e3:.4g}ns",
        }  # fmt: skip

    @classmethod
    def read(cls, table: Mapping[str, str], where: str) -> CollectiveCosts:
        """From the table ``collectives`` of the file ``where``. Raises InputError with the key that is missing or
        wrong."""
        def value(key: str, parse: Callable[[str], Any]) -> Any:
            if key not in table:
                raise InputError.one(where, f"cluster.collectives.{key}", None, "is missing")
            try:
                return parse(table[key])
            except ValueError as error:
                raise InputError.one(where, f"cluster.collectives.{key}", table[key], str(error)) from error

        costs = Costs(
            float(value("fixed", parse_time)), float(value("hop", parse_time)), float(value("byte", parse_picoseconds)),
            float(value("start", parse_time)), float(value("wait", parse_time)),
        )  # fmt: skip
        return cls(
            value("backend", str), value("host", str), value("cores", _count),
            value("ranks", lambda text: tuple(map(_count, text.split(",")))), value("smallest", parse_bytes),
            value("largest", parse_bytes), value("date", str), costs,
        )  # fmt: skip


_TIMES = ("fixed_ns", "hop_ns", "start_ns", "wait_ns")


def _count(text: str) -> int:
    number = int(text) if text.strip().isascii() and text.strip().isdecimal() and len(text) < 10 else 0
    if number < 1:
        raise ValueError(f"{text!r} is not a number of at least 1")
    return number


def known(backend: str) -> bool:
    """Whether there is a law for ``backend``."""
    return backend in WORKERS


def collective(
    backend: str, operation: int, nbytes: int, ranks: int, costs: Costs, agreed: bool = True, requests: int = 0
) -> Collective:
    """The stages of one collective of ``nbytes`` (the whole buffer) among ``ranks``.

    ``agreed``: whether ranks agree on it first, where the backend negotiates; ``requests``: of each rank at the
    coordinator.
    """
    if ranks == 1:
        return Collective((_alike(costs.fixed_ns, NONE, costs.start_ns),))
    if backend == "coord" and operation == Op.ALLREDUCE:
        agreement = _star(0, ranks, costs, requests) if agreed else []
        return Collective(tuple(_coord(nbytes, ranks, costs, agreement, requests > 0)))
    return Collective(tuple(_ring(operation, nbytes, ranks, costs)))


def _ring(operation: int, nbytes: int, ranks: int, costs: Costs) -> list[Stage]:
    """gloo: an allreduce goes round twice, a gather once; torch's reduce-scatter over gloo is an allreduce of which
    each rank keeps its part."""
    count = ranks - 1 if operation == Op.ALLGATHER else 2 * (ranks - 1)
    stage = costs.hop_ns + costs.byte_ps * nbytes / ranks / 1e3
    return [_alike(costs.fixed_ns, NONE, costs.start_ns), *(_alike(stage, LEFT, costs.wait_ns) for _ in range(count))]


def _coord(nbytes: int, ranks: int, costs: Costs, agreement: Sequence[Stage], asks: bool) -> list[Stage]:
    """``coord``: up and down a star to agree; the data with it, on another round of the star, or through the node's
    memory (docs/backend.md 4)."""
    begin = _alike(costs.fixed_ns, NONE, costs.start_ns)
    if nbytes <= ALONG_BYTES and not asks:
        return [begin, *_star(nbytes, ranks, costs)]
    if nbytes <= SMALL_BYTES // min(ranks, 65):
        return [begin, *agreement, *_star(nbytes, ranks, costs)]
    # through the node's memory: all tell where their tensors lie, each adds up its N-th part of all ranks' elements,
    # all meet, each reads the other parts from whoever added them up, all meet (real_backend/data/memory.py)
    meet, read = _star(0, ranks, costs), costs.byte_ps * nbytes / 1e3 / 2
    return [
        begin, *agreement, *meet, _alike(read, NONE, 0), *meet, _alike(read * (ranks - 1) / ranks, NONE, 0), *meet
    ]


def _star(nbytes: int, ranks: int, costs: Costs, requests: int = 0) -> list[Stage]:
    """Everybody's message to rank 0, which counts their requests and answers one rank after the other."""
    message = costs.hop_ns + costs.byte_ps * nbytes / 1e3 / 2
    return [
        Stage(0, round(message), NONE, NONE, 0),
        Stage(round((ranks - 1) * (2 * message + requests * REQUEST_NS)), 0, ALL, NONE, round(costs.wait_ns)),
        Stage(0, round(message), NONE, ROOT, round(costs.wait_ns)),
    ]


def _alike(cpu_ns: float, after: Dependency, latency_ns: float) -> Stage:
    return Stage(max(round(cpu_ns), 0), max(round(cpu_ns), 0), after, after, max(round(latency_ns), 0))


def cpu_ns(one: Collective, ranks: int) -> float:
    """CPU time of one collective on a rank, the mean over ``ranks``."""
    return sum((stage.root_cpu_ns + (ranks - 1) * stage.other_cpu_ns) / ranks for stage in one.stages)
