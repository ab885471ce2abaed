"""All ranks in lock-step: what each exchange is answered, what is refused, and what a watcher is told."""

from __future__ import annotations

import random
from collections.abc import Generator, Iterable, Sequence
from typing import Any

import pytest

from coordsim.protocol.lockstep import Asked, Conversations, LockStep, Stuck, Watcher
from coordsim.protocol.messages import Claims, Request, RequestList, ResponseList, join_request
from coordsim.protocol.negotiator import (
    AndReduce,
    BroadcastDownTree,
    BroadcastList,
    CachedNegotiator,
    CollectFromChildren,
    Cycle,
    GatherLists,
    OrReduce,
    Schedule,
    SendToParent,
)
from coordsim.protocol.planes import NEGOTIATED
from coordsim.protocol.queue import DuplicateName
from coordsim.protocol.startup import BroadcastClaims, GatherClaims, SettingsDiffer
from coordsim.protocol.wire import Message
from tests.protocol.drive import Job, caches, fused, settings, tensor


class Notes(Watcher):
    """Everything it is told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def cycle_begins(self) -> None:
        self.told.append(("begins",))

    def hits_seen(self, anywhere: Sequence[str], common: Sequence[str]) -> None:
        self.told.append(("hits", list(anywhere), list(common)))

    def lists_counted(self, lists: Sequence[RequestList]) -> None:
        self.told.append(("lists", [[request.name for request in each.requests] for each in lists]))

    def agreed(self, schedule: Schedule) -> None:
        self.told.append(("agreed", fused(schedule.responses)))

    def last(self) -> list[tuple[object, ...]]:
        """Of the last cycle, without its beginning; then forget everything."""
        told, self.told = self.told, []
        assert told[0] == ("begins",)
        return told[1:]


def asking(*exchanges: Asked) -> Generator[Asked, Any, list[Any]]:
    """A conversation that asks for these and returns what it was sent."""
    answers = []
    for exchange in exchanges:
        answers.append((yield exchange))
    return answers


def answered(*by_rank: Sequence[Asked], radix: int = 2) -> list[list[Any]]:
    """By rank: the answers to these exchanges."""
    return Conversations(len(by_rank), radix).outcomes([asking(*exchanges) for exchanges in by_rank])


REPLY = ResponseList((), shutdown=True)
UP = SendToParent(RequestList(1))


def test_vectors_are_combined_over_all_ranks() -> None:
    by_rank = [[AndReduce(value, 1), OrReduce(value, 1)] for value in (0b0111, 0b1101, 0b0101)]
    assert answered(*by_rank) == [[0b0101, 0b1111]] * 3


@pytest.mark.parametrize(
    ("gather", "broadcast", "messages", "reply"),
    [
        (GatherLists, BroadcastList, [RequestList(rank) for rank in range(3)], REPLY),
        (GatherClaims, BroadcastClaims, [Claims(rank, ()) for rank in range(3)], Claims(0, (("a", "b"),))),
    ],
)
def test_the_coordinator_alone_is_sent_what_is_gathered_and_everybody_its_reply(
    gather: Any, broadcast: Any, messages: list[Any], reply: Message
) -> None:
    by_rank = [[gather(message), broadcast(None if rank else reply)] for rank, message in enumerate(messages)]
    assert answered(*by_rank) == [[messages, reply], [None, reply], [None, reply]]


def test_a_node_is_sent_what_its_children_sent_ascending_and_not_its_grandchildren() -> None:
    """Radix 2: 1 and 2 below 0; 3 and 4 below 1; 5 below 2."""
    up = [RequestList(rank) for rank in range(6)]
    inner = [[CollectFromChildren(), SendToParent(up[rank]), BroadcastDownTree(None)] for rank in (1, 2)]
    leaves = [[SendToParent(up[rank]), BroadcastDownTree(None)] for rank in (3, 4, 5)]
    assert answered([CollectFromChildren(), BroadcastDownTree(REPLY)], *inner, *leaves) == [
        [[up[1], up[2]], REPLY], [[up[3], up[4]], None, REPLY], [[up[5]], None, REPLY], *[[None, REPLY]] * 3,
    ]  # fmt: skip


class Noted(Conversations):
    """Two ranks: lists get a request and answers lose their shutdown on the way; notes everything."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.notes: list[Any] = []

    def asks(self, rank: int, exchange: Asked) -> None:
        self.notes.append((rank, type(exchange).__name__))

    def carry(self, message: Message) -> Message:
        if isinstance(message, RequestList):
            return RequestList(message.rank, (tensor(f"t{message.rank}"),))
        return ResponseList(())

    def gathered(self, messages: Sequence[Message]) -> None:
        self.notes.append(list(messages))

    def reduced(self, exchanges: Sequence[AndReduce | OrReduce], result: int) -> None:
        self.notes.append(([each.value for each in exchanges], result))


