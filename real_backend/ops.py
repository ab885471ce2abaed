"""Collectives by name: allreduce, allgather, broadcast, reduce-scatter, barrier, join; alone or in groups.

``..._async`` return a :class:`real_backend.engine.handles.Handle`; those without wait for it. A name ending in ``_``
writes into its argument. Every rank must use the same names, in any order. Unlike in Horovod, nothing is cached for
tensors without names: give names to what is repeated.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch

from coordsim.protocol.messages import CPU, Op, ReduceOp, Request
from real_backend import job
from real_backend.data.dtypes import PROTOCOL
from real_backend.engine.engine import Engine
from real_backend.engine.handles import Handle

Average, Sum, Min, Max, Product = (
    ReduceOp.AVERAGE, ReduceOp.SUM, ReduceOp.MIN, ReduceOp.MAX, ReduceOp.PRODUCT,
)  # fmt: skip

_unnamed = itertools.count()


class RequestBook:
    """Requests that were made before: in a static model each step asks for the same, and equal objects cost less."""

    def __init__(self) -> None:
        self._made: dict[str, Request] = {}

    def request(
        self, name: str, tensor: torch.Tensor, op: Op = Op.ALLREDUCE, *, reduce_op: ReduceOp = ReduceOp.AVERAGE,
        root_rank: int = -1, prescale: float = 1.0, postscale: float = 1.0, group: int = 0,
    ) -> Request:  # fmt: skip
        """What this rank asks for. Raises TypeError for an element type that does not travel."""
        dtype = PROTOCOL.get(tensor.dtype)
        if dtype is None:
            raise TypeError(f"{name!r}: {tensor.dtype} does not travel; convert it first")
        device = CPU if tensor.device.type == "cpu" else tensor.device.index or 0
        made = self._made.get(name)
        if (
            made is not None and made.dtype is dtype and made.shape == tensor.shape and made.reduce_op is reduce_op
            and made.op is op and made.device == device and made.prescale == prescale
            and made.postscale == postscale and made.root_rank == root_rank and made.group == group
        ):  # fmt: skip
            return made
        made = Request(
            name, op, dtype, tuple(tensor.shape), reduce_op, root_rank, device, prescale, postscale, group
        )
        self._made[name] = made
        if len(self._made) > 65_536:  # names that never come back
            self._made.clear()
        return made


_book = RequestBook()


def _submit(
    op: Op, tensors: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor | None], names: Sequence[str],
    engine: Engine | None, grouped: bool, **fields: Any,
) -> Handle:  # fmt: skip
    engine = engine or job.default_engine()
    if tensors[0].is_cuda:
        _refuse_capture()
    unit = [
        (_book.request(name, tensor, op, group=engine.group_digest(name), **fields), tensor, output)
        for name, tensor, output in zip(names, tensors, outputs, strict=True)
    ]
    return engine.submit(unit, ready=ready_event(tensors), grouped=grouped)


def _refuse_capture() -> None:
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            "a negotiation cannot be captured in a CUDA graph: submit gradients outside of the captured region"
        )


def ready_event(tensors: Sequence[torch.Tensor]) -> Any:
    """An event of the caller's stream behind which the tensors exist; None on the CPU."""
    if not tensors[0].is_cuda:
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(tensors[0].device))
    return event


def _name(operation: str, name: str | None) -> str:
    return f"{operation}.{name}" if name is not None else f"{operation}.noname.{next(_unnamed)}"


def _names(operation: str, name: str | None, count: int) -> list[str]:
    base = _name(f"grouped_{operation}", name)
    return [f"{base}_{index}of{count}" for index in range(1, count + 1)]


def allreduce_async(
    tensor: torch.Tensor, name: str | None = None, op: ReduceOp = Average, *, prescale: float = 1.0,
    postscale: float = 1.0, output: torch.Tensor | None = None, engine: Engine | None = None,
) -> Handle:  # fmt: skip
    """Reduce over all ranks. ``output``: where the result goes, maybe ``tensor`` itself; default a new tensor.

    Raises DuplicateName while an operation of that name is pending, and what :meth:`Engine.submit` raises.
    """
    return _submit(
        Op.ALLREDUCE, [tensor], [output], [_name("allreduce", name)], engine, False, reduce_op=op, prescale=prescale,
        postscale=postscale,
    )  # fmt: skip


