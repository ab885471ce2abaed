"""What one request costs a coordinator: the interval of ``cluster.host.per_request``, and where it comes from.

Three sources, all data beside this module (``data/``); every figure is computed from it here, by least squares:

- CPU times of real Horovod over gloo, rank 0 against a median worker, 2 to 8 ranks (``coordinator_cpu_gloo.json``).
- Step times of real Horovod over MPI, 2 ranks, with and without the cache (``coordcost_mpi_n2_cache0.json`` and
  ``coordcost_mpi_n2_cache.json``).
- This project's parse-and-count of request lists on one core (``coordinator_cost.json``, measured again by
  ``python -m tests.bench.coordinator_cost``): compiled, which no coordinator gets far below, and in Python, which is
  what a backend made of this project's own protocol would pay.

The interval is Horovod's: the least, the median and the largest of what its records say, each plus what requests cost
more when they come from memory instead of a cache (measured, compiled), since the records' lists are small and a job's
of thousands of ranks are not. A fit that is positive or not depending on which single record is left out says nothing
and is not in it. What no record says: other processors (the records are of one Xeon), and more than 8 ranks.
docs/published.md 8.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from statistics import median
from typing import Any, Literal, TypeAlias, TypeVar

SCHEMA = "coordsim.coordinator_cost/1"
"""Of the microbenchmark's points."""

Source: TypeAlias = Literal["horovod", "microbenchmark"]


@dataclass(frozen=True, slots=True)
class Point:
    """One run of the microbenchmark."""

    arm: str
    """"compiled" or "python"."""
    memory: str
    """"cold": requests come from memory; "warm": from a cache."""
    messages: int
    """Lists; one a rank."""
    requests: int
    """In all of them."""
    nbytes: int
    cpu_s: float


@dataclass(frozen=True, slots=True)
class ArmCost:
    """One arm of the microbenchmark: ``cpu = per_request_ns * requests + per_message_ns * messages``."""

    arm: str
    memory: str
    per_request_ns: float
    per_message_ns: float
    worst: float
    """Largest relative error of the fit at a point."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """One figure for the cost of a request."""

    name: str
    per_request_ns: float
    low_ns: float
    """The least that the same fit gives when one record is left out; the figure itself where nothing can be."""
    high_ns: float
    per_message_ns: float | None
    """Per list received and step, where the fit tells it apart; over all cycles of a step."""
    source: Source
    in_interval: bool
    """Whether it is one of those that the interval is made of; ``note`` says why not."""
    note: str


@dataclass(frozen=True, slots=True)
class RequestCost:
    """The cost of a request at Horovod's coordinator, ns."""

    low_ns: int
    median_ns: int
    high_ns: int
    from_memory_ns: float
    """Contained in the three: what a request costs more when it is in no cache (compiled, cold less warm)."""
    floor_ns: float
    """Compiled, from memory: less is not to be had."""
    python_ns: float
    """By this project's own protocol code."""
    per_message_ns: tuple[float, float]
    """Least and largest estimate, per worker's list and step, over the step's cycles: gloo and the kernel's TCP."""
    measured: str
    """When and on what the microbenchmark ran."""
    estimates: tuple[Estimate, ...]

    def serial_s(self, ranks: int, tensors: int) -> tuple[float, float, float]:
        """Seconds of serial counting a step when ``ranks`` ask for ``tensors`` each: (low, median, high)."""
        requests = ranks * tensors
        return (requests * self.low_ns / 1e9, requests * self.median_ns / 1e9, requests * self.high_ns / 1e9)