def test_messages_go_through_the_carrier_and_hooks_hear_of_everything_in_order() -> None:
    noted = Noted()
    lists = [RequestList(rank, (tensor(f"t{rank}"),)) for rank in (0, 1)]
    reply = ResponseList(())
    talk = [
        asking(GatherLists(RequestList(r)), BroadcastList(None if r else REPLY), AndReduce(2 + r, 1)) for r in (0, 1)
    ]
    assert noted.outcomes(talk) == [[lists, reply, 2], [None, reply, 2]]
    assert noted.notes == [
        (0, "GatherLists"), (1, "GatherLists"), lists, (0, "BroadcastList"), (1, "BroadcastList"),
        (0, "AndReduce"), (1, "AndReduce"), ([2, 3], 2),
    ]  # fmt: skip
    tree = [asking(CollectFromChildren(), BroadcastDownTree(REPLY)), asking(UP, BroadcastDownTree(None))]
    assert noted.outcomes(tree) == [[[lists[1]], reply], [None, reply]]


@pytest.mark.parametrize(
    ("by_rank", "match"),
    [
        ([[AndReduce(1, 1)], [OrReduce(1, 1)]], "different exchanges"),
        ([[AndReduce(1, 1)], [AndReduce(1, 2)]], "different lengths"),
        ([[AndReduce(1, 1)], [AndReduce(1 << 64, 1)]], "exceeds its words"),
        ([[BroadcastList(None)], [BroadcastList(None)]], "not the coordinator alone"),
        ([[BroadcastList(REPLY)], [BroadcastList(REPLY)]], "not the coordinator alone"),
        ([[SendToParent(RequestList(0))], []], "sends to nobody"),
        ([[], [UP, UP]], "or twice"),
        ([[], [UP]], "no parent took"),
        ([[CollectFromChildren()], []], "nobody can go on"),
        ([[AndReduce(1, 1)], []], "nobody can go on"),
        ([["no exchange"], ["no exchange"]], "nobody can go on"),
    ],
)
def test_exchanges_that_make_no_sense_are_a_fault_of_the_protocol(by_rank: list[Any], match: str) -> None:
    with pytest.raises(Stuck, match=match):
        answered(*by_rank)


def test_ranks_must_stop_together_with_the_same_words() -> None:
    def raising(words: str) -> Generator[Asked, Any, None]:
        yield AndReduce(0, 1)
        raise SettingsDiffer(words)

    with pytest.raises(SettingsDiffer, match="as one"):
        Conversations(2, 2).outcomes([raising("as one"), raising("as one")])
    for other in (raising("otherwise"), asking(AndReduce(0, 1))):
        with pytest.raises(Stuck, match="not on every rank"):
            Conversations(2, 2).outcomes([raising("as one"), other])


@pytest.mark.parametrize("plane", NEGOTIATED)
@pytest.mark.parametrize("seed", range(6))
def test_it_decides_as_sessions_do_over_the_wire(plane: str, seed: int) -> None:
    """Random orders, lateness, shapes that change; a small cache and a small threshold."""
    dice = random.Random(seed)
    ranks = dice.choice([1, 2, 3, 7])
    chosen = settings(ranks, threshold=dice.choice([0, 40, 1000]), capacity=dice.choice([1, 3, 64]))
    one, other = LockStep(plane, chosen), Job(plane, chosen, through_wire=True)
    for _ in range(5):
        requests = [tensor(f"t{index}", dice.choice([4, 4, 8])) for index in range(6)]
        late = [[dice.randrange(4) for _ in requests] for _ in range(ranks)]
        for cycle in range(4):
            for rank in range(ranks):
                ready = [request for request, at in zip(requests, late[rank], strict=True) if at == cycle]
                for request in dice.sample(ready, len(ready)):
                    one.submit(rank, request)
                    other.submit(rank, request)
            assert one.cycle() == other.cycle()
    assert not any(one.queues)
    if plane == "cached":
        assert [list(each.cache.names_by_bit()) for each in one.negotiators] == caches(other)


