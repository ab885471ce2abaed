"""All ranks' sessions of one job in lock-step, with everything that tests want to know written down."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from coordsim.protocol import wire
from coordsim.protocol.fusion import fuse
from coordsim.protocol.groups import GroupTable
from coordsim.protocol.invariants import InvariantWatch
from coordsim.protocol.lockstep import Asked, Conversations
from coordsim.protocol.messages import (
    Bundle,
    Claims,
    Op,
    Request,
    RequestList,
    Response,
    ResponseList,
    respond_to,
)
from coordsim.protocol.negotiator import (
    COORDINATOR,
    AndReduce,
    CachedNegotiator,
    OrReduce,
    Schedule,
    Settings,
)
from coordsim.protocol.planes import NEGOTIATED
from coordsim.protocol.session import Session
from coordsim.protocol.stall import StallLimits, StallReport

UNMERGED = "hierarchical, unmerged"
KINDS = (*NEGOTIATED, UNMERGED)
SMALL = 1 << 20
"""A fusion threshold that most tests never reach, bytes."""


def settings(
    ranks: int, *, threshold: int = SMALL, groups: Iterable[tuple[str, ...]] = (), strict: bool = False,
    capacity: int = 1024, radix: int = 2, merge: bool = True,
) -> Settings:  # fmt: skip
    return Settings(ranks, threshold, GroupTable(tuple(groups), strict), capacity, radix, merge)


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
    limits: StallLimits | None = None
    schedules: list[Schedule] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    exchanges: list[list[str]] = field(default_factory=list)
    """Per cycle: kinds of the exchanges rank 0 took part in."""
    asked: list[list[tuple[str, ...]]] = field(default_factory=list)
    """Per cycle, by rank: names in the list that the rank itself built; empty when it built none."""
    vector_words: int = 0
    drained: list[tuple[str, ...]] = field(default_factory=list)
    """By rank, after a shutdown: what had to fail."""
    reports: list[StallReport] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.kind == UNMERGED:
            self.kind, self.settings = "hierarchical", replace(self.settings, merge=False)
        self.ranks = range(self.settings.ranks)
        self.sessions = [self.session(rank) for rank in self.ranks]
        self.negotiators: list[Any] = [each.negotiator for each in self.sessions]
        self.queues = [each.queue for each in self.sessions]
        self.watch = InvariantWatch(self.negotiators, self.queues)
        JobConversations(self).outcomes([each.start() for each in self.sessions])

    def session(self, rank: int) -> Session:
        return Session(self.kind, rank, self.settings, self.limits)

    def submit(self, rank: int, *unit: Request) -> None:
        self.sessions[rank].submit(unit)

    def everybody(self, *unit: Request, but: Collection[int] = ()) -> None:
        for rank in self.ranks:
            if rank not in but:
                self.submit(rank, *unit)

    def join(self, *ranks: int) -> None:
        for rank in ranks:
            self.sessions[rank].join()

    def step(self, *units: Request, but: Collection[int] = ()) -> Schedule:
        """Every rank submits each tensor on its own; then one cycle."""
        for unit in units:
            self.everybody(unit, but=but)
        return self.cycle()

    def cycle(
        self, *, shutdown: Collection[int] = (), stalled: Mapping[int, Collection[str]] | None = None,
        explain: Collection[str] = (),
    ) -> Schedule:  # fmt: skip
        """One cycle on every rank. Raises InvariantBroken, or AssertionError when no rank can go on."""
        return self._finish_cycle([
            negotiator.cycle(
                self.queues[rank].pop(), shutdown=rank in shutdown,
                stalled=frozenset((stalled or {}).get(rank, ())), explain=explain,
            )
            for rank, negotiator in enumerate(self.negotiators)
        ])  # fmt: skip

    def turn(self, now_ns: int) -> Schedule:
        """One cycle as a backend has it, with stall clocks; all clocks show the same."""
        schedule = self._finish_cycle([each.turn(now_ns) for each in self.sessions])
        self.reports += [each.report for each in self.sessions if each.report is not None]
        return schedule

    def errors(self) -> dict[str, str]:
        """Names that ended in an error, with the text of the last one."""
        return {each.name: each.error for each in self.ended if each.error}

    def count(self, kind: str) -> int:
        """How many exchanges of ``kind`` there were so far."""
        return sum(each.count(kind) for each in self.exchanges)

    def _finish_cycle(self, conversations: list[Any]) -> Schedule:
        self.exchanges.append([])
        self.asked.append([() for _ in self.ranks])
        schedules = JobConversations(self).outcomes(conversations)
        self.watch.cycle_done(schedules)
        schedule: Schedule = schedules[0]
        for response in schedule.responses:
            assert (response.op is Op.ERROR) == bool(response.error)
            self.ended += [Ended(len(self.schedules), name, response.error) for name in response.names]
            self.execute(response)
        self.schedules.append(schedule)
        if schedule.shutdown:
            self.drained = [each.end() for each in self.sessions]
        return schedule

    def execute(self, response: Response) -> None:
        """No data moves here; :mod:`tests.protocol.data` moves some."""
        for each in self.sessions:
            each.finish(response)


class JobConversations(Conversations):
    """Notes in ``job`` what passes; messages go through the wire form if the job wants it."""

    def __init__(self, job: Job) -> None:
        super().__init__(job.settings.ranks, job.settings.radix)
        self._job = job

    def asks(self, rank: int, exchange: Asked) -> None:
        if rank == COORDINATOR and self._job.exchanges:
            self._job.exchanges[-1].append(type(exchange).__name__)

    def reduced(self, exchanges: Sequence[AndReduce | OrReduce], result: int) -> None:
        self._job.vector_words = exchanges[COORDINATOR].words

    def carry(self, message: wire.Message) -> wire.Message:
        for each in message.lists if isinstance(message, Bundle) else [message]:
            if isinstance(each, RequestList) and each.rank == getattr(message, "rank", None):
                self._job.asked[-1][each.rank] = tuple(request.name for request in each.requests)
        if not self._job.through_wire:
            return message
        data = wire.encode(message)
        assert len(data) == wire.list_bytes(message)
        received = DECODERS[type(message)](data)
        assert received == message
        return received


DECODERS: dict[type, Callable[[bytes], wire.Message]] = {
    RequestList: wire.decode_requests, Bundle: wire.decode_bundle, ResponseList: wire.decode_responses,
    Claims: wire.decode_claims,
}  # fmt: skip


def caches(job: Job) -> list[list[tuple[int, str]]]:
    """Every rank's live (bit, name) pairs."""
    assert all(isinstance(each, CachedNegotiator) for each in job.negotiators)
    return [list(each.cache.names_by_bit()) for each in job.negotiators]
