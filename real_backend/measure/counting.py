"""CPU time of the protocol's own code without a network: a coordinator's for requests, a rank's for hits.

All ranks' messages are made beforehand. Only rank 0's negotiator runs, with lists as they arrive from the wire.
"""

from __future__ import annotations

import time
from typing import Any

from coordsim.protocol import wire
from coordsim.protocol.messages import Request, RequestList
from coordsim.protocol.negotiator import (
    AndReduce,
    BroadcastList,
    CachedNegotiator,
    CoordinatorNegotiator,
    GatherLists,
    Settings,
)
from coordsim.record.measurement import Series
from real_backend.measure.plan import MIB, Plan


def counting(plan: Plan) -> list[Series]:
    """Return the series ``coordinator`` and ``hits``."""
    series = []
    for ranks, tensors in plan.requests:
        samples = [_slow_cycle_ns(ranks, tensors) for _ in range(plan.request_repeats)]
        series.append(Series("coordinator", ranks, tuple(samples), count=tensors))
    for tensors in sorted({tensors for _, tensors in plan.requests}):
        series.append(Series("hits", 2, tuple(_hits_ns(tensors, 4 * plan.request_repeats)), count=tensors))
    return series


def _requests(tensors: int) -> tuple[Request, ...]:
    return tuple(Request(f"layer{index:05d}.weight", shape=(64, 64)) for index in range(tensors))


def _slow_cycle_ns(ranks: int, tensors: int) -> float:
    """Time one slow cycle: decode the lists, count, decide, encode the answer."""
    asked = _requests(tensors)
    encoded = [wire.encode(RequestList(rank, asked)) for rank in range(1, ranks)]
    cycle = CoordinatorNegotiator(0, Settings(ranks, 64 * MIB)).cycle(asked)
    began = time.process_time_ns()
    first = next(cycle)
    assert isinstance(first, GatherLists)
    answer = cycle.send([first.message, *map(wire.decode_requests, encoded)])
    assert isinstance(answer, BroadcastList)
    assert answer.message is not None
    wire.encode(answer.message)
    _finish(cycle, answer.message)
    return float(time.process_time_ns() - began)


def _hits_ns(tensors: int, repeats: int) -> list[float]:
    """Time one rank's cycle in which the cache agrees on everything; in groups of ten, since one is short."""
    negotiator = CachedNegotiator(0, Settings(2, 64 * MIB, cache_capacity=max(tensors, 1)))
    asked = _requests(tensors)
    _cycle(negotiator, asked)
    samples = []
    for _ in range(repeats):
        began = time.process_time_ns()
        for _ in range(10):
            _cycle(negotiator, asked)
        samples.append((time.process_time_ns() - began) / 10)
    return samples


def _cycle(negotiator: CachedNegotiator, asked: tuple[Request, ...]) -> None:
    """Run a cycle in which both ranks offer the same, so that every exchange's result is what this one offers."""
    cycle = negotiator.cycle(asked)
    value: Any = None
    while True:
        try:
            exchange = cycle.send(value)
        except StopIteration:
            return
        if isinstance(exchange, AndReduce):
            value = exchange.value
        elif isinstance(exchange, GatherLists):
            value = [exchange.message, RequestList(1, exchange.message.requests)]
        elif isinstance(exchange, BroadcastList):
            value = exchange.message
        else:
            raise TypeError(f"not met here: {exchange!r}")


def _finish(cycle: Any, value: Any) -> None:
    try:
        cycle.send(value)
    except StopIteration:
        return
    raise AssertionError("a cycle of the coordinator has two exchanges")
