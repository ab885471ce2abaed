"""c10d's operations as requests: what travels, where the result goes, and what is left to do at the end.

Whether an operation is ours, or is left to the inner gloo or NCCL group, depends only on what all ranks have in common:
layout of memory, for one, does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from coordsim.protocol.messages import CPU, DType, Op, ReduceOp, Request
from real_backend.c10d.scratch import Scratch
from real_backend.data.dtypes import PROTOCOL
from real_backend.data.gather import EqualShares

REDUCTIONS: dict[Any, ReduceOp] = {
    dist.ReduceOp.SUM: ReduceOp.SUM, dist.ReduceOp.AVG: ReduceOp.AVERAGE, dist.ReduceOp.MIN: ReduceOp.MIN,
    dist.ReduceOp.MAX: ReduceOp.MAX, dist.ReduceOp.PRODUCT: ReduceOp.PRODUCT,
}  # fmt: skip
"""The others (bitwise, PREMUL_SUM) are left to the inner group."""
NATIVE = frozenset(PROTOCOL) - {torch.int16}
"""Element types that gloo reduces, too. Others are moved as bytes, and their reductions left to the inner group."""


@dataclass(slots=True)
class Item:
    """One tensor's operation, without a name yet."""

    operation: str
    """As c10d calls it; the first part of the name."""
    request: Request
    """With an empty name: what all ranks must agree on."""
    payload: torch.Tensor | None
    output: Any
    results: list[torch.Tensor]
    """What the caller finds the outcome in."""
    then: Callable[[], object] | None = None
    """To be done by a thread that uses the results, before it does."""

    @property
    def signature(self) -> tuple[str, Request]:
        return self.operation, self.request

    def alone(self) -> None:
        """Carry it out for a group of one rank."""
        if isinstance(self.output, EqualShares):
            assert self.payload is not None
            self.output.take(self.payload)
        elif self.output is not None and self.output is not self.payload:
            self.output.copy_(self.payload)


def allreduce(tensor: torch.Tensor, reduction: Any) -> Item | None:
    """In place. None when the inner group has to do it."""
    reduce_op = _reduction(reduction, tensor.dtype)
    if reduce_op is None or tensor.layout != torch.strided:
        return None
    flat, then = _in_place(tensor)
    return Item("all_reduce", _request(Op.ALLREDUCE, flat, flat.shape, reduce_op), flat, flat, [tensor], then)


def broadcast(tensor: torch.Tensor, root: int) -> Item | None:
    """In place. None when the inner group has to do it."""
    if tensor.layout != torch.strided:
        return None
    flat, then = _in_place(tensor)
    flat = _movable(flat)
    request = _request(Op.BROADCAST, flat, flat.shape, root=root)
    return Item("broadcast", request, flat, flat, [tensor], then)


def all_gather_single(output: torch.Tensor, own: torch.Tensor, ranks: int) -> Item:
    """``own`` of all ranks, one behind the other, in ``output``. Raises ValueError when they do not fit."""
    if output.numel() != ranks * own.numel() or output.dtype != own.dtype:
        raise ValueError(
            f"all-gather over {ranks} ranks: {output.numel()} elements of {output.dtype} do not take "
            f"{own.numel()} of {own.dtype} from each"
        )
    target, then = _in_place(output)
    payload = _movable(_flat(own))
    shares = EqualShares(_movable(target).view(ranks, payload.numel()))
    return Item("all_gather", _request(Op.ALLGATHER, payload, (1, payload.numel())), payload, shares, [output], then)


def all_gather(outputs: Sequence[torch.Tensor], own: torch.Tensor) -> Item | None:
    """Rank r's ``own`` in ``outputs[r]``. None when the inner group has to do it, because sizes differ."""
    if any(each.numel() != own.numel() or each.dtype != own.dtype for each in outputs):
        return None
    targets = [_in_place(each) for each in outputs]
    payload = _movable(_flat(own))
    shares = EqualShares(parts=[_movable(target) for target, _ in targets])
    then = _all_of([each for _, each in targets if each is not None])
    request = _request(Op.ALLGATHER, payload, (1, payload.numel()))
    return Item("all_gather", request, payload, shares, list(outputs), then)


