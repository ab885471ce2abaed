"""Layers: what wins, what replaces what, and what a scenario says when nothing is said."""

from __future__ import annotations

import subprocess
import sys

import pytest

from coordsim.errors import InputError
from coordsim.scenario import CONTROL_PLANES, Groups, Scenario, Spread, load_scenario


def test_a_file_becomes_integers(small):
    scenario = load_scenario(small)
    assert (scenario.ranks, scenario.steps, scenario.seed) == (12, 5, 7)
    workload = scenario.workload
    assert workload.name == "small"
    assert [tensor.name for tensor in workload.tensors] == [
        "fc.bias",
        "fc.weight",
        "conv.bias",
        "conv.weight",
    ]
    assert workload.tensors[3].shape == (64, 3, 7, 7)
    assert workload.tensors[3].submit_ns == workload.tensors[3].ready_ns == workload.backward_ns == 5_000_000
    assert (workload.forward_ns, workload.optimizer_ns, workload.batch) == (3_000_000, 500_000, 32)
    assert (workload.flops_per_sample, workload.sample_bytes) == (0, 0)


def test_scenario_load_is_load_scenario(small):
    assert Scenario.load(str(small), ranks=6) == load_scenario(small, ranks=6)


@pytest.mark.parametrize(
    ("name", "cycle_ns", "threshold_mib", "capacity"),
    [
        ("point-to-point", 5_000_000, 64, 0),
        ("coordinator", 5_000_000, 64, 0),
        ("hierarchical", 5_000_000, 64, 0),
        ("cached", 1_000_000, 128, 1024),
    ],
)
def test_defaults_are_those_of_the_version_it_stands_for(small, name, cycle_ns, threshold_mib, capacity):
    plane = load_scenario(small, control_plane=name).control_plane
    assert (plane.cycle_time_ns, plane.fusion_threshold_bytes) == (cycle_ns, threshold_mib * 2**20)
    assert (plane.cache_capacity, plane.radix, plane.groups) == (capacity, 4, Groups())


@pytest.mark.parametrize("name", CONTROL_PLANES)
def test_every_control_plane_has_defaults(small, name):
    plane = load_scenario(small, control_plane=name).control_plane
    assert plane.name == name
    assert (plane.bucket_bytes, plane.first_bucket_bytes) == (25 * 2**20, 2**20)


def test_without_a_file_names_are_enough():
    scenario = load_scenario(cluster="summit", workload="stemdl")
    assert (scenario.ranks, scenario.steps, scenario.seed) == (27_600, 20, 0)
    assert scenario.control_plane.name == "cached"
    assert scenario.noise.rank.sigma_ppm == 15_000  # the cluster brings its own jitter


def test_later_layers_win(small):
    path = small
    path.write_text(path.read_text() + 'cycle_time = "3ms"\n')
    assert load_scenario(path).control_plane.cycle_time_ns == 3_000_000
    overridden = load_scenario(path, ranks=24, overrides=["ranks=48", "control_plane.cycle_time=5ms"])
    assert overridden.control_plane.cycle_time_ns == 5_000_000
    assert overridden.ranks == 48
    assert load_scenario(path, overrides=["ranks=1", "ranks=2"]).ranks == 2


def test_the_files_settings_stay_when_a_flag_names_another_control_plane(small):
    small.write_text(small.read_text() + 'cycle_time = "2ms"\n')
    plane = load_scenario(small, control_plane="coordinator").control_plane
    assert (plane.name, plane.cycle_time_ns) == ("coordinator", 2_000_000)
    assert plane.fusion_threshold_bytes == 64 * 2**20


