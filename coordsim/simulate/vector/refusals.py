"""What a scenario may say that the vector engine cannot simulate exactly: one list, each with its reason.

``--engine vector`` refuses such a scenario with the sentence; ``auto`` takes the event engine and says so.
This module stays light: choosing an engine must not import the kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from coordsim.scenario.model import Scenario


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something only the event engine does."""

    key: str
    """The scenario key that asks for it."""
    value: Any
    because: str
    """One sentence without a full stop: "the vector engine has ...; the event engine can"."""


_Check = Callable[[Scenario], Refusal | None]


def _backward_slowdown(scenario: Scenario) -> Refusal | None:
    ppm = scenario.cluster.data.backward_slowdown_ppm
    if not ppm or scenario.ranks == 1:
        return None
    because = "the vector engine draws a step's readiness before it runs, and here collectives delay it"
    return Refusal("cluster.data.backward_slowdown", f"{ppm / 10_000:g}%", f"{because}; the event engine can")


def _order(scenario: Scenario) -> Refusal | None:
    plane = scenario.control_plane
    if scenario.workload.order == "same" or scenario.ranks == 1:
        return None
    because = ""
    if plane.kind.tree:
        because = "the vector engine has no tree of ranks that differ in order"
    elif plane.kind.cache and plane.cache_capacity < len(scenario.workload.tensors):
        because = "the vector engine has orders by rank only with a cache that holds every tensor"
    return Refusal("workload.order", scenario.workload.order, f"{because}; the event engine can") if because else None


CHECKS: tuple[_Check, ...] = (_backward_slowdown, _order)
"""Every reason for which the vector engine refuses. One rank negotiates nothing; checks on exchanges say so."""


def vector_refusals(scenario: Scenario) -> tuple[Refusal, ...]:
    """Why the vector engine cannot simulate ``scenario``; empty when it can."""
    return tuple(found for check in CHECKS if (found := check(scenario)) is not None)
