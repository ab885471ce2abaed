"""What may be otherwise than the central prediction takes it: parameters with ranges, and forms of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import sqrt

from coordsim.analyse.jitter import Interval
from coordsim.analyse.predict.measured import MeasuredWorkload
from coordsim.analyse.predict.place import percent
from coordsim.scenario.model import Distribution, KeyRange, Scenario

"""Control planes that ask a coordinator in every step."""
RING_UP_TO = 1024
"""Nobody would send a bit vector round a longer ring."""
_THIRD = 0.545
"""Share of the way to an end from which a range of three values is at that end: its 5th, 50th and 95th percentile then
weigh 0.185, 0.63 and 0.185, which keeps a normal's variance (Keefer and Bodily, Management Science 29, 1983)."""


@dataclass(frozen=True)
class Change:
    """What is otherwise: overrides as for ``--set``, and a factor on forward and backward."""

    overrides: tuple[str, ...] = ()
    compute: float = 1.0

    def __add__(self, other: Change) -> Change:
        return Change(self.overrides + other.overrides, self.compute * other.compute)

    def of(self, scenario: Scenario) -> Scenario:
        """``scenario``, which was loaded with the overrides, with the factor."""
        if self.compute == 1.0:
            return scenario

        def scaled(duration_ns: int) -> int:
            return max(round(duration_ns * self.compute), 1)

        tensors = tuple(
            replace(each, submit_ns=scaled(each.submit_ns), ready_ns=scaled(each.ready_ns))
            for each in scenario.workload.tensors
        )
        forward_ns = scaled(scenario.workload.forward_ns)
        return replace(scenario, workload=replace(scenario.workload, tensors=tensors, forward_ns=forward_ns))


@dataclass(frozen=True)
class Parameter:
    """One number of the scenario, and how far it may be off."""

    name: str
    at: Callable[[float], Change]
    """From -1, the low end (5th percentile), to 1, the high end (95th); 0 is where it is."""
    says: str
    """The range in words."""
    source: str


@dataclass(frozen=True)
class Form:
    """Another way in which the same thing may happen."""

    name: str
    change: Change
    why: str


def parameters(found: MeasuredWorkload, scenario: Scenario) -> Iterator[Parameter]:
    """Measured ones with their intervals, then the cluster's."""
    yield from measured(found)
    asks = scenario.control_plane.kind.asks_every_cycle
    if scenario.cluster.ranges:
        for each in scenario.cluster.ranges:
            if _counts(each, asks):
                yield Parameter(each.label, _ends(each), f"{each.low} to {each.high}", each.source)
        return
    assumed = "ASSUMED: nothing is known of this cluster's range"
    host, control, data = scenario.cluster.host, scenario.cluster.control, scenario.cluster.data
    if asks:
        yield _factor("request cost", "cluster.host.per_request", host.per_request_ns, "ns", 3.0, assumed)
        yield _factor("per-message cost (host)", "cluster.host.per_message", host.per_message_ns, "ns", 10.0, assumed)
    yield _factor("per-message cost (network)", "cluster.control.overhead", control.overhead_ns, "ns", 2.0, assumed)
    yield _factor("control latency", "cluster.control.latency", control.latency_ns, "ns", 2.0, assumed)
    yield _factor("bus bandwidth", "cluster.data.bus_bandwidth", data.bus_bandwidth_Bps, "B/s", 1.3, assumed)


def measured(found: MeasuredWorkload) -> Iterator[Parameter]:
    """How long compute takes, and how it varies; nothing for what the record leaves no doubt about."""
    source = f"90 % interval from {found.ranks} ranks, {found.steps} steps"
    varies, level = found.jitter, found.jitter.level
    if level.low < level.high:
        share = Interval(1.0, level.low / level.value, level.high / level.value)
        yield Parameter("compute times", lambda at: Change(compute=_between(share, at)), _words(share, True), source)
    for name, axis, goes_on in (
        ("rank jitter", "rank", None), ("step jitter", "step", varies.step_correlation),
        ("jitter of all ranks", "common", varies.common_correlation),
    ):  # fmt: skip
        sigma = getattr(varies, axis)
        if sigma.low < sigma.high:
            yield _ranged(name, f"noise.{axis}.sigma", sigma, percent, source)
        if goes_on is not None and goes_on.low < goes_on.high:
            yield _ranged(f"autocorrelation of {name}", f"noise.{axis}.correlation", goes_on, "{:.4f}".format, source)


