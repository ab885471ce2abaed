"""Responses on a GPU: NCCL launched on a stream of its own, behind the events at which gradients exist.

The background thread launches and goes on, without a wait on the CPU. A caller's stream waits for the end event when it
takes the result (``Handle.wait``). Buffers of the caller are recorded on this stream, so that the allocator does not
reuse them too early. The times of copies and collectives are not known when the loop goes on, so they are null in the
record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from coordsim.protocol import execution
from coordsim.protocol.messages import Op, Response
from real_backend.data.buffers import FusionBuffers
from real_backend.data.dtypes import TORCH
from real_backend.data.gather import EqualShares
from real_backend.data.reductions import C10D, scale
from real_backend.data.transport import Done
from real_backend.engine.handles import Task
from real_backend.engine.observer import Performed
from real_backend.errors import CannotStart


class NcclData:
    """One rank's GPU: the current device when it is made."""

    blocking = False

    def __init__(
        self, store: dist.Store, rank: int, ranks: int, timeout: timedelta, clock_ns: Callable[[], int]
    ) -> None:
        """Raises CannotStart without a GPU, or without NCCL in this torch."""
        if not torch.cuda.is_available() or not dist.is_nccl_available():
            raise CannotStart("a tensor on a GPU, but this torch has no GPU or no NCCL")
        self._rank, self._ranks = rank, ranks
        self._clock_ns = clock_ns
        self._device = torch.device("cuda", torch.cuda.current_device())
        self._stream = torch.cuda.Stream(self._device, priority=-1)  # type: ignore[no-untyped-call]
        self._buffers = FusionBuffers(1 << 62)
        group_type: Any = dist.ProcessGroupNCCL
        options = group_type.Options()
        options._timeout = timeout
        self._group: Any = group_type(store, rank, ranks, options)

    def perform(self, response: Response, tasks: Sequence[Task | None]) -> Done:
        """Launch a response. A stream may use the results once it has waited as :attr:`Done.settle` makes it."""
        launch_ns = self._clock_ns()
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream), torch.no_grad():
            for task in tasks:
                if task is not None and task.ready is not None:
                    self._stream.wait_event(task.ready)
            results = _OPERATIONS[response.op](self, response, tasks)
            ended = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ended.record(self._stream)
        for tensor in (*results, *(task.payload for task in tasks if task is not None)):
            if tensor is not None:
                tensor.record_stream(self._stream)

        def settle() -> None:
            torch.cuda.current_stream(self._device).wait_event(ended)

        return Done(results, Performed(launch_ns, launch_ns, None, None, None), settle)

    def _allreduce(self, response: Response, tasks: Sequence[Task | None]) -> list[torch.Tensor | None]:
        before, after = execution.factors(response, self._ranks)
        alone = tasks[0] if len(tasks) == 1 else None
        if alone is not None:
            output = _output(alone)
            if output.is_contiguous():
                if output is not alone.payload:
                    output.copy_(alone.payload)
                scale(output, before)
                self._reduce(output.view(-1), response)
                scale(output, after)
                return [output]
        shapes = [
            task.request.shape if task is not None else (execution.elements(response, index),)
            for index, task in enumerate(tasks)
        ]
        layout = self._buffers.layout(response, shapes, TORCH[response.dtype], self._device)
        have = [(view, task) for view, task in zip(layout.views, tasks, strict=True) if task is not None]
        if have:
            torch._foreach_copy_([view for view, _ in have], [task.payload for _, task in have])
        for view, task in zip(layout.views, tasks, strict=True):
            if task is None:
                view.fill_(execution.neutral(response.dtype, response.reduce_op))
            elif len(have) < len(tasks):
                scale(view, before)
        if len(have) == len(tasks):
            scale(layout.flat, before)
        self._reduce(layout.flat, response)
        scale(layout.flat, after)
        results = [None if task is None else _output(task) for task in tasks]
        there = [(result, view) for result, view in zip(results, layout.views, strict=True) if result is not None]
        if there:
            torch._foreach_copy_([result for result, _ in there], [view for _, view in there])
        return results

    def _reduce(self, flat: torch.Tensor, response: Response) -> None:
        options = dist.AllreduceOptions()
        options.reduceOp = C10D[response.reduce_op]  # type: ignore[assignment]
        self._group.allreduce([flat], options).wait()  # This makes the stream wait, not this thread.

    def _broadcast(self, response: Response, tasks: Sequence[Task | None]) -> list[torch.Tensor | None]:
        (task,) = tasks
        assert task is not None, "a rank that has joined takes no part in a broadcast"
        output = _output(task)
        target = output if output.is_contiguous() else torch.empty_like(output, memory_format=torch.contiguous_format)
        if self._rank == response.root_rank and target is not task.payload:
            target.copy_(task.payload)
        options = dist.BroadcastOptions()
        options.rootRank, options.rootTensor = response.root_rank, 0
        self._group.broadcast([target], options).wait()
        if target is not output:
            output.copy_(target)
        return [output]

    def _allgather(self, response: Response, tasks: Sequence[Task | None]) -> list[torch.Tensor | None]:
        """Gather rows. Ranks may give different numbers, which are exchanged first, with a wait on the CPU."""
        results: list[torch.Tensor | None] = []
        for task in tasks:
            assert task is not None, "a rank that has joined takes no part in an allgather"
            own = task.payload.contiguous()
            if isinstance(task.output, EqualShares):
                gathered = task.output.whole
                if gathered is None:
                    gathered = own.new_empty((self._ranks, own.numel()))
                self._group._allgather_base(gathered.view(-1), own.view(-1)).wait()
                results.append(gathered if task.output.whole is not None else task.output.take(gathered))
                continue
            rows = torch.empty(self._ranks, dtype=torch.int64, device=self._device)
            mine = torch.tensor([own.shape[0]], dtype=torch.int64, device=self._device)
            self._group._allgather_base(rows, mine).wait()
            counts = rows.tolist()
            padded = own.new_zeros((max(counts), *own.shape[1:]))
            padded[: own.shape[0]].copy_(own)
            everybody = own.new_empty((self._ranks, *padded.shape))
            self._group._allgather_base(everybody, padded).wait()
            joined = torch.cat([everybody[rank, :count] for rank, count in enumerate(counts)])
            results.append(_place(task, joined))
        return results

    def _reducescatter(self, response: Response, tasks: Sequence[Task | None]) -> list[torch.Tensor | None]:
        """Send equal shares to their owners; unequal shares are reduced on all ranks and cut."""
        before, after = execution.factors(response, self._ranks)
        results: list[torch.Tensor | None] = []
        for task in tasks:
            assert task is not None, "a rank that has joined takes no part in a reduce-scatter"
            own = task.payload.contiguous().clone()
            scale(own, before)
            share = execution.shard_rows(own.shape[0], self._ranks)[self._rank]
            if own.shape[0] % self._ranks:
                self._reduce(own.view(-1), response)
                kept = own[share.start : share.stop]
            else:
                kept = own.new_empty((share.elements, *own.shape[1:]))
                options = dist.ReduceScatterOptions()
                options.reduceOp = C10D[response.reduce_op]  # type: ignore[assignment]
                self._group._reduce_scatter_base(kept, own, options).wait()
            scale(kept, after)
            results.append(_place(task, kept))
        return results

    def break_off(self) -> None:
        """Abort what runs, so that streams that wait for it go on."""
        self._group.abort()

    def close(self) -> None:
        self._stream.synchronize()
        self._group.shutdown()


_OPERATIONS: dict[Op, Callable[[NcclData, Response, Sequence[Task | None]], list[torch.Tensor | None]]] = {
    Op.ALLREDUCE: NcclData._allreduce,
    Op.BROADCAST: NcclData._broadcast,
    Op.ALLGATHER: NcclData._allgather,
    Op.REDUCESCATTER: NcclData._reducescatter,
}


def _output(task: Task) -> torch.Tensor:
    if task.output is None:
        task.output = torch.empty_like(task.payload)
    output: torch.Tensor = task.output
    return output


def _place(task: Task, result: torch.Tensor) -> torch.Tensor:
    if task.output is None:
        return result
    output: torch.Tensor = task.output
    output.copy_(result.view(output.shape))
    return output