def test_overrides_reach_every_table(small):
    scenario = load_scenario(
        small,
        overrides=[
            "cluster.host.per_request=0.3us",
            "cluster.control.gather=node-leaders",
            "noise.rank.sigma=1.5%",
            'noise.rank.distribution="half-normal"',
            "noise.stall_probability=0.001",
            "noise.stall_length=2ms",
            "control_plane.groups=2",
            "control_plane.strict_groups=true",
            "workload.forward = 4 ms",
        ],
    )
    assert scenario.cluster.host.per_request_ns == 300
    assert scenario.cluster.control.gather == "node-leaders"
    assert scenario.noise.rank == Spread("half-normal", 15_000)
    assert (scenario.noise.stall_ppm, scenario.noise.stall_ns) == (1_000, 2_000_000)
    assert scenario.control_plane.groups == Groups(mode="count", count=2, strict=True)
    assert scenario.workload.forward_ns == 4_000_000


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("none", Groups()),
        ("layer", Groups(mode="layer")),
        ("3", Groups(mode="count", count=3)),
        (3, Groups(mode="count", count=3)),
        ([["fc.bias", "fc.weight"]], Groups(mode="explicit", members=(("fc.bias", "fc.weight"),))),
    ],
)
def test_groups_are_a_word_a_count_or_lists(small, given, expected):
    assert load_scenario(small, groups=given).control_plane.groups == expected


def test_an_override_changes_the_source_of_its_number(small):
    cluster = load_scenario(small, overrides=["cluster.host.per_request=0.3us"]).cluster
    assert cluster.sources["host.per_request"] == "set by --set"
    assert cluster.sources["host.launch"].startswith("ASSUMED")
    assert str(small) in load_scenario(small).workload.sources["forward"]


def test_a_cluster_table_changes_a_catalog_entry(small):
    text = small.read_text().replace('cluster = "summit"\n', "")
    small.write_text(text + '[cluster]\nbase = "summit"\n[cluster.control]\nlatency = "3us"\n')
    cluster = load_scenario(small).cluster
    assert (cluster.name, cluster.control.latency_ns) == ("summit", 3_000)
    assert cluster.control.overhead_ns == 500


def test_a_flag_that_names_another_cluster_replaces_the_files_table(small):
    text = small.read_text().replace('cluster = "summit"\n', "")
    small.write_text(text + '[cluster]\nbase = "summit"\n[cluster.control]\nlatency = "3us"\n')
    localhost = load_scenario(small, cluster="localhost").cluster
    assert localhost == load_scenario(small, overrides=["cluster=localhost"]).cluster
    assert (localhost.name, localhost.control.latency_ns) == ("localhost", 126_000)
    assert load_scenario(small, cluster="summit").cluster.control.latency_ns == 3_000


def test_a_cluster_can_be_a_file_beside_the_scenario(small):
    from coordsim.scenario import catalog

    (small.parent / "mine.toml").write_text(catalog.show("summit").replace('"1.5us"', '"9us"'))
    small.write_text(small.read_text().replace('"summit"', '"mine.toml"'))
    cluster = load_scenario(small, overrides=["cluster.host.launch=1us"]).cluster
    assert (cluster.name, cluster.control.latency_ns) == ("mine", 9_000)
    assert cluster.sources["host.launch"] == "set by --set"
    assert cluster.sources["control.latency"].startswith("RECALL")


def test_inline_tensors_and_their_defaults(small):
    head = small.read_text().replace('tensors = "small.csv"\n', "").partition("[control_plane]")[0]
    rows = "".join(
        f'[[workload.tensors]]\nname = "{name}"\nshape = {shape}\ndtype = "float16"\nready = "{ready}"\n'
        for name, shape, ready in (("b.conv.weight", "[2, 3]", "1ms"), ("a", '"5x5"', "2.5ms"))
    )
    small.write_text(head + rows)
    tensors = load_scenario(small).workload.tensors
    assert [(t.layer, t.registration, t.shape, t.ready_ns) for t in tensors] == [
        ("b.conv", 1, (2, 3), 1_000_000),
        ("a", 0, (5, 5), 2_500_000),
    ]


