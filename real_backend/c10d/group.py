"""A process group of ``torch.distributed`` whose collectives are negotiated by an engine of its own.

Operations that are not here (send, gather, all-to-all, bitwise reductions, sparse tensors, ...) go to an inner group:
gloo for tensors on the CPU, NCCL on a GPU. The inner group has another communicator than the engine's and is used in
the caller's order.
"""

from __future__ import annotations

import atexit
import os
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import (
    AllgatherOptions,
    AllreduceCoalescedOptions,
    AllreduceOptions,
    BroadcastOptions,
    ReduceScatterOptions,
)

from real_backend.c10d import inner, items
from real_backend.c10d.issue import Issuer
from real_backend.c10d.items import Item
from real_backend.c10d.scratch import Scratch
from real_backend.engine.assembly import assemble
from real_backend.engine.engine import Engine
from real_backend.engine.settings import settings_from

_running: weakref.WeakValueDictionary[int, CoordGroup] = weakref.WeakValueDictionary()
"""Running groups, in the order in which they were made."""
_made = 0
_process = os.getpid()
_worlds = 0
"""Number of default groups that ``init_process_group`` has made. Names of groups start again with each, and keys in a
store must not."""


def make(options: Any, _: Any = None) -> CoordGroup:
    """Make a group, on each of its members; called by ``torch.distributed``. Raises what an engine's start raises."""
    global _worlds, _made
    first = not dist.is_initialized()
    _worlds += first
    _made += 1
    group = CoordGroup(
        options.store, options.group_rank, options.group_size, f"{options.group_id}.{_worlds}", options.timeout,
        record=first,
    )  # fmt: skip
    _running[_made] = group
    return group


