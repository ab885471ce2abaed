"""What ranks say to each other: requests, responses, and the lists that carry them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from math import prod
from typing import TypeAlias


class Op(IntEnum):
    """What is asked for; the numbers are the wire's."""

    ALLREDUCE = 0
    ALLGATHER = 1
    BROADCAST = 2
    JOIN = 3
    """The rank has no more data; until all have joined it takes part with zeros (docs/horovod.md 2.7)."""
    REDUCESCATTER = 7
    BARRIER = 6
    ERROR = 8
    """Only in responses: the request was invalid, and ``Response.error`` says why."""


CACHEABLE = frozenset({Op.ALLREDUCE, Op.ALLGATHER})
"""Broadcast, reduce-scatter, barrier and errors always take the slow path (docs/horovod.md 2.4)."""

ZERO_FILLED = frozenset({Op.ALLREDUCE, Op.BARRIER})
"""Operations that a rank without data can take part in; what others return depends on who takes part."""

FUSIBLE = frozenset({Op.ALLREDUCE, Op.ALLGATHER, Op.REDUCESCATTER})


class DType(IntEnum):
    """Element types; the numbers are the wire's (0 to 9 are Horovod's)."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    INT32 = 4
    INT64 = 5
    FLOAT16 = 6
    FLOAT32 = 7
    FLOAT64 = 8
    BOOL = 9
    BFLOAT16 = 10

    @property
    def nbytes(self) -> int:
        """Bytes of one element."""
        return _DTYPE_BYTES[self]


_DTYPE_BYTES = {
    DType.UINT8: 1, DType.INT8: 1, DType.UINT16: 2, DType.INT16: 2, DType.INT32: 4, DType.INT64: 8,
    DType.FLOAT16: 2, DType.FLOAT32: 4, DType.FLOAT64: 8, DType.BOOL: 1, DType.BFLOAT16: 2,
}  # fmt: skip


class ReduceOp(IntEnum):
    """How values are combined; the numbers are Horovod's."""

    AVERAGE = 0
    SUM = 1
    MIN = 3
    MAX = 4
    PRODUCT = 5


CPU = -1
"""Device of a tensor in host memory; GPUs are 0, 1, ..."""


@dataclass(frozen=True, slots=True)
class Request:
    """One rank asks for one named tensor. The sender is known from the list that carries it."""

    name: str
    op: Op = Op.ALLREDUCE
    dtype: DType = DType.FLOAT32
    shape: tuple[int, ...] = ()
    reduce_op: ReduceOp = ReduceOp.AVERAGE
    root_rank: int = -1
    """Broadcast only; -1 elsewhere."""
    device: int = CPU
    prescale: float = 1.0
    postscale: float = 1.0
    group: int = 0
    """Digest of a strict group's ordered member names, 0 outside one: ranks that registered a group's
    members in different orders are found out (Horovod does not notice)."""

    @property
    def nbytes(self) -> int:
        """Bytes of this rank's tensor."""
        return prod(self.shape) * self.dtype.nbytes


JOIN_NAME = "join.noname"
"""The name under which every rank joins; a queue takes it from no other request."""


def join_request() -> Request:
    """What a rank submits when it has no more data."""
    return Request(JOIN_NAME, Op.JOIN)


Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""Ranks as (first, last), both included; ascending, apart and not adjacent."""


@dataclass(frozen=True, slots=True)
class RequestList:
    """What one rank sends towards the coordinator in one slow cycle."""

    rank: int
    requests: tuple[Request, ...] = ()
    shutdown: bool = False
    joined: int = -1
    """With this list all ranks that it speaks for have joined, this rank last; -1: nothing new of that kind."""
    errors: tuple[tuple[str, str], ...] = ()
    """(name, reason) of requests that disagree inside a subtree; sent by inner nodes of a tree only."""
    missing: tuple[tuple[str, Ranges], ...] = ()
    """In a tree, for each name that the root asked about: the ranks of this subtree that lack it, if it does."""

    @property
    def silent(self) -> bool:
        """Whether it says nothing at all."""
        return not (self.requests or self.shutdown or self.joined >= 0 or self.errors or self.missing)


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a node of a tree that does not merge passes on: the lists of its subtree, each as its rank made it."""

    rank: int
    """The node that sends it."""
    lists: tuple[RequestList, ...] = ()
    """Ranks ascending, silent ones left out; each list says whose it is."""


@dataclass(frozen=True, slots=True)
class Claims:
    """At start-up: what a rank's settings are; then, from the coordinator, what is wrong with all of them."""

    rank: int
    settings: tuple[tuple[str, str], ...]
    """(name, value)."""


@dataclass(frozen=True, slots=True)
class Response:
    """What all ranks do next: one collective over one or more tensors, or one error."""

    op: Op
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    """Bytes of each tensor, in the order of ``names``."""
    dtype: DType = DType.FLOAT32
    reduce_op: ReduceOp = ReduceOp.AVERAGE
    root_rank: int = -1
    """Of a broadcast, where the values come from; of a join, the rank that joined last."""
    on_gpu: bool = False
    prescale: float = 1.0
    postscale: float = 1.0
    group: int = 0
    error: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes of all its tensors."""
        return sum(self.sizes)

    @property
    def cacheable(self) -> bool:
        return self.op in CACHEABLE

    def fuses_with(self, other: Response) -> bool:
        """Whether one collective can serve both (docs/horovod.md 3.5)."""
        return (
            self.op in FUSIBLE
            and self.op == other.op
            and self.dtype == other.dtype
            and self.reduce_op == other.reduce_op
            and self.on_gpu == other.on_gpu
            and self.prescale == other.prescale
            and self.postscale == other.postscale
        )

    def joined_with(self, others: list[Response]) -> Response:
        """One response for this and ``others``, members in order."""
        parts = [self, *others]
        return Response(
            self.op, tuple(name for part in parts for name in part.names),
            tuple(size for part in parts for size in part.sizes), self.dtype, self.reduce_op,
            self.root_rank, self.on_gpu, self.prescale, self.postscale, self.group, self.error,
        )  # fmt: skip

    def single(self, index: int) -> Response:
        """The part of a fused response that belongs to its ``index``-th name."""
        return Response(
            self.op, (self.names[index],), (self.sizes[index],), self.dtype, self.reduce_op,
            self.root_rank, self.on_gpu, self.prescale, self.postscale, self.group, self.error,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ResponseList:
    """What the coordinator tells everybody in one slow cycle."""

    responses: tuple[Response, ...] = ()
    shutdown: bool = False
    joined: bool = False
    """Agreed while some rank had joined: nobody caches what is new here."""
    explain: tuple[str, ...] = ()
    """In a tree: names that have waited too long; the next lists say who is missing."""


def respond_to(request: Request) -> Response:
    """The response for one agreed request, before fusion."""
    return Response(
        request.op, (request.name,), (request.nbytes,), request.dtype, request.reduce_op, request.root_rank,
        request.device != CPU, request.prescale, request.postscale, request.group,
    )  # fmt: skip


def everybody_joined(last: int) -> Response:
    """The response that ends a join; ``last`` is the rank that joined last, which every rank is told."""
    return Response(Op.JOIN, (JOIN_NAME,), (0,), root_rank=last)
