"""A rank's cycle, for every control plane that negotiates (:mod:`coordsim.protocol.planes` says which are which).

A negotiator is driven: ``schedule = yield from negotiator.cycle(requests)`` yields the *exchanges* it needs
and is sent their results. It knows no clock and no network, so simulator and real backend run this very code.

Invariants (docs/horovod.md 12), checked by :mod:`coordsim.protocol.invariants` in debug mode:
I1 caches are equal on all ranks at every cycle boundary; I2 schedules are equal; I3 at most one outstanding
submission per name; I4 nobody executes a name before everybody submitted it; I5 every submission ends.
"""

from __future__ import annotations

from typing import TypeAlias

from coordsim.protocol.negotiator.cached import CachedNegotiator
from coordsim.protocol.negotiator.coordinator import CoordinatorNegotiator
from coordsim.protocol.negotiator.decisions import Schedule, Settings, agree, remember
from coordsim.protocol.negotiator.exchanges import (
    COORDINATOR,
    AndReduce,
    BroadcastDownTree,
    BroadcastList,
    CollectFromChildren,
    Cycle,
    Exchange,
    GatherLists,
    OrReduce,
    SendToParent,
)
from coordsim.protocol.negotiator.hierarchical import HierarchicalNegotiator, tree_children, tree_parent

Negotiator: TypeAlias = CoordinatorNegotiator | HierarchicalNegotiator | CachedNegotiator

__all__ = [
    "COORDINATOR", "AndReduce", "BroadcastDownTree", "BroadcastList", "CachedNegotiator",
    "CollectFromChildren", "CoordinatorNegotiator", "Cycle", "Exchange", "GatherLists",
    "HierarchicalNegotiator", "Negotiator", "OrReduce", "Schedule", "SendToParent", "Settings",
    "agree", "remember", "tree_children", "tree_parent",
]  # fmt: skip
