"""Compute times fit the cluster's GPU: stated, by samples a second, or by FLOPs; and what was done is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from coordsim.analyse.assumptions import assumptions
from coordsim.scenario import catalog, load_scenario

TIMES = """ranks = 8
cluster = "summit"

[workload]
name = "known"
tensors = "small.csv"
gpu = "V100-SXM2"
forward = "3ms"
optimizer = "0.5ms"
batch = 32
flops_per_sample = "6GFLOP"

[workload.rates]
V100-SXM2 = 100
P100-PCIe = 25
H100-SXM5 = 150.5
"""


@pytest.fixture
def known(small: Path) -> Path:
    """Four tensors, ready at 1, 2, 3.5 and 5 ms on a V100, with rates of other GPUs."""
    small.write_text(TIMES)
    return small


def ready_ns(workload):
    assert all(tensor.submit_ns == tensor.ready_ns for tensor in workload.tensors)
    return [tensor.ready_ns for tensor in workload.tensors]


def test_on_its_own_gpu_times_are_as_stated(known):
    scenario = load_scenario(known)
    workload = scenario.workload
    assert (workload.gpu, workload.timing) == ("V100-SXM2", "native")
    assert (workload.forward_ns, workload.optimizer_ns) == (3_000_000, 500_000)
    assert ready_ns(workload) == [1_000_000, 2_000_000, 3_500_000, 5_000_000]
    assert not any("SCALED" in source for source in workload.sources.values())
    assert "compute times of known are those of one V100-SXM2, from its source" in assumptions(scenario)


def test_on_a_gpu_with_a_known_rate_all_times_are_scaled_by_it(known):
    scenario = load_scenario(known, cluster="pascal-25g")
    workload = scenario.workload
    assert workload.timing == "rate"
    assert (workload.forward_ns, workload.optimizer_ns) == (12_000_000, 2_000_000)
    assert ready_ns(workload) == [4_000_000, 8_000_000, 14_000_000, 20_000_000]
    told = "SCALED by 4 from V100-SXM2 to P100-PCIe (100 and 25 samples/s): set in "
    assert all(workload.sources[key].startswith(told) for key in ("forward", "optimizer", "tensors"))
    assert workload.sources["batch"].startswith("set in ")
    assert any("all scaled to a P100-PCIe by their samples/s" in each for each in assumptions(scenario))


def test_a_fraction_is_rounded_once(known):
    workload = load_scenario(known, cluster="dgx-h100").workload
    assert workload.forward_ns == round(3_000_000 * 100 / 150.5)
    assert ready_ns(workload) == [round(ns * 100 / 150.5) for ns in (1_000_000, 2_000_000, 3_500_000, 5_000_000)]


def test_on_another_gpu_times_are_scaled_by_flops(known):
    """100 samples/s of 6 GFLOP are 0.6 TFLOP/s; Frontier's GPUs are taken to sustain 1.2."""
    scenario = load_scenario(known, cluster="frontier", overrides=["cluster.machine.device_flops=1.2TF/s"])
    workload = scenario.workload
    assert workload.timing == "flops"
    assert (workload.forward_ns, workload.optimizer_ns) == (1_500_000, 250_000)
    assert ready_ns(workload) == [500_000, 1_000_000, 1_750_000, 2_500_000]
    assert workload.sources["forward"].startswith("SCALED by 0.5 from V100-SXM2 to MI250X-GCD (0.6 and 1.2 TFLOP/s;")
    said = "all scaled by FLOPs to the 1.2 TFLOP/s that frontier sustains"
    assert any(said in each for each in assumptions(scenario))


@pytest.mark.parametrize(
    "override",
    ["cluster.machine.gpu=''", "workload.flops_per_sample=0"],
)
def test_where_nothing_is_known_times_are_as_stated(known, override):
    scenario = load_scenario(known, cluster="frontier", overrides=[override])
    assert scenario.workload.timing == "stated"
    assert scenario.workload.forward_ns == 3_000_000
    assert "compute times of known are those of its source, whatever GPUs frontier has" in assumptions(scenario)


def test_what_somebody_states_later_is_for_the_clusters_gpu(known):
    workload = load_scenario(known, cluster="pascal-25g", overrides=["workload.forward=7ms"]).workload
    assert (workload.forward_ns, workload.optimizer_ns) == (7_000_000, 2_000_000)
    assert workload.sources["forward"] == "set by --set"
    assert ready_ns(workload)[-1] == 20_000_000


def test_a_rate_can_be_added_and_changed(known):
    for rate, forward_ns in (("30", 10_000_000), ("0.5", 600_000_000)):
        added = load_scenario(known, cluster="frontier", overrides=[f"workload.rates.MI250X-GCD={rate}"]).workload
        assert (added.timing, added.forward_ns) == ("rate", forward_ns)