class CoordGroup(dist.ProcessGroup):
    """One rank's end of a group. Any thread may issue operations; all ranks must issue them in the same order."""

    def __init__(
        self, store: dist.Store, rank: int, ranks: int, name: str, timeout: timedelta, *, record: bool = True
    ) -> None:
        """``record`` says whether the settings for records and timelines apply. Raises what an engine's start
        raises."""
        super().__init__(rank, ranks)  # type: ignore[call-arg]
        self._rank, self._ranks = rank, ranks
        self._inner = inner.register(self, store, rank, ranks, name, timeout)
        self.engine: Engine | None = None
        """The engine; None in a group of one rank."""
        if ranks > 1:
            settings = settings_from(ranks_per_node=int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
            if not record:
                settings = replace(settings, record="", timeline="")
            self.engine = assemble(settings, store, rank, ranks, job=name)
            self.engine.start()
        self._issuer = Issuer(self.engine, timeout, dist.PrefixStore(name, store))
        self._scratch = Scratch()
        self._over = False

    def getBackendName(self) -> str:  # noqa: N802  (c10d's)
        return "coord"

    def shutdown(self) -> None:
        """Stop the loops of all ranks. Does nothing if they have stopped."""
        self._issuer.close()
        over, self._over = self._over, True
        if self.engine is not None and not over:
            self.engine.shut_down()

    def abort(self) -> None:
        self.shutdown()

    # Operations; their names and arguments are c10d's.

    def allreduce(self, tensors: Any, opts: Any = None, timeout: timedelta | None = None) -> Any:
        tensors, options = _several(tensors), _options(AllreduceOptions, opts, timeout)
        item = items.allreduce(tensors[0], options.reduceOp.op) if len(tensors) == 1 else None
        return self._issue([item], options, lambda: self._of(tensors).allreduce(tensors, options))

    def allreduce_coalesced(self, tensors: Sequence[torch.Tensor], opts: Any = None) -> Any:
        options = _options(AllreduceCoalescedOptions, opts)
        unit = [items.allreduce(tensor, options.reduceOp.op) for tensor in tensors]
        return self._issue(unit, options, lambda: self._of(tensors).allreduce_coalesced(tensors, options))

    def broadcast(self, tensors: Any, opts: Any = None, timeout: timedelta | None = None) -> Any:
        tensors = _several(tensors)
        root = opts if isinstance(opts, int) else None
        options = _options(BroadcastOptions, None if root is not None else opts, timeout)
        if root is not None:
            options.rootRank = root
        item = items.broadcast(tensors[0], options.rootRank) if len(tensors) == 1 else None
        return self._issue([item], options, lambda: self._of(tensors).broadcast(tensors, options))

    def allgather(self, outputs: Any, inputs: Any, opts: Any = None) -> Any:
        if isinstance(inputs, torch.Tensor):
            outputs, inputs = [outputs], [inputs]
        options = _options(AllgatherOptions, opts)
        item = items.all_gather(outputs[0], inputs[0]) if len(inputs) == 1 else None
        return self._issue([item], options, lambda: self._of(inputs).allgather(outputs, inputs, options))

    def all_gather_single(self, output: torch.Tensor, input: torch.Tensor, opts: Any = None) -> Any:
        return self.all_gather_single_coalesced([output], [input], opts)

    def all_gather_single_coalesced(
        self, outputs: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor], opts: Any = None
    ) -> Any:
        pairs = zip(outputs, inputs, strict=True)
        unit = [items.all_gather_single(output, own, self._ranks) for output, own in pairs]
        return self._issue(unit, _options(AllgatherOptions, opts))

    def reduce_scatter(self, outputs: Any, inputs: Any, opts: Any = None, timeout: timedelta | None = None) -> Any:
        if isinstance(outputs, torch.Tensor):
            outputs, inputs = [outputs], [inputs]
        options = _options(ReduceScatterOptions, opts, timeout)
        item = None
        if len(outputs) == 1:
            item = items.reduce_scatter(outputs[0], inputs[0], options.reduceOp.op, self._rank, self._scratch)
        return self._issue([item], options, lambda: self._of(outputs).reduce_scatter(outputs, inputs, options))

    def reduce_scatter_single(self, output: torch.Tensor, input: torch.Tensor, opts: Any = None) -> Any:
        options = _options(ReduceScatterOptions, opts)
        item = items.reduce_scatter_single(output, input, options.reduceOp.op, self._rank, self._ranks, self._scratch)
        return self._issue([item], options, lambda: self._of([input])._reduce_scatter_base(output, input, options))

    def reduce_scatter_single_coalesced(
        self, outputs: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor], opts: Any = None
    ) -> Any:
        options = _options(ReduceScatterOptions, opts)
        unit = [
            items.reduce_scatter_single(output, each, options.reduceOp.op, self._rank, self._ranks, self._scratch)
            for output, each in zip(outputs, inputs, strict=True)
        ]
        return self._issue(
            unit, options, lambda: self._of(inputs).reduce_scatter_tensor_coalesced(outputs, inputs, options)
        )

    def barrier(self, opts: Any = None) -> Any:
        return self._issue([items.barrier()], opts)

    def _start_coalescing(self, device: torch.device) -> None:
        self._issuer.start_block()

    def _end_coalescing(self, device: torch.device) -> Any:
        return self._issuer.end_block()

    # As they were called before torch 2.13.

    _allgather_base: Any = all_gather_single
    allgather_into_tensor_coalesced: Any = all_gather_single_coalesced
    _reduce_scatter_base: Any = reduce_scatter_single
    reduce_scatter_tensor_coalesced: Any = reduce_scatter_single_coalesced

    def _issue(self, unit: Sequence[Item | None], options: Any, otherwise: Callable[[], Any] | None = None) -> Any:
        """Issue ``unit``; call ``otherwise``, on the inner group, if an item of it is not supported by the engine."""
        ours = [item for item in unit if item is not None]
        if len(ours) < len(unit):
            assert otherwise is not None
            return otherwise()
        timeout = getattr(options, "timeout", None)
        return self._issuer.issue(ours, timeout if timeout and timeout > timedelta(0) else None)

    def _of(self, tensors: Sequence[torch.Tensor]) -> Any:
        """Return the inner group for ``tensors``."""
        return self._inner[tensors[0].device.type]


def _several(tensors: Any) -> list[torch.Tensor]:
    return [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)


def _options(kind: type, given: Any, timeout: timedelta | None = None) -> Any:
    """Return c10d's options, from the arguments of older call forms: nothing, or a reduction."""
    if isinstance(given, kind):
        return given
    options = kind()
    if given is not None:
        options.reduceOp = given
    if timeout is not None:
        options.timeout = timeout
    return options


def _leave() -> None:
    """Shut groups down at exit: the newest first, in the same order on all members. A forked process does nothing."""
    if os.getpid() != _process:
        return
    for number in sorted(_running, reverse=True):
        _running[number].shutdown()


atexit.register(_leave)
