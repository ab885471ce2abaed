"""Scaling and combining of values, which all data transports must do in the same way."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist

from coordsim.protocol.messages import ReduceOp

C10D: dict[ReduceOp, dist.ReduceOp.RedOpType] = {
    ReduceOp.AVERAGE: dist.ReduceOp.SUM, ReduceOp.SUM: dist.ReduceOp.SUM, ReduceOp.MIN: dist.ReduceOp.MIN,
    ReduceOp.MAX: dist.ReduceOp.MAX, ReduceOp.PRODUCT: dist.ReduceOp.PRODUCT,
}  # fmt: skip
"""c10d's reductions. An average is a sum that is scaled afterwards."""


def _add(into: torch.Tensor, other: torch.Tensor) -> None:
    if into.dtype is torch.bool:
        into.logical_or_(other)
    else:
        into.add_(other)


def _multiply(into: torch.Tensor, other: torch.Tensor) -> None:
    if into.dtype is torch.bool:
        into.logical_and_(other)
    else:
        into.mul_(other)


def _minimum(into: torch.Tensor, other: torch.Tensor) -> None:
    torch.minimum(into, other, out=into)


def _maximum(into: torch.Tensor, other: torch.Tensor) -> None:
    torch.maximum(into, other, out=into)


COMBINE: dict[ReduceOp, Callable[[torch.Tensor, torch.Tensor], None]] = {
    ReduceOp.AVERAGE: _add, ReduceOp.SUM: _add, ReduceOp.MIN: _minimum, ReduceOp.MAX: _maximum,
    ReduceOp.PRODUCT: _multiply,
}  # fmt: skip
"""Functions that combine two tensors in place, element by element."""


def scale(values: torch.Tensor, factor: float) -> None:
    """Scale in place. Integers are truncated towards zero, exactly for 1 / n: a float would make 0 of the average of 49
    ones."""
    if factor == 1.0:
        return
    if values.is_floating_point():
        values.mul_(factor)
        return
    divisor = round(1 / factor) if factor else 0
    largest = 0 if values.dtype is torch.bool else torch.iinfo(values.dtype).max
    if 2 <= divisor <= largest and 1 / divisor == factor:
        values.div_(divisor, rounding_mode="trunc")
    else:
        values.copy_(values.double().mul_(factor).trunc_())
