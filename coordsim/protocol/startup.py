"""Once, before the first cycle: do all ranks agree on what the protocol takes for granted?

Every rank derives schedules by itself; with another fusion threshold, say, it would launch other collectives than
its peers and hang or mix up data. Horovod does not look (docs/horovod.md 7).
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, TypeAlias

from coordsim.protocol import wire
from coordsim.protocol.messages import Claims
from coordsim.protocol.negotiator import COORDINATOR, AndReduce, Settings
from coordsim.protocol.ranges import ranges, size, spelled

PROTOCOL_VERSION = 2
"""Raised with every change of what ranks decide; the wire form has a version of its own."""

VALUES_SHOWN = 6
"""Values listed of one setting."""
VALUE_LENGTH = 60
"""Characters shown of a value."""

_WORD = (1 << 64) - 1


class SettingsDiffer(ValueError):
    """Ranks were started with settings that do not fit together; every rank raises it, with the same text."""


@dataclass(frozen=True, slots=True)
class GatherClaims:
    """Every rank's claims to the coordinator, which is sent all of them in rank order; others are sent None."""

    message: Claims


@dataclass(frozen=True, slots=True)
class BroadcastClaims:
    """The coordinator's verdict (None elsewhere) to every rank, which is sent it."""

    message: Claims | None


StartExchange: TypeAlias = AndReduce | GatherClaims | BroadcastClaims


def claims(rank: int, kind: str, settings: Settings, more: Mapping[str, str] | None = None) -> Claims:
    """What ``rank`` was told. ``kind``: its control plane; ``more``: the driver's own settings, as text."""
    stated = {
        "protocol version": str(PROTOCOL_VERSION),
        "wire version": str(wire.VERSION),
        "control plane": kind,
        "ranks": str(settings.ranks),
        "fusion threshold (bytes, rounded)": str(settings.fusion_threshold_bytes),
        "cache capacity": str(settings.cache_capacity),
        "tree radix": str(settings.radix),
        "tree merging": "on" if settings.merge else "off",
        "groups": settings.groups.summary(),
        **(more or {}),
    }
    return Claims(rank, tuple(stated.items()))


def agree_on_settings(own: Claims) -> Generator[StartExchange, Any, None]:
    """Two words' AND tell every rank whether all claims are equal; only otherwise are they gathered.

    Raises SettingsDiffer on every rank. The exchanges and their forms are the same for all control planes and
    versions, so that these can differ, too.
    """
    digest = _digest(own)
    both = digest | (digest ^ _WORD) << 64
    agreed: int = yield AndReduce(both, 2)
    if agreed == both:  # a bit in which two ranks differ is 0 in both words, on every rank
        return
    everybody: Sequence[Claims] | None = yield GatherClaims(own)
    verdict = None
    if everybody is not None:
        verdict = Claims(COORDINATOR, (("differs", differences(everybody)),))
    final: Claims = yield BroadcastClaims(verdict)
    raise SettingsDiffer(final.settings[0][1])


def differences(everybody: Iterable[Claims]) -> str:
    """Each setting on which ranks differ: its values, and which ranks have which."""
    values: dict[str, dict[str, list[int]]] = {}
    ranks = []
    for each in everybody:
        ranks.append(each.rank)
        for name, value in each.settings:
            values.setdefault(name, {}).setdefault(value, []).append(each.rank)
    lines = ["ranks were started with different settings:"]
    for name, by_value in values.items():
        without = sorted(set(ranks).difference(*by_value.values()))
        if without:
            by_value["(not set)"] = without
        if len(by_value) > 1:
            lines.append(f"  {name}: {_spelled_values(by_value)}")
    return "\n".join(lines)


def _spelled_values(by_value: Mapping[str, Sequence[int]]) -> str:
    held = sorted(((ranges(ranks), value) for value, ranks in by_value.items()), key=lambda each: each[0])
    parts = [f"{_cut(value)} on {spelled(ranks, 6)}" for ranks, value in held[:VALUES_SHOWN]]
    rest = sum(size(ranks) for ranks, _ in held[VALUES_SHOWN:])
    return "; ".join(parts) + (f"; {len(held) - VALUES_SHOWN:,} more values on {rest:,} ranks" if rest else "")


def _cut(value: str) -> str:
    return value if len(value) <= VALUE_LENGTH else value[: VALUE_LENGTH - 3] + "..."


def _digest(own: Claims) -> int:
    state = "\0".join(f"{name}\0{value}" for name, value in own.settings)
    return int.from_bytes(blake2b(state.encode(), digest_size=8).digest(), "little")
