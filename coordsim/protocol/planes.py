"""The control planes, one object each: everything in which they differ and that is no code of an engine.

Nobody else asks for a control plane's name. A scenario takes its defaults from here, costs and reports ask for
traits, and an engine looks up what it does for a plane in a table of its own (``simulate/event/planes.py``,
``simulate/vector/planes.py``). docs/architecture.md says what a new control plane needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from coordsim.protocol.buckets import Bucket, ddp_buckets
from coordsim.protocol.messages import Response
from coordsim.protocol.negotiator import (
    CachedNegotiator,
    CoordinatorNegotiator,
    HierarchicalNegotiator,
    Negotiator,
    Settings,
)

PlaneName = Literal["ideal", "ddp", "point-to-point", "coordinator", "hierarchical", "cached"]
NOT_YET = ("static", "parameter-server")
"""Names that are refused as not modelled yet, rather than as unknown."""
Waiting: TypeAlias = Literal["none", "host", "stream"]
"""Who waits for data that was submitted before it exists: nobody, the background thread, the stream."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlaneKind:
    """One control plane: who decides what is reduced when, and what that implies."""

    name: PlaneName
    behaviour: str
    """What it does, as a phrase."""
    stands_for: str
    """The software and version that it models."""
    source: str
    title: str
    """Its name in a sentence on screen."""
    defaults: dict[str, Any]
    """Scenario keys of ``[control_plane]`` on which the modelled version differs from the common defaults."""
    negotiator: Callable[[int, Settings], Negotiator] | None = None
    """Makes one rank's negotiator from its rank and the job's settings; None where nothing is negotiated."""
    buckets: Callable[[Sequence[Response], int, int], list[Bucket]] | None = None
    """Buckets that are settled before the first step (:mod:`coordsim.protocol.buckets`); groups are ignored then."""
    asks_every_cycle: bool = False
    """Whether requests go to the coordinator in every cycle, also when nobody has any."""
    cache: bool = False
    """Whether a bit stands for a tensor that was agreed on before, so that a cycle may do without the coordinator."""
    tree: bool = False
    """Whether lists go up a tree of ranks, so that rank 0 does not hear every rank itself."""
    free: bool = False
    """Whether deciding and launching cost nothing: the yardstick for the others."""
    waiting: Waiting | None = None
    """Who waits for data, whatever the scenario says; None: as the scenario says."""
    exchanges: Mapping[str, int]
    """Control collectives in a cycle, by what the cycle does: idle, fast, slow, invalidate (docs/horovod.md 11)."""
    assumptions: tuple[str, ...] = ()
    """What is simplified about it, a sentence each; printed with every result."""

    @property
    def negotiates(self) -> bool:
        """Whether ranks have a background loop that agrees on what to reduce."""
        return self.negotiator is not None

    @property
    def rank_0_hears_all(self) -> bool:
        """Whether rank 0 takes in every rank's list itself."""
        return self.negotiates and not self.tree

    def waiting_for(self, asked: Waiting) -> Waiting:
        """Who waits for data where the scenario says ``asked``; "none" says that there is nothing to wait for."""
        return asked if self.waiting is None or asked == "none" else self.waiting


_HOROVOD_0_13: dict[str, Any] = {"cycle_time": "5ms", "fusion_threshold": "64MiB"}
"""Horovod up to 0.20."""
_HOROVOD_0_21: dict[str, Any] = {"cycle_time": "1ms", "fusion_threshold": "128MiB"}
"""Horovod 0.21 and later."""

IDEAL = PlaneKind(
    name="ideal",
    behaviour="everybody knows at once",
    stands_for="free negotiation, the yardstick for every other",
    source="none: a bound",
    title="ideal",
    defaults=_HOROVOD_0_21,  # the cycle time is irrelevant: everybody knows at once
    free=True,
    waiting="none",  # it goes by existence alone (docs/semantics.md 6.5)
    exchanges={},
)
DDP = PlaneKind(
    name="ddp",
    behaviour="fixed buckets in order, no negotiation",
    stands_for="PyTorch DDP: buckets of 25 MiB, the first of 1 MiB",
    source="docs/published.md 7",
    title="DDP",
    defaults=_HOROVOD_0_21,  # both irrelevant: buckets decide
    buckets=ddp_buckets,
    waiting="stream",  # a bucket's collective is enqueued behind its gradients (docs/semantics.md 6.7)
    exchanges={},
    assumptions=("buckets follow ready order, as after DDP's first iteration; the cold step has them too",),
)
POINT_TO_POINT = PlaneKind(
    name="point-to-point",
    behaviour="every worker messages rank 0, which answers every worker",
    stands_for="Horovod up to 0.13.2",
    source="horovod PR #276 (docs/horovod.md 3)",
    title="point-to-point",
    defaults=_HOROVOD_0_13,
    negotiator=CoordinatorNegotiator,  # it decides as the coordinator does; only messages travel otherwise
    asks_every_cycle=True,
    exchanges={"idle": 2, "slow": 2},
)
COORDINATOR = PlaneKind(
    name="coordinator",
    behaviour="gather and broadcast through rank 0, every cycle",
    stands_for="Horovod 0.13.3 to 0.16.1",
    source="horovod/common/controller.cc and horovod PR #276 (docs/horovod.md 3)",
    title="coordinator",
    defaults=_HOROVOD_0_13,
    negotiator=CoordinatorNegotiator,
    asks_every_cycle=True,
    exchanges={"idle": 4, "slow": 4},
)
HIERARCHICAL = PlaneKind(
    name="hierarchical",
    behaviour="a tree of radix r that merges on the way up",
    stands_for="the fork of Horovod of Kurth et al., SC'18; radix 4",
    source="Kurth et al., SC'18 (docs/published.md V8)",
    title="hierarchical",
    defaults=_HOROVOD_0_13,
    negotiator=HierarchicalNegotiator,
    asks_every_cycle=True,
    tree=True,
    exchanges={"idle": 2, "slow": 2},
)
CACHED = PlaneKind(
    name="cached",
    behaviour="all ranks intersect a bit vector; the coordinator only for what is new",
    stands_for="Horovod 0.16.2 and later; defaults of 0.21",
    source="horovod/common/response_cache.cc and controller.cc, horovod PR #902 (docs/horovod.md 2)",
    title="cached",
    defaults={**_HOROVOD_0_21, "cache_capacity": 1024},
    negotiator=CachedNegotiator,
    cache=True,
    exchanges={"idle": 1, "fast": 1, "slow": 5, "invalidate": 6},
)

PLANES: dict[str, PlaneKind] = {
    kind.name: kind for kind in (IDEAL, DDP, POINT_TO_POINT, COORDINATOR, HIERARCHICAL, CACHED)
}
"""Every control plane by its name, from the yardstick to the newest."""


NEGOTIATED = tuple(kind.name for kind in PLANES.values() if kind.negotiates)
"""Names of the control planes that negotiate."""


def make_negotiator(name: str, rank: int, settings: Settings) -> Negotiator:
    """One rank's negotiator of control plane ``name``. Raises KeyError where nothing of that name negotiates."""
    make = PLANES[name].negotiator
    if make is None:
        raise KeyError(name)
    return make(rank, settings)
