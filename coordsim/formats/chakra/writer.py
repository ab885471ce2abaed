"""Chakra execution traces, one file a rank, for ASTRA-sim and other simulators of clusters.

A file is a ``GlobalMetadata`` and then ``Node`` messages of MLCommons' schema (``et_def.proto``), each preceded by its
length. A step is a chain of COMP nodes, each as long as the rank computed until the next response could be launched.
Each response is a COMM_COLL node after its COMP node and the response before. The next step begins after all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from coordsim.formats.shared import protobuf
from coordsim.record.files import whole_file
from coordsim.record.ranks import RankRecord
from coordsim.record.ranks.format import NULL
from coordsim.record.ranks.reader import ResponseRecord
from coordsim.record.trace import Trace

VERSION = "0.0.4"
COMP_NODE, COMM_COLL_NODE = 4, 7
COLLECTIVES = {
    "ALLREDUCE": 0, "ALLGATHER": 2, "BROADCAST": 5, "ALLTOALL": 6, "REDUCESCATTER": 7, "BARRIER": 9
}  # fmt: skip
"""Horovod's operations -> ``CollectiveCommType``."""
_OPERATIONS = {0: "ALLREDUCE", 1: "ALLGATHER", 2: "BROADCAST", 6: "BARRIER", 7: "REDUCESCATTER"}
"""Operations by number in a record of collectives (:class:`coordsim.protocol.messages.Op`), whose tensors are
parameters."""


class Collective(NamedTuple):
    """One response as a workload."""

    name: str
    kind: int
    """``CollectiveCommType``."""
    nbytes: int
    compute_ns: int
    """Compute time since the response before could be launched (for the first: since the step's begin)."""
    begin_ns: int
    """Begin, ns since the trace's begin."""
    duration_ns: int


@dataclass
class Workload:
    """What one rank does, [step][response], and what this form cannot express."""

    steps: list[list[Collective]] = field(default_factory=list)
    skipped: int = 0
    """Number of responses that are none of the schema's collectives."""

    @property
    def nodes(self) -> list[int]:
        """Number of nodes by step: one for each collective and one for the compute before it."""
        return [2 * len(step) for step in self.steps]


def simulated_workload(trace: Trace, wanted: Iterable[int]) -> Workload:
    """Return the workload of a trace, which is the same for all ranks: compute ends with the last rank's.

    ``wanted`` holds the rows of its steps.
    """
    workload = Workload()
    table = {name: column.tolist() for name, column in trace.responses.items()}
    ends = trace.steps["end_ns"].tolist()
    for step in wanted:
        at, until = (ends[step - 1] if step else 0), int(trace.steps["ready_last_ns"][step])
        first, behind = np.searchsorted(trace.responses["end_ns"], [at, ends[step]], side="right").tolist()
        collectives = []
        for number, row in enumerate(range(first, behind)):
            if table["bytes"][row] < 0:  # of unknown size
                workload.skipped += 1
                continue
            ready = max(min(table["launch_ns"][row], until), at)
            name = f"response {number} of {table['units'][row]} tensors"
            collectives.append(Collective(
                name, COLLECTIVES["ALLREDUCE"], table["bytes"][row], ready - at, table["begin_ns"][row],
                table["collective_ns"][row],
            ))  # fmt: skip
            at = ready
        workload.steps.append(collectives)
    return workload