def test_a_watcher_of_the_cache_hears_hits_lists_and_schedule() -> None:
    notes = Notes()
    job = LockStep("cached", settings(2), notes)
    for rank in (0, 1):
        job.submit(rank, tensor("x"))
        job.submit(rank, tensor("y"))
    job.cycle()
    assert notes.last() == [("hits", [], []), ("lists", [["x", "y"]] * 2), ("agreed", [("x", "y")])]

    job.submit(1, tensor("y"))
    job.submit(1, tensor("x"))
    job.submit(0, tensor("x"))
    job.cycle()
    assert notes.last() == [("hits", ["x", "y"], ["x"]), ("agreed", [("x",)])], "by bit"

    job.submit(0, tensor("y", 5))
    job.cycle()
    erased = [("hits", [], []), ("lists", [["y"], ["y"]]), ("agreed", [("y",)])]
    assert notes.last() == erased, "rank 1's hit was erased under it"


def test_a_watcher_of_the_coordinator_hears_lists_in_rank_order() -> None:
    notes = Notes()
    job = LockStep("coordinator", settings(3), notes)
    job.submit(2, tensor("x"))
    job.submit(0, tensor("y"))
    job.cycle()
    assert notes.last() == [("lists", [["y"], [], ["x"]]), ("agreed", [])]


def test_a_stalled_hit_is_asked_for() -> None:
    notes = Notes()
    job = LockStep("cached", settings(2), notes)
    for rank in (0, 1):
        job.submit(rank, tensor("x"))
    job.cycle()
    job.submit(0, tensor("x"))
    job.cycle()
    notes.last()
    job.cycle(stalled={0: {"x"}})
    assert notes.last() == [("hits", [], []), ("lists", [["x"], []]), ("agreed", [])]


def test_a_rank_that_has_joined_takes_part_without_a_submission() -> None:
    job = LockStep("cached", settings(2))
    job.submit(1, join_request())
    job.cycle()
    job.submit(0, tensor("x"))
    assert fused(job.cycle().responses) == [("x",)]
    assert [len(queue) for queue in job.queues] == [0, 1], "the join is still outstanding"
    job.submit(0, join_request())
    job.cycle()
    assert not any(job.queues)


def test_a_name_is_outstanding_once() -> None:
    job = LockStep("cached", settings(2))
    job.submit(0, tensor("x"))
    with pytest.raises(DuplicateName):
        job.submit(0, tensor("x"))


def test_ranks_that_disagree_are_a_fault_of_the_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    original = CachedNegotiator.cycle

    def forgetful(self: CachedNegotiator, requests: Iterable[Request], **more: Any) -> Cycle:
        schedule = yield from original(self, requests, **more)
        return schedule if self.rank else Schedule((), slow=schedule.slow)

    monkeypatch.setattr(CachedNegotiator, "cycle", forgetful)
    job = LockStep("cached", settings(2))
    for rank in (0, 1):
        job.submit(rank, tensor("x"))
    with pytest.raises(AssertionError, match="ranks disagree"):
        job.cycle()


def test_a_rank_that_stays_away_is_a_fault_of_the_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    original = CachedNegotiator.cycle

    def silent(self: CachedNegotiator, requests: Iterable[Request], **more: Any) -> Cycle:
        if self.rank:
            return Schedule((), slow=False)
        return (yield from original(self, requests, **more))

    monkeypatch.setattr(CachedNegotiator, "cycle", silent)
    with pytest.raises(Stuck, match="nobody can go on"):
        LockStep("cached", settings(2)).cycle()
