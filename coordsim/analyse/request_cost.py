"""The cost of one request at a coordinator: the interval of ``cluster.host.per_request`` and its sources.

There are three sources, all of them data beside this module (``data/``). Every figure is computed from them here, by
least squares:

- CPU times of real Horovod over gloo, rank 0 against a median worker, 2 to 8 ranks (``coordinator_cpu_gloo.json``).
- Step times of real Horovod over MPI, 2 ranks, with and without the cache (``coordcost_mpi_n2_cache0.json`` and
  ``coordcost_mpi_n2_cache.json``).
- This project's parse-and-count of request lists on one core (``coordinator_cost.json``, measured again by
  ``python -m tests.bench.coordinator_cost``): compiled code, a lower bound for any coordinator, and Python, the cost of
  a backend made of this project's own protocol.

The interval is Horovod's: the smallest, the median and the largest estimate from its records. Each is increased by the
extra cost of requests that come from memory instead of a cache (measured, compiled), because the records' lists are
small and the lists of a job of thousands of ranks are not. An estimate whose sign depends on a single record is left
out. No record covers other processors (all are of one Xeon) or more than 8 ranks. See docs/published.md 8.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from statistics import median
from typing import Any, Literal, TypeAlias, TypeVar

SCHEMA = "coordsim.coordinator_cost/1"
"""Schema of the microbenchmark's points."""

Source: TypeAlias = Literal["horovod", "microbenchmark"]


@dataclass(frozen=True, slots=True)
class Point:
    """One run of the microbenchmark."""

    arm: str
    """"compiled" or "python"."""
    memory: str
    """"cold": requests come from memory; "warm": from a cache."""
    messages: int
    """Number of request lists, one for each rank."""
    requests: int
    """Number of requests in all lists together."""
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
    """Smallest value of the same fit with one record left out; the value itself where no record can be left out."""
    high_ns: float
    """Largest such value."""
    per_message_ns: float | None
    """Cost per list received and step, over all cycles of a step; None where the fit cannot separate it."""
    source: Source
    in_interval: bool
    """Whether the interval is computed from this estimate; if not, ``note`` says why."""
    note: str


@dataclass(frozen=True, slots=True)
class RequestCost:
    """The cost of a request at Horovod's coordinator, ns."""

    low_ns: int
    median_ns: int
    high_ns: int
    from_memory_ns: float
    """Extra cost of a request that is in no cache (compiled, cold less warm). The three values above contain it."""
    floor_ns: float
    """Cost of compiled code with requests from memory, a lower bound."""
    python_ns: float
    """Cost of this project's own protocol code."""
    per_message_ns: tuple[float, float]
    """Smallest and largest estimate per worker's list and step, over the step's cycles: gloo and the kernel's TCP."""
    measured: str
    """Date and machine of the microbenchmark."""
    estimates: tuple[Estimate, ...]

    def serial_s(self, ranks: int, tensors: int) -> tuple[float, float, float]:
        """Return seconds of serial counting a step when ``ranks`` ask for ``tensors`` each: (low, median, high)."""
        requests = ranks * tensors
        return (requests * self.low_ns / 1e9, requests * self.median_ns / 1e9, requests * self.high_ns / 1e9)


