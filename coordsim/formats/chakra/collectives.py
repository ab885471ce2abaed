"""Calls of collectives in an execution trace.

PyTorch records one call as up to three nested nodes: the operation (``c10d::allreduce_``), the process group's note of
it (``record_param_comms``), and the backend's part (``nccl:all_reduce``, ``gloo:all_reduce``). They are counted as one
call, whose size is taken from a node that has it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from coordsim.formats.chakra.node import LARGEST_BYTES, Node, Tensor
from coordsim.formats.shared.torch_types import TYPES

RECORD = "record_param_comms"
BACKENDS = ("nccl", "nccl2", "gloo", "mpi", "ucc", "hccl", "xccl", "rccl", "coord")
"""Backends whose operations are surely communication, so that unknown ones are listed as not read."""
_OPERATIONS = re.compile(r"(?:c10d|_?c10d_functional(?:_autograd)?|symm_mem)::(.+)", re.DOTALL)
_BACKEND = re.compile(r"([A-Za-z][A-Za-z0-9_]{0,19}):(?!:)([A-Za-z_][A-Za-z0-9_]*)")
_KINDS = {
    "all_reduce": ("allreduce", "allreducecoalesced", "allreducesparse"),
    "all_gather": (
        "allgather", "allgatherbase", "allgatherv", "allgathercoalesced", "allgatherintotensor",
        "allgatherintotensorout", "allgatherintotensorcoalesced",
    ),
    "reduce_scatter": (
        "reducescatter", "reducescatterbase", "reducescatterv", "reducescattercoalesced", "reducescattertensor",
        "reducescattertensorcoalesced",
    ),
    "broadcast": ("broadcast", "broadcastoop"),
    "all_to_all": ("alltoall", "alltoallbase", "alltoallv", "alltoallsingle"),
    "reduce": ("reduce", "reduceoop"),
    "gather": ("gather",),
    "scatter": ("scatter",),
    "barrier": ("barrier", "monitoredbarrier"),
    "send": ("send",),
    "recv": ("recv", "recvanysource"),
}  # fmt: skip
_KIND = {name: kind for kind, names in _KINDS.items() for name in names}
_LONGEST_NAME = 200
_NO_MESSAGE = frozenset({"wait", "waitall", "waittensor", "init", "coalesced", "startcoalescing", "endcoalescing"})
"""Operations that are recorded like calls, but send nothing of their own."""
_TRUSTED = ("record", "backend", "operation")
"""The parts of a call in the order in which its size is looked for."""
_INPUT_SECOND = frozenset({"all_gather", "reduce_scatter", "all_to_all", "gather", "scatter"})
"""Operations of c10d whose first argument is the output, and whose second is the input."""


class Part(NamedTuple):
    """One node of a call."""

    number: int
    parent: int
    layer: str
    """``operation``, ``record`` or ``backend``."""
    kind: str | None
    """As in :data:`_KIND`; "" for an operation that sends nothing; None if it is not known."""
    name: str
    nbytes: int | None
    backend: str | None = None


class Call(NamedTuple):
    """One collective, or one send or receive."""

    number: int
    """Number of its outermost node; calls in order of these numbers began in this order."""
    kind: str
    nbytes: int | None
    """Bytes that one rank puts in; None if no node states it."""
    backend: str | None = None


def kind_of(operation: str) -> str | None:
    """Return the collective that an operation's name means; "" for waits and the like, None if it is not known."""
    plain = re.sub(r"[^a-z0-9]", "", operation.lower())
    return "" if plain in _NO_MESSAGE else _KIND.get(plain)


@lru_cache(maxsize=1 << 12)
def _named(name: str) -> tuple[str, str | None, str | None] | None:
    """Return (layer, kind, backend) of a part of that name; None for the name of a node that does not communicate."""
    if name == RECORD:
        return "record", None, None
    if match := _OPERATIONS.fullmatch(name):
        return "operation", kind_of(match[1].partition(".")[0].partition("(")[0]), None
    if ":" not in name or not (match := _BACKEND.fullmatch(name)):
        return None
    kind = kind_of(match[2])
    return None if kind is None and match[1].lower() not in BACKENDS else ("backend", kind, match[1])


