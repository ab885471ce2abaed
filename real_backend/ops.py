"""Collectives by name: allreduce, allgather, broadcast, reduce-scatter, barrier, join; alone or in groups.

Functions ``..._async`` return a :class:`real_backend.engine.handles.Handle`; those without wait for it. A name ending
in ``_`` writes into its argument. Every rank must use the same names, in any order. Unlike in Horovod, nothing is
cached for tensors without names, so repeated operations should have names. An error that this rank can detect alone (a
sparse tensor, an output that does not fit) raises TypeError or ValueError at once, and no other rank is involved.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch

from coordsim.protocol.messages import Op, ReduceOp, Request
from real_backend import job
from real_backend.engine.engine import Engine
from real_backend.engine.handles import Handle
from real_backend.requests import RequestBook, check_tensor, ready_event, refuse_capture

Average, Sum, Min, Max, Product = (
    ReduceOp.AVERAGE, ReduceOp.SUM, ReduceOp.MIN, ReduceOp.MAX, ReduceOp.PRODUCT,
)  # fmt: skip

_unnamed: WeakKeyDictionary[Engine, Iterator[int]] = WeakKeyDictionary()
"""Counter of each engine. The ranks of an engine must count alike, whatever some of them do in another process set or
did in an earlier job."""
_book = RequestBook()
_OPERATION = {op: op.name.lower() for op in Op}


def _submit_one(
    op: Op, tensor: torch.Tensor, output: torch.Tensor | None, name: str | None, engine: Engine | None, **fields: Any
) -> Handle:
    engine = engine or job.default_engine()
    full = _name(_OPERATION[op], name, engine)
    check_tensor(full, op, tensor, output, engine)
    ready = None
    if tensor.is_cuda:
        refuse_capture()
        ready = ready_event([tensor])
    request = _book.request(full, tensor, op, group=engine.group_digest(full), **fields)
    return engine.submit([(request, tensor, output)], ready=ready)


def _submit(
    op: Op, tensors: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor | None], names: Sequence[str],
    engine: Engine, **fields: Any,
) -> Handle:  # fmt: skip
    """Submit a group."""
    for name, tensor, output in zip(names, tensors, outputs, strict=True):
        check_tensor(name, op, tensor, output, engine)
    if tensors[0].is_cuda:
        refuse_capture()
    unit = [
        (_book.request(name, tensor, op, group=engine.group_digest(name), **fields), tensor, output)
        for name, tensor, output in zip(names, tensors, outputs, strict=True)
    ]
    return engine.submit(unit, ready=ready_event(tensors), grouped=True)


def _name(operation: str, name: str | None, engine: Engine) -> str:
    if name is None:
        name = f"noname.{next(_unnamed.setdefault(engine, itertools.count()))}"
    return f"{operation}.{name}"


def _names(operation: str, name: str | None, count: int, engine: Engine) -> list[str]:
    base = _name(f"grouped_{operation}", name, engine)
    return [f"{base}_{index}of{count}" for index in range(1, count + 1)]


def allreduce_async(
    tensor: torch.Tensor, name: str | None = None, op: ReduceOp = Average, *, prescale: float = 1.0,
    postscale: float = 1.0, output: torch.Tensor | None = None, engine: Engine | None = None,
) -> Handle:  # fmt: skip
    """Reduce over all ranks. ``output`` is where the result goes, possibly ``tensor`` itself; default: a new tensor.

    Raises DuplicateName while an operation of that name is pending, and what :meth:`Engine.submit` raises.
    """
    return _submit_one(
        Op.ALLREDUCE, tensor, output, name, engine, reduce_op=op, prescale=prescale, postscale=postscale
    )


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
    """Reduce several tensors as one unit: no rank reduces one before all ranks have submitted all.

    The result is a list. Raises ValueError for tensors on several kinds of device, and as :func:`allreduce_async`.
    """
    return _submit_group(
        Op.ALLREDUCE, tensors, outputs, name, engine, reduce_op=op, prescale=prescale, postscale=postscale
    )


def _submit_group(
    op: Op, tensors: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor] | None,
    name: str | None, engine: Engine | None, **fields: Any,
) -> Handle:  # fmt: skip
    if len({tensor.device.type for tensor in tensors}) > 1:
        raise ValueError(f"group {name!r} has tensors on the CPU and on a GPU")
    if not tensors:
        raise ValueError("a group needs at least one tensor")
    engine = engine or job.default_engine()
    names = _names(_OPERATION[op], name, len(tensors), engine)
    if engine.settings.strict_groups and len(names) > 1:
        engine.register_groups([names], once=name is None)
    return _submit(op, tensors, outputs or [None] * len(tensors), names, engine, **fields)


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


def allgather_async(tensor: torch.Tensor, name: str | None = None, *, engine: Engine | None = None) -> Handle:
    """Gather all ranks' rows, in rank order. Ranks may give different numbers of rows; all else must agree."""
    return _submit_one(Op.ALLGATHER, tensor, None, name, engine)


