"""Compares the calls of a communicator's ranks: what differs, and which rank is behind."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from coordsim.formats.nccl_debug.groups import Group
from coordsim.formats.nccl_debug.log import Log, Member

MOST_TOLD = 20
_BETWEEN_TWO = frozenset({"Send", "Recv"})
_UNEVEN = frozenset({"AllToAllv", "AlltoAllv", "Gather", "Scatter", "AllGatherV"})
"""Operations in which ranks may give different sizes."""
_TYPES = (
    "int8", "uint8", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64", "bfloat16", "float8_e4m3",
    "float8_e5m2",
)  # fmt: skip


@dataclass
class Comparison:
    """What ranks of communicators did differently, each with its evidence."""

    behind: list[str] = field(default_factory=list)
    differ: list[str] = field(default_factory=list)
    compared: int = 0
    """Number of communicators that were compared."""
    not_compared: Counter[str] = field(default_factory=Counter)
    """Reason -> number of communicators that were not compared."""


class Calls:
    """The kept calls of a log, by member."""

    def __init__(self, log: Log) -> None:
        self.log = log
        member = np.asarray(log.member)
        self.number, self.name, self.nbytes = np.asarray(log.number), np.asarray(log.name), np.asarray(log.nbytes)
        self.type, self.root = np.asarray(log.type), np.asarray(log.root)
        self.order = np.argsort(member, kind="stable")
        self.bounds = np.searchsorted(member[self.order], np.arange(len(log.members) + 1))

    def of(self, member: Member) -> NDArray[np.int64]:
        """Return the places of a member's calls in the log's columns, in the order of the lines."""
        return self.order[self.bounds[member.index] : self.bounds[member.index + 1]]

    def count(self, member: Member) -> int:
        """Return how many calls a member made."""
        return int(self.bounds[member.index + 1] - self.bounds[member.index])


def compare(calls: Calls, groups: list[Group], labels: dict[int, str]) -> Comparison:
    """Compare the calls of each communicator's ranks. ``labels`` maps a member's place to its name."""
    comparison = Comparison()
    for group in groups:
        members = [member for member in group.members if calls.count(member)]
        if len(members) < 2:
            if members:
                reason = "one rank's calls only" if group.known else _why_unknown(group)
                comparison.not_compared[reason] += 1
            continue
        why = _why_not(calls, group, members, labels)
        if why is not None:
            comparison.not_compared[why] += 1
            continue
        comparison.compared += 1
        _compare(calls, group, members, labels, comparison)
    return comparison


def _why_unknown(group: Group) -> str:
    return (
        "no line says which communicator they belong to (NCCL_DEBUG_SUBSYS=INIT,COLL does)"
        if group.members[0].rank is None
        else "this version writes no commId, and not all its ranks are there, or several have as many"
    )


def _why_not(calls: Calls, group: Group, members: list[Member], labels: dict[int, str]) -> str | None:
    """Return why the order of the calls in the log may not be that of the ranks; None if it is.

    Since 2.27 a rank without network traffic of its own counts no opCount, so ranks are not matched by it. Within a
    rank it never jumps, unless lines are missing or a CUDA graph was replayed, which has no lines.
    """
    if not group.known:
        return _why_unknown(group)
    if any(calls.log.torn_calls[member.process] for member in members):
        return "lines of calls are torn by other processes' lines"
    if calls.log.calls_beyond:
        return "there are more calls than are kept"
    if any(member.rank is None and calls.number[calls.of(member)[0]] != 0 for member in members):
        return "the log does not begin with their first calls"
    for member in members:
        numbers = calls.number[calls.of(member)]
        jumps = np.flatnonzero(np.diff(numbers) > 1)
        if len(jumps):
            before, after = numbers[jumps[0]], numbers[jumps[0] + 1]
            return (
                f"opCount of {labels[member.index]} of {group.name} jumps from {before:x} to {after:x}: lines are "
                "missing, or a CUDA graph was replayed"
            )
    return None


class _Lined:
    """The collectives of a communicator's members, those that belong together next to each other: the first, ..."""

    def __init__(self, calls: Calls, members: list[Member]) -> None:
        between = [index for index, name in enumerate(calls.log.names) if name in _BETWEEN_TWO]
        of = [calls.of(member) for member in members]
        of = [places[~np.isin(calls.name[places], between)] for places in of]
        self.made = np.asarray([len(places) for places in of], dtype=np.int64)
        """Number of collectives of each member."""
        turn = np.concatenate([np.arange(count) for count in self.made])
        who = np.repeat(np.arange(len(members)), self.made)
        order = np.lexsort((who, turn))
        self.place, self.who = np.concatenate(of)[order], who[order]
        self.first = np.flatnonzero(np.diff(turn[order], prepend=-1))
        """Index of the first member's call of each collective."""
        self.ends = np.append(self.first[1:], len(self.who))
        self.last = [int(places[-1]) if len(places) else None for places in of]

    def differs(self, calls: Calls) -> NDArray[np.int64]:
        """Return calls that are not the same on all members: by name, size, type or root."""
        differences = np.zeros(len(self.first), dtype=bool)
        uneven = np.isin(calls.name, [index for index, name in enumerate(calls.log.names) if name in _UNEVEN])
        nbytes = np.where(uneven, 0, calls.nbytes)
        for column in (calls.name, nbytes, calls.type, calls.root):
            values = column[self.place]
            differences |= np.minimum.reduceat(values, self.first) != np.maximum.reduceat(values, self.first)
        return np.flatnonzero(differences)


