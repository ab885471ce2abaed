"""Hooks submit each gradient when backward has accumulated it; ``step`` waits for all of them (docs/horovod.md 4.4)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import Parameter

from coordsim.protocol.groups import GroupTable
from coordsim.protocol.messages import ReduceOp
from coordsim.protocol.submission import StepUnits, Unit
from real_backend import job, ops
from real_backend.engine.engine import Engine
from real_backend.engine.handles import Handle
from real_backend.optimizer.compression import Compression
from real_backend.optimizer.naming import Groups, group_table, named


def DistributedOptimizer(  # noqa: N802
    optimizer: torch.optim.Optimizer, named_parameters: Iterable[tuple[str, Parameter]] | None = None, *,
    groups: Groups = None, compression: Compression | str | None = None, backward_passes_per_step: int = 1,
    op: ReduceOp = ReduceOp.AVERAGE, gradient_predivide_factor: float = 1.0, sparse_as_dense: bool = False,
    engine: Engine | None = None,
) -> Any:  # fmt: skip
    """``optimizer``, of its own class still, with gradients reduced over all ranks of ``engine``'s job.

    ``groups``: tensors submitted, and where the engine's groups are strict also reduced, together. ``compression``:
    ``"fp16"`` or ``"bf16"``. With ``backward_passes_per_step`` n a gradient travels after its n-th backward; the sum
    over passes is not divided. ``gradient_predivide_factor`` f divides by f before the sum and by N / f after it. A
    parameter without a gradient on this rank takes part with zeros, so that ranks may use different ones.

    Raises ValueError for names or groups that make no sense, NotRunning before :func:`real_backend.init`.
    """
    if backward_passes_per_step < 1:
        raise ValueError(f"backward_passes_per_step={backward_passes_per_step}: at least 1")
    if gradient_predivide_factor != 1.0 and op is not ReduceOp.AVERAGE:
        raise ValueError("gradient_predivide_factor needs op=Average")
    engine = engine or job.default_engine()
    names = named(optimizer, named_parameters)
    table = group_table(groups, names, engine.settings.strict_groups)
    base = type(optimizer)
    optimizer.__class__ = type(base.__name__, (_Distributed, base), {"_plain": base})
    assert isinstance(optimizer, _Distributed)
    factor = gradient_predivide_factor
    optimizer._reducer = _Reducer(
        engine, names, table, Compression.named(compression), backward_passes_per_step, op,
        (1.0 / factor, factor), sparse_as_dense,
    )  # fmt: skip
    return optimizer


class _Distributed(torch.optim.Optimizer):
    """Mixed in before the optimizer's own class."""

    _reducer: _Reducer

    def synchronize(self) -> None:
        """Wait until all gradients are reduced. Raises what ended them otherwise."""
        self._reducer.synchronize()

    @contextmanager
    def skip_synchronize(self) -> Iterator[None]:
        """``step`` in here does not wait: after a :meth:`synchronize` of one's own, to clip gradients say."""
        self._reducer.skip = True
        try:
            yield
        finally:
            self._reducer.skip = False

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        reducer = self._reducer
        if not reducer.skip:
            if reducer.synchronized:
                warnings.warn(
                    "step() waits again after synchronize(): put it into `with optimizer.skip_synchronize():`",
                    stacklevel=2,
                )
            reducer.synchronize()
        reducer.synchronized = False
        result = super().step(closure)
        reducer.engine.mark("step")
        return result

    def zero_grad(self, *args: Any, **more: Any) -> None:
        if self._reducer.pending:
            raise RuntimeError("zero_grad() while gradients are being reduced: call step() or synchronize() first")
        super().zero_grad(*args, **more)


