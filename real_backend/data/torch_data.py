"""Responses carried out on torch's tensors: on the CPU by gloo, or by the control links while small; on a GPU by NCCL."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from coordsim.protocol import execution
from coordsim.protocol.messages import Op, Request, Response
from real_backend.control.tree import TreeTransport
from real_backend.data.buffers import FusionBuffers, Layout
from real_backend.data.dtypes import TORCH
from real_backend.data.links import LinkReducer
from real_backend.data.reductions import C10D, COMBINE, scale
from real_backend.data.transport import Done
from real_backend.engine.handles import Task
from real_backend.engine.observer import Performed
from real_backend.engine.settings import EngineSettings
from real_backend.errors import CannotStart

if TYPE_CHECKING:
    from real_backend.data.nccl import NcclData


class TorchData:
    """One rank's end. Payloads and outputs are tensors; without an output a new tensor is the result."""

    blocking = True

    def __init__(
        self, store: dist.Store, rank: int, ranks: int, settings: EngineSettings, links: TreeTransport | None,
        clock_ns: Callable[[], int],
    ) -> None:  # fmt: skip
        """``links``: the control tree, if there is one that small reductions may use."""
        self._rank, self._ranks = rank, ranks
        self._clock_ns = clock_ns
        self._buffers = FusionBuffers()
        self._small_bytes = settings.small_bytes if links is not None and settings.fusion_threshold_bytes else 0
        self._links = LinkReducer(links) if links is not None else None
        self._gloo = _gloo(dist.PrefixStore("gloo", store), rank, ranks, settings)
        self._nccl: NcclData | None = None
        self._store = store
        self._timeout = timedelta(microseconds=settings.data_timeout_ns // 1000)
        if settings.data == "nccl" and not torch.cuda.is_available():
            raise CannotStart("data transport 'nccl' needs a GPU that torch can use; choose 'gloo' or 'auto'")

    def perform(self, response: Response, tasks: Sequence[Task | None]) -> Done:
        if response.on_gpu:
            return self._on_gpu().perform(response, tasks)
        launch_ns = self._clock_ns()
        results, begin_ns, copied_ns, reduced_ns = _OPERATIONS[response.op](self, response, tasks)
        return Done(results, Performed(launch_ns, begin_ns, copied_ns, reduced_ns, self._clock_ns()))

    # Allreduce.

    def _allreduce(self, response: Response, tasks: Sequence[Task | None]) -> _Outcome:
        before, after = execution.factors(response, self._ranks)
        alone = tasks[0] if len(tasks) == 1 else None
        if alone is not None:
            output = _output(alone)
            if output.is_contiguous():
                return self._allreduce_alone(response, alone, output, before, after)
        begin_ns = self._clock_ns()
        layout = self._layout(response, tasks)
        self._copy_in(response, tasks, layout.views)
        if all(task is not None for task in tasks):
            scale(layout.flat, before)
        copied_ns = self._clock_ns()
        self._reduce(layout.flat, response)
        reduced_ns = self._clock_ns()
        scale(layout.flat, after)
        results = [None if task is None else _output(task) for task in tasks]
        _copy_all(
            [result for result in results if result is not None],
            [view for view, result in zip(layout.views, results, strict=True) if result is not None],
        )
        return results, begin_ns, copied_ns, reduced_ns

    def _allreduce_alone(
        self, response: Response, task: Task, output: torch.Tensor, before: float, after: float
    ) -> _Outcome:
        """A single tensor is reduced where its result belongs."""
        if output is not task.payload:
            output.copy_(task.payload)
        scale(output, before)
        begin_ns = self._clock_ns()
        self._reduce(output.view(-1), response)
        reduced_ns = self._clock_ns()
        scale(output, after)
        return [output], begin_ns, begin_ns, reduced_ns

    def _layout(self, response: Response, tasks: Sequence[Task | None]) -> Layout:
        shapes = [
            task.request.shape if task is not None else (execution.elements(response, index),)
            for index, task in enumerate(tasks)
        ]
        return self._buffers.layout(response, shapes, TORCH[response.dtype], _CPU)

    def _copy_in(self, response: Response, tasks: Sequence[Task | None], views: list[torch.Tensor]) -> None:
        """Values, or what changes nothing where this rank has joined (unscaled there, as a joined rank's is)."""
        have = [(view, task) for view, task in zip(views, tasks, strict=True) if task is not None]
        _copy_all([view for view, _ in have], [task.payload for _, task in have])
        if len(have) < len(tasks):
            before, _ = execution.factors(response, self._ranks)
            neutral = execution.neutral(response.dtype, response.reduce_op)
            for view, task in zip(views, tasks, strict=True):
                if task is None:
                    view.fill_(neutral)
                else:
                    scale(view, before)

    def _reduce(self, flat: torch.Tensor, response: Response) -> None:
        if self._ranks == 1:
            return
        if self._links is not None and flat.nbytes * self._ranks <= self._small_bytes:
            self._links.allreduce(flat, COMBINE[response.reduce_op])
            return
        options = dist.AllreduceOptions()
        options.reduceOp = C10D[response.reduce_op]
        self._gloo.allreduce([flat], options).wait()

    # The others.

    def _broadcast(self, response: Response, tasks: Sequence[Task | None]) -> _Outcome:
        begin_ns = self._clock_ns()
        (task,) = tasks
        assert task is not None, "a rank that has joined takes no part in a broadcast"
        output = _output(task)
        target = output if output.is_contiguous() else torch.empty_like(output, memory_format=torch.contiguous_format)
        if self._rank == response.root_rank and target is not task.payload:
            target.copy_(task.payload)
        if self._ranks > 1 and target.numel():
            options = dist.BroadcastOptions()
            options.rootRank, options.rootTensor = response.root_rank, 0
            self._gloo.broadcast([target.view(-1)], options).wait()
        if target is not output:
            output.copy_(target)
        return [output], begin_ns, begin_ns, self._clock_ns()

    def _allgather(self, response: Response, tasks: Sequence[Task | None]) -> _Outcome:
        """Ranks may give different numbers of rows; every rank is padded to the longest."""
        begin_ns = self._clock_ns()
        requests = [_request(task) for task in tasks]
        mine = torch.tensor([request.shape[0] for request in requests], dtype=torch.int64)
        rows = self._gathered(mine)
        widths = [_width(request) for request in requests]
        parts = [[int(count) * width for count, width in zip(each, widths, strict=True)] for each in rows.tolist()]
        longest = max(sum(each) for each in parts)
        own = torch.zeros(longest, dtype=TORCH[response.dtype])
        at = 0
        for task, elements in zip(tasks, parts[self._rank], strict=True):
            assert task is not None
            own[at : at + elements].copy_(task.payload.reshape(-1))
            at += elements
        copied_ns = self._clock_ns()
        everybody = self._gathered(own)
        reduced_ns = self._clock_ns()
        results = []
        for index, task in enumerate(tasks):
            pieces = []
            for rank, elements in enumerate(parts):
                start = sum(elements[:index])
                pieces.append(everybody[rank, start : start + elements[index]])
            shape = (int(rows[:, index].sum()), *requests[index].shape[1:])
            assert task is not None
            results.append(_place(task, torch.cat(pieces).view(shape)))
        return results, begin_ns, copied_ns, reduced_ns

    def _gathered(self, own: torch.Tensor) -> torch.Tensor:
        """``own`` of all ranks; shape [rank, ...]."""
        everybody = torch.empty((self._ranks, *own.shape), dtype=own.dtype)
        if self._ranks == 1 or own.numel() == 0:
            everybody.copy_(own)
            return everybody
        self._gloo.allgather([list(everybody.unbind(0))], [own]).wait()
        return everybody

    def _reducescatter(self, response: Response, tasks: Sequence[Task | None]) -> _Outcome:
        """Reduced everywhere, and every rank keeps its rows: gloo does the same inside."""
        begin_ns = self._clock_ns()
        before, after = execution.factors(response, self._ranks)
        layout = self._layout(response, tasks)
        self._copy_in(response, tasks, layout.views)
        scale(layout.flat, before)
        copied_ns = self._clock_ns()
        self._reduce(layout.flat, response)
        reduced_ns = self._clock_ns()
        scale(layout.flat, after)
        results = []
        for task, view in zip(tasks, layout.views, strict=True):
            assert task is not None, "a rank that has joined takes no part in a reduce-scatter"
            kept = execution.shard_rows(view.shape[0], self._ranks)[self._rank]
            results.append(_place(task, view[kept.start : kept.stop]))
        return results, begin_ns, copied_ns, reduced_ns

    # The rest.

    def _on_gpu(self) -> NcclData:
        if self._nccl is None:
            from real_backend.data.nccl import NcclData

            self._nccl = NcclData(
                dist.PrefixStore("nccl", self._store), self._rank, self._ranks, self._timeout, self._clock_ns
            )
        return self._nccl

    def break_off(self) -> None:
        """A collective of gloo's cannot be called back; peers that close their connections end it."""
        threading.Thread(target=self._abort, name="coordsim-abort", daemon=True).start()

    def _abort(self) -> None:
        try:
            self._gloo.abort()
        except RuntimeError:
            pass  # it cannot, or has nothing to abort
        if self._nccl is not None:
            self._nccl.break_off()

    def close(self) -> None:
        if self._nccl is not None:
            self._nccl.close()


_CPU = torch.device("cpu")
_Outcome = tuple[list["torch.Tensor | None"], int, int, int]
"""Results; begin, end of the copy in, end of the collective, ns."""

_OPERATIONS: dict[Op, Callable[[TorchData, Response, Sequence["Task | None"]], _Outcome]] = {
    Op.ALLREDUCE: TorchData._allreduce,
    Op.BROADCAST: TorchData._broadcast,
    Op.ALLGATHER: TorchData._allgather,
    Op.REDUCESCATTER: TorchData._reducescatter,
}


def _gloo(store: dist.Store, rank: int, ranks: int, settings: EngineSettings) -> dist.ProcessGroupGloo:
    from real_backend.control.rendezvous import address_of

    options = dist.ProcessGroupGloo._Options()
    options._timeout = timedelta(microseconds=settings.data_timeout_ns // 1000)
    options._threads = 1  # one thread issues, in one order
    options._devices = [dist.ProcessGroupGloo.create_device(hostname=address_of(settings.interface))]
    return dist.ProcessGroupGloo(store, rank, ranks, options)


def _request(task: Task | None) -> Request:
    assert task is not None, "a rank that has joined takes no part in this"
    return task.request


def _width(request: Request) -> int:
    """Elements of one row."""
    width = 1
    for extent in request.shape[1:]:
        width *= extent
    return width


def _output(task: Task) -> torch.Tensor:
    if task.output is None:
        task.output = torch.empty_like(task.payload)
    output: torch.Tensor = task.output
    return output


def _place(task: Task, result: torch.Tensor) -> torch.Tensor:
    """``result`` where the caller wants it, never in a buffer that is used again."""
    if task.output is None:
        return result.clone()
    output: torch.Tensor = task.output
    output.copy_(result.view(output.shape))
    return output


def _copy_all(targets: list[torch.Tensor], sources: list[torch.Tensor]) -> None:
    if targets:
        with torch.no_grad():
            torch._foreach_copy_(targets, sources)