def part_of(node: Node) -> Part | None:
    """Return ``node`` as a part of a call; None for a node that does not communicate."""
    name = node.name
    said = _named(name) if len(name) <= _LONGEST_NAME else None
    if said is None:
        return None
    layer, kind, backend = said
    if layer == "record":
        return _record(node)
    place = 1 if kind in _INPUT_SECOND and name.startswith("c10d::") else 0
    return Part(node.number, node.parent, layer, kind, name[:80], nbytes_of(node.inputs.tensors(place)), backend)


def _record(node: Node) -> Part:
    operation = node.attributes.get("collective_name")
    if not isinstance(operation, str):
        operation = next((kind_value for kind_value in node.inputs.values if _is_operation(kind_value)), "")
    kind = kind_of(operation)
    elements, width = node.attributes.get("in_msg_nelems"), TYPES.get(str(node.attributes.get("dtype")).lower())
    nbytes = nbytes_of(node.inputs.tensors(0))
    if type(elements) is int and width is not None and 0 < elements * width[1] < LARGEST_BYTES:
        nbytes = elements * width[1]
    return Part(node.number, node.parent, "record", kind, f"{RECORD} {operation}".strip()[:80], nbytes)


def group_size_of(node: Node) -> int | None:
    """Return the ranks of the group of a :data:`RECORD`: an attribute since 1.1.0, the last input since 1.0.2."""
    values = node.inputs.values
    size = node.attributes.get("pg_size", values[-1] if node.name == RECORD and len(values) >= 8 else None)
    return size if type(size) is int and 0 < size <= 1 << 20 else None


def _is_operation(value: Any) -> bool:
    return isinstance(value, str) and kind_of(value) is not None


def nbytes_of(tensors: Sequence[Tensor]) -> int | None:
    """Return the sum; None without tensors, or with one whose size is not known."""
    total = 0
    for tensor in tensors:
        if tensor.nbytes is None:
            return None
        total += tensor.nbytes
    return total if tensors and total < LARGEST_BYTES else None


def calls_of(parts: Iterable[Part]) -> tuple[list[Call], Counter[str]]:
    """Return (the calls in order, names of parts that are no known collective, with their counts)."""
    calls: list[tuple[Call, bool, bool]] = []
    unread: Counter[str] = Counter()
    for chain in _chains(parts):
        kinds = [part.kind for part in chain if part.kind is not None]
        if not kinds:
            unread[chain[0].name] += 1
        elif named := next((kind for kind in kinds if kind), None):
            best = sorted(chain, key=lambda part: _TRUSTED.index(part.layer))
            nbytes = next((part.nbytes for part in best if part.nbytes is not None), None)
            backend = next((part.backend for part in chain if part.backend), None)
            layers = {part.layer for part in chain}
            call = Call(chain[0].number, named, nbytes, backend)
            calls.append((call, "backend" in layers, layers == {"backend"}))
    return _joined(calls), unread


def _chains(parts: Iterable[Part]) -> list[list[Part]]:
    """Return nested parts, the outermost first. A parent begins before its child, so there are no circles."""
    outermost: dict[int, int] = {}
    chains: dict[int, list[Part]] = defaultdict(list)
    for part in sorted(parts, key=lambda part: part.number):
        around = outermost.get(part.parent) if part.parent < part.number else None
        outermost[part.number] = part.number if around is None else around
        chains[outermost[part.number]].append(part)
    return list(chains.values())


def _joined(calls: Sequence[tuple[Call, bool, bool]]) -> list[Call]:
    """Return calls, in which a backend's part recorded by another thread is no call of its own.

    The parts of one kind are in the order of the calls: as many of them are joined as there are calls without a part.
    """
    loose = Counter(call.kind for call, has_backend, _ in calls if not has_backend)
    parts: dict[str, list[Call]] = defaultdict(list)
    for call, _, only_backend in calls:
        if only_backend and len(parts[call.kind]) < loose[call.kind]:
            parts[call.kind].append(call)
    dropped = {call.number for joined in parts.values() for call in joined}
    used: Counter[str] = Counter()
    merged = []
    for call, has_backend, _ in calls:
        if call.number in dropped:
            continue
        if not has_backend and used[call.kind] < len(parts[call.kind]):
            part = parts[call.kind][used[call.kind]]
            used[call.kind] += 1
            call = call._replace(nbytes=part.nbytes if call.nbytes is None else call.nbytes, backend=part.backend)
        merged.append(call)
    return merged

