"""Finds the ranks whose lines concern the same communicator."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from coordsim.formats.nccl_debug.log import Log, Member

_DEEPEST = 50
"""Largest depth of splits of splits."""


@dataclass(frozen=True)
class Group:
    """One communicator, from its ranks' lines."""

    id: str | None
    """Id as NCCL writes it; None before 2.16 and for a split, which has its parent's id and a colour."""
    ranks: int
    members: list[Member]
    """Members by rank."""
    known: bool
    """Whether it is one communicator for certain: by its id with each rank once, or because all its ranks are there."""

    @property
    def name(self) -> str:
        """Name for people."""
        if self.id is not None:
            return self.id
        split = next((member.split for member in self.members if member.split), None)
        if split is not None:
            return f"split of colour {split.split()[-1]} ({self.members[0].comm})"
        if self.known and len(self.members) > 1 and self.members[0].rank is None:
            return f"the only communicator of {self.ranks:,} ranks"
        return self.members[0].comm


def groups_of(log: Log) -> list[Group]:
    """Return the communicators, in the order in which they appear."""
    keys: dict[Hashable, int] = {}
    of_member: list[int | None] = []
    turns: dict[tuple[int, int, int | None], int] = {}
    by_init: dict[Hashable, list[Member]] = {}
    depth: list[int] = []
    for member in log.members:
        key = _key(member, of_member, depth)
        number = None if key is None else keys.setdefault(key, len(keys))
        of_member.append(number)
        depth.append(depth[member.parent.index] + 1 if member.parent is not None else 0)
        if number is None:
            by_init["alone", member.index] = [member]
            continue
        turn = turns[number, member.process, member.rank] = turns.get((number, member.process, member.rank), 0) + 1
        by_init.setdefault((number, turn), []).append(member)
    groups: list[Group] = []
    for members in by_init.values():
        groups += _groups_of(members)
    return _with_all_there(_with_torn_members(groups))


def _with_torn_members(groups: list[Group]) -> list[Group]:
    """Assign ranks whose id is torn off to the only communicator with an id that has as many ranks and lacks theirs."""
    by_ranks: dict[int, list[Group]] = {}
    for group in groups:
        if group.id is not None:
            by_ranks.setdefault(group.ranks, []).append(group)
    kept, added = [], dict[int, list[Member]]()
    for group in groups:
        able = by_ranks.get(group.ranks, []) if group.id is None and group.members[0].torn else []
        if len(able) == 1 and not any(member.has_parent for member in group.members):
            added.setdefault(id(able[0]), []).extend(group.members)
        else:
            kept.append(group)
    for place, group in enumerate(kept):
        more = added.get(id(group), [])
        ranks = [member.rank for member in (*group.members, *more)]
        if more and len(set(ranks)) == len(ranks):
            members = sorted((*group.members, *more), key=lambda member: member.rank or 0)
            kept[place] = Group(group.id, group.ranks, members, False)
        elif more:
            kept += [Group(None, member.ranks, [member], False) for member in more]
    return kept


def _with_all_there(groups: list[Group]) -> list[Group]:
    """Join members that only calls show: n communicators of n ranks, each in another process, are one."""
    by_ranks: dict[int, list[Group]] = {}
    for group in groups:
        by_ranks.setdefault(group.ranks, []).append(group)
    whole = []
    for ranks, same in by_ranks.items():
        members = [member for group in same for member in group.members]
        loose = all(member.rank is None for member in members)
        if ranks > 1 and len(members) == ranks and loose and len({member.process for member in members}) == ranks:
            whole.append(Group(None, ranks, members, True))
    replaced = {member.index for group in whole for member in group.members}
    return [group for group in groups if group.members[0].index not in replaced] + whole


def _key(member: Member, of_member: list[int | None], depth: list[int]) -> Hashable:
    """Return what the ranks of one communicator have in common; None if no line states it."""
    if member.rank is None:
        return None
    if member.has_parent:
        if member.parent is None or depth[member.parent.index] >= _DEEPEST:
            return None
        parent = of_member[member.parent.index]
        return None if parent is None else ("split", parent, member.split, member.ranks)
    return ("id", member.id, member.ranks)


def _groups_of(members: list[Member]) -> list[Group]:
    """Return one group, or one for each member if a rank comes twice, so that they are several communicators."""
    ranks = [member.rank for member in members]
    if len(set(ranks)) < len(ranks):
        return [Group(member.id, member.ranks, [member], False) for member in members]
    members = sorted(members, key=lambda member: member.rank or 0)
    first = members[0]
    by_id = first.id is not None or first.has_parent
    # without an id all its ranks have to be there: several communicators may have as many ranks
    known = first.rank is not None and (by_id or len(members) == first.ranks)
    return [Group(first.id, first.ranks, members, known)]