def reduce_scatter_single(
    output: torch.Tensor, contribution: torch.Tensor, reduction: Any, rank: int, ranks: int, scratch: Scratch
) -> Item | None:
    """This rank's n-th part of what is reduced, in ``output``. None when the inner group has to do it.

    On the CPU an allreduce, of which a part is kept (gloo does the same inside): the response cache knows allreduces,
    and no reduce-scatters (docs/horovod.md 2.4). Raises ValueError when sizes do not fit.
    """
    if contribution.numel() != ranks * output.numel() or contribution.dtype != output.dtype:
        raise ValueError(
            f"reduce-scatter over {ranks} ranks: {contribution.numel()} elements of {contribution.dtype} do not leave "
            f"{output.numel()} of {output.dtype} to each"
        )
    if contribution.is_cuda:
        return _scatter_rows(output, contribution, reduction, ranks)
    return _reduce_and_keep(output, _flat(contribution), reduction, rank * output.numel(), scratch)


def reduce_scatter(
    output: torch.Tensor, parts: Sequence[torch.Tensor], reduction: Any, rank: int, scratch: Scratch
) -> Item | None:
    """``parts[rank]`` reduced, in ``output``; parts may differ in size. None when the inner group has to do it."""
    before = sum(part.numel() for part in parts[:rank])
    return _reduce_and_keep(output, torch.cat([_flat(part) for part in parts]), reduction, before, scratch)


def barrier() -> Item:
    return Item("barrier", Request("", Op.BARRIER), None, None, [])


def _reduce_and_keep(
    output: torch.Tensor, flat: torch.Tensor, reduction: Any, start: int, scratch: Scratch
) -> Item | None:
    reduce_op = _reduction(reduction, flat.dtype)
    if reduce_op is None:
        return None
    reduced = scratch.take(flat) if not flat.is_cuda else torch.empty_like(flat)

    def keep() -> None:
        output.detach().copy_(reduced[start : start + output.numel()].view(output.shape))
        if not flat.is_cuda:
            scratch.give(reduced)

    request = _request(Op.ALLREDUCE, flat, flat.shape, reduce_op)
    return Item("reduce_scatter", request, flat, reduced, [output], keep)


def _scatter_rows(output: torch.Tensor, contribution: torch.Tensor, reduction: Any, ranks: int) -> Item | None:
    reduce_op = _reduction(reduction, contribution.dtype)
    if reduce_op is None:
        return None
    target, then = _in_place(output)
    rows = _flat(contribution).view(ranks, -1)
    request = _request(Op.REDUCESCATTER, rows, rows.shape, reduce_op)
    return Item("reduce_scatter", request, rows, target.view(1, -1), [output], then)


def _reduction(reduction: Any, dtype: torch.dtype) -> ReduceOp | None:
    """None when the inner group has to do it, or to say that it cannot be done."""
    if dtype not in NATIVE or (dtype is torch.bool and reduction == dist.ReduceOp.AVG):
        return None
    return REDUCTIONS.get(reduction)


def _request(
    op: Op, payload: torch.Tensor, shape: Sequence[int], reduce_op: ReduceOp = ReduceOp.SUM, root: int = -1
) -> Request:
    device = payload.device.index or 0 if payload.is_cuda else CPU
    return Request("", op, _dtype(payload), tuple(shape), reduce_op, root, device)


def _dtype(tensor: torch.Tensor) -> DType:
    return PROTOCOL[tensor.dtype]


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """Its elements in order, in one dimension; a copy where they do not lie so."""
    return tensor.detach().contiguous().view(-1)


def _in_place(tensor: torch.Tensor) -> tuple[torch.Tensor, Callable[[], object] | None]:
    """A flat tensor to work on, and how the result gets back when that is a copy."""
    if tensor.is_contiguous():
        return tensor.detach().view(-1), None
    copy = _flat(tensor)
    return copy, lambda: tensor.detach().copy_(copy.view(tensor.shape))


def _movable(flat: torch.Tensor) -> torch.Tensor:
    return flat if flat.dtype in NATIVE else flat.view(torch.uint8)


def _all_of(calls: Sequence[Callable[[], object]]) -> Callable[[], object] | None:
    return (lambda: [call() for call in calls]) if calls else None
