"""One cause at a time is put into a real run: at least 90 % of what the step gets longer stands in the right part."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import real_backend as rb
from coordsim.protocol.negotiator import CoordinatorNegotiator, GatherLists
from coordsim.record.breakdown import PARTS, breakdown, step_times
from coordsim.record.ranks import merge
from real_backend.control.links import Kind, Link
from tests.real_backend.processes import run

STEPS, TENSORS = 16, 8
SHARE = 0.9
ATTEMPTS = 8
EMPTY_LIST_BYTES = 100
"""More than a list without requests has."""
COORDINATOR = {"COORDSIM_CONTROL_PLANE": "coordinator", "COORDSIM_CYCLE_TIME": "1ms"}
"""Rank 0 decides in every step, in a loop that sleeps."""


def train(late_ms: float, all_late: bool) -> None:
    """Some milliseconds of compute a step, marked, then gradients one after another."""
    engine = rb.init()
    gradients = [torch.ones(100) for _ in range(TENSORS)]
    for _ in range(STEPS):
        engine.mark("forward")
        time.sleep(0.002)
        engine.mark("backward")
        time.sleep(0.004 + (late_ms / 1e3 if all_late or rb.rank() == 1 else 0.0))
        handles = [rb.allreduce_async_(gradient, f"g{index}") for index, gradient in enumerate(gradients)]
        for handle in handles:
            handle.wait()
        time.sleep(0.001)
        engine.mark("step")
    rb.shutdown()


def nothing() -> None:
    train(0.0, False)


def one_rank_computes_longer() -> None:
    train(16.0, False)


def all_ranks_compute_longer() -> None:
    train(16.0, True)


def messages_take_longer() -> None:
    """Of the exchange with the coordinator, on rank 1's link: the lists of requests that it sends up."""
    send = Link.send

    def slowly(self: Link, kind: Kind, cycle: int, payload: bytes | memoryview = b"") -> None:
        if kind is Kind.GATHER and len(payload) > EMPTY_LIST_BYTES:
            time.sleep(0.016)
        send(self, kind, cycle, payload)

    Link.send = slowly  # type: ignore[method-assign]
    train(0.0, False)


def the_coordinator_counts_longer() -> None:
    """In the cycle in which a step's last request arrives: what came too late for a busy loop would wait for it."""
    cycle = CoordinatorNegotiator.cycle
    counted = 0

    def slowly(self: CoordinatorNegotiator, requests: Any, **more: Any) -> Generator[Any, Any, Any]:
        nonlocal counted
        conversation = cycle(self, requests, **more)
        exchange = next(conversation)
        while True:
            answer = yield exchange
            if isinstance(exchange, GatherLists) and self.rank == 0:
                counted += sum(len(each.requests) for each in answer)
            if counted >= 2 * TENSORS:
                counted = 0
                time.sleep(0.016)  # a busy loop would keep the main thread from submitting, too
            try:
                exchange = conversation.send(answer)
            except StopIteration as stop:
                return stop.value

    CoordinatorNegotiator.cycle = slowly  # type: ignore[method-assign]
    train(0.0, False)


def parts_of(folder: Path, what: Callable[[], None], **env: str) -> dict[str, float]:
    """Median of each part and of the step, ms, without the cold one."""
    run(2, what, env={**COORDINATOR, "COORDSIM_RECORD": str(folder), **env})
    trace = merge(folder).trace
    parts = breakdown(trace)
    assert not trace.missing
    assert (sum(parts.values()) == step_times(trace)).all()
    return {name: float(np.median(column[1:])) / 1e6 for name, column in {**parts, "step": step_times(trace)}.items()}


@pytest.mark.parametrize(
    ("what", "env", "part"),
    [
        (one_rank_computes_longer, {}, "straggler_wait"),
        (all_ranks_compute_longer, {}, "backward"),
        (messages_take_longer, {}, "control_exchange"),
        (the_coordinator_counts_longer, {}, "control_work"),
        (nothing, {"COORDSIM_CYCLE_TIME": "40ms"}, "cycle_wait"),
    ],
    ids=["one rank's compute", "all ranks' compute", "network", "coordinator", "cycle"],
)
def test_what_is_injected_lands_on_its_part(
    tmp_path: Path, what: Callable[[], None], env: dict[str, str], part: str
) -> None:
    """In one of a few attempts: other work on the machine moves single runs, and never the same way each time."""
    missed = []
    for attempt in range(ATTEMPTS):
        base = parts_of(tmp_path / f"base-{attempt}", nothing)
        changed = parts_of(tmp_path / f"changed-{attempt}", what, **env)
        longer = changed["step"] - base["step"]
        if longer > 5.0 and changed[part] - base[part] >= SHARE * longer:
            return
        moved = {name: round(changed[name] - base[name], 2) for name in PARTS}
        missed.append(f"of {longer:.2f} ms: {moved}")
    pytest.fail("; ".join(missed))
