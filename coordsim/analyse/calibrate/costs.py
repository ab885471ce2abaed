"""What does not cross the control network: the protocol's CPU time, copies, and the allreduce of gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from coordsim.analyse.calibrate.regression import Fitted, Point, fit, interval
from coordsim.analyse.calibrate.result import Choice, Estimate, TooLittle
from coordsim.analyse.calibrate.words import counts_of, ranks_of, sizes_of
from coordsim.cost.collectives import allreduce_ns
from coordsim.record.measurement import Measurement, Series
from coordsim.scenario.model import DataNetwork

LEAST_SIZES = 3
"""From which a copy's fixed cost can be told from its bytes."""
LEAST_COPY_BYTES = 1 << 20
"""Below, a copy's fixed cost is most of it."""
PATHS = {"links": "the control links", "memory": "the node's memory", "gloo": "gloo"}


def coordinator(measurement: Measurement) -> list[Estimate]:
    """``host.per_message``, ``per_request``, ``per_response``. Raises TooLittle.

    A slow cycle costs p_msg for each list taken in, p_req for each request in all of them, p_resp for each tensor
    answered (docs/semantics.md 4.3).
    """
    series = list(measurement.of("coordinator"))
    if not series:
        return _from_work(measurement)
    found = fit(
        [Point((each.ranks - 1, each.ranks * each.count, each.count), each.samples_ns) for each in series],
        "costs of the coordinator",
    )
    holds = f"{counts_of(series, 'tensors')}, {ranks_of(series)}"
    note = "this backend's Python; real Horovod: docs/published.md 8"
    names = (
        ("per_message", "a list taken in"), ("per_request", "a request counted"), ("per_response", "a tensor answered"),
    )  # fmt: skip
    return [
        _estimate(f"host.{key}", name, found, index, "ns", holds, note) for index, (key, name) in enumerate(names)
    ]


def _from_work(measurement: Measurement) -> list[Estimate]:
    """Of a recorded run: rank 0's work over the requests of its slow cycles. Raises TooLittle."""
    series = list(measurement.of("work", crowded=True))
    if not series:
        raise TooLittle("costs of the coordinator: no slow cycle with requests")
    found = fit([Point((1, each.count), each.samples_ns) for each in series], "a request's cost")
    holds = f"{counts_of(series, 'requests')}, {ranks_of(series)}"
    note = "counting and answering together, over slow cycles"
    return [_estimate("host.per_request", "a request counted", found, 1, "ns", holds, note)]


def hits(measurement: Measurement) -> list[Estimate]:
    """``host.local_response``: what each tensor costs a rank when the cache agrees. Raises TooLittle."""
    series = list(measurement.of("hits"))
    found = fit([Point((1, each.count), each.samples_ns) for each in series], "cost of a cached tensor")
    holds = counts_of(series, "tensors")
    return [_estimate("host.local_response", "a cached tensor, each rank", found, 1, "ns", holds)]


def copies(measurement: Measurement) -> list[Estimate]:
    """``data.copy_bandwidth``. Raises TooLittle."""
    series = list(measurement.of("copy"))
    fixed = len({each.nbytes for each in series}) >= LEAST_SIZES
    if not fixed:
        series = [each for each in series if each.nbytes >= LEAST_COPY_BYTES]
    found = fit([Point((each.nbytes, 1) if fixed else (each.nbytes,), each.samples_ns) for each in series], "copies")
    return [_rate("data.copy_bandwidth", "copies", found, 0, sizes_of(series))]


def allreduce(measurement: Measurement, data: DataNetwork) -> tuple[list[Estimate], list[Choice]]:
    """Alpha and beta of gradients' allreduce, as the model's ring with a launch. Raises TooLittle.

    ``data``: of the base cluster, whose latency table the ring keeps. A ring takes 2 (n - 1) / n bytes over the bus
    bandwidth; what alpha is beyond the table's latency becomes ``host.launch``, which every response pays as well.
    """
    series = list(measurement.of("allreduce", "auto"))
    if not series:
        why = measurement.missing.get("allreduce", "none measured by ranks that had a core each")
        raise TooLittle(f"allreduce: {why}")
    found = fit([Point((1, _volume(each)), each.samples_ns) for each in series], "allreduce")
    holds = f"{sizes_of(series)}, {ranks_of(series)}"
    alpha, beta = (float(value) for value in found.values)
    if beta <= 0:
        raise TooLittle("allreduce: larger tensors took no longer")
    ring = replace(data, allreduce="ring", bus_bandwidth_Bps=max(round(1e9 / beta), 1))
    table = min(allreduce_ns(4, each.ranks, ring, 1 << 16) for each in series)
    launch = max(alpha - table, 0.0)
    errors = np.array([
        abs((launch + allreduce_ns(each.nbytes, each.ranks, ring, 1 << 16)) / np.median(each.samples_ns) - 1)
        for each in series
    ])  # fmt: skip
    fitted = Fitted(found.values, found.draws, errors)
    low, high = interval(np.maximum(found.draws[:, 0] - table, 0))
    note = f"alpha of {alpha / 1e3:.1f} us less the {table / 1e3:.1f} us of the model's table"
    estimates = [
        _rate("data.bus_bandwidth", "allreduce, bus bandwidth", fitted, 1, holds),
        Estimate(
            "host.launch", "allreduce, before the first byte", launch, low, high, "ns", holds, fitted.error_median,
            fitted.error_worst, note,
        ),
    ]  # fmt: skip
    for path, name in PATHS.items():
        estimates += _path(list(measurement.of("allreduce", path)), name)
    return estimates, [Choice("data.allreduce", "ring", "errors are those of a ring with a launch")]


def _path(series: Sequence[Series], name: str) -> list[Estimate]:
    """One way that an allreduce may go, for comparison."""
    try:
        found = fit([Point((1, _volume(each)), each.samples_ns) for each in series], name)
    except TooLittle:
        return []
    if found.values[1] <= 0:
        return []
    told = _rate("", f"allreduce by {name}", found, 1, f"{sizes_of(series)}, {ranks_of(series)}")
    return [replace(told, note=f"and {found.values[0] / 1e3:.1f} us before the first byte")]


def _volume(series: Series) -> float:
    return 2 * (series.ranks - 1) / series.ranks * series.nbytes


def _estimate(key: str, name: str, found: Fitted, index: int, unit: str, holds: str, note: str = "") -> Estimate:
    if found.values[index] == 0:
        note = "not to be told from 0 beside the others"
    return Estimate(
        key, name, float(found.values[index]), *found.interval(index), unit, holds,  # type: ignore[arg-type]
        found.error_median, found.error_worst, note,
    )  # fmt: skip


def _rate(key: str, name: str, found: Fitted, index: int, holds: str) -> Estimate:
    """Bytes a second from ns a byte."""
    low, high = found.interval(index)
    value = 1e9 / max(float(found.values[index]), 1e-9)
    rates = value, 1e9 / max(high, 1e-9), 1e9 / max(low, 1e-9)
    return Estimate(key, name, *rates, "B/s", holds, found.error_median, found.error_worst)
