"""Every mistake names its place, key, value, and what would have been accepted; all of them at once."""

from __future__ import annotations

import pytest

SET_MISTAKES = [
    ("rankz=3", "rankz", "did you mean 'ranks'?"),
    ("noise.rnak.sigma=1%", "noise.rnak", "did you mean 'rank'?"),
    ("control_plane.cycletime=1ms", "control_plane.cycletime", "did you mean 'cycle_time'?"),
    ("cluster.host.per_requst=1us", "cluster.host.per_requst", "did you mean 'per_request'?"),
    ("cluster.data.allreduce=rign", "cluster.data.allreduce", "did you mean 'ring'?"),
    ("cluster.control.gather=node_leaders", "cluster.control.gather", "did you mean 'node-leaders'?"),
    ("noise.rank.distribution=normall", "noise.rank.distribution", "did you mean 'normal'?"),
    ("control_plane=cachd", "control_plane.name", "did you mean 'cached'?"),
    ("control_plane.name=static", "control_plane.name", "'static' is not modelled yet"),
    ("control_plane.name=parameter-server", "control_plane.name", "is not modelled yet"),
    ("control_plane.name=[1]", "control_plane.name", "[1] is not known"),
    ("cluster=sumit", "cluster.base", "did you mean 'summit'?"),
    ("workload.base=resnet5", "workload.base", "is not a workload of the catalog"),
    ("control_plane.cycle_time=5", "control_plane.cycle_time", "'5' has no unit"),
    ("control_plane.cycle_time=-5ms", "control_plane.cycle_time", "negative"),
    ("control_plane.cycle_time=nan", "control_plane.cycle_time", "'nan' is not a time"),
    ("control_plane.cycle_time=", "control_plane.cycle_time", "'' is not a time"),
    ("control_plane.fusion_threshold=64", "control_plane.fusion_threshold", "no unit"),
    ("control_plane.groups=fc", "control_plane.groups", "'fc' is neither a count nor lists"),
    ("control_plane.groups=0", "control_plane.groups", "must be at least 1"),
    ("control_plane.groups=5", "control_plane.groups", "more than the workload's 4 tensors"),
    ("control_plane.groups=[[]]", "control_plane.groups", "neither a count nor lists"),
    ('control_plane.groups=[["fc.bais"]]', "control_plane.groups", "did you mean 'fc.bias'?"),
    ('control_plane.groups=[["fc.bias"],["fc.bias"]]', "control_plane.groups", "already in group 1"),
    ("control_plane.cache_capacity=0", "control_plane.cache_capacity", "control plane coordinator"),
    ("control_plane.cache_capacity=-1", "control_plane.cache_capacity", "at least 0"),
    ("control_plane.radix=1", "control_plane.radix", "1 must be at least 2"),
    ("control_plane.strict_groups=1", "control_plane.strict_groups", "neither true nor false"),
    ("control_plane.wire=tcp", "control_plane.wire", "allowed: horovod, coordsim"),
    ("cluster.control.latency=0", "cluster.control.latency", "0 must be at least 1ns"),
    ("cluster.control.latency=0.4ns", "cluster.control.latency", "must be at least 1ns"),
    ("cluster.control.local_latency=0", "cluster.control.local_latency", "must be at least 1ns"),
    ("cluster.data.bus_bandwidth=0", "cluster.data.bus_bandwidth", "at least 1B/s"),
    ("cluster.machine.pue=0.9", "cluster.machine.pue", "0.9 must be at least 1"),
    ("workload.forward=0", "workload.forward", "must be at least 1ns"),
    ("workload.forward=2h", "workload.forward", "must be at most 1h"),
    ("workload.batch=0", "workload.batch", "at least 1"),
    ("workload.growth=64", "workload.growth", "is not a known key"),
    ("noise.rank.sigma=101%", "noise.rank.sigma", "at most 100%"),
    ("noise=3", "noise", "3 is not a table"),
    ("noise.rank=3", "noise.rank", "3 is not a table"),
    ("workload=3", "workload", "3 is neither a table"),
    ("steps=0", "steps", "at least 1"),
    ("steps=1000001", "steps", "at most 1000000"),
    ("steps=1.5", "steps", "1.5 is not a whole number"),
    ("steps=true", "steps", "True is not a whole number"),
    ("seed=-1", "seed", "at least 0"),
    ("seed=9223372036854775808", "seed", "2^63"),
    ("ranks=0", "ranks", "at least 1"),
    ("ranks=16777217", "ranks", "out of this version's reach"),
    ("ranks.x=1", "ranks", "is not a whole number"),
]