def recorded_workload(record: RankRecord, wanted: Iterable[int], base_ns: int) -> Workload:
    """Return what one rank with details did in the steps ``wanted`` (numbers).

    ``base_ns`` is the trace's begin on rank 0's clock.
    """
    workload = Workload()
    moved = (0 if record.clock is None else record.clock.offset_ns) - base_ns
    ends = {step.step: step.end_collective_ns for step in record.steps if step.end_collective_ns != NULL}
    firsts = {step.step: step.first_submit_ns for step in record.steps}
    for step in wanted:
        stamps = {
            tensor: stamp
            for cycle in record.cycles if cycle.step == step
            for tensor, stamp in zip(cycle.popped, cycle.stamps_ns, strict=True)
        }  # fmt: skip
        at = ends.get(step - 1, firsts.get(step, 0))
        collectives = []
        of_step = [each for each in record.responses if each.step == step]
        if not record.cycles:  # nobody negotiates: as they were called
            of_step.sort(key=lambda one: (one.copied_in_ns, one.place))
        for response in of_step:
            op = _operation(record, response)
            until = response.reduced_ns if response.reduced_ns != NULL else response.end_ns
            if op not in COLLECTIVES or until == NULL:
                workload.skipped += 1
                continue
            known = [stamps[tensor] for tensor in response.tensors if tensor in stamps]
            ready = max([at, *(known or ([] if record.cycles else [response.launch_ns]))])
            first = record.name(response.tensors[0]) if response.tensors else op
            more = f" and {len(response.tensors) - 1} more" if len(response.tensors) > 1 else ""
            begin = response.begin_ns if response.copied_in_ns == NULL else response.copied_in_ns
            collectives.append(Collective(
                first + more, COLLECTIVES[op], response.nbytes, ready - at, begin + moved, max(until - begin, 0)
            ))  # fmt: skip
            at = ready
        workload.steps.append(collectives)
    return workload


def _operation(record: RankRecord, response: ResponseRecord) -> str:
    """Return what a response does: as requested or, without requests, as it was called."""
    if record.cycles:
        return str(record.tensors[response.tensors[0]]["op"]) if response.tensors else "BARRIER"
    return _OPERATIONS.get(response.op, "")


def write_chakra(prefix: Path, workloads: Sequence[Workload], about: str) -> list[Path]:
    """Write ``prefix``.0.et and so on, a file for each rank; ``about`` goes into each.

    Returns the files. Raises OSError.
    """
    paths = []
    for rank, workload in enumerate(workloads):
        path = prefix.with_name(f"{prefix.name}.{rank}.et")
        with whole_file(path) as fresh, open(fresh, "wb") as file:
            for message in messages(workload, about):
                file.write(protobuf.delimited(message))
        paths.append(path)
    return paths


def messages(workload: Workload, about: str) -> Iterator[bytes]:
    """Yield the messages of one rank's file."""
    yield protobuf.text(1, VERSION) + protobuf.data(2, _attribute("about", protobuf.text(29, about)))
    node = 0
    behind: list[int] = []
    for number, step in enumerate(workload.steps):
        last: list[int] = []
        compute = behind
        for collective in step:
            node += 1
            yield _compute(node, f"step {number}: compute before {collective.name}", compute, collective)
            compute = [node]
            node += 1
            yield _collective(node, f"step {number}: {collective.name}", [node - 1, *last], collective)
            last = [node]
        behind = [*compute, *last] if step else behind


def _compute(node: int, name: str, behind: Sequence[int], collective: Collective) -> bytes:
    begin_ns = max(collective.begin_ns - collective.compute_ns, 0)
    return _node(node, name, COMP_NODE, behind, begin_ns, collective.compute_ns)


def _collective(node: int, name: str, behind: Sequence[int], collective: Collective) -> bytes:
    attributes = (
        _attribute("comm_type", protobuf.number(9, collective.kind)),
        _attribute("comm_size", protobuf.number(9, collective.nbytes)),
        _attribute("involved_dim", protobuf.data(28, protobuf.numbers(1, [1]))),
    )
    return _node(node, name, COMM_COLL_NODE, behind, collective.begin_ns, collective.duration_ns, attributes)


def _node(
    node: int, name: str, kind: int, behind: Sequence[int], begin_ns: int, duration_ns: int,
    attributes: Iterable[bytes] = (),
) -> bytes:  # fmt: skip
    return b"".join([
        protobuf.number(1, node), protobuf.text(2, name), protobuf.number(3, kind), protobuf.numbers(5, behind),
        protobuf.number(6, begin_ns // 1000), protobuf.number(7, duration_ns // 1000),
        *(protobuf.data(10, each) for each in (*attributes, _attribute("is_cpu_op", protobuf.number(27, 0)))),
    ])  # fmt: skip


def _attribute(name: str, value: bytes) -> bytes:
    """Return an attribute; ``value`` is the oneof's field."""
    return protobuf.text(1, name) + value
