"""A workload from a CSV file of tensors: what little it must say, what is assumed then, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordsim.analyse.assumptions import assumptions
from coordsim.scenario import load_scenario

MODEL = "name,shape\nconv.weight,4x5\nconv.bias,4\nfc.weight,10x2\nfc.bias,6\n"
MS = 1_000_000


@pytest.fixture
def bare(tmp_path: Path) -> str:
    """A model's parameters in the order in which it lists them: 20, 4, 20 and 6 values."""
    path = tmp_path / "mine.csv"
    path.write_text(MODEL)
    return str(path)


def load(workload, *overrides, **changes):
    return load_scenario(workload=workload, cluster="summit", ranks=6, overrides=overrides, **changes)


def test_names_and_shapes_are_enough(bare):
    scenario = load(bare)
    workload = scenario.workload
    assert workload.name == "mine"
    assert [(t.name, t.dtype, t.layer, t.registration) for t in workload.tensors] == [
        ("fc.bias", "float32", "fc", 3),
        ("fc.weight", "float32", "fc", 2),
        ("conv.bias", "float32", "conv", 1),
        ("conv.weight", "float32", "conv", 0),
    ]
    assert [t.ready_ns for t in workload.tensors] == [12 * MS, 52 * MS, 60 * MS, 100 * MS]  # 6, 26, 30, 50 of 50
    assert (workload.forward_ns, workload.batch, workload.timing) == (50 * MS, 1, "stated")
    assert workload.optimizer_ns == 50 * 20 * 10**9 // (900 * 10**9)
    assert workload.sources["backward"].startswith("ASSUMED: 100 ms")
    said = assumptions(scenario)
    assert said[0].startswith("mine says no backward time; assumed: 100 ms")
    assert said[0].endswith("(workload.backward)")


def test_what_is_said_is_not_assumed(bare):
    scenario = load(bare, "workload.backward=20ms", "workload.batch=8", "workload.optimizer=0")
    workload = scenario.workload
    assert (workload.forward_ns, workload.backward_ns) == (10 * MS, 20 * MS)
    assert (workload.batch, workload.optimizer_ns) == (8, 0)
    assert workload.sources["backward"] == "set by --set"
    assert assumptions(scenario)[0].startswith("mine says no forward time; assumed: half of backward")
    stated = load(bare, "workload.backward=20ms", "workload.forward=9ms")
    assert stated.workload.forward_ns == 9 * MS
    assert not any("says no" in each for each in assumptions(stated))


def test_flops_give_the_times_at_the_clusters_rate(bare):
    """8 samples of 45 GFLOP at 60 TFLOP/s: 6 ms, two thirds of them backward."""
    workload = load(bare, "workload.flops_per_sample=45GFLOP", "workload.batch=8").workload
    assert (workload.forward_ns, workload.backward_ns) == (2 * MS, 4 * MS)
    assert workload.sources["backward"].startswith("DERIVED: two thirds of the FLOPs")


def test_ready_times_make_it_a_list_in_ready_order(tmp_path):
    path = tmp_path / "timed.csv"
    path.write_text("name,numel,ready\na,100,2ms\nb,50,6000000\n")
    workload = load(str(path)).workload
    assert [(t.name, t.shape, t.ready_ns, t.registration) for t in workload.tensors] == [
        ("a", (100,), 2 * MS, 1),
        ("b", (50,), 6 * MS, 0),
    ]
    assert (workload.forward_ns, workload.backward_ns) == (3 * MS, 6 * MS)


@pytest.mark.parametrize(
    ("header", "row", "shape", "nbytes"),
    [
        ("name,numel", "a,12", (12,), 48),
        ("name,bytes", "a,48", (12,), 48),
        ("name,bytes", "a,1KiB", (256,), 1024),
        ("name,bytes,dtype", "a,48,float16", (24,), 48),
        ("dtype,shape,name", "bfloat16,3x4,a", (3, 4), 24),
        ("name,shape", "a,1", (1,), 4),
    ],
)
def test_sizes(tmp_path, header, row, shape, nbytes):
    path = tmp_path / "list.csv"
    path.write_text(f"{header}\n{row}\n")
    (tensor,) = load(str(path)).workload.tensors
    assert (tensor.shape, tensor.nbytes) == (shape, nbytes)


