"""A recorded job as the protocol saw it: its settings, its groups, and the messages of each cycle."""

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
    """Payload of each rank's link towards rank 0, bytes, shape [rank]; 0 for rank 0, which has no such link."""
    decides: bool = False
    """A rank that has heard others computes before it sends: its subtree's list (``up``), or a schedule (down)."""
    vector: bool = False
    """Whether it is a bit vector that all ranks intersect, which may carry data along."""


def request_of(facts: Mapping[str, Any]) -> Request:
    """Return a recorded tensor as the request that it was. Raises KeyError or ValueError for what is no request."""
    return Request(
        str(facts["name"]), Op[facts["op"]], DType[facts["dtype"]], tuple(map(int, facts["shape"])),
        ReduceOp[facts["reduce_op"]], int(facts["root_rank"]), int(facts["device"]), float(facts["prescale"]),
        float(facts["postscale"]), int(facts["group"]),
    )  # fmt: skip


def settings_of(records: Sequence[RankRecord]) -> tuple[str, Settings]:
    """Return the control plane and the settings of the job that wrote ``records``, which are those of all ranks.

    Raises InputError for a job whose messages are not the backend's own, or cannot be known.
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
        message = "messages follow from what all ranks submit, so all need details (COORDSIM_RECORD_SAMPLED_RANKS)"
        raise InputError.one(where, "", silent, f"{len(silent):,} of {ranks:,} ranks have none; {message}")
    try:
        threshold = rounded_threshold(int(facts["fusion_threshold_bytes"]), int(facts["ranks_per_node"]))
        groups = GroupTable(_read_groups(records[0]) if facts["strict_groups"] else (), bool(facts["strict_groups"]))
        radix = tree_radix(int(facts["radix"]), ranks)
        return plane, Settings(ranks, threshold, groups, int(facts["cache_capacity"]), radix)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError.one(where, "settings", None, f"cannot be read: {error}") from error


def _read_groups(record: RankRecord) -> tuple[tuple[str, ...], ...]:
    """Read the strict groups from their members' requests. Raises ValueError for a group that is not complete."""
    members_by_digest: dict[int, dict[str, None]] = {}
    for facts in record.tensors:
        if facts.get("group"):
            members_by_digest.setdefault(int(facts["group"]), {})[str(facts["name"])] = None
    for digest, members in members_by_digest.items():
        if member_digest(members) != digest:
            raise ValueError(f"the record does not have all of the group of {next(iter(members))!r}, in its order")
    return tuple(tuple(members) for members in members_by_digest.values())


class Job(LockStep):
    """All ranks' negotiators in lock step, with the exchanges that they ask for."""

    def __init__(self, plane: str, settings: Settings) -> None:
        super().__init__(plane, settings)
        self.requests = self.request_bytes = 0
        """What a gather brought to rank 0 in the last cycle: requests, and bytes of the other ranks' lists."""
        self._asked: list[list[Asked]] = []

    def asks(self, rank: int, exchange: Asked) -> None:
        self._asked[rank].append(exchange)

    def run_cycle(self, popped: Sequence[Sequence[Request]]) -> tuple[Schedule, tuple[Sweep, ...]]:
        """Run one cycle in which rank r pops ``popped[r]``; return its schedule and its messages in order.

        Raises DuplicateName or AssertionError if the protocol does not allow these submissions.
        """
        self._asked = [[] for _ in self.ranks]
        for rank, requests in enumerate(popped):
            for request in requests:
                self.submit(rank, request)
        schedule = self.cycle()
        self.requests = self.request_bytes = 0
        sweeps: list[Sweep] = []
        for place, exchange in enumerate(self._asked[0]):
            sweeps += self._list_sweeps(exchange, [asked[place] for asked in self._asked if place < len(asked)])
        return schedule, tuple(sweeps)

    def _list_sweeps(self, exchange: Asked, together: Sequence[Asked]) -> list[Sweep]:
        """List the messages of rank 0's ``exchange``.

        ``together`` is what each rank asks for at the same place of the cycle. It is of the same kind except in a tree.
        """
        match exchange:
            case AndReduce(_, words) | OrReduce(_, words):
                size, vector = self._same_for_all(8 * words), isinstance(exchange, AndReduce)
                return [Sweep(True, size, vector=vector), Sweep(False, size, vector=vector)]
            case GatherLists():
                lists = [each.message for each in together if isinstance(each, GatherLists)]
                self.requests = sum(len(each.requests) for each in lists)
                sizes = [list_bytes(each) for each in lists]
                self.request_bytes = sum(sizes[1:])
                return [Sweep(True, self._gathered_bytes(sizes))]
            case CollectFromChildren():
                messages = [each.message for asked in self._asked for each in asked if isinstance(each, SendToParent)]
                return [Sweep(True, (0, *map(list_bytes, messages)), decides=True)]
            case BroadcastList(message) | BroadcastDownTree(message) if message is not None:
                return [Sweep(False, self._same_for_all(list_bytes(message)), decides=True)]
        raise AssertionError(f"no exchange of rank 0's in a cycle: {exchange}")

    def _same_for_all(self, nbytes: int) -> tuple[int, ...]:
        return (0, *[nbytes] * (len(self.ranks) - 1))

    def _gathered_bytes(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Return the bytes on each rank's link: an inner node sends its own list and then what it has received."""
        passed = [PART.size + size for size in sizes]
        for rank in reversed(self.ranks):
            passed[rank] += sum(passed[child] for child in tree_children(rank, len(self.ranks), self.settings.radix))
        return (0, *passed[1:])
