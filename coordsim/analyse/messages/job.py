"""A recorded job as the protocol saw it: its settings and groups, and what it made of a cycle's submissions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coordsim.errors import InputError
from coordsim.protocol.fusion import rounded_threshold
from coordsim.protocol.groups import GroupTable, member_digest
from coordsim.protocol.links import PART, tree_radix
from coordsim.protocol.lockstep import Asked, LockStep
from coordsim.protocol.messages import DType, Op, ReduceOp, Request
from coordsim.protocol.negotiator import (
    AndReduce,
    BroadcastDownTree,
    BroadcastList,
    CollectFromChildren,
    GatherLists,
    OrReduce,
    Schedule,
    SendToParent,
    Settings,
    tree_children,
)
from coordsim.protocol.planes import NEGOTIATED
from coordsim.protocol.wire import list_bytes
from coordsim.record.ranks import RankRecord
from coordsim.record.ranks.facts import control_plane, negotiated


@dataclass(frozen=True, slots=True)
class Sweep:
    """One message over every link of the tree: all towards rank 0, or all away from it."""

    up: bool
    nbytes_R: tuple[int, ...]
    """Payloads by the rank at the lower end of the link; rank 0 has none above it: 0."""
    decides: bool = False
    """Whoever has heard others makes something of it first: the rest of a subtree (``up``), a schedule (down)."""
    vector: bool = False
    """It is a bit vector that all intersect, which may take data along."""


def request_of(facts: Mapping[str, Any]) -> Request:
    """What a record says of a tensor, as the request that it was. Raises KeyError, ValueError for what is none."""
    return Request(
        str(facts["name"]), Op[facts["op"]], DType[facts["dtype"]], tuple(map(int, facts["shape"])),
        ReduceOp[facts["reduce_op"]], int(facts["root_rank"]), int(facts["device"]), float(facts["prescale"]),
        float(facts["postscale"]), int(facts["group"]),
    )  # fmt: skip


def settings_of(records: Sequence[RankRecord]) -> tuple[str, Settings]:
    """Control plane and settings of the job that wrote ``records``, of all ranks.

    Raises InputError for a job whose messages are not the backend's own, or not known.
    """
    head, where = records[0].head, str(records[0].path.parent)
    facts, ranks = head.get("settings") or {}, int(head["ranks"])
    plane = control_plane(records[0])
    if not negotiated(records[0]):
        raise InputError.one(where, "control_plane", plane, "nobody negotiates in it, so there are no control messages")
    if ranks < 2:
        raise InputError.one(where, "ranks", ranks, "one rank alone sends no message")
    if plane not in NEGOTIATED:
        raise InputError.one(where, "control_plane", plane, "unknown", NEGOTIATED)
    transport = facts.get("control")
    if transport != "tcp":
        message = f"control went over {transport}, whose messages are its own and not recorded; tcp's are known"
        raise InputError.one(where, "control", transport, message)
    silent = sorted(set(range(ranks)) - {each.rank for each in records if each.detailed})
    if silent:
        message = "messages follow from what all submit: it needs details of all (COORDSIM_RECORD_SAMPLED_RANKS)"
        raise InputError.one(where, "", silent, f"{len(silent):,} of {ranks:,} ranks have none; {message}")
    try:
        threshold = rounded_threshold(int(facts["fusion_threshold_bytes"]), int(facts["ranks_per_node"]))
        groups = GroupTable(_groups(records[0]) if facts["strict_groups"] else (), bool(facts["strict_groups"]))
        radix = tree_radix(int(facts["radix"]), ranks)
        return plane, Settings(ranks, threshold, groups, int(facts["cache_capacity"]), radix)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError.one(where, "settings", None, f"cannot be read: {error}") from error


def _groups(record: RankRecord) -> tuple[tuple[str, ...], ...]:
    """Strict groups, from what their members' requests say of them. Raises ValueError when one is not whole."""
    found: dict[int, dict[str, None]] = {}
    for facts in record.tensors:
        if facts.get("group"):
            found.setdefault(int(facts["group"]), {})[str(facts["name"])] = None
    for digest, members in found.items():
        if member_digest(members) != digest:
            raise ValueError(f"the record does not have all of the group of {next(iter(members))!r}, in its order")
    return tuple(tuple(members) for members in found.values())


class Job(LockStep):
    """All ranks' negotiators, watched for what they say."""

    def __init__(self, plane: str, settings: Settings) -> None:
        super().__init__(plane, settings)
        self.requests = self.request_bytes = 0
        """Of the last cycle, what a gather brought to rank 0: requests, and bytes of the others' lists."""
        self._asked: list[list[Asked]] = []

    def asks(self, rank: int, exchange: Asked) -> None:
        self._asked[rank].append(exchange)

    def exchanged(self, popped: Sequence[Sequence[Request]]) -> tuple[Schedule, tuple[Sweep, ...]]:
        """One cycle in which rank r pops ``popped[r]``. Raises DuplicateName, AssertionError for what cannot be."""
        self._asked = [[] for _ in self.ranks]
        for rank, requests in enumerate(popped):
            for request in requests:
                self.submit(rank, request)
        schedule = self.cycle()
        self.requests = self.request_bytes = 0
        sweeps: list[Sweep] = []
        for place, exchange in enumerate(self._asked[0]):
            sweeps += self._sweeps(exchange, [asked[place] for asked in self._asked if place < len(asked)])
        return schedule, tuple(sweeps)

    def _sweeps(self, exchange: Asked, together: Sequence[Asked]) -> list[Sweep]:
        """``together``: what each rank asks for at the same place; the same kind, but in a tree."""
        match exchange:
            case AndReduce(_, words) | OrReduce(_, words):
                size, vector = self._alike(8 * words), isinstance(exchange, AndReduce)
                return [Sweep(True, size, vector=vector), Sweep(False, size, vector=vector)]
            case GatherLists():
                lists = [each.message for each in together if isinstance(each, GatherLists)]
                self.requests = sum(len(each.requests) for each in lists)
                sizes = [list_bytes(each) for each in lists]
                self.request_bytes = sum(sizes[1:])
                return [Sweep(True, self._gathered(sizes))]
            case CollectFromChildren():
                messages = [each.message for asked in self._asked for each in asked if isinstance(each, SendToParent)]
                return [Sweep(True, (0, *map(list_bytes, messages)), decides=True)]
            case BroadcastList(message) | BroadcastDownTree(message) if message is not None:
                return [Sweep(False, self._alike(list_bytes(message)), decides=True)]
        raise AssertionError(f"no exchange of rank 0's in a cycle: {exchange}")

    def _alike(self, nbytes: int) -> tuple[int, ...]:
        return (0, *[nbytes] * (len(self.ranks) - 1))

    def _gathered(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """An inner node passes on what it was sent behind its own list."""
        passed = [PART.size + size for size in sizes]
        for rank in reversed(self.ranks):
            passed[rank] += sum(passed[child] for child in tree_children(rank, len(self.ranks), self.settings.radix))
        return (0, *passed[1:])
