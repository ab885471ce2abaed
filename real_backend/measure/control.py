"""Timings of the control transport: one link, the bit vector's AND, lists up and down."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from coordsim.protocol.messages import Op as Operation
from coordsim.protocol.messages import Request, RequestList, Response, ResponseList
from coordsim.protocol.negotiator import AndReduce, BroadcastList, GatherLists
from coordsim.protocol.wire import list_bytes
from real_backend.control.links import Kind, Link
from real_backend.control.tree import TreeTransport
from real_backend.measure.plan import Plan

WARM_UP = 5


@dataclass(frozen=True, slots=True)
class Stamped:
    """One rank's share of a series: when it entered and left each repeat, ns of this machine's clock."""

    what: str
    nbytes: int
    count: int
    path: str
    entered_ns: list[int]
    left_ns: list[int]


def timed(
    what: str, repeats: int, once: Callable[[], object], nbytes: int = 0, count: int = 1, path: str = ""
) -> Stamped:
    """Time ``repeats`` calls of ``once``, after a few that warm up."""
    for _ in range(WARM_UP):
        once()
    entered, left = [0] * repeats, [0] * repeats
    for index in range(repeats):
        entered[index] = time.perf_counter_ns()
        once()
        left[index] = time.perf_counter_ns()
    return Stamped(what, nbytes, count, path, entered, left)


def meet(transport: TreeTransport) -> None:
    """Wait until all ranks have come to this point."""
    transport.answer(AndReduce(1, 1))


def control(transport: TreeTransport, plan: Plan) -> list[Stamped]:
    """Return every timing of the control transport; all its ranks must call this."""
    series = pings(transport, plan)
    for words in plan.words:
        meet(transport)
        asked = AndReduce((1 << 64 * words) - 1, words)
        series.append(timed("and", plan.repeats, partial(transport.answer, asked), 8 * words))
    for wanted in plan.list_bytes:
        meet(transport)
        asking, answer = request_list(transport.rank, wanted), response_list(wanted)

        def once(asking: RequestList = asking, answer: ResponseList = answer) -> None:
            transport.answer(GatherLists(asking))
            transport.answer(BroadcastList(answer if transport.rank == 0 else None))

        series.append(timed("round", plan.list_repeats(wanted), once, list_bytes(asking)))
    return series


def pings(transport: TreeTransport, plan: Plan) -> list[Stamped]:
    """Time messages between rank 0 and rank 1; only rank 0's times count, and the others wait."""
    series = []
    for nbytes, count in [(nbytes, 1) for nbytes in plan.ping_bytes] + [(8, count) for count in plan.burst]:
        meet(transport)
        if transport.rank == 0:
            link, data = transport.neighbours.children[0], bytes(nbytes)
            series.append(timed("ping", plan.repeats, partial(_call, link, data, count), nbytes, count))
        elif transport.rank == 1:
            parent = transport.neighbours.parent
            assert parent is not None
            answer = bytes(nbytes if count == 1 else 8)
            for _ in range(WARM_UP + plan.repeats):
                for _ in range(count):
                    parent.receive()
                parent.send(Kind.GATHER, 0, answer)
    return series


def _call(link: Link, data: bytes, count: int) -> None:
    for _ in range(count):
        link.send(Kind.GATHER, 0, data)
    link.receive()


def request_list(rank: int, wanted_bytes: int) -> RequestList:
    """Return a list of about ``wanted_bytes`` on the wire, at least as long as an empty one."""
    empty = list_bytes(RequestList(rank))
    one = list_bytes(RequestList(rank, (Request("t" * 24, shape=(1024,)),))) - empty
    return RequestList(rank, tuple(
        Request(f"{index:024d}", shape=(1024,)) for index in range(round(max(wanted_bytes - empty, 0) / one))
    ))  # fmt: skip


def response_list(wanted_bytes: int) -> ResponseList:
    """Return a list as :func:`request_list` does."""
    empty = list_bytes(ResponseList())
    one = list_bytes(ResponseList((Response(Operation.ALLREDUCE, ("t" * 24,), (4096,)),))) - empty
    return ResponseList(tuple(
        Response(Operation.ALLREDUCE, (f"{index:024d}",), (4096,))
        for index in range(round(max(wanted_bytes - empty, 0) / one))
    ))  # fmt: skip
