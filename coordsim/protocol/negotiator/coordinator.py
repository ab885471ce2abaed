"""One rank that hears everybody, every cycle."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Sequence
from typing import Any

from coordsim.protocol.messages import (
    Op,
    Ranges,
    Request,
    RequestList,
    Response,
    ResponseList,
    everybody_joined,
)
from coordsim.protocol.negotiator.decisions import Schedule, Settings, agree
from coordsim.protocol.negotiator.exchanges import COORDINATOR, BroadcastList, Cycle, Exchange, GatherLists
from coordsim.protocol.ranges import ranges
from coordsim.protocol.readiness import ReadinessTable


class CoordinatorNegotiator:
    """Horovod 0.13.3 to 0.16.1 (and ``point-to-point`` before): everything goes to rank 0, every cycle.

    Source: horovod/common/controller.cc and horovod PR #276 (docs/horovod.md 3).
    """

    def __init__(self, rank: int, settings: Settings) -> None:
        self.rank = rank
        self.settings = settings
        self.table = ReadinessTable(range(settings.ranks)) if rank == COORDINATOR else None
        self.explained: dict[str, Ranges] = {}
        """After a cycle with ``explain``, on the coordinator: which ranks lack each of those names."""

    @property
    def waiting(self) -> tuple[str, ...]:
        """Cache hits offered and not yet common: none without a cache."""
        return ()

    @property
    def pending(self) -> tuple[str, ...]:
        """On the coordinator: names that some rank has asked for and another has not, oldest first."""
        return self.table.names if self.table is not None else ()

    def cycle(
        self, requests: Iterable[Request], *, shutdown: bool = False, stalled: Collection[str] = (),
        explain: Collection[str] = (),
    ) -> Cycle:  # fmt: skip
        """One cycle with what was popped. Returns the schedule that all ranks execute.

        ``shutdown``: this rank wants to stop. ``stalled``: see :meth:`CachedNegotiator.cycle`; nothing here.
        ``explain``: pending names that have waited too long; afterwards :attr:`explained` says for whom.
        """
        data, joining = without_join(requests)
        message = RequestList(self.rank, data, shutdown, self.rank if joining else -1)
        answer = yield from self._ask(message, ())
        self._explain(explain)
        return Schedule(answer.responses, slow=True, shutdown=answer.shutdown)

    def missing(self) -> dict[str, tuple[int, ...]]:
        """On the coordinator, per name that waits: the ranks with data that have not asked for it."""
        return self.table.missing() if self.table is not None else {}

    def _ask(self, message: RequestList, hits: Iterable[Response]) -> Generator[Exchange, Any, ResponseList]:
        lists = yield GatherLists(message)
        answer = decide(self.table, lists, hits, self.settings) if self.table is not None else None
        final: ResponseList = yield BroadcastList(answer)
        if self.table is not None and all_joined(final.responses):
            self.table.forget_joins()
        return final

    def _explain(self, names: Collection[str]) -> None:
        self.explained = {}
        if self.table is not None and names:
            waiting = [name for name in self.table.names if name in names]
            self.explained = {name: ranges(self.table.missing_for(name)) for name in waiting}


def without_join(requests: Iterable[Request]) -> tuple[tuple[Request, ...], bool]:
    """Requests for data, and whether the rank joins."""
    popped = tuple(requests)
    data = tuple(request for request in popped if request.op is not Op.JOIN)
    return data, len(data) < len(popped)


def all_joined(responses: Iterable[Response]) -> bool:
    """Whether a schedule ends a join."""
    return any(response.op is Op.JOIN for response in responses)


def count(table: ReadinessTable, lists: Sequence[RequestList]) -> list[str]:
    """Names completed by these lists: by list, then by position in it; then those that only joins complete.

    Joins count last, since a rank's requests in this cycle's lists are its own even if it joins in it.
    """
    complete = []
    for received in lists:
        for request in received.requests:
            if table.add(received.rank, request):
                complete.append(request.name)
        for name, reason in received.errors:
            if table.add_error(received.rank, name, reason):
                complete.append(name)
    joins = [received for received in lists if received.joined >= 0]
    for received in joins:
        table.join(received.rank)
    if joins:
        table.last_joined = max(received.joined for received in joins)
    return complete + table.completed_by_joins()


def decide(
    table: ReadinessTable, lists: Sequence[RequestList], hits: Iterable[Response], settings: Settings
) -> ResponseList:
    """What the deciding rank answers. ``hits``: what the cache alone agreed on, ascending bit.

    When everybody has joined, no rank has data behind the common bits, so there are no hits.
    """
    ready = [table.take(name).response() for name in count(table, lists)]
    over = table.everybody_joined
    responses = agree(() if over else hits, ready, settings)
    if over:
        responses += (everybody_joined(table.last_joined),)
    return ResponseList(responses, any(each.shutdown for each in lists), table.anybody_joined)
