"""What a reader must be told when a scenario leaves the machine that it names."""

from __future__ import annotations

from dataclasses import replace

from coordsim.analyse.assumptions import assumptions
from tests.scenarios import MACHINE, scenario


def test_more_nodes_than_the_machine_has() -> None:
    whole = scenario(MACHINE.max_nodes * MACHINE.ranks_per_node)
    assert not any("a what-if" in line for line in assumptions(whole))
    more = assumptions(replace(whole, ranks=whole.ranks + 1))
    assert "test has 4,608 nodes; this job would need 4,609: a what-if" in more


def test_a_listed_workload_keeps_its_own_times() -> None:
    listed = scenario(4)
    made = replace(listed, workload=replace(listed.workload, parameters={"growth": 64}))
    assert any("compute times of toy are those of its source" in line for line in assumptions(listed))
    assert not any("are those of its source" in line for line in assumptions(made))
