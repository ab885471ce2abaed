"""A lock-step job whose tensors hold numbers: responses are carried out on plain lists, as a backend would."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import chain
from math import prod
from typing import Any

from coordsim.protocol import execution
from coordsim.protocol.messages import DType, Op, ReduceOp, Request, Response
from coordsim.protocol.negotiator import Schedule
from coordsim.protocol.queue import SHUT_DOWN
from tests.protocol.drive import Job

Number = float | int
Values = list[Number]
REDUCTIONS: dict[ReduceOp, Callable[[Number, Number], Number]] = {
    ReduceOp.AVERAGE: operator.add, ReduceOp.SUM: operator.add, ReduceOp.MIN: min, ReduceOp.MAX: max,
    ReduceOp.PRODUCT: operator.mul,
}  # fmt: skip
FLOATS = (DType.FLOAT16, DType.FLOAT32, DType.FLOAT64, DType.BFLOAT16)


class Failed(RuntimeError):
    """What waiting for a handle raises when the operation failed."""


@dataclass
class Handle:
    """One rank's submission of one tensor."""

    values: Values
    result: Values | None = None
    error: str = ""

    def poll(self) -> bool:
        return self.result is not None or bool(self.error)

    def wait(self) -> Values:
        if self.error:
            raise Failed(self.error)
        assert self.result is not None, "not done"
        return self.result


@dataclass
class DataJob(Job):
    """Every submission has values (row-major) and a handle; a fused operation is one pass over one buffer."""

    handles: list[dict[str, Handle]] = field(default_factory=list)
    operations: list[tuple[str, ...]] = field(default_factory=list)
    """Names in each collective, in order of execution."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.handles = [{} for _ in self.ranks]

    def put(self, rank: int, *unit: tuple[Request, Sequence[Number]]) -> list[Handle]:
        """Submit tensors with values as one unit."""
        self.submit(rank, *(request for request, _ in unit))
        new = {request.name: Handle(list(values)) for request, values in unit}
        for request, values in unit:
            assert len(values) == prod(request.shape)
        self.handles[rank] |= new
        return list(new.values())

    def _finish_cycle(self, conversations: list[Any]) -> Schedule:
        schedule = super()._finish_cycle(conversations)
        if schedule.shutdown:
            for handles, names in zip(self.handles, self.drained, strict=True):
                for name in names:
                    if name in handles:
                        handles[name].error = SHUT_DOWN
        return schedule

    def execute(self, response: Response) -> None:
        held = [{request.name: request for request in each.finish(response)} for each in self.sessions]
        self.operations.append(response.names)
        results = self._results(response, held)
        for rank, mine in enumerate(held):
            for index, name in enumerate(response.names):
                if name in mine and name in self.handles[rank]:
                    handle = self.handles[rank][name]
                    if response.error:
                        handle.error = response.error
                    else:
                        handle.result = results[rank][index]

    def _results(self, response: Response, held: list[dict[str, Request]]) -> list[list[Values]]:
        """Shape [rank][tensor]."""
        match response.op:
            case Op.ALLREDUCE:
                return self._allreduce(response, held)
            case Op.REDUCESCATTER:
                return self._reducescatter(response, held)
            case Op.ALLGATHER:
                return self._allgather(response, held)
            case Op.BROADCAST:
                values = self.handles[response.root_rank][response.names[0]].values
                return [[list(values)] for _ in self.ranks]
            case Op.JOIN:
                return [[[response.root_rank]] for _ in self.ranks]
        return [[[] for _ in response.names] for _ in self.ranks]

    def _allreduce(self, response: Response, held: list[dict[str, Request]]) -> list[list[Values]]:
        places = execution.spans(response)
        buffers = []
        for rank in self.ranks:
            buffer: Values = [None] * places[-1].stop  # type: ignore[list-item]
            for name, place in zip(response.names, places, strict=True):
                buffer[place.start : place.stop] = self._contribution(rank, name, place.elements, response, held)
            buffers.append(buffer)
        total = self._reduce(response, buffers)
        return [[total[place.start : place.stop] for place in places] for _ in self.ranks]

    def _contribution(
        self, rank: int, name: str, elements: int, response: Response, held: list[dict[str, Request]]
    ) -> Values:
        if name not in held[rank]:
            return [execution.neutral(response.dtype, response.reduce_op)] * elements
        before, _ = execution.factors(response, len(self.ranks))
        return scaled(self.handles[rank][name].values, before, response.dtype)

    def _reduce(self, response: Response, buffers: list[Values]) -> Values:
        _, after = execution.factors(response, len(self.ranks))
        combine = REDUCTIONS[response.reduce_op]
        total = [reduce(combine, column) for column in zip(*buffers, strict=True)]
        return scaled(total, after, response.dtype)

    def _reducescatter(self, response: Response, held: list[dict[str, Request]]) -> list[list[Values]]:
        shapes = [held[0][name].shape for name in response.names]
        parts = execution.scattered(shapes, len(self.ranks))
        places = execution.rank_major(parts)
        before, _ = execution.factors(response, len(self.ranks))
        buffers = []
        for rank in self.ranks:
            buffer: Values = [0] * sum(map(sum, parts))
            for index, name in enumerate(response.names):
                values = scaled(self.handles[rank][name].values, before, response.dtype)
                for by_tensor in places:
                    place = by_tensor[index]
                    buffer[place.start : place.stop], values = values[: place.elements], values[place.elements :]
                assert not values
            buffers.append(buffer)
        total = self._reduce(response, buffers)
        return [[total[place.start : place.stop] for place in places[rank]] for rank in self.ranks]

    def _allgather(self, response: Response, held: list[dict[str, Request]]) -> list[list[Values]]:
        values = [[self.handles[rank][name].values for name in response.names] for rank in self.ranks]
        places = execution.rank_major([[len(each) for each in mine] for mine in values])
        buffer = list(chain.from_iterable(chain.from_iterable(values)))
        gathered = [
            list(chain.from_iterable(buffer[mine[index].start : mine[index].stop] for mine in places))
            for index in range(len(response.names))
        ]
        assert [len(each) * response.dtype.nbytes for each in gathered] == list(response.sizes)
        return [gathered for _ in self.ranks]


def scaled(values: Sequence[Number], factor: float, dtype: DType) -> Values:
    """Integers are scaled as floats and cut towards zero."""
    if factor == 1.0:
        return list(values)
    return [value * factor if dtype in FLOATS else int(value * factor) for value in values]
