"""Scenarios whose integers would leave 64 bits are refused by name; nothing wraps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordsim.cost.network import MAX_MESSAGE_BYTES
from coordsim.errors import Refused
from coordsim.simulate import event, vector
from coordsim.simulate.problem import Problem
from tests.scenarios import CLUSTER, CONTROL, DATA, PLANE, scenario, tensors, workload


@pytest.mark.parametrize("plane", ["coordinator", "point-to-point", "hierarchical", "cached"])
def test_a_control_message_beyond_exact_arithmetic(plane: str) -> None:
    """A list that grows with its names: 4 names of 2,500 MB make a message that cannot be timed."""
    job = workload(tensors=tensors([1000] * 4))
    problem = Problem(scenario(3, workload=job, control_plane=replace(PLANE, name=plane)))
    problem.request_size.update(dict.fromkeys(problem.request_size, MAX_MESSAGE_BYTES // 3))
    for engine in (vector, event):
        with pytest.raises(Refused, match="message of"):
            engine.run(problem)


def test_merged_gathers_count_the_merged_message() -> None:
    """Two million lists of a few kB become one message beyond the limit only where they are merged."""
    sizes = {"linear": None, "binomial": "message of", "node-leaders": "message of"}
    for gather, refusal in sizes.items():
        cluster = replace(CLUSTER, control=replace(CONTROL, gather=gather))
        problem = Problem(scenario(64, steps=1, cluster=cluster, control_plane=replace(PLANE, name="coordinator")))
        problem.request_size.update(dict.fromkeys(problem.request_size, MAX_MESSAGE_BYTES // 100))
        if refusal is None:
            vector.run(problem)
        else:
            with pytest.raises(Refused, match=refusal):
                vector.run(problem)


def test_an_exchange_too_slow_for_the_clock() -> None:
    crawl = replace(CLUSTER, control=replace(CONTROL, root_nic_Bps=1))
    problem = Problem(scenario(40, cluster=crawl, control_plane=replace(PLANE, name="coordinator")))
    problem.request_size.update(dict.fromkeys(problem.request_size, 10**8))
    with pytest.raises(Refused, match="control exchange passes"):
        vector.run(problem)


@pytest.mark.parametrize("plane", ["cached", "ideal", "ddp"])
def test_collectives_too_slow_for_the_clock(plane: str) -> None:
    crawl = replace(CLUSTER, data=replace(DATA, allreduce="ring", bus_bandwidth_Bps=1))
    job = workload(tensors=tensors([1000] * 4, [10**9] * 4))
    described = scenario(3, workload=job, cluster=crawl, control_plane=replace(PLANE, name=plane))
    for engine in (vector, event):
        with pytest.raises(Refused, match="the end of a"):
            engine.run(Problem(described))