def test_ranks_default_to_the_clusters(small):
    small.write_text(small.read_text().replace("ranks = 12\n", ""))
    assert load_scenario(small).ranks == 27_600
    assert load_scenario(small, cluster="localhost").ranks == 2


def test_more_ranks_than_the_machine_has_are_a_what_if(small):
    assert load_scenario(small, ranks=16_777_216).ranks == 16_777_216


def test_fewer_ranks_than_a_node_has_may_reduce_hierarchically(small):
    for ranks in (1, 5, 6, 12):
        assert (
            load_scenario(small, ranks=ranks, overrides=["cluster.data.allreduce=hierarchical"]).ranks
            == ranks
        )


def test_generator_parameters_are_keys_of_the_workload(small):
    text = small.read_text().partition("[workload]")[0]
    small.write_text(text + '[workload]\nbase = "stemdl"\ngrowth = 64\ninput = [256, 512, 512]\n')
    workload = load_scenario(small, overrides=["workload.kernel=3", "workload.optimizer=7ms"]).workload
    assert workload.parameters["growth"] == 64
    assert workload.parameters["kernel"] == 3
    assert workload.parameters["input"] == "256x512x512"
    assert workload.optimizer_ns == 7_000_000
    table = text + '[workload]\nbase = "stemdl"\n[workload.parameters]\ngrowth = 64\nkernel = 3\n'
    small.write_text(table + "input = [256, 512, 512]\n")
    assert load_scenario(small).workload.tensors == workload.tensors


def test_a_generator_runs_at_the_rate_of_the_cluster(small):
    slow = load_scenario(small, workload="stemdl", overrides=["cluster.machine.device_flops=30TF/s"]).workload
    fast = load_scenario(small, workload="stemdl").workload
    assert abs(slow.forward_ns - 2 * fast.forward_ns) <= 2


def test_a_list_of_ones_own_replaces_the_catalogs_generator(small):
    text = small.read_text().replace("[workload]\n", '[workload]\nbase = "stemdl"\n')
    small.write_text(text)
    workload = load_scenario(small).workload
    assert len(workload.tensors) == 4
    assert workload.parameters == {}


def test_importing_the_package_is_light():
    heavy = "[m for m in ('pydantic', 'numpy', 'torch') if m in sys.modules]"
    code = f"import sys, coordsim.scenario; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("override", "message"),
    [("noise.screen=100%", "noise.screen"), ("cluster.machine.ranks_per_node=2147483647", "ranks_per_node")],
)
def test_what_would_need_endless_candidates_is_refused(override, message):
    with pytest.raises(InputError, match=message):
        load_scenario(cluster="summit", workload="stemdl", overrides=[override])


def test_noise_that_goes_on_and_noise_of_all_ranks():
    given = [
        "noise.step.sigma=3%", "noise.step.correlation=0.7", "noise.common.sigma=2%",
        "noise.common.correlation=99.9999%",
    ]  # fmt: skip
    noise = load_scenario(workload="resnet50", cluster="summit", overrides=given).noise
    assert (noise.step, noise.step_correlation_ppm) == (Spread("normal", 30_000), 700_000)
    assert (noise.common, noise.common_correlation_ppm) == (Spread("normal", 20_000), 999_999)
    default = load_scenario(workload="resnet50", cluster="summit").noise
    assert (default.step_correlation_ppm, default.common, default.common_correlation_ppm) == (0, Spread(), 0)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("noise.step.correlation=1", "must be at most 99.9999%"),
        ("noise.common.correlation=-0.1", "noise.common.correlation"),
        ("noise.rank.correlation=0.5", "noise.rank.correlation"),
        ("noise.tensor.correlation=0.5", "noise.tensor.correlation"),
    ],
)
def test_correlations_that_there_are_not(given, told):
    with pytest.raises(InputError, match=told):
        load_scenario(workload="resnet50", cluster="summit", overrides=["noise.step.sigma=3%", given])
