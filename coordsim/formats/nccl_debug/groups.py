"""Which ranks' lines tell of the same communicator."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from coordsim.formats.nccl_debug.log import Log, Member

_DEEPEST = 50
"""Splits of splits; nobody's communicators go deeper."""


@dataclass(frozen=True)
class Group:
    """One communicator: what its ranks' lines say."""

    id: str | None
    """As NCCL writes it; None before 2.16 and for a split, which has its parent's and a colour."""
    ranks: int
    members: list[Member]
    """By rank."""
    known: bool
    """Whether they are one communicator for certain: by its id, each rank once."""

    @property
    def name(self) -> str:
        """For people."""
        if self.id is not None:
            return self.id
        split = next((member.split for member in self.members if member.split), None)
        if split is not None:
            return f"split of colour {split.split()[-1]} ({self.members[0].comm})"
        return self.members[0].comm


def groups_of(log: Log) -> list[Group]:
    """The communicators, in the order in which they appear."""
    keys: dict[Hashable, int] = {}
    of_member: list[int | None] = []
    turns: dict[tuple[int, int, int | None], int] = {}
    found: dict[Hashable, list[Member]] = {}
    depth: list[int] = []
    for member in log.members:
        key = _key(member, of_member, depth)
        number = None if key is None else keys.setdefault(key, len(keys))
        of_member.append(number)
        depth.append(depth[member.parent.index] + 1 if member.parent is not None else 0)
        if number is None:
            found["alone", member.index] = [member]
            continue
        turn = turns[number, member.process, member.rank] = turns.get((number, member.process, member.rank), 0) + 1
        found.setdefault((number, turn), []).append(member)
    groups: list[Group] = []
    for members in found.values():
        groups += _groups_of(members)
    return groups


def _key(member: Member, of_member: list[int | None], depth: list[int]) -> Hashable:
    """What the ranks of one communicator have in common; None where no line says it."""
    if member.rank is None:
        return None
    if member.has_parent:
        if member.parent is None or depth[member.parent.index] >= _DEEPEST:
            return None
        parent = of_member[member.parent.index]
        return None if parent is None else ("split", parent, member.split, member.ranks)
    return ("id", member.id, member.ranks)


def _groups_of(members: list[Member]) -> list[Group]:
    """One group, or one for each member where a rank comes twice, so that they are several communicators."""
    ranks = [member.rank for member in members]
    if len(set(ranks)) < len(ranks):
        return [Group(member.id, member.ranks, [member], False) for member in members]
    members = sorted(members, key=lambda member: member.rank or 0)
    first = members[0]
    by_id = first.id is not None or first.has_parent
    # without an id all its ranks have to be there: several communicators may have as many ranks
    known = first.rank is not None and (by_id or len(members) == first.ranks)
    return [Group(first.id, first.ranks, members, known)]