def forms(found: MeasuredWorkload, scenario: Scenario) -> Iterator[Form]:
    """What the data of a few ranks cannot decide."""
    control, plane = scenario.cluster.control, scenario.control_plane
    for gather in ("linear", "binomial", "node-leaders"):
        if plane.kind.asks_every_cycle and gather != control.gather:
            why = "which one an MPI chooses is not known"
            yield Form(f"gather {gather}", Change((f"cluster.control.gather={gather}",)), why)
    if plane.kind.cache:
        other = "ring" if control.and_reduce != "ring" else "recursive-doubling"
        if other != "ring" or scenario.ranks <= RING_UP_TO:
            why = "the AND's algorithm is a library's choice"
            yield Form(f"AND by {other}", Change((f"cluster.control.and_reduce={other}",)), why)
    for axis in ("rank", "step"):
        spread = getattr(scenario.noise, axis)
        if spread.sigma_ppm and spread.distribution == "normal":
            why = f"{found.ranks} ranks do not show the tail of many more"
            yield from _tails(axis, spread.sigma_ppm / 1e6, found.jitter.level.value, why)


def _tails(axis: str, sigma: float, mean_of_record: float, why: str) -> Iterator[Form]:
    """Spreads with the mean and the standard deviation of ``1 + sigma z``, z normal: ``floor (1 + scale z)`` with a
    standard exponential (mean 1, deviation 1) or uniform (mean 1/2, deviation 1/sqrt(12)) z, which only slow down.
    ``mean_of_record``: over its median, which is a normal law's mean but not another's."""
    laws: tuple[tuple[str, Distribution, float, float], ...] = (
        ("with an exponential tail", "exponential", 1.0, 1.0),
        ("without a tail (uniform)", "uniform", 0.5, 1 / sqrt(12)),
    )  # fmt: skip
    for name, distribution, mean, deviation in laws:
        floor = 1 - sigma * mean / deviation
        scale = sigma / deviation / floor if floor > 0 else 2.0
        if scale <= 1:  # a scenario's bound
            overrides = f"noise.{axis}.distribution={distribution}", f"noise.{axis}.sigma={percent(scale)}"
            same = f"{why}; mean and deviation are the same"
            yield Form(f"{axis} jitter {name}", Change(overrides, floor * mean_of_record), same)


def _between(found: Interval, at: float) -> float:
    end = found.high if at > 0 else found.low
    return found.value + abs(at) * (end - found.value)


def _ranged(name: str, key: str, found: Interval, show: Callable[[float], str], source: str) -> Parameter:
    says = _words(found, show is percent)
    return Parameter(name, lambda at: Change((f"{key}={show(_between(found, at))}",)), says, source)


def _words(each: Interval, shares: bool) -> str:
    return f"{100 * each.low:.3g} to {100 * each.high:.3g} %" if shares else f"{each.low:.2f} to {each.high:.2f}"


_SLOW_CYCLES_ONLY = ("cluster.host.per_request", "cluster.host.per_message")
"""Keys that matter only where a coordinator is asked."""
_FORMS = ("cluster.control.gather", "cluster.control.and_reduce")
"""Keys that choose an algorithm: :func:`forms` has them."""


def _counts(each: KeyRange, asks: bool) -> bool:
    """Whether the range is one of the prediction's parameters; jitter is the record's own."""
    return not each.key.startswith("noise.") and each.key not in _FORMS and (asks or each.key not in _SLOW_CYCLES_ONLY)


def _ends(each: KeyRange) -> Callable[[float], Change]:
    return lambda at: Change(() if abs(at) < _THIRD else (f"{each.key}={each.high if at > 0 else each.low}",))


def _factor(name: str, key: str, value: int, unit: str, factor: float, source: str) -> Parameter:
    def at(share: float) -> Change:
        return Change((f"{key}={max(round(value * factor**share), 1)}{unit}",))

    return Parameter(name, at, f"a factor of {factor:g} either way", source)
