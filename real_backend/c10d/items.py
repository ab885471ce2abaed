"""c10d's operations as requests: what travels, where the result goes, and what remains to be done at the end.

Whether the engine or the inner gloo or NCCL group carries out an operation depends only on what all ranks have in
common. The layout of memory, for example, does not matter.
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
"""Reductions of the engine. The others (bitwise, PREMUL_SUM) are left to the inner group."""
NATIVE = frozenset(PROTOCOL) - {torch.int16}
"""Element types that gloo reduces, too. Others are moved as bytes, and their reductions are left to the inner group."""


@dataclass(slots=True)
class Item:
    """The operation of one tensor, without a name yet."""

    operation: str
    """The operation as c10d calls it, which is the first part of the name."""
    request: Request
    """The request with an empty name: what all ranks must agree on."""
    payload: torch.Tensor | None
    output: Any
    results: list[torch.Tensor]
    """Tensors in which the caller finds the result."""
    then: Callable[[], object] | None = None
    """Work for the thread that uses the results, to be done before it does."""

    @property
    def signature(self) -> tuple[str, Request]:
        return self.operation, self.request

    def alone(self) -> None:
        """Carry out the operation in a group of one rank."""
        if isinstance(self.output, EqualShares):
            assert self.payload is not None
            self.output.take(self.payload)
        elif self.output is not None and self.output is not self.payload:
            self.output.copy_(self.payload)


def allreduce(tensor: torch.Tensor, reduction: Any) -> Item | None:
    """Return an allreduce in place; None if the inner group has to do it."""
    reduce_op = _reduction(reduction, tensor.dtype)
    if reduce_op is None or tensor.layout != torch.strided:
        return None
    flat, then = _in_place(tensor)
    return Item("all_reduce", _request(Op.ALLREDUCE, flat, flat.shape, reduce_op), flat, flat, [tensor], then)


def broadcast(tensor: torch.Tensor, root: int) -> Item | None:
    """Return a broadcast in place; None if the inner group has to do it."""
    if tensor.layout != torch.strided:
        return None
    flat, then = _in_place(tensor)
    flat = _movable(flat)
    request = _request(Op.BROADCAST, flat, flat.shape, root=root)
    return Item("broadcast", request, flat, flat, [tensor], then)


def all_gather_single(output: torch.Tensor, own: torch.Tensor, ranks: int) -> Item:
    """Return a gather of all ranks' ``own``, one after the other, in ``output``. Raises ValueError if sizes do not
    fit."""
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
    """Return a gather of rank r's ``own`` in ``outputs[r]``; None if the inner group has to do it, since sizes
    differ."""
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
    """Return a reduction of which ``output`` gets this rank's part; None if the inner group has to do it.

    On the CPU it is an allreduce of which a part is kept, as inside gloo, because the response cache holds allreduces
    and no reduce-scatters (docs/horovod.md 2.4). Raises ValueError if sizes do not fit.
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
    """Return a reduction of ``parts[rank]`` in ``output``; parts may differ in size.

    The result is None if the inner group has to do it.
    """
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
    """Return the engine's reduction; None if the inner group has to do it, or has to refuse it."""
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
    """Return the elements in order, in one dimension; a copy if they are not contiguous."""
    return tensor.detach().contiguous().view(-1)


def _in_place(tensor: torch.Tensor) -> tuple[torch.Tensor, Callable[[], object] | None]:
    """Return a flat tensor to work on, and a function that copies the result back if the tensor is a copy."""
    if tensor.is_contiguous():
        return tensor.detach().view(-1), None
    copy = _flat(tensor)
    return copy, lambda: tensor.detach().copy_(copy.view(tensor.shape))


def _movable(flat: torch.Tensor) -> torch.Tensor:
    return flat if flat.dtype in NATIVE else flat.view(torch.uint8)


def _all_of(calls: Sequence[Callable[[], object]]) -> Callable[[], object] | None:
    return (lambda: [call() for call in calls]) if calls else None