def request_cost_interval(measured: Mapping[str, Any] | None = None) -> RequestCost:
    """The interval, from the data that comes with the package.

    ``measured``: another run of the microbenchmark, as its ``--out`` writes it, in place of the one that comes along.
    """
    recorded = json.loads(_read("coordinator_cost.json")) if measured is None else measured
    costs = {(each.arm, each.memory): each for each in microbenchmark(Point(**each) for each in recorded["points"])}
    cold, warm, python = costs["compiled", "cold"], costs["compiled", "warm"], costs["python", "cold"]
    from_memory_ns = max(cold.per_request_ns - warm.per_request_ns, 0.0)
    estimates = (
        *gloo_estimates(json.loads(_read("coordinator_cpu_gloo.json"))),
        *mpi_estimates(
            json.loads(_read("coordcost_mpi_n2_cache0.json")), json.loads(_read("coordcost_mpi_n2_cache.json"))
        ),
        *(_of_arm(each) for each in (cold, warm, python)),
    )
    counted = [each.per_request_ns for each in estimates if each.in_interval]
    messages = [each.per_message_ns for each in estimates if each.in_interval and each.per_message_ns is not None]
    machine = recorded["machine"]
    return RequestCost(
        round(min(counted) + from_memory_ns), round(median(counted) + from_memory_ns),
        round(max(counted) + from_memory_ns), from_memory_ns, cold.per_request_ns, python.per_request_ns,
        (min(messages), max(messages)), f"{recorded['date']}, {machine['cpu']}, L3 {machine['l3']}", estimates,
    )  # fmt: skip


def microbenchmark(points: Iterable[Point]) -> list[ArmCost]:
    """Least squares of relative errors over each arm's points, in order of first appearance.

    A message that would cost less than nothing costs nothing. Raises ValueError when an arm's points do not tell
    requests and messages apart.
    """
    by_arm: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        by_arm.setdefault((point.arm, point.memory), []).append(point)
    found = []
    for (arm, memory), own in by_arm.items():
        rows = [[each.requests / each.cpu_s, each.messages / each.cpu_s] for each in own]
        request_s, message_s = _least_squares(rows, [1.0] * len(own))
        if message_s < 0:
            request_s, message_s = sum(one for one, _ in rows) / sum(one * one for one, _ in rows), 0.0
        worst = max(abs(request_s * one + message_s * other - 1) for one, other in rows)
        found.append(ArmCost(arm, memory, 1e9 * request_s, 1e9 * message_s, worst))
    return found


def _horovods(
    name: str, note: str, values: Sequence[float], message_ns: float | None = None, bound: bool = False
) -> Estimate:
    """``values``: the figure, then what leaving one record out makes of it."""
    tells = min(values) > 0
    note = note if tells else f"{note}; without one record it spans 0, so it says nothing"
    return Estimate(name, values[0], min(values), max(values), message_ns, "horovod", tells and not bound, note)


def _of_arm(cost: ArmCost) -> Estimate:
    where = "from memory" if cost.memory == "cold" else "from a cache"
    what = "compiled" if cost.arm == "compiled" else "in Python"
    note = "a floor: nothing is allocated" if cost.arm == "compiled" else "what this project's own backend would pay"
    return Estimate(
        f"our parse and count, {what}, {where}", cost.per_request_ns, cost.per_request_ns, cost.per_request_ns,
        cost.per_message_ns, "microbenchmark", False, note,
    )  # fmt: skip


