"""What all ranks must decide alike, and the outcome of a cycle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from coordsim.protocol.cache import ResponseCache
from coordsim.protocol.fusion import fuse
from coordsim.protocol.groups import GroupTable
from coordsim.protocol.messages import Request, Response


@dataclass(frozen=True, slots=True)
class Schedule:
    """What every rank executes next, in this order; equal on all ranks (I2)."""

    responses: tuple[Response, ...]
    slow: bool
    """Whether the coordinator was asked."""
    hits_common: int = 0
    """Tensors that the cache alone agreed on in this cycle."""
    invalidated: bool = False
    shutdown: bool = False
    """Some rank wants to stop: after this schedule all loops end and what is pending fails."""


@dataclass(frozen=True)
class Settings:
    """What every rank of a job must set alike."""

    ranks: int
    fusion_threshold_bytes: int
    """Already rounded (:func:`coordsim.protocol.fusion.rounded_threshold`)."""
    groups: GroupTable = field(default_factory=GroupTable)
    cache_capacity: int = 1024
    """``cached`` only."""
    radix: int = 2
    """``hierarchical`` only."""
    merge: bool = True
    """``hierarchical`` only: an inner node passes on only what its whole subtree asked for, once. Otherwise
    it passes on every list as it came, and the root alone counts."""


def agree(
    hits: Iterable[Response], ready: Iterable[Response], settings: Settings
) -> tuple[Response, ...]:
    """The schedule from common hits (ascending bit) and newly ready responses (order of completion)."""
    return tuple(fuse([*hits, *ready], settings.fusion_threshold_bytes, settings.groups))


def remember(
    cache: ResponseCache, schedule: Iterable[Response], own: Mapping[str, Request], joined: bool = False
) -> list[str]:
    """After a slow cycle: put what may be cached, in schedule order; returns the names that had to leave.

    ``joined``: some rank had joined and has no parameters of its own for what is new, so nobody learns
    anything; what is known becomes recent all the same.
    """
    evicted = []
    for response in schedule:
        if response.cacheable:
            for index, name in enumerate(response.names):
                if not joined:
                    gone = cache.put(own[name], response.single(index))
                    if gone is not None:
                        evicted.append(gone)
                elif name in cache:
                    cache.touch(name)
    return evicted