class _Reducer:
    """Gradients of one step, from their hooks to their results."""

    def __init__(
        self, engine: Engine, names: dict[str, Parameter], groups: GroupTable, compression: Compression,
        passes: int, op: ReduceOp, scales: tuple[float, float], sparse_as_dense: bool,
    ) -> None:  # fmt: skip
        """``scales``: before and after the reduction."""
        self.engine = engine
        self.skip = False
        self.synchronized = False
        self._parameters = names
        self._compression = compression
        self._passes = passes
        self._op = op
        self._before, self._after = scales
        self._sparse_as_dense = sparse_as_dense
        self._units = StepUnits(names, groups)
        self._delay = dict.fromkeys(names, passes)
        self._book = ops.RequestBook()
        self._wire = {name: f"allreduce.{name}" for name in names}
        self._handles: list[tuple[Handle, list[tuple[Parameter, torch.Tensor]]]] = []
        self._sparse: list[tuple[Parameter, Handle, Handle]] = []
        self._hooked: set[str] = set()
        if groups.groups and groups.strict:
            engine.register_groups([[self._wire[name] for name in members] for members in groups.groups])
        if engine.ranks > 1:
            self._hook()

    @property
    def pending(self) -> bool:
        """Whether something was submitted that nobody has waited for."""
        return bool(self._handles or self._sparse)

    def synchronize(self) -> None:
        """Submit what no hook has, wait for all, and put the results where the optimizer looks."""
        if self.engine.ranks > 1:
            self._hook()
            for unit in self._units.rest():
                self._submit(unit)
            handles, self._handles = self._handles, []
            sparse, self._sparse = self._sparse, []
            self._delay = dict.fromkeys(self._parameters, self._passes)
            for handle, reduced in handles:
                handle.wait()
                for parameter, travelled in reduced:
                    if travelled is not parameter.grad:
                        assert parameter.grad is not None
                        parameter.grad.copy_(travelled)
            for parameter, indices, values in sparse:
                self._place_sparse(parameter, indices.wait(), values.wait())
        self.synchronized = True

    # Hooks.

    def _hook(self) -> None:
        """On every parameter that wants a gradient and has no hook yet: it may have been frozen before."""
        if len(self._hooked) == len(self._parameters):
            return
        for name, parameter in self._parameters.items():
            if parameter.requires_grad and name not in self._hooked:
                self._hooked.add(name)
                parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                    self._on_gradient(name)
                )

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
        requests = []
        reduced = []
        for name in unit.names:
            parameter = self._parameters[name]
            gradient = parameter.grad
            if gradient is None:
                gradient = parameter.grad = torch.zeros_like(parameter)
            if gradient.is_sparse:
                if not self._sparse_as_dense:
                    self._submit_sparse(name, parameter, gradient)
                    continue
                gradient = parameter.grad = gradient.to_dense()
            travels = self._compression.travels(gradient)
            wire = self._wire[name]
            request = self._book.request(
                wire, travels, reduce_op=self._op, prescale=self._before, postscale=self._after,
                group=self.engine.group_digest(wire),
            )  # fmt: skip
            requests.append((request, travels, travels))
            reduced.append((parameter, travels))
        if requests:
            ready = ops.ready_event([payload for _, payload, _ in requests])
            self._handles.append((self.engine.submit(requests, ready=ready, grouped=True), reduced))

    # Sparse gradients: every rank gets all ranks' rows.

    def _submit_sparse(self, name: str, parameter: Parameter, gradient: torch.Tensor) -> None:
        rows = gradient.coalesce()
        indices = ops.allgather_async(rows.indices().t().contiguous(), f"{name}.indices", engine=self.engine)
        values = ops.allgather_async(rows.values().contiguous(), f"{name}.values", engine=self.engine)
        self._sparse.append((parameter, indices, values))

    def _place_sparse(self, parameter: Parameter, indices: torch.Tensor, values: torch.Tensor) -> None:
        if self._op is ReduceOp.AVERAGE:
            values = values / self.engine.ranks
        parameter.grad = torch.sparse_coo_tensor(
            indices.t(), values, parameter.shape, dtype=values.dtype, device=values.device, check_invariants=False
        )
