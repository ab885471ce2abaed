"""What collectives of a torch backend cost on shared cores: CPU time and latencies by the stages of their algorithm.

CPU time of a call is linear in three costs (:class:`coordsim.analyse.predict.collectives.Costs`), whatever else runs.
What a call takes beyond that, on these cores with all ranks calling at once, is latency: linear in two more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coordsim.analyse.calibrate.regression import Fitted, Float, Point, fit
from coordsim.analyse.calibrate.result import Estimate, TooLittle
from coordsim.analyse.calibrate.words import ranks_of, sizes_of
from coordsim.analyse.predict.collectives import WORKERS, CollectiveCosts, Costs, collective, cpu_ns, known
from coordsim.protocol.messages import Op
from coordsim.record.measurement import Measurement, Series
from coordsim.simulate.shared_cores import Host, Program, Segment, SegmentKind, SharedProblem, run

_SLICE_NS = 3_000_000
_CALLS = 8
_UNIT_NS = 100_000
_NOTHING = Costs(0, 0, 0, 0, 0)
_RESAMPLES, _ROUNDS = 100, 5


def collectives(measurement: Measurement) -> tuple[list[Estimate], CollectiveCosts]:
    """Estimates by key, and the costs as a cluster file has them. Raises TooLittle where no backend was measured."""
    cpu = [each for each in measurement.of("collective_cpu", crowded=True) if _backend(each)]
    if not cpu:
        raise TooLittle("collectives: no torch backend was measured (--backend)")
    backend = _backend(cpu[0])
    spent = fit([Point(_cpu_terms(each), each.samples_ns) for each in cpu], "CPU times of collectives")
    fixed, hop, byte = (float(value) for value in spent.values)
    costs = Costs(fixed, hop, byte, 0.0, 0.0)
    walls = list(measurement.of("collective", crowded=True))
    late = _latencies(walls, costs, measurement.cores)
    holds = f"{backend}, {sizes_of(walls)}, {ranks_of(walls)}"
    estimates = []
    for found, index, key, name, unit in (
        (spent, 0, "fixed", "CPU time, once a collective", 1.0), (spent, 1, "hop", "CPU time of a stage", 1.0),
        (spent, 2, "byte", "CPU time of a KiB", 1.024), (late, 0, "start", "latency, once a collective", 1.0),
        (late, 1, "wait", "latency of a stage", 1.0),
    ):  # fmt: skip
        low, high = found.interval(index)
        value = float(found.values[index])
        estimates.append(Estimate(
            f"collectives.{key}", name, value * unit, low * unit, high * unit, "ns", holds, found.error_median,
            found.error_worst,
        ))  # fmt: skip
    return estimates, _costs(measurement, backend, walls, costs, (float(late.values[0]), float(late.values[1])))


def _latencies(walls: Sequence[Series], costs: Costs, cores: int) -> Fitted:
    """Start and wait, ns: what calls take beyond the CPU times on these cores, by least squares relative to each wall.

    What takes less than the model says gives no negative latency.
    """
    from scipy.optimize import nnls

    samples = [np.array(each.samples_ns) for each in walls]
    medians = np.array([np.median(each) for each in samples])
    found = np.zeros(2)
    for _ in range(_ROUNDS):  # ranks that wait leave their core to others, so latencies are not simply added
        base, slopes = _linear(walls, costs, found, cores)

        def solved(seen: Float, base: Float = base, slopes: Float = slopes, near: Float = found) -> Float:
            beyond = seen - base + slopes @ near
            return np.asarray(nnls(slopes / seen[:, None], beyond / seen)[0], dtype=np.float64)

        found = solved(medians)
    rng = np.random.default_rng(0)
    draws = np.array([
        solved(np.array([np.median(rng.choice(each, each.size)) for each in samples])) for _ in range(_RESAMPLES)
    ])  # fmt: skip
    last, _ = _linear(walls, costs, found, cores)
    return Fitted(found, draws, np.abs(last / medians - 1))


def _linear(walls: Sequence[Series], costs: Costs, at: Float, cores: int) -> tuple[Float, Float]:
    """The model's walls at the latencies ``at`` (start, wait), and their slopes, shape [series, 2]."""

    def predicted(start_ns: float, wait_ns: float) -> Float:
        tried = costs._replace(start_ns=start_ns, wait_ns=wait_ns)
        return np.array([alone_ns(each, tried, cores) for each in walls])

    start, wait = (float(value) for value in at)
    base = predicted(start, wait)
    moved = predicted(start + _UNIT_NS, wait), predicted(start, wait + _UNIT_NS)
    return base, np.stack([(each - base) / _UNIT_NS for each in moved], axis=1)


def _costs(
    measurement: Measurement, backend: str, walls: Sequence[Series], costs: Costs, latencies: tuple[float, float]
) -> CollectiveCosts:
    return CollectiveCosts(
        backend, str(measurement.host.get("name") or ""), max(measurement.cores, 1),
        tuple(sorted({each.ranks for each in walls})), min(each.nbytes for each in walls),
        max(each.nbytes for each in walls), str(measurement.taken.get("date") or ""),
        costs._replace(start_ns=latencies[0], wait_ns=latencies[1]),
    )  # fmt: skip


def alone_ns(each: Series, costs: Costs, cores: int) -> float:
    """How long one call takes when all ranks call again and again on ``cores``, by the model."""
    segments = (Segment(SegmentKind.SUBMIT, 0), Segment(SegmentKind.WAIT, 0))
    program = Program(segments, np.zeros((each.ranks, _CALLS, 2), dtype=np.int64))
    backend, operation = _backend(each), _operation(each)
    one = collective(backend, operation, each.nbytes, each.ranks, costs)
    hosts = (Host(cores or 2 * each.ranks, each.ranks),)
    ends = run(SharedProblem(hosts, program, (one,), WORKERS[backend], _SLICE_NS)).end_ns
    return float(np.median(np.diff(ends, axis=1)))


def _cpu_terms(each: Series) -> tuple[float, ...]:
    """What multiplies each cost in the CPU time of a rank."""
    unit = 1e6
    return tuple(
        cpu_ns(
            collective(
                _backend(each), _operation(each), each.nbytes, each.ranks, _NOTHING._replace(**{name: unit})
            ),
            each.ranks,
        ) / unit
        for name in ("fixed_ns", "hop_ns", "byte_ps")
    )  # fmt: skip


def _backend(each: Series) -> str:
    backend = each.path.partition("/")[0]
    return backend if known(backend) else ""


def _operation(each: Series) -> int:
    return int(Op[each.path.partition("/")[2]])
