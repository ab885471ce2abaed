"""What a negotiator asks its driver to do with the other ranks."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from coordsim.protocol.messages import Bundle, RequestList, Response, ResponseList
from coordsim.protocol.negotiator.decisions import Schedule

COORDINATOR = 0
"""The deciding rank."""


@dataclass(frozen=True, slots=True)
class AndReduce:
    """All ranks intersect a bit vector; every rank is sent the result (int)."""

    value: int
    words: int
    expected: tuple[Response, ...] = field(default=(), compare=False)
    """A hint: the schedule, should every rank turn out to offer just these bits. A driver may move its data along
    with the vector. Empty when this rank cannot tell."""


@dataclass(frozen=True, slots=True)
class OrReduce:
    """All ranks unite a bit vector; every rank is sent the result (int)."""

    value: int
    words: int


@dataclass(frozen=True, slots=True)
class GatherLists:
    """Every rank's list to the coordinator, which is sent all of them in rank order; others are sent None."""

    message: RequestList


@dataclass(frozen=True, slots=True)
class BroadcastList:
    """The coordinator's list (None elsewhere) to every rank, which is sent it."""

    message: ResponseList | None


@dataclass(frozen=True, slots=True)
class CollectFromChildren:
    """In a tree: this node is sent its children's lists (merged) or bundles (not), children ascending."""


@dataclass(frozen=True, slots=True)
class SendToParent:
    """In a tree: this node's merged list, or its bundle of lists as they were, goes one level up."""

    message: RequestList | Bundle


@dataclass(frozen=True, slots=True)
class BroadcastDownTree:
    """In a tree: the root's list (None elsewhere) to every node, which is sent it."""

    message: ResponseList | None


Exchange: TypeAlias = (
    AndReduce | OrReduce | GatherLists | BroadcastList | CollectFromChildren | SendToParent | BroadcastDownTree
)
Cycle: TypeAlias = Generator[Exchange, Any, Schedule]
