"""Every schema that has been written is read; one that is not known is named; hostile files are one error."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from coordsim.errors import InputError
from coordsim.formats.chakra import import_executions
from coordsim.formats.chakra.reader import SCHEMAS
from coordsim.formats.shared import protobuf as wire
from coordsim.formats.shared.python_literal import literal
from tests.formats.chakra.chakra_schema import CLASSES
from tests.formats.chakra.traces import Trace, plain


def flat(node: dict[str, Any], *, top: bool) -> dict[str, Any]:
    """As schema 1.0.1 writes a node; with ``top`` false, attributes as an object instead of at the top."""
    attributes = {each["name"]: each["value"] for each in node["attrs"]}
    found = {"name": node["name"], "id": node["id"], "parent": node["ctrl_deps"]}
    found.update(attributes if top else {"attrs": attributes})
    for side in ("inputs", "outputs"):
        found[side] = node[side]["values"]
        found[f"{side[:-1]}_shapes"], found[f"{side[:-1]}_types"] = node[side]["shapes"], node[side]["types"]
    return found


def job() -> Trace:
    """Two passes of one layer, told by sequence numbers only, and an allreduce."""
    trace = Trace()
    for sequence in (4, 5):
        trace.backward(sequence)
        trace.gradient(6, 2)
    trace.allreduce(12)
    trace.add("Optimizer.step#SGD.step")
    return trace


@pytest.mark.parametrize("schema", [*SCHEMAS, "9.9.9-chakra.1.2.3", None])
@pytest.mark.parametrize("form", ["objects", "lists", "attributes as an object", "parents as lists"])
def test_schemas_and_forms(schema: str | None, form: str, tmp_path: Path) -> None:
    trace = job()
    trace.schema = schema
    if form in ("lists", "attributes as an object"):
        trace.nodes = [flat(node, top=form == "lists") for node in trace.nodes]
    elif form == "parents as lists":
        for node in trace.nodes:
            node["ctrl_deps"] = [node["ctrl_deps"]]
    found = import_executions([trace.write(tmp_path / "a.json")])
    assert (found.summary["gradients"], found.summary["gradient_bytes"]) == (1, 48)
    assert found.summary["passes_per_iteration"] == 2
    assert found.summary["allreduce_bytes"] == [48]
    assert found.summary["schema"] == schema
    reason = {None: "no version", "9.9.9-chakra.1.2.3": "is not known here"}.get(schema)
    assert (reason or "") in found.unknown.get("schema", "")
    assert ("schema" in found.unknown) == (reason is not None)
    assert found.unknown["backend"].startswith("no description of process groups")


def test_the_json_that_chakras_feeder_reads(tmp_path: Path) -> None:
    nodes = [
        {"Id": 1, "Name": "forward", "NodeType": 4, "is_cpu_op": False, "runtime": 5, "data_deps": []},
        {"Id": 2, "Name": "x", "NodeType": 7, "is_cpu_op": False, "comm_type": 0, "comm_size": 4096, "data_deps": [1]},
        {"Id": 3, "Name": "c10d::allreduce_(0)", "NodeType": 7, "is_cpu_op": True, "data_deps": []},
        {"Id": 4, "Name": "ncclDevKernel_AllReduce_Sum_f32_RING_LL(x)", "NodeType": 7, "is_cpu_op": False},
        {"Id": 5, "Name": "y", "NodeType": 5, "is_cpu_op": False, "comm_size": 8},
    ]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"workload_graph": nodes, "workload_name": "w", "ngpus": 8}))
    found = import_executions([path])
    assert found.summary["collectives"] == {"all_reduce": 2, "send": 1}, "the host's part is not counted again"
    assert found.summary["allreduce_bytes"] == [4096, None]
    assert found.summary["ranks"] == 8


def old_attribute(name: str, place: int, value: int) -> bytes:
    return wire.data(11, wire.text(1, name) + wire.number(2, 2) + wire.number(place, value))


def old_node(number: int, kind: int, place: int, comm_type: int, size: int) -> bytes:
    attributes = old_attribute("comm_type", place, comm_type) + old_attribute("comm_size", place, size)
    return wire.number(1, number) + wire.text(2, "COMM") + wire.number(3, kind) + wire.number(4, 7) + attributes


def first_node(number: int, kind: int, comm_type: int, size: int) -> bytes:
    return (
        wire.number(1, number) + wire.text(2, "COMM") + wire.number(3, kind) + wire.number(7, 5)
        + wire.number(13, comm_type) + wire.number(18, size)
    )  # fmt: skip


def new_node(number: int, comm_type: int, size: int, **more: Any) -> Any:
    node = CLASSES["Node"](id=number, name="COMM", type=7, **more)
    node.attr.add(name="comm_type", int64_val=comm_type)
    node.attr.add(name="comm_size", int64_val=size)
    return node


def written(path: Path, *messages: Any) -> Path:
    data = [each if isinstance(each, bytes) else each.SerializeToString() for each in messages]
    path.write_bytes(b"".join(map(wire.delimited, data)))
    return path


@pytest.mark.parametrize(
    ("messages", "collectives"),
    [
        ([first_node(0, 6, 1, 400), first_node(1, 6, 3, 16), first_node(2, 4, 0, 8)],
         {"all_reduce": 1, "all_gather": 1, "send": 1}),
        ([old_node(0, 6, 5, 0, 400), old_node(1, 6, 5, 2, 16)], {"all_reduce": 1, "all_gather": 1}),
        ([wire.data(1, wire.text(1, "schema")), old_node(3, 7, 6, 0, 400), old_node(4, 7, 6, 1, 16)],
         {"all_reduce": 1, "all_to_all": 1}),
        ([wire.data(1, wire.text(1, "schema")), old_node(3, 7, 7, 0, 400), old_node(4, 7, 7, 4, 16)],
         {"all_reduce": 1, "broadcast": 1}),
        ([CLASSES["GlobalMetadata"](version="0.0.4"), new_node(0, 0, 400), new_node(1, 7, 16)],
         {"all_reduce": 1, "reduce_scatter": 1}),
        ([new_node(0, 0, 400), new_node(1, 9, 16)], {"all_reduce": 1, "barrier": 1}),
    ],
    ids=["2023-01", "0.0.2", "0.0.3", "0.0.3 with unsigned", "0.0.4", "without metadata"],
)  # fmt: skip
@pytest.mark.parametrize("packed", [False, True])
def test_generations_of_the_protobuf(
    messages: list[Any], collectives: dict[str, int], packed: bool, tmp_path: Path
) -> None:
    path = written(tmp_path / "a.0.et", *messages)
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    found = import_executions([path])
    assert found.summary["collectives"] == collectives
    assert found.summary["allreduce_bytes"] == [400]
    assert found.workload_csv == "name,bytes\nbucket.0,400\n"


def test_fields_that_are_not_known_are_skipped(tmp_path: Path) -> None:
    later = new_node(1, 0, 400).SerializeToString() + wire.number(90, 5) + wire.text(91, "x") + b"\xe5\x05abcd"
    found = import_executions([written(tmp_path / "a.0.et", CLASSES["GlobalMetadata"](version="7.1"), later)])
    assert found.summary["allreduce_bytes"] == [400]
    assert found.unknown["schema"] == "schema '7.1' is not known here; it was read as the others are"


def test_gradients_of_a_converted_trace(tmp_path: Path) -> None:
    nodes = []
    for number, sequence in ((10, 4), (20, 5)):
        backward = CLASSES["Node"](id=number, name="AddmmBackward0", type=4)
        for name, value in (("seq_id", sequence), ("scope", 1), ("tid", 2)):
            backward.attr.add(name=name, int64_val=value)
        arguments = b"".join(
            wire.text(place, text) for place, text in
            enumerate(("[[4, 5, 0, 6, 2, 'cuda:0']]", "[[2, 3]]", "['Tensor(c10::BFloat16)']"), start=1)
        )  # fmt: skip
        gradient = CLASSES["Node"](id=number + 1, name="torch::autograd::AccumulateGrad", type=4)
        nodes += [backward, gradient.SerializeToString() + wire.data(8, arguments)]
    device, host = new_node(30, 0, 12), new_node(29, 0, 999)
    host.attr.add(name="is_cpu_op", bool_val=True)
    path = written(tmp_path / "a.et", CLASSES["GlobalMetadata"](version="0.0.4"), *nodes, host, device)
    found = import_executions([path])
    assert (found.summary["gradients"], found.summary["gradient_bytes"]) == (1, 12)
    assert found.summary["allreduce_bytes"] == [12]


def test_ranks_from_the_names_of_a_simulators_files(tmp_path: Path) -> None:
    metadata = CLASSES["GlobalMetadata"](version="0.0.4")
    paths = [written(tmp_path / f"allreduce.{rank}.et", metadata, new_node(0, 0, 1 << 20)) for rank in (0, 1, 2)]
    assert import_executions(paths).summary["ranks"] == 3
    missing = import_executions([paths[0], paths[2]])
    assert missing.summary["ranks"] is None
    assert "ranks" in missing.unknown


def test_ranks_of_a_pipeline_may_differ_and_it_is_said(tmp_path: Path) -> None:
    metadata = CLASSES["GlobalMetadata"](version="0.0.4")
    paths = [written(tmp_path / f"mlp.{rank}.et", metadata, new_node(0, 0, 400 + rank)) for rank in (0, 1)]
    found = import_executions(paths)
    assert found.summary["allreduce_bytes"] == [400]
    assert found.unknown["other_ranks"].startswith("mlp.1.et has other allreduces than mlp.0.et")


def test_a_rank_without_a_description_of_groups_is_of_the_same_job(tmp_path: Path) -> None:
    described, other = job(), job()
    groups = json.dumps([{"pg_name": "0", "group_size": 8, "backend_config": "cuda:nccl"}])
    described.add("## process_group:init ##", plain(groups, "String"))
    paths = [other.write(tmp_path / "a.json"), described.write(tmp_path / "b.json")]
    assert import_executions(paths).summary["ranks"] == 8
    described.nodes[-1]["inputs"]["values"] = [groups.replace("8", "4")]
    paths.append(described.write(tmp_path / "c.json"))
    with pytest.raises(InputError, match=r"4, where it is 8 in b\.json: another job"):
        import_executions(paths[1:])


def test_a_description_of_groups_that_was_cut_is_the_reason(tmp_path: Path) -> None:
    trace = job()
    trace.add("## process_group:init ##", plain('[{"pg_name": "0", "group_si', "String"))
    found = import_executions([trace.write(tmp_path / "a.json")])
    assert found.unknown["ranks"] == "the description of process groups in it is cut off"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "holds no node"),
        (b"\xff\xff\xff\xff\xff\x7f", "without a length"),
        (b"\xff\xff\xff\x7f", "a message of 268,435,455 bytes"),
        (b"\x05ab", "the last message (2 of 5 bytes)"),
        (wire.delimited(wire.text(1, "1")) + wire.delimited(b"\x0a\xff\xff\xff\xff\x0fxx"), "longer than its message"),
        (gzip.compress(b"\x03\x0a\x011", mtime=0)[:-9], "holds no node"),
        (b"\x1f\x8b" + b"x" * 40, "damaged compression"),
    ],
)
def test_hostile_protobuf(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.et"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        import_executions([path])
    assert len(caught.value.problems) == 1
    assert said in str(caught.value) or "cut off" in str(caught.value)


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ('{"id": 1e999, "name": "x"}', 'has no "id"'),
        ('{"id": 99999999999999999999999, "name": "x"}', "is not between 0 and 2^64 - 1"),
        ('{"id": -4, "name": "x"}', "is not between 0 and 2^64 - 1"),
        ('{"id": ' + "9" * 10_000 + "}", "a number of absurd length"),
        ('{"id": 1, "name": 4}', 'has no "name"'),
        ("7", "is no object"),
    ],
)
def test_hostile_nodes(node: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"nodes": [' + node + "]}")
    with pytest.raises(InputError) as caught:
        import_executions([path])
    assert said in str(caught.value)


def test_arguments_of_any_kind_are_no_traceback(tmp_path: Path) -> None:
    trace = Trace()
    odd: list[Any] = [None, 5, "x", [], {}, [[[[[[[[[[1]]]]]]]]]], [None] * 3, True]
    for values in odd:
        for kinds in (*odd, ["Tensor(float)"], ["GenericList[" * 40 + "Tensor(float)" + "]" * 40]):
            trace.add("torch::autograd::AccumulateGrad")
            trace.nodes[-1]["inputs"] = {"values": values, "shapes": values, "types": kinds}
            trace.add("nccl:all_reduce")
            trace.nodes[-1]["inputs"] = {"values": [values], "shapes": [values], "types": kinds}
            trace.nodes[-1]["attrs"] = values
    found = import_executions([trace.write(tmp_path / "a.json")])
    assert found.summary["collectives"]["all_reduce"] == len(odd) * (len(odd) + 2)


def test_a_bomb_of_messages_does_not_fill_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.et.gz"
    message = wire.delimited(wire.number(1, 1) + wire.text(2, "x") + wire.number(3, 4))
    with gzip.open(path, "wb") as file:
        file.write(wire.delimited(wire.text(1, "0.0.4")))
        file.write(message * 20_000)
    tracemalloc.start()
    import_executions([path])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6, "20,000 nodes"


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "9" * 10_000, "__import__('os').system('true')", "{1: print()}", "(" * 40 + ")" * 40, "\0", "'"],
)
def test_what_is_no_literal_is_one_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"literal|deep|absurd"):
        literal(text)
