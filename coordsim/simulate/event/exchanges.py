"""Which program serves which exchange of a negotiator, and the serial work around it (docs/semantics.md 4.3)."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from coordsim.cost import programs
from coordsim.cost.programs import Program, Work
from coordsim.cost.wire_sizes import LENGTH_BYTES
from coordsim.protocol import negotiator as say
from coordsim.protocol.messages import Bundle, RequestList
from coordsim.simulate.event.clock import Wait
from coordsim.simulate.event.interpreter import Endpoint, Interpreter
from coordsim.simulate.problem import Problem


@dataclass(slots=True, kw_only=True)
class Caller(Endpoint):
    """An endpoint that negotiates; what it took in during the current cycle."""

    popped: int = 0
    """Own requests popped."""
    requests: int = 0
    """Requests counted here, its own included."""
    request_bytes: int = 0
    """Bytes of the lists taken in here."""


class Exchanges:
    """Performs exchanges for all ranks of one job."""

    def __init__(self, problem: Problem, messages: Interpreter) -> None:
        self.problem = problem
        self._messages = messages

    def converse(self, me: Caller, conversation: say.Cycle, cycle: int) -> Wait:
        """All exchanges of one cycle of ``me``'s negotiator; returns its schedule."""
        result: Any = None
        while True:
            try:
                exchange = conversation.send(result)
            except StopIteration as stop:
                return stop.value
            result = yield from self.perform(me, exchange, cycle)

    def perform(self, me: Caller, exchange: say.Exchange, cycle: int) -> Wait:
        """One exchange of ``me``'s negotiator; returns its result."""
        ranks, rank = self.problem.ranks, me.rank
        match exchange:
            case say.AndReduce(value, words):
                program = self._reduce_program(rank, 8 * words, value, operator.and_)
                return (yield from self._messages.run(me, program, (cycle, "and")))
            case say.OrReduce(value, words):
                program = self._reduce_program(rank, 8 * words, value, operator.or_)
                return (yield from self._messages.run(me, program, (cycle, "or")))
            case say.GatherLists(message):
                return (yield from self._gather(me, message, cycle))
            case say.BroadcastList(message):
                return (yield from self._broadcast(me, message, cycle))
            case say.CollectFromChildren():
                children = say.tree_children(rank, ranks, self.problem.settings.radix)
                lists = yield from self._messages.run(me, programs.tree_collect(children), (cycle, "up"))
                yield from self._count(me, [lists[child] for child in children], cycle)
                return [lists[child] for child in children]
            case say.SendToParent(message):
                parent = say.tree_parent(rank, self.problem.settings.radix)
                size = self.problem.request_list_bytes(message)
                return (yield from self._messages.run(me, programs.tree_send(parent, size, message), (cycle, "up")))
            case say.BroadcastDownTree(message):
                yield from self._build(me, message, cycle)
                children = say.tree_children(rank, ranks, self.problem.settings.radix)
                up = say.tree_parent(rank, self.problem.settings.radix) if rank else None
                size = self.problem.response_list_bytes(message) if message else 0
                program = programs.tree_broadcast(up, children, size, message)
                return (yield from self._messages.run(me, program, (cycle, "down")))

    def _reduce_program(self, rank: int, nbytes: int, value: int, combine: Callable[[int, int], int]) -> Program:
        control, ranks = self.problem.control, self.problem.ranks
        if control.and_reduce == "ring":
            return programs.reduce_ring(rank, ranks, nbytes, value, combine)
        if control.and_reduce == "in-network":
            return programs.reduce_in_network(ranks, value, combine, control.in_network_ns)
        return programs.reduce_recursive_doubling(rank, ranks, nbytes, value, combine)

    def _gather(self, me: Caller, message: RequestList, cycle: int) -> Wait:
        """Every rank's list to the coordinator: first all lengths, then all lists."""
        size = self.problem.request_list_bytes(message)
        length = self._gather_program(me.rank, LENGTH_BYTES, size, None)
        lengths = yield from self._messages.run(me, length, (cycle, "lengths"))
        program = self._gather_program(me.rank, size, message, lengths)
        lists = yield from self._messages.run(me, program, (cycle, "lists"))
        if lists is not None:
            yield from self._count(me, list(lists.values()), cycle)
        return self._by_rank(lists)

    def _by_rank(self, lists: dict[int, RequestList] | None) -> list[RequestList] | None:
        return [lists[rank] for rank in range(self.problem.ranks)] if lists is not None else None

    def _gather_program(self, rank: int, size: int, payload: Any, lengths: dict[int, int] | None) -> Program:
        control, ranks = self.problem.control, self.problem.ranks
        if control.gather == "binomial":
            return programs.gather_binomial(rank, ranks, size, payload)
        if control.gather == "node-leaders":
            per_node = self.problem.network.ranks_per_node
            return programs.gather_node_leaders(rank, ranks, size, payload, per_node)
        return programs.gather_linear(rank, ranks, size, payload, control.eager_limit_bytes, lengths)

    def _broadcast(self, me: Caller, message: Any, cycle: int) -> Wait:
        """The coordinator's list to every rank: first its length, then the list."""
        size = self.problem.response_list_bytes(message) if message is not None else 0
        yield from self._build(me, message, cycle)
        ranks = self.problem.ranks
        length = programs.broadcast_binomial(me.rank, ranks, LENGTH_BYTES, size)
        yield from self._messages.run(me, length, (cycle, "broadcast length"))
        program = programs.broadcast_binomial(me.rank, ranks, size, message)
        return (yield from self._messages.run(me, program, (cycle, "broadcast")))

    def _count(self, me: Caller, lists: Sequence[RequestList | Bundle], cycle: int) -> Wait:
        """The serial work of parsing and counting what came in, once all of it is there."""
        host = self.problem.host
        others = [received for received in lists if received.rank != me.rank]
        counted = sum(_requests(received) for received in lists)
        decides = self.problem.settings.merge or me.rank == say.COORDINATOR
        if len(others) == len(lists) and decides:  # a tree's node: its own requests are counted too
            counted += me.popped
        work_ns = host.per_message_ns * len(others) + host.per_request_ns * counted
        self._note(me, others, counted)
        yield from self._messages.run(me, _just(Work(work_ns)), (cycle, "count"))

    def _note(self, me: Caller, lists: Sequence[RequestList | Bundle], counted: int | None = None) -> None:
        me.requests = sum(_requests(each) for each in lists) if counted is None else counted
        me.request_bytes = sum(self.problem.request_list_bytes(each) for each in lists if each.rank != me.rank)

    def _build(self, me: Caller, message: Any, cycle: int) -> Wait:
        """The serial work of building responses, at the coordinator."""
        if message is not None:
            built = sum(len(response.names) for response in message.responses)
            work = Work(self.problem.host.per_response_ns * built)
            yield from self._messages.run(me, _just(work), (cycle, "build"))


class StarExchanges(Exchanges):
    """Every worker messages rank 0, which serves lists as they come and answers one worker after the other."""

    def _gather(self, me: Caller, message: RequestList, cycle: int) -> Wait:
        host = self.problem.host
        size = self.problem.request_list_bytes(message)
        own_work = host.per_request_ns * len(message.requests)

        def work(received: RequestList) -> int:
            return host.per_message_ns + host.per_request_ns * len(received.requests)

        program = programs.star_gather(me.rank, self.problem.ranks, size, message, work, own_work)
        lists = yield from self._messages.run(me, program, (cycle, "gather"))
        if lists is not None:
            self._note(me, list(lists.values()))
        return self._by_rank(lists)

    def _broadcast(self, me: Caller, message: Any, cycle: int) -> Wait:
        size = self.problem.response_list_bytes(message) if message is not None else 0
        yield from self._build(me, message, cycle)
        program = programs.star_broadcast(me.rank, self.problem.ranks, size, message)
        return (yield from self._messages.run(me, program, (cycle, "broadcast")))


def _requests(message: RequestList | Bundle) -> int:
    if isinstance(message, Bundle):
        return sum(len(each.requests) for each in message.lists)
    return len(message.requests)


def _just(op: programs.Op) -> Program:
    yield op
