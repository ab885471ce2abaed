"""All ranks of one job in lock-step: every rank's own negotiator, no network, no clock.

Each conversation is asked for its next exchange until all have ended. Exchanges that need everybody wait for
everybody; a tree's are answered child by child.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from functools import reduce
from typing import Any, TypeAlias, TypeVar

from coordsim.protocol.cache import STATUS_BITS, ResponseCache
from coordsim.protocol.messages import Request, RequestList
from coordsim.protocol.negotiator import (
    COORDINATOR,
    AndReduce,
    BroadcastDownTree,
    BroadcastList,
    CollectFromChildren,
    Exchange,
    GatherLists,
    OrReduce,
    Schedule,
    SendToParent,
    Settings,
    tree_children,
)
from coordsim.protocol.planes import make_negotiator
from coordsim.protocol.queue import TensorQueue
from coordsim.protocol.startup import BroadcastClaims, GatherClaims, SettingsDiffer, StartExchange
from coordsim.protocol.wire import Message

_INVALID_FLAG = 2
"""Status bit of the vector; 0 after the AND: an OR follows (docs/horovod.md 2.2)."""
_COMBINE: dict[type, Callable[[int, int], int]] = {AndReduce: operator.and_, OrReduce: operator.or_}

Outcome = TypeVar("Outcome")
Asked: TypeAlias = Exchange | StartExchange


class Stuck(AssertionError):
    """No rank can go on, or an exchange makes no sense: a fault in the protocol code."""


class Conversations:
    """Answers the exchanges of all ranks: of cycles (:data:`Exchange`) and of the start (:data:`StartExchange`).

    What passes can be seen or changed: :meth:`asks`, :meth:`carry`, :meth:`gathered` and :meth:`reduced` may be
    overridden.
    """

    def __init__(self, ranks: int, radix: int) -> None:
        """``radix``: of the tree."""
        self.ranks = range(ranks)
        self._radix = radix
        self._pending: dict[int, Asked] = {}
        self._sent: dict[int, Message] = {}  # by child: what its parent has yet to collect

    def asks(self, rank: int, exchange: Asked) -> None:
        """``rank`` enters ``exchange``."""

    def carry(self, message: Message) -> Message:
        """What arrives of ``message``; called once per message, also where it goes to every rank."""
        return message

    def gathered(self, messages: Sequence[Message]) -> None:
        """The coordinator is about to be sent these, in rank order."""

    def reduced(self, exchanges: Sequence[AndReduce | OrReduce], result: int) -> None:
        """All ranks are about to be sent ``result`` of ``exchanges``, all of one kind, in rank order."""

    def outcomes(self, conversations: Sequence[Generator[Any, Any, Outcome]]) -> list[Outcome]:
        """What each conversation returned, by rank; all are driven to their end.

        Raises SettingsDiffer when every rank did, and Stuck for a fault in the protocol code.
        """
        self._pending, self._sent = {}, {}
        returned: dict[int, Outcome] = {}
        raised: dict[int, SettingsDiffer] = {}

        def answer(rank: int, value: Any) -> None:
            self._pending.pop(rank, None)
            try:
                exchange = conversations[rank].send(value)
            except StopIteration as stop:
                returned[rank] = stop.value
            except SettingsDiffer as error:
                raised[rank] = error
            else:
                self._pending[rank] = exchange
                self.asks(rank, exchange)

        for rank in self.ranks:
            answer(rank, None)
        while self._pending:
            answers = self._answers()
            if not answers:
                raise Stuck(f"nobody can go on: {self._pending}")
            for rank, value in answers.items():
                answer(rank, value)
        if self._sent:
            raise Stuck(f"no parent took what was sent to it: {self._sent}")
        if raised:
            if len({str(raised.get(rank)) for rank in self.ranks}) > 1:
                raise Stuck(f"not on every rank: {raised}")
            raise raised[COORDINATOR]
        return [returned[rank] for rank in self.ranks]

    def _answers(self) -> dict[int, Any]:
        """The exchanges that can be answered now, by rank."""
        answers = self._tree_answers()
        if answers or len(self._pending) < len(self.ranks):
            return answers
        kinds = {type(exchange) for exchange in self._pending.values()}
        if len(kinds) > 1:
            raise Stuck(f"ranks are in different exchanges: {self._pending}")
        (kind,) = kinds
        exchanges: list[Any] = [self._pending[rank] for rank in self.ranks]
        if kind in (GatherLists, GatherClaims):
            messages = [self.carry(each.message) for each in exchanges]
            self.gathered(messages)
            return {rank: messages if rank == COORDINATOR else None for rank in self.ranks}
        if kind in (BroadcastList, BroadcastDownTree, BroadcastClaims):
            if [rank for rank in self.ranks if exchanges[rank].message is not None] != [COORDINATOR]:
                raise Stuck(f"not the coordinator alone has something to say: {self._pending}")
            return dict.fromkeys(self.ranks, self.carry(exchanges[COORDINATOR].message))
        if kind not in _COMBINE:
            return answers
        words = exchanges[COORDINATOR].words
        if any(each.words != words or not 0 <= each.value < 1 << 64 * words for each in exchanges):
            raise Stuck(f"vectors of different lengths, or one exceeds its words: {self._pending}")
        result = reduce(_COMBINE[kind], [each.value for each in exchanges])
        self.reduced(exchanges, result)
        return dict.fromkeys(self.ranks, result)

    def _tree_answers(self) -> dict[int, Any]:
        answers: dict[int, Any] = {}
        for rank, exchange in self._pending.items():
            if isinstance(exchange, SendToParent):
                if rank == COORDINATOR or rank in self._sent:
                    raise Stuck(f"rank {rank} sends to nobody, or twice: {self._pending}")
                self._sent[rank] = self.carry(exchange.message)
                answers[rank] = None
            elif isinstance(exchange, CollectFromChildren):
                children = tree_children(rank, len(self.ranks), self._radix)
                if all(child in self._sent for child in children):
                    answers[rank] = [self._sent.pop(child) for child in children]
        return answers


class Watcher:
    """What a cycle looks like from rank 0, for those who write it down; every method may be overridden.

    Called in this order: ``cycle_begins``, then what the control plane does of ``hits_seen``, ``lists_counted``,
    then ``agreed``.
    """

    def cycle_begins(self) -> None:
        """All ranks are about to pop."""

    def hits_seen(self, anywhere: Sequence[str], common: Sequence[str]) -> None:
        """``cached``: tensors that at least one rank hits in this cycle, and those that all hit, by bit.

        Entries erased in this cycle are left out.
        """

    def lists_counted(self, lists: Sequence[RequestList]) -> None:
        """``point-to-point``, ``coordinator``, ``cached``: what rank 0 counts, in rank order, its own first."""

    def agreed(self, schedule: Schedule) -> None:
        """Every rank has this schedule and will execute it next."""


class LockStep(Conversations):
    """``plane`` is a control plane that negotiates; raises KeyError for another name."""

    def __init__(self, plane: str, settings: Settings, watcher: Watcher | None = None) -> None:
        super().__init__(settings.ranks, settings.radix)
        self.settings = settings
        self.negotiators: list[Any] = [make_negotiator(plane, rank, settings) for rank in self.ranks]
        self.queues = [TensorQueue() for _ in self.ranks]
        self._watcher = watcher or Watcher()
        self._vectors: list[int] = []  # of this cycle's AND, for as long as an OR may erase some of it

    def submit(self, rank: int, *unit: Request) -> None:
        """Queue a tensor, or a group as one unit, at one rank. Raises DuplicateName."""
        self.queues[rank].submit(unit)

    def cycle(self, *, stalled: Mapping[int, Collection[str]] | None = None) -> Schedule:
        """One cycle on every rank; the schedule counts as executed. ``stalled``: by rank, hits to give up on.

        Raises Stuck, or AssertionError when schedules differ, for a fault in the protocol code.
        """
        self._watcher.cycle_begins()
        conversations = []
        for rank, negotiator in enumerate(self.negotiators):
            more = {"stalled": frozenset(stalled[rank])} if stalled and rank in stalled else {}
            conversations.append(negotiator.cycle(self.queues[rank].pop(), **more))
        schedules: list[Schedule] = self.outcomes(conversations)
        first = schedules[COORDINATOR]
        assert all(schedule == first for schedule in schedules), "ranks disagree on what to execute (I2)"
        self._watcher.agreed(first)
        for response in first.responses:
            for name in response.names:
                for queue in self.queues:
                    if name in queue:  # a rank that has joined took part with zeros
                        queue.finish(name)
        return first

    def gathered(self, messages: Sequence[Message]) -> None:
        self._watcher.lists_counted([each for each in messages if isinstance(each, RequestList)])

    def reduced(self, exchanges: Sequence[AndReduce | OrReduce], result: int) -> None:
        if isinstance(exchanges[COORDINATOR], OrReduce):
            self._tell_hits(erased=result)
            return
        self._vectors = [each.value for each in exchanges]
        if result >> _INVALID_FLAG & 1:
            self._tell_hits(erased=0)

    def _tell_hits(self, erased: int) -> None:
        cache: ResponseCache = self.negotiators[COORDINATOR].cache
        anywhere = reduce(operator.or_, self._vectors) >> STATUS_BITS & ~erased
        common = reduce(operator.and_, self._vectors) >> STATUS_BITS & ~erased
        live = [(bit, name) for bit, name in cache.names_by_bit() if anywhere >> bit & 1] if anywhere else []
        self._watcher.hits_seen([name for _, name in live], [name for bit, name in live if common >> bit & 1])
