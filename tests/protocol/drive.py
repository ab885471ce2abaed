"""All ranks of one job in lock-step, without a network or a clock.

Every rank's negotiator is asked for its next exchange until none can be answered any more; exchanges that
need everybody wait for everybody, a tree's are answered child by child.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from coordsim.protocol import wire
from coordsim.protocol.fusion import fuse
from coordsim.protocol.groups import GroupTable
from coordsim.protocol.invariants import InvariantWatch
from coordsim.protocol.messages import Op, Request, RequestList, Response, ResponseList, respond_to
from coordsim.protocol.negotiator import (
    COORDINATOR,
    NEGOTIATORS,
    AndReduce,
    BroadcastDownTree,
    BroadcastList,
    CachedNegotiator,
    CollectFromChildren,
    Exchange,
    GatherLists,
    OrReduce,
    Schedule,
    SendToParent,
    Settings,
    tree_children,
    tree_parent,
)
from coordsim.protocol.queue import TensorQueue

KINDS = tuple(NEGOTIATORS)
SMALL = 1 << 20
"""A fusion threshold that most tests never reach, bytes."""


def settings(
    ranks: int, *, threshold: int = SMALL, groups: Iterable[tuple[str, ...]] = (), strict: bool = False,
    capacity: int = 1024, radix: int = 2,
) -> Settings:  # fmt: skip
    return Settings(ranks, threshold, GroupTable(tuple(groups), strict), capacity, radix)


def tensor(name: str, elements: int = 4, **fields: Any) -> Request:
    """An allreduce of ``elements`` float32 unless told otherwise."""
    return Request(name, shape=fields.pop("shape", (elements,)), **fields)


def fused(responses: Iterable[Response]) -> list[tuple[str, ...]]:
    return [response.names for response in responses]


def fuse_all(
    requests: Iterable[Request], threshold: int = SMALL, groups: GroupTable | None = None
) -> list[tuple[str, ...]]:
    """Names of the fused operations for ``requests``, all ready together, in order."""
    return fused(fuse(map(respond_to, requests), threshold, groups or GroupTable()))


@dataclass(frozen=True)
class Ended:
    """One name came to its end in ``cycle``, on every rank."""

    cycle: int
    name: str
    error: str = ""


@dataclass
class Job:
    """``kind`` is a control plane's name; ``through_wire`` encodes and decodes every list."""

    kind: str
    settings: Settings
    through_wire: bool = False
    schedules: list[Schedule] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    exchanges: list[list[str]] = field(default_factory=list)
    """Per cycle: kinds of the exchanges rank 0 took part in."""
    asked: list[list[tuple[str, ...]]] = field(default_factory=list)
    """Per cycle, by rank: names in the list that the rank itself built; empty when it built none."""
    vector_words: int = 0
    drained: list[tuple[str, ...]] = field(default_factory=list)
    """By rank, after a shutdown: what had to fail."""

    def __post_init__(self) -> None:
        self.ranks = range(self.settings.ranks)
        self.negotiators: list[Any] = [NEGOTIATORS[self.kind](rank, self.settings) for rank in self.ranks]
        self.queues = [TensorQueue() for _ in self.ranks]
        self.watch = InvariantWatch(self.negotiators, self.queues)

    def submit(self, rank: int, *unit: Request) -> None:
        self.queues[rank].submit(unit)

    def everybody(self, *unit: Request, but: Collection[int] = ()) -> None:
        for rank in self.ranks:
            if rank not in but:
                self.submit(rank, *unit)

    def step(self, *units: Request, but: Collection[int] = ()) -> Schedule:
        """Every rank submits each tensor on its own; then one cycle."""
        for unit in units:
            self.everybody(unit, but=but)
        return self.cycle()

    def cycle(
        self, *, shutdown: Collection[int] = (), stalled: Mapping[int, Collection[str]] | None = None
    ) -> Schedule:
        """One cycle on every rank. Raises InvariantBroken, or AssertionError when no rank can go on."""
        self.exchanges.append([])
        self.asked.append([() for _ in self.ranks])
        conversations = []
        for rank, negotiator in enumerate(self.negotiators):
            more: dict[str, Any] = {"shutdown": rank in shutdown}
            if stalled and rank in stalled:
                more["stalled"] = frozenset(stalled[rank])
            conversations.append(negotiator.cycle(self.queues[rank].pop(), **more))
        schedules = self._converse(conversations)
        self.watch.cycle_done(schedules)
        self._execute(schedules[0])
        return schedules[0]

    def errors(self) -> dict[str, str]:
        """Names that ended in an error, with the text of the last one."""
        return {each.name: each.error for each in self.ended if each.error}

    def count(self, kind: str) -> int:
        """How many exchanges of ``kind`` there were so far."""
        return sum(each.count(kind) for each in self.exchanges)

    def _execute(self, schedule: Schedule) -> None:
        for response in schedule.responses:
            for name in response.names:
                for queue in self.queues:
                    queue.finish(name)
                assert (response.op is Op.ERROR) == bool(response.error)
                self.ended.append(Ended(len(self.schedules), name, response.error))
        self.schedules.append(schedule)
        if schedule.shutdown:
            self.drained = [queue.drain() for queue in self.queues]

    def _converse(self, conversations: list[Any]) -> list[Schedule]:
        pending: dict[int, Exchange] = {}
        schedules: dict[int, Schedule] = {}
        sent: dict[int, RequestList] = {}

        def answer(rank: int, value: Any) -> None:
            pending.pop(rank, None)
            try:
                pending[rank] = conversations[rank].send(value)
            except StopIteration as stop:
                schedules[rank] = stop.value
                return
            if rank == COORDINATOR:
                self.exchanges[-1].append(type(pending[rank]).__name__)

        for rank in self.ranks:
            answer(rank, None)
        while pending:
            answers = self._answers(pending, sent)
            assert answers, f"nobody can go on: {pending}"
            for rank, value in answers.items():
                answer(rank, value)
        return [schedules[rank] for rank in self.ranks]

    def _answers(self, pending: Mapping[int, Exchange], sent: dict[int, RequestList]) -> dict[int, Any]:
        """The exchanges that can be answered now, by rank."""
        answers: dict[int, Any] = {}
        for rank, exchange in pending.items():
            if isinstance(exchange, SendToParent):
                assert tree_parent(rank, self.settings.radix) in self.ranks
                sent[rank] = self._carry(exchange.message)
                answers[rank] = None
            elif isinstance(exchange, CollectFromChildren):
                children = tree_children(rank, self.settings.ranks, self.settings.radix)
                if all(child in sent for child in children):
                    answers[rank] = [sent[child] for child in children]
        if answers or len(pending) < self.settings.ranks:
            return answers
        (kind,) = {type(exchange) for exchange in pending.values()}
        exchanges: list[Any] = [pending[rank] for rank in self.ranks]
        if kind is GatherLists:
            lists = [self._carry(each.message) for each in exchanges]
            return {rank: lists if rank == COORDINATOR else None for rank in self.ranks}
        if kind in (BroadcastList, BroadcastDownTree):
            assert [rank for rank in self.ranks if exchanges[rank].message is not None] == [COORDINATOR]
            return dict.fromkeys(self.ranks, self._carry(exchanges[COORDINATOR].message))
        (words,) = {each.words for each in exchanges}
        assert all(0 <= each.value < 1 << 64 * words for each in exchanges), "a vector exceeds its words"
        self.vector_words = words
        combine = {AndReduce: operator.and_, OrReduce: operator.or_}[kind]
        return dict.fromkeys(self.ranks, reduce(combine, [each.value for each in exchanges]))

    def _carry(self, message: Any) -> Any:
        if isinstance(message, RequestList):
            self.asked[-1][message.rank] = tuple(request.name for request in message.requests)
        if not self.through_wire:
            return message
        data = wire.encode(message)
        assert len(data) == wire.list_bytes(message)
        received = wire.decode_responses(data) if isinstance(message, ResponseList) else wire.decode_requests(data)
        assert received == message
        return received


def caches(job: Job) -> list[list[tuple[int, str]]]:
    """Every rank's live (bit, name) pairs."""
    assert all(isinstance(each, CachedNegotiator) for each in job.negotiators)
    return [list(each.cache.names_by_bit()) for each in job.negotiators]
