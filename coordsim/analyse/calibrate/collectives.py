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
_RESAMPLES = 100


def collectives(measurement: Measurement) -> tuple[list[Estimate], CollectiveCosts]:
    """Estimates by key, and the costs as a cluster file has them. Raises TooLittle where no backend was measured."""
    cpu = [each for each in measurement.of("collective_cpu", crowded=True) if _backend(each)]
    if not cpu:
        raise TooLittle("collectives: no torch backend was measured (--backend)")
    backend = _backend(cpu[0])
    spent = fit([Point(_cpu_terms(each), each.samples_ns) for each in cpu], "CPU times of collectives")
    fixed, hop, byte = (float(value) for value in spent.values)
    costs = Costs(fixed, hop, byte, 0.0, 0.0)
    walls = [series for series in measurement.of("collective", crowded=True) if _backend(series) == backend]
    cpu = [series for series in cpu if _backend(series) == backend]
    if not walls:
        raise TooLittle(f"collectives: no collective over {backend} was timed")
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
    """Start and wait, ns: what makes the model's walls on these cores the measured ones, in the mean of their ratios.

    What takes less than the model says gives no negative latency.
    """
    from scipy.optimize import minimize, nnls

    samples = [np.array(each.samples_ns) for each in walls]
    medians = np.array([np.median(each) for each in samples])

    def off(point: Float) -> float:
        start, wait = np.abs(point) * _UNIT_NS
        return float(np.abs(np.log(_walls(walls, costs, start, wait, cores) / medians)).mean())

    tried = [minimize(off, origin, method="Nelder-Mead", options={"maxfev": 60}) for origin in ((0.3, 0.3), (5.0, 1.0))]
    found = np.abs(min(tried, key=lambda each: float(each.fun)).x) * _UNIT_NS
    base, slopes = _linear(walls, costs, found, cores)
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(_RESAMPLES):  # around that point the model is taken for linear
        moved = np.array([np.median(rng.choice(each, each.size)) for each in samples]) - medians
        draws.append(nnls(slopes / medians[:, None], (moved + slopes @ found) / medians)[0])
    return Fitted(found, np.array(draws), np.abs(base / medians - 1))


def _walls(walls: Sequence[Series], costs: Costs, start_ns: float, wait_ns: float, cores: int) -> Float:
    """The model's walls, ns."""
    tried = costs._replace(start_ns=start_ns, wait_ns=wait_ns)
    return np.array([alone_ns(each, tried, cores) for each in walls])


def _linear(walls: Sequence[Series], costs: Costs, at: Float, cores: int) -> tuple[Float, Float]:
    """The model's walls at the latencies ``at`` (start, wait), and their slopes, shape [series, 2]."""

    start, wait = (float(value) for value in at)
    base = _walls(walls, costs, start, wait, cores)
    moved = (
        _walls(walls, costs, start + _UNIT_NS, wait, cores), _walls(walls, costs, start, wait + _UNIT_NS, cores)
    )
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


def _backend(series: Series) -> str:
    """Return the backend that a series is of, by its path BACKEND/OPERATION; empty where either is unknown."""
    backend, _, operation = series.path.partition("/")
    return backend if known(backend) and operation in Op.__members__ else ""


def _operation(series: Series) -> int:
    return int(Op[series.path.partition("/")[2]])
