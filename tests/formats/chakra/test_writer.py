"""Chakra: decoded by Google's protobuf with MLCommons' schema; a graph that runs; sizes and order of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordsim.errors import InputError
from coordsim.formats.shared import protobuf
from coordsim.record.ranks import read_folder
from coordsim.record.store import read_run
from coordsim.report.export import export_run
from tests.formats.chakra.chakra_schema import CLASSES, attributes, read_et
from tests.formats.runs import NAMES, record

COMP, COLL = 4, 7


def exported(run: Path, folder: Path, ranks: int, limit: int = 100_000) -> list[list[Any]]:
    """Nodes by rank, each graph checked."""
    export_run(run, "chakra", folder / "et", None, limit)
    assert sorted(path.name for path in folder.iterdir()) == [f"et.{rank}.et" for rank in range(ranks)]
    found = []
    for rank in range(ranks):
        metadata, nodes = read_et(folder / f"et.{rank}.et")
        assert metadata.version == "0.0.4"
        seen: set[int] = set()
        for node in nodes:
            assert node.id not in seen
            assert set(node.data_deps) <= seen, "a dependency that comes later"
            seen.add(node.id)
        found.append(nodes)
    return found


def test_a_simulated_run(simulated: Path, tmp_path: Path) -> None:
    trace = read_run(simulated).trace
    for nodes in exported(simulated, tmp_path, 4):
        collectives = [node for node in nodes if node.type == COLL]
        assert [attributes(node)["comm_size"] for node in collectives] == trace.responses["bytes"].tolist()
        assert [node.duration_micros for node in collectives] == (trace.responses["collective_ns"] // 1000).tolist()
        assert all(list(attributes(node)["involved_dim"].values) == [True] for node in collectives)
        computed = sum(node.duration_micros for node in nodes if node.type == COMP)
        steps = trace.steps
        assert computed < (steps["ready_last_ns"] - steps["start_ns"]).sum() / 1000 * 1.3


def test_a_real_run_has_each_ranks_own_times(recorded: Path, tmp_path: Path) -> None:
    graphs = exported(recorded, tmp_path, 3)
    kinds = {(attributes(node)["comm_type"]) for nodes in graphs for node in nodes if node.type == COLL}
    assert kinds == {0, 5}, "allreduces and the broadcast"
    for nodes, rank in zip(graphs, read_folder(recorded), strict=True):
        collectives = [node for node in nodes if node.type == COLL]
        assert [attributes(node)["comm_size"] for node in collectives] == [each.nbytes for each in rank.responses]
        assert NAMES[0] in collectives[0].name
        assert not attributes(collectives[0])["is_cpu_op"]


def test_a_step_waits_for_the_one_before(recorded: Path, tmp_path: Path) -> None:
    nodes = exported(recorded, tmp_path, 3)[0]
    by_id = {node.id: node for node in nodes}
    first = next(node for node in nodes if node.name.startswith("step 1: compute"))
    assert {by_id[each].name.split(":")[0] for each in first.data_deps} == {"step 0"}
    assert COLL in {by_id[each].type for each in first.data_deps}


def test_bounded(simulated: Path, tmp_path: Path) -> None:
    whole = sum(map(len, exported(simulated, tmp_path, 4)))
    done = export_run(simulated, "chakra", tmp_path / "et", None, whole - 1)
    assert 0 < sum(len(read_et(tmp_path / f"et.{rank}.et")[1]) for rank in range(4)) < whole
    assert any(each.startswith("left out for size") for each in done.left_out)
    assert "left out" in str(read_et(tmp_path / "et.0.et")[0].attr[0].string_val)
    with pytest.raises(InputError, match="not even one step fits"):
        export_run(simulated, "chakra", tmp_path / "no", None, 3)


def test_ranks_without_details_are_refused(tmp_path: Path) -> None:
    folder = record(tmp_path / "job", 2, 2, COORDSIM_RECORD_SAMPLED_RANKS="1")
    with pytest.raises(InputError, match="chakra needs details of every rank"):
        export_run(folder, "chakra", tmp_path / "et", None, 1000)


@given(st.integers(0, 2**64 - 1), st.text(), st.lists(st.integers(0, 2**64 - 1)))
def test_our_encoder_is_read_by_googles_decoder(number: int, text: str, numbers: list[int]) -> None:
    message = protobuf.number(1, number) + protobuf.text(2, text) + protobuf.numbers(5, numbers)
    found = CLASSES["Node"].FromString(message)
    assert found.id == number
    assert found.name == text.encode("utf-8", "replace").decode()
    assert list(found.data_deps) == numbers


@given(st.integers(-(2**63), 2**63 - 1))
def test_signed_numbers_too(number: int) -> None:
    found = CLASSES["AttributeProto"].FromString(protobuf.text(1, "x") + protobuf.number(9, number))
    assert (found.WhichOneof("value"), found.int64_val) == ("int64_val", number)