def allreduce(tensor: torch.Tensor, name: str | None = None, op: ReduceOp = Average, **more: Any) -> torch.Tensor:
    result: torch.Tensor = allreduce_async(tensor, name, op, **more).wait()
    return result


def allreduce_async_(tensor: torch.Tensor, name: str | None = None, op: ReduceOp = Average, **more: Any) -> Handle:
    return allreduce_async(tensor, name, op, output=tensor, **more)


def allreduce_(tensor: torch.Tensor, name: str | None = None, op: ReduceOp = Average, **more: Any) -> torch.Tensor:
    result: torch.Tensor = allreduce_async_(tensor, name, op, **more).wait()
    return result


def grouped_allreduce_async(
    tensors: Sequence[torch.Tensor], name: str | None = None, op: ReduceOp = Average, *, prescale: float = 1.0,
    postscale: float = 1.0, outputs: Sequence[torch.Tensor] | None = None, engine: Engine | None = None,
) -> Handle:  # fmt: skip
    """Several tensors as one unit: no rank reduces one before all ranks have submitted all. The result is a list.

    Raises ValueError for tensors on several kinds of device, and as :func:`allreduce_async`.
    """
    return _submit_group(
        Op.ALLREDUCE, "allreduce", tensors, outputs, name, engine, reduce_op=op, prescale=prescale, postscale=postscale
    )


def _submit_group(
    op: Op, operation: str, tensors: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor] | None,
    name: str | None, engine: Engine | None, **fields: Any,
) -> Handle:  # fmt: skip
    if len({tensor.device.type for tensor in tensors}) > 1:
        raise ValueError(f"group {name!r} has tensors on the CPU and on a GPU")
    if not tensors:
        raise ValueError("a group needs at least one tensor")
    engine = engine or job.default_engine()
    names = _names(operation, name, len(tensors))
    if engine.settings.strict_groups and len(names) > 1:
        engine.register_groups([names])
    return _submit(op, tensors, outputs or [None] * len(tensors), names, engine, True, **fields)


def grouped_allreduce(
    tensors: Sequence[torch.Tensor], name: str | None = None, op: ReduceOp = Average, **more: Any
) -> list[torch.Tensor]:
    results: list[torch.Tensor] = grouped_allreduce_async(tensors, name, op, **more).wait()
    return results


def grouped_allreduce_async_(
    tensors: Sequence[torch.Tensor], name: str | None = None, op: ReduceOp = Average, **more: Any
) -> Handle:
    return grouped_allreduce_async(tensors, name, op, outputs=tensors, **more)


def grouped_allreduce_(
    tensors: Sequence[torch.Tensor], name: str | None = None, op: ReduceOp = Average, **more: Any
) -> list[torch.Tensor]:
    results: list[torch.Tensor] = grouped_allreduce_async_(tensors, name, op, **more).wait()
    return results


def allgather_async(
    tensor: torch.Tensor, name: str | None = None, *, output: torch.Tensor | None = None, engine: Engine | None = None
) -> Handle:
    """All ranks' rows, in rank order; ranks may give different numbers of rows, in all else they must agree."""
    return _submit(Op.ALLGATHER, [tensor], [output], [_name("allgather", name)], engine, False)


def allgather(tensor: torch.Tensor, name: str | None = None, **more: Any) -> torch.Tensor:
    result: torch.Tensor = allgather_async(tensor, name, **more).wait()
    return result


def grouped_allgather(
    tensors: Sequence[torch.Tensor], name: str | None = None, *, engine: Engine | None = None
) -> list[torch.Tensor]:
    results: list[torch.Tensor] = _submit_group(Op.ALLGATHER, "allgather", tensors, None, name, engine).wait()
    return results


