"""What the vector engine does for each control plane (:data:`coordsim.protocol.planes.PLANES`)."""

from __future__ import annotations

from typing import NamedTuple

from coordsim.protocol.planes import CACHED, COORDINATOR, DDP, HIERARCHICAL, IDEAL, POINT_TO_POINT, PlaneName
from coordsim.simulate.problem import Problem
from coordsim.simulate.vector.cached import Cached
from coordsim.simulate.vector.coordinator import Coordinator, PointToPoint
from coordsim.simulate.vector.hierarchical import Hierarchical, Unmerged
from coordsim.simulate.vector.plane import Plane
from coordsim.simulate.vector.shuffled import ShuffledCached, ShuffledCoordinator, ShuffledPointToPoint
from coordsim.simulate.vector.unnegotiated import BucketRun, IdealRun, UnnegotiatedRun


class Counterpart(NamedTuple):
    """The classes for one control plane that negotiates."""

    plane: type[Plane]
    shuffled: type[Plane] | None = None
    """Where every rank has a ready order of its own; None: refused (:mod:`coordsim.simulate.vector.refusals`)."""
    unmerged: type[Plane] | None = None
    """Where inner nodes of a tree pass on every list as it came."""


COUNTERPARTS: dict[PlaneName, Counterpart] = {
    POINT_TO_POINT.name: Counterpart(PointToPoint, ShuffledPointToPoint),
    COORDINATOR.name: Counterpart(Coordinator, ShuffledCoordinator),
    HIERARCHICAL.name: Counterpart(Hierarchical, unmerged=Unmerged),
    CACHED.name: Counterpart(Cached, ShuffledCached),
}
"""Where ranks negotiate."""
RUNS: dict[PlaneName, type[UnnegotiatedRun]] = {IDEAL.name: IdealRun, DDP.name: BucketRun}
"""Where nobody negotiates: the whole run."""


def plane_of(problem: Problem) -> type[Plane]:
    """The class that plays the problem's control plane, with the problem's orders and settings."""
    counterpart = COUNTERPARTS[problem.plane.name]
    if problem.shuffled:
        assert counterpart.shuffled is not None, "orders by rank were to be refused"
        return counterpart.shuffled
    if counterpart.unmerged is not None and not problem.settings.merge:
        return counterpart.unmerged
    return counterpart.plane
