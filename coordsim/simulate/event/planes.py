"""What the event engine does for each control plane (:data:`coordsim.protocol.planes.PLANES`)."""

from __future__ import annotations

from coordsim.protocol.planes import CACHED, COORDINATOR, DDP, HIERARCHICAL, IDEAL, POINT_TO_POINT, PlaneName
from coordsim.simulate.event.exchanges import Exchanges, StarExchanges
from coordsim.simulate.event.unnegotiated import BucketRun, IdealRun, UnnegotiatedRun

EXCHANGES: dict[PlaneName, type[Exchanges]] = {
    POINT_TO_POINT.name: StarExchanges,
    COORDINATOR.name: Exchanges,
    HIERARCHICAL.name: Exchanges,
    CACHED.name: Exchanges,
}
"""Where ranks negotiate: how their messages travel."""
RUNS: dict[PlaneName, type[UnnegotiatedRun]] = {IDEAL.name: IdealRun, DDP.name: BucketRun}
"""Where nobody negotiates: the whole run."""