@pytest.mark.parametrize(("override", "key", "message"), SET_MISTAKES)
def test_a_bad_override_names_itself(small, refused, override, key, message):
    (problem,) = refused(small, overrides=[override])
    assert problem.where == "--set"
    assert problem.key == key
    assert message in str(problem)


@pytest.mark.parametrize("text", ["steps", "=5", "noise..sigma=1%", ""])
def test_an_override_is_key_equals_value(small, refused, text):
    (problem,) = refused(small, overrides=[text])
    assert problem.where == "--set"
    assert "is not key=value" in problem.message


@pytest.mark.parametrize(
    ("changes", "where", "key"),
    [
        ({"ranks": 0}, "--ranks", "ranks"),
        ({"ranks": 2.0}, "--ranks", "ranks"),
        ({"steps": 0}, "--steps", "steps"),
        ({"seed": -1}, "--seed", "seed"),
        ({"groups": "5"}, "--groups", "control_plane.groups"),
        ({"control_plane": "cachd"}, "--control-plane", "control_plane.name"),
        ({"cluster": "sumit"}, "--cluster", "cluster.base"),
        ({"workload": "stemld"}, "--workload", "workload.base"),
        ({"workload": "nowhere.toml"}, "nowhere.toml", ""),
    ],
)
def test_a_bad_argument_is_placed_at_its_flag(small, refused, changes, where, key):
    (problem,) = refused(small, **changes)
    assert (problem.where, problem.key) == (where, key)


def test_all_mistakes_are_reported_at_once(small, refused):
    text = small.read_text().replace("ranks = 12", "rank = 12").replace('"0.5ms"', '"0.5"')
    small.write_text(
        text + 'cycle_tim = "1ms"\nradix = 1\n[noise]\nrank = {distribution = "gauss", sigma = "8"}\n'
    )
    csv = small.parent / "small.csv"
    csv.write_text(csv.read_text().replace("float32,conv,1", "flaot32,conv,1"))
    found = refused(small, cluster="sumit", overrides=["seed=x", "steps"])
    assert {(problem.where, problem.key) for problem in found} == {
        ("--set", ""),
        ("--set", "seed"),
        ("--cluster", "cluster.base"),
        (str(small), "rank"),
        (str(small), "workload.optimizer"),
        (str(small), "control_plane.cycle_tim"),
        (str(small), "control_plane.radix"),
        (str(small), "noise.rank.distribution"),
        (str(small), "noise.rank.sigma"),
        (str(csv), "line 4.dtype"),
    }


def test_mistakes_between_values_are_reported_together_too(small, refused):
    found = refused(
        small, ranks=13, groups=[["nope"]], overrides=["cluster.data.allreduce=hierarchical", "seed=3"]
    )
    assert [problem.key for problem in found] == ["control_plane.groups", "ranks"]
    assert "nearest: 12 and 18" in found[1].message


def test_a_number_without_unit_in_the_file_names_file_and_key(small, refused):
    small.write_text(small.read_text() + "cycle_time = 5\n")
    (problem,) = refused(small)
    assert str(problem).startswith(f"{small}: control_plane.cycle_time: '5' has no unit; write for example")


def test_nothing_at_all_asks_for_workload_and_cluster(refused):
    workload, cluster = refused()
    assert "--workload" in workload.message
    assert "stemdl" in workload.allowed
    assert {"localhost", "pascal-25g", "summit"} <= set(cluster.allowed)


