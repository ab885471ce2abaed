"""How a response is carried out: where each tensor lies in a fused buffer, what is scaled, who gets which rows.

Plain numbers, so that a backend and a test that moves lists of numbers do the same. All counts are elements, not
bytes. Source: horovod/common/ops/collective_operations.cc, as far as docs/horovod.md 5 tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, prod

from coordsim.protocol.messages import DType, ReduceOp, Response


@dataclass(frozen=True, slots=True)
class Span:
    """A run of elements in a fused buffer."""

    start: int
    elements: int

    @property
    def stop(self) -> int:
        return self.start + self.elements


def elements(response: Response, index: int) -> int:
    """Elements of the response's ``index``-th tensor; all that a rank without data needs, with the dtype."""
    return response.sizes[index] // response.dtype.nbytes


def spans(response: Response) -> list[Span]:
    """Of an allreduce: each tensor's place in the fused buffer, in the order of ``response.names``."""
    return _one_after_another([elements(response, index) for index in range(len(response.names))])


def rank_major(parts: Sequence[Sequence[int]]) -> list[list[Span]]:
    """Places in a buffer that holds all tensors' parts of rank 0, then all of rank 1, ...

    ``parts`` has shape [rank][tensor], elements; so has the result. This is what an allgather of several tensors
    receives and what a reduce-scatter of several sends, so that every rank's share is one run.
    """
    flat = iter(_one_after_another([part for by_tensor in parts for part in by_tensor]))
    return [[next(flat) for _ in by_tensor] for by_tensor in parts]


def shard_rows(rows: int, ranks: int) -> list[Span]:
    """Of a reduce-scatter: the rows that each rank keeps. Uneven ones go to the low ranks (docs/horovod.md 13.7)."""
    each, more = divmod(rows, ranks)
    return _one_after_another([each + (rank < more) for rank in range(ranks)])


def scattered(shapes: Sequence[tuple[int, ...]], ranks: int) -> list[list[int]]:
    """Of a reduce-scatter of tensors of ``shapes``: elements that each rank keeps of each; shape [rank][tensor]."""
    shards = [shard_rows(shape[0], ranks) for shape in shapes]
    return [
        [shard[rank].elements * prod(shape[1:]) for shape, shard in zip(shapes, shards, strict=True)]
        for rank in range(ranks)
    ]


def factors(response: Response, ranks: int) -> tuple[float, float]:
    """What every rank multiplies its values with before the reduction, and the result with after it.

    An average divides by all ``ranks``, also by those that have joined (docs/horovod.md 2.7).
    """
    after = response.postscale / ranks if response.reduce_op is ReduceOp.AVERAGE else response.postscale
    return response.prescale, after


def neutral(dtype: DType, reduce_op: ReduceOp) -> float | int:
    """What a rank that has joined contributes, unscaled: it changes nothing.

    Zero in a sum or an average. Horovod contributes zeros to minimum, maximum and product, too, where they do harm.
    """
    if reduce_op in (ReduceOp.AVERAGE, ReduceOp.SUM):
        return 0
    if reduce_op is ReduceOp.PRODUCT:
        return 1
    lowest, highest = _limits(dtype)
    return highest if reduce_op is ReduceOp.MIN else lowest


def _limits(dtype: DType) -> tuple[float | int, float | int]:
    if dtype in (DType.FLOAT16, DType.FLOAT32, DType.FLOAT64, DType.BFLOAT16):
        return -inf, inf
    if dtype is DType.BOOL:
        return 0, 1
    bits = 8 * dtype.nbytes
    if dtype in (DType.UINT8, DType.UINT16):
        return 0, (1 << bits) - 1
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


def _one_after_another(counts: Sequence[int]) -> list[Span]:
    found, start = [], 0
    for count in counts:
        found.append(Span(start, count))
        start += count
    return found
