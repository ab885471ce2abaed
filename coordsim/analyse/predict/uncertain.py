"""What may be otherwise than the central prediction takes it: parameters with ranges, and forms of the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from coordsim.analyse.predict.measured import Interval, MeasuredWorkload
from coordsim.analyse.validate.published.ranges import SUMMIT
from coordsim.scenario.model import Scenario

ASKING = ("point-to-point", "coordinator", "hierarchical")
"""Control planes that ask a coordinator in every step."""


@dataclass(frozen=True)
class Parameter:
    """One number of the scenario, and how far it may be off."""

    name: str
    low: tuple[str, ...]
    """Overrides, as for ``--set``."""
    high: tuple[str, ...]
    says: str
    """The range in words."""
    source: str


@dataclass(frozen=True)
class Form:
    """Another way in which the same thing may happen."""

    name: str
    overrides: tuple[str, ...]
    why: str


def parameters(found: MeasuredWorkload, scenario: Scenario) -> Iterator[Parameter]:
    """Measured ones with their resampled intervals, then the cluster's."""
    measured = f"resampled from {found.ranks} ranks, {found.steps} steps"
    yield _sigma("rank jitter", "noise.rank.sigma", found.rank_sigma, measured)
    yield _sigma("step jitter", "noise.step.sigma", found.step_sigma, measured)
    asks = scenario.control_plane.name in ASKING
    if scenario.cluster.name == "summit":
        for each in SUMMIT:
            counts = asks or each.name not in ("request_cost", "list_cost")
            if each.name not in ("jitter", "gather") and counts:
                says = f"{each.values[0]} to {each.values[2]}"
                yield Parameter(each.label, each.at(0), each.at(2), says, each.source)
        return
    assumed = "ASSUMED: nothing is known of this cluster's range"
    host, control, data = scenario.cluster.host, scenario.cluster.control, scenario.cluster.data
    if asks:
        yield _factor("request cost", "cluster.host.per_request", host.per_request_ns, "ns", 3.0, assumed)
        yield _factor("per-message cost (host)", "cluster.host.per_message", host.per_message_ns, "ns", 10.0, assumed)
    yield _factor("per-message cost (network)", "cluster.control.overhead", control.overhead_ns, "ns", 2.0, assumed)
    yield _factor("control latency", "cluster.control.latency", control.latency_ns, "ns", 2.0, assumed)
    yield _factor("bus bandwidth", "cluster.data.bus_bandwidth", data.bus_bandwidth_Bps, "B/s", 1.3, assumed)


def forms(found: MeasuredWorkload, scenario: Scenario) -> Iterator[Form]:
    """What the data of a few ranks cannot decide."""
    control, plane = scenario.cluster.control, scenario.control_plane
    for gather in ("linear", "binomial", "node-leaders"):
        if plane.name in ASKING and gather != control.gather:
            why = "which one an MPI chooses is not known"
            yield Form(f"gather {gather}", (f"cluster.control.gather={gather}",), why)
    if plane.name == "cached":
        other = "ring" if control.and_reduce != "ring" else "recursive-doubling"
        if other != "ring" or scenario.ranks <= RING_UP_TO:
            why = "the AND's algorithm is a library's choice"
            yield Form(f"AND by {other}", (f"cluster.control.and_reduce={other}",), why)
    for kind, name in (("rank", "rank jitter"), ("step", "step jitter")):
        sigma = getattr(found, f"{kind}_sigma").value
        if sigma > 0:
            yield Form(
                f"{name} with an exponential tail",
                (f"noise.{kind}.distribution=exponential", f"noise.{kind}.sigma={_percent(sigma)}"),
                f"{found.ranks} ranks do not show the tail of {scenario.ranks:,} (its mean comes on top, too)",
            )  # fmt: skip


RING_UP_TO = 1024
"""Nobody would send a bit vector round a longer ring."""


def _sigma(name: str, key: str, found: Interval, source: str) -> Parameter:
    low, high = _percent(found.low), _percent(found.high)
    return Parameter(name, (f"{key}={low}",), (f"{key}={high}",), f"{low} to {high}", source)


def _factor(name: str, key: str, value: int, unit: str, factor: float, source: str) -> Parameter:
    low, high = f"{max(round(value / factor), 1)}{unit}", f"{round(value * factor)}{unit}"
    return Parameter(name, (f"{key}={low}",), (f"{key}={high}",), f"a factor of {factor:g} either way", source)


def _percent(share: float) -> str:
    return f"{100 * share:.4f}%"
