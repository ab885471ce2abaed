"""Storage, staging and power in a scenario file: what is read, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordsim.errors import InputError
from coordsim.scenario import catalog, load_scenario
from coordsim.scenario.model import Scenario


def loaded(*overrides: str, workload: str = "resnet50", **changes: object) -> Scenario:
    return load_scenario(workload=workload, cluster="summit", overrides=overrides, **changes)  # type: ignore[arg-type]


def test_units() -> None:
    machine = loaded(
        "cluster.machine.storage=parallel", "cluster.machine.parallel_read=2.5TB/s",
        "cluster.machine.node_storage=1.6TB", "cluster.machine.nic_power=25W",
    ).cluster.machine  # fmt: skip
    assert machine.storage == "parallel"
    assert (machine.parallel_read_Bps, machine.node_storage_bytes) == (2_500 * 10**9, 1_600 * 10**9)
    assert machine.nic_power_mW == 25_000


def test_a_data_set_in_samples() -> None:
    """The user's number of samples takes the place of the catalog's bytes, and the other way round."""
    assert loaded("workload.dataset_samples=1000").workload.dataset_bytes == 1000 * 115_000
    assert loaded("workload.dataset_bytes=1GB").workload.dataset_bytes == 10**9
    assert loaded("workload.dataset_bytes=0").workload.dataset_bytes == 0
    assert loaded("workload.dataset_samples=5", workload="stemdl").workload.dataset_bytes == 5 * 1024 * 512 * 512 * 2


@pytest.mark.parametrize(("text", "replicas"), [("1", 1), ("30", 30), ("all", 0)])
def test_replicas(text: str, replicas: int) -> None:
    assert loaded(f"workload.replicas={text}").workload.replicas == replicas


@pytest.mark.parametrize(
    ("overrides", "key", "message"),
    [
        (["workload.replicas=0"], "workload.replicas", 'must be at least 1, or "all"'),
        (["workload.replicas=some"], "workload.replicas", "is not a whole number"),
        (["workload.dataset_samples=-1"], "workload.dataset_samples", "must be at least 0"),
        (["workload.dataset_bytes=1GB", "workload.dataset_samples=7"], "workload.dataset_samples", "excludes dataset_"),
        (["workload.dataset_samples=7", "workload.sample_bytes=0"], "workload.dataset_samples", "needs sample_bytes"),
        (["cluster.machine.storage=paralel"], "cluster.machine.storage", "did you mean 'parallel'"),
        (["cluster.machine.node_write=5GB"], "cluster.machine.node_write", "unknown unit 'GB'"),
        (["cluster.machine.gpu_wait_power=300W"], "cluster.machine.gpu_wait_power", "300 W is more than gpu_power, 2"),
        (["cluster.machine.gpu_idle_power=81W"], "cluster.machine.gpu_idle_power", "81 W is more than gpu_wait_power"),
        (["workload.sample_bytes=1PB", "cluster.machine.node_read=1B/s"], "steps", "do not fit a clock"),
        (
            ["workload.sample_bytes=1TB", "cluster.machine.storage=parallel", "cluster.machine.parallel_read=1kB/s"],
            "steps", "do not fit a clock",
        ),
    ],
)  # fmt: skip
def test_mistakes(overrides: list[str], key: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        loaded(*overrides, ranks=96)
    found = [(problem.key, str(problem)) for problem in raised.value.problems]
    assert len(found) == 1, found
    assert found[0][0] == key
    assert message in found[0][1]


def test_power_and_staging_may_be_left_out(tmp_path: Path) -> None:
    """A machine that tells neither: energy and staging are unknown, not nothing."""
    text = catalog.show("summit")
    told = ("storage", "node_write", "node_storage", "parallel_read", "node_injection", "gpu_", "host_power", "nic_")
    kept = [line for line in text.splitlines() if not line.startswith((*told, *(f'"machine.{key}' for key in told)))]
    (tmp_path / "quiet.toml").write_text("\n".join(kept), encoding="utf-8")
    machine = load_scenario(workload="resnet50", cluster=str(tmp_path / "quiet.toml")).cluster.machine
    assert machine.gpu_power_mW is machine.host_power_mW is machine.gpu_wait_power_mW is None
    assert machine.gpu_idle_power_mW is None
    assert (machine.storage, machine.nic_power_mW, machine.node_write_Bps) == ("node-local", 0, 0)


@pytest.mark.parametrize("name", catalog.names("cluster"))
def test_every_catalog_machine_tells_its_storage_and_power(name: str) -> None:
    told = catalog.read("cluster", name)["machine"]
    assert {
        "storage", "node_read", "node_write", "node_storage", "parallel_read", "node_injection", "gpu_power",
        "gpu_wait_power", "gpu_idle_power", "host_power", "nic_power", "pue",
    } <= set(told)  # fmt: skip
