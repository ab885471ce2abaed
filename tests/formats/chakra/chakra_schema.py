"""MLCommons' Chakra schema, as far as we write it, given to Google's own protobuf library, and a reader with it.

Field numbers and types are those of ``schema/protobuf/et_def.proto`` of github mlcommons/chakra, typed in by hand: an
encoder of ours is checked by a decoder that shares nothing with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "ChakraProtoMsg"


def _message(file: Any, name: str, *fields: tuple[str, int, int, str, bool, bool]) -> None:
    """Fields: name, number, type, message type or "", repeated, in the oneof."""
    message = file.message_type.add(name=name)
    if any(each[5] for each in fields):
        message.oneof_decl.add(name="value")
    for label, number, kind, of, repeated, one in fields:
        field = message.field.add(name=label, number=number, type=kind)
        field.label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
        if of:
            field.type_name = f".{_PACKAGE}.{of}"
        if one:
            field.oneof_index = 0


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="et_def.proto", package=_PACKAGE, syntax="proto3")
    _message(file, "BoolList", ("values", 1, _FIELD.TYPE_BOOL, "", True, False))
    _message(
        file, "AttributeProto", ("name", 1, _FIELD.TYPE_STRING, "", False, False),
        ("int64_val", 9, _FIELD.TYPE_INT64, "", False, True), ("bool_val", 27, _FIELD.TYPE_BOOL, "", False, True),
        ("bool_list", 28, _FIELD.TYPE_MESSAGE, "BoolList", False, True),
        ("string_val", 29, _FIELD.TYPE_STRING, "", False, True),
    )  # fmt: skip
    _message(
        file, "GlobalMetadata", ("version", 1, _FIELD.TYPE_STRING, "", False, False),
        ("attr", 2, _FIELD.TYPE_MESSAGE, "AttributeProto", True, False),
    )  # fmt: skip
    _message(
        file, "Node", ("id", 1, _FIELD.TYPE_UINT64, "", False, False),
        ("name", 2, _FIELD.TYPE_STRING, "", False, False),
        ("type", 3, _FIELD.TYPE_ENUM, "NodeType", False, False), ("ctrl_deps", 4, _FIELD.TYPE_UINT64, "", True, False),
        ("data_deps", 5, _FIELD.TYPE_UINT64, "", True, False),
        ("start_time_micros", 6, _FIELD.TYPE_UINT64, "", False, False),
        ("duration_micros", 7, _FIELD.TYPE_UINT64, "", False, False),
        ("attr", 10, _FIELD.TYPE_MESSAGE, "AttributeProto", True, False),
    )  # fmt: skip
    kinds = file.enum_type.add(name="NodeType")
    for number, name in enumerate(["INVALID", "METADATA", "MEM_LOAD", "MEM_STORE", "COMP", "COMM_SEND", "COMM_RECV",
                                   "COMM_COLL"]):  # fmt: skip
        kinds.value.add(name=f"{name}_NODE", number=number)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = ("GlobalMetadata", "Node", "AttributeProto")
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in names
    }  # fmt: skip


CLASSES = _classes()


def read_et(path: Path) -> tuple[Any, list[Any]]:
    """(metadata, nodes) of a file; nothing may be left over, and no field unknown to the schema."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        size, shift = 0, 0
        while True:
            byte = data[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        assert at + size <= len(data), "the file ends inside a message"
        message = CLASSES["Node" if found else "GlobalMetadata"].FromString(data[at : at + size])
        canonical = type(message).FromString(message.SerializeToString())
        assert canonical == message
        found.append(message)
        at += size
    return found[0], found[1:]


def attributes(node: Any) -> dict[str, Any]:
    """Name -> value."""
    return {each.name: getattr(each, each.WhichOneof("value")) for each in node.attr}
