"""An optimizer that keeps its own class and whose ``step`` waits until all gradients are reduced."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import Parameter

from coordsim.protocol.messages import ReduceOp
from real_backend import job, ops
from real_backend.engine.engine import Engine
from real_backend.optimizer.compression import Compression
from real_backend.optimizer.naming import Groups, group_table, named
from real_backend.optimizer.reducer import Reducer


def DistributedOptimizer(  # noqa: N802
    optimizer: torch.optim.Optimizer, named_parameters: Iterable[tuple[str, Parameter]] | None = None, *,
    groups: Groups = None, compression: Compression | str | None = None, backward_passes_per_step: int = 1,
    op: ReduceOp = ReduceOp.AVERAGE, gradient_predivide_factor: float = 1.0, sparse_as_dense: bool = False,
    engine: Engine | None = None,
) -> Any:  # fmt: skip
    """Return ``optimizer``, of its own class still, with gradients reduced over all ranks of ``engine``'s job.

    ``groups`` are tensors submitted together and, where the engine's groups are strict, reduced together.
    ``compression`` is ``"fp16"`` or ``"bf16"``. With ``backward_passes_per_step`` n a gradient travels after its n-th
    backward pass; the sum over passes is not divided. ``gradient_predivide_factor`` f divides by f before the sum and
    by N / f after it. A parameter without a gradient on this rank takes part with zeros, so that ranks may use
    different ones; a parameter that has always been frozen, on all ranks, does not travel. With ``sparse_as_dense``
    sparse gradients travel dense, and come back sparse.

    Code that reads or changes gradients before ``step`` (clipping, a GradScaler) has to call ``synchronize`` first.
    With a closure its loss is averaged, too, so that all ranks take the same decisions.

    Raises ValueError for invalid names or groups, NotRunning before :func:`real_backend.init`.
    """
    if isinstance(optimizer, _Distributed):
        raise ValueError("this optimizer is distributed already")
    if backward_passes_per_step < 1:
        raise ValueError(f"backward_passes_per_step={backward_passes_per_step}: at least 1")
    if gradient_predivide_factor != 1.0 and op is not ReduceOp.AVERAGE:
        raise ValueError("gradient_predivide_factor needs op=Average")
    engine = engine or job.default_engine()
    names = named(optimizer, named_parameters)
    table = group_table(groups, names, engine.settings.strict_groups)
    if not hasattr(vars(optimizer).get("step", _Distributed.step), "_wrapped_by_lr_sched"):
        raise ValueError("optimizer.step was replaced, so nothing would be reduced: replace it afterwards")
    factor = gradient_predivide_factor
    reducer = Reducer(
        engine, names, table, Compression.named(compression), backward_passes_per_step, op,
        (1.0 / factor, factor), sparse_as_dense,
    )  # fmt: skip
    vars(optimizer).pop("step", None)  # A scheduler wraps it to check that step is called; this class reports that.
    base = type(optimizer)
    optimizer.__class__ = type(base.__name__, (_Distributed, base), {"_plain": base})
    assert isinstance(optimizer, _Distributed)
    optimizer._reducer = reducer
    return optimizer


class _Distributed(torch.optim.Optimizer):
    """Mixed in before the optimizer's own class."""

    _reducer: Reducer

    def synchronize(self) -> None:
        """Wait until all gradients are reduced. Raises the error of a reduction that failed."""
        self._reducer.synchronize()

    @contextmanager
    def skip_synchronize(self) -> Iterator[None]:
        """Make ``step`` inside the context not wait, after a ``synchronize`` of the script's own, for example to
        clip."""
        self._reducer.skip = True
        try:
            yield
        finally:
            self._reducer.skip = False

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        reducer = self._reducer
        self._opt_called = True  # A learning-rate scheduler looks for this attribute.
        if closure is not None and not reducer.skip:
            closure = self._reduced(closure)
        elif not reducer.skip:
            if reducer.synchronized:
                warnings.warn(
                    "step() waits again after synchronize(): put it into `with optimizer.skip_synchronize():`",
                    stacklevel=2,
                )
            reducer.synchronize()
        result = super().step(closure)
        reducer.synchronized = False
        reducer.engine.mark("step")
        return result

    step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]

    def _reduced(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """Return ``closure`` with its gradients reduced and its loss averaged over all ranks when it returns."""
        reducer = self._reducer

        def reduced() -> Any:
            loss = closure()
            reducer.synchronize()
            if loss is None or reducer.engine.ranks == 1:
                return loss
            tensor = loss.detach() if isinstance(loss, torch.Tensor) else torch.tensor(float(loss), dtype=torch.float64)
            op = ReduceOp.SUM if reducer.op is ReduceOp.SUM else ReduceOp.AVERAGE
            return ops.allreduce(tensor, f"loss.{reducer.first}", op, engine=reducer.engine)

        return reduced

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Raise RuntimeError, because the new parameters' gradients would not be reduced."""
        raise RuntimeError("add all parameter groups before DistributedOptimizer")

    def zero_grad(self, *args: Any, **more: Any) -> None:
        if self._reducer.pending:
            raise RuntimeError("zero_grad() while gradients are being reduced: call step() or synchronize() first")
        super().zero_grad(*args, **more)
