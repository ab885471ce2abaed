"""The gradients of one step, from their hooks to their results (docs/horovod.md 4.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import Parameter

from coordsim.protocol.groups import GroupTable
from coordsim.protocol.messages import ReduceOp
from coordsim.protocol.submission import StepUnits, Unit
from real_backend.engine.engine import Engine
from real_backend.engine.handles import Handle
from real_backend.errors import CollectiveFailed
from real_backend.optimizer.compression import Compression
from real_backend.optimizer.rows import RowGradients, dense_elsewhere
from real_backend.requests import RequestBook, ready_event


@dataclass(slots=True)
class _Dense:
    """Gradients submitted as one unit, with the tensors that travel in their place."""

    handle: Handle
    members: list[tuple[str, torch.Tensor]]


class Reducer:
    """Reduces the gradients of one optimizer.

    Parameters that have never needed a gradient take no part: they are frozen, on all ranks.
    """

    def __init__(
        self, engine: Engine, names: dict[str, Parameter], groups: GroupTable, compression: Compression,
        passes: int, op: ReduceOp, scales: tuple[float, float], sparse_as_dense: bool,
    ) -> None:  # fmt: skip
        """``scales`` are the factors before and after the reduction."""
        self.engine = engine
        self.first = next(iter(names), "")
        """First part of the names, which no other optimizer of this job should have."""
        self.skip = False
        self.synchronized = False
        self._parameters = names
        self._groups = groups
        self._compression = compression
        self._passes = passes
        self.op = op
        self._before, self._after = scales
        self._sparse_as_dense = sparse_as_dense
        self._units = StepUnits((), GroupTable())
        self._delay = dict.fromkeys(names, passes)
        self._book = RequestBook()
        self._wire = {name: f"allreduce.{name}" for name in names}
        self._dense: list[_Dense] = []
        self._rows = RowGradients(engine, op, compression)
        self._hooked: set[str] = set()
        if groups.groups and groups.strict:
            engine.register_groups([[self._wire[name] for name in members] for members in groups.groups])
        if engine.ranks > 1:
            self._hook()

    @property
    def pending(self) -> bool:
        """Whether a submission has not been waited for."""
        return bool(self._dense or self._rows.pending)

    def synchronize(self) -> None:
        """Submit what no hook has submitted, wait for all, and put the results where the optimizer reads them.

        Raises CollectiveFailed after all others have ended, so that training can go on; ShutDown and PeerLost at once.
        """
        self.synchronized = True
        if self.engine.ranks == 1:
            return
        with torch.no_grad():
            for unit in [*self._units.rest(), *(Unit((name,)) for name in self._hook())]:
                self._submit(unit)
            dense, self._dense = self._dense, []
            self._delay = dict.fromkeys(self._parameters, self._passes)
            failures = [failure for each in dense if (failure := self._finish(each)) is not None]
            failures += self._rows.finish()
        if failures:
            raise failures[0]

    def _finish(self, dense: _Dense) -> CollectiveFailed | None:
        try:
            dense.handle.wait()
        except CollectiveFailed as failure:
            name, travelled = dense.members[0]
            if len(dense.members) > 1 or not dense_elsewhere(failure):
                return failure
            self._rows.submit(name, self._wire[name], self._parameters[name], travelled.to_sparse(1))
            return None
        for name, travelled in dense.members:
            parameter = self._parameters[name]
            if name in self._rows.dims:
                parameter.grad = travelled.to(parameter.dtype).to_sparse(self._rows.dims[name])
            elif parameter.grad is None:
                raise RuntimeError(f"the gradient of {name!r} was removed under way: call optimizer.zero_grad")
            elif travelled is not parameter.grad:
                parameter.grad.copy_(travelled)
        return None

    # Hooks.

    def _hook(self) -> list[str]:
        """Put a hook on every parameter that needs a gradient and has none yet, since it may have been frozen; return
        those."""
        if len(self._hooked) == len(self._parameters):
            return []
        fresh = [
            name for name, parameter in self._parameters.items()
            if parameter.requires_grad and name not in self._hooked
        ]  # fmt: skip
        for name in fresh:
            self._parameters[name].register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                self._on_gradient(name)
            )
        if fresh:
            self._hooked.update(fresh)
            names = [name for name in self._parameters if name in self._hooked]
            groups = [tuple(name for name in members if name in self._hooked) for members in self._groups.groups]
            self._units = StepUnits(names, GroupTable(tuple(filter(None, groups)), self._groups.strict))
        return fresh

    def _on_gradient(self, name: str) -> Callable[[torch.Tensor], None]:
        def arrived(_: torch.Tensor) -> None:
            self._delay[name] -= 1
            if self._delay[name] < 0:
                raise RuntimeError(
                    f"the gradient of {name!r} was computed more than backward_passes_per_step="
                    f"{self._passes} times before step(): call step() or synchronize() first, or raise it"
                )
            if self._delay[name] == 0:
                unit = self._units.ready(name)
                if unit is not None:
                    self._submit(unit)

        return arrived

    def _submit(self, unit: Unit) -> None:
        """Submit a unit. A gradient that is missing on this rank goes alone if it may, since it may be sparse on
        others."""
        together = []
        for name in unit.names:
            parameter = self._parameters[name]
            gradient = parameter.grad
            if not self._sparse_as_dense:
                gradient = self._rows.of(name, parameter, gradient)
            missing = gradient is None
            if gradient is None:
                gradient = parameter.grad = torch.zeros_like(parameter)
            if gradient.is_sparse:
                if not self._sparse_as_dense:
                    self._rows.submit(name, self._wire[name], parameter, gradient)
                    continue
                self._rows.dims[name] = gradient.sparse_dim()
                gradient = gradient.detach().to_dense()
            travels = self._compression.travels(gradient)
            if missing and not self._groups.strict:
                self._submit_dense([(name, travels)])
            else:
                together.append((name, travels))
        if together:
            self._submit_dense(together)

    def _submit_dense(self, members: list[tuple[str, torch.Tensor]]) -> None:
        requests = []
        for name, travels in members:
            wire = self._wire[name]
            request = self._book.request(
                wire, travels, reduce_op=self.op, prescale=self._before, postscale=self._after,
                group=self.engine.group_digest(wire),
            )  # fmt: skip
            requests.append((request, travels, travels))
        ready = ready_event([travels for _, travels in members])
        self._dense.append(_Dense(self.engine.submit(requests, ready=ready, grouped=True), members))