def _compare(calls: Calls, group: Group, members: list[Member], labels: dict[int, str], comparison: Comparison) -> None:
    lined = _Lined(calls, members)
    if not len(lined.first):
        return
    names = [labels[member.index] for member in members]
    most = int(lined.made.max())
    ahead = [names[index] for index in np.flatnonzero(lined.made == most)]
    for index in np.flatnonzero(lined.made < most)[: MOST_TOLD - len(comparison.behind)]:
        place = lined.last[index]
        last = "" if place is None else f", the last opCount {calls.number[place]:x}, {_described(calls, place)}"
        comparison.behind.append(
            f"{names[index]} of {group.name}: {_counted(int(lined.made[index]))}{last}; {_listed(ahead)} made {most:,}"
        )
    differing = lined.differs(calls)
    if len(differing) and len(comparison.differ) < MOST_TOLD:
        comparison.differ.append(_difference(calls, group, lined, int(differing[0]), names))


def _counted(calls: int) -> str:
    return f"{calls:,} collective{'s' * (calls != 1)}"


def _difference(calls: Calls, group: Group, lined: _Lined, call: int, names: list[str]) -> str:
    by_text: dict[str, list[str]] = {}
    for index in range(int(lined.first[call]), int(lined.ends[call])):
        by_text.setdefault(_described(calls, int(lined.place[index])), []).append(names[int(lined.who[index])])
    parts = [f"{text} on {_listed(ranks)}" for text, ranks in sorted(by_text.items(), key=lambda item: -len(item[1]))]
    number = calls.number[lined.place[lined.first[call]]]
    return f"collective {call + 1:,} (opCount {number:x}) of {group.name}: {'; '.join(parts[:4])}"


def _described(calls: Calls, place: int) -> str:
    name, nbytes = calls.log.names[calls.name[place]], int(calls.nbytes[place])
    kind, root = int(calls.type[place]), int(calls.root[place])
    size = f" of {nbytes:,} B" if nbytes >= 0 else ""
    named = _TYPES[kind] if kind < len(_TYPES) else f"type {kind}"
    to = f", root {root}" if name in ("Broadcast", "Reduce", "Gather", "Scatter") else ""
    return f"{name}{size} ({named}{to})"


def _listed(names: list[str]) -> str:
    """Return ``rank 0, rank 1``; a long list is replaced by its number."""
    if len(names) <= 4:
        return ", ".join(names)
    return f"{names[0]} and {len(names) - 1:,} others"
