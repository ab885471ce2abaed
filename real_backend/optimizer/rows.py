"""Sparse gradients, such as an embedding's: every rank gets the rows of all ranks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import Parameter

from coordsim.protocol.messages import Op, ReduceOp
from real_backend.engine.engine import Engine
from real_backend.engine.handles import Handle
from real_backend.errors import CollectiveFailed
from real_backend.optimizer.compression import Compression
from real_backend.requests import RequestBook, ready_event


@dataclass(slots=True)
class _Rows:
    """One gradient on its way; the values have the parameter's own name on the wire."""

    wire: str
    parameter: Parameter
    mine: torch.Tensor
    values: Handle
    indices: Handle


class RowGradients:
    """Reduces each gradient by two allgathers, of values and of indices.

    A rank that did not use the embedding, and does not know that its gradient is sparse, submits dense zeros. All ranks
    then get the same error about different operations, and submit rows in a second attempt. Horovod would wait for
    ever.
    """

    def __init__(self, engine: Engine, op: ReduceOp, compression: Compression) -> None:
        self.dims: dict[str, int] = {}
        """Parameters whose gradients are sparse, as far as this rank knows, with the number of sparse dimensions."""
        self._engine = engine
        self._op = op
        self._compression = compression
        self._book = RequestBook()
        self._pending: list[_Rows] = []

    @property
    def pending(self) -> bool:
        return bool(self._pending)

    def of(self, name: str, parameter: Parameter, gradient: torch.Tensor | None) -> torch.Tensor | None:
        """Return ``gradient`` as rows where it is known to be sparse on some rank; None becomes no rows."""
        sparse_dim = self.dims.get(name)
        if sparse_dim is None or (gradient is not None and gradient.is_sparse):
            return gradient
        return (torch.zeros_like(parameter) if gradient is None else gradient).detach().to_sparse(sparse_dim)

    def submit(self, name: str, wire: str, parameter: Parameter, gradient: torch.Tensor) -> None:
        """Submit a gradient's rows. Raises ValueError for a reduction that does not apply to rows."""
        if self._op not in (ReduceOp.AVERAGE, ReduceOp.SUM):
            raise ValueError(f"{name!r} has a sparse gradient, which has no {self._op.name}: set sparse_as_dense=True")
        self.dims[name] = gradient.sparse_dim()
        rows = gradient.detach().coalesce()
        mine = self._compression.travels(rows.values().contiguous())
        indices = rows.indices().t().contiguous()
        self._pending.append(
            _Rows(wire, parameter, mine, self._gather(wire, mine), self._gather(f"{wire}.indices", indices))
        )

    def finish(self) -> list[CollectiveFailed]:
        """Wait for all, and put the results where the optimizer reads them; return the failures."""
        pending, self._pending = self._pending, []
        failures = []
        for rows in pending:
            try:
                values = self._values(rows)
                indices = rows.indices.wait()
            except CollectiveFailed as failure:
                failures.append(failure)
                continue
            parameter = rows.parameter
            values = values.to(parameter.dtype)
            if self._op is ReduceOp.AVERAGE:
                values = values / self._engine.ranks
            parameter.grad = torch.sparse_coo_tensor(
                indices.t(), values, parameter.shape, dtype=values.dtype, device=values.device, check_invariants=False
            )
        return failures

    def _values(self, rows: _Rows) -> torch.Tensor:
        try:
            values: torch.Tensor = rows.values.wait()
        except CollectiveFailed as failure:
            if not dense_elsewhere(failure):
                raise
            values = self._gather(rows.wire, rows.mine).wait()
        return values

    def _gather(self, wire: str, tensor: torch.Tensor) -> Handle:
        request = self._book.request(wire, tensor, Op.ALLGATHER, group=self._engine.group_digest(wire))
        return self._engine.submit([(request, tensor, None)], ready=ready_event([tensor]))


def dense_elsewhere(failure: CollectiveFailed) -> bool:
    """Return whether a gradient failed because it is sparse on some ranks and dense on others; all read the same
    error."""
    return str(failure).startswith("Mismatched operations")
