"""The catalog loads, says where its numbers come from, and knows its names."""

from __future__ import annotations

import pytest

from coordsim.errors import InputError
from coordsim.scenario import catalog, load_scenario


def leaves(tree: dict[str, object], at: str = "") -> set[str]:
    keys: set[str] = set()
    for name, value in tree.items():
        keys |= leaves(value, f"{at}{name}.") if isinstance(value, dict) else {f"{at}{name}"}
    return keys


def test_every_entry_is_listed_with_a_description():
    entries = catalog.list_entries()
    assert {("cluster", "summit"), ("cluster", "localhost"), ("workload", "stemdl")} <= {
        (entry.kind, entry.name) for entry in entries
    }
    assert all(entry.description for entry in entries)


@pytest.mark.parametrize("name", catalog.names("cluster"))
def test_every_number_of_a_cluster_has_a_source_and_every_source_a_number(name):
    tree = catalog.read("cluster", name)
    assert set(tree.pop("sources")) == leaves(tree) - {"description"}


@pytest.mark.parametrize("cluster", catalog.names("cluster"))
def test_every_cluster_loads(small, cluster):
    found = load_scenario(small, cluster=cluster).cluster
    assert found.name == cluster
    assert found.sources == catalog.read("cluster", cluster)["sources"]


@pytest.mark.parametrize("workload", catalog.names("workload"))
def test_every_workload_loads_on_summit(workload):
    found = load_scenario(workload=workload, cluster="summit").workload
    assert found.name == workload
    assert found.sources


def test_summit_is_the_machine_of_the_papers():
    machine = load_scenario(workload="stemdl", cluster="summit").cluster.machine
    assert machine.ranks_per_node * machine.max_nodes == 27_648
    assert machine.device_flops == 60 * 10**12
    node_mw = machine.ranks_per_node * machine.gpu_power_mW + machine.host_power_mW
    total_mw = machine.max_nodes * node_mw * machine.pue_permille // 1000
    assert 10 * 10**9 < total_mw < 13 * 10**9  # HPL's 10.1 MW and the 13 MW envelope, in mW


def test_show_gives_the_text_and_refuses_unknown_names():
    assert "ranks_per_node = 6" in catalog.show("summit")
    with pytest.raises(InputError, match="did you mean 'summit'"):
        catalog.show("sumit")