def gloo_estimates(rows: Sequence[Mapping[str, Any]]) -> list[Estimate]:
    """From CPU times by number of ranks and tensors: rank 0 less a median worker, with and without the cache.

    ``rows``: ``n``, ``T``, ``cache`` (its capacity), ``rank0_us``, ``other_median_us`` per step.
    """
    extra_ns = {
        (row["n"], row["T"], row["cache"] > 0): 1e3 * (row["rank0_us"] - row["other_median_us"]) for row in rows
    }
    keys = sorted({(ranks, tensors) for ranks, tensors, _ in extra_ns})
    without = {key: extra_ns[*key, False] for key in keys}
    net = {key: extra_ns[*key, False] - extra_ns[*key, True] for key in keys}
    gloo, found = "Horovod, gloo, CPU time of rank 0 less a worker's", []
    for name, values, note in (
        (f"{gloo}, fit over {len(keys)} records", without, "requests and messages, no constant"),
        (f"{gloo}, net of the cached arm, the same fit", net, "the cached arm's extra is noise and bookkeeping"),
    ):
        request_ns, message_ns = _per_request_and_message(values)
        others = [_per_request_and_message(_without(values, gone))[0] for gone in keys]
        found.append(_horovods(name, note, [request_ns, *others], message_ns))
    for ranks in sorted({ranks for ranks, _ in keys}):
        tensors = sorted(tensors for each, tensors in keys if each == ranks)
        few, many = tensors[0], tensors[-1]
        slope = (without[ranks, many] - without[ranks, few]) / (ranks * (many - few))
        found.append(_horovods(f"{gloo}, {ranks} ranks, slope from {few} to {many} tensors", "two records", [slope]))
        name, note = f"{gloo}, {ranks} ranks, {many} tensors, net of the cached arm", "messages are in it"
        found.append(_horovods(name, note, [net[ranks, many] / (ranks * many)]))
    return found


def _per_request_and_message(extra_ns: Mapping[tuple[int, int], float]) -> tuple[float, float]:
    """``extra = a * ranks * tensors + b * (ranks - 1)`` over (ranks, tensors); (a, b) in ns."""
    rows = [[float(ranks * tensors), float(ranks - 1)] for ranks, tensors in extra_ns]
    request_ns, message_ns = _least_squares(rows, list(extra_ns.values()))
    return request_ns, message_ns


def mpi_estimates(without: Mapping[str, Any], cached: Mapping[str, Any]) -> list[Estimate]:
    """From two launches, without and with the cache, of tensors submitted at once: slopes of median times over tensors.

    The net slope is of what the cache saves, which is the requests and the coordinator's answer less the bit vector.
    The slope without the cache alone is of all that a step does for a tensor: it bounds a request from above.
    """
    ranks, found = without["n"], []
    for key, what in (("median_ms", "step"), ("median_tail_ms", "tail")):
        slow, fast = (_by_tensors(launch, key) for launch in (without, cached))
        net = {tensors: slow[tensors] - fast[tensors] for tensors in slow}
        slopes = [_slope(net), *(_slope(_without(net, gone)) for gone in net)]
        name = f"Horovod, MPI, {ranks} ranks, {what} time net of the cached arm, slope over tensors"
        found.append(_horovods(name, "wall clock", [slope / ranks for slope in slopes]))
    tail = _by_tensors(without, "median_tail_ms")
    slopes = [_slope(tail), *(_slope(_without(tail, gone)) for gone in tail)]
    name = f"Horovod, MPI, {ranks} ranks, tail without the cache, slope over tensors"
    note = "a bound from above: answering and executing are in it"
    return [*found, _horovods(name, note, [slope / ranks for slope in slopes], bound=True)]


_Key = TypeVar("_Key")


def _without(values: Mapping[_Key, float], gone: _Key) -> dict[_Key, float]:
    return {key: value for key, value in values.items() if key != gone}


def _by_tensors(launch: Mapping[str, Any], key: str) -> dict[int, float]:
    """ns by number of tensors."""
    return {each["spec"]["tensors"]: 1e6 * each["summary"][key] for each in launch["workloads"].values()}


def _slope(values: Mapping[int, float]) -> float:
    slope, _ = _least_squares([[float(at), 1.0] for at in values], list(values.values()))
    return slope


def _least_squares(rows: Sequence[Sequence[float]], wanted: Sequence[float]) -> tuple[float, float]:
    """The two coefficients that leave the smallest sum of squares. Raises ValueError when there is no single answer."""
    import numpy as np

    found, _, rank, _ = np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)
    if rank < 2:
        raise ValueError(f"{len(rows)} records do not tell two costs apart")
    return float(found[0]), float(found[1])


def _read(name: str) -> str:
    return files(__package__).joinpath("data", name).read_text(encoding="utf-8")
