"""Tensor lists in CSV: what is read, and what is refused with its line."""

from __future__ import annotations

import pytest

from coordsim.scenario import load_scenario

HEADER = "name,shape,dtype,layer,registration,ready"
GOOD = "a,4,float32,l,1,10"


@pytest.mark.parametrize(
    ("rows", "key", "message"),
    [
        ([HEADER, "a,4,flaot32,l,0,10"], "line 2.dtype", "did you mean 'float32'?"),
        ([HEADER, "a,4y4,float32,l,0,10"], "line 2.shape", "is not a shape such as 64x3x7x7"),
        ([HEADER, "a,4x0,float32,l,0,10"], "line 2.shape", "at least 1"),
        ([HEADER, "a,,float32,l,0,10"], "line 2.shape", "is missing"),
        ([HEADER, ",4,float32,l,0,10"], "line 2.name", "is missing"),
        ([HEADER, "a,4,float32,l,x,10"], "line 2.registration", "'x' is not a whole number"),
        ([HEADER, "a,4,float32,l,0,-1"], "line 2.ready", "negative"),
        ([HEADER, "a,4,float32,l,0,1.5"], "line 2.ready", "no unit"),
        ([HEADER, "a,4,float32,l,0"], "line 2.ready", "is missing"),
        ([HEADER, "a,4,float32,l,0,10,more"], "line 2", "has 7 values for 6 columns"),
        ([HEADER, GOOD, "a,4,float32,l,0,20"], "line 3", "tensor 'a' is already described in line 2"),
        ([HEADER, GOOD, "b,4,float32,l,1,20"], "line 3", "registration 1 is already that of 'a'"),
        ([HEADER, GOOD, "b,4,float32,l,0,9"], "line 3", "before that of the tensor above"),
        ([HEADER, "a,2300000001,float32,l,0,10"], "line 2", "exceeds 9200000000 B"),
        ([HEADER, "a,4,float32,l,0,4294967296"], "line 2", "beyond 4.29 s"),
        ([HEADER + ",submit", GOOD + ",11"], "line 2", "submit 11 ns is after ready 10 ns"),
        (
            [HEADER + ",submit", GOOD + ",8", "b,4,float32,l,0,20,7"],
            "line 3", "submit 7 ns is before that of the tensor above",
        ),
        (
            [HEADER + ",submit", GOOD + ",8"] + [f"b{i},4,float32,l,{1 + i},{i * 3_000_000_000},8" for i in (1, 2)]
            + ["c,4,float32,l,0,9000000000,4294967304"], "line 5", "submit is 4294967296 ns after",
        ),
        (["name,shape,dtype,layer,regstration,ready"], "line 1", "did you mean 'registration'?"),
        (["name,dtype,ready"], "line 1", "column 'shape' is missing (or 'numel', or 'bytes')"),
        ([HEADER, '"a,4'], "line 2", "is not CSV"),
    ],
)
def test_a_bad_line_is_named(small, refused, rows, key, message):
    csv = small.parent / "small.csv"
    csv.write_text("\n".join(rows) + "\n")
    (problem,) = refused(small)
    assert (problem.where, problem.key) == (str(csv), key)
    assert message in str(problem)


def test_a_list_without_rows_is_refused(small, refused):
    (small.parent / "small.csv").write_text(HEADER + "\n")
    (problem,) = refused(small)
    assert (problem.key, problem.message) == ("workload.tensors", "has no tensors")


def test_a_missing_list_names_the_path(small, refused):
    (small.parent / "small.csv").unlink()
    (problem,) = refused(small)
    assert problem.where == str(small.parent / "small.csv")
    assert "No such file" in problem.message


def test_a_list_full_of_mistakes_is_cut_short(small, refused):
    rows = [f"t{i},0,float32,l,{i},{i}" for i in range(100)]
    (small.parent / "small.csv").write_text("\n".join([HEADER, *rows]))
    found = refused(small)
    assert len(found) == 6
    assert found[-1].message == "and 95 more mistakes in the tensor list"


def test_the_edges_are_accepted(small):
    rows = ["a,2300000000,float32,l,5,4294967295", "b,1,bool,,0,8589934590ns", "c,1,int64,l,9,8589.93459 ms"]
    (small.parent / "small.csv").write_text("\ufeff" + "\n\n".join([HEADER, *rows]), encoding="utf-8")
    tensors = load_scenario(small).workload.tensors
    assert [tensor.nbytes for tensor in tensors] == [9_200_000_000, 1, 8]
    assert [tensor.ready_ns for tensor in tensors] == [4_294_967_295, 8_589_934_590, 8_589_934_590]
    assert tensors[1].layer == "b"


def test_submit_may_be_written_when_equal(small):
    (small.parent / "small.csv").write_text(f"{HEADER},submit\n{GOOD},10\n")
    assert load_scenario(small).workload.tensors[0].submit_ns == 10


def test_submit_before_ready_needs_somebody_who_waits(small, refused):
    (small.parent / "small.csv").write_text(f"{HEADER},submit\n{GOOD},9\n")
    (problem,) = refused(small)
    assert (problem.where, problem.key) == (str(small), "control_plane.wait_for_data")
    assert "a is submitted 1 ns before it exists" in problem.message
    assert problem.allowed == ("host", "stream")
    tensor = load_scenario(small, overrides=["control_plane.wait_for_data=host"]).workload.tensors[0]
    assert (tensor.submit_ns, tensor.ready_ns) == (9, 10)


def test_a_blocking_data_plane_has_no_stream(small, refused):
    waits = ["control_plane.wait_for_data=stream", "control_plane.data_plane=blocking"]
    (problem,) = refused(small, overrides=waits)
    assert (problem.where, problem.key) == ("--set", "control_plane.wait_for_data")
    assert "no stream that could wait" in problem.message
    for plane in ("ideal", "ddp"):  # they have a stream whatever data_plane says
        assert load_scenario(small, overrides=waits, control_plane=plane).control_plane.wait_for_data == "stream"


def test_enqueue_is_a_share_of_ready_and_replaces_the_column(small):
    (small.parent / "small.csv").write_text(f"{HEADER},submit\n{GOOD},10\nb,4,float32,l,0,30,20\n")
    waits = ["control_plane.wait_for_data=stream", "workload.enqueue=25%"]
    tensors = load_scenario(small, overrides=waits).workload.tensors
    assert [(tensor.submit_ns, tensor.ready_ns) for tensor in tensors] == [(2, 10), (7, 30)]
    whole = load_scenario(small, overrides=["workload.enqueue=100%"]).workload.tensors
    assert [(tensor.submit_ns, tensor.ready_ns) for tensor in whole] == [(10, 10), (30, 30)]
