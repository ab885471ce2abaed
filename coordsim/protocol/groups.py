"""Explicit grouping: which tensors are submitted together, and which are fused alone.

Groups are known by their members, never by an id: ids are local to a rank and mean nothing to others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b


def equal_parts(names: Sequence[str], count: int) -> list[tuple[str, ...]]:
    """``count`` contiguous parts whose lengths differ by at most one, the longer ones first.

    Raises ValueError unless ``1 <= count <= len(names)``.
    Source: horovod/torch/optimizer.py, split_list (docs/horovod.md 4.4).
    """
    if not 1 <= count <= len(names):
        raise ValueError(f"cannot split {len(names)} tensors into {count} groups")
    short, longer = divmod(len(names), count)
    parts, start = [], 0
    for index in range(count):
        stop = start + short + (index < longer)
        parts.append(tuple(names[start:stop]))
        start = stop
    return parts


def by_layer(layers: Mapping[str, str]) -> list[tuple[str, ...]]:
    """One group per layer, layers and members in the order in which ``layers`` (name -> layer) lists them."""
    found: dict[str, list[str]] = {}
    for name, layer in layers.items():
        found.setdefault(layer, []).append(name)
    return [tuple(members) for members in found.values()]


def member_digest(members: Iterable[str]) -> int:
    """64-bit digest of a group's ordered member names, never 0; travels in each member's request."""
    digest = blake2b("\0".join(members).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1


@dataclass(frozen=True)
class GroupTable:
    """The groups of one job.

    ``strict``: every group, and every tensor outside one, is a fusion unit of its own: never split by the
    threshold, never fused with another (Horovod's HOROVOD_DISABLE_GROUP_FUSION, which does split).
    Loose: members are only submitted together.
    """

    groups: tuple[tuple[str, ...], ...] = ()
    strict: bool = False
    _of: dict[str, tuple[str, ...]] = field(init=False, repr=False, compare=False, default_factory=dict)
    _hash: int = field(init=False, repr=False, compare=False)

    def __hash__(self) -> int:
        return self._hash

    def __post_init__(self) -> None:
        for members in self.groups:
            for name in members:
                if name in self._of:
                    raise ValueError(f"tensor {name!r} stands in two groups")
                self._of[name] = members
        object.__setattr__(self, "_hash", hash((self.groups, self.strict)))

    def members(self, name: str) -> tuple[str, ...]:
        """The group that ``name`` belongs to, members in registration order; itself when in none."""
        return self._of.get(name, (name,))

    def units(self, ready_order: Sequence[str]) -> list[tuple[str, ...]]:
        """Units of submission in the order in which they become ready: by their last member.

        Members are in registration order inside a unit (docs/semantics.md 2.3). Raises ValueError when a group
        names a tensor that ``ready_order`` lacks.
        """
        position = {name: index for index, name in enumerate(ready_order)}
        for members in self.groups:
            for name in members:
                if name not in position:
                    raise ValueError(f"group names unknown tensor {name!r}")
        units = {self.members(name): None for name in ready_order}
        return sorted(units, key=lambda members: max(position[name] for name in members))

    def digest(self, name: str) -> int:
        """What a request for ``name`` says of its group: 0 when it does not matter (loose, or alone)."""
        members = self.members(name)
        return member_digest(members) if self.strict and len(members) > 1 else 0

    def summary(self) -> str:
        """One line that is equal for equal tables, and differs otherwise: what ranks compare at start-up."""
        if not self.groups:
            return "none" + (", strict" if self.strict else "")
        ordered = "\1".join("\0".join(members) for members in self.groups)
        digest = blake2b(ordered.encode(), digest_size=8).hexdigest()
        kind = "strict" if self.strict else "loose"
        return f"{len(self.groups)} of {len(self._of)} tensors, {kind}, {digest}"
