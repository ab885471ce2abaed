"""What a reader must be told when a scenario leaves the machine that it names."""

from __future__ import annotations

from dataclasses import replace

from coordsim.analyse.assumptions import assumptions
from coordsim.scenario.model import Noise, Scenario
from tests.scenarios import CLUSTER, CONTROL, MACHINE, PLANE, scenario


def says(text: str, described: Scenario) -> bool:
    return any(text in line for line in assumptions(described))


def test_more_nodes_than_the_machine_has() -> None:
    whole = scenario(MACHINE.max_nodes * MACHINE.ranks_per_node)
    assert not any("a what-if" in line for line in assumptions(whole))
    more = assumptions(replace(whole, ranks=whole.ranks + 1))
    assert "test has 4,608 nodes; this job would need 4,609: a what-if" in more


def test_a_listed_workload_keeps_its_own_times() -> None:
    listed = scenario(4)
    made = replace(listed, workload=replace(listed.workload, parameters={"growth": 64}, timing="generated"))
    assert any("compute times of toy are those of its source" in line for line in assumptions(listed))
    assert not any("are those of its source" in line for line in assumptions(made))


def test_how_the_and_travels() -> None:
    def with_and(name: str, plane: str = "cached") -> Scenario:
        control = replace(CONTROL, and_reduce=name, in_network_ns=2830)
        cluster = replace(CLUSTER, control=control)
        return scenario(4, cluster=cluster, control_plane=replace(PLANE, name=plane))

    assert says("in software, by recursive doubling; in the network it would be cluster.control.and_reduce", scenario())
    assert says("round a ring, as gloo's", with_and("ring"))
    assert says("an AND in the network takes 2.83 us after the last rank", with_and("in-network"))
    assert not says("in software", with_and("in-network"))
    assert not says("AND", with_and("ring", "coordinator"))


def test_what_disturbs_exchanges() -> None:
    assert says("no operating-system noise on control exchanges (noise.detour_probability)", scenario())
    noisy = scenario(noise=Noise(detour_ppm=1, detour_ns=1))
    assert says("takes a control CPU away at most once per rank and cycle", noisy)
    assert not says("no operating-system noise", noisy)
    for quiet in (scenario(1), scenario(control_plane=replace(PLANE, name="ddp"))):
        assert not says("operating", quiet)  # nothing is exchanged


def test_a_tree_that_does_not_merge() -> None:
    plane = replace(PLANE, name="hierarchical")
    assert says("pass on every list", scenario(control_plane=replace(plane, merge=False)))
    assert not says("pass on every list", scenario(control_plane=plane))
    assert not says("pass on every list", scenario(control_plane=replace(PLANE, merge=False)))
