"""What is said of submission, existence, order and slowdown, when they are off and when they are on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordsim.analyse.assumptions import assumptions
from coordsim.scenario.model import Scenario
from tests.scenarios import CLUSTER, DATA, PLANE, scenario, workload


def says(described: Scenario, *words: str) -> bool:
    return sum(all(word in line for word in words) for line in assumptions(described)) == 1


def test_off_by_default() -> None:
    assert says(scenario(), "one clock", "workload.enqueue")
    assert says(scenario(), "same ready order", "workload.order")
    assert says(scenario(), "not slowed", "cluster.data.backward_slowdown")


@pytest.mark.parametrize(
    ("plane", "wait", "words"),
    [
        ("cached", "host", "polling has no interval"),
        ("cached", "stream", "begin when it exists on all ranks"),
        ("ddp", "host", "begin when it exists on all ranks"),
        ("ideal", "host", "not by when they are submitted"),
    ],
)
def test_two_clocks(plane: str, wait: str, words: str) -> None:
    job = workload()
    early = replace(job, tensors=tuple(replace(each, submit_ns=each.ready_ns // 2) for each in job.tensors))
    control = replace(PLANE, name=plane, wait_for_data=wait)
    described = scenario(workload=early, control_plane=control)
    assert says(described, words)
    assert not says(described, "one clock")
    assert says(described, "two clocks") == (plane != "ideal")
    if plane != "ideal":
        assert says(scenario(control_plane=control), "nobody waits for data")


def test_orders_and_slowdown() -> None:
    shuffled = scenario(workload=workload(order="shuffled"))
    assert says(shuffled, "ready order is random")
    assert not says(shuffled, "same ready order")
    slow = scenario(cluster=replace(CLUSTER, data=replace(DATA, backward_slowdown_ppm=125_000)))
    assert says(slow, "backward takes 12.5 % longer")
    assert says(slow, "simulated event by event", "cluster.data.backward_slowdown")
    assert not says(slow, "not slowed")