def test_registration_says_the_order_where_there_are_no_times(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("name,numel,registration\na,1,5\nb,1,9\nc,1,2\n")
    assert [t.name for t in load(str(path)).workload.tensors] == ["b", "a", "c"]


def test_a_file_can_name_a_list_and_add_to_it(bare):
    scenario = Path(bare).with_name("job.toml")
    scenario.write_text('ranks = 6\ncluster = "summit"\n[workload]\nbase = "mine.csv"\nbatch = 4\nbackward = "8ms"\n')
    workload = load_scenario(scenario).workload
    assert (workload.name, workload.batch, workload.backward_ns) == ("mine", 4, 8 * MS)
    scenario.write_text('ranks = 6\ncluster = "summit"\nworkload = "mine.csv"\n')
    assert len(load_scenario(scenario).workload.tensors) == 4


def test_inline_tensors_may_go_without_times_too(tmp_path, refused):
    path = tmp_path / "job.toml"
    rows = "".join(f'[[workload.tensors]]\nname = "{name}"\nnumel = {n}\n' for name, n in (("a", 1), ("b", 3)))
    head = 'ranks = 6\ncluster = "summit"\n[workload]\nforward = "1ms"\noptimizer = 0\nbatch = 1\n'
    path.write_text(head + rows)
    (problem,) = refused(path)
    assert (problem.key, problem.message) == ("workload.backward", "is missing: the tensors have no ready times")
    path.write_text(head + 'backward = "4ms"\n' + rows)
    assert [(t.name, t.ready_ns) for t in load_scenario(path).workload.tensors] == [("b", 3 * MS), ("a", 4 * MS)]


@pytest.mark.parametrize(
    ("content", "key", "message"),
    [
        (b"name,bytes\na,-4\n", "line 2.bytes", "-4 must be at least 1"),
        (b"name,numel\na,0\n", "line 2.numel", "0 must be at least 1"),
        (b"name,numel\na,1.5\n", "line 2.numel", "'1.5' is not a whole number"),
        (b"name,bytes\na,many\n", "line 2.bytes", "'many' is not a size"),
        (b"name,bytes\na,6\n", "line 2.bytes", "6 B are no whole float32 values of 4 B"),
        (b"name,bytes\na,\n", "line 2.bytes", "is missing"),
        (b"name,shape\na,-3x4\n", "line 2.shape", "'-3x4' is not a shape such as 64x3x7x7"),
        (b"name,shape,dtype\na,4,flaot32\n", "line 2.dtype", "did you mean 'float32'?"),
        (b"name,shape\na,4\na,5\n", "line 3", "tensor 'a' is already described in line 2"),
        (b"name,shape,registration\na,4,-1\n", "line 2.registration", "-1 must be at least 0"),
        (b"name,numel\na,9999999999\n", "line 2", "exceeds 9200000000 B"),
        (b"nmae,shape\n", "line 1", "did you mean 'name'?"),
        (b"shape\n4\n", "line 1", "column 'name' is missing"),
        (b"name\na\n", "line 1", "column 'shape' is missing (or 'numel', or 'bytes')"),
        (b"name,shape,bytes\na,4,16\n", "line 1", "columns 'shape' and 'bytes' exclude each other"),
        (b"name,name,shape\na,b,4\n", "line 1", "column 'name' is there twice"),
        (b"name,shape,submit\na,4,1ms\n", "line 1", "column 'submit' needs column 'ready'"),
        (b"", "line 1", "is empty"),
        (b"name,shape\na,4\nb\xff,4\n", "line 3", "is not UTF-8 text (byte 0xff)"),
        (b"\xff\xfen\x00a\x00", "line 1", "is not UTF-8 text (byte 0xff)"),
        (b'name,shape\n"a,4\n', "line 2", "is not CSV"),
    ],
)
def test_a_mistake_names_file_line_and_value(tmp_path, refused, content, key, message):
    path = tmp_path / "list.csv"
    path.write_bytes(content)
    found = refused(workload=str(path), cluster="summit")
    assert (found[0].where, found[0].key) == (str(path), key)
    assert message in str(found[0])


def test_a_list_without_rows_is_refused(tmp_path, refused):
    path = tmp_path / "list.csv"
    path.write_text("name,shape\n")
    (problem,) = refused(workload=str(path), cluster="summit")
    assert (problem.key, problem.message) == ("workload.tensors", "has no tensors")


def test_a_missing_list_offers_one_of_a_like_name(bare, refused):
    (problem,) = refused(workload=bare.replace("mine", "mien"), cluster="summit")
    assert problem.where.endswith("mien.csv")
    assert "No such file or directory (did you mean 'mine.csv'?)" in problem.message


def test_a_cluster_is_no_list(bare, refused):
    (problem,) = refused(workload=bare, cluster=bare)
    assert problem.where == "--cluster"
    assert "is not a cluster of the catalog, nor a .toml file" in problem.message


def test_times_that_no_noise_could_act_on_are_refused(bare, refused):
    (problem,) = refused(workload=bare, cluster="summit", overrides=["workload.backward=20s"])
    assert problem.key == "workload.backward"
    assert "gives one tensor 8000000000 ns, beyond 4.29 s" in problem.message
