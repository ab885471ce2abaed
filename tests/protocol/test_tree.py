"""The tree, merging or not: what travels up, and that it decides like one coordinator."""

from __future__ import annotations

from typing import Any

import pytest

from coordsim.protocol.messages import Bundle, RequestList, join_request
from coordsim.protocol.negotiator import (
    BroadcastDownTree,
    CollectFromChildren,
    HierarchicalNegotiator,
    SendToParent,
)
from tests.protocol.drive import UNMERGED, Job, settings, tensor


def node(rank: int, merge: bool) -> HierarchicalNegotiator:
    """Of 0 -> 1 (3, 4), 2 (5, 6)."""
    return HierarchicalNegotiator(rank, settings(7, merge=merge))


def sent_up(negotiator: HierarchicalNegotiator, own: list[Any], below: list[Any], **more: Any) -> Any:
    conversation = negotiator.cycle(own, **more)
    exchange = next(conversation)
    if negotiator.children:
        assert exchange == CollectFromChildren()
        exchange = conversation.send(below)
    assert isinstance(exchange, SendToParent)
    assert conversation.send(None) == BroadcastDownTree(None)
    return exchange.message


X, Y = tensor("x"), tensor("y")


def test_a_merging_node_passes_on_what_its_whole_subtree_asked_for_once() -> None:
    one = node(1, merge=True)
    assert sent_up(one, [X, Y], [RequestList(3, (X,)), RequestList(4, (X,))]) == RequestList(1, (X,))
    assert sent_up(one, [], [RequestList(3), RequestList(4, (Y,))]) == RequestList(1)
    assert sent_up(one, [], [RequestList(3, (Y,)), RequestList(4)]) == RequestList(1, (Y,))


def test_a_node_that_does_not_merge_passes_on_every_list_that_says_something() -> None:
    one = node(1, merge=False)
    lists = RequestList(3, (X,)), RequestList(4, (X, Y), shutdown=True)
    below = [Bundle(3, lists[:1]), Bundle(4, lists[1:])]
    assert sent_up(one, [Y], below) == Bundle(1, (RequestList(1, (Y,)), *lists))
    assert sent_up(one, [], [Bundle(3), Bundle(4, lists[1:])]) == Bundle(1, lists[1:])
    assert sent_up(one, [], [Bundle(3), Bundle(4)]) == Bundle(1), "silence costs a header"
    assert sent_up(node(5, merge=False), [join_request()], []) == Bundle(5, (RequestList(5, joined=5),))
    assert one.missing() == {}, "only the root counts"


@pytest.mark.parametrize("radix", [1, 2, 3, 8])
def test_without_merging_the_root_schedules_what_a_coordinator_would(radix: int) -> None:
    """Same order, too: a merging tree completes names by subtree, a coordinator by rank."""
    flat, tree, merged = (
        Job(kind, settings(9, threshold=0, radix=radix), through_wire=True)
        for kind in ("coordinator", UNMERGED, "hierarchical")
    )
    for job in (flat, tree, merged):
        for rank in job.ranks:
            for name in ("abc", "bca", "cab")[rank % 3]:
                if (rank, name) not in {(4, "c"), (7, "a")}:
                    job.submit(rank, tensor(name))
        job.cycle()
        job.submit(4, tensor("c"))
        job.submit(7, tensor("a"))
        job.cycle()
    assert tree.schedules == flat.schedules
    assert {*merged.schedules[1].responses} == {*flat.schedules[1].responses}


def test_a_merging_nodes_subtree_joins_when_its_last_rank_does() -> None:
    one = node(1, merge=True)
    assert sent_up(one, [], [RequestList(3, joined=3), RequestList(4)]) == RequestList(1)
    assert sent_up(one, [join_request()], [RequestList(3), RequestList(4)]) == RequestList(1)
    last = sent_up(one, [], [RequestList(3), RequestList(4, (X,), joined=4)])
    assert last == RequestList(1, (X,), joined=4)
    assert sent_up(one, [], [RequestList(3), RequestList(4)]) == RequestList(1), "said once"
