"""One call is one collective, whichever of its nodes were recorded; what is not known is listed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coordsim.formats.chakra import import_executions
from tests.formats.chakra.traces import Trace, plain, tensor, tensors


def summary(trace: Trace, tmp_path: Path) -> dict[str, Any]:
    return import_executions([trace.write(tmp_path / "a.json")]).summary


@pytest.mark.parametrize("backend", ["nccl", "nccl2", "gloo", "mpi", "ucc", "hccl", "xccl", "rccl", "cncl"])
def test_every_backend_counts(backend: str, tmp_path: Path) -> None:
    trace = Trace()
    trace.add(f"{backend}:all_reduce", tensor(8))
    found = summary(trace, tmp_path)
    assert found["collectives"] == {"all_reduce": 1}
    assert found["allreduce_bytes"] == [32]
    assert found["backend"] == backend


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("c10d::_allgather_base_", "all_gather"),
        ("c10d::allgather_into_tensor_coalesced_", "all_gather"),
        ("c10d::_reduce_scatter_base_", "reduce_scatter"),
        ("c10d::alltoall_base_", "all_to_all"),
        ("c10d::broadcast_", "broadcast"),
        ("c10d::recv_any_source_", "recv"),
        ("_c10d_functional::all_gather_into_tensor", "all_gather"),
        ("_c10d_functional::all_reduce_", "all_reduce"),
        ("nccl:_reduce_scatter_base", "reduce_scatter"),
        ("gloo:sparse_all_reduce", None),
    ],
)
def test_names_of_operations(name: str, kind: str | None, tmp_path: Path) -> None:
    trace = Trace()
    trace.add(name)
    found = summary(trace, tmp_path)
    assert (found["collectives"], found["not_read"]) == (({kind: 1}, {}) if kind else ({}, {name: 1}))


def test_three_nodes_within_each_other_are_one_call(tmp_path: Path) -> None:
    trace = Trace()
    operation = trace.add("c10d::allreduce_", plain("<Object>", "Object"))
    record = trace.add(
        "record_param_comms", plain("allreduce", "String"), parent=operation, collective_name="allreduce",
        dtype="Float", in_msg_nelems=10, pg_size=16,
    )  # fmt: skip
    trace.add("nccl:all_reduce", parent=record)
    found = summary(trace, tmp_path)
    assert found["collectives"] == {"all_reduce": 1}
    assert found["allreduce_bytes"] == [40], "only the record says a size"
    assert found["ranks"] == 16


def test_a_backends_part_on_another_thread_is_joined(tmp_path: Path) -> None:
    trace = Trace()
    for _ in range(2):
        trace.add("c10d::allreduce_", plain("<Object>", "Object"))
    for size in (3, 4):
        trace.add("gloo:all_reduce", tensor(size))
    found = summary(trace, tmp_path)
    assert found["collectives"] == {"all_reduce": 2}
    assert found["allreduce_bytes"] == [12, 16]


def test_waits_are_no_calls(tmp_path: Path) -> None:
    trace = Trace()
    trace.add("record_param_comms", plain(12, "Int"), plain("wait", "String"))
    trace.add("_c10d_functional::wait_tensor", tensor(5))
    trace.add("nccl:coalesced")
    found = summary(trace, tmp_path)
    assert (found["collectives"], found["not_read"]) == ({}, {})


def test_what_goes_in_counts_where_the_output_comes_first(tmp_path: Path) -> None:
    trace = Trace()
    trace.add("c10d::allgather_", tensors(tensors(tensor(6), tensor(6))), tensors(tensor(6)))
    trace.allreduce(6)
    found = import_executions([trace.write(tmp_path / "a.json")])
    assert found.summary["collectives"] == {"all_gather": 1, "all_reduce": 1}


def test_several_tensors_of_a_call_are_summed(tmp_path: Path) -> None:
    trace = Trace()
    trace.add("c10d::allreduce_coalesced_", tensors(tensor(6), tensor(2, kind="c10::Half", width=2)))
    assert summary(trace, tmp_path)["allreduce_bytes"] == [28]


def test_a_size_that_no_node_says_is_unknown(tmp_path: Path) -> None:
    trace = Trace()
    trace.add("xccl:all_reduce")
    found = import_executions([trace.write(tmp_path / "a.json")])
    assert found.summary["allreduce_bytes"] == [None]
    assert "do not all say a size" in found.unknown["workload"]
    assert found.workload_csv is None


def test_the_number_of_ranks_in_schema_1_0_2_is_the_last_input(tmp_path: Path) -> None:
    trace = Trace("1.0.2-chakra.0.0.4")
    values = [(12, "Int"), (99, "Int"), (0, "Int"), ("all_gather", "String"), ([], "GenericList[]"),
              ([], "GenericList[]"), (4, "Int")]  # fmt: skip
    trace.add("record_param_comms", tensors(tensor(1)), *(plain(*each) for each in values))
    found = summary(trace, tmp_path)
    assert found["ranks"] == 4
    assert found["collectives"] == {"all_gather": 1}


def test_a_circle_of_parents_ends(tmp_path: Path) -> None:
    trace = Trace()
    trace.add("c10d::allreduce_", tensors(tensor(6)), parent=3)
    trace.add("nccl:all_reduce", tensor(6), parent=2)
    trace.add("nccl:all_reduce", tensor(6), parent=4)
    assert summary(trace, tmp_path)["collectives"] == {"all_reduce": 2}