def request_cost_interval(measured: Mapping[str, Any] | None = None) -> RequestCost:
    """Compute the interval from the data in the package.

    ``measured`` is another run of the microbenchmark, as its ``--out`` writes it, to use instead of the packaged one.
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
        *(_arm_estimate(cost) for cost in (cold, warm, python)),
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
    """Fit each arm's points by least squares of relative errors; arms stand in order of first appearance.

    A negative cost per message is replaced by 0. Raises ValueError when an arm's points cannot separate the costs of
    requests and of messages.
    """
    by_arm: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        by_arm.setdefault((point.arm, point.memory), []).append(point)
    costs = []
    for (arm, memory), own in by_arm.items():
        rows = [[each.requests / each.cpu_s, each.messages / each.cpu_s] for each in own]
        request_s, message_s = _least_squares(rows, [1.0] * len(own))
        if message_s < 0:
            request_s, message_s = sum(one for one, _ in rows) / sum(one * one for one, _ in rows), 0.0
        worst = max(abs(request_s * one + message_s * other - 1) for one, other in rows)
        costs.append(ArmCost(arm, memory, 1e9 * request_s, 1e9 * message_s, worst))
    return costs


def _horovod_estimate(
    name: str, note: str, values: Sequence[float], message_ns: float | None = None, bound: bool = False
) -> Estimate:
    """Make an estimate of ``values``: the value itself, then its values with one record left out.

    A ``bound`` is not in the interval.
    """
    positive = min(values) > 0
    note = note if positive else f"{note}; without one record it spans 0, so it says nothing"
    return Estimate(name, values[0], min(values), max(values), message_ns, "horovod", positive and not bound, note)


def _arm_estimate(cost: ArmCost) -> Estimate:
    where = "from memory" if cost.memory == "cold" else "from a cache"
    what = "compiled" if cost.arm == "compiled" else "in Python"
    note = "a floor: nothing is allocated" if cost.arm == "compiled" else "what this project's own backend would pay"
    return Estimate(
        f"our parse and count, {what}, {where}", cost.per_request_ns, cost.per_request_ns, cost.per_request_ns,
        cost.per_message_ns, "microbenchmark", False, note,
    )  # fmt: skip


def gloo_estimates(rows: Sequence[Mapping[str, Any]]) -> list[Estimate]:
    """Estimate from CPU times of rank 0 less those of a median worker, with and without the cache.

    Each of ``rows`` has ``n`` (ranks), ``T`` (tensors), ``cache`` (its capacity), ``rank0_us`` and ``other_median_us``
    per step.
    """
    extra_ns = {
        (row["n"], row["T"], row["cache"] > 0): 1e3 * (row["rank0_us"] - row["other_median_us"]) for row in rows
    }
    keys = sorted({(ranks, tensors) for ranks, tensors, _ in extra_ns})
    without = {key: extra_ns[*key, False] for key in keys}
    net = {key: extra_ns[*key, False] - extra_ns[*key, True] for key in keys}
    gloo, estimates = "Horovod, gloo, CPU time of rank 0 less a worker's", []
    for name, values, note in (
        (f"{gloo}, fit over {len(keys)} records", without, "requests and messages, no constant"),
        (f"{gloo}, net of the cached arm, the same fit", net, "the cached arm's extra is noise and bookkeeping"),
    ):
        request_ns, message_ns = _per_request_and_message(values)
        others = [_per_request_and_message(_without(values, gone))[0] for gone in keys]
        estimates.append(_horovod_estimate(name, note, [request_ns, *others], message_ns))
    for ranks in sorted({ranks for ranks, _ in keys}):
        tensors = sorted(tensors for size, tensors in keys if size == ranks)
        few, many = tensors[0], tensors[-1]
        slope = (without[ranks, many] - without[ranks, few]) / (ranks * (many - few))
        name = f"{gloo}, {ranks} ranks, slope from {few} to {many} tensors"
        estimates.append(_horovod_estimate(name, "two records", [slope]))
        name, note = f"{gloo}, {ranks} ranks, {many} tensors, net of the cached arm", "messages are in it"
        estimates.append(_horovod_estimate(name, note, [net[ranks, many] / (ranks * many)]))
    return estimates


def _per_request_and_message(extra_ns: Mapping[tuple[int, int], float]) -> tuple[float, float]:
    """Fit ``extra = a * ranks * tensors + b * (ranks - 1)`` to values by (ranks, tensors); return (a, b) in ns."""
    rows = [[float(ranks * tensors), float(ranks - 1)] for ranks, tensors in extra_ns]
    request_ns, message_ns = _least_squares(rows, list(extra_ns.values()))
    return request_ns, message_ns


def mpi_estimates(without: Mapping[str, Any], cached: Mapping[str, Any]) -> list[Estimate]:
    """Estimate from slopes of median step times over the number of tensors, without and with the cache.

    Both are launches that submit all tensors at once. The net slope is what the cache saves: the requests and the
    coordinator's answer less the bit vector. The slope without the cache contains all that a step does for a tensor,
    and so is an upper bound for a request.
    """
    ranks, estimates = without["n"], []
    for key, what in (("median_ms", "step"), ("median_tail_ms", "tail")):
        slow, fast = (_by_tensors(launch, key) for launch in (without, cached))
        net = {tensors: slow[tensors] - fast[tensors] for tensors in slow}
        slopes = [_slope(net), *(_slope(_without(net, gone)) for gone in net)]
        name = f"Horovod, MPI, {ranks} ranks, {what} time net of the cached arm, slope over tensors"
        estimates.append(_horovod_estimate(name, "wall clock", [slope / ranks for slope in slopes]))
    tail = _by_tensors(without, "median_tail_ms")
    slopes = [_slope(tail), *(_slope(_without(tail, gone)) for gone in tail)]
    name = f"Horovod, MPI, {ranks} ranks, tail without the cache, slope over tensors"
    note = "a bound from above: answering and executing are in it"
    return [*estimates, _horovod_estimate(name, note, [slope / ranks for slope in slopes], bound=True)]


_Key = TypeVar("_Key")


def _without(values: Mapping[_Key, float], gone: _Key) -> dict[_Key, float]:
    return {key: value for key, value in values.items() if key != gone}


def _by_tensors(launch: Mapping[str, Any], key: str) -> dict[int, float]:
    """Return number of tensors -> time, ns."""
    return {run["spec"]["tensors"]: 1e6 * run["summary"][key] for run in launch["workloads"].values()}


def _slope(values: Mapping[int, float]) -> float:
    slope, _ = _least_squares([[float(at), 1.0] for at in values], list(values.values()))
    return slope


def _least_squares(rows: Sequence[Sequence[float]], wanted: Sequence[float]) -> tuple[float, float]:
    """Return the two coefficients with the smallest sum of squares. Raises ValueError when they are not unique."""
    import numpy as np

    solution, _, rank, _ = np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)
    if rank < 2:
        raise ValueError(f"{len(rows)} records cannot separate two costs")
    return float(solution[0]), float(solution[1])


def _read(name: str) -> str:
    return files(__package__).joinpath("data", name).read_text(encoding="utf-8")