def test_ranks_are_required_where_the_cluster_has_no_default(small, refused):
    from coordsim.scenario import catalog

    (small.parent / "mine.toml").write_text(catalog.show("summit").replace("default_ranks = 27600", ""))
    small.write_text(small.read_text().replace('"summit"', '"mine.toml"').replace("ranks = 12\n", ""))
    (problem,) = refused(small)
    assert (problem.where, problem.key, problem.message) == (str(small), "ranks", "is missing")


def test_a_cluster_of_ones_own_must_be_complete(small, refused):
    text = small.read_text().replace('cluster = "summit"\n', "")
    small.write_text(text + '[cluster.control]\nlatency = "3us"\n')
    keys = {problem.key for problem in refused(small)}
    assert {"cluster.machine", "cluster.host", "cluster.data", "cluster.control.bandwidth"} <= keys


def test_a_workload_of_ones_own_must_have_its_times(small, refused):
    text = small.read_text().replace('forward = "3ms"\n', "").replace("batch = 32\n", "")
    small.write_text(text)
    assert [problem.key for problem in refused(small)] == ["workload.forward", "workload.batch"]


def test_tensors_are_required(small, refused):
    small.write_text(small.read_text().replace('tensors = "small.csv"\n', ""))
    (problem,) = refused(small)
    assert (problem.key, problem.message) == ("workload.tensors", "is missing")
    small.write_text(small.read_text().replace("[workload]\n", "[workload]\ntensors = []\n"))
    (problem,) = refused(small)
    assert (problem.key, problem.message) == ("workload.tensors", "has no tensors")


def test_tensors_and_generator_exclude_each_other(small, refused):
    small.write_text(small.read_text().replace("[workload]\n", '[workload]\ngenerator = "stemdl"\n'))
    assert any("one or the other" in problem.message for problem in refused(small))


def test_an_unknown_generator_names_the_known_ones(small, refused):
    text = small.read_text().replace('tensors = "small.csv"', 'generator = "stemld"')
    small.write_text(text)
    (problem,) = refused(small)
    assert problem.key == "workload.generator"
    assert "did you mean 'stemdl'?" in str(problem)


def test_a_generators_complaint_is_placed_at_the_key(small, refused):
    even, grwth = refused(small, workload="stemdl", overrides=["workload.kernel=4", "workload.grwth=64"])[
        ::-1
    ]
    assert (even.where, even.key) == ("--set", "workload.kernel")
    assert "did you mean 'growth'?" in str(grwth)


def test_an_unknown_cluster_blames_no_generator(small, refused):
    (problem,) = refused(small, workload="stemdl", cluster="sumit")
    assert problem.where == "--cluster"


def test_an_and_in_the_network_needs_its_time(small, refused):
    """Summit's network has one; another has none until somebody says it."""
    from coordsim.scenario import load_scenario

    ask = "cluster.control.and_reduce=in-network"
    assert load_scenario(small, overrides=[ask]).cluster.control.in_network_ns == 3000
    (problem,) = refused(small, overrides=[ask, "cluster.control.in_network=0"])
    assert problem.key == "cluster.control.in_network"
    assert "needed, and at least 1ns" in problem.message
    (problem,) = refused(small, overrides=["cluster.control.and_reduce=rings"])
    assert "in-network" in str(problem)


def test_a_run_beyond_the_clock_is_refused(small, refused):
    (problem,) = refused(small, steps=1_000_000, overrides=["workload.forward=10min"])
    assert (problem.where, problem.key) == ("--steps", "steps")
    assert "64-bit nanoseconds" in problem.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ranks = ", "is not TOML"),
        (b"ranks = 1\nranks = 2", "is not TOML"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"ranks = 1" + b"0" * 5000, "is not TOML"),
    ],
)
def test_an_unreadable_file_is_the_only_mistake(tmp_path, refused, content, message):
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    (problem,) = refused(path)
    assert problem.where == str(path)
    assert message in problem.message


def test_a_missing_file_hides_no_mistake_of_the_command_line(tmp_path, refused):
    missing, ranks = refused(tmp_path / "no.toml", ranks=0)
    assert "No such file" in missing.message
    assert ranks.where == "--ranks"
    assert "cannot be read" in refused(tmp_path)[0].message
