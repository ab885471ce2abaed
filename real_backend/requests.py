"""This rank's requests, made from its tensors; errors that can be detected locally are raised here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from coordsim.protocol.execution import shard_rows
from coordsim.protocol.messages import CPU, DType, Op, ReduceOp, Request
from real_backend.data.dtypes import PROTOCOL
from real_backend.engine.engine import Engine

_REDUCING = (Op.ALLREDUCE, Op.REDUCESCATTER)
LONGEST_NAME = 4096
"""Largest size of a name in bytes, since errors repeat it and must fit a message."""


class RequestBook:
    """Requests made before. In a static model each step repeats them, and comparing identical objects costs less."""

    def __init__(self) -> None:
        self._made: dict[str, Request] = {}

    def request(
        self, name: str, tensor: torch.Tensor, op: Op = Op.ALLREDUCE, *, reduce_op: ReduceOp = ReduceOp.AVERAGE,
        root_rank: int = -1, prescale: float = 1.0, postscale: float = 1.0, group: int = 0,
    ) -> Request:  # fmt: skip
        """Return this rank's request for an operation on ``tensor``.

        Raises TypeError for an element type that does not travel, for an invalid ReduceOp or scale, and for an average
        of bools or scales on them; ValueError for a name that is too long.
        """
        dtype = PROTOCOL.get(tensor.dtype)
        if dtype is None:
            raise TypeError(f"{name!r}: {tensor.dtype} does not travel; convert it first")
        device = CPU if tensor.is_cpu else tensor.device.index or 0
        made = self._made.get(name)
        if (
            made is not None and made.dtype is dtype and made.shape == tensor.shape and made.reduce_op is reduce_op
            and made.op is op and made.device == device and made.prescale == prescale
            and made.postscale == postscale and made.root_rank == root_rank and made.group == group
        ):  # fmt: skip
            return made
        made = Request(
            name, op, dtype, tuple(tensor.shape), reduce_op, root_rank, device, float(prescale), float(postscale), group
        )
        _check_request(made)
        self._made[name] = made
        if len(self._made) > 65_536:  # The names never repeat.
            self._made.clear()
        return made


def _check_request(request: Request) -> None:
    """Raise as :meth:`RequestBook.request`."""
    if len(request.name.encode()) > LONGEST_NAME:
        raise ValueError(f"{request.name[:40]!r}...: a name may have {LONGEST_NAME} bytes")
    if request.op not in _REDUCING:
        return
    if not isinstance(request.reduce_op, ReduceOp):
        raise TypeError(f"{request.name!r}: op {request.reduce_op!r} is none of Average, Sum, Min, Max, Product")
    scaled = request.reduce_op is ReduceOp.AVERAGE or (request.prescale, request.postscale) != (1.0, 1.0)
    if request.dtype is DType.BOOL and scaled:
        raise TypeError(f"{request.name!r}: bools have no average and no scale; Sum and Max are 'any', Min is 'all'")


def check_tensor(name: str, op: Op, tensor: torch.Tensor, output: torch.Tensor | None, engine: Engine) -> None:
    """Check that the tensors can be used. Raises TypeError or ValueError."""
    if output is tensor and tensor.is_cpu and tensor.layout is torch.strided and tensor.is_contiguous():
        return  # This is the usual case.
    if tensor.layout is not torch.strided or tensor.device.type not in ("cpu", "cuda"):
        raise TypeError(f"{name!r}: a tensor of {tensor.layout} on {tensor.device.type} does not travel; convert it")
    if output is None:
        return
    if output is not tensor:
        if output.layout is not torch.strided or (output.dtype, output.device) != (tensor.dtype, tensor.device):
            raise TypeError(f"{name!r}: the output is {output.dtype} on {output.device}, unlike the input")
        shape = list(tensor.shape)
        if op is Op.REDUCESCATTER and shape:
            shape[0] = shard_rows(shape[0], engine.ranks)[engine.rank].elements
        if list(output.shape) != shape:
            raise ValueError(f"{name!r}: the output has shape {list(output.shape)}, not {shape}")
    if _overlaps(output):
        raise ValueError(f"{name!r}: elements of the output share memory, as an expanded tensor's do; clone it")


def _overlaps(tensor: torch.Tensor) -> bool:
    return any(not stride and extent > 1 for stride, extent in zip(tensor.stride(), tensor.shape, strict=True))


def refuse_capture() -> None:
    """Raise RuntimeError while the current stream is being captured."""
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            "a negotiation cannot be captured in a CUDA graph: submit gradients outside of the captured region"
        )


def ready_event(tensors: Sequence[torch.Tensor]) -> Any:
    """Return an event of the caller's stream after which the tensors exist; None on the CPU."""
    if not tensors[0].is_cuda:
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(tensors[0].device))
    return event
