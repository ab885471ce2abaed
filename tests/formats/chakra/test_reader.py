"""Execution traces as workloads: real ones as JSON, made ones as protobuf."""

from __future__ import annotations

import gzip
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordsim.errors import InputError
from coordsim.formats.chakra import import_executions
from tests.budget import examples
from tests.formats.chakra.traces import Trace, tensor, tensors
from tests.formats.torch_files import CHAKRA, changed


def test_gradients_in_the_order_of_backward() -> None:
    found = import_executions(list(CHAKRA))
    assert found.trace is None
    assert found.summary["ranks"] == 2
    assert found.summary["allreduce_bytes"] == [271_392, 66_560]
    assert found.summary["gradient_bytes"] == 271_392 + 66_560
    assert found.workload_csv is not None
    rows = found.workload_csv.splitlines()
    assert rows[0] == "name,numel,dtype"
    assert [int(row.split(",")[1]) for row in rows[1:]] == [16_384, 256, 65_536, 256, 2048, 8]
    assert {"run", "ready", "names"} <= set(found.unknown)


def _no_gradients(found: dict[str, Any]) -> None:
    found["nodes"] = [each for each in found["nodes"] if "AccumulateGrad" not in each["name"]]


def test_without_gradients_messages_count(tmp_path: Path) -> None:
    found = import_executions([changed(CHAKRA[0], tmp_path / "a.json", _no_gradients)])
    assert found.workload_csv == "name,bytes\nbucket.1,66560\nbucket.0,271392\n"
    assert "counts as one gradient" in found.unknown["gradients"]


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def field(tag: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(tag << 3) + varint(value)
    return varint(tag << 3 | 2) + varint(len(value)) + value


def node(number: int, kind: int, comm_type: int, size: int) -> bytes:
    attributes = [field(1, b"comm_type") + field(9, comm_type), field(1, b"comm_size") + field(9, size)]
    body = field(1, number) + field(2, b"COMM") + field(3, kind) + field(7, 250)
    return body + b"".join(field(10, each) for each in attributes)


def et(*nodes: bytes) -> bytes:
    """A GlobalMetadata and ``nodes``, each with its length before it."""
    return b"".join(varint(len(each)) + each for each in (field(1, b"0.0.4"), *nodes))


def test_protobuf(tmp_path: Path) -> None:
    path = tmp_path / "rank.0.et"
    path.write_bytes(et(node(2, 7, 0, 4000), node(1, 7, 0, 8000), node(3, 4, 0, 1), node(4, 7, 2, 16)))
    found = import_executions([path])
    assert found.summary["nodes"] == 4
    assert found.summary["collectives"] == {"all_reduce": 2, "all_gather": 1}
    assert found.summary["allreduce_bytes"] == [8000, 4000]
    assert found.workload_csv == "name,bytes\nbucket.1,4000\nbucket.0,8000\n"


def test_a_cut_protobuf(tmp_path: Path) -> None:
    path = tmp_path / "rank.0.et"
    path.write_bytes(et(node(1, 7, 0, 8000), node(2, 7, 0, 4000))[:-5])
    found = import_executions([path])
    assert found.summary["allreduce_bytes"] == [8000]
    assert "the last message" in found.unknown["cut"]


@settings(max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.one_of(st.binary(max_size=200), st.binary(max_size=40).map(lambda each: et(each, node(1, 7, 0, 8)))))
def test_any_bytes_are_refused_or_read(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.et"
    path.write_bytes(data)
    with suppress(InputError):
        import_executions([path])


def test_ranks_of_different_jobs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="schema"):
        import_executions([CHAKRA[0], changed(CHAKRA[1], tmp_path / "b.json", lambda found: found.update(schema="9"))])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("{}", "holds no node"),
        ('{"nodes": [{"name": "x"}]}', 'nodes[0]: has no "id"'),
        ('{"nodes": [{"id": 1, "id": 2}]}', "two keys 'id'"),
        ('{"nodes": [{"id": ' + "[" * 200_000, "nested too deep"),
    ],
)
def test_what_is_no_execution_trace_is_one_error(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        import_executions([path])
    assert said in str(caught.value)


def test_a_foreach_optimizers_node_of_thousands_of_parameters_is_read(tmp_path: Path) -> None:
    trace = Trace()
    trace.gradient(10)
    lists = [tensors(*(tensor(1024, 1024, identity=at, storage=at) for at in range(4000))) for _ in range(5)]
    trace.add("aten::_fused_adamw_", *lists)
    trace.allreduce(10)
    path = trace.write(tmp_path / "a.json")
    assert path.stat().st_size > 1 << 20
    found = import_executions([path])
    assert (found.summary["gradients"], found.summary["collectives"]) == (1, {"all_reduce": 1})


def test_a_node_without_end_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordsim.formats.chakra.reader.LONGEST_NODE", 1 << 12)
    path = tmp_path / "a.json"
    path.write_text('{"nodes": [{"id": 1, "name": "' + "x" * (1 << 19) + '"}]}')
    with pytest.raises(InputError, match="a node longer than 4,096 characters"):
        import_executions([path])


def test_a_cut_inside_a_compressed_protobuf_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.0.et.gz"
    nodes = [node(number, 7, 0, 7919 * number % 100_003) for number in range(1, 3000)]
    path.write_bytes(gzip.compress(et(*nodes))[:-200])
    assert "the compressed file is cut off" in import_executions([path]).unknown["cut"]