def broadcast_async(
    tensor: torch.Tensor, root_rank: int, name: str | None = None, *, output: torch.Tensor | None = None,
    engine: Engine | None = None,
) -> Handle:  # fmt: skip
    """``tensor`` of ``root_rank`` to all ranks. Raises ValueError for a root that does not exist."""
    ranks = (engine or job.default_engine()).ranks
    if not 0 <= root_rank < ranks:
        raise ValueError(f"root rank {root_rank}: there are ranks 0 to {ranks - 1}")
    return _submit(Op.BROADCAST, [tensor], [output], [_name("broadcast", name)], engine, False, root_rank=root_rank)


def broadcast(tensor: torch.Tensor, root_rank: int, name: str | None = None, **more: Any) -> torch.Tensor:
    result: torch.Tensor = broadcast_async(tensor, root_rank, name, **more).wait()
    return result


def broadcast_(tensor: torch.Tensor, root_rank: int, name: str | None = None, **more: Any) -> torch.Tensor:
    result: torch.Tensor = broadcast_async(tensor, root_rank, name, output=tensor, **more).wait()
    return result


def reducescatter_async(
    tensor: torch.Tensor, name: str | None = None, op: ReduceOp = Average, *, prescale: float = 1.0,
    postscale: float = 1.0, output: torch.Tensor | None = None, engine: Engine | None = None,
) -> Handle:  # fmt: skip
    """Reduce over all ranks; each keeps its share of the rows, the low ranks one more where they do not divide."""
    return _submit(
        Op.REDUCESCATTER, [tensor], [output], [_name("reducescatter", name)], engine, False, reduce_op=op,
        prescale=prescale, postscale=postscale,
    )  # fmt: skip


def reducescatter(tensor: torch.Tensor, name: str | None = None, op: ReduceOp = Average, **more: Any) -> torch.Tensor:
    result: torch.Tensor = reducescatter_async(tensor, name, op, **more).wait()
    return result


def grouped_reducescatter(
    tensors: Sequence[torch.Tensor], name: str | None = None, op: ReduceOp = Average, *, engine: Engine | None = None
) -> list[torch.Tensor]:
    results: list[torch.Tensor] = _submit_group(
        Op.REDUCESCATTER, "reducescatter", tensors, None, name, engine, reduce_op=op
    ).wait()
    return results


def barrier(name: str | None = None, *, engine: Engine | None = None) -> None:
    """Return when every rank has come here."""
    (engine or job.default_engine()).submit([(Request(_name("barrier", name), Op.BARRIER), None, None)]).wait()


def join(*, engine: Engine | None = None) -> int:
    """This rank has no more data: take part with zeros until all ranks have joined; returns the last one to do so."""
    return int((engine or job.default_engine()).join().wait())


def broadcast_parameters(
    parameters: Any, root_rank: int = 0, *, engine: Engine | None = None
) -> None:
    """All tensors of a ``state_dict`` or of (name, tensor) pairs become those of ``root_rank``, in place."""
    named = sorted(parameters.items()) if hasattr(parameters, "items") else list(parameters)
    handles = [
        broadcast_async(tensor.detach(), root_rank, str(name), output=tensor.detach(), engine=engine)
        for name, tensor in named
        if isinstance(tensor, torch.Tensor)
    ]
    for handle in handles:
        handle.wait()


def broadcast_object(value: Any, root_rank: int = 0, name: str = "object", *, engine: Engine | None = None) -> Any:
    """A Python value of ``root_rank``, by JSON: what arrives is data and is never executed."""
    import json

    mine = (engine or job.default_engine()).rank == root_rank
    data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8) if mine else torch.empty(0)
    length = broadcast(torch.tensor([data.numel()]), root_rank, f"{name}.length", engine=engine)
    if not mine:
        data = torch.empty(int(length), dtype=torch.uint8)
    return json.loads(bytes(broadcast(data, root_rank, name, engine=engine).tolist()).decode())
