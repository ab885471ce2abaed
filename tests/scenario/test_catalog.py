"""The catalog loads, says where its numbers come from, and knows its names."""

from __future__ import annotations

import pytest

from coordsim.errors import InputError
from coordsim.scenario import catalog, load_scenario
from coordsim.scenario.declared import key_names
from coordsim.scenario.model import ControlNetwork, DataNetwork, HostCosts, Machine


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
    ranges = tree.pop("ranges", {})
    assert all(each["source"] for each in ranges.values())
    assert set(tree.pop("sources")) == leaves(tree) - {"description"}


@pytest.mark.parametrize("name", catalog.names("cluster"))
def test_every_cluster_says_every_key(name):
    """A key with a default is a number too: an entry says it, with its source."""
    tree = catalog.read("cluster", name)
    tables = {"machine": Machine, "control": ControlNetwork, "host": HostCosts, "data": DataNetwork}
    for name_of_table, table in tables.items():
        assert set(tree[name_of_table]) == set(key_names(table)), name_of_table


def test_clusters_have_the_sizes_of_their_sources():
    def gpus(name):
        machine = load_scenario(workload="resnet50", cluster=name).cluster.machine
        return machine.gpu, machine.ranks_per_node, machine.max_nodes * machine.ranks_per_node

    assert gpus("pascal-25g") == ("P100-PCIe", 4, 512)
    assert gpus("dgx-v100-100g") == ("V100-SXM2", 8, 256)
    assert gpus("dgx-1") == ("V100-DGX-1", 8, 1536)
    assert gpus("dgx-2h") == ("V100-DGX-2H", 16, 1536)
    assert gpus("dgx-a100") == ("A100-DGX", 8, 2048)
    assert gpus("dgx-h100") == ("H100-SXM5", 8, 1016)
    assert gpus("frontier") == ("MI250X-GCD", 8, 78_848)
    assert load_scenario(workload="resnet50", cluster="pascal-25g").ranks == 512


def test_no_ring_is_faster_than_the_ports_of_a_node():
    """Nominal injection of a node, B/s; inside a node links are faster, and NCCL counts the slowest."""
    ports = {"pascal-25g": 25e9 / 8, "dgx-v100-100g": 100e9 / 8, "dgx-h100": 8 * 400e9 / 8, "frontier": 4 * 200e9 / 8,
             "summit": 25e9, "dgx-1": 4 * 100e9 / 8, "dgx-2h": 8 * 100e9 / 8, "dgx-a100": 8 * 200e9 / 8}  # fmt: skip
    for name, injection in ports.items():
        data = load_scenario(workload="resnet50", cluster=name).cluster.data
        assert 0.6 * injection < data.bus_bandwidth_Bps < injection
        assert data.nvlink_bandwidth_Bps > data.bus_bandwidth_Bps


def test_frontier_draws_what_it_drew():
    """HPL: about 21 MW on 9,408 nodes (IEEE Spectrum, 2022), before the cooling of the room."""
    machine = load_scenario(workload="resnet50", cluster="frontier").cluster.machine
    node_mw = machine.ranks_per_node * machine.gpu_power_mW + machine.host_power_mW + machine.nic_power_mW
    assert 9408 * node_mw / 1e9 == pytest.approx(21, rel=0.01)


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
    node_mw = machine.ranks_per_node * machine.gpu_power_mW + machine.host_power_mW + machine.nic_power_mW
    total_mw = machine.max_nodes * node_mw * machine.pue_permille // 1000
    assert 9 * 10**9 < total_mw < 13 * 10**9  # training: below HPL's 10.1 MW plus cooling and the 13 MW envelope, in mW


def test_show_gives_the_text_and_refuses_unknown_names():
    assert "ranks_per_node = 6" in catalog.show("summit")
    with pytest.raises(InputError, match="did you mean 'summit'"):
        catalog.show("sumit")
