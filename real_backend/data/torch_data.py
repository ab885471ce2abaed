"""Responses carried out on torch's tensors: by gloo or, while small, by the control links; on a GPU by NCCL."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from coordsim.protocol import execution
from coordsim.protocol.messages import Op, Request, Response
from coordsim.protocol.negotiator import AndReduce
from real_backend.control.rendezvous import address_of
from real_backend.control.tree import TreeTransport
from real_backend.data.buffers import FusionBuffers, Layout
from real_backend.data.dtypes import TORCH
from real_backend.data.gather import EqualGather, EqualShares
from real_backend.data.links import LinkReducer
from real_backend.data.memory import NodeMemory, open_memory
from real_backend.data.reductions import C10D, COMBINE, scale
from real_backend.data.transport import Done
from real_backend.engine.handles import Task
from real_backend.engine.observer import Performed
from real_backend.engine.settings import EngineSettings
from real_backend.errors import CannotStart

if TYPE_CHECKING:
    from real_backend.data.nccl import NcclData


PIECE_BYTES = 8 << 20
"""Size of a piece of a fused response over gloo; a larger tensor travels alone and is not copied."""
ALONG_BYTES = 64 << 10
"""Largest small reduction that travels with the bit vector; larger ones would cost too much when it is in vain."""
PIECES_UNDER_WAY = 8
"""Largest number of pieces that gloo has been given and that have not been copied out."""
GLOO_THREADS = 2
"""Number of gloo's threads. With one, a rank's link is silent while that thread adds up what it received."""
CACHED_BYTES = 1 << 20
"""Largest buffer over which a second pass costs nothing, because it is in a cache."""


class TorchData:
    """One rank's end. Payloads and outputs are tensors; without an output a new tensor is the result."""

    blocking = True

    def __init__(
        self, store: dist.Store, rank: int, ranks: int, settings: EngineSettings, links: TreeTransport | None,
        clock_ns: Callable[[], int],
    ) -> None:  # fmt: skip
        """``links`` is the control tree, if small reductions may use one."""
        self._rank, self._ranks = rank, ranks
        self._clock_ns = clock_ns
        self._buffers = FusionBuffers(PIECE_BYTES)
        reach = min(ranks, settings.tree_radix(ranks) + 1)
        self._small_bytes = settings.small_bytes // reach if settings.fusion_threshold_bytes else 0
        self._links = LinkReducer(links) if links is not None else None
        self._gloo: Any = _gloo(dist.PrefixStore("gloo", store), rank, ranks, settings)
        self._memory: NodeMemory | None = None
        self._try_memory = (
            settings.node_memory and settings.fusion_threshold_bytes > 0 and 1 < ranks <= settings.ranks_per_node
        )
        """Whether the use of the node's memory has still to be tried, at a point that all ranks reach."""
        self._equal = EqualGather(self._gloo, links, self._small_bytes)
        self._carried: Response | None = None
        """The response that the last AND has reduced; its sum is in the buffer."""
        self._nccl: NcclData | None = None
        self._store = store
        self._timeout = timedelta(microseconds=settings.data_timeout_ns // 1000)
        if settings.data == "nccl" and not torch.cuda.is_available():
            raise CannotStart("data transport 'nccl' needs a GPU that torch can use; choose 'gloo' or 'auto'")

    def perform(self, response: Response, tasks: Sequence[Task | None]) -> Done:
        if response.on_gpu:
            return self._on_gpu().perform(response, tasks)
        launch_ns = self._clock_ns()
        with torch.no_grad():
            results, begin_ns, copied_ns, reduced_ns = _OPERATIONS[response.op](self, response, tasks)
        return Done(results, Performed(launch_ns, begin_ns, copied_ns, reduced_ns, self._clock_ns()))

    def along(self, asked: AndReduce, tasks: Mapping[str, Task]) -> int | None:
        """Reduce one small allreduce with an AND. In a static model the vectors are equal, and it costs no message."""
        response = asked.expected[0]
        if len(asked.expected) > 1 or response.op is not Op.ALLREDUCE or response.on_gpu or self._links is None:
            return None
        if response.nbytes > ALONG_BYTES or not self._small(response) or not response.nbytes or self._ranks == 1:
            return None
        mine = [tasks.get(name) for name in response.names]
        with torch.no_grad():
            layout = self._layout(response, mine)
            self._copy_in(response, mine, layout.views)
            value, carried = self._links.intersect(asked, layout.flat, COMBINE[response.reduce_op])
        self._carried = response if carried else None
        return value

    # Allreduce.

    def _allreduce(self, response: Response, tasks: Sequence[Task | None]) -> _Outcome:
        """Reduce piece by piece: while one travels, the next is copied in and the one before is copied out."""
        before, after = execution.factors(response, self._ranks)
        joined = any(task is None for task in tasks)
        results = [None if task is None else _output(task) for task in tasks]
        begin_ns = copied_ns = self._clock_ns()
        if self._small(response):
            return self._allreduce_small(response, tasks, results)
        if self._try_memory and self._links is not None:
            self._try_memory = False
            self._memory = open_memory(self._links, self._rank, self._ranks)
        if self._memory is not None:
            return self._allreduce_in_memory(self._memory, response, tasks, results)
        under_way: deque[_UnderWay] = deque()
        reduced_ns = 0
        for index, piece in enumerate(self._layout(response, tasks).pieces if len(tasks) > 1 or joined else (None,)):
            first, last = (0, 1) if piece is None else (piece.first, piece.last)
            alone = results[first] if last - first == 1 and not joined else None
            if alone is not None and alone.is_contiguous():
                task = tasks[first]
                assert task is not None
                if alone is not task.payload:
                    alone.copy_(task.payload)
                scale(alone, before)
                under_way.append(_UnderWay(self._start(alone.view(-1), response), [], alone, []))
            else:
                piece = piece or self._layout(response, tasks).pieces[0]
                self._copy_in(response, tasks[first:last], piece.views)
                work = self._start(piece.flat, response)
                under_way.append(_UnderWay(work, results[first:last], piece.flat, piece.views))
            copied_ns = copied_ns if index else self._clock_ns()
            if len(under_way) > PIECES_UNDER_WAY:
                under_way.popleft().finish(after)
        for piece_under_way in under_way:
            piece_under_way.finish(after)
            reduced_ns = self._clock_ns()
        return results, begin_ns, copied_ns, reduced_ns

    def _allreduce_small(
        self, response: Response, tasks: Sequence[Task | None], results: list[torch.Tensor | None]
    ) -> _Outcome:
        """Reduce through the control links, all at once; a single tensor is reduced where its result belongs."""
        before, after = execution.factors(response, self._ranks)
        begin_ns = self._clock_ns()
        carried, self._carried = self._carried, None
        if response is carried:
            layout = self._layout(response, tasks)
            _copy_out(results, layout.flat, layout.views, after)
            return results, begin_ns, begin_ns, begin_ns
        alone, task = results[0], tasks[0]
        if len(tasks) == 1 and alone is not None and task is not None and alone.is_contiguous():
            if alone is not task.payload:
                alone.copy_(task.payload)
            scale(alone, before)
            begin_ns = self._clock_ns()
            self._reduce_now(alone.view(-1), response)
            reduced_ns = self._clock_ns()
            scale(alone, after)
            return results, begin_ns, begin_ns, reduced_ns
        layout = self._layout(response, tasks)
        self._copy_in(response, tasks, layout.views)
        copied_ns = self._clock_ns()
        self._reduce_now(layout.flat, response)
        reduced_ns = self._clock_ns()
        _copy_out(results, layout.flat, layout.views, after)
        return results, begin_ns, copied_ns, reduced_ns

    def _allreduce_in_memory(
        self, memory: NodeMemory, response: Response, tasks: Sequence[Task | None], results: list[torch.Tensor | None]
    ) -> _Outcome:
        """Reduce tensors where they lie.

        Copies are made only of tensors that are not contiguous, and neutral values where this rank has joined.
        """
        before, after = execution.factors(response, self._ranks)
        begin_ns = self._clock_ns()
        flats = []
        for index, (task, result) in enumerate(zip(tasks, results, strict=True)):
            if task is None or result is None:
                neutral = execution.neutral(response.dtype, response.reduce_op)
                flats.append(torch.full((execution.elements(response, index),), neutral, dtype=TORCH[response.dtype]))
                continue
            if result.is_contiguous():
                if result is not task.payload:
                    result.copy_(task.payload)
                flat = result.view(-1)
            else:
                flat = task.payload.clone(memory_format=torch.contiguous_format).view(-1)
            scale(flat, before)
            flats.append(flat)
        copied_ns = self._clock_ns()
        memory.allreduce(flats, COMBINE[response.reduce_op], after)
        reduced_ns = self._clock_ns()
        for flat, result in zip(flats, results, strict=True):
            if result is not None and not result.is_contiguous():
                result.copy_(flat.view(result.shape))
        return results, begin_ns, copied_ns, reduced_ns

    def _small(self, response: Response) -> bool:
        """Return whether the control links carry a response; every rank must come to the same answer."""
        return self._links is not None and response.nbytes <= self._small_bytes

    def _layout(self, response: Response, tasks: Sequence[Task | None]) -> Layout:
        shapes = [
            task.request.shape if task is not None else (execution.elements(response, index),)
            for index, task in enumerate(tasks)
        ]
        return self._buffers.layout(response, shapes, TORCH[response.dtype], _CPU)

    def _copy_in(self, response: Response, tasks: Sequence[Task | None], views: list[torch.Tensor]) -> None:
        """Copy values in, scaled; neutral values where this rank has joined."""
        have = [(view, task) for view, task in zip(views, tasks, strict=True) if task is not None]
        if have:
            torch._foreach_copy_([view for view, _ in have], [task.payload for _, task in have])
        before, _ = execution.factors(response, self._ranks)
        neutral = execution.neutral(response.dtype, response.reduce_op) if len(have) < len(tasks) else 0
        if before != 1.0 or len(have) < len(tasks):
            for view, task in zip(views, tasks, strict=True):
                if task is None:
                    view.fill_(neutral)
                else:
                    scale(view, before)

    def _start(self, flat: torch.Tensor, response: Response) -> Any:
        """Begin to reduce ``flat`` over gloo; the result has ``wait``."""
        if self._ranks == 1 or flat.numel() == 0:
            return None
        options = dist.AllreduceOptions()
        options.reduceOp = C10D[response.reduce_op]  # type: ignore[assignment]
        if flat.dtype is torch.int16:
            return _Widened(flat, lambda wide: self._gloo.allreduce([wide], options))
        return self._gloo.allreduce([flat], options)

    def _reduce_now(self, flat: torch.Tensor, response: Response) -> None:
        if self._ranks > 1 and flat.numel():
            assert self._links is not None
            self._links.allreduce(flat, COMBINE[response.reduce_op])

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
            self._gloo.broadcast([target.view(-1).view(torch.uint8)], options).wait()
        if target is not output:
            output.copy_(target)
        return [output], begin_ns, begin_ns, self._clock_ns()

    def _allgather(self, response: Response, tasks: Sequence[Task | None]) -> _Outcome:
        """Gather rows. Ranks may give different numbers; every rank is padded to the longest."""
        begin_ns = self._clock_ns()
        requests = [_request(task) for task in tasks]
        equal = [task.output for task in tasks if task is not None and isinstance(task.output, EqualShares)]
        if len(equal) == len(tasks):
            self._equal.gather([task.payload for task in tasks if task is not None], equal)
            return [each.result for each in equal], begin_ns, begin_ns, self._clock_ns()
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
        results: list[torch.Tensor | None] = []
        for index, task in enumerate(tasks):
            assert task is not None
            starts = [sum(mine[:index]) for mine in parts]
            pieces = [
                everybody[rank, start : start + mine[index]]
                for rank, (start, mine) in enumerate(zip(starts, parts, strict=True))
            ]
            shape = (int(rows[:, index].sum()), *requests[index].shape[1:])
            results.append(_place(task, torch.cat(pieces).view(shape)))
        return results, begin_ns, copied_ns, reduced_ns

    def _gathered(self, own: torch.Tensor) -> torch.Tensor:
        """Return ``own`` of all ranks, shape [rank, elements]."""
        everybody = torch.empty((self._ranks, *own.shape), dtype=own.dtype)
        if self._ranks == 1 or own.numel() == 0:
            everybody.copy_(own)
            return everybody
        self._gloo.allgather([list(everybody.view(torch.uint8).unbind(0))], [own.view(torch.uint8)]).wait()
        return everybody

    def _reducescatter(self, response: Response, tasks: Sequence[Task | None]) -> _Outcome:
        """Reduce on all ranks, of which each keeps its rows, as gloo does inside."""
        begin_ns = self._clock_ns()
        _, after = execution.factors(response, self._ranks)
        layout = self._layout(response, tasks)
        self._copy_in(response, tasks, layout.views)
        copied_ns = self._clock_ns()
        if self._small(response):
            self._reduce_now(layout.flat, response)
        else:
            work = self._start(layout.flat, response)
            if work is not None:
                work.wait()
        reduced_ns = self._clock_ns()
        scale(layout.flat, after)
        results: list[torch.Tensor | None] = []
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
        """Do nothing: a collective of gloo's cannot be recalled; it ends when peers close their connections."""
        threading.Thread(target=self._abort, name="coordsim-abort", daemon=True).start()

    def _abort(self) -> None:
        with contextlib.suppress(RuntimeError):  # gloo cannot abort, or has nothing to abort.
            self._gloo.abort()
        if self._nccl is not None:
            self._nccl.break_off()

    def close(self) -> None:
        if self._nccl is not None:
            self._nccl.close()


_CPU = torch.device("cpu")
_Outcome = tuple[list["torch.Tensor | None"], int, int, int]
"""Results, begin, end of the copy in, and end of the collective; times in ns."""

_OPERATIONS: dict[Op, Callable[[TorchData, Response, Sequence[Task | None]], _Outcome]] = {
    Op.ALLREDUCE: TorchData._allreduce,
    Op.BROADCAST: TorchData._broadcast,
    Op.ALLGATHER: TorchData._allgather,
    Op.REDUCESCATTER: TorchData._reducescatter,
}


def _gloo(store: dist.Store, rank: int, ranks: int, settings: EngineSettings) -> Any:
    group_type: Any = dist.ProcessGroupGloo
    options = group_type._Options()
    options._timeout = timedelta(microseconds=settings.data_timeout_ns // 1000)
    options._threads = GLOO_THREADS
    options._devices = [group_type.create_device(hostname=address_of(settings.interface))]
    return group_type(store, rank, ranks, options)


def _request(task: Task | None) -> Request:
    assert task is not None, "a rank that has joined takes no part in this"
    return task.request


def _width(request: Request) -> int:
    """Return the number of elements of one row."""
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
    """Return ``result`` where the caller wants it, never in a buffer that is reused."""
    if task.output is None:
        return result.clone()
    if isinstance(task.output, EqualShares):
        return task.output.take(result)
    output: torch.Tensor = task.output
    output.copy_(result.view(output.shape))
    return output


@dataclass(slots=True)
class _UnderWay:
    """A piece that gloo is reducing."""

    work: Any
    outputs: Sequence[torch.Tensor | None]
    """Where its views go; empty if it was reduced in place."""
    flat: torch.Tensor
    views: list[torch.Tensor]

    def finish(self, after: float) -> None:
        """Wait, scale, and copy the result to its place."""
        if self.work is not None:
            self.work.wait()
        if self.outputs:
            _copy_out(self.outputs, self.flat, self.views, after)
        else:
            scale(self.flat, after)


class _Widened:
    """A reduction of 16-bit integers, which gloo lacks, in 32 bits, whose low half is the same."""

    def __init__(self, flat: torch.Tensor, start: Callable[[torch.Tensor], Any]) -> None:
        self._flat, self._wide = flat, flat.int()
        self._work = start(self._wide)

    def wait(self) -> None:
        self._work.wait()
        self._flat.copy_(self._wide)


def _copy_out(
    outputs: Sequence[torch.Tensor | None], flat: torch.Tensor, views: list[torch.Tensor], after: float
) -> None:
    """Copy views to outputs, scaled on the way where this saves a pass over memory that no cache holds."""
    there = [(output, view) for output, view in zip(outputs, views, strict=True) if output is not None]
    if not there:
        return
    if after != 1.0 and flat.nbytes > CACHED_BYTES and flat.is_floating_point():
        for output, view in there:
            torch.mul(view, after, out=output)
        return
    scale(flat, after)
    torch._foreach_copy_([output for output, _ in there], [view for _, view in there])
