"""All fits of one measurement, and what could not be fitted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from coordsim.analyse.calibrate import collectives, costs, detours, network, noise
from coordsim.analyse.calibrate.result import Calibration, Choice, Estimate, TooLittle
from coordsim.analyse.predict.collectives import CollectiveCosts
from coordsim.errors import InputError
from coordsim.record.measurement import Measurement
from coordsim.scenario.model import Cluster

BUSY = 0.5
"""Load average before a measurement from which it is worth a word."""


def calibrate(
    measurement: Measurement, base: Cluster, progress: Callable[[str, int, int], None] = lambda *_: None
) -> Calibration:
    """Everything that ``measurement`` tells; ``base`` stands where it tells nothing.

    Raises InputError when it tells nothing at all.
    """
    fits = _Fits(measurement, base)
    for index, (title, part) in enumerate(fits.parts):
        progress(title, index, len(fits.parts))
        try:
            part()
        except TooLittle as reason:
            fits.not_fitted.append((title, str(reason).removeprefix(f"{title}: ")))
    if not any(each.key for each in fits.estimates):
        reasons = "; ".join(reason for _, reason in fits.not_fitted)
        raise InputError.one("measurement", "", None, f"nothing can be fitted: {reasons}")
    fits.notes += _crowded(measurement)
    found = fits.noise
    return Calibration(
        measurement.source, measurement.host, measurement.taken, base.name, tuple(fits.estimates),
        tuple(fits.choices), tuple(found.candidates) if found else (), found.critical_ks if found else None,
        tuple(fits.not_fitted), tuple(fits.notes), fits.collectives,
    )  # fmt: skip


def _crowded(measurement: Measurement) -> list[str]:
    """Jobs that no fit used, and how far off they are."""
    notes = []
    cores = measurement.cores
    for ranks in sorted({each.ranks for each in measurement.of("and", crowded=True)}):
        if measurement.oversubscribed(ranks):
            smallest = min(
                (each for each in measurement.of("and", crowded=True) if each.ranks == ranks),
                key=lambda each: each.nbytes,
            )
            took = float(np.median(smallest.samples_ns)) / 1e3
            notes.append(f"{ranks} ranks on {cores} cores are in no fit; their AND of one word took {took:.1f} us")
    if float(measurement.host.get("load_before") or 0) > BUSY:
        notes.append(f"the machine was busy (load {measurement.host['load_before']}) when it was measured")
    return notes


class _Fits:
    def __init__(self, measurement: Measurement, base: Cluster) -> None:
        self._measurement = measurement
        self._base = base
        self.estimates: list[Estimate] = []
        self.choices: list[Choice] = []
        self.not_fitted: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self.noise: noise.NoiseFound | None = None
        self.collectives: CollectiveCosts | None = None
        self.parts: tuple[tuple[str, Callable[[], None]], ...] = (
            ("control network", self._network),
            ("allreduce", self._allreduce),
            ("coordinator", lambda: self._add(costs.coordinator(measurement))),
            ("cached tensors", lambda: self._add(costs.hits(measurement))),
            ("copies", lambda: self._add(costs.copies(measurement))),
            ("noise of compute", self._compute_noise),
            ("detours", lambda: self._add(detours.detours(measurement))),
            ("sleep", lambda: self._add(detours.sleeping(measurement))),
        )
        if any(measurement.of("collective", crowded=True)):
            self.parts += (("collectives", self._collectives),)

    def _add(self, found: list[Estimate]) -> None:
        self.estimates += found

    def _network(self) -> None:
        if not any(self._measurement.of("ping", crowded=True)):
            self._add(network.lists(self._measurement))
            self._add(network.latency_of_exchanges(self._measurement, self._base))
            return
        estimates, found = network.link(self._measurement)
        more, choices = network.exchanges(self._measurement, found)
        self._add(estimates + more)
        self.choices += choices

    def _collectives(self) -> None:
        estimates, self.collectives = collectives.collectives(self._measurement)
        self._add(estimates)

    def _allreduce(self) -> None:
        estimates, choices = costs.allreduce(self._measurement, self._base.data)
        self._add(estimates)
        self.choices += choices

    def _compute_noise(self) -> None:
        self.noise = noise.compute_noise(self._measurement)
        self._add(self.noise.estimates)
        self.notes += self.noise.notes
        self.not_fitted += self.noise.not_fitted
        self.choices.append(Choice("noise.step.distribution", self.noise.distribution, "least KS distance"))


def facts(calibration: Calibration, files: dict[str, str] | None = None) -> dict[str, Any]:
    """The one JSON object of ``coordsim calibrate --json``; ``files``: what was written where."""
    return {**calibration.as_json(), "files": files or {}}