def allgather(tensor: torch.Tensor, name: str | None = None, **more: Any) -> torch.Tensor:
    result: torch.Tensor = allgather_async(tensor, name, **more).wait()
    return result


def grouped_allgather(
    tensors: Sequence[torch.Tensor], name: str | None = None, *, engine: Engine | None = None
) -> list[torch.Tensor]:
    results: list[torch.Tensor] = _submit_group(Op.ALLGATHER, tensors, None, name, engine).wait()
    return results


def broadcast_async(
    tensor: torch.Tensor, root_rank: int, name: str | None = None, *, output: torch.Tensor | None = None,
    engine: Engine | None = None,
) -> Handle:  # fmt: skip
    """Broadcast ``tensor`` of ``root_rank`` to all ranks. Raises ValueError for a root that does not exist."""
    ranks = (engine or job.default_engine()).ranks
    if not 0 <= root_rank < ranks:
        raise ValueError(f"root rank {root_rank}: there are ranks 0 to {ranks - 1}")
    return _submit_one(Op.BROADCAST, tensor, output, name, engine, root_rank=root_rank)


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
    """Reduce over all ranks, of which each keeps its share of the rows.

    If rows do not divide evenly, the low ranks have one more.
    """
    return _submit_one(
        Op.REDUCESCATTER, tensor, output, name, engine, reduce_op=op, prescale=prescale, postscale=postscale
    )


def reducescatter(tensor: torch.Tensor, name: str | None = None, op: ReduceOp = Average, **more: Any) -> torch.Tensor:
    result: torch.Tensor = reducescatter_async(tensor, name, op, **more).wait()
    return result


def grouped_reducescatter(
    tensors: Sequence[torch.Tensor], name: str | None = None, op: ReduceOp = Average, *, engine: Engine | None = None
) -> list[torch.Tensor]:
    results: list[torch.Tensor] = _submit_group(Op.REDUCESCATTER, tensors, None, name, engine, reduce_op=op).wait()
    return results


def barrier(name: str | None = None, *, engine: Engine | None = None) -> None:
    """Return when every rank has called this function."""
    engine = engine or job.default_engine()
    engine.submit([(Request(_name("barrier", name, engine), Op.BARRIER), None, None)]).wait()


def join(*, engine: Engine | None = None) -> int:
    """Take part with zeros, because this rank has no more data, until all ranks have joined; return the last to do
    so."""
    return int((engine or job.default_engine()).join().wait())


def broadcast_parameters(
    parameters: Any, root_rank: int = 0, *, engine: Engine | None = None
) -> None:
    """Copy all tensors of a ``state_dict``, or of (name, tensor) pairs, from ``root_rank``, in place."""
    named = sorted(parameters.items()) if hasattr(parameters, "items") else list(parameters)
    handles = [
        broadcast_async(tensor.detach(), root_rank, str(name), output=tensor.detach(), engine=engine)
        for name, tensor in named
        if isinstance(tensor, torch.Tensor)
    ]
    for handle in handles:
        handle.wait()


def broadcast_object(value: Any, root_rank: int = 0, name: str = "object", *, engine: Engine | None = None) -> Any:
    """Broadcast a Python value of ``root_rank`` as JSON: what arrives is data and is never executed."""
    import json

    mine = (engine or job.default_engine()).rank == root_rank
    data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8) if mine else torch.empty(0)
    length = broadcast(torch.tensor([data.numel()]), root_rank, f"{name}.length", engine=engine)
    if not mine:
        data = torch.empty(int(length), dtype=torch.uint8)
    return json.loads(bytes(broadcast(data, root_rank, name, engine=engine).tolist()).decode())