def test_a_share_of_ready_is_of_the_scaled_time(known):
    waits = ["workload.enqueue=50%", "control_plane.wait_for_data=stream"]
    tensors = load_scenario(known, cluster="pascal-25g", overrides=waits).workload.tensors
    assert [(t.submit_ns, t.ready_ns) for t in tensors][-1] == (10_000_000, 20_000_000)


@pytest.mark.parametrize(
    ("override", "key", "message"),
    [
        ("workload.gpu=V100-SMX2", "workload.gpu", "did you mean 'V100-SXM2'?"),
        ("workload.gpu=''", "workload.gpu", "is needed with rates"),
        ("workload.rates.V100-SXM2=0", "workload.rates.V100-SXM2", "0 is not a number of samples a second, above 0"),
        ("workload.rates.V100-SXM2=-1", "workload.rates.V100-SXM2", "-1 is not a number of samples a second"),
        ("workload.rates.V100-SXM2=fast", "workload.rates.V100-SXM2", "'fast' is not a number of samples a second"),
        ("workload.rates.V100-SXM2=1e12", "workload.rates.V100-SXM2", "at most 1000000000"),
        ("workload.rates=3", "workload.rates", "3 is not a table"),
        ("workload.backward=3ms", "workload.backward", "is for a list without ready times"),
    ],
)
def test_a_mistake_in_rates_names_itself(known, refused, override, key, message):
    (problem,) = refused(known, overrides=[override])
    assert (problem.where, problem.key) == ("--set", key)
    assert message in str(problem)


@pytest.mark.parametrize(
    ("rate", "message"),
    [("0.05", "backward of one tensor would take 3e+03 s"), ("0.00001", "backward of one tensor would take")],
)
def test_a_gpu_that_is_too_slow_is_refused(known, refused, rate, message):
    known.write_text(TIMES.replace("= 100", "= 100000"))
    (problem,) = refused(known, cluster="pascal-25g", overrides=[f"workload.rates.P100-PCIe={rate}"])
    assert problem.key == "cluster.machine.gpu"
    assert f"is too slow for known: {message}" in problem.message


def test_resnet50_on_summit_is_what_it_always_was():
    workload = load_scenario(workload="resnet50", cluster="summit").workload
    assert workload.timing == "native"
    assert (workload.forward_ns, workload.backward_ns, workload.optimizer_ns) == (31_000_000, 60_000_000, 2_000_000)


def test_a_generated_workload_says_so():
    scenario = load_scenario(workload="stemdl", cluster="summit", ranks=6)
    assert scenario.workload.timing == "generated"
    assert not any("compute times of stemdl" in each for each in assumptions(scenario))


def rate_of(entry, gpu):
    """Samples a second at the entry's own batch."""
    rate = entry["rates"][gpu]
    return float(rate[str(entry["batch"])] if isinstance(rate, dict) else rate)


@pytest.mark.parametrize("name", catalog.names("workload"))
def test_the_rate_of_an_entrys_own_gpu_is_that_of_its_times(name):
    entry = catalog.read("workload", name)
    if "rates" not in entry:
        assert "generator" in entry
        return
    own = [each for each in catalog.names("cluster") if catalog.read("cluster", each)["machine"]["gpu"] == entry["gpu"]]
    assert own, f"no cluster of the catalog has a {entry['gpu']}"
    for cluster in own:
        workload = load_scenario(workload=name, cluster=cluster, ranks=1).workload
        assert workload.timing == "native"
        step_s = (workload.forward_ns + workload.backward_ns + workload.optimizer_ns) / 1e9
        assert workload.batch / step_s == pytest.approx(rate_of(entry, entry["gpu"]), rel=0.001)


@pytest.mark.parametrize(
    ("cluster", "workload"),
    [("pascal-25g", "resnet101"), ("dgx-v100-100g", "bert_large"), ("dgx-h100", "llama3_8b")],
)
def test_a_machines_device_rate_is_that_of_the_workload_its_source_names(cluster, workload):
    scenario = load_scenario(cluster=cluster, workload=workload, ranks=1)
    rate = rate_of(catalog.read("workload", workload), scenario.cluster.machine.gpu)
    assert scenario.cluster.machine.device_flops == pytest.approx(
        float(rate) * scenario.workload.flops_per_sample, rel=0.005
    )


def test_scaling_keeps_the_order_and_the_bytes():
    stated = load_scenario(workload="vgg16", cluster="pascal-25g", ranks=1).workload
    scaled = load_scenario(workload="vgg16", cluster="summit", ranks=1).workload
    assert [replace(t, submit_ns=0, ready_ns=0) for t in stated.tensors] == [
        replace(t, submit_ns=0, ready_ns=0) for t in scaled.tensors
    ]
    assert scaled.backward_ns == round(stated.backward_ns * 130.9 / 222)
