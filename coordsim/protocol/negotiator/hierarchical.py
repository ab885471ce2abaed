"""A tree of ranks between everybody and the one that decides."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from coordsim.protocol.messages import Bundle, Ranges, Request, RequestList, ResponseList
from coordsim.protocol.negotiator.coordinator import all_joined, count, decide, without_join
from coordsim.protocol.negotiator.decisions import Schedule, Settings
from coordsim.protocol.negotiator.exchanges import (
    COORDINATOR,
    BroadcastDownTree,
    CollectFromChildren,
    Cycle,
    SendToParent,
)
from coordsim.protocol.ranges import ranges, united
from coordsim.protocol.readiness import ReadinessTable


class HierarchicalNegotiator:
    """A heap-ordered tree of radix r; a node passes on only what its whole subtree asked for, once.

    With ``settings.merge`` off it passes on every list as it came, and the root counts like a coordinator.
    A merged subtree joins when its last rank does.
    Source: Kurth et al., SC'18 (their Horovod fork; body not available, see docs/published.md V8).
    """

    def __init__(self, rank: int, settings: Settings) -> None:
        self.rank = rank
        self.settings = settings
        self.children = tree_children(rank, settings.ranks, settings.radix)
        self.table = _table(rank, self.children, settings)
        self.explained: dict[str, Ranges] = {}
        """On the root: which ranks lack each name of ``explain``; when merging, one cycle after it was asked."""
        self._to_explain: tuple[str, ...] = ()

    @property
    def waiting(self) -> tuple[str, ...]:
        """Cache hits offered and not yet common: none without a cache."""
        return ()

    @property
    def pending(self) -> tuple[str, ...]:
        """On the root: names that some of its subtrees have asked for and others have not, oldest first."""
        return self.table.names if self.table is not None and self.rank == COORDINATOR else ()

    def cycle(
        self, requests: Iterable[Request], *, shutdown: bool = False, stalled: Collection[str] = (),
        explain: Collection[str] = (),
    ) -> Cycle:  # fmt: skip
        """One cycle with what was popped. Returns the schedule that all ranks execute.

        ``shutdown``, ``stalled``, ``explain``: as :meth:`CoordinatorNegotiator.cycle`.
        """
        data, joining = without_join(requests)
        own = RequestList(self.rank, data, shutdown, self.rank if joining else -1)
        below = (yield CollectFromChildren()) if self.children else []
        answer = None
        if self.rank != COORDINATOR:
            yield SendToParent(self._merged([own, *below]) if self.settings.merge else bundled(own, below))
        else:
            answer = self._decide(own, below, explain)
        final: ResponseList = yield BroadcastDownTree(answer)
        self._to_explain = final.explain
        if self.table is not None and all_joined(final.responses):
            self.table.forget_joins()
        return Schedule(final.responses, slow=True, shutdown=final.shutdown)

    def missing(self) -> dict[str, tuple[int, ...]]:
        """Per name that waits here: the children (roots of subtrees) or the rank itself that miss it.

        Without merging the root alone knows, and names ranks.
        """
        return self.table.missing() if self.table is not None else {}

    def _decide(
        self, own: RequestList, below: Sequence[RequestList | Bundle], explain: Collection[str]
    ) -> ResponseList:
        """At the root."""
        assert self.table is not None
        merged = [own, *(each for each in below if isinstance(each, RequestList))]
        lists = merged if self.settings.merge else by_rank(own, below)
        answer = decide(self.table, lists, (), self.settings)
        waiting = tuple(name for name in self.table.names if name in explain)
        if self.settings.merge:
            self.explained = dict(self._missing_below(merged, self.table.names))
            return replace(answer, explain=waiting)
        self.explained = {name: ranges(self.table.missing_for(name)) for name in waiting}
        return answer

    def _merged(self, lists: Sequence[RequestList]) -> RequestList:
        """What this node's subtree asks for as a whole."""
        assert self.table is not None
        everybody_had = self.table.everybody_joined
        complete = [self.table.take(name) for name in count(self.table, lists)]
        return RequestList(
            self.rank,
            tuple(agreed.request for agreed in complete if not agreed.error),
            any(each.shutdown for each in lists),
            self.table.last_joined if self.table.everybody_joined and not everybody_had else -1,
            tuple((agreed.request.name, agreed.error) for agreed in complete if agreed.error),
            self._missing_below(lists, self._to_explain),
        )

    def _missing_below(
        self, lists: Sequence[RequestList], names: Iterable[str]
    ) -> tuple[tuple[str, Ranges], ...]:
        """For those of ``names`` that the root asked about: the ranks of this subtree that lack it, if it does.

        A child that has passed a name on is not asked; one that has not says who is missing.
        """
        assert self.table is not None
        told = {each.rank: dict(each.missing) for each in lists}
        found = []
        for name in names:
            if name in self._to_explain:
                absent = self.table.missing_for(name)
                parts = [((rank, rank),) if rank == self.rank else told[rank][name] for rank in absent]
                found.append((name, united(part for ranges_ in parts for part in ranges_)))
        return tuple(found)


def bundled(own: RequestList, below: Iterable[RequestList | Bundle]) -> Bundle:
    """Every list of a subtree that says something, as it came; ranks ascending."""
    return Bundle(own.rank, tuple(each for each in by_rank(own, below) if not each.silent))


def by_rank(own: RequestList, below: Iterable[RequestList | Bundle]) -> list[RequestList]:
    """A node's own list and all those in its children's bundles, ranks ascending."""
    lists = [each for bundle in below if isinstance(bundle, Bundle) for each in bundle.lists]
    return sorted([own, *lists], key=lambda each: each.rank)


def _table(rank: int, children: tuple[int, ...], settings: Settings) -> ReadinessTable | None:
    if settings.merge:
        return ReadinessTable((rank, *children))
    return ReadinessTable(range(settings.ranks)) if rank == COORDINATOR else None


def tree_children(rank: int, ranks: int, radix: int) -> tuple[int, ...]:
    """Children of ``rank`` in the heap-ordered tree, ascending."""
    first = radix * rank + 1
    return tuple(range(first, min(first + radix, ranks)))


def tree_parent(rank: int, radix: int) -> int:
    """Parent of ``rank`` (> 0) in the heap-ordered tree."""
    return (rank - 1) // radix
