"""The control network: LogGP of one link, and which algorithms of the model the exchanges are like.

By the model (docs/semantics.md 4.1) a message takes L + 2 o + s G, and of n messages sent back to back, with one that
comes back, the last is there after 2 L + (n + 3) o: round trips over sizes give L + 2 o and G, and over n give o
(Hoefler, Lichei, Rehm: Low-overhead LogGP parameter assessment, IPDPS 2007).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from coordsim.analyse.calibrate.regression import Fitted, Float, Point, fit, interval
from coordsim.analyse.calibrate.result import Choice, Estimate, TooLittle
from coordsim.analyse.calibrate.words import ranks_of, sizes_of
from coordsim.analyse.medians import median_interval
from coordsim.record.measurement import Measurement, Series
from coordsim.scenario.model import Cluster

_TOLD = 1e-6
"""ns a byte below which sizes did not matter."""


def link(measurement: Measurement) -> tuple[list[Estimate], Fitted]:
    """LogGP from round trips; the fit's parameters are L, o and G in ns. Raises TooLittle."""
    pings = list(measurement.of("ping"))
    if not pings:
        raise TooLittle("latency: no round trips of ranks that had a core each")
    points = [Point((2, each.count + 3, 2 * each.nbytes), each.samples_ns) for each in pings]
    found = fit(points, "latency, overhead and bandwidth")
    latency, overhead, gap = (float(value) for value in found.values)
    holds = f"{sizes_of(pings)}, {ranks_of(pings)}"
    errors = (found.error_median, found.error_worst)
    one_way = found.draws[:, 0] + 2 * found.draws[:, 1]
    low, high = interval(one_way)
    both = Estimate(
        "", "one message, latency + 2 overheads", latency + 2 * overhead, low, high, "ns", holds, *errors,
    )  # fmt: skip
    ridge = ""
    if latency == 0:
        ridge = "no latency beyond what both CPUs take"
    elif _ridge(found):
        ridge = (
            f"a ridge: only latency + 2 x overhead is known well, {both.value / 1e3:.1f} us "
            f"({low / 1e3:.1f}-{high / 1e3:.1f})"
        )
    estimates = [
        both,
        Estimate("control.local_latency", "latency L", latency, *found.interval(0), "ns", holds, *errors, ridge),
        Estimate("control.overhead", "overhead o", overhead, *found.interval(1), "ns", holds, *errors, ridge),
    ]
    if gap > _TOLD:
        low, high = found.interval(2)
        rate = 1e9 / gap, 1e9 / max(high, _TOLD), 1e9 / max(low, _TOLD)
        for key, name in (("control.local_bandwidth", "bandwidth 1/G"), ("control.root_nic", "rank 0 takes in")):
            estimates.append(Estimate(key, name, *rate, "B/s", holds, *errors))
    return estimates, found


def _ridge(found: Fitted) -> bool:
    """Whether latency and overhead can be traded for each other over half of a value."""
    widths = [(found.interval(index)[1] - found.interval(index)[0]) / max(found.values[index], 1) for index in (0, 1)]
    return bool(max(widths) > 1.0)


def exchanges(measurement: Measurement, found: Fitted) -> tuple[list[Estimate], list[Choice]]:
    """Which AND of the model is like the measured one, and what lists up and down take; nothing is fitted to it."""
    estimates, choices = [], []
    ands = list(measurement.of("and"))
    if ands:
        errors = {name: np.abs(_and_errors(ands, found, hops)) for name, hops in _HOPS.items()}
        best = min(errors, key=lambda name: float(np.median(errors[name])))
        told = ", ".join(f"{name} is off by {np.median(each):.0%} (median)" for name, each in errors.items())
        why = f"predicted from latency, overhead and bandwidth alone, {sizes_of(ands)}, {ranks_of(ands)}: {told}"
        choices.append(Choice("control.and_reduce", best, why))
        small = min(ands, key=lambda each: (each.nbytes, each.ranks))
        draws = np.array(small.samples_ns)
        estimates.append(Estimate(
            "", "AND of one word", float(np.median(draws)), *median_interval(draws)[1:], "ns",
            f"{sizes_of([small])}, {ranks_of([small])}", float(np.median(errors[best])), float(errors[best].max()),
            f"error: of the prediction by {best}",
        ))  # fmt: skip
    return estimates + lists(measurement), choices


def lists(measurement: Measurement) -> list[Estimate]:
    """What lists up and down take, by their bytes; none where the sizes do not tell."""
    rounds = list(measurement.of("round"))
    try:
        line = fit([Point((1, each.nbytes), each.samples_ns) for each in rounds], "lists")
    except TooLittle:
        return []
    note = f"and {line.values[1]:.3g} ns a byte"
    if measurement.source == "MEASURED":
        note += ", most of it Python that encodes and decodes"
    return [Estimate(
        "", "lists up and down, empty", float(line.values[0]), *line.interval(0), "ns",
        f"{sizes_of(rounds)}, {ranks_of(rounds)}", line.error_median, line.error_worst, note,
    )]  # fmt: skip


def _doubling_hops(ranks: int) -> int:
    core = 1 << (ranks.bit_length() - 1)
    return core.bit_length() - 1 + (2 if core < ranks else 0)


_HOPS: dict[str, Callable[[int], int]] = {
    "recursive-doubling": _doubling_hops,
    "ring": lambda ranks: 2 * (ranks - 1),
}
"""Messages one after the other, where all ranks begin together."""


def _and_errors(ands: Sequence[Series], found: Fitted, hops: Callable[[int], int]) -> Float:
    latency, overhead, gap = found.values
    return np.array([
        hops(each.ranks) * (latency + 2 * overhead + gap * each.nbytes) / np.median(each.samples_ns) - 1
        for each in ands
    ])  # fmt: skip


def latency_of_exchanges(measurement: Measurement, base: Cluster) -> list[Estimate]:
    """Of recorded runs: the latency with which the base's AND takes what the fast cycles took. Raises TooLittle.

    The overhead stays the base's: a run does not tell the two apart.
    """
    series = list(measurement.of("exchange", crowded=True))
    hops = _HOPS.get(base.control.and_reduce)
    if not series:
        raise TooLittle("latency: no fast cycle whose bit vector travelled alone")
    if hops is None:
        raise TooLittle(f"latency: the base's AND is {base.control.and_reduce}, which has no messages")
    found = fit([Point((hops(each.ranks),), each.samples_ns) for each in series], "latency")
    nodes = {name for each in series for name in each.node.split(",")}
    within = all(each.ranks <= base.machine.ranks_per_node for each in series)
    local = within if "" in nodes else len(nodes) == 1
    overheads = 2 * base.control.overhead_ns
    value = float(found.values[0])
    latency, low, high = (max(each - overheads, 0.0) for each in (value, *found.interval(0)))
    return [Estimate(
        "control.local_latency" if local else "control.latency", "latency L", latency, low, high, "ns",
        f"the vector of the run, {ranks_of(series)}", found.error_median, found.error_worst,
        f"a message takes {value / 1e3:.1f} us as {base.control.and_reduce}; less 2 overheads of {base.name}",
    )]  # fmt: skip
